"""Attention where it computes in another type than its tensors': the function body's float32, a coarser softmax."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime


def operands(dtype: type, seed: int = 0) -> tuple[Array, Array, Array]:
    """Queries, keys and values of two heads of five features."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((1, 2, length, 5)).astype(dtype) for length in (3, 4, 4))
    return q, k, v


@pytest.mark.parametrize("scale", [None, 0.3, 1.7])
def test_float64_with_the_float32_scale_of_the_function_body_is_within_bounds_and_a_wrong_scale_is_not(
    scale: float | None,
) -> None:
    inputs, attributes = operands(np.float64), {} if scale is None else {"scale": float(np.float32(scale))}
    (actual,) = run_onnxruntime("Attention", inputs, attributes, opset=24)
    assert beyond(actual, "Attention", *inputs, opset=24, **attributes) == 0
    exact = call("Attention", *inputs, opset=24, **attributes)
    assert beyond(exact, "Attention", *inputs, opset=24, **attributes) == 0
    factor = attributes.get("scale", 1 / np.sqrt(5))
    wrong = call("Attention", *inputs, opset=24, scale=factor * (1 + 1e-5))
    assert beyond(wrong, "Attention", *inputs, opset=24, **attributes) > 0


def attended_in(dtype: type, q: Array, k: Array, v: Array) -> Array:
    """Attention whose softmax is computed in a narrower type."""
    scores = (q @ k.swapaxes(-1, -2) / np.float32(np.sqrt(q.shape[-1]))).astype(dtype)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return ((e / e.sum(axis=-1, keepdims=True)).astype(np.float32) @ v).astype(np.float32)


def test_softmax_in_float16_is_within_bounds_only_where_its_precision_is_asked_for() -> None:
    q, k, v = operands(np.float32)
    narrow = attended_in(np.float16, q, k, v)
    asked = {"softmax_precision": onnx.TensorProto.FLOAT16}
    assert beyond(narrow, "Attention", q, k, v, opset=24, **asked) == 0
    assert beyond(attended_in(np.float32, q, k, v), "Attention", q, k, v, opset=24, **asked) == 0
    assert beyond(narrow, "Attention", q, k, v, opset=24) > 0
    assert beyond(narrow, "Attention", q, k, v, opset=24, softmax_precision=onnx.TensorProto.DOUBLE) > 0
    shifted = attended_in(np.float16, q, k[:, :, ::-1], v)
    assert beyond(shifted, "Attention", q, k, v, opset=24, **asked) > 0
