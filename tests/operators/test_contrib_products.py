"""Products with fused activations (com.microsoft): ONNX Runtime passes, and plausible faults fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.operators import contrib_products  # noqa: F401 (registers)

from .contrib_nodes import fails, judge, passes, run

F = np.float32


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(F)


CONV_ACTIVATIONS: list[dict[str, Any]] = [
    {"activation": "Relu"},
    {"activation": "LeakyRelu", "activation_params": [0.2]},
    {"activation": "Tanh"},
    {"activation": "Sigmoid"},
    {"activation": "Clip", "activation_params": [-0.5, 1.5]},
    {"activation": "HardSigmoid", "activation_params": [0.2, 0.5]},
    {"activation": "HardSwish"},
]
CONV_GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"pads": [1, 1, 1, 1], "strides": [2, 2]},
    {"pads": [0, 1, 2, 1], "dilations": [2, 2]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 1]},
    {"group": 2, "kernel_shape": [3, 3]},
]


@pytest.mark.parametrize("activation", CONV_ACTIVATIONS, ids=lambda a: a["activation"])
@pytest.mark.parametrize("geometry", CONV_GEOMETRIES, ids=["plain", "strided", "dilated", "same", "grouped"])
@pytest.mark.parametrize("bias", [False, True])
def test_fused_conv_by_onnxruntime_passes(activation: dict[str, Any], geometry: dict[str, Any], bias: bool) -> None:
    x, w = normal(0, 2, 6, 9, 8), normal(1, 4, 6 // geometry.get("group", 1), 3, 3)
    inputs = [x, w, normal(2, 4) if bias else None]
    passes("FusedConv", inputs, **activation, **geometry)
    passes("FusedConv", inputs, weights=[1, 2] if bias else [1], **activation, **geometry)


@pytest.mark.parametrize("shape", [(1, 3, 17), (2, 3, 6, 5, 7)], ids=["1-D", "3-D"])
def test_fused_conv_of_other_ranks_passes(shape: tuple[int, ...]) -> None:
    passes("FusedConv", [normal(0, *shape), normal(1, 4, 3, *(3,) * (len(shape) - 2)), normal(2, 4)], activation="Relu")


@pytest.mark.parametrize("bias", [False, True])
def test_fused_conv_with_a_sum_passes(bias: bool) -> None:
    inputs = [normal(0, 1, 64, 8, 8), normal(1, 16, 64, 3, 3), normal(2, 16) if bias else None, normal(3, 1, 16, 6, 6)]
    passes("FusedConv", inputs, activation="Relu")


def test_fused_conv_of_positive_data_passes() -> None:
    inputs = [np.abs(normal(0, 1, 256, 8, 8)), np.abs(normal(1, 8, 256, 3, 3)), -300 * np.abs(normal(2, 8))]
    passes("FusedConv", inputs, activation="Relu")
    passes("FusedConv", inputs, activation="Sigmoid")


def conv_inputs() -> list[np.ndarray]:
    return [normal(0, 1, 32, 8, 8), normal(1, 8, 32, 3, 3), normal(2, 8), normal(3, 1, 8, 6, 6)]


def test_fused_conv_with_bias_twice_fails() -> None:
    x, w, b, _ = conv_inputs()
    fails("FusedConv", [x, w, b], run("FusedConv", [x, w, 2 * b], activation="Relu"), activation="Relu")


def test_fused_conv_with_sum_after_activation_fails() -> None:
    x, w, b, z = conv_inputs()
    wrong = run("FusedConv", [x, w, b], activation="Relu")[0] + z
    fails("FusedConv", [x, w, b, z], [wrong], activation="Relu")


def test_fused_conv_without_activation_where_it_is_shut_fails() -> None:
    x, w, b, _ = conv_inputs()
    wrong = run("Conv", [x, w, b], domain="")[0]
    fails("FusedConv", [x, w, b], [wrong], activation="Relu")


def test_fused_conv_with_another_alpha_fails() -> None:
    inputs = conv_inputs()[:3]
    wrong = run("FusedConv", inputs, activation="LeakyRelu", activation_params=[0.01])
    fails("FusedConv", inputs, wrong, activation="LeakyRelu", activation_params=[0.0101])


def test_fused_conv_with_one_wrong_element_behind_relu_fails() -> None:
    inputs = conv_inputs()[:3]
    wrong = run("FusedConv", inputs, activation="Relu")
    shut = np.flatnonzero(wrong[0] == 0)[3]
    wrong[0].reshape(-1)[shut] = 1e-3
    fails("FusedConv", inputs, wrong, activation="Relu")


def test_fused_conv_with_a_dropped_product_fails() -> None:
    x, w, b, _ = conv_inputs()
    short = w.copy()
    short[:, -1, -1, -1] = 0
    fails("FusedConv", [x, w, b], run("FusedConv", [x, short, b], activation="Tanh"), activation="Tanh")


def test_nhwc_fused_conv_is_fused_conv_with_channels_last() -> None:
    x, w, b, z = conv_inputs()
    right = run("FusedConv", [x, w, b, z], activation="Relu")[0]
    moved = [np.moveaxis(x, 1, -1), w, b, np.moveaxis(z, 1, -1)]
    assert judge("NhwcFusedConv", moved, [np.moveaxis(right, 1, -1)], activation="Relu").outcome.value == "passed"
    fails("NhwcFusedConv", moved, [np.moveaxis(run("FusedConv", [x, w, 2 * b, z], activation="Relu")[0], 1, -1)],
          activation="Relu")  # fmt: skip


GEMM_ACTIVATIONS: list[dict[str, Any]] = [
    {"activation": "Relu"},
    {"activation": "LeakyRelu", "activation_alpha": 0.2},
    {"activation": "Tanh"},
    {"activation": "Sigmoid"},
    {"activation": "HardSigmoid", "activation_alpha": 0.2, "activation_beta": 0.4},
    {"activation": "Elu", "activation_alpha": 0.7},
    {"activation": "Selu", "activation_alpha": 1.6, "activation_gamma": 1.05},
    {"activation": "Softplus"},
    {"activation": "Softsign"},
    {"activation": "ThresholdedRelu", "activation_alpha": 0.3},
]
GEMM_FORMS: list[tuple[list[tuple[int, ...]], dict[str, Any]]] = [
    ([(7, 40), (40, 5), (5,)], {}),
    ([(40, 7), (5, 40), (7, 1)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ([(7, 40), (5, 40)], {"transB": 1}),
]


@pytest.mark.parametrize("activation", GEMM_ACTIVATIONS, ids=lambda a: a["activation"])
@pytest.mark.parametrize("form", range(len(GEMM_FORMS)), ids=["plain", "transposed", "no C"])
def test_fused_gemm_by_onnxruntime_passes(activation: dict[str, Any], form: int) -> None:
    shapes, attributes = GEMM_FORMS[form]
    inputs = [normal(i, *shape) for i, shape in enumerate(shapes)]
    passes("FusedGemm", inputs, **activation, **attributes)
    passes("FusedGemm", inputs, weights=range(1, len(inputs)), **activation, **attributes)


GEMM_FAULTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("alpha ignored", {"alpha": 0.5}, {}),
    ("beta ignored", {"beta": 1.01}, {}),
    ("transB ignored", {"transB": 1}, {}),
]


@pytest.mark.parametrize(("right", "wrong"), [fault[1:] for fault in GEMM_FAULTS], ids=[f[0] for f in GEMM_FAULTS])
def test_fused_gemm_with_an_attribute_ignored_fails(right: dict[str, Any], wrong: dict[str, Any]) -> None:
    inputs = [normal(0, 8, 16), normal(1, 16, 16), normal(2, 16)]
    fails("FusedGemm", inputs, run("FusedGemm", inputs, activation="Sigmoid", **wrong), activation="Sigmoid", **right)


def test_fused_gemm_with_another_activation_fails() -> None:
    inputs = [normal(0, 8, 16), normal(1, 16, 16), normal(2, 16)]
    wrong = run("FusedGemm", inputs, activation="HardSigmoid", activation_alpha=0.2, activation_beta=0.5)
    fails("FusedGemm", inputs, wrong, activation="Sigmoid")


MATMULS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((3, 8, 40), (40, 6), {}),
    ((3, 40, 8), (3, 6, 40), {"transA": 1, "transB": 1, "alpha": 0.125}),
    ((8, 2, 3, 40), (2, 3, 40, 6), {"transBatchA": 1}),
    ((40, 2, 3, 8), (2, 3, 40, 6), {"transBatchA": 1, "transA": 1}),
    ((2, 3, 8, 40), (40, 2, 3, 6), {"transBatchB": 1, "alpha": 0.3}),
    ((2, 3, 8, 40), (6, 2, 3, 40), {"transBatchB": 1, "transB": 1}),
    ((40,), (40, 6), {"transA": 1}),
]


@pytest.mark.parametrize("case", range(len(MATMULS)))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fused_matmul_by_onnxruntime_passes(case: int, dtype: type) -> None:
    a, b, attributes = MATMULS[case]
    passes("FusedMatMul", [normal(0, *a).astype(dtype), normal(1, *b).astype(dtype)], **attributes)


@pytest.mark.parametrize("case", range(len(MATMULS)))
def test_fused_matmul_with_a_factor_ignored_fails(case: int) -> None:
    a, b, attributes = MATMULS[case]
    inputs = [normal(0, *a), normal(1, *b)]
    wrong = run("FusedMatMul", inputs, **attributes)
    fails("FusedMatMul", inputs, wrong, **{**attributes, "alpha": 1.0001 * attributes.get("alpha", 1.0)})


def test_fused_matmul_with_transposition_ignored_fails() -> None:
    inputs = [normal(0, 16, 16), normal(1, 16, 16)]
    fails("FusedMatMul", inputs, run("FusedMatMul", inputs), transB=1)


@pytest.mark.parametrize("op_type", ["FusedMatMul", "TransposeMatMul"])
def test_transposed_matrix_and_vector_are_those_of_numpy_and_the_matrix_as_it_lies_fails(op_type: str) -> None:
    a, b = normal(0, 40, 8), normal(1, 40)
    assert judge(op_type, [a, b], [a.T @ b], transA=1).outcome is Outcome.PASSED
    fails(op_type, [a, b], [a.reshape(8, 40) @ b], transA=1)  # as ONNX Runtime 1.32 on CPU
    passes(op_type, [b, a], transA=1)


def test_transpose_matmul_by_onnxruntime_passes_and_untransposed_fails() -> None:
    inputs = [normal(0, 3, 16, 16), normal(1, 3, 16, 16)]
    passes("TransposeMatMul", inputs, transA=1, alpha=0.5)
    fails("TransposeMatMul", inputs, run("TransposeMatMul", inputs, alpha=0.5), transA=1, alpha=0.5)
