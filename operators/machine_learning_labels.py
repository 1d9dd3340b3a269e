"""Look-ups of ai.onnx.ml: CategoryMapper, LabelEncoder, and the operators on maps: CastMap, DictVectorizer, ZipMap.

A map is a Python dict; its values are scalars or arrays of one element. A Python float counts as float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._class_scores import ML
from .registry import kernel
from .scale import Array, exact


def _codes(x: Array, bitwise: bool) -> Array:
    """Values such that those that count as equal are equal: bits of floats, or of floats with one NaN and one zero."""
    if x.dtype.kind != "f":
        return x
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    if bitwise:
        return np.ascontiguousarray(x).view(unsigned).reshape(x.shape)
    one_zero = x + x.dtype.type(0)
    return np.ascontiguousarray(np.where(np.isnan(x), x.dtype.type(np.nan), one_zero)).view(unsigned).reshape(x.shape)


def places(x: Array, keys: Array, *, bitwise: bool = False) -> Array:
    """The index of every element of `x` in `keys`, the last of equal keys; −1 where there is none.

    Args:
        x: any shape.
        keys: (K,), of the type of `x`.
        bitwise: compare floats bit by bit; else NaN equals NaN.
    """
    table = {key: index for index, key in enumerate(_codes(keys, bitwise).tolist())}
    flat = _codes(x, bitwise).reshape(-1)
    distinct, inverse = np.unique(flat, return_inverse=True)
    found = np.array([table.get(item, -1) for item in distinct.tolist()], np.int64)
    return found[inverse].reshape(x.shape) if x.size else np.zeros(x.shape, np.int64)


def _picked(place: Array, values: Array, default: Array) -> Array:
    """values[place], the default where place is −1."""
    return np.append(values, default.reshape(-1)[:1].astype(values.dtype))[place]


def _strings(values: Sequence[str]) -> Array:
    return np.array(list(values), object)


def _once(op_type: str, keys: Sequence[Any]) -> None:
    """Refuse a repeated key: which of its values counts, the text does not say."""
    if len(set(keys)) < len(keys):
        raise InvalidAttributeError(f"{op_type}: a key is listed twice; the specification does not say which counts")


def _two_way(
    op_type: str, x: Array, strings: Sequence[str], ints: Sequence[int], default_string: str, default_int64: int
) -> Array:
    """Strings to integers or integers to strings, whichever `x` is not."""
    if x.dtype.kind in "OUS":
        _once(op_type, strings)
        return _picked(places(x, _strings(strings)), np.array(ints, np.int64), np.array(default_int64))
    _once(op_type, ints)
    return _picked(places(x, np.array(ints, np.int64)), _strings(strings), _strings([default_string]))


@kernel("CategoryMapper", since=1, domain=ML, scale=exact)
def category_mapper(
    x: Array,
    /,
    *,
    cats_int64s: Sequence[int] | None = None,
    cats_strings: Sequence[str] | None = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Array:
    """The integer of every string, or the string of every integer.

    Args:
        x: strings or int64, any shape.
        cats_int64s: K integers.
        cats_strings: K strings.
        default_int64: for a string that is not listed.
        default_string: for an integer that is not listed.

    Returns:
        Like `x`, of the other type.

    Raises:
        InvalidAttributeError: lists of different lengths, or a key listed twice.

    Spec: CategoryMapper, since 1
    """
    strings, ints = list(cats_strings or []), list(cats_int64s or [])
    if len(strings) != len(ints):
        raise InvalidAttributeError(f"CategoryMapper: {len(strings)} strings and {len(ints)} integers")
    return _two_way("CategoryMapper", x, strings, ints, default_string, default_int64)


@kernel("LabelEncoder", since=1, domain=ML, scale=exact)
def label_encoder_by_index(
    x: Array,
    /,
    *,
    classes_strings: Sequence[str] | None = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Array:
    """The index of every string in `classes_strings`, or the string at every index. Spec: LabelEncoder, since 1."""
    strings = list(classes_strings or [])
    return _two_way("LabelEncoder", x, strings, range(len(strings)), default_string, default_int64)


def _given(what: str, candidates: Mapping[str, Any], dtypes: Mapping[str, Any]) -> Array:
    """The one list or tensor that is given, as an array.

    Raises:
        InvalidAttributeError: none, or several.
    """
    found = {name: value for name, value in candidates.items() if value is not None}
    if len(found) != 1:
        raise InvalidAttributeError(f"LabelEncoder: {', '.join(found) or 'no'} {what}; one list or tensor is needed")
    (name, value), *_ = found.items()
    return np.asarray(value).reshape(-1) if name == "tensor" else np.array(value, dtypes[name])


_DTYPES: Mapping[str, Any] = {"floats": np.float32, "int64s": np.int64, "strings": object}


def _encoded(x: Array, keys: Array, values: Array, default: Array, *, bitwise: bool) -> Array:
    if len(keys) != len(values):
        raise InvalidAttributeError(f"LabelEncoder: {len(keys)} keys and {len(values)} values")
    if keys.dtype != x.dtype and not (keys.dtype.kind in "OUS" and x.dtype.kind in "OUS"):
        raise InvalidInputError(f"LabelEncoder: X of type {x.dtype} and keys of type {keys.dtype}; they must be alike")
    return _picked(places(x, keys, bitwise=bitwise), values, default)


def _default(values: Array, default_float: float, default_int64: int, default_string: str) -> Array:
    if values.dtype.kind in "OUS":
        return _strings([default_string])
    return np.array([default_float if values.dtype.kind == "f" else default_int64])


@kernel("LabelEncoder", since=2, domain=ML, scale=exact)
def label_encoder_by_bits(
    x: Array,
    /,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
) -> Array:
    """As since 4, with keys compared bit by bit and none listed twice.

    Spec: LabelEncoder, since 2
    """
    keys = _given("keys", {"floats": keys_floats, "int64s": keys_int64s, "strings": keys_strings}, _DTYPES)
    values = _given("values", {"floats": values_floats, "int64s": values_int64s, "strings": values_strings}, _DTYPES)
    _once("LabelEncoder", _codes(keys, bitwise=True).tolist())
    return _encoded(x, keys, values, _default(values, default_float, default_int64, default_string), bitwise=True)


@kernel("LabelEncoder", since=4, domain=ML, scale=exact)
def label_encoder(
    x: Array,
    /,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Array | None = None,
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    keys_tensor: Array | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
    values_tensor: Array | None = None,
) -> Array:
    """Every element mapped from a list of keys to the list of values.

    Args:
        x: any shape, of the keys' type.
        default_float: for elements that are no key, where values are floating-point; likewise `default_int64` and
            `default_string`.
        default_tensor: one element instead of these.
        keys_floats: K keys, any NaN being equal to any other, the last of equal keys counting; or one of `keys_int64s`,
            `keys_strings` and `keys_tensor`.
        values_floats: K values; or one of `values_int64s`, `values_strings` and `values_tensor`.

    Returns:
        Like `x`, of the values' type.

    Raises:
        InvalidAttributeError: not one list of keys and one of values of the same length.
        InvalidInputError: `x` is not of the keys' type.

    Spec: LabelEncoder, since 4
    """
    keys = {"floats": keys_floats, "int64s": keys_int64s, "strings": keys_strings, "tensor": keys_tensor}
    values = {"floats": values_floats, "int64s": values_int64s, "strings": values_strings, "tensor": values_tensor}
    found = _given("values", values, _DTYPES)
    fallback = _default(found, default_float, default_int64, default_string)
    fallback = fallback if default_tensor is None else np.asarray(default_tensor)
    return _encoded(x, _given("keys", keys, _DTYPES), found, fallback, bitwise=False)


def _item(value: Any) -> Any:
    """The one element of a map's value, as a NumPy scalar or a string."""
    if isinstance(value, str):
        return value
    array = np.float32(value) if isinstance(value, float) and not isinstance(value, np.generic) else np.asarray(value)
    if np.size(array) != 1:
        raise InvalidInputError(f"a map with a value of shape {np.shape(array)}; one element is needed")
    return np.asarray(array).reshape(())[()]


def _column(values: Sequence[Any]) -> Array:
    """A map's values, (n,)."""
    items = [_item(value) for value in values]
    return _strings(items) if any(isinstance(item, str) for item in items) else np.array(items)


def _checked(op_type: str, x: Any) -> Mapping[Any, Any]:
    if not isinstance(x, Mapping):
        raise InvalidInputError(f"{op_type}: an input of type {type(x).__name__}; a map is needed")
    return x


@kernel("CastMap", since=1, domain=ML, scale=exact)
def cast_map(x: Mapping[int, Any], /, *, cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1) -> Array:
    """A map's values in the order of its keys.

    Args:
        x: int64 to float or string.
        cast_to: TO_FLOAT, TO_INT64 (towards zero) or TO_STRING (strings only: the text does not say how a number is
            written).
        map_form: DENSE gives the values there are; SPARSE puts each at its key, zeros between them.
        max_map: length where SPARSE.

    Returns:
        (1, n), as the implementation there is; the text does not name the shape.

    Raises:
        InvalidInputError: a key outside [0, max_map) where SPARSE, or a value that cannot be cast.
        InvalidAttributeError: another word.

    Spec: CastMap, since 1
    """
    dtypes = {"TO_FLOAT": np.float32, "TO_INT64": np.int64, "TO_STRING": object}
    if cast_to not in dtypes or map_form not in ("DENSE", "SPARSE"):
        raise InvalidAttributeError(f"CastMap: cast_to={cast_to!r}, map_form={map_form!r}")
    keys = sorted(_checked("CastMap", x))
    values = _column([x[key] for key in keys])
    if cast_to == "TO_STRING" and (values.dtype.kind not in "OUS" or map_form == "SPARSE"):
        raise InvalidInputError("CastMap: the specification does not say how a number, or no number, is written")
    try:
        found = values.astype(dtypes[cast_to])
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"CastMap: {error}") from error
    if map_form == "DENSE":
        return found[None]
    if keys and (keys[0] < 0 or keys[-1] >= max_map):
        raise InvalidInputError(f"CastMap: keys {keys[0]} to {keys[-1]}; allowed are 0 to {max_map - 1}")
    sparse = np.zeros(max_map, dtypes[cast_to])
    sparse[keys] = found
    return sparse[None]


@kernel("DictVectorizer", since=1, domain=ML, scale=exact)
def dict_vectorizer(
    x: Mapping[Any, Any],
    /,
    *,
    int64_vocabulary: Sequence[int] | None = None,
    string_vocabulary: Sequence[str] | None = None,
) -> Array:
    """A map's values, each at the place of its key in the vocabulary; zeros elsewhere.

    Args:
        x: integers or strings to numbers or strings.
        int64_vocabulary: the keys; or else `string_vocabulary`.

    Returns:
        (n,) over the vocabulary, of the values' type ("" for strings that are not there).

    Raises:
        InvalidInputError: a key that is not in the vocabulary ("all keys must be present"), or an empty map, whose
            type is not known.
        InvalidAttributeError: no vocabulary, or both.

    Spec: DictVectorizer, since 1
    """
    if bool(int64_vocabulary) == bool(string_vocabulary):
        raise InvalidAttributeError("DictVectorizer: one of int64_vocabulary and string_vocabulary is needed, not both")
    vocabulary = list(int64_vocabulary or string_vocabulary or [])
    _once("DictVectorizer", vocabulary)
    unknown = [key for key in _checked("DictVectorizer", x) if key not in vocabulary]
    if unknown or not x:
        what = f"key {unknown[0]!r} is not in the vocabulary" if unknown else "an empty map has no type"
        raise InvalidInputError(f"DictVectorizer: {what}")
    values = _column(list(x.values()))
    y = np.full(len(vocabulary), "", object) if values.dtype == object else np.zeros(len(vocabulary), values.dtype)
    index = {key: place for place, key in enumerate(vocabulary)}
    y[[index[key] for key in x]] = values
    return y


@kernel("ZipMap", since=1, domain=ML, scale=exact)
def zip_map(
    x: Array,
    /,
    *,
    classlabels_int64s: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
) -> list[dict[Any, Any]]:
    """Every row as a map from class labels to its elements.

    Args:
        x: (N, E), or (E,) for one row.
        classlabels_int64s: E keys; or else `classlabels_strings`.

    Returns:
        N maps.

    Raises:
        InvalidInputError: as many columns as there are no keys.
        InvalidAttributeError: no keys, or both kinds.

    Spec: ZipMap, since 1
    """
    if bool(classlabels_int64s) == bool(classlabels_strings):
        raise InvalidAttributeError("ZipMap: one of integer and string class labels is needed, not both")
    keys = list(classlabels_int64s or classlabels_strings or [])
    table = x[None] if x.ndim == 1 else x
    if table.ndim != 2 or table.shape[1] != len(keys):
        raise InvalidInputError(f"ZipMap: an input of shape {x.shape} for {len(keys)} keys")
    return [dict(zip(keys, row, strict=True)) for row in table]
