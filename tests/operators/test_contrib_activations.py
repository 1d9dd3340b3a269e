"""GELU as ONNX Runtime fuses it: its own kernels pass, and plausible faults fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mpmath import mp

from onnx_arch.operators.evaluation import evaluate

from .contrib_nodes import MICROSOFT, fails, passes, run

F = np.float32


def data(seed: int, size: float) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((3, 5, 64)) * size).astype(F)


sizes = pytest.mark.parametrize("size", [1e-3, 1.0, 6.0, 40.0])


@sizes
@pytest.mark.parametrize("op_type", ["Gelu", "FastGelu", "QuickGelu"])
def test_gelu_by_onnxruntime_passes(op_type: str, size: float) -> None:
    passes(op_type, [data(0, size)])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.702])
def test_quick_gelu_with_alpha_passes_and_another_alpha_fails(alpha: float) -> None:
    x = data(0, 2.0)
    passes("QuickGelu", [x], alpha=alpha)
    fails("QuickGelu", [x], run("QuickGelu", [x], alpha=1.0001 * alpha), alpha=alpha)


@sizes
@pytest.mark.parametrize("op_type", ["BiasGelu", "FastGelu"])
def test_gelu_behind_bias_by_onnxruntime_passes(op_type: str, size: float) -> None:
    x = data(1, size)
    passes(op_type, [x, data(2, size)[0, 0]])
    passes(op_type, [x, -x[0, 0] * F(1.00001)])


@pytest.mark.parametrize("op_type", ["BiasGelu", "FastGelu"])
def test_gelu_with_bias_twice_fails(op_type: str) -> None:
    x, b = data(1, 1.0), data(2, 1.0)[0, 0]
    fails(op_type, [x, b], run(op_type, [x, 2 * b]))


@pytest.mark.parametrize("bias", [False, True])
def test_fast_gelu_in_double_precision_by_onnxruntime_passes_and_between_its_constants_fails(bias: bool) -> None:
    x = data(1, 1.0).astype(np.float64)
    inputs = [x, data(2, 1.0)[0, 0].astype(np.float64)] if bias else [x]
    v = sum(inputs)
    passes("FastGelu", inputs)
    fails("FastGelu", inputs, [v / 2 * (1 + np.tanh(0.7979 * v + 0.03568 * v**3))])


FAULTS: list[tuple[str, str]] = [("Gelu", "FastGelu"), ("FastGelu", "Gelu"), ("QuickGelu", "Gelu")]


@pytest.mark.parametrize(("op_type", "computed"), FAULTS)
def test_gelu_of_another_form_fails(op_type: str, computed: str) -> None:
    x = data(0, 1.0)
    fails(op_type, [x], run(computed, [x]))


def _exact(formula: Callable[..., object], xs: np.ndarray) -> np.ndarray:
    with mp.workdps(50):
        return np.array([float(formula(mp.mpf(float(x)))) for x in xs])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op_type", "formula"),
    [
        ("Gelu", lambda x: x / 2 * (1 + mp.erf(x / mp.sqrt(2)))),
        ("FastGelu", lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))),
        ("QuickGelu", lambda x: x / (1 + mp.exp(-mp.mpf(float(np.float32(1.702))) * x))),
    ],
)
def test_gelu_kernel_equals_mpmath(op_type: str, formula: Callable[..., object]) -> None:
    xs = np.linspace(-4, 4, 33)
    y = evaluate(op_type, [xs], opset=1, domain=MICROSOFT)[0]
    np.testing.assert_allclose(y, _exact(formula, xs), rtol=1e-11, atol=1e-15)
