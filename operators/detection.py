"""Choosing boxes: NonMaxSuppression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def sides(self) -> Array:
        """(boxes, 2)."""
        return self.high - self.low

    @cached_property
    def areas(self) -> Array:
        """(boxes,)."""
        return self.sides[:, 0] * self.sides[:, 1]

    @cached_property
    def area_errors(self) -> Array:
        """(boxes,): each side is a difference of two corners, rounded once; areas multiply two and round again."""
        return (2 * self.corner_error + ROUND * self.sides).sum(axis=1) * self.sides.max(axis=1) + ROUND * self.areas

    @cached_property
    def exact(self) -> Array:
        """(boxes,): boxes whose corners, sides and area float32 holds."""
        return _fits(self.sides).all(axis=1) & _fits(self.areas) & (self.corner_error == 0).all(axis=1)

    def common(self, index: int, others: Array) -> tuple[Array, Array]:
        """Sides (others, 2) and areas (others,) of the intersections of a box with others."""
        sides = np.minimum(self.high[index], self.high[others]) - np.maximum(self.low[index], self.low[others])
        np.maximum(sides, 0.0, out=sides)
        return sides, sides[:, 0] * sides[:, 1]

    def overlaps(self, index: int, others: Array) -> Array:
        """Intersection over union of a box with others; 0 where one is empty."""
        _, common = self.common(index, others)
        union = self.areas[others] + self.areas[index] - common
        empty = (common <= 0) | (union <= 0) | (self.areas[others] <= 0) | (self.areas[index] <= 0)
        return np.where(empty, 0.0, common / np.where(empty, 1.0, union))

    def overlap_errors(self, index: int, others: Array, ratio: Array) -> Array:
        """What those may err by when they are computed in float32; 0 where nothing is rounded."""
        sides, common = self.common(index, others)
        union = self.areas[others] + self.areas[index] - common
        side_error = 2 * np.maximum(self.corner_error[index], self.corner_error[others]) + ROUND * sides
        common_error = side_error @ np.ones(2) * sides.max(axis=1) + ROUND * common
        both = self.areas[others] + self.areas[index]
        total_error = self.area_errors[others] + self.area_errors[index] + common_error + 2 * ROUND * both
        error = (common_error + ratio * total_error) / np.where(union > 0, union, 1.0) + ROUND * ratio
        exact = self.exact[others] & self.exact[index]
        exact &= _fits(sides).all(axis=1) & _fits(common) & _fits(both) & _fits(union)
        return np.where((ratio == 0) | exact, 0.0, error)


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

    def choose(self, boxes: _Boxes, scores: Array, *, doubting: bool) -> tuple[list[int], str]:
        """(chosen boxes in order, the first decision that rounding in float32 may change, or "").

        Args:
            boxes: of the image.
            scores: (boxes,), of the class.
            doubting: look for such a decision.
        """
        order = self.order(scores)
        chosen: list[int] = []
        suppressed, surely = np.zeros((2, len(order)), bool)
        near = np.full(len(order), -1)  # a chosen box whose overlap is within an error of the threshold
        doubt = ""
        for place, index in enumerate(order):
            if len(chosen) >= self.limit:
                break
            if near[place] >= 0 and not surely[place] and not doubt:
                doubt = f"rounding alone decides whether box {near[place]} suppresses box {index}"
            if suppressed[place]:
                continue
            chosen.append(int(index))
            behind = slice(place + 1, None)
            ratio = boxes.overlaps(int(index), order[behind])
            suppressed[behind] |= ratio > self.overlap
            if doubting:
                error = boxes.overlap_errors(int(index), order[behind], ratio)
                surely[behind] |= ratio - error > self.overlap
                close = (np.abs(ratio - self.overlap) <= error) & (error > 0) & (near[behind] < 0)
                near[behind][close] = index
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


def _selected(
    boxes: Array, scores: Array, suppression: _Suppression, center_point_box: int, *, doubting: bool = False
) -> tuple[Array, list[str]]:
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[2] != 4 or scores.shape[::2] != boxes.shape[:2]:
        raise InvalidInputError(f"NonMaxSuppression: boxes {boxes.shape} and scores {scores.shape} do not go together")
    rows: list[tuple[int, int, int]] = []
    doubts = []
    for n, image in enumerate(boxes):
        frames = _boxes(image, center_point_box)
        for c, points in enumerate(scores[n]):
            chosen, doubt = suppression.choose(frames, points, doubting=doubting)
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
    _, doubts = _selected(boxes, scores, _suppression(*given, keeps_equal=False), center_point_box, doubting=True)
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
