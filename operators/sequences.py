"""Operators on sequences (Python lists of tensors) and optionals (a value, or None where empty)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .registry import kernel
from .scale import Array, exact
from .storage import encode


def _position(sequence: Sequence[Any], position: Array, last: int) -> int:
    at = int(position.item())
    if not -len(sequence) <= at <= last:
        raise InvalidInputError(f"position {at} in a sequence of {len(sequence)}; allowed: {-len(sequence)} to {last}")
    return at


@kernel("SequenceConstruct", since=11, scale=exact)
def sequence_construct(*xs: Array) -> list[Array]:
    """The tensors as a sequence. Spec: SequenceConstruct, since 11."""
    return list(xs)


@kernel("SequenceEmpty", since=11, scale=exact)
def sequence_empty(*, dtype: int = 1) -> list[Array]:
    """A sequence without tensors; `dtype` only types it. Spec: SequenceEmpty, since 11."""
    return []


@kernel("SequenceAt", since=11, scale=exact)
def sequence_at(sequence: list[Array], position: Array, /) -> Array:
    """The tensor at `position`; a negative one counts from the end. Spec: SequenceAt, since 11."""
    return sequence[_position(sequence, position, len(sequence) - 1)]


@kernel("SequenceInsert", since=11, scale=exact)
def sequence_insert(sequence: list[Array], tensor: Array, position: Array | None = None, /) -> list[Array]:
    """The sequence with `tensor` before `position`, at the end where absent. Spec: SequenceInsert, since 11."""
    at = len(sequence) if position is None else _position(sequence, position, len(sequence))
    return [*sequence[:at], tensor, *sequence[at:]]


@kernel("SequenceErase", since=11, scale=exact)
def sequence_erase(sequence: list[Array], position: Array | None = None, /) -> list[Array]:
    """The sequence without the tensor at `position`, the last where absent. Spec: SequenceErase, since 11."""
    last = np.array(-1) if position is None else position
    at = _position(sequence, last, len(sequence) - 1) % len(sequence)
    return [*sequence[:at], *sequence[at + 1 :]]


@kernel("SequenceLength", since=11, scale=exact)
def sequence_length(sequence: list[Array], /) -> Array:
    """Number of tensors, a scalar int64. Spec: SequenceLength, since 11."""
    return np.array(len(sequence), np.int64)


@kernel("ConcatFromSequence", since=11, scale=exact)
def concat_from_sequence(sequence: list[Array], /, *, axis: int, new_axis: int = 0) -> Array:
    """The tensors concatenated along `axis`, or stacked along a new one. Spec: ConcatFromSequence, since 11."""
    return np.stack(sequence, axis=axis) if new_axis else np.concatenate(sequence, axis=axis)


@kernel("SplitToSequence", since=11, scale=exact)
def split_to_sequence(x: Array, split: Array | None = None, /, *, axis: int = 0, keepdims: int = 1) -> list[Array]:
    """Pieces of `x` along `axis` as a sequence.

    Args:
        x: rank >= 1.
        split: a scalar: pieces of that size, the last one smaller; (pieces,): their sizes; absent: single slices.
        keepdims: 0 drops `axis` of single slices; read only where `split` is absent.

    Raises:
        InvalidInputError: sizes below 1, or that do not add up to the dim.

    Spec: SplitToSequence, since 11
    """
    size = x.shape[axis]
    if split is not None and split.ndim == 1:
        if split.sum() != size or split.min(initial=0) < 0:
            raise InvalidInputError(f"SplitToSequence: sizes {split.tolist()} do not split {size} elements")
        return np.split(x, np.cumsum(split)[:-1], axis=axis) if split.size else []
    step = 1 if split is None else int(split.item())
    if step < 1:
        raise InvalidInputError(f"SplitToSequence: pieces of {step} elements, at least 1 needed")
    pieces = np.split(x, range(step, size, step), axis=axis) if size else []
    return pieces if keepdims or split is not None else [piece.squeeze(axis) for piece in pieces]


Stored = tuple[np.dtype[Any] | None, ...]


def _as_stored(x: Any, stored: Stored) -> Any:
    """A tensor in the type that it is stored in: the schema of an optional does not tie its output's type to it."""
    return x if not isinstance(x, np.ndarray) or stored[0] is None else encode(x, stored[0])


@kernel("Optional", since=15, scale=exact)
def optional(x: Any = None, /, *, type: Any = None, stored: Stored = ()) -> Any:  # noqa: A002 (the attribute's name)
    """An optional that holds `x`, or an empty one (None) of that type. Spec: Optional, since 15."""
    return _as_stored(x, stored)


@kernel("OptionalHasElement", since=15, scale=exact)
def optional_has_element(x: Any = None, /) -> Array:
    """Whether an optional holds anything, a scalar bool. Spec: OptionalHasElement, since 15 and 18."""
    return np.array(x is not None)


@kernel("OptionalGetElement", since=15, scale=exact)
def optional_get_element(x: Any, /, *, stored: Stored = ()) -> Any:
    """What an optional holds, or the tensor or sequence itself (since 18). Spec: OptionalGetElement, since 15.

    Raises:
        InvalidInputError: it is empty.
    """
    if x is None:
        raise InvalidInputError("OptionalGetElement: the optional is empty")
    return _as_stored(x, stored)
