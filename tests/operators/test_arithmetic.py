"""Arithmetic and transcendental operators: official cases, every version, mpmath, exact integers, scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array, Rule
from onnx_arch.operators.storage import BFLOAT16

from .judging import beyond, call
from .node_cases import Case, cases, check_case, check_signature, examples, versions
from .ulp_table import FLOAT32_MAX, ROWS, Row, implementations, inputs_of, observe

OPERATORS = {
    *("Abs", "Acos", "Acosh", "Add", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "CumProd", "CumSum"),
    *("Det", "Div", "Erf", "Exp", "Floor", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Pow", "Reciprocal"),
    *("Round", "Sign", "Sin", "Sinh", "Sqrt", "Sub", "Sum", "Tan", "Tanh"),
}
LEGACY_BROADCAST = ("Add", "Sub", "Mul", "Div", "Pow")


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[float, ...], int]] = {
    "Exp": (mpmath.exp, (0.0, 1e-300, 1.0, -700.5, 709.7, 88.72, -103.97, 1e-8), 13),
    "Log": (mpmath.log, (1 + 2**-52, 1 - 2**-53, 5e-324, 1.7e308, 2.0, 0.5, 1.0000001), 13),
    "Sin": (mpmath.sin, (3.141592653589793, 1e22, 6381956970095103 * 2.0**797, 1e-300, 100000.5), 22),
    "Cos": (mpmath.cos, (1.5707963267948966, 1e22, 6381956970095103 * 2.0**797, 0.0), 22),
    "Tan": (mpmath.tan, (1.5707963267948966, 1e22, 0.7853981633974483, 1e-300), 22),
    "Asin": (mpmath.asin, (1.0, 1 - 2**-53, 0.5, 2**-30, -0.7071067811865476), 22),
    "Acos": (mpmath.acos, (1 - 2**-53, -1 + 2**-53, 0.5, 2**-60, -1.0), 22),
    "Atan": (mpmath.atan, (1.0, 1e300, 2**-30, -0.41421356237309503), 22),
    "Sinh": (mpmath.sinh, (1e-10, 0.5, 89.4, -89.4, 700.0), 22),
    "Cosh": (mpmath.cosh, (1e-10, 0.5, 89.4, -89.4, 700.0), 22),
    "Asinh": (mpmath.asinh, (1e-10, -1e-10, 0.5, 1e300, -3.0), 22),
    "Acosh": (mpmath.acosh, (1 + 2**-52, 1.5, 1e300), 22),
    "Atanh": (mpmath.atanh, (1e-10, 1 - 2**-53, -0.5), 22),
    "Tanh": (mpmath.tanh, (1e-10, 0.55, 9.01, 20.0, -8.6), 13),
    "Erf": (mpmath.erf, (1e-10, 0.5, 3.9, -5.9, 2.0), 13),
    "Sqrt": (mpmath.sqrt, (2.0, 5e-324, 1.7e308, 1 - 2**-53), 13),
    "Reciprocal": (lambda x: 1 / x, (3.0, 1e-300, 1.7e307, 1 + 2**-52), 13),
}


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_function_at_adversarial_points_agrees_with_fifty_digits(op_type: str) -> None:
    oracle, points, opset = FUNCTIONS[op_type]
    actual = call(op_type, np.array(points), opset=opset)
    with mpmath.workdps(50):
        for x, y in zip(points, actual, strict=True):
            expected = oracle(mpmath.mpf(x))
            assert abs(mpmath.mpf(float(y)) - expected) <= abs(expected) * 2.0**-46, f"{op_type}({x!r})"


@pytest.mark.parametrize("base", [0.3, 1.0000001, 7.5, 1e-10])
@pytest.mark.parametrize("exponent", [0.5, -3.25, 20.0, 1e-8])
def test_power_agrees_with_fifty_digits(base: float, exponent: float) -> None:
    with mpmath.workdps(50):
        expected = mpmath.power(base, exponent)
        actual = mpmath.mpf(float(call("Pow", np.array([base]), np.array([exponent]), opset=15)[0]))
        assert abs(actual - expected) <= abs(expected) * 2.0**-46


INT8 = st.integers(-128, 127)


@examples
@given(st.lists(st.tuples(INT8, INT8.filter(bool)), min_size=1))
def test_integer_division_truncates_toward_zero(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(values, np.int32) for values in zip(*pairs, strict=True))
    assert call("Div", a, b, opset=14).tolist() == [math.trunc(x / y) for x, y in pairs]


@examples
@given(st.lists(st.tuples(INT8, INT8.filter(bool)), min_size=1))
def test_integer_remainder_has_the_sign_that_fmod_asks_for(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(values, np.int8) for values in zip(*pairs, strict=True))
    assert call("Mod", a, b, opset=13).tolist() == [x % y for x, y in pairs]
    assert call("Mod", a, b, opset=13, fmod=1).tolist() == [int(math.fmod(x, y)) for x, y in pairs]


@pytest.mark.parametrize(("op_type", "function"), [("Add", int.__add__), ("Sub", int.__sub__), ("Mul", int.__mul__)])
@examples
@given(st.lists(st.tuples(INT8, INT8), min_size=1))
def test_integer_overflow_wraps(op_type: str, function: Callable[..., int], pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(values, np.int8) for values in zip(*pairs, strict=True))
    y = call(op_type, a, b, opset=14)
    assert y.dtype == np.int8
    assert y.tolist() == [(function(x, z) + 128) % 256 - 128 for x, z in pairs]


@examples
@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(0, 9)), min_size=1))
def test_integer_power_is_exact(pairs: list[tuple[int, int]]) -> None:
    x, y = (np.array(values, np.int64) for values in zip(*pairs, strict=True))
    assert call("Pow", x, y, opset=15).tolist() == [base**exponent for base, exponent in pairs]


def test_integer_power_beyond_the_digits_of_float64_is_exact() -> None:
    x, y = np.array([3, 2**53 + 1, -7], np.int64), np.array([37, 1, 21], np.int64)
    exact = [3**37, 2**53 + 1, (-7) ** 21]
    assert call("Pow", x, y, opset=15).tolist() == exact
    assert call("Pow", x, y.astype(np.float32), opset=15).tolist() == exact
    assert beyond(np.power(x.astype(np.float64), y).astype(np.int64), "Pow", x, y, opset=15) == 3


def test_power_keeps_the_type_of_the_base_and_truncates() -> None:
    base = np.array([2, 3, -1, 1, 2], np.int32)
    y = call("Pow", base, np.array([0.5, 2.0, -3.0, -2.0, -1.0], np.float32), opset=15)
    assert y.dtype == np.int32
    assert y.tolist() == [1, 9, -1, 1, 0]


def test_integer_values_that_the_spec_leaves_open_are_not_judged() -> None:
    for op_type, a, b, is_open in (
        ("Div", [7, -128, 5], [0, -1, 2], [True, True, False]),
        ("Mod", [7, 5], [0, 3], [True, False]),
        ("Pow", [10, 3, 0], [5, 4, -1], [True, False, True]),
    ):
        x, y = np.array(a, np.int8).astype(np.int8 if op_type != "Pow" else np.int32), np.array(b, np.int8)
        if op_type == "Pow":
            x, y = np.array([10, 3, 0], np.int32), np.array([10, 4, -1], np.int32)
        node = prepare(op_type, (x, y), {}, opset=15 if op_type == "Pow" else 14)
        (scale,) = node.scales(node.outputs()) or ()
        assert scale.rule is Rule.EXACT
        assert np.isinf(np.broadcast_to(scale.terms, len(a))).tolist() == is_open, op_type


@pytest.mark.parametrize("op_type", LEGACY_BROADCAST)
def test_opset_1_broadcast_puts_the_second_input_at_axis(op_type: str) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 2, (2, 3, 4, 5)), rng.uniform(1, 2, (3, 4))
    expected = call(op_type, a, b[None, :, :, None], opset=13)
    assert np.array_equal(call(op_type, a, b, opset=1, axis=1, broadcast=1), expected)
    assert np.array_equal(
        call(op_type, a, b[1], opset=1, axis=2, broadcast=1), call(op_type, a, b[1, :, None], opset=13)
    )
    assert np.array_equal(call(op_type, a, a[0, 0], opset=6, broadcast=1), call(op_type, a, a[0, 0], opset=13))
    assert np.array_equal(call(op_type, a, b[:1, :1], opset=6, broadcast=1), call(op_type, a, b[0, 0], opset=13))


@pytest.mark.parametrize(
    "attributes", [{}, {"broadcast": 1}, {"broadcast": 1, "axis": 2}, {"broadcast": 1, "axis": -9}]
)
def test_opset_1_broadcast_that_does_not_fit_is_refused(attributes: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="does not fit"):
        call("Add", np.ones((2, 3, 4)), np.ones((3, 2)), opset=6, **attributes)


def test_consumed_inputs_is_an_attribute_of_opset_1_only() -> None:
    assert call("Exp", np.zeros(2), opset=1, consumed_inputs=[0]).tolist() == [1.0, 1.0]
    with pytest.raises(InvalidAttributeError, match="consumed_inputs"):
        call("Exp", np.zeros(2), opset=6, consumed_inputs=[0])


def test_floats_without_fmod_are_refused_before_opset_28() -> None:
    x = np.array([5.5, -5.5])
    with pytest.raises(InvalidAttributeError, match="fmod=0"):
        call("Mod", x, np.array([3.0]), opset=13)
    assert call("Mod", x, np.array([3.0]), opset=28).tolist() == [2.5, 0.5]


def test_mod_28_special_values_are_those_of_the_text() -> None:
    x = np.array([-0.0, 0.0, np.inf, 3.0, 5.0, -5.0, np.nan])
    y = np.array([2.0, -2.0, 2.0, 0.0, np.inf, np.inf, 1.0])
    z = call("Mod", x, y, opset=28)
    assert np.array_equal(z, [0.0, -0.0, np.nan, np.nan, 5.0, np.inf, np.nan], equal_nan=True)
    assert np.signbit(z[:2]).tolist() == [False, True]


@pytest.mark.parametrize("op_type", ["Max", "Min"])
def test_extremes_keep_nan_and_broadcast(op_type: str) -> None:
    y = call(op_type, np.array([[np.nan], [1.0]]), np.array([0.0, 2.0]), opset=13)
    assert np.isnan(y).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("op_type", ["CumSum", "CumProd"])
def test_running_results_agree_with_a_loop(op_type: str, exclusive: int, reverse: int) -> None:
    x = np.random.default_rng(2).integers(-3, 4, (2, 5, 3)).astype(np.float64)
    y = call(op_type, x, np.array(-2), opset=26, exclusive=exclusive, reverse=reverse)
    for i in range(5):
        window = x[:, i + exclusive :] if reverse else x[:, : i + 1 - exclusive]
        expected = window.sum(axis=1) if op_type == "CumSum" else window.prod(axis=1)
        assert np.array_equal(y[:, i], expected)


def test_running_sum_of_an_empty_axis_is_empty() -> None:
    assert call("CumSum", np.zeros((2, 0)), np.array(1), opset=14, exclusive=1).shape == (2, 0)


def test_running_sum_outside_the_rank_is_refused() -> None:
    with pytest.raises(InvalidAttributeError, match="axis=2"):
        call("CumSum", np.zeros((2, 2)), np.array(2), opset=14)


def test_determinant_of_a_singular_matrix_is_within_its_scale() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((50, 6, 6)).astype(np.float32)
    x[:25, 0] = x[:25, 1] * 2
    assert beyond(np.linalg.det(x), "Det", x, opset=22) == 0
    assert beyond((np.linalg.det(x.astype(np.float64)) * 1.001).astype(np.float32), "Det", x, opset=22) >= 20


def test_determinant_of_a_rectangle_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="M, M"):
        call("Det", np.zeros((2, 3)), opset=22)


@pytest.mark.parametrize("op_type", sorted(OPERATORS - {"CumSum", "CumProd", "Det", "Mod"}))
def test_rank_0_gives_an_array_of_rank_0(op_type: str) -> None:
    inputs = 2 if op_type in (*LEGACY_BROADCAST, "Max", "Min", "Sum", "Mean") else 1
    y = call(op_type, *([np.array(0.5)] * inputs), opset=22)
    assert isinstance(y, np.ndarray)
    assert y.shape == ()


def moderate(row: Row) -> tuple[Array, ...]:
    """The sweep without subnormals and without sizes at which intermediate results overflow."""
    inputs = inputs_of(row, 4000)
    keep = np.ones(inputs[0].shape, bool)
    for x in inputs:
        keep &= (np.abs(x) < 80) & ((np.abs(x) > 1e-30) | (x == 0))
    return tuple(x[keep] for x in inputs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_correct_float32_implementations_are_within_the_scale(row: Row) -> None:
    inputs = moderate(row)
    seen = [name for name, actual in implementations(row, inputs) if _is_within(row, inputs, name, actual)]
    assert "NumPy" in seen
    assert "ONNX Runtime" in seen or row.op_type == "Swish"


def _is_within(row: Row, inputs: tuple[Array, ...], name: str, actual: Array) -> bool:
    observation = observe(row, inputs, actual)
    assert observation.share <= 1, f"{name}: {observation.worst}"
    assert not observation.not_finite, f"{name}: {observation.first}"
    return True


def tf32(x: Array) -> Array:
    """float32 rounded to the 10 fraction bits of TF32."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)).view(
        np.float32
    )


@pytest.mark.parametrize("row", [row for row in ROWS if row.op_type != "Mod"], ids=lambda row: row.name)
@pytest.mark.parametrize("fault", ["TF32 inputs", "float16 result", "bfloat16 result"])
def test_low_precision_exceeds_the_scale(row: Row, fault: str) -> None:
    rng = np.random.default_rng(8)
    low, high = (1.5, 9.0) if row.op_type == "Acosh" else (-0.9, 0.9)
    inputs = tuple(rng.uniform(low, high, 3000).astype(np.float32) for _ in range(row.inputs))
    with np.errstate(all="ignore"):
        if fault == "TF32 inputs":
            actual = row.numpy(*(tf32(x) for x in inputs))
        else:
            actual = row.numpy(*inputs).astype(np.float16 if "float16" in fault[:7] else BFLOAT16).astype(np.float32)
    assert observe(row, inputs, actual).share > 20


def test_root_from_an_estimate_and_a_newton_step_is_within_the_scale_and_without_the_step_is_not() -> None:
    rng = np.random.default_rng(6)
    x = rng.uniform(0.01, 10, 20000).astype(np.float32)
    half, more = np.float32(0.5), np.float32(1.5)
    for sign in (1, -1):
        estimate = ((1 + sign * 1.5 * 2.0**-12) / np.sqrt(x.astype(np.float64))).astype(np.float32)
        improved = estimate * (more - half * x * estimate * estimate)
        assert beyond(x * improved, "Sqrt", x, opset=13) == 0
        assert beyond(x * estimate, "Sqrt", x, opset=13) == x.size


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
def test_one_unit_in_the_last_place_exceeds_the_scale_of_a_rounded_operation(op_type: str) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.uniform(1, 2, (2, 500)).astype(np.float32)
    right = call(op_type, a, b, opset=14).astype(np.float32)
    assert beyond(right, op_type, a, b, opset=14) == 0
    # one of the two neighbours is a whole unit off the nearest value, at least half a unit off the exact one
    assert beyond(np.nextafter(right, np.float32(np.inf)), op_type, a, b, opset=14) > 150


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
@pytest.mark.parametrize("op_type", ["Add", "Mul", "Div"])
def test_narrow_types_rounded_through_float32_are_within_the_scale(op_type: str, dtype: Any) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.uniform(1, 2, (2, 20000)).astype(dtype)
    functions: dict[str, Callable[..., Array]] = {"Add": np.add, "Mul": np.multiply, "Div": np.divide}
    actual = functions[op_type](a.astype(np.float32), b.astype(np.float32)).astype(dtype)
    assert beyond(actual, op_type, a, b, opset=14) == 0


def test_sum_in_any_order_is_within_its_scale_and_a_forgotten_input_is_not() -> None:
    rng = np.random.default_rng(6)
    xs = [rng.standard_normal(1000).astype(np.float32) for _ in range(9)]
    for op_type, divisor in (("Sum", 1), ("Mean", 9)):
        for order in (xs, xs[::-1]):
            assert beyond((np.add.reduce(order) / np.float32(divisor)).astype(np.float32), op_type, *xs, opset=13) == 0
        wrong = (np.add.reduce(xs[:-1]) / np.float32(divisor)).astype(np.float32)
        assert beyond(wrong, op_type, *xs, opset=13) > 900


def test_running_sums_of_float32_are_within_their_scale_and_one_lost_element_is_not() -> None:
    x = np.random.default_rng(7).standard_normal((3, 400)).astype(np.float32)
    axis = np.array(1)
    assert beyond(np.cumsum(x, axis=1, dtype=np.float32), "CumSum", x, axis, opset=14) == 0
    lost = np.where(np.arange(400) == 5, 0, x).astype(np.float32)
    assert beyond(np.cumsum(lost, axis=1, dtype=np.float32), "CumSum", x, axis, opset=14) > 300
    factors = (1 + 0.1 * x).astype(np.float32)
    assert beyond(np.cumprod(factors, axis=1, dtype=np.float32), "CumProd", factors, axis, opset=26) == 0


def test_sinh_that_overflows_early_is_seen() -> None:
    row = next(row for row in ROWS if row.op_type == "Sinh")
    x = np.array([88.9, 89.2], np.float32)
    with np.errstate(over="ignore"):
        assert observe(row, (x,), (np.exp(x) - np.exp(-x)) / 2).not_finite == 2
    assert float(call("Sinh", x, opset=22)[1]) < FLOAT32_MAX
