"""Softmax, normalisations and attention: ONNX's node tests, torch in float64, mpmath, and faults beyond the bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from onnx_arch.errors import InvalidAttributeError
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case

WITH_CASES = {
    "Softmax",
    "LogSoftmax",
    "LayerNormalization",
    "RMSNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "BatchNormalization",
    "LRN",
    "MeanVarianceNormalization",
    "LpNormalization",
    "Attention",
    "RotaryEmbedding",
}

functional = torch.nn.functional


@pytest.mark.parametrize("case", cases(WITH_CASES), ids=str)
def test_onnx_node_case_gives_the_expected_output(case: Case) -> None:
    check_case(case)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _t(x: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x, np.float64))


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
@pytest.mark.parametrize("spread", [1.0, 50.0, 1e4])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_softmax_in_float64_agrees_with_torch(op_type: str, spread: float, axis: int) -> None:
    x = _rng().standard_normal((3, 5, 7)) * spread
    function = functional.softmax if op_type == "Softmax" else functional.log_softmax
    np.testing.assert_allclose(call(op_type, x, opset=13, axis=axis), function(_t(x), axis), rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("opset", [1, 11])
def test_softmax_before_13_normalises_over_all_axes_from_axis_on(opset: int) -> None:
    x = _rng().standard_normal((3, 4, 5))
    expected = functional.softmax(_t(x).reshape(3, 20), 1).reshape(3, 4, 5)
    np.testing.assert_allclose(call("Softmax", x, opset=opset), expected, rtol=1e-13)


def test_softmax_at_fifty_digits_is_right_to_the_last_places() -> None:
    x = [-745.0, -1.5, 0.0, 2.0**-30, 3.25, 700.0, 699.999]
    with mpmath.workdps(50):
        e = [mpmath.exp(mpmath.mpf(v)) for v in x]
        expected = [float(v / mpmath.fsum(e)) for v in e]
    np.testing.assert_allclose(call("Softmax", np.array(x), opset=13), expected, rtol=1e-14)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), ()])
def test_softmax_of_empty_and_rank_zero_tensors_keeps_the_shape(shape: tuple[int, ...]) -> None:
    assert call("Softmax", np.ones(shape), opset=13).shape == shape


def test_softmax_with_an_axis_outside_is_refused() -> None:
    with pytest.raises(InvalidAttributeError, match="axis=3"):
        call("Softmax", np.ones((2, 3)), opset=13, axis=3)


def test_layer_normalization_in_float64_agrees_with_torch() -> None:
    x, w, b = _rng().standard_normal((2, 3, 4, 5)) + 3, _rng(1).standard_normal((4, 5)), _rng(2).standard_normal((4, 5))
    y, mean, inverse = call("LayerNormalization", x, w, b, opset=17, axis=2, epsilon=1e-3, output_count=3)
    np.testing.assert_allclose(y, functional.layer_norm(_t(x), (4, 5), _t(w), _t(b), 1e-3), atol=1e-13)
    np.testing.assert_allclose(mean, x.mean(axis=(2, 3), keepdims=True), atol=1e-14)
    np.testing.assert_allclose(inverse, 1 / np.sqrt(x.var(axis=(2, 3), keepdims=True) + 1e-3), rtol=1e-13)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalization_in_float64_agrees_with_torch(groups: int) -> None:
    x, w, b = _rng().standard_normal((2, 6, 4, 5)), _rng(1).standard_normal(6), _rng(2).standard_normal(6)
    expected = functional.group_norm(_t(x), groups, _t(w), _t(b), 1e-3)
    np.testing.assert_allclose(
        call("GroupNormalization", x, w, b, opset=21, num_groups=groups, epsilon=1e-3), expected, atol=1e-13
    )


def test_group_normalization_18_takes_scale_and_bias_per_group() -> None:
    x, w, b = _rng().standard_normal((2, 6, 4)), np.array([1.0, 2.0]), np.array([0.5, -0.5])
    expected = functional.group_norm(_t(x), 2, _t(w.repeat(3)), _t(b.repeat(3)), 1e-3)
    y = call("GroupNormalization", x, w, b, opset=18, num_groups=2, epsilon=1e-3)
    np.testing.assert_allclose(y, expected, atol=1e-13)


def test_instance_and_batch_normalization_in_float64_agree_with_torch() -> None:
    x, w, b = _rng().standard_normal((2, 3, 4, 5)), _rng(1).standard_normal(3), _rng(2).standard_normal(3)
    mean, var = _rng(3).standard_normal(3), _rng(4).random(3) + 0.1
    y = call("InstanceNormalization", x, w, b, opset=6, epsilon=1e-3)
    np.testing.assert_allclose(
        y, functional.instance_norm(_t(x), None, None, _t(w), _t(b), True, 0.1, 1e-3), atol=1e-13
    )
    y = call("BatchNormalization", x, w, b, mean, var, opset=15, epsilon=1e-3)
    expected = functional.batch_norm(_t(x), _t(mean), _t(var), _t(w), _t(b), False, 0.1, 1e-3)
    np.testing.assert_allclose(y, expected, atol=1e-13)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn_with_an_odd_window_agrees_with_torch(size: int) -> None:
    x = _rng().standard_normal((2, 7, 3, 4))
    y = call("LRN", x, opset=13, size=size, alpha=0.3, beta=0.6, bias=1.5)
    expected = torch.nn.LocalResponseNorm(size, 0.3, 0.6, 1.5)(_t(x))
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_lrn_with_an_even_window_has_the_larger_half_after_the_element() -> None:
    x = np.arange(1.0, 6.0).reshape(1, 5, 1)
    squares = [x[0, max(0, c - 1) : c + 3, 0] ** 2 for c in range(5)]  # c - floor(3/2) ... c + ceil(3/2)
    expected = [x[0, c, 0] / (1 + sum(squares[c]) / 4) for c in range(5)]
    y = call("LRN", x, opset=13, size=4, alpha=1.0, beta=1.0, bias=1.0)
    np.testing.assert_allclose(y.reshape(-1), expected, rtol=1e-14)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention_in_float64_agrees_with_torch(causal: bool, mask: str | None) -> None:
    q, k, v = (_rng(i).standard_normal((2, 4, 6, 8)) for i in range(3))
    given = (
        None if mask is None else _rng(9).standard_normal((6, 6)) if mask == "float" else _rng(9).random((6, 6)) < 0.7
    )
    if mask == "bool" and given is not None:
        np.fill_diagonal(given, True)
    bias = np.zeros((6, 6)) if given is None else np.where(given, 0, -np.inf) if mask == "bool" else given
    bias = bias + (np.triu(np.full((6, 6), -np.inf), 1) if causal else 0)
    expected = functional.scaled_dot_product_attention(_t(q), _t(k), _t(v), attn_mask=_t(bias))
    y = call("Attention", q, k, v, given, opset=23, is_causal=int(causal))
    np.testing.assert_allclose(y, expected, atol=1e-13)


def test_attention_with_a_cache_is_the_tail_of_attention_without() -> None:
    q, k, v = (_rng(i).standard_normal((2, 3, 7, 4)) for i in range(3))
    whole = call("Attention", q, k, v, opset=23, is_causal=1)
    y, key, value = call(
        "Attention",
        q[:, :, 5:],
        k[:, :, 5:],
        v[:, :, 5:],
        None,
        k[:, :, :5],
        v[:, :, :5],
        opset=23,
        is_causal=1,
        output_count=3,
    )
    np.testing.assert_allclose(y, whole[:, :, 5:], atol=1e-14)
    np.testing.assert_array_equal(key, k)
    np.testing.assert_array_equal(value, v)


def test_attention_row_without_any_key_is_zero() -> None:
    q = _rng().standard_normal((1, 1, 2, 4))
    y = call("Attention", q, q, q, np.array([[False, False], [True, True]]), opset=25)
    assert not y[0, 0, 0].any()
    assert y[0, 0, 1].any()


def _softmax32(x: Array, **_: Any) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _layer_norm32(x: Array, w: Array, b: Array, epsilon: float = 1e-5) -> Array:
    d = x - x.mean(axis=-1, keepdims=True)
    return (d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + np.float32(epsilon)) * w + b).astype(np.float32)


def _operands(n: int, seed: int) -> tuple[Array, Array, Array]:
    rng = _rng(seed)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in ((20, n), (n,), (n,)))  # type: ignore[return-value]


@pytest.mark.parametrize("n", [2, 16, 1000, 30000])
@pytest.mark.parametrize("seed", [0, 1])
def test_float32_softmax_and_layer_normalization_lie_within_the_bounds(n: int, seed: int) -> None:
    x, w, b = _operands(n, seed)
    assert beyond(_softmax32(x * 10), "Softmax", x * np.float32(10), opset=13) == 0
    assert beyond(_layer_norm32(x, w, b), "LayerNormalization", x, w, b, opset=17) == 0


FAULTS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "epsilon left out": lambda x, w, b: _layer_norm32(x * np.float32(0.01), w, b, 0.0),
    "unbiased variance": lambda x, w, b: _layer_norm32(x * np.float32(0.01), w, b) * np.float32(np.sqrt(15 / 16)),
    "shift left out": lambda x, w, b: _layer_norm32(x * np.float32(0.01), w, np.zeros_like(b)),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_faulty_layer_normalization_lies_beyond_the_bounds(fault: Callable[..., Array]) -> None:
    x, w, b = _operands(16, 0)
    assert beyond(fault(x, w, b), "LayerNormalization", x * np.float32(0.01), w, b, opset=17) > 100


def test_softmax_along_another_axis_lies_beyond_the_bounds() -> None:
    x = _rng().standard_normal((20, 20)).astype(np.float32)
    assert beyond(_softmax32(x.T).T.copy(), "Softmax", x, opset=13) == x.size


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_onnxruntime_softmax_lies_within_the_bounds(op_type: str, n: int) -> None:
    x = (_rng(n).standard_normal((50, n)) * 20).astype(np.float32)
    (stored,) = run_onnxruntime(op_type, [x], {"axis": -1}, opset=13)
    assert beyond(stored, op_type, x, opset=13, axis=-1) == 0


def test_onnxruntime_attention_lies_within_the_bounds_and_a_missing_mask_does_not() -> None:
    q, k, v = (_rng(i).standard_normal((1, 4, 32, 16)).astype(np.float32) for i in range(3))
    (right,) = run_onnxruntime("Attention", [q, k, v], {"is_causal": 1}, opset=23)
    (wrong,) = run_onnxruntime("Attention", [q, k, v], {"is_causal": 0}, opset=23)
    assert beyond(right, "Attention", q, k, v, opset=23, is_causal=1) == 0
    assert beyond(wrong, "Attention", q, k, v, opset=23, is_causal=1) > wrong.size / 2
