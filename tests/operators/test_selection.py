"""ArgMax, ArgMin, TopK, Unique, Hardmax: ONNX's node tests, plain loops, ties, NaN, old versions, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidInputError
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime, verdict_on
from .node_cases import Case, cases, check_case


@pytest.mark.parametrize("case", cases({"ArgMax", "ArgMin", "TopK", "Unique", "Hardmax"}), ids=str)
def test_onnx_node_case_gives_the_expected_output(case: Case) -> None:
    check_case(case)


WITH_TIES = arrays(np.float64, array_shapes(max_dims=3, max_side=4), elements=st.integers(-2, 2))


@settings(max_examples=80, deadline=None)
@given(WITH_TIES, st.data())
def test_arg_max_and_arg_min_take_the_first_or_the_last_of_equals(x: Array, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    for op_type, best in (("ArgMax", max), ("ArgMin", min)):
        first = call(op_type, x, opset=1, axis=axis)
        last = call(op_type, x, opset=12, axis=axis, select_last_index=1, keepdims=0)
        assert first.dtype == last.dtype == np.int64
        assert np.expand_dims(last, axis).shape == first.shape
        lines = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).tolist()
        found = zip(np.moveaxis(first, axis, -1).reshape(-1), last.reshape(-1), lines, strict=True)
        for from_front, from_back, line in found:
            assert from_front == line.index(best(line))
            assert from_back == len(line) - 1 - line[::-1].index(best(line))


@settings(max_examples=80, deadline=None)
@given(WITH_TIES, st.data(), st.booleans())
def test_top_k_sorts_and_puts_the_lower_index_first(x: Array, data: st.DataObject, largest: bool) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    k = data.draw(st.integers(0, x.shape[axis]))
    values, indices = call("TopK", x, np.array([k]), opset=11, axis=axis, largest=int(largest))
    assert indices.dtype == np.int64
    lines = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    at = np.moveaxis(indices, axis, -1).reshape(len(lines), k)
    got = np.moveaxis(values, axis, -1).reshape(len(lines), k)
    for line, places, best in zip(lines, at, got, strict=True):
        order = sorted(range(len(line)), key=lambda i: (-line[i] if largest else line[i], i))[:k]
        assert places.tolist() == order
        assert best.tolist() == [line[i] for i in order]


def test_top_k_of_old_versions_and_of_unsigned_and_lowest_integers() -> None:
    x = np.array([3, 200, 7, 200], np.uint8)
    values, indices = call("TopK", x, opset=1, k=3)
    assert (values.tolist(), indices.tolist()) == ([200, 200, 7], [1, 3, 0 + 2])
    values, indices = call("TopK", np.array([-(2**63), 5, 2**63 - 1]), np.array([3]), opset=10)
    assert indices.tolist() == [2, 1, 0]
    with pytest.raises(InvalidInputError, match="k=4"):
        call("TopK", np.zeros(3), np.array([4]), opset=11)


def test_top_k_without_order_is_judged_as_a_set() -> None:
    x, k = np.float32([[1, 3, 2], [5, 4, 6]]), np.array([2])

    def outcome(values: Any, output: int, **attributes: int) -> Outcome:
        dtype = np.int64 if output else np.float32
        return verdict_on(np.array(values, dtype), "TopK", x, k, opset=11, output=output, **attributes).outcome

    assert outcome([[2, 3], [5, 6]], 0, sorted=0) is Outcome.PASSED
    assert outcome([[2, 3], [5, 6]], 0, sorted=1) is Outcome.FAILED
    assert outcome([[2, 3], [5, 4]], 0, sorted=0) is Outcome.FAILED
    assert outcome([[2, 1], [0, 2]], 1, sorted=0) is Outcome.PASSED
    assert outcome([[2, 1], [0, 1]], 1, sorted=0) is Outcome.FAILED


def test_top_k_without_order_leaves_open_which_of_equal_elements_is_taken() -> None:
    x, k = np.float32([[1, 2, 2], [3, 3, 1]]), np.array([1])
    assert verdict_on(np.array([[2], [1]]), "TopK", x, k, opset=11, output=1, sorted=0).outcome is Outcome.UNJUDGED
    assert verdict_on(np.array([[2], [1]]), "TopK", x, k, opset=11, output=1).outcome is Outcome.FAILED


def test_top_k_of_a_row_with_nan_is_not_judged_but_the_others_are() -> None:
    x, k = np.float32([[1, np.nan, 3], [1, 2, 3]]), np.array([1])
    assert beyond(np.float32([[3], [3]]), "TopK", x, k, opset=11) == 0
    assert beyond(np.float32([[np.nan], [3]]), "TopK", x, k, opset=11) == 0
    assert beyond(np.float32([[3], [2]]), "TopK", x, k, opset=11) == 1


def test_unique_of_nan_is_refused_as_not_determined() -> None:
    with pytest.raises(InvalidInputError, match="not determined"):
        call("Unique", np.float32([1, np.nan, np.nan]), opset=11, output_count=4)


def test_arg_max_of_a_slice_with_nan_is_not_judged_but_the_others_are() -> None:
    x = np.float32([[1, np.nan, 3], [1, 2, 3]])
    assert beyond(np.array([[2], [2]]), "ArgMax", x, opset=13, axis=1) == 0
    assert beyond(np.array([[1], [2]]), "ArgMax", x, opset=13, axis=1) == 0
    assert beyond(np.array([[1], [1]]), "ArgMax", x, opset=13, axis=1) == 1


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("attributes", [{"axis": 1}, {"axis": -1, "keepdims": 0}, {"select_last_index": 1}])
def test_arg_scale_allows_onnxruntime(op_type: str, attributes: dict[str, Any]) -> None:
    x = np.random.default_rng(1).integers(0, 5, size=(6, 9, 7)).astype(np.float32)
    (actual,) = run_onnxruntime(op_type, [x], attributes, opset=13)
    assert beyond(actual, op_type, x, opset=13, **attributes) == 0
    assert beyond(actual + 1, op_type, x, opset=13, **attributes) == actual.size


@settings(max_examples=60, deadline=None)
@given(WITH_TIES, st.booleans())
def test_unique_elements_are_those_of_a_dictionary(x: Array, ascending: bool) -> None:
    values, first, inverse, counts = call("Unique", x, opset=11, sorted=int(ascending), output_count=4)
    flat = x.reshape(-1).tolist()
    expected = sorted(set(flat)) if ascending else list(dict.fromkeys(flat))
    assert values.tolist() == expected
    assert first.tolist() == [flat.index(value) for value in expected]
    assert inverse.tolist() == [expected.index(value) for value in flat]
    assert counts.tolist() == [flat.count(value) for value in expected]


@settings(max_examples=60, deadline=None)
@given(arrays(np.int8, (4, 2, 2), elements=st.integers(0, 1)), st.sampled_from([0, 1, -1]), st.booleans())
def test_unique_slices_are_those_of_a_dictionary(x: Array, axis: int, ascending: bool) -> None:
    values, first, inverse, counts = call("Unique", x, opset=11, axis=axis, sorted=int(ascending), output_count=4)
    lines = [tuple(line.reshape(-1).tolist()) for line in np.moveaxis(x, axis, 0)]
    expected = sorted(set(lines)) if ascending else list(dict.fromkeys(lines))
    assert [tuple(line.reshape(-1).tolist()) for line in np.moveaxis(values, axis, 0)] == expected
    assert first.tolist() == [lines.index(line) for line in expected]
    assert inverse.tolist() == [expected.index(line) for line in lines]
    assert counts.tolist() == [lines.count(line) for line in expected]


def test_unique_takes_strings_and_nothing() -> None:
    values, *_ = call("Unique", np.array(["b", "a", "b"], object), opset=11, sorted=0)
    assert values.tolist() == ["b", "a"]
    assert call("Unique", np.zeros((0,)), opset=11)[0].shape == (0,)


def test_hardmax_flattens_before_opset_13() -> None:
    x = np.array([[[1.0, 5], [5, 2]], [[0, 0], [0, 0]]])
    np.testing.assert_array_equal(call("Hardmax", x, opset=1), [[[0, 1], [0, 0]], [[1, 0], [0, 0]]])
    np.testing.assert_array_equal(call("Hardmax", x, opset=13), [[[0, 1], [1, 0]], [[1, 0], [1, 0]]])
    np.testing.assert_array_equal(call("Hardmax", x, opset=13, axis=0), [[[1, 1], [1, 1]], [[0, 0], [0, 0]]])
    np.testing.assert_array_equal(call("Hardmax", x, opset=11, axis=3), np.ones_like(x))
    assert call("Hardmax", np.zeros((0, 3)), opset=13).shape == (0, 3)


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (11, -1), (13, -1)])
def test_hardmax_is_open_only_for_slices_with_nan(opset: int, axis: int) -> None:
    x = np.float32([[1, np.nan, 3], [1, 2, 3]])
    assert beyond(np.float32([[0, 0, 1], [0, 0, 1]]), "Hardmax", x, opset=opset, axis=axis) == 0
    assert beyond(np.float32([[0, 0, 0], [0, 1, 0]]), "Hardmax", x, opset=opset, axis=axis) == 2
