"""Scaled dot-product attention: one `Attention` node since opset 23, its exact decomposition before.

A query that may attend no key has zeros, in PyTorch and in ONNX. A softmax has none: it gives NaN, or the mean of all
values. So the decomposition sets such rows to zero: they are quick to find, because a mask is smaller than the scores
by the number of heads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from .operators import opset18 as op
from .operators import opset23
from .sizes import dims_vector, size_of, vector
from .table import translation

aten = torch.ops.aten


@translation(aten.scaled_dot_product_attention.default, since=23)
def attention(  # noqa: PLR0913, PLR0917 - PyTorch's signature
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """One `Attention` node where it takes the shapes, else the decomposition.

    Causal attention of as many queries as keys is an attribute; of other numbers it is a mask, because runtimes do not
    agree at which corner the diagonal starts. A mask of one row for all queries is written out for each, which ONNX
    Runtime wants.
    """
    rank = len(query.shape)
    if rank not in (3, 4) or not _same_heads(query, key, value, enable_gqa=enable_gqa):
        return attention_decomposed(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    _check_dropout(dropout_p)
    mask = attn_mask
    square = query.shape[-2] == key.shape[-2]
    if is_causal and not square:
        mask = _causal_mask(query, key)
    if attn_mask is not None:
        mask = _row_per_query(attn_mask, query)
    head = op.Constant(value_ints=[1])
    if rank == 4:
        found, *_ = opset23.Attention(query, key, value, mask, is_causal=int(is_causal and square), scale=scale)
    else:
        heads = [op.Unsqueeze(x, head) for x in (query, key, value)]  # (B, 1, T, D)
        mask = op.Unsqueeze(mask, head) if attn_mask is not None and len(attn_mask.shape) == rank else mask
        found, *_ = opset23.Attention(*heads, mask, is_causal=int(is_causal and square), scale=scale)
        found = op.Squeeze(found, head)
    return found


@translation(aten.scaled_dot_product_attention.default, since=18)
def attention_decomposed(  # noqa: PLR0913, PLR0917 - PyTorch's signature
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(Q · scale · Kᵀ + bias) V in single operators, for any number of leading axes."""
    _check_dropout(dropout_p)
    axes = list(range(len(key.shape)))
    causal = _boolean_bias(_causal_mask(query, key), query) if is_causal else None
    bias = causal if attn_mask is None else _bias(attn_mask, query)
    if enable_gqa:
        key, value = (_repeat_heads(x, query) for x in (key, value))
    transposed = op.Transpose(key, perm=[*axes[:-2], axes[-1], axes[-2]])  # (…, D, S)
    scores = op.MatMul(op.Mul(query, _factor(query, scale)), transposed)  # (…, T, S)
    scores = scores if bias is None else op.Add(scores, bias)
    found = op.MatMul(op.Softmax(scores, axis=-1), value)  # (…, T, Dv)
    return _zero_without_keys(found, query, attn_mask)


def _check_dropout(dropout_p: float) -> None:
    if dropout_p:
        raise ValueError(f"attention with dropout_p={dropout_p} is random; an exported graph has no dropout")


def _same_heads(query: Any, key: Any, value: Any, *, enable_gqa: bool) -> bool:
    """Whether ranks, batches and heads are what `Attention` takes: it broadcasts nothing."""
    shapes = [list(x.shape) for x in (query, key, value)]
    if len({len(shape) for shape in shapes}) != 1:
        return False
    leading = [shape[:1] if enable_gqa else shape[:-2] for shape in shapes]
    return leading[0] == leading[1] == leading[2]


def _factor(query: Any, scale: float | None) -> Any:
    """`scale`, by default 1 / √D."""
    if scale is not None:
        return scale
    size = query.shape[-1]
    if isinstance(size, int):
        return 1 / math.sqrt(size)
    return op.Reciprocal(op.Sqrt(op.CastLike(size_of(query, len(query.shape) - 1), query)))


def _causal_mask(query: Any, key: Any) -> Any:
    """(T, S) booleans: query i attends keys up to i."""
    rows, columns = (_positions(size_of(x, len(x.shape) - 2)) for x in (query, key))
    return op.GreaterOrEqual(op.Unsqueeze(rows, op.Constant(value_ints=[1])), columns)


def _positions(size: Any) -> Any:
    """0, 1, … below a size."""
    if isinstance(size, int):
        return op.Constant(value=ir.tensor(np.arange(size)))
    scalar = op.Squeeze(size)
    return op.Range(op.Constant(value_int=0), scalar, op.Constant(value_int=1))


def _bias(mask: Any, query: Any) -> Any:
    """What is added to the scores: a mask's own numbers, or of booleans 0 and the lowest number."""
    return _boolean_bias(mask, query) if mask.dtype == ir.DataType.BOOL else mask


def _boolean_bias(mask: Any, query: Any) -> Any:
    zero, lowest = (op.Constant(value=ir.tensor(x, dtype=query.dtype)) for x in (0.0, _lowest(query)))
    return op.Where(mask, zero, lowest)


def _lowest(query: Any) -> float:
    return float(query.dtype.min)


def _zero_without_keys(found: Any, query: Any, mask: Any) -> Any:
    """Zero for queries to which the module's own mask leaves no key."""
    if mask is None:
        return found
    is_bool = mask.dtype == ir.DataType.BOOL
    bias, least = _bias(mask, query), _lowest(query) if is_bool else -math.inf
    best = op.ReduceMax(bias, op.Constant(value_ints=[-1]), keepdims=1)  # (…, T, 1)
    none = op.Equal(best, op.Constant(value=ir.tensor(least, dtype=query.dtype)))
    return op.Where(none, op.Constant(value=ir.tensor(0.0, dtype=query.dtype)), found)


def _row_per_query(mask: Any, query: Any) -> Any:
    """A mask (…, T, S); one row for all queries is repeated."""
    rows = mask.shape[-2] if len(mask.shape) > 1 else 1
    if rows != 1 or query.shape[-2] == 1:
        return mask
    return op.Expand(mask, vector([size_of(query, len(query.shape) - 2), 1]))


def _repeat_heads(x: Any, query: Any) -> Any:
    """Keys or values (B, Hkv, S, D), each head repeated for the queries that share it: (B, H, S, D)."""
    heads, own = query.shape[1], x.shape[1]
    if heads == own:
        return x
    if not isinstance(heads, int) or not isinstance(own, int):
        raise ValueError("grouped queries need fixed numbers of heads")
    spread = op.Expand(op.Unsqueeze(x, op.Constant(value_ints=[2])), vector([1, 1, heads // own, 1, 1]))
    return op.Reshape(spread, op.Concat(dims_vector(x, 0, 1), vector([heads]), dims_vector(x, 2), axis=0))
