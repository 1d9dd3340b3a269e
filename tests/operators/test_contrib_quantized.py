"""Fused operators on quantized tensors: ONNX Runtime passes, and plausible faults fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError

from .contrib_nodes import fails, judge, passes, run

F = np.float32
Inputs = list[Any]

both_types = pytest.mark.parametrize("dtype", [np.uint8, np.int8])


def given(inputs: Inputs, *positions: int) -> list[int]:
    """Those of the positions at which there is an input: they are stored in the model, and packed."""
    return [i for i in positions if i < len(inputs) and inputs[i] is not None]


def integers(seed: int, dtype: Any, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.random.default_rng([seed, *shape]).integers(limits.min, limits.max + 1, shape).astype(dtype)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(F)


def number(value: float) -> np.ndarray:
    return np.array(value, F)


def zero(value: int, dtype: Any) -> np.ndarray:
    return np.array(value if dtype == np.uint8 else value - 128, dtype)


SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((3, 5, 64), (3, 5, 64)),
    ((3, 5, 64), (64,)),
    ((1,), (2, 300)),
]


def binary_inputs(dtype: Any, shapes: tuple[tuple[int, ...], tuple[int, ...]], y_scale: float) -> Inputs:
    a, b = (integers(i, dtype, *shape) for i, shape in enumerate(shapes))
    return [
        *(a, number(0.031), zero(117, dtype)),
        *(b, number(0.017), zero(3, dtype)),
        *(number(y_scale), zero(90, dtype)),
    ]


@both_types
@pytest.mark.parametrize("shapes", SHAPES)
def test_qlinear_add_by_onnxruntime_passes_and_another_zero_point_fails(dtype: Any, shapes: Any) -> None:
    inputs = binary_inputs(dtype, shapes, 0.043)
    passes("QLinearAdd", inputs)
    wrong = [*inputs[:2], np.array(inputs[2] + 1, dtype), *inputs[3:]]
    fails("QLinearAdd", inputs, run("QLinearAdd", wrong))


@both_types
@pytest.mark.parametrize("shapes", SHAPES)
def test_qlinear_mul_by_onnxruntime_passes_and_another_scale_fails(dtype: Any, shapes: Any) -> None:
    inputs = binary_inputs(dtype, shapes, 0.09)
    passes("QLinearMul", inputs)
    fails("QLinearMul", inputs, run("QLinearMul", [*inputs[:6], number(0.091), inputs[7]]))


@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
def test_qlinear_without_zero_points_is_with_zero(op_type: str) -> None:
    inputs = binary_inputs(np.uint8, SHAPES[0], 0.05)
    inputs[2], inputs[5], inputs[7] = (np.array(0, np.uint8) for _ in range(3))
    right = passes(op_type, inputs)
    inputs[2] = inputs[5] = None  # ONNX Runtime's own type inference refuses this, though the schema allows it
    assert judge(op_type, inputs[:7], right).outcome is Outcome.PASSED


def test_qlinear_add_one_step_off_fails() -> None:
    inputs = binary_inputs(np.uint8, SHAPES[0], 0.043)
    y = run("QLinearAdd", inputs)[0]
    y[1, 2, 3] += 1 if y[1, 2, 3] < 255 else -1
    fails("QLinearAdd", inputs, [y])


def unary_inputs(dtype: Any, y_scale: float = 1 / 256, y_zero: int = 0, x_scale: float = 0.05) -> Inputs:
    x = np.arange(256).astype(np.uint8).view(dtype).reshape(4, 64)
    return [x, number(x_scale), zero(101, dtype), number(y_scale), zero(y_zero, dtype)]


@both_types
@pytest.mark.parametrize("x_scale", [0.003, 0.05, 0.2])
def test_qlinear_sigmoid_by_onnxruntime_passes_and_truncation_fails(dtype: Any, x_scale: float) -> None:
    inputs = unary_inputs(dtype, x_scale=x_scale)
    passes("QLinearSigmoid", inputs)
    x = (inputs[0].astype(np.float64) - inputs[2]) * float(inputs[1])
    wrong = np.clip(np.floor(256 / (1 + np.exp(-x))) + int(inputs[4]), np.iinfo(dtype).min, np.iinfo(dtype).max)
    fails("QLinearSigmoid", inputs, [wrong.astype(dtype)])


@both_types
@pytest.mark.parametrize("alpha", [0.01, 0.3])
def test_qlinear_leaky_relu_by_onnxruntime_passes_and_another_alpha_fails(dtype: Any, alpha: float) -> None:
    inputs = unary_inputs(dtype, y_scale=0.03, y_zero=100)
    passes("QLinearLeakyRelu", inputs, alpha=alpha)
    fails("QLinearLeakyRelu", inputs, run("QLinearLeakyRelu", inputs, alpha=2 * alpha), alpha=alpha)


@both_types
@pytest.mark.parametrize(("axis", "opset"), [(-1, 13), (1, 13), (1, 12), (2, 11)])
@pytest.mark.parametrize("x_scale", [0.01, 0.1])
def test_qlinear_softmax_by_onnxruntime_passes(dtype: Any, axis: int, opset: int, x_scale: float) -> None:
    x = integers(0, dtype, 3, 7, 40)
    inputs = [x, number(x_scale), zero(11, dtype), number(1 / 256), zero(0, dtype)]
    passes("QLinearSoftmax", inputs, axis=axis, opset=opset)


def test_qlinear_softmax_along_another_axis_fails() -> None:
    inputs = [integers(0, np.uint8, 3, 7, 40), number(0.1), zero(11, np.uint8), number(1 / 256), zero(0, np.uint8)]
    fails("QLinearSoftmax", inputs, run("QLinearSoftmax", inputs, axis=2, opset=13), axis=1, opset=13)
    fails("QLinearSoftmax", inputs, run("QLinearSoftmax", inputs, axis=1, opset=13), axis=1, opset=12)


def concat_inputs(dtype: Any) -> Inputs:
    parts = [(integers(i, dtype, 2, n, 5), number(s), zero(z, dtype)) for i, (n, s, z) in enumerate(CONCATENATED)]
    return [number(0.05), zero(120, dtype), *(x for part in parts for x in part)]


CONCATENATED = [(3, 0.05, 120), (40, 0.031, 100), (7, 0.05, 119)]


@both_types
def test_qlinear_concat_by_onnxruntime_passes_and_another_order_fails(dtype: Any) -> None:
    inputs = concat_inputs(dtype)
    passes("QLinearConcat", inputs, axis=1)
    wrong = [*inputs[:2], *inputs[5:8], *inputs[2:5], *inputs[8:]]
    fails("QLinearConcat", inputs, run("QLinearConcat", wrong, axis=1), axis=1)


def test_qlinear_concat_without_rescaling_fails() -> None:
    inputs = concat_inputs(np.uint8)
    fails("QLinearConcat", inputs, [np.concatenate(inputs[2::3], axis=1)], axis=1)


POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 3]},
    {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
]


def pool_inputs(dtype: Any, *shape: int) -> Inputs:
    return [integers(0, dtype, *shape), number(0.04), zero(30, dtype), number(0.03), zero(44, dtype)]


@both_types
@pytest.mark.parametrize("pool", range(len(POOLS)))
@pytest.mark.parametrize("last", [0, 1])
def test_qlinear_average_pool_by_onnxruntime_passes(dtype: Any, pool: int, last: int) -> None:
    inputs = pool_inputs(dtype, 2, 9, 11, 5) if last else pool_inputs(dtype, 2, 5, 9, 11)
    passes("QLinearAveragePool", inputs, channels_last=last, **POOLS[pool])


def test_qlinear_average_pool_with_padding_counted_fails() -> None:
    inputs = pool_inputs(np.uint8, 2, 5, 9, 11)
    right = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    fails("QLinearAveragePool", inputs, run("QLinearAveragePool", inputs, **right, count_include_pad=1), **right)


def test_qlinear_average_pool_counts_padding_but_not_what_a_last_window_has_beyond_it() -> None:
    x, form = integers(0, np.uint8, 1, 2, 8, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
    inputs = [x, number(1.0), zero(0, np.uint8), number(1.3), zero(0, np.uint8)]
    mean = run("AveragePool", [x.astype(F)], domain="", count_include_pad=1, **form)[0]
    right = np.rint(mean / 1.3).astype(np.uint8)
    assert judge("QLinearAveragePool", inputs, [right], count_include_pad=1, **form).outcome is Outcome.PASSED
    mean[..., -1] *= F(6 / 9)  # by all of the window, as ONNX Runtime 1.32 on CPU
    fails("QLinearAveragePool", inputs, [np.rint(mean / 1.3).astype(np.uint8)], count_include_pad=1, **form)


@both_types
@pytest.mark.parametrize("last", [0, 1])
def test_qlinear_global_average_pool_by_onnxruntime_passes_and_other_channels_fail(dtype: Any, last: int) -> None:
    inputs = pool_inputs(dtype, 2, 8, 8, 8)
    passes("QLinearGlobalAveragePool", inputs, channels_last=last)
    wrong = run("QLinearGlobalAveragePool", inputs, channels_last=1 - last)[0]
    fails("QLinearGlobalAveragePool", inputs, [np.moveaxis(wrong, -1, 1).reshape(run("QLinearGlobalAveragePool",
          inputs, channels_last=last)[0].shape)], channels_last=last)  # fmt: skip


@both_types
@pytest.mark.parametrize(
    "pool",
    [{"kernel_shape": [3, 3]}, {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [2, 1]}],
)
def test_nhwc_max_pool_by_onnxruntime_passes_and_shifted_fails(dtype: Any, pool: dict[str, Any]) -> None:
    x = integers(0, dtype, 2, 9, 11, 5)
    passes("NhwcMaxPool", [x], **pool)
    fails("NhwcMaxPool", [x], run("NhwcMaxPool", [np.roll(x, 1, axis=2)], **pool), **pool)


# Products

SIDES = [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]
sides = pytest.mark.parametrize(("left", "right"), SIDES)


def weights(dtype: Any, *shape: int) -> np.ndarray:
    """Without extreme values: instructions that add pairs of products in 16 bits saturate there."""
    return (integers(1, dtype, *shape) // 4).astype(dtype)


def columns(dtype: Any, per_column: bool) -> tuple[np.ndarray, np.ndarray]:
    if not per_column:
        return number(0.013), np.array(3, dtype)
    return np.linspace(0.01, 0.05, 9).astype(F), np.arange(9).astype(dtype)


@sides
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("optional", [False, True])
def test_matmul_integer_to_float_by_onnxruntime_passes(left: Any, right: Any, per_column: bool, optional: bool) -> None:
    b_scale, b_zero = columns(right, per_column)
    inputs = [integers(0, left, 2, 5, 70), weights(right, 70, 9), number(0.02), b_scale]
    inputs += [np.array(5, left), b_zero, normal(3, 9)] if optional else []
    passes("MatMulIntegerToFloat", inputs)
    passes("MatMulIntegerToFloat", inputs, weights=given(inputs, 1, 3, 5))


def integer_to_float_inputs() -> Inputs:
    b_scale, b_zero = columns(np.uint8, True)
    a, b = integers(0, np.uint8, 5, 70), weights(np.uint8, 70, 9)
    return [a, b, number(0.02), b_scale, np.array(5, np.uint8), b_zero, normal(3, 9)]


def test_matmul_integer_to_float_with_a_fault_fails() -> None:
    inputs = integer_to_float_inputs()
    for position, wrong in ((4, None), (5, None), (6, 2 * inputs[6]), (3, inputs[3][::-1].copy())):
        changed = [*inputs[:position], wrong, *inputs[position + 1 :]]
        fails("MatMulIntegerToFloat", inputs, run("MatMulIntegerToFloat", changed))


@pytest.mark.parametrize("right", [np.uint8, np.int8])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("shape", [(5, 70), (2, 3, 70)])
def test_dynamic_quantize_matmul_by_onnxruntime_passes(
    right: Any, per_column: bool, optional: bool, shape: Any
) -> None:
    b_scale, b_zero = columns(right, per_column)
    inputs = [normal(0, *shape), weights(right, 70, 9), b_scale, *([b_zero, normal(3, 9)] if optional else [])]
    passes("DynamicQuantizeMatMul", inputs)
    passes("DynamicQuantizeMatMul", inputs, weights=given(inputs, 1, 2, 3, 4))


@pytest.mark.parametrize("seed", range(6))
def test_dynamic_quantize_matmul_of_one_sign_passes(seed: int) -> None:
    inputs = [np.abs(normal(seed, 5, 70)) + 1, weights(np.int8, 70, 9), number(0.013)]
    passes("DynamicQuantizeMatMul", inputs)
    passes("DynamicQuantizeMatMul", [-inputs[0], *inputs[1:]])


def test_dynamic_quantize_matmul_with_a_fault_fails() -> None:
    b_scale, b_zero = columns(np.uint8, True)
    inputs = [normal(0, 5, 70), weights(np.uint8, 70, 9), b_scale, b_zero, normal(3, 9)]
    for position, wrong in ((3, None), (4, 2 * inputs[4]), (2, b_scale[::-1].copy())):
        changed = [*inputs[:position], wrong, *inputs[position + 1 :]]
        fails("DynamicQuantizeMatMul", inputs, run("DynamicQuantizeMatMul", changed))
    unquantized = inputs[0] @ ((inputs[1].astype(F) - b_zero) * b_scale) + inputs[4]
    fails("DynamicQuantizeMatMul", inputs, [unquantized])


GEMM_SIDES = [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]


def qgemm_inputs(
    left: Any, right: Any, *, quantized: bool, per_column: bool = False, transposed: bool = False
) -> Inputs:
    b_scale, b_zero = columns(right, per_column)
    a, b = integers(0, left, 5, 70), weights(right, 70, 9)
    a, b = (np.ascontiguousarray(x.T) for x in (a, b)) if transposed else (a, b)
    c = np.random.default_rng(4).integers(-3000, 3000, (5, 9)).astype(np.int32)
    return [a, number(0.02), np.array(5, left), b, b_scale, b_zero, c,
            *([number(1.7), np.array(7, left)] if quantized else [])]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), GEMM_SIDES)
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("transposed", [0, 1])
def test_qgemm_by_onnxruntime_passes(left: Any, right: Any, quantized: bool, per_column: bool, transposed: int) -> None:
    inputs = qgemm_inputs(left, right, quantized=quantized, per_column=per_column, transposed=bool(transposed))
    passes("QGemm", inputs, transA=transposed, transB=transposed)
    passes("QGemm", inputs, weights=given(inputs, 3, 4, 5), transA=transposed, transB=transposed)
    if not per_column:
        passes("QGemm", [*inputs[:6], None, *inputs[7:]], transA=transposed, transB=transposed, alpha=0.5)


@pytest.mark.parametrize("quantized", [False, True])
def test_qgemm_with_a_fault_fails(quantized: bool) -> None:
    inputs = qgemm_inputs(np.uint8, np.int8, quantized=quantized)
    fails("QGemm", inputs, run("QGemm", [*inputs[:6], 2 * inputs[6], *inputs[7:]]))
    fails("QGemm", inputs, run("QGemm", inputs, alpha=0.5))
    fails("QGemm", inputs, run("QGemm", [*inputs[:5], np.array(0, np.int8), *inputs[6:]]))


def test_qgemm_with_half_of_the_parameters_of_its_output_is_refused() -> None:
    inputs = qgemm_inputs(np.uint8, np.int8, quantized=True)
    for half in ([*inputs[:8], None], [*inputs[:7], None, inputs[8]]):
        with pytest.raises(InvalidInputError, match="come together"):
            judge("QGemm", half, run("QGemm", inputs))


def nbits_inputs(  # noqa: PLR0913 (the size of each dimension)
    bits: int,
    block: int,
    *,
    depth: int = 96,
    zeros: str = "none",
    rows: int = 3,
    dtype: Any = F,
) -> Inputs:
    rng = np.random.default_rng([bits, block, depth])
    blocks, columns_ = -(-depth // block), 24
    packed = rng.integers(0, 256, (columns_, blocks, block * bits // 8)).astype(np.uint8)
    steps = rng.uniform(0.01, 0.03, (columns_, blocks)).astype(dtype)
    points = {
        "none": None,
        "packed": rng.integers(0, 256, (columns_, -(-blocks * bits // 8))).astype(np.uint8),
        "float": rng.uniform(0, 2**bits, (columns_, blocks)).astype(dtype),
    }[zeros]
    return [normal(0, rows, depth).astype(dtype), packed, steps, points]


NBITS = {"N": 24}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("rows", [1, 5])
def test_matmul_nbits_by_onnxruntime_passes(bits: int, block: int, zeros: str, rows: int) -> None:
    inputs = nbits_inputs(bits, block, zeros=zeros, rows=rows, depth=256)
    if bits == 8 and zeros == "float":  # which ONNX Runtime refuses on CPU: by hand, in its own float32 product
        w = (inputs[1].reshape(24, -1, block).astype(F) - inputs[3][..., None]) * inputs[2][..., None]
        y = run("MatMul", [inputs[0], w.reshape(24, -1).T.copy()], domain="")
        assert judge("MatMulNBits", inputs, y, K=256, bits=8, block_size=block, **NBITS).outcome is Outcome.PASSED
        return
    passes("MatMulNBits", inputs, K=256, bits=bits, block_size=block, **NBITS)
    passes("MatMulNBits", inputs, weights=given(inputs, 1, 2, 3), K=256, bits=bits, block_size=block, **NBITS)


@pytest.mark.parametrize("depth", [80, 100])
@pytest.mark.parametrize("bits", [4, 8])
def test_matmul_nbits_with_a_short_last_block_passes(depth: int, bits: int) -> None:
    passes(
        "MatMulNBits", nbits_inputs(bits, 32, depth=depth, zeros="packed"), K=depth, bits=bits, block_size=32, **NBITS
    )


@pytest.mark.parametrize("level", [1, 4])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 40])
def test_matmul_nbits_at_an_accuracy_level_with_bias_passes(level: int, bits: int, rows: int) -> None:
    inputs = [*nbits_inputs(bits, 32, depth=1024, rows=rows), None, normal(5, 24)]
    for weights_at in ([], [1, 2]):
        attributes: dict[str, Any] = {"K": 1024, "bits": bits, "block_size": 32, "accuracy_level": level, **NBITS}
        passes("MatMulNBits", inputs, weights=weights_at, **attributes)


def test_matmul_nbits_in_half_precision_passes() -> None:
    passes("MatMulNBits", nbits_inputs(4, 32, dtype=np.float16), K=96, bits=4, block_size=32, **NBITS)


@pytest.mark.parametrize("level", [0, 4])
def test_matmul_nbits_with_a_fault_fails(level: int) -> None:
    inputs = nbits_inputs(4, 32, zeros="packed")
    attributes: dict[str, Any] = {"K": 96, "bits": 4, "block_size": 32, "accuracy_level": level, **NBITS}
    swapped = (inputs[1] >> 4) | (inputs[1] << 4)
    for wrong in (
        [inputs[0], swapped, *inputs[2:]],
        [*inputs[:3], None],
        [*inputs[:2], inputs[2][:, ::-1].copy(), inputs[3]],
    ):
        fails("MatMulNBits", inputs, run("MatMulNBits", wrong, **attributes), **attributes)


def test_matmul_nbits_at_level_4_with_one_wrong_block_fails() -> None:
    inputs = nbits_inputs(4, 32, depth=1024)
    attributes: dict[str, Any] = {"K": 1024, "bits": 4, "block_size": 32, "accuracy_level": 4, **NBITS}
    wrong = inputs[1].copy()
    wrong[5, 7] ^= 0xFF  # 32 of 24,576 weights
    fails("MatMulNBits", inputs, run("MatMulNBits", [inputs[0], wrong, *inputs[2:]], **attributes), **attributes)


def test_matmul_nbits_with_a_quantized_input_fails_where_the_level_does_not_allow_it() -> None:
    inputs = nbits_inputs(4, 32, depth=1024)
    attributes: dict[str, Any] = {"K": 1024, "bits": 4, "block_size": 32, **NBITS}
    blocks = inputs[0].reshape(3, -1, 32)
    step = np.abs(blocks).max(-1, keepdims=True) / 127
    rounded = (np.rint(blocks / step) * step).astype(F).reshape(3, 1024)
    quantized = run("MatMulNBits", [rounded, *inputs[1:]], **attributes)
    fails("MatMulNBits", inputs, quantized, **attributes)
    assert judge("MatMulNBits", inputs, quantized, accuracy_level=4, **attributes).outcome is Outcome.PASSED


def test_matmul_nbits_of_unknown_layout_is_refused() -> None:
    inputs = nbits_inputs(4, 32)
    with pytest.raises(InvalidAttributeError, match="bits=3"):
        judge("MatMulNBits", inputs, [normal(0, 3, 24)], K=96, bits=3, block_size=32, **NBITS)
    with pytest.raises(InvalidInputError, match="not modelled"):
        judge("MatMulNBits", inputs, [normal(0, 3, 24)], K=96, block_size=32, weight_prepacked=1, **NBITS)
