"""Conversions between stored types. The kernels return stored arrays: the type is what these operators are about.

Elements that the specification leaves open (a float outside the range of an integer type, text that is no number) have
infinite `terms` in the scale: not judged.
"""

from __future__ import annotations

import numpy as np
import onnx

from ..errors import InvalidAttributeError, InvalidInputError
from ._casting import DType, convert, is_open, widen
from ._elementwise import undetermined
from .readings import Texts
from .registry import kernel
from .scale import Array, Rule, Scale

Stored = tuple[DType | None, ...]


def data_type(op_type: str, code: int | str) -> DType:
    """The dtype of a TensorProto data type, by number or (opset 1) by name.

    Raises:
        InvalidAttributeError: no such data type.
    """
    try:
        number = onnx.TensorProto.DataType.Value(code) if isinstance(code, str) else code
        return onnx.helper.tensor_dtype_to_np_dtype(number)
    except (ValueError, KeyError) as error:
        raise InvalidAttributeError(f"{op_type}: {code!r} is not a data type of tensors") from error


def _rounding(round_mode: str) -> str:
    if round_mode not in ("up", "down", "nearest"):
        raise InvalidAttributeError(f'round_mode="{round_mode}" is none of "up", "down", "nearest"')
    return round_mode


def cast_scale(y: Array, x: Array, /, *, stored: Stored = (), **_attributes: object) -> Scale:
    """Exact, open where the specification does not determine the result (`_casting.is_open`); a number's text is read
    back (`readings.Texts`)."""
    if y.dtype.kind in "OUT" and widen(x).dtype.kind in "fiu":
        source = next((dtype for dtype in stored if dtype is not None), x.dtype)
        return Scale(np.zeros(()), 0, Rule.EXACT, law=Texts(widen(x), source))
    return undetermined(is_open(x, y.dtype))


def cast_like_scale(y: Array, x: Array, _target: Array, /, *, stored: Stored = (), **_attributes: object) -> Scale:
    """As for Cast."""
    return cast_scale(y, x, stored=stored[:1])


def bit_cast_scale(y: Array, x: Array, /, **_attributes: object) -> Scale:
    """Exact, open where `x` is NaN: which NaN it is is lost on the way to float64."""
    return undetermined(np.isnan(x) if x.dtype.kind == "f" else np.zeros(y.shape, bool))


@kernel("Cast", since=1, scale=cast_scale)
def cast_by_name(x: Array, /, *, to: str) -> Array:
    """`x` in the type called `to`.

    Spec: Cast, since 1
    """
    return convert(x, data_type("Cast", to))


@kernel("Cast", since=6, scale=cast_scale)
def cast_plain(x: Array, /, *, to: int) -> Array:
    """`x` in the type `to`; strings since 9.

    Spec: Cast, since 6
    """
    return convert(x, data_type("Cast", to))


@kernel("Cast", since=19, scale=cast_scale)
def cast_to_float8(x: Array, /, *, to: int, saturate: int = 1) -> Array:
    """`x` in the type `to`; beyond the range of an 8-bit float its largest value, or with `saturate` = 0 infinity or
    NaN. Here ∞ still becomes NaN in the types without negative zero.

    Spec: Cast, since 19
    """
    return convert(x, data_type("Cast", to), saturate=bool(saturate), infinity_saturates=False)


@kernel("Cast", since=24, scale=cast_scale)
def cast(x: Array, /, *, to: int, saturate: int = 1, round_mode: str = "up") -> Array:
    """`x` in the type `to`, rounded to nearest with ties to even, to float8e8m0 as `round_mode` says.

    Args:
        x: any type but complex.
        to: TensorProto data type.
        saturate: 1: beyond the range of an 8-bit float comes its largest value; 0: infinity, or NaN where it has none.
        round_mode: "up", "down" or "nearest" (ties up).

    Raises:
        InvalidAttributeError: `to` is no data type, or another `round_mode`.

    Spec: Cast, since 24
    """
    return convert(x, data_type("Cast", to), saturate=bool(saturate), round_mode=_rounding(round_mode))


@kernel("CastLike", since=15, scale=cast_like_scale)
def cast_like_plain(x: Array, _target: Array, /, *, stored: Stored) -> Array:
    """`x` in the type of the second input.

    Spec: CastLike, since 15
    """
    return convert(x, _second(stored))


@kernel("CastLike", since=19, scale=cast_like_scale)
def cast_like_float8(x: Array, _target: Array, /, *, saturate: int = 1, stored: Stored) -> Array:
    """As Cast since 19, to the type of the second input.

    Spec: CastLike, since 19
    """
    return convert(x, _second(stored), saturate=bool(saturate), infinity_saturates=False)


@kernel("CastLike", since=24, scale=cast_like_scale)
def cast_like(x: Array, _target: Array, /, *, saturate: int = 1, round_mode: str = "up", stored: Stored) -> Array:
    """As Cast since 24, to the type of the second input.

    Spec: CastLike, since 24
    """
    return convert(x, _second(stored), saturate=bool(saturate), round_mode=_rounding(round_mode))


def _second(stored: Stored) -> DType:
    if len(stored) < 2 or stored[1] is None:
        raise InvalidInputError("CastLike: its second input, whose type it takes, is absent")
    return stored[1]


@kernel("BitCast", since=26, scale=bit_cast_scale)
def bit_cast(x: Array, /, *, to: int, stored: Stored) -> Array:
    """The bits of `x` read as the type `to`, of the same width.

    Raises:
        InvalidAttributeError: `to` is no data type, or of another width.

    Spec: BitCast, since 26
    """
    source, target = stored[0] or x.dtype, data_type("BitCast", to)
    if bit_width(source) != bit_width(target):
        raise InvalidAttributeError(f"BitCast: {source} and {target} differ in width")
    raw = x.astype(source, order="C")
    if bit_width(source) < 8:
        raw = (raw.view(np.uint8) & (2 ** bit_width(source) - 1)).astype(np.uint8)
        return _sign_extended(raw, target) if target.name.startswith("int") else raw.view(target)
    return raw.view(target)


def _sign_extended(raw: Array, target: DType) -> Array:
    top = 2 ** (bit_width(target) - 1)
    return ((raw.astype(np.int8) ^ top) - top).astype(target)


def bit_width(dtype: DType) -> int:
    """The number of bits of a type, 4 for int4."""
    if dtype.kind != "V":
        return 8 * dtype.itemsize
    return int("".join(c for c in dtype.name.split("_")[0] if c.isdigit()))
