"""What the classifiers and regressors of ai.onnx.ml share: rounded inputs, post-transforms, labels.

Scores are arrays, or `Tracked` values that carry their rounding errors; the same code computes both. All outputs are
float32 whatever comes in, but for TreeEnsemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._tracked import UNIFORM, Number, Tracked, matmul, scale_of, through
from ._tracked_functions import quotient
from .rounding import half_unit
from .scale import Array, Rule, Scale
from .softmax import EXP_ROUNDINGS
from .storage import FloatFormat, float_format, is_float

ML = "ai.onnx.ml"

FLOAT32 = float_format(np.dtype(np.float32))
UNIT = half_unit(FLOAT32)

Stored = tuple[np.dtype[Any] | None, ...]

POST_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")

ZERO = 1e-7
"""Scores no larger than it are zero for SOFTMAX_ZERO in the implementations there are; the text gives no number."""


@dataclass(frozen=True)
class Scores:
    """The scores of one node.

    Attributes:
        value: (N, E).
        unknown: where the specification leaves them open, broadcastable to (N, E).
    """

    value: Any
    unknown: Array

    def scale(self, format_: FloatFormat = FLOAT32) -> Scale:
        """COMPOSED, from tracked scores; see `_tracked.scale_of`."""
        return scale_of(self.value, format_, self.unknown)


def rows(op_type: str, x: Array) -> Array:
    """Features as (N, F); a vector is one row.

    Raises:
        InvalidInputError: another rank.
    """
    if x.ndim not in (1, 2):
        raise InvalidInputError(f"{op_type}: X of shape {x.shape}; rank 1 or 2 is needed")
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    return x[None] if x.ndim == 1 else x


def entering(x: Array, stored: Stored) -> Tracked:
    """Features that a runtime rounds to float32 first, unless that is how they are stored."""
    narrow = bool(stored) and stored[0] is not None and is_float(stored[0]) and stored[0].itemsize <= FLOAT32_BYTES
    rounded = np.zeros(x.shape) if narrow else np.where(x.astype(np.float32) == x, 0.0, np.abs(x))
    return Tracked(x, UNIFORM * rounded**2, rounded, np.abs(x))


FLOAT32_BYTES = 4


def affine(x: Number, w: Array, b: Array) -> Number:
    """x @ w + b for (N, F), (F, E), (E,)."""
    return matmul(x, w, w.shape[0]) + b


def labels_of(op_type: str, ints: Sequence[int] | None, strings: Sequence[str] | None) -> Array:
    """The class labels, int64 or strings.

    Raises:
        InvalidAttributeError: none, or both kinds.
    """
    if bool(ints) == bool(strings):
        raise InvalidAttributeError(f"{op_type}: one of integer and string class labels is needed, not both")
    return np.array(strings, object) if strings else np.array(ints, np.int64)


def transformed(op_type: str, x: Number, post_transform: str, unit: float = UNIT) -> Scores:
    """Scores (N, E) after a post-transform.

    SOFTMAX_ZERO, which the text only names, is the softmax of the scores that are not zero; zeros stay zero. Rows with
    a score so near zero that rounding decides, and rows of zeros, are open. PROBIT is the quantile of the normal
    distribution. `unit` is half a unit in the last place of tracked scores.

    Raises:
        InvalidAttributeError: another name.
    """
    if post_transform not in POST_TRANSFORMS:
        allowed = ", ".join(POST_TRANSFORMS)
        raise InvalidAttributeError(f"{op_type}: post_transform={post_transform!r}; allowed are {allowed}")
    nothing = np.zeros((), bool)
    if post_transform == "LOGISTIC":
        return Scores(_logistic(x, unit), nothing)
    if post_transform == "SOFTMAX":
        return Scores(_softmax(x, np.ones_like(value_of(x), bool), unit), nothing)
    if post_transform == "SOFTMAX_ZERO":
        return _softmax_zero(x, unit)
    return Scores(_probit(x, unit), nothing) if post_transform == "PROBIT" else Scores(x, nothing)


def value_of(x: Number) -> Array:
    """The values of scores."""
    return x.value if isinstance(x, Tracked) else x


def _reach(x: Tracked, unit: float) -> Array:
    """By how much a value may be off."""
    return x.bound * unit


def _logistic(x: Number, unit: float) -> Number:
    """1 / (1 + e^−|x|), or its complement: with e = e^−|x| and v the quotient, v² (1 + 5 e) + v half-units, at v ~ 1
    however small the complement is."""
    v_of = value_of(x)
    e = np.exp(-np.abs(v_of))
    v = 1 / (1 + e)
    y = np.where(v_of < 0, e * v, v)
    if not isinstance(x, Tracked):
        return y.view(type(v))
    steepest = np.exp(-np.maximum(np.abs(v_of) - _reach(x, unit), 0.0))
    return through(x, y, steepest / (1 + steepest) ** 2, v**2 * (1 + 5 * e) + v + y)


def _exponential(x: Tracked, y: Array, unit: float) -> Tracked:
    return through(x, y, np.exp(np.minimum(_reach(x, unit), 1.0)) * y, EXP_ROUNDINGS * y)


def _softmax(x: Number, kept: Array, unit: float) -> Number:
    """The softmax of those scores of a row that are kept, 0 for the others."""
    values = value_of(x)
    peak = np.where(kept, values, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    t = np.where(kept, values - peak, 0.0)
    e = np.where(kept, np.exp(t), 0.0)
    ones = np.ones((e.shape[1], 1))
    if not isinstance(x, Tracked):
        e = e.view(type(values))
        return e / matmul(e, ones.astype(e.dtype), e.shape[1])
    shifted = through(x, t, np.where(kept, 1.0, 0.0), np.abs(t))
    powers = _exponential(shifted, e, unit)
    return quotient(powers, matmul(powers, ones, e.shape[1]))


def _softmax_zero(x: Number, unit: float) -> Scores:
    values = value_of(x)
    reach = _reach(x, unit) if isinstance(x, Tracked) else np.zeros(values.shape)
    is_zero = (values == 0) & (reach == 0)
    doubtful = (np.abs(values) <= ZERO + reach) & ~is_zero
    kept = np.abs(values) > ZERO
    empty = ~kept.any(axis=1, keepdims=True)
    return Scores(_softmax(x, kept | empty, unit), doubtful.any(axis=1, keepdims=True) | empty)


def _probit(x: Number, unit: float) -> Number:
    """Φ⁻¹: 8 half-units of the result, and those of 2 p − 1, which rounds at up to 1, through the slope 1 / φ."""
    from scipy.special import ndtri  # noqa: PLC0415 (heavy: at the point of use)

    p = value_of(x)
    with np.errstate(all="ignore"):
        y = ndtri(np.asarray(p, np.float64))
    if not isinstance(x, Tracked):
        return y.astype(p.dtype).view(type(p))
    reach = _reach(x, unit) + unit
    with np.errstate(all="ignore"):
        far = np.maximum(np.abs(ndtri(np.clip(p - reach, 0, 1))), np.abs(ndtri(np.clip(p + reach, 0, 1))))
        slope = np.sqrt(2 * np.pi) * np.exp(far**2 / 2)
    return through(x, y, slope, 8 * np.abs(y) + slope)


def label_scale(raw: Tracked, final: Scores, unit: float = UNIT) -> Scale:
    """The largest score wins, exactly; open where rounding or a tie decides, or where scores before and after the
    post-transform have different winners (the text does not say which are compared)."""
    reach = raw.bound * unit
    winner = raw.value.argmax(axis=1)[:, None]
    level = np.take_along_axis(raw.value - reach, winner, axis=1)
    contenders = (raw.value + reach >= level).sum(axis=1)
    after = value_of(final.value)
    other = np.nan_to_num(after, nan=-np.inf).argmax(axis=1) != winner[:, 0]
    odd = ~np.isfinite(raw.value).all(axis=1)
    return open_labels((contenders > 1) | other | odd)


def sign_scale(raw: Tracked, unit: float = UNIT) -> Scale:
    """One score (N, 1) decides by its sign, exactly; open where rounding decides."""
    return open_labels(~(np.abs(raw.value) > raw.bound * unit)[:, 0])


def open_labels(unknown: Array) -> Scale:
    """Exact, but for rows (N,) that are open."""
    return Scale(np.zeros(()), np.where(unknown, np.inf, 0.0), Rule.EXACT)


def unsettled(op_type: str, post_transform: str) -> InvalidInputError:
    """What two classes and one score are after a transform that mixes them, the text does not say."""
    return InvalidInputError(
        f"{op_type}: the specification does not say what {post_transform} makes of one score for two classes"
    )


def pair_of(op_type: str, s: Number, post_transform: str) -> Scores:
    """Scores of two classes of which only one, s (N, 1), is computed: the second class's is s.

    LOGISTIC: σ(−s), σ(s). NONE: the first class's score, −s or 1 − s, is open.

    Raises:
        InvalidInputError: a transform that mixes scores or inverts a probability.
    """
    if post_transform not in ("NONE", "LOGISTIC"):
        raise unsettled(op_type, post_transform)
    both = _beside(-s, s)
    final = transformed(op_type, both, post_transform)
    return Scores(final.value, np.array([[post_transform == "NONE", False]]))


def _beside(a: Number, b: Number) -> Number:
    if isinstance(a, Tracked) and isinstance(b, Tracked):
        parts = ((a.value, b.value), (a.variance, b.variance), (a.bound, b.bound), (a.size, b.size))
        return Tracked(*(np.concatenate(np.broadcast_arrays(*part), axis=1) for part in parts))
    return np.concatenate([a, b], axis=1)  # type: ignore[return-value]
