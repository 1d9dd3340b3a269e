"""Comparison, logic, Where, Clip and bits: official cases, every version, Python's integers, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Rule

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case, check_signature, examples, versions

OPERATORS = {
    *("And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Clip", "Equal", "Greater"),
    *("GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Where", "Xor"),
}


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


@pytest.mark.parametrize("op_type", ["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"])
def test_comparison_with_nan_is_false(op_type: str) -> None:
    y = call(op_type, np.array([np.nan, 1.0]), np.array([np.nan, np.nan]), opset=16)
    assert y.dtype == bool
    assert not y.any()


@pytest.mark.parametrize("op_type", ["Equal", "Greater", "And", "Xor"])
def test_opset_1_broadcast_puts_the_second_input_at_axis(op_type: str) -> None:
    rng = np.random.default_rng(21)
    a, b = rng.integers(0, 2, (2, 3, 4)), rng.integers(0, 2, (3,))
    if op_type in ("And", "Xor"):
        a, b = a.astype(bool), b.astype(bool)
    expected = call(op_type, a, b[:, None], opset=13)
    assert np.array_equal(call(op_type, a, b, opset=1, axis=1, broadcast=1), expected)
    with pytest.raises(InvalidInputError, match="does not fit"):
        call(op_type, a, b, opset=1)


def test_strings_are_compared_and_selected() -> None:
    a, b = np.array(["x", "y"], object), np.array(["x"], object)
    assert call("Equal", a, b, opset=19).tolist() == [True, False]
    assert call("Equal", a, b, opset=19).dtype == bool
    assert call("Where", np.array([True, False]), a, b, opset=16).tolist() == ["x", "x"]


def test_where_keeps_the_integers_it_is_given() -> None:
    big = np.array([2**62 + 1, -(2**63)])
    y = call("Where", np.array([True, False]), big, big, opset=16)
    assert y.dtype == np.int64
    assert y.tolist() == big.tolist()


@pytest.mark.parametrize(("negative", "positive"), [(1, 1), (0, 1), (1, 0), (0, 0)])
def test_is_inf_detects_the_signs_asked_for(negative: int, positive: int) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0])
    y = call("IsInf", x, opset=20, detect_negative=negative, detect_positive=positive)
    assert y.tolist() == [bool(positive), bool(negative), False, False]


WIDTHS: dict[str, int] = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}


@pytest.mark.parametrize("name", WIDTHS)
@examples
@given(data=st.data())
def test_bit_shift_agrees_with_integers_of_unlimited_size(name: str, data: st.DataObject) -> None:
    dtype, bits = np.dtype(name), WIDTHS[name]
    info = np.iinfo(dtype)
    value = data.draw(st.integers(int(info.min), int(info.max)))
    by = data.draw(st.integers(max(int(info.min), -70), min(int(info.max), 70)))
    x, y = np.array([value], dtype), np.array([by], dtype)
    outside = by < 0 or by >= bits
    right = (-1 if value < 0 else 0) if outside else value >> by
    left = 0 if outside else (value << by) & (2**bits - 1)
    assert int(call("BitShift", x, y, opset=28, direction="RIGHT")[0]) == right
    assert int(call("BitShift", x, y, opset=28, direction="LEFT")[0]) % 2**bits == left


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_bit_shift_by_the_width_leaves_nothing_and_a_shift_modulo_the_width_is_wrong(direction: str) -> None:
    x, y = np.array([1000, 255], np.uint64), np.array([64, 64], np.uint64)
    for opset in (11, 28):
        assert call("BitShift", x, y, opset=opset, direction=direction).tolist() == [0, 0]
        assert beyond(x, "BitShift", x, y, opset=opset, direction=direction) == 2  # what processors make of it


def test_bit_shift_in_no_direction_is_refused() -> None:
    with pytest.raises(InvalidAttributeError, match="UP"):
        call("BitShift", np.array([1], np.uint8), np.array([1], np.uint8), opset=11, direction="UP")


BITS: dict[str, Callable[[int, int], int]] = {
    "BitwiseAnd": int.__and__,
    "BitwiseOr": int.__or__,
    "BitwiseXor": int.__xor__,
}


@pytest.mark.parametrize("op_type", BITS)
@examples
@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_bitwise_operation_agrees_with_python(op_type: str, a: int, b: int) -> None:
    y = call(op_type, np.array([a], np.int32), np.array([b], np.int32), opset=18)
    assert y.tolist() == [BITS[op_type](a, b)]


CLIPPED = np.array([-np.inf, -5.0, -1.0, -0.0, 0.5, 5.0, np.inf, np.nan])


@pytest.mark.parametrize("opset", [1, 6])
def test_clip_of_old_opsets_takes_attributes(opset: int) -> None:
    y = call("Clip", CLIPPED, opset=opset, min=-1.0, max=2.0)
    assert np.array_equal(y, [-1, -1, -1, 0, 0.5, 2, 2, np.nan], equal_nan=True)


def test_clip_without_bounds_is_limited_to_float32_in_opset_6_only() -> None:
    limit = float(np.finfo(np.float32).max)
    assert call("Clip", CLIPPED, opset=6)[[0, 6]].tolist() == [-limit, limit]
    for opset in (1, 11, 13):
        assert call("Clip", CLIPPED, opset=opset)[[0, 6]].tolist() == [-np.inf, np.inf]


def test_clip_of_an_infinity_without_its_bound_is_not_judged() -> None:
    x = CLIPPED.astype(np.float32)
    for opset, inputs in ((1, (x,)), (13, (x, None, np.array(9.0, np.float32))), (13, (x,))):
        node = prepare("Clip", inputs, {}, opset=opset)
        is_open = np.isinf((node.scales(node.outputs()) or ())[0].terms)
        assert is_open.tolist() == [True, *[False] * 5, len(inputs) == 1, False]


def test_clip_with_crossed_bounds_gives_the_upper_one() -> None:
    y = call("Clip", np.array([-9, 0, 9]), np.array(5), np.array(-5), opset=13)
    assert y.tolist() == [-5, -5, -5]


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint64])
def test_clip_agrees_with_onnxruntime(dtype: Any) -> None:
    x = np.random.default_rng(22).integers(0, 100, 200).astype(dtype)
    inputs = (x, np.array(20, dtype), np.array(70, dtype))
    (actual,) = run_onnxruntime("Clip", inputs, {}, opset=13)
    assert beyond(actual, "Clip", *inputs, opset=13) == 0
    assert beyond(actual + (x == x.max()).astype(dtype), "Clip", *inputs, opset=13) > 0


@pytest.mark.parametrize("op_type", sorted(OPERATORS - {"Where", "Clip", "BitShift"}))
def test_rank_0_gives_an_array_and_an_exact_scale(op_type: str) -> None:
    dtype = bool if op_type in ("And", "Or", "Xor", "Not") else np.int32 if op_type.startswith("Bit") else np.float32
    count = 1 if op_type in ("Not", "BitwiseNot", "IsNaN", "IsInf") else 2
    node = prepare(op_type, [np.array(1, dtype)] * count, {}, opset=20)
    (y,) = node.outputs()
    assert isinstance(y, np.ndarray)
    assert y.shape == ()
    assert (node.scales((y,)) or ())[0].rule is Rule.EXACT
