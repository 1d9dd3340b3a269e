"""Activation functions: official cases, every version, fifty digits, torch in float64, faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array, Rule

from ..conformance.judged_nodes import judge
from .judging import beyond, call
from .node_cases import Case, cases, check_case, check_signature, versions

OPERATORS = {
    *("Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Shrink"),
    *("Sigmoid", "Softplus", "Softsign", "Swish", "SwiGLU", "ThresholdedRelu"),
}
POINTS = (-745.0, -88.8, -30.0, -9.5, -5.9, -2.0, -1e-9, 0.0, 1e-9, 0.7, 2.0, 8.3, 30.0, 700.0)


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def _softplus(x: Any) -> Any:
    return mpmath.log1p(mpmath.exp(x))


def _gelu_tanh(x: Any) -> Any:
    inner = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x / 2 * (1 + mpmath.tanh(inner))


DEFINITIONS: dict[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
    "Sigmoid": (_sigmoid, {}),
    "Softplus": (_softplus, {}),
    "Softsign": (lambda x: x / (1 + abs(x)), {}),
    "Mish": (lambda x: x * mpmath.tanh(_softplus(x)), {}),
    "Swish": (lambda x: x * _sigmoid(x * mpmath.mpf(1.5)), {"alpha": 1.5}),
    "Elu": (lambda x: x if x >= 0 else 2 * mpmath.expm1(x), {"alpha": 2.0}),
    "Celu": (lambda x: x if x >= 0 else 2 * mpmath.expm1(x / 2), {"alpha": 2.0}),
    "Selu": (lambda x: 3 * x if x > 0 else 6 * mpmath.expm1(x), {"alpha": 2.0, "gamma": 3.0}),
    "Gelu": (lambda x: x / 2 * (1 + mpmath.erf(x / mpmath.sqrt(2))), {}),
    "Gelu tanh": (_gelu_tanh, {"approximate": "tanh"}),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_activation_agrees_with_fifty_digits_at_its_scale(name: str) -> None:
    definition, attributes = DEFINITIONS[name]
    x = np.array(POINTS)
    node = prepare(name.split(maxsplit=1)[0], (x,), attributes, opset=24)
    (y,) = node.outputs()
    (scale,) = node.scales((y,)) or ()
    magnitude = np.broadcast_to(np.maximum(scale.magnitude, np.abs(y)), x.shape)
    with mpmath.workdps(50):
        for point, value, size in zip(POINTS, y, magnitude, strict=True):
            difference = abs(mpmath.mpf(float(value)) - definition(mpmath.mpf(point)))
            assert difference <= mpmath.mpf(float(size)) * 2.0**-48 + mpmath.mpf(10) ** -300, f"{name}({point})"


TORCH: dict[str, tuple[Callable[..., torch.Tensor], Mapping[str, Any]]] = {
    "Relu": (torch.relu, {}),
    "LeakyRelu": (lambda x: torch.nn.functional.leaky_relu(x, 0.25), {"alpha": 0.25}),
    "Elu": (lambda x: torch.nn.functional.elu(x, 1.5), {"alpha": 1.5}),
    "Celu": (lambda x: torch.nn.functional.celu(x, 1.5), {"alpha": 1.5}),
    "ThresholdedRelu": (lambda x: torch.nn.functional.threshold(x, 0.75, 0.0), {"alpha": 0.75}),
    "HardSigmoid": (torch.nn.functional.hardsigmoid, {"alpha": 1 / 6}),
    "HardSwish": (torch.nn.functional.hardswish, {}),
    "Softsign": (torch.nn.functional.softsign, {}),
    "Mish": (torch.nn.functional.mish, {}),
    "Swish": (torch.nn.functional.silu, {}),
    "Sigmoid": (torch.sigmoid, {}),
    "Gelu": (torch.nn.functional.gelu, {}),
}


@pytest.mark.parametrize("op_type", TORCH)
def test_activation_agrees_with_torch_in_float64(op_type: str) -> None:
    function, attributes = TORCH[op_type]
    x = np.random.default_rng(11).standard_normal((7, 301)) * 4
    expected = function(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(call(op_type, x, opset=24, **attributes), expected, rtol=1e-13, atol=1e-15)


def test_shrink_agrees_with_torch_where_bias_is_the_threshold() -> None:
    x = np.linspace(-3, 3, 601)
    expected = torch.nn.functional.softshrink(torch.from_numpy(x), 0.6).numpy()
    np.testing.assert_allclose(call("Shrink", x, opset=9, lambd=0.6, bias=0.6), expected, rtol=0, atol=1e-15)


def test_prelu_of_opset_1_takes_a_slope_for_each_channel() -> None:
    x = -np.ones((2, 3, 4, 4))
    slope = np.array([1.0, 2.0, 3.0])
    assert np.array_equal(call("PRelu", x, slope, opset=6)[1, :, 0, 0], -slope)
    assert np.array_equal(call("PRelu", x, slope[:, None, None], opset=7), call("PRelu", x, slope, opset=1))


def test_prelu_on_integers_stays_integer_and_exact() -> None:
    x, slope = np.array([-3, 4], np.int32), np.array([5], np.int32)
    node = prepare("PRelu", (x, slope), {}, opset=16)
    (y,) = node.outputs()
    assert y.dtype == np.int32
    assert y.tolist() == [-15, 4]
    assert (node.scales((y,)) or ())[0].rule is Rule.EXACT


def test_selu_of_opset_1_has_other_defaults() -> None:
    x = np.array([1.0])
    assert call("Selu", x, opset=1)[0] == np.float32(1.0507)
    assert call("Selu", x, opset=6)[0] == np.float32(1.05070102214813232421875)


def test_threshold_is_rounded_to_the_type_of_the_tensor() -> None:
    x = np.array([0.1, 0.10004], np.float16)
    assert call("ThresholdedRelu", x, opset=22, alpha=float(np.float32(0.1))).tolist() == [0.0, float(x[1])]


def test_shrink_on_integers_is_open_where_its_bias_is_fractional() -> None:
    x = np.array([-5, 0, 5], np.int8)
    node = prepare("Shrink", (x,), {"bias": 2.0, "lambd": 1.0}, opset=9)
    assert node.outputs()[0].tolist() == [-3, 0, 3]
    assert not np.isinf((node.scales(node.outputs()) or ())[0].terms).any()
    fractional = prepare("Shrink", (x,), {"bias": 1.5}, opset=9)
    assert np.isinf((fractional.scales(fractional.outputs()) or ())[0].terms).all()


@pytest.mark.parametrize(
    ("op_type", "attributes", "message"),
    [
        ("Gelu", {"approximate": "sigmoid"}, "sigmoid"),
        ("Celu", {"alpha": 0.0}, "alpha=0"),
        ("Relu", {"slope": 1}, "slope"),
    ],
)
def test_attribute_outside_the_spec_is_refused(op_type: str, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAttributeError, match=message):
        call(op_type, np.ones(2), opset=22, **attributes)


@pytest.mark.parametrize("op_type", sorted(OPERATORS - {"PRelu", "SwiGLU"}))
def test_rank_0_nan_and_empty_keep_shape_and_nan(op_type: str) -> None:
    y = call(op_type, np.array(np.nan), opset=24)
    assert isinstance(y, np.ndarray)
    assert y.shape == ()
    assert np.isnan(y) or op_type in ("ThresholdedRelu", "Shrink")
    assert call(op_type, np.zeros((0, 3)), opset=24).shape == (0, 3)


X = np.random.default_rng(12).uniform(-4, 4, 4000).astype(np.float32)


def _float32(function: Callable[[Array], Array]) -> Array:
    with np.errstate(all="ignore"):
        return function(X.astype(np.float64)).astype(np.float32)


def _reference(op_type: str, **attributes: Any) -> Array:
    return call(op_type, X.astype(np.float64), opset=24, **attributes)


FAULTS: dict[str, tuple[str, Callable[[], Array], float]] = {
    "tanh-GELU for erf-GELU": ("Gelu", lambda: _reference("Gelu", approximate="tanh"), 0.9),
    "sigmoid-GELU for erf-GELU": ("Gelu", lambda: _reference("Swish", alpha=1.702), 0.9),
    "GELU without the half": ("Gelu", lambda: 2 * _reference("Gelu"), 0.9),
    "SiLU for Mish": ("Mish", lambda: _reference("Swish"), 0.9),
    "ELU for SELU": ("Selu", lambda: _reference("Elu"), 0.9),
    "slope 0.02 for 0.01": ("LeakyRelu", lambda: _reference("LeakyRelu", alpha=0.02), 0.45),
    "hard sigmoid with 1/6 for 0.2": ("HardSigmoid", lambda: _reference("HardSigmoid", alpha=1 / 6), 0.5),
    "softplus cut to x above 2": ("Softplus", lambda: np.where(X > 2, X, _reference("Softplus")), 0.2),
    "sigmoid in float16": ("Sigmoid", lambda: _reference("Sigmoid").astype(np.float16), 0.9),
    "hard swish for SiLU": ("Swish", lambda: _reference("HardSwish"), 0.9),
    "ELU's exponential of 2x": ("Elu", lambda: np.where(X < 0, np.expm1(2 * X), X), 0.45),
    "tanh(x/2) off by 1e-5": ("Sigmoid", lambda: 0.5 + 0.5 * (1 + 1e-5) * np.tanh(X / 2), 0.8),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_another_function_exceeds_the_scale(fault: str) -> None:
    op_type, actual, least = FAULTS[fault]
    wrong = beyond(actual().astype(np.float32), op_type, X, opset=24)
    assert wrong >= least * X.size


@pytest.mark.parametrize("op_type", ["Relu", "LeakyRelu", "Elu", "Celu"])
def test_positive_side_of_rectifiers_admits_no_error(op_type: str) -> None:
    y = _reference(op_type).astype(np.float32)
    assert beyond(y, op_type, X, opset=22) == 0
    wrong = np.where(X > 1, np.nextafter(y, np.float32(9)), y)
    assert beyond(wrong, op_type, X, opset=22) == np.count_nonzero(X > 1)


def test_swiglu_in_float32_is_within_its_scale_and_swapped_inputs_are_not() -> None:
    rng = np.random.default_rng(13)
    a, b = rng.standard_normal((2, 2000)).astype(np.float32)
    assert beyond((a / (1 + np.exp(-a)) * b).astype(np.float32), "SwiGLU", a, b, opset=28) == 0
    assert beyond((b / (1 + np.exp(-b)) * a).astype(np.float32), "SwiGLU", a, b, opset=28) > 1900


def test_product_of_infinity_and_zero_is_not_judged() -> None:
    x = np.array([-np.inf, 1.0])
    for op_type in ("Gelu", "HardSwish", "Mish", "Swish", "Softsign"):
        node = prepare(op_type, (x,), {}, opset=24)
        terms = (node.scales(node.outputs()) or ())[0].terms
        assert np.isinf(terms).tolist() == [True, False], op_type


@pytest.mark.parametrize(("dtype", "clamped"), [(np.float64, 5.5e-309), (np.float32, 4.2e-39)])
def test_exponential_that_vanishes_may_be_clamped_below_the_normal_numbers_and_not_above(
    dtype: type[np.floating], clamped: float
) -> None:
    x = np.array([-1000.0, -1e30, 0.0], dtype)
    for op_type in ("Exp", "Softmax"):
        y = call(op_type, x, opset=13).astype(dtype)
        assert y.tolist() == [0, 0, 1]
        actual = judge(op_type, [x], np.maximum(y, dtype(clamped)))
        assert actual.outcome is Outcome.PASSED, actual.message
        larger = judge(op_type, [x], np.maximum(y, dtype(1e6 * clamped)))
        assert larger.outcome is Outcome.FAILED
