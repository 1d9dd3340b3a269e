"""Reductions: ONNX's node tests, exact rational sums, torch, ONNX Runtime, and faults that the scales must catch."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_arch.errors import InvalidAttributeError
from onnx_arch.operators.registry import find_kernel
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case

REDUCTIONS = [
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
]  # fmt: skip
ROUNDED = [name for name in REDUCTIONS if name not in ("ReduceMax", "ReduceMin")]


@pytest.mark.parametrize("case", cases(set(REDUCTIONS)), ids=str)
def test_onnx_node_case_gives_the_expected_output(case: Case) -> None:
    check_case(case)


TORCH = {
    "ReduceSum": lambda x, d, k: x.sum(d, k),
    "ReduceMean": lambda x, d, k: x.mean(d, k),
    "ReduceMax": lambda x, d, k: x.amax(d, k),
    "ReduceMin": lambda x, d, k: x.amin(d, k),
    "ReduceL1": lambda x, d, k: torch.linalg.vector_norm(x, 1, d, k),
    "ReduceL2": lambda x, d, k: torch.linalg.vector_norm(x, 2, d, k),
    "ReduceLogSum": lambda x, d, k: x.sum(d, k).log(),
    "ReduceLogSumExp": lambda x, d, k: x.logsumexp(d, k),
    "ReduceSumSquare": lambda x, d, k: (x * x).sum(d, k),
}


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [0, -1], [0, 1, 2]])
@pytest.mark.parametrize("op_type", TORCH)
def test_reduction_in_both_forms_agrees_with_torch(op_type: str, axes: list[int], keepdims: int) -> None:
    x = np.random.default_rng(1).uniform(0.5, 2, size=(3, 4, 5))
    expected = TORCH[op_type](torch.from_numpy(x), tuple(axes), bool(keepdims)).numpy()
    by_attribute = call(op_type, x, opset=11, axes=axes, keepdims=keepdims)
    by_input = call(op_type, x, np.array(axes), opset=18, keepdims=keepdims)
    np.testing.assert_allclose(by_attribute, expected, rtol=1e-13)
    np.testing.assert_array_equal(by_input, by_attribute)
    assert by_input.shape == expected.shape


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=12))
def test_sum_and_product_agree_with_rational_numbers(values: list[float]) -> None:
    x = np.array(values)
    total = sum(map(Fraction, values), Fraction(0))
    size = sum(abs(value) for value in values)
    assert abs(Fraction(float(call("ReduceSum", x, opset=13, keepdims=0))) - total) <= Fraction(size) * 2**-48
    product = math.prod(map(Fraction, values), start=Fraction(1))
    actual = Fraction(float(call("ReduceProd", x, opset=18, keepdims=0)))
    assert abs(actual - product) <= abs(product) * len(values) * Fraction(2) ** -52 + Fraction(2) ** -1000


@pytest.mark.parametrize(
    ("op_type", "empty", "alone"),
    [
        ("ReduceSum", 0, 3), ("ReduceMean", np.nan, 3), ("ReduceMax", -np.inf, 3), ("ReduceMin", np.inf, 3),
        ("ReduceProd", 1, 3), ("ReduceL1", 0, 3), ("ReduceL2", 0, 3), ("ReduceLogSum", -np.inf, math.log(3)),
        ("ReduceLogSumExp", -np.inf, 3), ("ReduceSumSquare", 0, 9),
    ],
)  # fmt: skip
def test_empty_set_scalar_and_no_axes_have_their_values(op_type: str, empty: float, alone: float) -> None:
    nothing = call(op_type, np.zeros((2, 0, 3)), np.array([1]), opset=18)
    np.testing.assert_array_equal(nothing, np.full((2, 1, 3), empty))
    scalar = call(op_type, np.array(3.0), opset=18)
    assert scalar.shape == ()
    np.testing.assert_allclose(scalar, alone, rtol=1e-15)
    kept = call(op_type, np.array([[3.0]]), np.array([], np.int64), opset=18, noop_with_empty_axes=1, keepdims=0)
    np.testing.assert_allclose(kept, [[alone]], rtol=1e-15)
    assert call(op_type, np.ones((2, 3)), np.array([], np.int64), opset=18, keepdims=0).shape == ()
    assert call(op_type, np.ones((0, 3)), np.array([1]), opset=18).shape == (0, 1)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_integers_stay_in_their_type_and_divide_toward_zero(dtype: type[np.integer]) -> None:
    x = np.array([7, 4, 2], dtype)
    for op_type, expected in {
        "ReduceSum": 13,
        "ReduceMean": 4,
        "ReduceProd": 56,
        "ReduceL1": 13,
        "ReduceL2": 8,
    }.items():
        y = call(op_type, x, opset=18, keepdims=0)
        assert (y.dtype, int(y)) == (dtype, expected), op_type
    if dtype is not np.uint32:
        assert int(call("ReduceMean", -x, opset=18, keepdims=0)) == -4


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_mean_of_integers_whose_sum_overflows_is_their_mean(dtype: type[np.integer]) -> None:
    largest, lowest = int(np.iinfo(dtype).max), int(np.iinfo(dtype).min)
    x = np.array([[largest, largest, largest], [largest, largest - 2, largest - 4], [lowest, lowest, largest]], dtype)
    y = call("ReduceMean", x, np.array([1]), opset=18, keepdims=0)
    negative = 2 * lowest + largest < 0
    last = -(-(2 * lowest + largest) // 3) if negative else (2 * lowest + largest) // 3
    assert y.tolist() == [largest, largest - 2, last]
    with np.errstate(over="ignore"):
        wrapped = np.sum(x, axis=1, dtype=dtype) // dtype(3)
    assert beyond(wrapped, "ReduceMean", x, np.array([1]), opset=18, keepdims=0) > 0


@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceProd", "ReduceSumSquare", "ReduceL1"])
def test_integers_beyond_their_type_are_left_open_and_others_are_not(op_type: str) -> None:
    x = np.array([[2**30, 2**30, 2], [3, 4, 5]], np.int32)
    y = call(op_type, x, np.array([1]), opset=18, keepdims=0)
    saturated = np.array([2**31 - 1, y[1]], np.int32)
    assert beyond(saturated, op_type, x, np.array([1]), opset=18, keepdims=0) == 0
    assert beyond(y, op_type, x, np.array([1]), opset=18, keepdims=0) == 0
    assert beyond(saturated + np.array([0, 1], np.int32), op_type, x, np.array([1]), opset=18, keepdims=0) == 1


def test_root_of_a_sum_of_squares_that_overflows_is_their_norm() -> None:
    assert call("ReduceL2", np.array([60_000, 80_000], np.int32), opset=18, keepdims=0) == 100_000


def test_max_and_min_take_bytes_booleans_infinities_and_nan() -> None:
    assert call("ReduceMax", np.array([False, True]), opset=20, keepdims=0).dtype == np.bool_
    assert not call("ReduceMin", np.array([False, True]), opset=20, keepdims=0)
    assert call("ReduceMax", np.zeros((0,), np.int8), opset=20, keepdims=0) == -128
    assert np.isnan(call("ReduceMax", np.array([1, np.nan]), opset=18, keepdims=0))
    assert call("ReduceMax", np.array([-np.inf, -np.inf]), opset=18, keepdims=0) == -np.inf


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1000.0, 1000.0], 1000 + math.log(2)),
        ([-1000.0, -1001.0], -1000 + math.log1p(math.exp(-1))),
        ([-np.inf, 2.0], 2.0),
        ([-np.inf, -np.inf], -np.inf),
        ([np.inf, 1.0], np.inf),
        ([np.nan, 1.0], np.nan),
    ],
)
def test_log_sum_exp_does_not_overflow(values: list[float], expected: float) -> None:
    y = call("ReduceLogSumExp", np.array(values), opset=18, keepdims=0)
    np.testing.assert_allclose(y, expected, rtol=1e-14)


@pytest.mark.parametrize(("opset", "inputs", "attributes"), [(18, [np.array([1])], {}), (11, [], {"axes": [-2]})])
def test_axis_outside_the_rank_is_refused(opset: int, inputs: list[Array], attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidAttributeError, match="axes"):
        call("ReduceMax", np.ones(3), *inputs, opset=opset, **attributes)


def _data(kind: str) -> Array:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(6, 5000)) if kind == "signed" else rng.uniform(0.99, 1.01, size=(6, 5000))
    return x.astype(np.float32)


def _reversed_float32(op_type: str, x: Array) -> Array:
    """A sum from the back, one element after the other, in float32."""
    body = {
        "ReduceSum": lambda v: v,
        "ReduceMean": lambda v: v,
        "ReduceL1": np.abs,
        "ReduceSumSquare": lambda v: v * v,
        "ReduceL2": lambda v: v * v,
        "ReduceLogSum": lambda v: v,
        "ReduceLogSumExp": np.exp,
    }[op_type]
    total = np.add.accumulate(body(x)[:, ::-1], axis=1, dtype=np.float32)[:, -1:]
    finish = {
        "ReduceMean": lambda v: v / np.float32(x.shape[1]),
        "ReduceL2": np.sqrt,
        "ReduceLogSum": np.log,
        "ReduceLogSumExp": np.log,
    }
    return finish.get(op_type, lambda v: v)(total).astype(np.float32)


@pytest.mark.filterwarnings("ignore:invalid value encountered in log")  # the logarithm of a negative sum is NaN
@pytest.mark.parametrize("kind", ["signed", "near one"])
@pytest.mark.parametrize("op_type", ROUNDED)
def test_scale_allows_onnxruntime_and_a_sum_from_the_back(op_type: str, kind: str) -> None:
    x = _data(kind)
    (actual,) = run_onnxruntime(op_type, [x], {"axes": [1]}, opset=11)
    assert beyond(actual, op_type, x, opset=11, axes=[1]) == 0
    if op_type != "ReduceProd":
        assert beyond(_reversed_float32(op_type, x), op_type, x, opset=11, axes=[1]) == 0


@pytest.mark.filterwarnings("ignore:invalid value encountered in log")
@pytest.mark.parametrize("op_type", ROUNDED)
def test_scale_condemns_a_reduction_over_fewer_elements(op_type: str) -> None:
    x = np.random.default_rng(3).uniform(0.5, 1.5, size=(6, 300)).astype(np.float32)
    short = call(op_type, x[:, :-1], opset=11, axes=[1]).astype(np.float32)
    if op_type == "ReduceMean":
        short = (call("ReduceSum", x[:, :-1], opset=11, axes=[1]) / 300).astype(np.float32)
    assert beyond(short, op_type, x, opset=11, axes=[1]) == 6


def test_scale_condemns_the_log_sum_exp_of_another_axis_and_the_population_of_a_mean() -> None:
    x = np.random.default_rng(4).normal(size=(64, 64)).astype(np.float32)
    other = call("ReduceLogSumExp", x.T.copy(), opset=11, axes=[1]).astype(np.float32)
    assert beyond(other, "ReduceLogSumExp", x, opset=11, axes=[1]) > 60
    wrong = (call("ReduceMean", x, opset=11, axes=[1]) * 64 / 63).astype(np.float32)
    assert beyond(wrong, "ReduceMean", x, opset=11, axes=[1]) > 50


@pytest.mark.parametrize("op_type", ROUNDED)
def test_scale_of_nothing_and_of_zeros_is_finite(op_type: str) -> None:
    for x in (np.zeros((2, 0), np.float32), np.zeros((2, 3), np.float32)):
        y = call(op_type, x, opset=11, axes=[1]).astype(np.float32)
        assert beyond(y, op_type, x, opset=11, axes=[1]) == 0


@pytest.mark.parametrize(
    ("op_type", "opset", "inputs", "attributes"),
    [
        ("ReduceSum", 13, [np.array([0, 2])], {}),
        ("ReduceSum", 13, [], {"keepdims": 0}),
        ("ReduceSum", 13, [], {"noop_with_empty_axes": 1}),
        ("ReduceSum", 11, [], {"axes": [-1]}),
        ("ReduceMean", 18, [np.array([1])], {"keepdims": 0}),
        ("ReduceMean", 13, [], {"axes": [0, 1]}),
    ],
)
def test_products_sum_to_the_chosen_elements(
    op_type: str, opset: int, inputs: list[Array], attributes: dict[str, Any]
) -> None:
    x = np.random.default_rng(5).normal(size=(3, 4, 5))
    y = call(op_type, x, *inputs, opset=opset, **attributes)
    products = find_kernel(op_type, opset=opset).products
    assert products is not None
    flat = np.arange(y.size)[::-1]
    summands = products(flat, x, *inputs, **attributes)
    assert summands.shape == (y.size, x.size // y.size)
    np.testing.assert_allclose(summands.sum(axis=1), y.reshape(-1)[::-1], rtol=1e-12, atol=1e-14)
