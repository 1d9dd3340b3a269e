"""Features of ai.onnx.ml: ArrayFeatureExtractor, Binarizer, FeatureVectorizer, Imputer, Normalizer, OneHotEncoder,
Scaler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._class_scores import FLOAT32, ML, UNIT, Stored, entering
from ._tracked import UNIFORM, Tracked, scale_of
from .machine_learning_labels import places
from .registry import kernel, scale
from .scale import Array, Rule, Scale, exact


@kernel("ArrayFeatureExtractor", since=1, domain=ML, scale=exact)
def array_feature_extractor(x: Array, y: Array, /) -> Array:
    """Elements of the last axis at the indices `y`.

    Args:
        x: (…, D).
        y: indices of any shape, taken as flat.

    Returns:
        (…, y.size); of a vector `x`, (1, y.size), as ONNX's shape inference has it.

    Raises:
        InvalidInputError: no axis, no index, or an index outside [0, D).

    Spec: ArrayFeatureExtractor, since 1
    """
    where = y.reshape(-1)
    if not x.ndim or not where.size:
        raise InvalidInputError(f"ArrayFeatureExtractor: shapes {x.shape} and {y.shape}; an axis and an index needed")
    if where.min() < 0 or where.max() >= x.shape[-1]:
        raise InvalidInputError(f"ArrayFeatureExtractor: indices {where.min()} to {where.max()} of {x.shape[-1]}")
    z = x[..., where]
    return z[None] if x.ndim == 1 else z


@kernel("Binarizer", since=1, domain=ML, scale=exact)
def binarizer(x: Array, /, *, threshold: float = 0.0) -> Array:
    """1 where `x` is greater than the threshold, 0 elsewhere (NaN too). Spec: Binarizer, since 1."""
    return (x > threshold).astype(x.dtype)


def _as_columns(op_type: str, x: Array) -> Array:
    if x.ndim not in (1, 2):
        raise InvalidInputError(f"{op_type}: an input of shape {x.shape}; rank 1 or 2 is needed")
    return x[None] if x.ndim == 1 else x


def feature_vectorizer_scale(
    y: Array, /, *xs: Array, inputdimensions: Sequence[int] | None = None, stored: Stored = ()
) -> Scale:
    """One rounding to float32; exact where the input is float32."""
    if all(dtype is not None and dtype == np.float32 for dtype in stored):
        return Scale(np.zeros(()), 0, Rule.EXACT)
    return Scale(np.abs(y), 1, Rule.ULP)


@kernel("FeatureVectorizer", since=1, domain=ML, scale=feature_vectorizer_scale)
def feature_vectorizer(*xs: Array, inputdimensions: Sequence[int] | None = None, stored: Stored = ()) -> Array:
    """The inputs side by side, as floats.

    Args:
        xs: (N, C) each; a vector is one row.
        inputdimensions: the width C of each.

    Returns:
        (N, Σ C).

    Raises:
        InvalidInputError: other ranks, or rows that differ in number.
        InvalidAttributeError: widths that are not those of the inputs: whether to cut, to fill up or to refuse then,
            the text does not say.

    Spec: FeatureVectorizer, since 1
    """
    del stored
    columns = [_as_columns("FeatureVectorizer", x).astype(np.float64) for x in xs]
    widths = [x.shape[1] for x in columns]
    if inputdimensions is not None and list(inputdimensions) != widths:
        raise InvalidAttributeError(f"FeatureVectorizer: inputdimensions={list(inputdimensions)} for widths {widths}")
    if len({len(x) for x in columns}) > 1:
        raise InvalidInputError(f"FeatureVectorizer: {[len(x) for x in columns]} rows; all need the same number")
    return np.concatenate(columns, axis=1)


@kernel("Imputer", since=1, domain=ML, scale=exact)
def imputer(
    x: Array,
    /,
    *,
    imputed_value_floats: Sequence[float] | None = None,
    imputed_value_int64s: Sequence[int] | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Array:
    """`x` with one value, or NaN, replaced.

    Args:
        x: (…, F).
        imputed_value_floats: what replaces it, for all features or each of the F; for floating-point `x`.
        imputed_value_int64s: likewise for integers.
        replaced_value_float: what is replaced in floating-point `x`; NaN is any NaN.
        replaced_value_int64: what is replaced in integers.

    Returns:
        Like `x`.

    Raises:
        InvalidAttributeError: no value of `x`'s kind, or as many as nothing in `x`.

    Spec: Imputer, since 1
    """
    floating = x.dtype.kind == "f"
    values = imputed_value_floats if floating else imputed_value_int64s
    replaced = replaced_value_float if floating else replaced_value_int64
    features = x.shape[-1] if x.ndim else 1
    if not values or len(values) not in (1, features):
        given = 0 if values is None else len(values)
        raise InvalidAttributeError(
            f"Imputer: {given} values for {features} features of type {x.dtype}; 1 or {features}"
        )
    missing = np.isnan(x) if replaced != replaced else x == replaced  # noqa: PLR0124 (NaN)
    return np.where(missing, np.array(values).astype(x.dtype), x)


def _norm(x: Array, norm: str) -> Array:
    """The divisors, (N, 1)."""
    if norm == "MAX":
        return x.max(axis=-1, keepdims=True, initial=-np.inf)
    if norm == "L1":
        return np.abs(x).sum(axis=-1, keepdims=True)
    if norm == "L2":
        return np.sqrt((x * x).sum(axis=-1, keepdims=True))
    raise InvalidAttributeError(f"Normalizer: norm={norm!r}; allowed are MAX, L1 and L2")


@kernel("Normalizer", since=1, domain=ML)
def normalizer(x: Array, /, *, norm: str = "MAX", stored: Stored = ()) -> Array:
    """Rows divided by their largest element or norm.

    Args:
        x: (N, C) or (C,), any number.
        norm: MAX divides by the largest element (not the largest absolute one), L1 by Σ|x|, L2 by √Σx²; the text's
            formulas for the last two, taken literally, lose signs that the norms' names keep.

    Returns:
        Like `x`; a row whose divisor is 0 as it is.

    Raises:
        InvalidInputError: another rank.
        InvalidAttributeError: another norm.

    Spec: Normalizer, since 1
    """
    del stored
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    divisor = _norm(_as_columns("Normalizer", x), norm)
    return (x / np.where(divisor == 0, 1.0, divisor)).reshape(x.shape)


@scale("Normalizer", since=1, domain=ML)
def normalizer_scale(y: Array, x: Array, /, *, norm: str = "MAX", stored: Stored = ()) -> Scale:
    """ULP of |y|: 1 for the quotient, 1 more each where x is rounded to float32 first and where a reciprocal is
    multiplied; the divisor's C roundings of positive summands, half of them (and 2 more) behind a root. Open where x²
    overflows or underflows in float32."""
    entered = entering(_as_columns("Normalizer", x.astype(np.float64)), stored)
    rounded = 2.0 if entered.bound.any() else 0.0
    terms = {"MAX": 2.0, "L1": 2.0 + x.shape[-1], "L2": 4.0 + x.shape[-1] / 2}[norm]
    largest = (entered.value**2).max(axis=1, keepdims=True, initial=0).reshape((-1, 1)[: x.ndim])
    fits = (largest <= FLOAT32.largest / max(x.shape[-1], 1)) & (largest >= FLOAT32.smallest_normal / UNIT)
    odd = (norm == "L2") & (largest > 0) & ~fits
    return Scale(np.abs(y), np.where(odd, np.inf, terms + rounded), Rule.ULP)


def _categories(cats_int64s: Sequence[int] | None, cats_strings: Sequence[str] | None) -> list[Any]:
    if bool(cats_int64s) == bool(cats_strings):
        raise InvalidAttributeError("OneHotEncoder: one of cats_int64s and cats_strings is needed, not both")
    found = list(cats_int64s or cats_strings or [])
    if len(set(found)) < len(found):
        raise InvalidAttributeError(f"OneHotEncoder: a category is listed twice in {found[:8]}")
    return found


@kernel("OneHotEncoder", since=1, domain=ML, scale=exact)
def one_hot_encoder(
    x: Array,
    /,
    *,
    cats_int64s: Sequence[int] | None = None,
    cats_strings: Sequence[str] | None = None,
    zeros: int = 1,
) -> Array:
    """A row of zeros with a one at the category of each element.

    Args:
        x: any shape; numbers are cast to integers, towards zero.
        cats_int64s: K categories; or else `cats_strings`.
        zeros: 1 gives zeros for an element of no category, 0 refuses it.

    Returns:
        (*x.shape, K), float32.

    Raises:
        InvalidInputError: an element of no category, with zeros=0.
        InvalidAttributeError: no categories, two kinds, or one twice.

    Spec: OneHotEncoder, since 1
    """
    categories = _categories(cats_int64s, cats_strings)
    is_text = x.dtype.kind in "OUS"
    place = places(x if is_text else x.astype(np.int64), np.array(categories, object if is_text else np.int64))
    if not zeros and (place < 0).any():
        missing = x.reshape(-1)[np.flatnonzero(place < 0)[0]]
        raise InvalidInputError(f"OneHotEncoder: {missing!r} is in no category, and zeros=0")
    return (place[..., None] == np.arange(len(categories))).astype(np.float32)


def _per_feature(name: str, values: Sequence[float] | None, x: Array, default: float) -> Array:
    if not values:
        return np.array([default])
    if len(values) not in (1, x.shape[-1] if x.ndim else 1):
        raise InvalidAttributeError(f"Scaler: {len(values)} values of {name} for an input of shape {x.shape}")
    return np.array(values, np.float64)


@kernel("Scaler", since=1, domain=ML)
def scaler(
    x: Array,
    /,
    *,
    offset: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
    stored: Stored = (),
) -> Array:
    """(x − offset) · scale.

    Args:
        x: (…, F), any number.
        offset: (F,) or one for all; 0 by default.
        scale: (F,) or one for all; 1 by default.

    Returns:
        Like `x`.

    Raises:
        InvalidAttributeError: another number of values.

    Spec: Scaler, since 1
    """
    del stored
    return (x - _per_feature("offset", offset, x, 0.0)) * _per_feature("scale", scale, x, 1.0)


@scale("Scaler", since=1, domain=ML)
def scaler_scale(
    y: Array,
    x: Array,
    /,
    *,
    offset: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
    stored: Stored = (),
) -> Scale:
    """COMPOSED: the difference, which is rounded once at its own size, and the product."""
    wide = x.astype(np.float64)
    entered = entering(wide.reshape(1, -1), stored).each(lambda part: part.reshape(x.shape))
    shift = _per_feature("offset", offset, x, 0.0)
    difference = wide - shift
    once = np.where(shift == 0, 0.0, np.abs(difference))
    moved = Tracked(difference, entered.variance + UNIFORM * once**2, entered.bound + once, np.abs(difference))
    return scale_of(moved * _per_feature("scale", scale, x, 1.0), FLOAT32)
