"""Quantized products and convolutions: official cases, exact arithmetic in Python, ONNX Runtime, faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.conformance.results import Outcome, Verdict
from onnx_arch.conformance.verdict import judge
from onnx_arch.errors import InvalidInputError
from onnx_arch.operators.evaluation import output_dtypes, prepare
from onnx_arch.operators.quantized import lost_by_saturation
from onnx_arch.operators.scale import Array, Rule, Scale

from .judging import call, run_onnxruntime
from .node_cases import Case, cases, check_case, check_signature, examples, versions

OPERATORS = {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
BYTES = (np.uint8, np.int8)


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    """A stored scalar."""
    return np.array(value, dtype)


def bytes_of(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    """Random values of the whole range."""
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def reference(op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any] | None = None) -> tuple[Array, Scale]:
    """The stored output and its scale."""
    node = prepare(op_type, inputs, attributes or {}, opset=21)
    (y,) = node.outputs()
    assert output_dtypes(node, (y,)) == (y.dtype,)
    (scale,) = node.scales((y,)) or ()
    return y, scale


def verdict(op_type: str, inputs: Sequence[Any], actual: Array, attributes: Mapping[str, Any] | None = None) -> Verdict:
    """The verdict on an output."""
    y, scale = reference(op_type, inputs, attributes)
    return judge(actual, y, y.dtype, scale)


@pytest.mark.parametrize("b_type", BYTES)
@pytest.mark.parametrize("a_type", BYTES)
def test_integer_product_is_exact(a_type: Any, b_type: Any) -> None:
    rng = np.random.default_rng(1)
    a, b = bytes_of(rng, a_type, 2, 3, 50), bytes_of(rng, b_type, 2, 50, 4)
    rows, columns = bytes_of(rng, a_type, 2, 3, 1), bytes_of(rng, b_type, 2, 1, 4)
    expected = np.matmul(a.astype(object) - rows.astype(object), b.astype(object) - columns.astype(object))
    y = call("MatMulInteger", a, b, rows, columns, opset=10)
    assert y.dtype == np.int32
    assert y.tolist() == expected.tolist()


@pytest.mark.parametrize("zero_point", [(), (1,), (3,)])
def test_zero_point_is_one_or_one_for_each_row(zero_point: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    a, b = bytes_of(rng, np.uint8, 3, 5), bytes_of(rng, np.uint8, 5, 4)
    zero = bytes_of(rng, np.uint8, *zero_point)
    rows = zero.astype(int).reshape(-1, 1) if zero_point == (3,) else int(zero.reshape(-1)[0])
    np.testing.assert_array_equal(call("MatMulInteger", a, b, zero, opset=10), (a.astype(int) - rows) @ b.astype(int))


def test_zero_point_of_another_size_is_refused() -> None:
    a = np.zeros((3, 5), np.uint8)
    with pytest.raises(InvalidInputError, match=r"shape \(2,\) does not fit \(3, 5\)"):
        call("MatMulInteger", a, a.T, np.zeros(2, np.uint8), opset=10)


def test_sum_that_may_overflow_32_bits_is_left_open() -> None:
    a = np.full((2, 40_000), 255, np.uint8)
    a[1] = 1
    y, scale = reference("MatMulInteger", (a, a[:1].T))
    assert np.isinf(scale.terms).tolist() == [[True], [False]]
    assert y[1, 0] == 255 * 40_000


def slow_convolution(x: Array, w: Array, x_zero: int, w_zero: Array, pad: int) -> Array:
    """A 2-D convolution with stride 1 whose padding is the zero point, one output at a time."""
    wide = np.pad(x.astype(np.int64) - x_zero, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    kernel = w.astype(np.int64) - w_zero.reshape(-1, 1, 1, 1)
    rows, columns = wide.shape[2] - w.shape[2] + 1, wide.shape[3] - w.shape[3] + 1
    y = np.zeros((len(x), len(w), rows, columns), np.int64)
    for n, m, i, j in np.ndindex(*y.shape):
        y[n, m, i, j] = (wide[n, :, i : i + w.shape[2], j : j + w.shape[3]] * kernel[m]).sum()
    return y


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("pad", [0, 2])
def test_integer_convolution_pads_with_the_zero_point(dtype: Any, pad: int) -> None:
    rng = np.random.default_rng(3)
    x, w = bytes_of(rng, dtype, 2, 3, 6, 5), bytes_of(rng, dtype, 4, 3, 3, 2)
    x_zero, w_zero = bytes_of(rng, dtype), bytes_of(rng, dtype, 4)
    y = call("ConvInteger", x, w, x_zero, w_zero, opset=10, pads=[pad] * 4)
    np.testing.assert_array_equal(y, slow_convolution(x, w, int(x_zero), w_zero.astype(np.int64), pad))


def requantized(total: int, multiplier: Fraction, zero: int, dtype: Any) -> int:
    """Python's round() of a fraction goes to the nearest, ties to even."""
    limits = np.iinfo(dtype)
    return min(max(round(total * multiplier) + zero, limits.min), limits.max)


@pytest.mark.parametrize("dtype", BYTES)
@examples
@given(st.integers(0, 2**32), st.floats(2**-9, 1), st.floats(2**-9, 1), st.floats(1, 100))
def test_quantized_product_rounds_the_exact_value(dtype: Any, seed: int, a: float, b: float, y: float) -> None:
    rng = np.random.default_rng(seed)
    left, right = bytes_of(rng, dtype, 3, 9), bytes_of(rng, dtype, 9, 4)
    zeros = [bytes_of(rng, dtype) for _ in range(3)]
    scales = [scalar(v) for v in (a, b, y)]
    inputs = (left, scales[0], zeros[0], right, scales[1], zeros[1], scales[2], zeros[2])
    found, scale = reference("QLinearMatMul", inputs)
    multiplier = Fraction(float(scales[0])) * Fraction(float(scales[1])) / Fraction(float(scales[2]))
    total = (left.astype(int) - int(zeros[0])) @ (right.astype(int) - int(zeros[1]))
    expected = [[requantized(int(v), multiplier, int(zeros[2]), dtype) for v in row] for row in total]
    steps = np.broadcast_to(scale.terms, found.shape)
    assert (np.abs(found.astype(int) - expected) <= steps).all()
    assert scale.rule is Rule.EXACT
    assert steps.max() <= 1


def test_quantized_convolution_is_the_convolution_of_dequantized_tensors() -> None:
    rng = np.random.default_rng(4)
    x, w = bytes_of(rng, np.uint8, 1, 2, 7, 7), bytes_of(rng, np.int8, 4, 2, 3, 3)
    w_scale = rng.uniform(0.01, 0.02, 4).astype(np.float32)
    bias = rng.integers(-3000, 3000, 4).astype(np.int32)
    inputs = (
        x,
        scalar(0.02),
        scalar(120, np.uint8),
        w,
        w_scale,
        np.zeros(4, np.int8),
        scalar(0.5),
        scalar(7, np.uint8),
    )
    y, scale = reference("QLinearConv", (*inputs, bias), {"pads": [1] * 4})
    total = slow_convolution(x, w, 120, np.zeros(4, np.int64), 1) + bias.reshape(-1, 1, 1)
    for place in np.ndindex(*y.shape):
        multiplier = Fraction(float(np.float32(0.02))) * Fraction(float(w_scale[place[1]])) / Fraction(0.5)
        assert y[place] == requantized(int(total[place]), multiplier, 7, np.uint8)
    assert not np.any(scale.terms)


def near_tie(multiplier: float) -> tuple[Any, ...]:
    """Inputs of a QLinearMatMul whose sum is 5 and whose quotient is 5 · multiplier."""
    five, one = np.array([[5]], np.uint8), np.array([[1]], np.uint8)
    zero = scalar(0, np.uint8)
    return (five, scalar(multiplier), zero, one, scalar(1), zero, scalar(1), zero)


@pytest.mark.parametrize(
    ("multiplier", "right", "admitted"), [(0.5, 2, []), (0.3, 2, [1, 3]), (0.7, 3, [2, 4]), (0.25, 1, [])]
)
def test_neighbours_are_admitted_only_where_rounding_decides(
    multiplier: float, right: int, admitted: list[int]
) -> None:
    inputs = near_tie(multiplier)  # 2.5 exactly, 1.50000006, 3.49999994, 1.25
    for value in range(8):
        passes = value in (right, *admitted)
        found = verdict("QLinearMatMul", inputs, np.array([[value]], np.uint8)).outcome
        assert found is (Outcome.PASSED if passes else Outcome.FAILED), value


@pytest.mark.parametrize("scale_type", [np.float16, ml_dtypes.bfloat16])
def test_scales_of_a_narrow_type_admit_its_own_rounding(scale_type: Any) -> None:
    inputs = [v.astype(scale_type) if v.dtype == np.float32 else v for v in near_tie(0.3)]
    assert verdict("QLinearMatMul", inputs, np.array([[1]], np.uint8)).outcome is Outcome.PASSED
    assert verdict("QLinearMatMul", inputs, np.array([[4]], np.uint8)).outcome is Outcome.FAILED


def test_products_of_8_bit_floats_are_stored_as_such() -> None:
    dtype = ml_dtypes.float8_e4m3fn
    a, zero = np.array([[1.5, -2.0]], dtype), scalar(0, dtype)
    inputs = (a, scalar(0.5), zero, a.T.copy(), scalar(2.0), zero, scalar(1.0), zero)
    y, _ = reference("QLinearMatMul", inputs)
    assert y.dtype == dtype
    assert float(y[0, 0]) == float(np.array(1.5 * 1.5 + 4, dtype))


def runtime_inputs(op_type: str, a_type: Any, b_type: Any, seed: int) -> tuple[list[Any], dict[str, Any]]:
    """Inputs and attributes of a larger node."""
    rng = np.random.default_rng(seed)
    zero_a, zero_b = bytes_of(rng, a_type), bytes_of(rng, b_type)
    if op_type == "MatMulInteger":
        return [bytes_of(rng, a_type, 17, 300), bytes_of(rng, b_type, 300, 9), zero_a, bytes_of(rng, b_type, 9)], {}
    if op_type == "QLinearMatMul":
        left, right = bytes_of(rng, a_type, 17, 300), bytes_of(rng, b_type, 300, 9)
        scales = [scalar(v) for v in (0.013, 0.017, 0.9)]
        return [left, scales[0], zero_a, right, scales[1], zero_b, scales[2], bytes_of(rng, a_type)], {}
    x, w = bytes_of(rng, a_type, 2, 6, 9, 9), bytes_of(rng, b_type, 4, 3, 3, 3)
    attributes = {"group": 2, "pads": [1] * 4, "strides": [2, 1]}
    if op_type == "ConvInteger":
        return [x, w, zero_a, zero_b], attributes
    channel = rng.uniform(0.01, 0.02, 4).astype(np.float32)
    bias = rng.integers(-1000, 1000, 4).astype(np.int32)
    rest = [w, channel, np.zeros(4, b_type), scalar(1.7), bytes_of(rng, a_type), bias]
    return [x, scalar(0.013), zero_a, *rest], attributes


@pytest.mark.parametrize("types", [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)], ids=str)
@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_onnxruntime_passes(op_type: str, types: tuple[Any, Any]) -> None:
    inputs, attributes = runtime_inputs(op_type, *types, seed=5)
    if types == (np.uint8, np.int8):  # of seven bits: the sums of two products fit 16 bits
        weights = 3 if op_type.startswith("QLinear") else 1
        inputs[weights] //= 2
    (actual,) = run_onnxruntime(op_type, inputs, attributes, opset=10)
    found = verdict(op_type, inputs, actual, attributes)
    assert found.outcome is Outcome.PASSED, found.message


def test_saturated_sums_of_a_processor_without_vnni_fail() -> None:
    """ONNX Runtime on x86 without AVX-VNNI (finding 88), which this may be; with it, its sums are right."""
    inputs, _ = runtime_inputs("MatMulInteger", np.uint8, np.int8, seed=5)
    saturated = (reference("MatMulInteger", inputs)[0] + lost_by_saturation(*inputs[:2])).astype(np.int32)
    assert verdict("MatMulInteger", inputs, saturated).outcome is Outcome.FAILED
    (actual,) = run_onnxruntime("MatMulInteger", inputs, {}, opset=10)
    if verdict("MatMulInteger", inputs, actual).outcome is not Outcome.PASSED:
        np.testing.assert_array_equal(actual, saturated)


@pytest.mark.parametrize("op_type", ["QLinearConv", "QLinearMatMul"])
def test_fault_fails(op_type: str) -> None:
    inputs, attributes = runtime_inputs(op_type, np.uint8, np.uint8, seed=6)
    y, _ = reference(op_type, inputs, attributes)
    wrong = {
        "one step up": np.minimum(y, 254) + np.uint8(1),
        "zero point of the output ignored": reference(
            op_type, [*inputs[:7], scalar(0, np.uint8), *inputs[8:]], attributes
        )[0],
        "zero point of the input ignored": reference(
            op_type, [*inputs[:2], scalar(0, np.uint8), *inputs[3:]], attributes
        )[0],
        "a scale off by a hundredth": reference(
            op_type, [inputs[0], inputs[1] * np.float32(1.01), *inputs[2:]], attributes
        )[0],
    }
    for name, actual in wrong.items():
        assert verdict(op_type, inputs, actual, attributes).outcome is Outcome.FAILED, name


def test_truncation_in_place_of_rounding_fails() -> None:
    inputs, _ = runtime_inputs("QLinearMatMul", np.uint8, np.uint8, seed=7)
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (v.astype(float) for v in inputs)
    quotient = (a - a_zero) @ (b - b_zero) * a_scale * b_scale / y_scale
    truncated = np.clip(np.trunc(quotient) + y_zero, 0, 255).astype(np.uint8)
    assert verdict("QLinearMatMul", inputs, truncated).outcome is Outcome.FAILED
