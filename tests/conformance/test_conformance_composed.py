"""Operators of several roundings, averages and products: whoever computes them correctly in float32 passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from onnx_arch.conformance.calibration.data import matrices, signed, wide
from onnx_arch.conformance.calibration.summing import blocked, sequential
from onnx_arch.conformance.results import Outcome

from ..operators.judging import run_onnxruntime
from .judged_nodes import judge

Array = np.ndarray

LENGTHS = (16, 256, 1024, 4608, 25088)
EPSILON = 1e-5
F = np.float32


def near_constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """0.3 but for a millionth: the variance is what is left of a cancellation."""
    return 0.3 + 1e-6 * rng.standard_normal(shape)


# Values far from zero make the variance E[x²] − mean² cancel, wide ones leave one element to decide.
DATA: Mapping[str, Callable[..., Array]] = {
    "signed": signed,
    "positive": lambda rng, shape: np.abs(rng.standard_normal(shape)),
    "mean 10": lambda rng, shape: 10 + rng.standard_normal(shape),
    "mean 100": lambda rng, shape: 100 + rng.standard_normal(shape),
    "small": lambda rng, shape: 1e-3 * rng.standard_normal(shape),
    "large": lambda rng, shape: 30 * rng.standard_normal(shape),
    "wide": wide,
    "near constant": near_constant,
}

every_kind = pytest.mark.parametrize("kind", DATA)
every_length = pytest.mark.parametrize("length", LENGTHS)
seeds = pytest.mark.parametrize("seed", [0, 1])


def _data(kind: str, shape: tuple[int, ...], seed: int) -> Array:
    return DATA[kind](np.random.default_rng([seed, *shape]), shape).astype(F)


def _affine(size: int, seed: int = 3) -> tuple[Array, Array]:
    rng = np.random.default_rng([seed, size])
    return (1 + 0.1 * rng.standard_normal(size)).astype(F), (0.1 * rng.standard_normal(size)).astype(F)


def _passes(op_type: str, inputs: list[Any], results: Mapping[str, Array], opset: int = 23, **attributes: Any) -> None:
    for name, y in results.items():
        row = judge(op_type, inputs, y, attributes, opset=opset)
        assert row.outcome is Outcome.PASSED, f"{op_type} by {name}: {row.message}"


def _by_onnxruntime(op_type: str, inputs: list[Any], opset: int = 23, **attributes: Any) -> Array:
    return run_onnxruntime(op_type, inputs, attributes, opset=opset)[0]


def _loop(x: Array) -> Array:
    """A float32 sum over the last axis, one after the other."""
    return np.add.accumulate(x, axis=-1, dtype=F)[..., -1:]


def _sum(x: Array) -> Array:
    return x.sum(axis=-1, keepdims=True)


# Softmax and normalisations in every correct way


@every_kind
@every_length
@seeds
def test_softmax_of_everyone_passes(length: int, kind: str, seed: int) -> None:
    x = _data(kind, (6, length), seed)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    results = {
        "ONNX Runtime": _by_onnxruntime("Softmax", [x], axis=-1),
        "PyTorch": torch.softmax(torch.from_numpy(x), -1).numpy(),
        "NumPy": e / _sum(e),
        "a loop": e * (F(1) / _loop(e)),
    }
    _passes("Softmax", [x], results, axis=-1)
    log = torch.log_softmax(torch.from_numpy(x), -1).numpy()
    _passes("LogSoftmax", [x], {"PyTorch": log, "ONNX Runtime": _by_onnxruntime("LogSoftmax", [x])})


def _two_passes(x: Array, w: Array, b: Array, total: Callable[[Array], Array]) -> Array:
    n = F(x.shape[-1])
    d = x - total(x) / n
    return d / np.sqrt(total(d * d) / n + F(EPSILON)) * w + b


def _one_pass(x: Array, w: Array, b: Array, total: Callable[[Array], Array]) -> Array:
    """With the variance as E[x²] − mean², which may round below zero."""
    n = F(x.shape[-1])
    mean = total(x) / n
    variance = np.maximum(total(x * x) / n - mean * mean, F(0))
    return (x - mean) / np.sqrt(variance + F(EPSILON)) * w + b


@every_kind
@every_length
@seeds
def test_layer_normalization_of_everyone_passes(length: int, kind: str, seed: int) -> None:
    x, (w, b) = _data(kind, (6, length), seed), _affine(length)
    tensors = [torch.from_numpy(t) for t in (x, w, b)]
    results = {
        "ONNX Runtime": _by_onnxruntime("LayerNormalization", [x, w, b], axis=-1),
        "PyTorch": functional.layer_norm(tensors[0], (length,), tensors[1], tensors[2], EPSILON).numpy(),
        "NumPy": _two_passes(x, w, b, _sum),
        "loops": _two_passes(x, w, b, _loop),
    }
    one_pass = _one_pass(x, w, b, _loop)
    if kind == "mean 100" and length <= 256:  # what the text's variance cannot lose, by its certain bound
        row = judge("LayerNormalization", [x, w, b], one_pass)
        assert row.outcome is Outcome.FAILED, row.message
    elif kind != "mean 100":
        results["one pass"] = one_pass
    _passes("LayerNormalization", [x, w, b], results)


@every_kind
@every_length
def test_root_mean_square_normalization_of_everyone_passes(length: int, kind: str) -> None:
    x, (w, _) = _data(kind, (6, length), 0), _affine(length)
    tensors = torch.from_numpy(x), torch.from_numpy(w)
    results = {
        "PyTorch": functional.rms_norm(tensors[0], (length,), tensors[1], EPSILON).numpy(),
        "a loop": x * (F(1) / np.sqrt(_loop(x * x) / F(length) + F(EPSILON))) * w,
    }
    _passes("RMSNormalization", [x, w], results)


@pytest.mark.parametrize("kind", [kind for kind in DATA if kind != "near constant"])
@every_length
def test_group_instance_and_batch_normalization_of_everyone_pass(length: int, kind: str) -> None:
    """Not near-constant data: there ONNX Runtime's group normalisation is NaN (docs/disagreements.md)."""
    x = _data(kind, (2, 4, max(length // 2, 8)), 0)
    (w, b), t = _affine(4), torch.from_numpy
    mean, variance = np.array([0.1, -1, 2, 0], F), np.array([0.5, 1, 2, 0.01], F)
    group = functional.group_norm(t(x), 2, t(w), t(b), EPSILON).numpy()
    _passes(
        "GroupNormalization",
        [x, w, b],
        {"PyTorch": group, "ONNX Runtime": _by_onnxruntime("GroupNormalization", [x, w, b], num_groups=2)},
        num_groups=2,
    )
    instance = functional.instance_norm(t(x), weight=t(w), bias=t(b)).numpy()
    own = _by_onnxruntime("InstanceNormalization", [x, w, b])
    _passes("InstanceNormalization", [x, w, b], {"PyTorch": instance, "ONNX Runtime": own})
    batch = functional.batch_norm(t(x), t(mean), t(variance), t(w), t(b), eps=EPSILON).numpy()
    inputs = [x, w, b, mean, variance]
    _passes(
        "BatchNormalization", inputs, {"PyTorch": batch, "ONNX Runtime": _by_onnxruntime("BatchNormalization", inputs)}
    )


def test_nan_of_a_variance_that_rounds_below_zero_fails() -> None:
    """E[x²] − mean² of near-constant data can be below −epsilon in float32; NaN is no rounding error."""
    x, w, b = _data("near constant", (1, 2, 64), 0), *_affine(2)
    y = np.full(x.shape, np.nan, F)
    row = judge("GroupNormalization", [x, w, b], y, {"num_groups": 1})
    assert row.outcome is Outcome.FAILED
    assert "NaN where finite" in row.message


REDUCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "ReduceSum": _sum,
    "ReduceMean": lambda x: x.mean(axis=-1, keepdims=True),
    "ReduceL1": lambda x: _sum(np.abs(x)),
    "ReduceL2": lambda x: np.sqrt(_sum(x * x)),
    "ReduceSumSquare": lambda x: _loop(x * x),
    "ReduceLogSumExp": lambda x: np.log(_loop(np.exp(x - x.max(-1, keepdims=True)))) + x.max(-1, keepdims=True),
}


@every_kind
@every_length
@pytest.mark.parametrize("op_type", REDUCTIONS)
def test_reductions_of_everyone_pass(op_type: str, length: int, kind: str) -> None:
    x, axes = _data(kind, (6, length), 0), np.array([-1])
    own = _by_onnxruntime(op_type, [x, axes], opset=18)
    _passes(op_type, [x, axes], {"ONNX Runtime": own, "NumPy": REDUCTIONS[op_type](x)}, opset=18)


@every_kind
@pytest.mark.parametrize("size", [4, 16, 68, 159])
def test_pooling_of_everyone_passes(size: int, kind: str) -> None:
    x = _data(kind, (1, 3, size, size), 0)
    _passes("GlobalAveragePool", [x], {"ONNX Runtime": _by_onnxruntime("GlobalAveragePool", [x])})
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    for op_type, pool in (("MaxPool", functional.max_pool2d), ("AveragePool", functional.avg_pool2d)):
        options = {} if op_type == "MaxPool" else {"count_include_pad": False}
        y = pool(torch.from_numpy(x), 3, 2, 1, **options).numpy()
        _passes(op_type, [x], {"PyTorch": y, "ONNX Runtime": _by_onnxruntime(op_type, [x], **attributes)}, **attributes)


# Sums of products in ONNX Runtime, one node a session


CONVOLUTIONS = [(16, 1), (256, 4), (1024, 8), (4608, 3), (25088, 7)]
"""(C · k², k)"""


@pytest.mark.parametrize("kind", ["signed", "positive", "rectified", "wide", "cancelling", "constant", "equal"])
@pytest.mark.parametrize(("length", "size"), CONVOLUTIONS)
def test_products_and_convolutions_of_onnxruntime_and_torch_pass(length: int, size: int, kind: str) -> None:
    a, b = matrices(kind, 4, length, 24, 0)
    bias = np.random.default_rng(1).standard_normal(24).astype(F)
    _passes("MatMul", [a, b], {"ONNX Runtime": _by_onnxruntime("MatMul", [a, b])})
    _passes("Gemm", [a, b, bias], {"ONNX Runtime": _by_onnxruntime("Gemm", [a, b, bias])})
    channels = length // size**2
    x = np.tile(a.reshape(4, channels, size, size), (1, 1, 2, 2))
    w = np.ascontiguousarray(b.T).reshape(24, channels, size, size)
    pads = [size // 2] * 4
    y = functional.conv2d(*map(torch.from_numpy, (x, w, bias)), padding=size // 2).numpy()
    results = {"PyTorch": y, "ONNX Runtime": _by_onnxruntime("Conv", [x, w, bias], pads=pads)}
    _passes("Conv", [x, w, bias], results, pads=pads)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("kind", ["signed", "positive"])
@pytest.mark.parametrize("length", [16, 1024, 4608])
def test_other_types_of_onnxruntime_pass(length: int, kind: str, dtype: Any) -> None:
    a, b = (x.astype(dtype) for x in matrices(kind, 4, length, 24, 0))
    _passes("MatMul", [a, b], {"ONNX Runtime": _by_onnxruntime("MatMul", [a, b])})
    _passes("Softmax", [a], {"ONNX Runtime": _by_onnxruntime("Softmax", [a])})


def _attention(q: Array, k: Array, v: Array, product: Callable[[Array, Array], Array]) -> Array:
    rows = []
    for head in np.ndindex(q.shape[:2]):
        scores = product(q[head], k[head].T) * F(1 / np.sqrt(q.shape[-1]))
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        rows.append(product(e / _loop(e), v[head]))
    return np.stack(rows).reshape(*q.shape[:3], v.shape[-1])


@pytest.mark.parametrize("kind", ["signed", "positive", "mean 10", "small"])
@pytest.mark.parametrize("keys", [16, 256, 1024, 4608])
def test_attention_of_everyone_passes(keys: int, kind: str) -> None:
    q, k, v = (_data(kind, (1, 2, count, 32), seed) for seed, count in enumerate((9, keys, keys)))
    results = {
        "PyTorch": functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v))).numpy(),
        "ONNX Runtime": _by_onnxruntime("Attention", [q, k, v]),
        "blocks": _attention(q, k, v, blocked),
        "loops": _attention(q, k, v, sequential),
    }
    _passes("Attention", [q, k, v], results)
