"""NonMaxSuppression: official cases, a plain search, ONNX Runtime, decisions that rounding makes, faults."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.errors import InvalidInputError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case, check_signature, examples, versions

OPERATORS = {"NonMaxSuppression"}


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def number(value: float, dtype: Any = np.float32) -> Array:
    """A stored tensor of one element."""
    return np.array([value], dtype)


def rational_overlap(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    """Intersection over union of two boxes given by any two opposite corners."""
    common, areas = Fraction(1), [Fraction(1), Fraction(1)]
    for axis in range(2):
        (low_a, high_a), (low_b, high_b) = (sorted((box[axis], box[axis + 2])) for box in (a, b))
        common *= max(Fraction(0), min(high_a, high_b) - max(low_a, low_b))
        areas = [areas[0] * (high_a - low_a), areas[1] * (high_b - low_b)]
    union = sum(areas) - common
    return common / union if common > 0 and union > 0 else Fraction(0)


def searched(boxes: Array, scores: Array, limit: int, overlap: float, threshold: float | None) -> list[list[int]]:
    """The rows that the specification asks for, in exact arithmetic."""
    rows = []
    for n, c in np.ndindex(*scores.shape[:2]):
        exact = [[Fraction(float(v)) for v in box] for box in boxes[n]]
        order = sorted(range(len(exact)), key=lambda i: (-scores[n, c, i], i))
        kept: list[int] = []
        for i in order:
            if threshold is not None and not scores[n, c, i] > threshold:
                continue
            if len(kept) < limit and all(rational_overlap(exact[i], exact[j]) <= Fraction(overlap) for j in kept):
                kept.append(i)
        rows += [[n, c, i] for i in kept]
    return rows


@examples
@given(
    st.integers(0, 10**6),
    st.integers(0, 12),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    st.sampled_from([None, 0.0, 0.5]),
)
def test_choice_is_that_of_a_plain_search(seed: int, limit: int, overlap: float, threshold: float | None) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 8, (2, 9, 4)).astype(np.float32)
    scores = (rng.integers(-4, 9, (2, 3, 9)) / np.float32(8)).astype(np.float32)
    inputs = [boxes, scores, np.array(limit), number(overlap), None if threshold is None else number(threshold)]
    y = call("NonMaxSuppression", *inputs, opset=11)
    assert y.dtype == np.int64
    assert y.tolist() == searched(boxes, scores, limit, float(np.float32(overlap)), threshold)


def scattered(seed: int, count: int = 60) -> tuple[Array, Array]:
    """Boxes of all sizes, two opposite corners in any order, and scores of three classes."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 50, (2, count, 2)), rng.uniform(-20, 20, (2, count, 2))
    boxes = np.concatenate([corner, corner + size], axis=-1).astype(np.float32)
    return boxes, rng.standard_normal((2, 3, count)).astype(np.float32)


@pytest.mark.parametrize("center_point_box", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_onnxruntime_chooses_the_same(seed: int, center_point_box: int) -> None:
    boxes, scores = scattered(seed)
    if center_point_box:
        boxes[..., 2:] = np.abs(boxes[..., 2:] - boxes[..., :2])
    inputs = [boxes, scores, number(20, np.int64), number(0.3), number(-0.5)]
    attributes = {"center_point_box": center_point_box}
    (actual,) = run_onnxruntime("NonMaxSuppression", inputs, attributes, opset=11)
    assert len(actual) > 20
    assert beyond(actual, "NonMaxSuppression", *inputs, opset=11, **attributes) == 0


def test_flipped_and_shifted_boxes_are_the_same_boxes() -> None:
    boxes, scores = scattered(7)
    limits = (number(20, np.int64), number(0.3))
    y = call("NonMaxSuppression", boxes, scores, *limits, opset=11)
    for other in (boxes[..., [2, 3, 0, 1]], boxes[..., [1, 0, 3, 2]], boxes * np.float32(-2)):
        np.testing.assert_array_equal(call("NonMaxSuppression", other, scores, *limits, opset=11), y)


def test_without_a_limit_nothing_is_chosen() -> None:
    boxes, scores = scattered(8)
    assert call("NonMaxSuppression", boxes, scores, opset=11).shape == (0, 3)
    assert call("NonMaxSuppression", boxes, scores, np.array(-3), opset=11).shape == (0, 3)


def two_boxes(shift: float, threshold: float) -> list[Any]:
    """Two unit squares, the second shifted, and the overlap that is allowed."""
    boxes = np.array([[[0, 0, 1, 1], [0, shift, 1, 1 + shift]]], np.float32)
    return [boxes, np.array([[[0.9, 0.8]]], np.float32), np.array(5), number(threshold)]


def test_overlap_that_is_exactly_the_threshold_is_kept() -> None:
    y = call("NonMaxSuppression", *two_boxes(0.5, 1 / 3), opset=11)  # 1/3 rounds up in float32
    assert len(y) == 2
    exactly = np.array([[[0, 0, 4, 2], [0, 0, 2, 2]]], np.float32)
    inputs = [exactly, *two_boxes(0.5, 0.5)[1:]]
    assert call("NonMaxSuppression", *inputs, opset=11).tolist() == [[0, 0, 0], [0, 0, 1]]
    assert beyond(np.array([[0, 0, 0], [0, 0, 1]]), "NonMaxSuppression", *inputs, opset=11) == 0
    assert beyond(np.array([[0, 0, 1], [0, 0, 0]]), "NonMaxSuppression", *inputs, opset=11) == 2


@pytest.mark.parametrize(("shift", "is_open"), [(0.1, True), (0.1001, False)])
def test_overlap_within_rounding_of_the_threshold_is_not_determined(shift: float, is_open: bool) -> None:
    inputs = two_boxes(shift, 0.9 / 1.1)
    node = prepare("NonMaxSuppression", inputs, {}, opset=11)
    outputs = node.outputs()
    if not is_open:
        assert node.scales(outputs) is not None
        return
    with pytest.raises(
        InvalidInputError, match="image 0, class 0: rounding alone decides whether box 0 suppresses box 1"
    ):
        node.scales(outputs)


def test_box_that_is_suppressed_anyway_leaves_no_doubt() -> None:
    boxes, scores, limit, overlap = two_boxes(0.1, 0.9 / 1.1)
    boxes = np.concatenate([boxes, boxes[:, 1:]], axis=1)
    scores = np.array([[[0.9, 0.7, 0.8]]], np.float32)
    boxes[0, 2] = [0, 0.11, 1, 1.11]  # not suppressed by the first; suppresses the second, which is near the first
    node = prepare("NonMaxSuppression", [boxes, scores, limit, overlap], {}, opset=11)
    outputs = node.outputs()
    assert outputs[0].tolist() == [[0, 0, 0], [0, 0, 2]]
    assert node.scales(outputs) is not None


def test_score_that_equals_the_threshold_is_not_determined() -> None:
    boxes = np.array([[[0, 0, 1, 1], [5, 5, 6, 6]]], np.float32)
    scores = np.array([[[0.75, 0.5]]], np.float32)
    for threshold, is_open in ((0.5, True), (0.25, False), (0.625, False)):
        node = prepare("NonMaxSuppression", [boxes, scores, np.array(5), number(0.5), number(threshold)], {}, opset=11)
        outputs = node.outputs()
        if is_open:
            with pytest.raises(InvalidInputError, match="a score equals the threshold"):
                node.scales(outputs)
        else:
            assert node.scales(outputs) is not None


def test_fault_differs() -> None:
    boxes, scores = scattered(9)
    inputs = [boxes, scores, number(60, np.int64), number(0.3)]
    y = call("NonMaxSuppression", *inputs, opset=11)
    again = call("NonMaxSuppression", *inputs[:3], number(0.2), opset=11)
    by_class = y[np.lexsort((y[:, 2], y[:, 1], y[:, 0]))]
    assert again.shape != y.shape
    assert beyond(by_class, "NonMaxSuppression", *inputs, opset=11) > 0
    assert beyond(np.roll(y, 1, axis=1), "NonMaxSuppression", *inputs, opset=11) > 0


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([np.zeros((1, 3, 5), np.float32), np.zeros((1, 1, 3), np.float32)], "do not go together"),
        ([np.zeros((1, 3, 4), np.float32), np.zeros((1, 1, 4), np.float32)], "do not go together"),
        ([np.zeros((1, 3, 4), np.float32), np.zeros((1, 1, 3), np.float32), None, number(1.5)], "outside"),
    ],
)
def test_impossible_input_is_named(inputs: list[Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call("NonMaxSuppression", *inputs, opset=11)
