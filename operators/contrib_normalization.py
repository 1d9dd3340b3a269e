"""Normalisations that ONNX Runtime fuses: behind a residual sum, by root mean square alone, behind embeddings.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1; SimplifiedLayerNormalization is in the default domain there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._elementwise import ONCE, undetermined
from ._fused_activation import Stored
from ._spilling import opened, squares_spill, stage_type
from .contrib_products import MICROSOFT
from .normalization import EPSILON, ROUNDINGS, layer_normalization, layer_normalization_scale, rms_normalization
from .registry import kernel, scale
from .scale import Array, Rule, Scale
from .storage import encode, float_format

SKIP_EPSILON = float(np.float32(1e-12))
LAST = (-1,)
FLOAT32 = np.dtype(np.float32)


def _stored_as(values: Array, dtype: np.dtype[Any] | None, first: np.dtype[Any] | None) -> Array:
    """`values` in the type that an output has where it is not that of the first input."""
    return values if dtype is None or dtype == first else encode(values, dtype)


def _root_mean_square(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    return np.sqrt((x**2).mean(axis=axes, keepdims=True) + epsilon)


def _spread(n: int) -> float:
    return math.sqrt(1 + n / (9 * ROUNDINGS**2))


def _trailing(x: Array, axis: int) -> tuple[int, ...]:
    if not -x.ndim <= axis < max(x.ndim, 1):
        raise InvalidAttributeError(f"SimplifiedLayerNormalization: axis={axis} is outside [-{x.ndim}, {x.ndim})")
    return tuple(range(axis % max(x.ndim, 1), x.ndim))


@kernel("SimplifiedLayerNormalization", since=1)
def simplified_layer_normalization(
    x: Array,
    weight: Array,
    /,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    stash_type: int = 1,
    stored: Stored = (None, None),
    output_count: int = 1,
) -> tuple[Array, ...]:
    """Divide by the root mean square over the axes from `axis` on, then scale.

    Args:
        x: (…, d_axis, …, d_last).
        weight: scale, broadcastable to `x` from the right.
        axis: first normalised axis.
        epsilon: added to the mean square.
        stash_type: precision of the first stage in a runtime; the reference is float64.
        stored: dtypes of the inputs: Y has that of `weight`, the second output is float32.
        output_count: 2 for the reciprocal root mean square too.

    Returns:
        (Y like `x`, 1 / root mean square with size one in the normalised axes).

    Raises:
        InvalidAttributeError: `axis` outside [−rank, rank).

    Spec: SimplifiedLayerNormalization, since 1 (ONNX Runtime, default domain)
    """
    inverse = 1 / _root_mean_square(x, _trailing(x, axis), epsilon)
    y = rms_normalization(x, weight, axis=axis, epsilon=epsilon)
    return (_stored_as(y, stored[1], stored[0]), _stored_as(inverse, FLOAT32, stored[0]))[:output_count]


@scale("SimplifiedLayerNormalization", since=1)
def simplified_layer_normalization_scale(
    y: tuple[Array, ...] | Array,
    x: Array,
    weight: Array,
    /,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    stash_type: int = 1,
    output_count: int = 1,
) -> tuple[Scale, ...]:
    """COMPOSED at |y|: half a mean of squares, the root, the quotient, the product; as RMSNormalization."""
    axes = _trailing(x, axis)
    n = math.prod(x.shape[a] for a in axes)
    value = rms_normalization(x, weight, axis=axis, epsilon=epsilon)
    inverse = 1 / _root_mean_square(x, axes, epsilon)
    spilled = squares_spill(x, axes, stage_type(stash_type))
    sizes = (np.abs(value) * ROUNDINGS, inverse * ROUNDINGS)
    return tuple(opened(Scale(size, n, Rule.COMPOSED, _spread(n)), spilled) for size in sizes)[:output_count]


def _sum_scale(x: Array, parts: list[Array]) -> Scale:
    """ULP: two summands round once at |x|; three may be added in any order, and round twice at most at Σ|part|."""
    if len(parts) <= 2:
        return Scale(np.abs(x), ONCE, Rule.ULP)
    return Scale(sum((np.abs(part) for part in parts), np.zeros(())), 2 * ONCE, Rule.ULP)


@dataclass(frozen=True)
class Moved:
    """By how much, in half-units and to first order, errors δx of a sum move what is normalised behind it.

    With d = x − mean (or x) and r = sqrt(mean d² + ε), of y = d / r: δy = (δx + mean δx) / r + |d|·mean(|d|·δx) / r³.
    """

    y: Array
    mean: Array
    inverse: Array


def _moved_by_sum(x: Array, bound: Scale, epsilon: float, *, centred: bool) -> Moved:
    error = np.broadcast_to(bound.magnitude * bound.terms, x.shape)
    d = x - x.mean(axis=-1, keepdims=True) if centred else x
    inverse = 1 / _root_mean_square(d, LAST, epsilon)
    mean = error.mean(axis=-1, keepdims=True) if centred else np.zeros(())
    root = inverse**3 * (np.abs(d) * error).mean(axis=-1, keepdims=True)
    return Moved((error + mean) * inverse + np.abs(d) * root, mean, root)


def _wider(stored: Stored) -> float:
    """Half-units of float32 in one of the type in which the sum may be stored: the statistics are float32."""
    narrow = float_format(stored[0] or FLOAT32).fraction_bits
    return 2.0 ** max(0, float_format(FLOAT32).fraction_bits - narrow)


def _summed(x: Array, skip: Array, bias: Array | None) -> tuple[Array, list[Array]]:
    if skip.ndim > x.ndim or skip.shape[-2:] != x.shape[-2:]:
        raise InvalidInputError(f"SkipLayerNormalization: skip of shape {skip.shape} for an input of shape {x.shape}")
    parts = [x, skip] if bias is None else [x, skip, bias]
    return x + skip if bias is None else x + skip + bias, parts


@kernel("SkipLayerNormalization", since=1, domain=MICROSOFT)
def skip_layer_normalization(
    x: Array,
    skip: Array,
    gamma: Array,
    beta: Array | None = None,
    bias: Array | None = None,
    /,
    *,
    epsilon: float = SKIP_EPSILON,
    stored: Stored = (None,),
    output_count: int = 1,
) -> tuple[Array, ...]:
    """LayerNormalization of x + skip + bias over the last axis.

    Args:
        x: (B, T, N) or (T, N).
        skip: like `x`, or (1, T, N) or (T, N) for all of the batch.
        gamma: (N,).
        beta: (N,) or None; so is `bias`.
        epsilon: added to the variance.
        stored: dtypes of the inputs; mean and deviation are float32 whatever they are.
        output_count: outputs wanted.

    Returns:
        (Y, mean, 1 / deviation, x + skip + bias), the first `output_count`.

    Raises:
        InvalidInputError: a `skip` of another shape.

    Spec: com.microsoft SkipLayerNormalization, since 1
    """
    total, _ = _summed(x, skip, bias)
    y, mean, inverse = layer_normalization(total, gamma, beta, epsilon=epsilon)
    statistics = (_stored_as(mean, FLOAT32, stored[0]), _stored_as(inverse, FLOAT32, stored[0]))
    return (y, *statistics, total)[:output_count]


@scale("SkipLayerNormalization", since=1, domain=MICROSOFT)
def skip_layer_normalization_scale(
    y: tuple[Array, ...] | Array,
    x: Array,
    skip: Array,
    gamma: Array,
    beta: Array | None = None,
    bias: Array | None = None,
    /,
    *,
    epsilon: float = SKIP_EPSILON,
    stored: Stored = (None,),
    output_count: int = 1,
) -> tuple[Scale, ...]:
    """COMPOSED: as LayerNormalization, and what rounding the sum moves; the sum itself is rounded once or twice."""
    total, parts = _summed(x, skip, bias)
    outputs = layer_normalization(total, gamma, beta, epsilon=epsilon)
    scales = layer_normalization_scale(outputs, total, gamma, beta, epsilon=epsilon)
    bound = _sum_scale(total, parts)
    moved, wider = _moved_by_sum(total, bound, epsilon, centred=True), _wider(stored)
    sizes = (moved.y * np.abs(gamma), moved.mean * wider, moved.inverse * wider)
    added = (replace(s, magnitude=s.magnitude + size) for s, size in zip(scales, sizes, strict=True))
    return (*added, bound)[:output_count]


@kernel("SkipSimplifiedLayerNormalization", since=1, domain=MICROSOFT)
def skip_simplified_layer_normalization(
    x: Array,
    skip: Array,
    gamma: Array,
    bias: Array | None = None,
    /,
    *,
    epsilon: float = SKIP_EPSILON,
    stored: Stored = (None,),
    output_count: int = 1,
) -> tuple[Array, ...]:
    """x + skip + bias, divided by its root mean square over the last axis, times gamma.

    Args:
        x: (B, T, N) or (T, N).
        skip: like `x`, or (1, T, N) or (T, N) for all of the batch.
        gamma: (N,); so is `bias`, or None.
        epsilon: added to the mean square.
        stored: dtypes of the inputs.
        output_count: outputs wanted.

    Returns:
        (Y, mean, 1 / root mean square, x + skip + bias), the first `output_count`. No mean is needed; the schema does
        not say what that output holds, and it is left open.

    Raises:
        InvalidInputError: a `skip` of another shape.

    Spec: com.microsoft SkipSimplifiedLayerNormalization, since 1
    """
    total, _ = _summed(x, skip, bias)
    y = rms_normalization(total, gamma, epsilon=epsilon)
    statistics = (total.mean(axis=-1, keepdims=True), 1 / _root_mean_square(total, LAST, epsilon))
    return (y, *(_stored_as(s, FLOAT32, stored[0]) for s in statistics), total)[:output_count]


@scale("SkipSimplifiedLayerNormalization", since=1, domain=MICROSOFT)
def skip_simplified_layer_normalization_scale(
    y: tuple[Array, ...] | Array,
    x: Array,
    skip: Array,
    gamma: Array,
    bias: Array | None = None,
    /,
    *,
    epsilon: float = SKIP_EPSILON,
    stored: Stored = (None,),
    output_count: int = 1,
) -> tuple[Scale, ...]:
    """COMPOSED: as RMSNormalization, and what rounding the sum moves."""
    total, parts = _summed(x, skip, bias)
    n = total.shape[-1]
    bound = _sum_scale(total, parts)
    moved = _moved_by_sum(total, bound, epsilon, centred=False)
    size = np.abs(rms_normalization(total, gamma, epsilon=epsilon)) * ROUNDINGS + moved.y * np.abs(gamma)
    first = Scale(size, n, Rule.COMPOSED, _spread(n))
    inverse = ROUNDINGS / _root_mean_square(total, LAST, epsilon) + moved.inverse * _wider(stored)
    third, spilled = Scale(inverse, n, Rule.COMPOSED, _spread(n)), squares_spill(total, LAST, FLOAT32)
    return (opened(first, spilled), undetermined(True), opened(third, spilled), bound)[:output_count]


def _embedded(
    ids: Array, segments: Array | None, words: Array, places: Array, kinds: Array | None, positions: Array | None
) -> tuple[Array, list[Array]]:
    B, T = ids.shape
    at = np.arange(T)[None] if positions is None else positions
    parts = [words[ids], np.broadcast_to(places[at], (B, T, places.shape[-1]))]
    if segments is not None and kinds is not None:
        parts.append(kinds[segments])
    return sum(parts[1:], parts[0]), parts


@kernel("EmbedLayerNormalization", since=1, domain=MICROSOFT)
def embed_layer_normalization(
    input_ids: Array,
    segment_ids: Array | None,
    word_embedding: Array,
    position_embedding: Array,
    segment_embedding: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None = None,
    position_ids: Array | None = None,
    /,
    *,
    epsilon: float = SKIP_EPSILON,
    mask_index_type: int | None = None,
    output_count: int = 1,
) -> tuple[Array, ...]:
    """LayerNormalization of the sum of a word's, its position's and its segment's embedding.

    Args:
        input_ids: (B, T), indices into `word_embedding`.
        segment_ids: (B, T) or None, indices into `segment_embedding`.
        word_embedding: (words, N).
        position_embedding: (positions, N).
        segment_embedding: (segments, N) or None.
        gamma: (N,); so is `beta`.
        mask: (B, T), 1 for a word; or None.
        position_ids: (B, T) or (1, T), 0 … T − 1 by default.
        epsilon: added to the variance.
        mask_index_type: for shape inference alone.
        output_count: outputs wanted.

    Returns:
        (Y (B, T, N), mask_index (B,), embedding_sum (B, T, N)), the first `output_count`. mask_index is the position of
        the first 0 of `mask`, or T, and 0 without a mask.

    Spec: com.microsoft EmbedLayerNormalization, since 1. It calls mask_index "position of first 0 in mask, or number of
    words": where these two differ (a 1 behind a 0, or other numbers) it is left open. It calls embedding_sum the sum of
    word and position embeddings; ONNX Runtime's has the segment's too, as what is normalised has: that is taken.
    """
    del mask_index_type
    total, _ = _embedded(input_ids, segment_ids, word_embedding, position_embedding, segment_embedding, position_ids)
    y = layer_normalization(total, gamma, beta, epsilon=epsilon)[0]
    return (y, _first_padding(input_ids, mask), total)[:output_count]


def _first_padding(ids: Array, mask: Array | None) -> Array:
    if mask is None:
        return np.zeros(len(ids), ids.dtype)
    none = (mask != 0).all(axis=1)
    return np.where(none, mask.shape[1], (mask == 0).argmax(axis=1)).astype(ids.dtype)


@scale("EmbedLayerNormalization", since=1, domain=MICROSOFT)
def embed_layer_normalization_scale(
    y: tuple[Array, ...] | Array,
    input_ids: Array,
    segment_ids: Array | None,
    word_embedding: Array,
    position_embedding: Array,
    segment_embedding: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None = None,
    position_ids: Array | None = None,
    /,
    *,
    epsilon: float = SKIP_EPSILON,
    output_count: int = 1,
) -> tuple[Scale, ...]:
    """COMPOSED: as SkipLayerNormalization over two or three summands."""
    total, parts = _embedded(
        input_ids, segment_ids, word_embedding, position_embedding, segment_embedding, position_ids
    )
    normalised = layer_normalization_scale(
        layer_normalization(total, gamma, beta, epsilon=epsilon), total, gamma, beta, epsilon=epsilon
    )[0]
    bound = _sum_scale(total, parts)
    moved = _moved_by_sum(total, bound, epsilon, centred=True)
    first = replace(normalised, magnitude=normalised.magnitude + moved.y * np.abs(gamma))
    if mask is None:
        index = undetermined(False)
    else:
        index = undetermined((mask == 1).sum(axis=1) != _first_padding(input_ids, mask))
    return (first, index, bound)[:output_count]
