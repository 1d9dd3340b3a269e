"""Shapes, constants, Range, OneHot, NonZero: ONNX's node tests, old versions, edges, scales."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_arch.errors import InvalidAttributeError, InvalidInputError

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case

WITH_CASES = {
    "Shape", "Size", "Constant", "ConstantOfShape", "Range", "EyeLike", "OneHot", "NonZero",
}  # fmt: skip


@pytest.mark.parametrize("case", cases(WITH_CASES), ids=str)
def test_onnx_node_case_gives_the_expected_output(case: Case) -> None:
    check_case(case)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 4), st.integers(-9, 9), st.none() | st.integers(-9, 9))
def test_shape_clamps_start_and_end_to_the_rank(rank: int, start: int, end: int | None) -> None:
    x = np.zeros(range(2, 2 + rank))
    last = rank if end is None else end
    low, high = (min(max(at + rank if at < 0 else at, 0), rank) for at in (start, last))
    expected = [dim for axis, dim in enumerate(x.shape) if low <= axis < high]
    attributes = {} if end is None else {"end": end}
    actual = call("Shape", x, opset=15, start=start, **attributes)
    assert actual.dtype == np.int64
    assert actual.tolist() == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value": np.array([1.5], ml_dtypes.bfloat16)}, np.array([1.5], ml_dtypes.bfloat16)),
        ({"sparse_value": np.eye(2, dtype=np.int8)}, np.eye(2, dtype=np.int8)),
        ({"value_float": 0.1}, np.float32(0.1)),
        ({"value_floats": [0.1, 2.0]}, np.float32([0.1, 2])),
        ({"value_int": -(2**63)}, np.int64(-(2**63))),
        ({"value_ints": []}, np.zeros(0, np.int64)),
        ({"value_string": "a"}, np.array("a", object)),
        ({"value_strings": ["a", "bc"]}, np.array(["a", "bc"], object)),
    ],
)
def test_constant_has_the_dtype_of_its_attribute(attributes: dict[str, Any], expected: np.ndarray) -> None:
    actual = call("Constant", opset=13, **attributes)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("attributes", [{}, {"value_int": 1, "value_float": 1.0}])
def test_constant_of_no_or_two_values_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidAttributeError, match="exactly one"):
        call("Constant", opset=13, **attributes)


def test_constant_of_shape_defaults_to_float32_zeros_and_keeps_the_dtype_of_its_value() -> None:
    zeros = call("ConstantOfShape", np.array([2, 0]), opset=9)
    assert (zeros.dtype, zeros.shape) == (np.float32, (2, 0))
    ones = call("ConstantOfShape", np.array([], np.int64), opset=20, value=np.array([1], ml_dtypes.bfloat16))
    assert (ones.dtype, ones.shape, float(ones)) == (ml_dtypes.bfloat16, (), 1)


@pytest.mark.parametrize("k", [-5, -1, 0, 2, 9])
def test_eye_like_takes_the_type_of_its_input_or_of_its_attribute(k: int) -> None:
    x = np.zeros((3, 4), np.float16)
    np.testing.assert_array_equal(call("EyeLike", x, opset=9, k=k), np.eye(3, 4, k, np.float16), strict=True)
    as_int = call("EyeLike", x, opset=22, k=k, dtype=onnx.TensorProto.INT8)
    np.testing.assert_array_equal(as_int, np.eye(3, 4, k, np.int8), strict=True)
    with pytest.raises(InvalidInputError, match="two axes"):
        call("EyeLike", x[0], opset=9)


@settings(max_examples=80, deadline=None)
@given(st.integers(-30, 30), st.integers(-30, 30), st.integers(-5, 5).filter(bool))
def test_range_of_integers_is_that_of_python(start: int, limit: int, delta: int) -> None:
    actual = call("Range", *(np.array(value, np.int32) for value in (start, limit, delta)), opset=11)
    assert actual.dtype == np.int32
    assert actual.tolist() == list(range(start, limit, delta))


def test_range_of_int64_extremes_does_not_overflow() -> None:
    low, high = -(2**63), 2**63 - 1
    actual = call("Range", np.array(low), np.array(high), np.array(2**62), opset=11)
    assert actual.tolist() == list(range(low, high, 2**62))
    with pytest.raises(InvalidInputError, match="delta"):
        call("Range", np.array(1.0), np.array(2.0), np.array(0.0), opset=11)


def test_range_scale_allows_repeated_addition_in_float32_and_condemns_another_start() -> None:
    inputs = [np.array(value, np.float32) for value in (1.3, 700.0, 0.7)]
    (actual,) = run_onnxruntime("Range", inputs, {}, opset=11)
    assert beyond(actual, "Range", *inputs, opset=11) == 0
    added = np.add.accumulate(np.concatenate([[inputs[0]], np.full(len(actual) - 1, inputs[2])]), dtype=np.float32)
    assert np.any(added != (inputs[0] + np.arange(len(actual), dtype=np.float32) * inputs[2]))
    assert beyond(added, "Range", *inputs, opset=11) == 0
    (moved,) = run_onnxruntime("Range", [np.array(1.35, np.float32), *inputs[1:]], {}, opset=11)
    assert beyond(moved[: len(actual)], "Range", *inputs, opset=11) == len(actual)


@pytest.mark.parametrize(("opset", "row"), [(9, [0, 0, 0]), (11, [0, 0, 1])])
def test_one_hot_of_a_negative_index_is_off_before_opset_11(opset: int, row: list[int]) -> None:
    values = np.array([0, 1], np.int8)
    actual = call("OneHot", np.array([-1, 1, 3, -4]), np.array(3), values, opset=opset)
    assert actual.dtype == np.int8
    assert actual.tolist() == [row, [0, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_one_hot_puts_its_axis_where_the_attribute_says(axis: int) -> None:
    indices = np.random.default_rng(1).integers(0, 4, size=(2, 3))
    actual = call("OneHot", indices.astype(np.float32), np.array([4.0]), np.array([-1.5, 2.5]), opset=11, axis=axis)
    last = np.moveaxis(actual, axis, -1)
    for at in np.ndindex(2, 3):
        assert last[at].tolist() == [2.5 if c == indices[at] else -1.5 for c in range(4)]
    with pytest.raises(InvalidAttributeError, match="axis"):
        call("OneHot", indices, np.array(4), np.array([0, 1]), opset=11, axis=3)


def test_non_zero_of_scalars_and_matrices_has_a_row_per_axis() -> None:
    assert call("NonZero", np.array(3.0), opset=13).shape == (0, 1)
    assert call("NonZero", np.array(0.0), opset=13).shape == (0, 0)
    found = call("NonZero", np.array([[0, np.nan], [-0.0, 2]]), opset=9)
    assert found.dtype == np.int64
    assert found.tolist() == [[0, 1], [1, 1]]
    assert call("NonZero", np.zeros((2, 0, 3)), opset=9).shape == (3, 0)
