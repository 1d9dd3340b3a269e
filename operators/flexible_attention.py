"""FlexAttention (ai.onnx.preview) without subgraphs; with them it is control flow (`graphs.control_flow`)."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidInputError
from .attention import attention, attention_scale
from .registry import kernel, scale
from .scale import Array, Scale

PREVIEW = "ai.onnx.preview"

RANK = 4


@kernel("FlexAttention", since=1, domain=PREVIEW)
def flex_attention(
    q: Array,
    k: Array,
    v: Array,
    /,
    *,
    prob_mod: Any = None,
    scale: float | None = None,
    score_mod: Any = None,
    softmax_precision: int | None = None,
) -> Array:
    """softmax(Q Kᵀ · scale) V over heads.

    Args:
        q: (B, Hq, Tq, D).
        k: (B, Hkv, Tk, D); Hkv divides Hq.
        v: (B, Hkv, Tk, Dv).
        prob_mod: a subgraph, which no kernel runs.
        scale: factor of the scores, 1 / sqrt(D) by default.
        score_mod: a subgraph, which no kernel runs.
        softmax_precision: precision of a runtime's softmax; the reference is float64.

    Returns:
        (B, Hq, Tq, Dv).

    Raises:
        InvalidInputError: other ranks, or head numbers that do not go together.

    Spec: FlexAttention, since 1
    """
    del softmax_precision
    if prob_mod is not None or score_mod is not None or not q.ndim == k.ndim == v.ndim == RANK:
        raise InvalidInputError(f"FlexAttention: Q {q.shape}, K {k.shape}, V {v.shape}; rank 4 and no subgraphs")
    return attention(q, k, v, scale=scale)[0]


@scale("FlexAttention", since=1, domain=PREVIEW)
def flex_attention_scale(
    y: Array, q: Array, k: Array, v: Array, /, *, scale: float | None = None, **attributes: Any
) -> Scale:
    """COMPOSED, as Attention."""
    del attributes
    return attention_scale(y, q, k, v, scale=scale)[0]
