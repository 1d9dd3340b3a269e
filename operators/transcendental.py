"""Exponential, logarithm, circular and hyperbolic functions and their inverses, the error function.

The allowed |z| of each is a sum of named parts, in half-units of the last place; docs/ulp-table.md shows what is
observed. Vectorised libraries guarantee 3.5 units in the last place (SLEEF "u35"), 4 (Intel SVML, low accuracy) or 2 to
4 (CUDA, single precision); OpenCL asks for 3 to 5: 4 units are 8 half-units at the lower end of a binade.
"""

from __future__ import annotations

import math

import numpy as np

from ._elementwise import bounded, register_unary, relative, undetermined
from .scale import Array, Rule, Scale
from .softmax import VANISHED

LIBRARY = 8.0
"""Half-units by which a vectorised float32 library function may err: 4 units in the last place."""
HALF = 0.5


def exponential_scale(y: Array, x: Array, /) -> Scale:
    """2|x| + 3 at |y|: range reduction multiplies x by log2(e) (rounded constant, rounded product: |x| each), the
    kernel and the final rounding add 3. Where float64 itself underflows, anything below the normal numbers."""
    vanished = (y == 0) & np.isfinite(x)
    return bounded(y, np.where(vanished, VANISHED, np.abs(y)), np.where(vanished, 1.0, 2 * np.abs(x) + 3))


library_scale = relative(LIBRARY, "8 at |y|: the 4 units in the last place of vectorised libraries.")


def periodic_scale(derivative: Array, y: Array, x: Array) -> Scale:
    """8 at |y| + |x·slope|: a library's 4 units, and an argument reduction in the stored type: 4 units of x."""
    slope = np.abs(x * derivative)
    return bounded(y, np.abs(y) + np.where(np.isfinite(slope), slope, 0), LIBRARY)


def sine_scale(y: Array, x: Array, /) -> Scale:
    """8 at |y| + |x·cos x|: a library's 4 units, and an argument reduction in the stored type: 4 units of x."""
    return periodic_scale(np.cos(x), y, x)


def cosine_scale(y: Array, x: Array, /) -> Scale:
    """8 at |y| + |x·sin x|: as for the sine."""
    return periodic_scale(np.sin(x), y, x)


def tangent_scale(y: Array, x: Array, /) -> Scale:
    """8 at |y| + |x|·(1 + y²): as for the sine."""
    return periodic_scale(1 + y * y, y, x)


def arcsine_scale(y: Array, x: Array, /) -> Scale:
    """8 at |y|, and at π/2 where |x| >= ½: there it is π/2 − 2·asin(√((1 − |x|) / 2)), which rounds at π/2."""
    return Scale(np.where(np.abs(x) < HALF, np.abs(y), np.where(np.isnan(y), y, math.pi / 2)), LIBRARY, Rule.ULP)


def error_function(x: Array) -> Array:
    """erf(x) in float64, by SciPy; truncated to the type of an integer `x`, which opset 9 allows."""
    from scipy.special import erf  # noqa: PLC0415 (heavy: at the point of use)

    values = erf(x.astype(np.float64, copy=False))
    return values if x.dtype.kind == "f" else values.astype(x.dtype)


def error_function_scale(y: Array, x: Array, /) -> Scale:
    """8 at |y|: a library's 4 units. On integers open, except erf(0) = 0: no rounding of erf(1) is specified."""
    return undetermined(x != 0) if y.dtype.kind != "f" else Scale(np.abs(y), LIBRARY, Rule.ULP)


register_unary("Exp", np.exp, exponential_scale)
for _op_type, _function, _scale, _since in (
    ("Log", np.log, library_scale, 1),
    ("Tanh", np.tanh, library_scale, 1),
    ("Sin", np.sin, sine_scale, 7),
    ("Cos", np.cos, cosine_scale, 7),
    ("Tan", np.tan, tangent_scale, 7),
    ("Asin", np.arcsin, arcsine_scale, 7),
    ("Acos", np.arccos, library_scale, 7),
    ("Atan", np.arctan, library_scale, 7),
    ("Sinh", np.sinh, library_scale, 9),
    ("Cosh", np.cosh, library_scale, 9),
    ("Asinh", np.arcsinh, library_scale, 9),
    ("Acosh", np.arccosh, library_scale, 9),
    ("Atanh", np.arctanh, library_scale, 9),
    ("Erf", error_function, error_function_scale, 9),
):
    register_unary(_op_type, _function, _scale, since=_since)
