"""Pooling: ONNX's node tests, plain loops over windows, torch, ONNX Runtime, and faults that the scales must catch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators._windows import output_shape, resolve_pads
from onnx_arch.operators.registry import find_kernel
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case

FOUR_DIGITS = "test_averagepool_2d_ceil_last_window_starts_on_pad"
"""ONNX wrote the values of this test with four digits."""

WITH_CASES = {"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "MaxUnpool", "Col2Im"}


@pytest.mark.parametrize("case", [c for c in cases(WITH_CASES) if c.name != FOUR_DIGITS], ids=str)
def test_onnx_node_case_gives_the_expected_output(case: Case) -> None:
    check_case(case)


def test_onnx_node_case_written_with_four_digits_agrees_to_four_digits() -> None:
    (case,) = (c for c in cases({"AveragePool"}) if c.name == FOUR_DIGITS)
    actual = call("AveragePool", *case.inputs, opset=case.opset, **case.attributes)
    np.testing.assert_allclose(actual, case.outputs[0], atol=1e-4)


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    """A tensor's spatial shape and pooling attributes, for one to three axes, in which at least one window fits."""
    rank = draw(st.integers(1, 3))
    several = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    kernel_shape, dilations, strides = several(1, 3), several(1, 2), several(1, 3)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel_shape, dilations, strict=True)]
    shape = [span + extra for span, extra in zip(spans, several(0, 4), strict=True)]
    pads = [draw(st.integers(0, span // 2)) for span in spans] + [draw(st.integers(0, span // 2)) for span in spans]
    return {
        "shape": shape,
        "kernel_shape": kernel_shape,
        "dilations": dilations,
        "strides": strides,
        "pads": pads,
        "ceil_mode": draw(st.integers(0, 1)),
    }


def _windows(shape: list[int], g: dict[str, Any]) -> tuple[list[int], Callable[..., list[tuple[int, ...]]]]:
    """Window counts and the taps of one window, straight from the words of the spec."""
    counts, rank = [], len(shape)
    for axis, size in enumerate(shape):
        begin, end = g["pads"][axis], g["pads"][axis + rank]
        room = size + begin + end - g["dilations"][axis] * (g["kernel_shape"][axis] - 1) - 1
        count = (math.ceil if g["ceil_mode"] else math.floor)(room / g["strides"][axis] + 1)
        while (count - 1) * g["strides"][axis] - begin >= size:  # starts in the right padding
            count -= 1
        counts.append(count)

    def taps(*window: int) -> list[tuple[int, ...]]:
        return [
            tuple(
                window[axis] * g["strides"][axis] - g["pads"][axis] + offset[axis] * g["dilations"][axis]
                for axis in range(rank)
            )
            for offset in itertools.product(*map(range, g["kernel_shape"]))
        ]

    return counts, taps


def _pool_by_loop(x: Array, g: dict[str, Any], summary: Callable[[list[float], int], float]) -> Array:
    """`summary(values on the input, taps on the input or its explicit padding)` of every window."""
    shape, rank = list(x.shape[2:]), x.ndim - 2
    counts, taps = _windows(shape, g)
    y = np.zeros((*x.shape[:2], *counts))
    for at in np.ndindex(*y.shape):
        positions = taps(*at[2:])
        inside = [p for p in positions if all(0 <= p[a] < shape[a] for a in range(rank))]
        padded = [
            p for p in positions if all(-g["pads"][a] <= p[a] < shape[a] + g["pads"][a + rank] for a in range(rank))
        ]
        y[at] = summary([x[at[:2] + p] for p in inside], len(padded))
    return y


def _attributes(g: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in g.items() if name != "shape"}


def _signal(shape: list[int], seed: int = 7) -> Array:
    return np.random.default_rng(seed).normal(size=(2, 2, *shape))


def _mean_or_nan(values: list[float], count: int) -> float:
    return sum(values) / count if count else float("nan")


@settings(max_examples=120, deadline=None)
@given(geometries())
def test_pooling_follows_a_loop_over_windows(g: dict[str, Any]) -> None:
    x, attributes = _signal(g["shape"]), _attributes(g)
    largest = _pool_by_loop(x, g, lambda values, _: max(values, default=-np.inf))
    np.testing.assert_array_equal(call("MaxPool", x, opset=22, **attributes), largest)
    mean = _pool_by_loop(x, g, lambda values, _: _mean_or_nan(values, len(values)))
    np.testing.assert_allclose(call("AveragePool", x, opset=22, **attributes), mean, rtol=1e-12, atol=1e-14)
    padded = _pool_by_loop(x, g, _mean_or_nan)
    actual = call("AveragePool", x, opset=22, count_include_pad=1, **attributes)
    np.testing.assert_allclose(actual, padded, rtol=1e-12, atol=1e-14)
    norm = _pool_by_loop(x, g, lambda values, _: sum(abs(v) ** 3 for v in values) ** (1 / 3))
    np.testing.assert_allclose(call("LpPool", x, opset=22, p=3, **attributes), norm, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 1))
def test_max_pool_indices_point_at_the_maxima(g: dict[str, Any], storage_order: int) -> None:
    x = np.round(_signal(g["shape"]) * 2)  # with equal values
    y, indices = call("MaxPool", x, opset=22, output_count=2, storage_order=storage_order, **_attributes(g))
    np.testing.assert_array_equal(y, call("MaxPool", x, opset=22, **_attributes(g)))
    order = (0, 1, *range(x.ndim - 1, 1, -1)) if storage_order else range(x.ndim)
    flat, found = np.transpose(x, order).reshape(-1), indices >= 0
    np.testing.assert_array_equal(flat[indices[found]], y[found])
    assert np.isneginf(y[~found]).all()
    planes = indices // math.prod(g["shape"])
    assert (planes == np.arange(4).reshape(2, 2, *[1] * len(g["shape"])))[found].all()


@pytest.mark.parametrize(
    ("kernel_shape", "strides", "pads", "dilations", "ceil_mode"),
    [([3, 2], [2, 2], [1, 1], [1, 1], 0), ([2, 3], [3, 2], [1, 1], [2, 1], 1), ([3, 3], [2, 2], [0, 0], [1, 2], 1)],
)
def test_pooling_of_images_agrees_with_torch(
    kernel_shape: list[int], strides: list[int], pads: list[int], dilations: list[int], ceil_mode: int
) -> None:
    x = _signal([11, 14], 8)
    attributes = {"kernel_shape": kernel_shape, "strides": strides, "pads": pads * 2, "ceil_mode": ceil_mode}
    y, indices = torch.nn.functional.max_pool2d(
        torch.from_numpy(x), kernel_shape, strides, pads, dilations, bool(ceil_mode), return_indices=True
    )
    actual, at = call("MaxPool", x, opset=12, output_count=2, dilations=dilations, **attributes)
    np.testing.assert_array_equal(actual, y.numpy())
    np.testing.assert_array_equal(at, indices.numpy() + np.arange(4).reshape(2, 2, 1, 1) * 11 * 14)
    for include in (0, 1):
        mean = torch.nn.functional.avg_pool2d(
            torch.from_numpy(x), kernel_shape, strides, pads, bool(ceil_mode), bool(include)
        )
        actual = call("AveragePool", x, opset=10, count_include_pad=include, **attributes)
        np.testing.assert_allclose(actual, mean.numpy(), rtol=1e-12)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_auto_pad_agrees_with_onnxruntime(op_type: str, auto_pad: str) -> None:
    x = _signal([9, 10], 9).astype(np.float32)
    attributes = {"kernel_shape": [4, 3], "strides": [2, 3], "auto_pad": auto_pad}
    (actual,) = run_onnxruntime(op_type, [x], attributes, opset=11)
    assert beyond(actual, op_type, x, opset=11, **attributes) == 0


@pytest.mark.parametrize(
    ("auto_pad", "expected"),
    [("SAME_UPPER", ([2, 0], [2, 1])), ("SAME_LOWER", ([2, 1], [2, 0])), ("VALID", ([0, 0], [0, 0]))],
)
def test_resolve_pads_puts_the_larger_half_where_the_name_says(
    auto_pad: str, expected: tuple[list[int], list[int]]
) -> None:
    # 8 windows of span 5 over 8 elements need 4 more; 3 windows of 3, 2 apart, over 6 elements need 1 more.
    assert resolve_pads(auto_pad, None, [8, 6], [3, 3], [1, 2], [2, 1]) == expected


def test_resolve_pads_of_a_stride_beyond_the_kernel_is_not_negative() -> None:
    assert resolve_pads("SAME_UPPER", None, [5], [1], [3], [1]) == ([0], [0])
    assert output_shape([5], [1], [3], [1], [0], [0]) == [2]


def test_output_shape_drops_a_window_that_starts_in_the_end_padding() -> None:
    assert output_shape([2], [2], [2], [1], [0], [1], ceil_mode=True) == [1]
    assert output_shape([3], [2], [2], [1], [0], [1], ceil_mode=True) == [2]


def test_old_versions_take_their_attributes() -> None:
    x = np.float32([[[1, 3, 2, 5]]])
    np.testing.assert_array_equal(call("MaxPool", x, opset=1, kernel_shape=[2]), [[[3, 3, 5]]])
    np.testing.assert_array_equal(call("AveragePool", x, opset=1, kernel_shape=[2], pads=[1, 0]), [[[1, 2, 2.5, 3.5]]])
    np.testing.assert_array_equal(
        call("AveragePool", x, opset=7, kernel_shape=[2], pads=[1, 0], count_include_pad=1), [[[0.5, 2, 2.5, 3.5]]]
    )
    np.testing.assert_array_equal(call("LpPool", x, opset=1, kernel_shape=[2], p=1.0), [[[4, 5, 7]]])
    np.testing.assert_allclose(call("GlobalLpPool", x, opset=1, p=2.0), [[[39**0.5]]])
    np.testing.assert_array_equal(call("GlobalMaxPool", x, opset=1), [[[5]]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_max_pool_of_bytes_pads_with_the_lowest_value(dtype: type[np.integer]) -> None:
    x = np.full((1, 1, 2, 2), np.iinfo(dtype).min, dtype)
    y = call("MaxPool", x, opset=12, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert y.dtype == dtype
    assert (y == np.iinfo(dtype).min).all()


def test_max_pool_keeps_nan_and_padding_beats_nothing() -> None:
    x = np.array([[[1.0, np.nan, -np.inf, -np.inf]]])
    y, indices = call("MaxPool", x, opset=12, kernel_shape=[2], strides=[2], output_count=2)
    np.testing.assert_array_equal(y, [[[np.nan, -np.inf]]])
    np.testing.assert_array_equal(indices, [[[1, 2]]])
    np.testing.assert_array_equal(call("MaxPool", x, opset=12, kernel_shape=[2], strides=[2]), y)


def test_max_pool_is_open_only_for_windows_with_nan_and_indices_of_equals() -> None:
    x = np.array([[[1, np.nan, 3, 3, 5, 6]]], np.float32)
    attributes = {"kernel_shape": [2], "strides": [2]}
    (actual,) = run_onnxruntime("MaxPool", [x], attributes, opset=12)
    assert not np.isnan(actual).any()  # it skips the NaN, and the spec does not forbid it
    assert beyond(actual, "MaxPool", x, opset=12, **attributes) == 0
    assert beyond(actual + 1, "MaxPool", x, opset=12, **attributes) == 2
    for indices, wrong in (([0, 2, 5], 0), ([1, 3, 5], 0), ([0, 2, 4], 1)):
        assert beyond(np.array([[indices]]), "MaxPool", x, opset=12, output=1, **attributes) == wrong
    assert beyond(np.float32([[[9]]]), "GlobalMaxPool", x, opset=12) == 0
    assert beyond(np.float32([[[9]]]), "GlobalMaxPool", x[..., 2:], opset=12) == 1


def test_max_pool_scale_condemns_the_lowest_number_in_place_of_minus_infinity() -> None:
    x = np.full((1, 1, 4), -np.inf, np.float32)
    wrong = np.full((1, 1, 3), np.finfo(np.float32).min)
    assert beyond(wrong, "MaxPool", x, opset=12, kernel_shape=[2]) == 3


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_empty_batch_gives_an_empty_output(op_type: str) -> None:
    assert call(op_type, np.zeros((0, 3, 4, 4)), opset=11, kernel_shape=[2, 2]).shape == (0, 3, 3, 3)
    assert call(op_type, np.zeros((1, 3, 1, 4)), opset=11, kernel_shape=[2, 2]).shape == (1, 3, 0, 3)


@pytest.mark.parametrize(
    ("error", "shape", "attributes"),
    [
        (InvalidInputError, (2, 3), {"kernel_shape": [2]}),
        (InvalidAttributeError, (1, 1, 4), {"kernel_shape": [2, 2]}),
        (InvalidAttributeError, (1, 1, 4), {"kernel_shape": [0]}),
        (InvalidAttributeError, (1, 1, 4), {"kernel_shape": [2], "strides": [0]}),
        (InvalidAttributeError, (1, 1, 4), {"kernel_shape": [2], "pads": [-1, 0]}),
        (InvalidAttributeError, (1, 1, 4), {"kernel_shape": [2], "pads": [1]}),
        (InvalidAttributeError, (1, 1, 4), {"kernel_shape": [2], "auto_pad": "SAME"}),
    ],
)
def test_attribute_outside_the_spec_is_refused(
    error: type[Exception], shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    with pytest.raises(error):
        call("MaxPool", np.zeros(shape), opset=12, **attributes)


def test_max_unpool_undoes_max_pool_and_agrees_with_torch() -> None:
    x = _signal([6, 8], 10)
    y, indices = call("MaxPool", x, opset=11, kernel_shape=[2, 2], strides=[2, 2], output_count=2)
    back = call("MaxUnpool", y, indices, opset=11, kernel_shape=[2, 2], strides=[2, 2])
    plane = indices - np.arange(4).reshape(2, 2, 1, 1) * 48
    expected = torch.nn.functional.max_unpool2d(torch.from_numpy(y), torch.from_numpy(plane), 2, 2).numpy()
    np.testing.assert_array_equal(back, expected)
    larger = call("MaxUnpool", y, indices, np.array([2, 2, 7, 9]), opset=11, kernel_shape=[2, 2], strides=[2, 2])
    np.testing.assert_array_equal(larger[:, :, :6, :8], expected)
    with pytest.raises(InvalidInputError, match="smaller"):
        call("MaxUnpool", y, indices, np.array([2, 2, 5, 9]), opset=11, kernel_shape=[2, 2], strides=[2, 2])


def test_col2im_agrees_with_torch_and_its_scale_condemns_a_lost_block() -> None:
    x = np.random.default_rng(11).normal(size=(2, 3 * 6, 20)).astype(np.float32)
    inputs = (x, np.array([6, 7]), np.array([2, 3]))
    expected = torch.nn.functional.fold(torch.from_numpy(x), (6, 7), (2, 3), dilation=(2, 1)).numpy()
    assert beyond(expected, "Col2Im", *inputs, opset=18, dilations=[2, 1]) == 0
    lost = x.copy()
    lost[0, 0, 0] = 0
    wrong = torch.nn.functional.fold(torch.from_numpy(lost), (6, 7), (2, 3), dilation=(2, 1)).numpy()
    assert beyond(wrong, "Col2Im", *inputs, opset=18, dilations=[2, 1]) == 1
    with pytest.raises(InvalidInputError, match="blocks"):
        call("Col2Im", x[:, :, 1:], *inputs[1:], opset=18, dilations=[2, 1])


POOLS: list[tuple[str, dict[str, Any]]] = [
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 0}),
    ("AveragePool", {"kernel_shape": [7, 7], "pads": [3, 3, 3, 3], "count_include_pad": 1}),
    ("LpPool", {"kernel_shape": [3, 3], "p": 2, "pads": [1, 1, 1, 1]}),
    ("GlobalAveragePool", {}),
    ("GlobalLpPool", {"p": 2}),
]


@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize(("op_type", "attributes"), POOLS)
def test_scale_allows_onnxruntime_and_condemns_the_shifted_input(
    op_type: str, attributes: dict[str, Any], offset: float
) -> None:
    x = (_signal([32, 32], 12) + offset).astype(np.float32)
    (actual,) = run_onnxruntime(op_type, [x], attributes, opset=11)
    assert beyond(actual, op_type, x, opset=11, **attributes) == 0
    moved = np.roll(x, 1, axis=-1) if "Global" not in op_type else np.concatenate([x[..., 1:], 2 * x[..., :1]], -1)
    (wrong,) = run_onnxruntime(op_type, [moved], attributes, opset=11)
    assert beyond(wrong, op_type, x, opset=11, **attributes) > wrong.size / 2


def test_scale_condemns_padding_that_is_counted_and_an_average_of_one_element_less() -> None:
    x = _signal([16, 16], 13).astype(np.float32)
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    (counted,) = run_onnxruntime("AveragePool", [x], {**attributes, "count_include_pad": 1}, opset=11)
    border = 4 * (4 * 16 - 4)
    assert beyond(counted, "AveragePool", x, opset=11, **attributes) == border
    right = call("AveragePool", x, opset=11, **attributes)
    assert beyond((right * 9 / 8).astype(np.float32), "AveragePool", x, opset=11, **attributes) == right.size


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("AveragePool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}),
        ("AveragePool", {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
        ("GlobalAveragePool", {}),
    ],
)
def test_products_sum_to_the_chosen_elements(op_type: str, attributes: dict[str, Any]) -> None:
    x = _signal([7, 8], 14)
    y = call(op_type, x, opset=10, **attributes)
    products = find_kernel(op_type, opset=10).products
    assert products is not None
    flat = np.arange(y.size)
    summands = products(flat, x, **attributes)
    assert summands.shape == (y.size, math.prod(attributes.get("kernel_shape", [7, 8])))
    np.testing.assert_allclose(summands.sum(axis=1), y.reshape(-1), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(products(flat[3:5], x, **attributes), summands[3:5])
