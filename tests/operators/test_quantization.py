"""Casts and linear quantization: official cases, every version, exact rounding by fractions, ONNX Runtime."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import output_dtypes, prepare
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime, verdict_on
from .node_cases import Case, cases, check_case, check_signature, examples, versions

OPERATORS = {"BitCast", "Cast", "CastLike", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"}
TYPES = onnx.TensorProto
NARROW = (ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def code(dtype: Any) -> int:
    """The TensorProto data type of a dtype."""
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def cast(x: Array, dtype: Any, *, opset: int = 24, **attributes: Any) -> tuple[Array, Array]:
    """A Cast's stored result, and which elements are open."""
    node = prepare("Cast", (x,), {"to": code(dtype), **attributes}, opset=opset)
    (y,) = node.outputs()
    assert output_dtypes(node, (y,)) == (np.dtype(dtype),)
    (scale,) = node.scales((y,)) or ()
    return y, np.isinf(np.broadcast_to(scale.terms, y.shape))


def nearest(value: Fraction, dtype: Any) -> Fraction:
    """Round a rational to nearest, ties to even, at the precision of `dtype`, range unlimited above."""
    info = ml_dtypes.finfo(dtype)
    exponent = int(info.minexp)
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    step = Fraction(2) ** (exponent - int(info.nmant))
    return Fraction(round(value / step)) * step


@pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: np.dtype(dtype).name)
@examples
@given(st.floats(-400, 400, allow_subnormal=False))
def test_cast_of_float64_rounds_once(dtype: Any, value: float) -> None:
    y, _ = cast(np.array([value]), dtype)
    assert Fraction(float(y[0])) == nearest(Fraction(value), dtype)


@pytest.mark.parametrize("dtype", NARROW[:2], ids=lambda dtype: np.dtype(dtype).name)
@examples
@given(st.integers(-60000, 60000) | st.integers(-(2**63), 2**63 - 1))
def test_cast_of_integers_rounds_once(dtype: Any, value: int) -> None:
    y, _ = cast(np.array([value]), dtype)
    rounded = nearest(Fraction(value), dtype)
    largest = Fraction(float(ml_dtypes.finfo(dtype).max))
    assert float(y[0]) == (float(rounded) if abs(rounded) <= largest else np.copysign(np.inf, value))


def test_rounding_through_float32_is_open_where_it_differs() -> None:
    tie = 1 + 2**-8
    y, is_open = cast(np.array([tie, tie + 2**-40, tie + 2**-20]), ml_dtypes.bfloat16)
    assert y.astype(float).tolist() == [1.0, 1 + 2**-7, 1 + 2**-7]
    assert is_open.tolist() == [False, True, False]


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@examples
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_cast_between_integers_discards_high_bits(bits: int, values: list[int]) -> None:
    y, is_open = cast(np.array(values), f"int{bits}")
    half = 2 ** (bits - 1)
    assert y.tolist() == [(value + half) % 2**bits - half for value in values]
    assert not is_open.any()
    assert cast(np.array(values), f"uint{bits}")[0].tolist() == [value % 2**bits for value in values]


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("int4", -8, 7), ("uint4", 0, 15), ("int2", -2, 1), ("uint2", 0, 3)]
)
def test_cast_to_short_integers_wraps_integers_and_truncates_floats(dtype: str, low: int, high: int) -> None:
    target, size = getattr(ml_dtypes, dtype), high - low + 1
    values = np.arange(-40, 40)
    assert cast(values, target, opset=25)[0].astype(int).tolist() == [(v - low) % size + low for v in values.tolist()]
    y, is_open = cast(np.array([high + 0.9, low - 0.9, high + 1.0, low - 1.0, np.nan]), target, opset=25)
    assert y[:2].astype(int).tolist() == [high, low]
    assert is_open.tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_cast_of_floats_outside_an_integer_range_is_open(dtype: str) -> None:
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    inside, outside = float(np.nextafter(high + 1.0, 0)), float(high + 1)
    y, is_open = cast(np.array([np.nan, np.inf, -np.inf, outside, float(low), inside, -0.9]), dtype)
    assert is_open.tolist() == [True, True, True, True, False, False, False]
    assert y[4:].tolist() == [low, int(inside), 0]


def test_cast_to_bool_is_true_for_all_but_zero() -> None:
    y, _ = cast(np.array([0.0, -0.0, 1e-300, np.nan, -2.0]), bool)
    assert y.tolist() == [False, False, True, True, True]


FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
SPECIAL = np.array([np.inf, -np.inf, 1e9, -1e9, np.nan])


@pytest.mark.parametrize("name", FLOAT8)
def test_cast_to_float8_that_saturates_gives_the_largest_value(name: str) -> None:
    dtype = getattr(ml_dtypes, name)
    largest = float(ml_dtypes.finfo(dtype).max)
    y = cast(SPECIAL, dtype)[0].astype(float)
    assert np.array_equal(y, [largest, -largest, largest, -largest, np.nan], equal_nan=True)
    old = cast(SPECIAL, dtype, opset=19)[0].astype(float)
    infinite = [np.nan, np.nan] if name.endswith("fnuz") else [largest, -largest]
    assert np.array_equal(old, [*infinite, largest, -largest, np.nan], equal_nan=True)


@pytest.mark.parametrize("name", FLOAT8)
def test_cast_to_float8_that_does_not_saturate_gives_infinity_or_nan(name: str) -> None:
    y = cast(SPECIAL, getattr(ml_dtypes, name), saturate=0)[0].astype(float)
    beyond_range = [np.inf, -np.inf] if name == "float8_e5m2" else [np.nan, np.nan]
    assert np.array_equal(y, [*beyond_range, *beyond_range, np.nan], equal_nan=True)


def test_bit_cast_of_nan_is_open() -> None:
    x = np.array([np.nan, 1.0])
    node = prepare("BitCast", (x,), {"to": code(np.int64)}, opset=26)
    assert np.isinf((node.scales(node.outputs()) or ())[0].terms).tolist() == [True, False]


@pytest.mark.parametrize(
    ("round_mode", "expected"),
    [("up", [1, 2, 2, 2, 4]), ("down", [1, 1, 1, 1, 2]), ("nearest", [1, 1, 2, 2, 2])],
)
def test_cast_to_powers_of_two_follows_round_mode(round_mode: str, expected: list[int]) -> None:
    x = np.array([1.0, 1.25, 1.5, 1.75, 2.5])
    y, _ = cast(x, ml_dtypes.float8_e8m0fnu, round_mode=round_mode)
    assert y.astype(float).tolist() == expected


def test_cast_to_powers_of_two_at_the_ends_of_its_range() -> None:
    x = np.array([0.0, np.inf, 1e300, 1e-300, np.nan])
    y = cast(x, ml_dtypes.float8_e8m0fnu)[0].astype(float)
    assert np.array_equal(y, [2.0**-127, 2.0**127, 2.0**127, 2.0**-127, np.nan], equal_nan=True)
    y = cast(x, ml_dtypes.float8_e8m0fnu, saturate=0, round_mode="nearest")[0].astype(float)
    assert np.isnan(y).all()
    assert cast(np.array([-1.0, -0.0, 1.0]), ml_dtypes.float8_e8m0fnu)[1].tolist() == [True, True, False]


def test_cast_from_strings_reads_numbers() -> None:
    x = np.array(["3.25", "1e-5", "1E8", "+INF", "inf", "-INF", "NaN", "1000", "Hello"], object)
    y, is_open = cast(x, np.float32)
    expected = np.array([3.25, 1e-5, 1e8, np.inf, np.inf, -np.inf, np.nan, 1000], np.float32)
    assert np.array_equal(y[:8], expected, equal_nan=True)
    assert is_open.tolist() == [False] * 8 + [True]
    y, is_open = cast(np.array(["-12", "9223372036854775807", "2.718"], object), np.int64)
    assert y[:2].tolist() == [-12, 2**63 - 1]
    assert is_open.tolist() == [False, False, True]


def test_cast_from_strings_leaves_open_what_python_alone_takes_for_a_number() -> None:
    x = np.array(["1_000", " 5", "infinity", "1e400", "-NaN", "\u0661", "+7"], object)
    assert cast(x, np.float64)[1].tolist() == [True] * 6 + [False]
    assert cast(np.array(["1_000", " 5", "\u0661", "+7"], object), np.int64)[1].tolist() == [True] * 3 + [False]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("0.1", Outcome.PASSED),
        ("0.10000000149011612", Outcome.PASSED),
        ("1e-1", Outcome.UNJUDGED),  # the text says plain
        ("0.1000", Outcome.PASSED),
        ("0.2", Outcome.FAILED),
        ("0.100001", Outcome.FAILED),
        ("0", Outcome.UNJUDGED),  # right to the digits it shows
        ("-0.1", Outcome.FAILED),
        ("one tenth", Outcome.FAILED),
        ("", Outcome.FAILED),
        ("nan", Outcome.FAILED),
    ],
)
def test_cast_to_strings_is_read_back(text: str, outcome: Outcome) -> None:
    string = onnx.TensorProto.STRING
    actual = np.array([text], object)
    assert verdict_on(actual, "Cast", np.float32([0.1]), opset=13, to=string).outcome is outcome
    assert verdict_on(actual, "CastLike", np.float32([0.1]), np.array(["x"], object), opset=15).outcome is outcome


@pytest.mark.parametrize(
    ("value", "text", "outcome"),
    [
        (np.float32(1023.99994), "1023.9999", Outcome.UNJUDGED),  # eight digits do not tell it from its neighbour
        (np.float32(1024.9998779), "1024.9999", Outcome.PASSED),
        (np.float64(0.1), "0.1", Outcome.PASSED),
        (np.float64(1) / 3, "0.33333333", Outcome.UNJUDGED),  # right as far as it goes
        (np.float64(1) / 3, "0.33333334", Outcome.FAILED),
        (np.float16(0.1), "0.1", Outcome.PASSED),
        (np.int64(2**53 + 1), "9007199254740993", Outcome.PASSED),
        (np.int64(2**53 + 1), "9007199254740992", Outcome.FAILED),
        (np.uint8(7), "7.0", Outcome.PASSED),
        (np.float32(np.inf), "INF", Outcome.PASSED),
        (np.float32(np.inf), "Infinity", Outcome.UNJUDGED),
        (np.float32(-np.inf), "inf", Outcome.FAILED),
        (np.float32(np.nan), "NaN", Outcome.PASSED),
        (np.float32(np.nan), "0", Outcome.FAILED),
    ],
)
def test_cast_to_strings_of_every_type_is_read_back(value: Any, text: str, outcome: Outcome) -> None:
    verdict = verdict_on(np.array([text], object), "Cast", np.array([value]), opset=13, to=onnx.TensorProto.STRING)
    assert verdict.outcome is outcome, verdict.message


def test_cast_of_booleans_to_strings_is_not_judged() -> None:
    texts = np.array(["1", "False"], object)
    verdict = verdict_on(texts, "Cast", np.array([True, False]), opset=13, to=onnx.TensorProto.STRING)
    assert verdict.outcome is Outcome.UNJUDGED


def test_cast_of_opset_1_takes_the_name_of_a_type() -> None:
    assert call("Cast", np.array([1.9]), opset=1, to="INT32").dtype == np.int32
    with pytest.raises(InvalidAttributeError, match="INT33"):
        call("Cast", np.array([1.9]), opset=1, to="INT33")
    with pytest.raises(InvalidAttributeError, match="99"):
        call("Cast", np.array([1.9]), opset=13, to=99)
    with pytest.raises(InvalidAttributeError, match="sideways"):
        call("Cast", np.array([1.9]), opset=24, to=1, round_mode="sideways")


@pytest.mark.parametrize("opset", [15, 19, 24])
def test_cast_like_takes_the_type_of_its_second_input(opset: int) -> None:
    y = call("CastLike", np.array([1.9, -1.9]), np.zeros(0, np.int16), opset=opset)
    assert y.dtype == np.int16
    assert y.tolist() == [1, -1]


@pytest.mark.parametrize("pair", [(np.float32, np.int32), (np.float16, np.uint16), (np.int64, np.float64)])
def test_bit_cast_and_back_is_the_identity(pair: tuple[Any, Any]) -> None:
    x = np.arange(11).astype(pair[0])
    y = call("BitCast", x, opset=26, to=code(pair[1]))
    assert y.tolist() == x.view(pair[1]).tolist()
    assert np.array_equal(call("BitCast", y, opset=26, to=code(pair[0])), x)


def test_bit_cast_of_short_integers_extends_the_sign() -> None:
    x = np.array([0, 7, 8, 15], ml_dtypes.uint4)
    y = call("BitCast", x, opset=26, to=code(ml_dtypes.int4))
    assert y.astype(int).tolist() == [0, 7, -8, -1]
    assert call("BitCast", y, opset=26, to=code(ml_dtypes.uint4)).astype(int).tolist() == [0, 7, 8, 15]


def test_bit_cast_to_another_width_is_refused() -> None:
    with pytest.raises(InvalidAttributeError, match="width"):
        call("BitCast", np.zeros(2, np.float32), opset=26, to=code(np.int64))


@examples
@given(st.lists(st.integers(-3000, 3000), min_size=1), st.integers(1, 60), st.integers(-128, 127))
def test_quantization_rounds_ties_to_even_and_saturates(values: list[int], divisor: int, zero: int) -> None:
    x = np.array(values, np.float32)
    scale, zero_point = np.array(divisor, np.float32), np.array(zero, np.int8)
    expected = [min(max(round(Fraction(value, divisor)) + zero, -128), 127) for value in values]
    node = prepare("QuantizeLinear", (x, scale, zero_point), {}, opset=13)
    (y,) = node.outputs()
    is_open = np.isinf(np.broadcast_to((node.scales((y,)) or ())[0].terms, y.shape))
    assert np.array_equal(y[~is_open], np.array(expected, np.int8)[~is_open])
    exact = np.array([value * 2 % divisor == 0 for value in values])
    assert not is_open[exact].any(), "an exact tie is determined"


def test_quantization_near_a_tie_is_open_and_elsewhere_not() -> None:
    scale = np.array(0.1, np.float32)
    x = (np.array([0.5, 1.5, 2.5, 1.0, 2.25]) * float(scale)).astype(np.float32)
    node = prepare("QuantizeLinear", (x, scale, np.array(0, np.uint8)), {}, opset=13)
    is_open = np.isinf((node.scales(node.outputs()) or ())[0].terms)
    exact = [Fraction(float(v)) / Fraction(float(scale)) % 1 == Fraction(1, 2) for v in x[:3]]
    assert is_open.tolist() == [not e for e in exact] + [False, False]


def test_precision_of_the_division_decides_before_rounding() -> None:
    x, scale = np.array([2.5009765625]), np.array(1.0)
    quantizer = prepare("QuantizeLinear", (x.astype(np.float32), scale.astype(np.float32)), {}, opset=23).entry
    stored = (np.dtype(np.float32), np.dtype(np.float32))
    in_float32 = quantizer.function(x, scale, stored=stored, opset=23)
    in_bfloat16 = quantizer.function(x, scale, precision=TYPES.BFLOAT16, stored=stored, opset=23)
    assert (in_float32.tolist(), in_bfloat16.tolist()) == ([3], [2])


def test_quantization_in_blocks_repeats_each_scale() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    scale = np.array([[1.0, 2.0], [4.0, 8.0]], np.float32)
    y = call("QuantizeLinear", x, scale, opset=21, axis=1, block_size=4, output_dtype=TYPES.INT16)
    full = np.repeat(scale, 4, axis=1)[:, :6]
    assert y.dtype == np.int16
    assert np.array_equal(y, np.rint(x / full))
    back = call("DequantizeLinear", y, scale, opset=21, axis=1, block_size=4)
    assert np.array_equal(back, y * full)


def test_a_scale_that_fits_no_granularity_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="fits no axis"):
        call("QuantizeLinear", np.zeros((2, 3), np.float32), np.ones(2, np.float32), opset=13, axis=1)
    with pytest.raises(InvalidAttributeError, match="axis=2"):
        call("DequantizeLinear", np.zeros((2, 3), np.int8), np.ones(2, np.float32), opset=13, axis=2)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_onnxruntime_and_a_wrong_rounding_of_quantization(dtype: Any) -> None:
    rng = np.random.default_rng(31)
    x = np.concatenate([rng.uniform(-40, 40, 20000), np.arange(-20, 20) * 0.5]).astype(np.float32)
    inputs = (x, np.array(0.5, np.float32), np.array(3, dtype))
    (actual,) = run_onnxruntime("QuantizeLinear", inputs, {}, opset=13)
    assert beyond(actual, "QuantizeLinear", *inputs, opset=13) == 0
    info = np.iinfo(dtype)
    away = np.trunc(x / 0.5 + np.copysign(0.5, x)) + 3
    assert beyond(np.clip(away, info.min, info.max).astype(dtype), "QuantizeLinear", *inputs, opset=13) == 0
    scale = np.array(1.0, np.float32)
    ties = np.arange(-20, 20).astype(np.float32) + np.float32(0.5)
    half_away = np.trunc(ties + np.copysign(0.5, ties)).astype(np.int8)
    assert beyond(half_away, "QuantizeLinear", ties, scale, np.array(0, np.int8), opset=13) == 20


def test_onnxruntime_of_dequantization_and_a_forgotten_zero_point() -> None:
    rng = np.random.default_rng(32)
    x = rng.integers(0, 256, (5, 64)).astype(np.uint8)
    scale, zero = rng.uniform(0.01, 1, 5).astype(np.float32), rng.integers(1, 250, 5).astype(np.uint8)
    for opset in (13, 23):
        (actual,) = run_onnxruntime("DequantizeLinear", (x, scale, zero), {"axis": 0}, opset=opset)
        assert beyond(actual, "DequantizeLinear", x, scale, zero, opset=opset, axis=0) == 0
        wrong = (x * scale[:, None]).astype(np.float32)
        assert beyond(wrong, "DequantizeLinear", x, scale, zero, opset=opset, axis=0) == x.size


@pytest.mark.parametrize("seed", range(20))
def test_onnxruntime_of_dynamic_quantization_is_within_all_three_scales(seed: int) -> None:
    x = (np.random.default_rng(seed).standard_normal((16, 33)) * 10.0 ** (seed % 7 - 3)).astype(np.float32)
    outputs = run_onnxruntime("DynamicQuantizeLinear", (x,), {}, opset=11, output_count=3)
    for index, actual in enumerate(outputs):
        assert beyond(actual, "DynamicQuantizeLinear", x, opset=11, output=index) == 0
    shifted = (outputs[0].astype(int) + 1).clip(0, 255).astype(np.uint8)
    assert beyond(shifted, "DynamicQuantizeLinear", x, opset=11) > 400
