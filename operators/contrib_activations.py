"""GELU in the forms that ONNX Runtime fuses (com.microsoft): Gelu, BiasGelu, FastGelu, QuickGelu.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

import numpy as np

from ._fused_activation import Stored
from .activations import gelu, gelu_scale, reaching, swish, swish_scale
from .contrib_products import MICROSOFT
from .registry import kernel, scale
from .scale import Array, Rule, Scale

SUM_ROUNDINGS = 3.0
"""What rounding x + bias adds, in half-units of |x|·(1 + |e|) / 2: the slope of a GELU is below 1.13, and
(1 + |e|) / 2 is at least ½, so that its quotient is below 2.3; and one for a sum that is rounded twice in 16 bits."""


SIX_DIGITS = (0.797885, 0.035677)
"""Of FastGelu as its spec writes it: factors of x and of x³ in the tanh."""


def _behind_sum(bound: Scale) -> Scale:
    return Scale(bound.magnitude, bound.terms + SUM_ROUNDINGS, Rule.ULP)


@kernel("Gelu", since=1, domain=MICROSOFT, scale=gelu_scale)
def microsoft_gelu(x: Array, /) -> Array:
    """½·x·(1 + erf(x/√2)).

    Spec: com.microsoft Gelu, since 1
    """
    return gelu(x)


@kernel("BiasGelu", since=1, domain=MICROSOFT)
def bias_gelu(a: Array, b: Array, /) -> Array:
    """Gelu, with erf, of a + b.

    Args:
        a: (…, N).
        b: (N,).

    Spec: com.microsoft BiasGelu, since 1
    """
    return gelu(a + b)


@scale("BiasGelu", since=1, domain=MICROSOFT)
def bias_gelu_scale(y: Array, a: Array, b: Array, /) -> Scale:
    """As Gelu at a + b, and the sum's rounding: `SUM_ROUNDINGS`."""
    return _behind_sum(gelu_scale(y, a + b))


@kernel("FastGelu", since=1, domain=MICROSOFT)
def fast_gelu(x: Array, bias: Array | None = None, /, *, stored: Stored = (None,)) -> Array:
    """½·v·(1 + tanh(√(2/π)·(v + 0.044715·v³))), v = x + bias.

    The spec writes 0.797885 and 0.035677, which are √(2/π) and 0.044715·√(2/π) cut to six digits; the published
    constants are taken (https://arxiv.org/abs/1606.08415), as ONNX's own Gelu has them.

    Args:
        x: (…, N).
        bias: (N,) or None.
        stored: dtypes of the inputs, for the scale.

    Spec: com.microsoft FastGelu, since 1
    """
    del stored
    return gelu(x if bias is None else x + bias, approximate="tanh")


@scale("FastGelu", since=1, domain=MICROSOFT)
def fast_gelu_scale(y: Array, x: Array, bias: Array | None = None, /, *, stored: Stored = (None,)) -> Scale:
    """As Gelu with tanh; with a bias the sum's rounding more. In float64, where they tell, the six digits of the spec,
    which its function body has, conform as well."""
    v = x if bias is None else x + bias
    bound = gelu_scale(y, v, approximate="tanh")
    bound = bound if bias is None else _behind_sum(bound)
    if stored[0] != np.float64:
        return bound
    return reaching(bound, y, v / 2 * (1 + np.tanh(SIX_DIGITS[0] * v + SIX_DIGITS[1] * v**3)))


@kernel("QuickGelu", since=1, domain=MICROSOFT)
def quick_gelu(x: Array, /, *, alpha: float = float(np.float32(1.702))) -> Array:
    """x·sigmoid(alpha·x).

    Spec: com.microsoft QuickGelu, since 1
    """
    return swish(x, alpha=alpha)


@scale("QuickGelu", since=1, domain=MICROSOFT)
def quick_gelu_scale(y: Array, x: Array, /, *, alpha: float = float(np.float32(1.702))) -> Scale:
    """As Swish."""
    return swish_scale(y, x, alpha=alpha)
