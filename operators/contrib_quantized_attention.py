"""QAttention of ONNX Runtime (com.microsoft): Attention whose projection is a product of bytes.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ._scaled_dot_product import join_heads
from .contrib_attention import Form, Projected, refused, with_blind_open
from .contrib_products import MICROSOFT
from .contrib_quantized_products import PRODUCT_ROUNDINGS, integer_to_float
from .registry import kernel, scale
from .scale import Array, Rule, Scale


def _attended(inputs: Sequence[Array | None], attributes: dict[str, Any]) -> Projected:
    x, w, bias, x_scale, w_scale, mask_index, x_zero, w_zero, past = [*inputs, *[None] * 4][:9]
    if x is None or w is None or bias is None or x.ndim != 3 or w.ndim != 2 or w.shape[1] % 3:
        raise InvalidInputError("QAttention: an input (B, T, N), weights (N, 3 · hidden) and a bias are needed")
    projected = integer_to_float((x, w, x_scale, w_scale, x_zero, w_zero, bias))
    form = Form(
        attributes["num_heads"],
        mask_index,
        past,
        None,
        attributes.get("unidirectional", 0),
        attributes.get("mask_filter_value"),
        attributes.get("scale"),
    )
    return form.over_heads(projected.value, PRODUCT_ROUNDINGS * projected.size, [w.shape[1] // 3] * 3, 0)


@kernel("QAttention", since=1, domain=MICROSOFT)
def qattention(
    x: Array,
    weight: Array,
    bias: Array,
    input_scale: Array,
    weight_scale: Array,
    mask_index: Array | None = None,
    input_zero_point: Array | None = None,
    weight_zero_point: Array | None = None,
    past: Array | None = None,
    /,
    *,
    num_heads: int,
    unidirectional: int = 0,
    mask_filter_value: float | None = None,
    scale: float | None = None,
    do_rotary: int = 0,
    past_present_share_buffer: int = 0,
    output_count: int = 1,
) -> tuple[Array, ...]:
    """Attention of (x − input_zero_point)·(weight − weight_zero_point) · input_scale · weight_scale + bias.

    Args:
        x: (B, T, N), bytes.
        weight: (N, 3 · hidden), bytes: of queries, keys and values.
        bias: (3 · hidden,), float.
        input_scale: one; so is `input_zero_point`, 0 if absent.
        weight_scale: one, or (3 · hidden,); so is `weight_zero_point`, 0 if absent.
        mask_index: (B,), ends of the keys, or as for Attention; or None.
        input_zero_point: see input_scale.
        weight_zero_point: see weight_scale.
        past: (2, B, num_heads, past, D), keys and values before these.
        num_heads: of all three.
        unidirectional: a query sees the keys up to its own position.
        mask_filter_value: added where masked, −10000 by default.
        scale: of the scores, 1 / sqrt(D) by default.
        do_rotary: not modelled; nor is past_present_share_buffer.
        past_present_share_buffer: not modelled.
        output_count: 2 for the keys and values too.

    Returns:
        (Y (B, T, hidden), present (2, B, num_heads, S, D)), the first `output_count`, in the type of the scales.

    Raises:
        InvalidInputError: shapes that do not go together, or what is not modelled.

    Spec: com.microsoft QAttention, since 1. Where every key is masked the schema leaves the output open.
    """
    refused("QAttention", do_rotary=do_rotary, past_present_share_buffer=past_present_share_buffer)
    inputs = (x, weight, bias, input_scale, weight_scale, mask_index, input_zero_point, weight_zero_point, past)
    attributes = {
        "num_heads": num_heads,
        "unidirectional": unidirectional,
        "mask_filter_value": mask_filter_value,
        "scale": scale,
    }
    done = _attended(inputs, attributes)
    return (join_heads(done.attended.y), np.stack([done.k.value, done.v.value]))[:output_count]


@scale("QAttention", since=1, domain=MICROSOFT)
def qattention_scale(
    _y: tuple[Array, ...] | Array, *inputs: Array | None, output_count: int = 1, **attributes: Any
) -> tuple[Scale, ...]:
    """COMPOSED: the projection's roundings, `PRODUCT_ROUNDINGS`, passed on by `attend`; the cache has these alone."""
    done = _attended(inputs, attributes)
    first = done.attended.scale(join_heads(with_blind_open(done.attended.y_size, done.blind)))
    return (first, Scale(np.stack([done.k.error, done.v.error]), 1, Rule.ULP))[:output_count]
