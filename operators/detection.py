"""Choosing boxes: NonMaxSuppression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError
from .registry import kernel
from .scale import Array, Rule, Scale

ROUND = 2.0**-24
"""Half a unit in the last place of float32, in which boxes are given and compared."""


@dataclass(frozen=True)
class _Boxes:
    """The boxes of one image.

    Attributes:
        low: (boxes, 2), the smaller corner; `high` the larger one.
        corner_error: (boxes, 2), what computing the corners in float32 may err by; 0 where they are given.
    """

    low: Array
    high: Array
    corner_error: Array

    def overlaps(self, index: int, others: Array) -> tuple[Array, Array]:
        """Intersection over union of a box with others, and what it may err by in float32; 0 where one is empty."""
        low, high = np.maximum(self.low[index], self.low[others]), np.minimum(self.high[index], self.high[others])
        sides = np.maximum(high - low, 0.0)
        areas, own = np.prod(self.high - self.low, axis=1)[others], np.prod(self.high[index] - self.low[index])
        common = np.prod(sides, axis=1)
        union = areas + own - common
        empty = (common <= 0) | (union <= 0) | (areas <= 0) | (own <= 0)
        union = np.where(empty, 1.0, union)
        # Each side is a difference of two corners, rounded once; areas multiply two of them and round again.
        side_error = 2 * np.maximum(self.corner_error[index], self.corner_error[others]) + ROUND * sides
        common_error = side_error @ np.ones(2) * sides.max(axis=1) + ROUND * common
        full = self.high - self.low
        spread = (2 * self.corner_error + ROUND * full).sum(axis=1) * full.max(axis=1) + ROUND * np.prod(full, axis=1)
        total_error = spread[others] + spread[index] + common_error + 2 * ROUND * (areas + own)
        ratio = np.where(empty, 0.0, common / union)
        error = (common_error + ratio * total_error) / union + ROUND * ratio
        exact = _fits(sides).all(axis=1) & _fits(full[others]).all(axis=1) & _fits(full[index]).all()
        exact &= _fits(common) & _fits(areas) & _fits(own) & _fits(areas + own) & _fits(union)
        exact &= (self.corner_error[others] == 0).all(axis=1) & (self.corner_error[index] == 0).all()
        return ratio, np.where(empty | exact, 0.0, error)


def _fits(x: Array) -> Array:
    """Where float32 holds a value, so that computing it rounds nothing."""
    return np.asarray(np.asarray(x, np.float32) == x)


def _boxes(boxes: Array, center_point_box: int) -> _Boxes:
    if center_point_box:
        half = np.abs(boxes[:, 2:]) / 2
        low, high = boxes[:, :2] - half, boxes[:, :2] + half
        return _Boxes(low, high, ROUND * (np.abs(boxes[:, :2]) + half))
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    return _Boxes(low, high, np.zeros(low.shape))


@dataclass(frozen=True)
class _Suppression:
    """What boxes are chosen by.

    Attributes:
        limit: how many boxes of a class are chosen at most.
        overlap: a box that overlaps a chosen one by more is suppressed.
        threshold: boxes with a smaller score are left out; None: none.
        keeps_equal: whether a score equal to the threshold stays.
    """

    limit: int
    overlap: float
    threshold: float | None
    keeps_equal: bool

    def order(self, scores: Array) -> Array:
        """Candidates by falling score; equal scores by index, as TensorFlow and ONNX Runtime take them."""
        order = np.argsort(-scores, kind="stable")
        if self.threshold is None:
            return order
        chosen = scores[order]
        return order[chosen >= self.threshold if self.keeps_equal else chosen > self.threshold]

    def choose(self, boxes: _Boxes, scores: Array) -> tuple[list[int], str]:
        """(chosen boxes in order, the first decision that rounding in float32 may change, or "")."""
        chosen: list[int] = []
        doubt = ""
        for index in self.order(scores):
            if len(chosen) >= self.limit:
                break
            ratio, error = boxes.overlaps(int(index), np.array(chosen, np.int64))
            suppressed = bool((ratio > self.overlap).any())
            surely = bool((ratio - error > self.overlap).any())
            near = (np.abs(ratio - self.overlap) <= error) & (error > 0)
            if not surely and near.any() and not doubt:
                other = chosen[int(np.argmax(near))]
                doubt = f"rounding alone decides whether box {other} suppresses box {int(index)}"
            if not suppressed:
                chosen.append(int(index))
        return chosen, doubt


def _suppression(
    max_output_boxes_per_class: Array | None,
    iou_threshold: Array | None,
    score_threshold: Array | None,
    keeps_equal: bool,
) -> _Suppression:
    def number(x: Array | None, default: float) -> float:
        return default if x is None or x.size == 0 else float(x.reshape(-1)[0])

    overlap = number(iou_threshold, 0.0)
    if not 0 <= overlap <= 1:
        raise InvalidInputError(f"NonMaxSuppression: iou_threshold {overlap} is outside [0, 1]")
    threshold = None if score_threshold is None or score_threshold.size == 0 else number(score_threshold, 0.0)
    limit = max(0, int(number(max_output_boxes_per_class, 0)))
    return _Suppression(limit, overlap, threshold, keeps_equal)


def _selected(boxes: Array, scores: Array, suppression: _Suppression, center_point_box: int) -> tuple[Array, list[str]]:
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[2] != 4 or scores.shape[::2] != boxes.shape[:2]:
        raise InvalidInputError(f"NonMaxSuppression: boxes {boxes.shape} and scores {scores.shape} do not go together")
    rows: list[tuple[int, int, int]] = []
    doubts = []
    for n, image in enumerate(boxes):
        frames = _boxes(image, center_point_box)
        for c, points in enumerate(scores[n]):
            chosen, doubt = suppression.choose(frames, points)
            rows += [(n, c, index) for index in chosen]
            doubts += [f"image {n}, class {c}: {doubt}"] if doubt else []
    return np.array(rows, np.int64).reshape(-1, 3), doubts


def non_max_suppression_scale(
    y: Array,
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    /,
    *,
    center_point_box: int = 0,
) -> Scale:
    """Exact: which boxes are chosen is determined, and in which order.

    Raises:
        InvalidInputError: it is not: an overlap is within a rounding error of the threshold; or a score equals the
            threshold, where the specification's text keeps the box and ONNX's own implementation drops it.
    """
    given = (max_output_boxes_per_class, iou_threshold, score_threshold)
    _, doubts = _selected(boxes, scores, _suppression(*given, keeps_equal=False), center_point_box)
    if doubts:
        raise InvalidInputError(f"NonMaxSuppression is not determined: {doubts[0]}")
    if score_threshold is not None and (scores == score_threshold.reshape(-1)[0]).any():
        other, _ = _selected(boxes, scores, _suppression(*given, keeps_equal=True), center_point_box)
        if not np.array_equal(other, y):
            raise InvalidInputError("NonMaxSuppression is not determined: a score equals the threshold")
    return Scale(np.zeros(()), 0, Rule.EXACT)


def non_max_suppression_by_corners(
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    /,
    *,
    center_point_box: int = 0,
) -> Array:
    """Boxes with the highest scores that do not overlap a chosen one too much, for every image and class.

    Args:
        boxes: (N, boxes, 4): two corners y1, x1, y2, x2, or with `center_point_box` x, y, width, height.
        scores: (N, classes, boxes).
        max_output_boxes_per_class: a scalar; 0 by default: none.
        iou_threshold: an overlap (intersection over union) above it suppresses; 0 by default.
        score_threshold: boxes that do not exceed it are left out.
        center_point_box: 0 or 1.

    Returns:
        (chosen, 3) int64: image, class, box; by image, class and falling score.

    Raises:
        InvalidInputError: shapes that do not go together, or a threshold outside [0, 1].

    Spec: NonMaxSuppression, since 10
    """
    given = (max_output_boxes_per_class, iou_threshold, score_threshold)
    return _selected(boxes, scores, _suppression(*given, keeps_equal=False), center_point_box)[0]


kernel("NonMaxSuppression", since=10, scale=non_max_suppression_scale)(non_max_suppression_by_corners)
