"""Operators that read or write elements at given indices: exact, except where Scatter* adds or multiplies."""

from __future__ import annotations

import math

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._elementwise import ONCE, undetermined
from .registry import kernel, scale
from .scale import Array, Rule, Scale, exact

Coordinates = tuple[Array, ...]


@kernel("Gather", since=1, scale=exact)
def gather(data: Array, indices: Array, /, *, axis: int = 0) -> Array:
    """Slices of `data` along `axis` in the places of `indices`; negative ones (since 11) count from the end.

    Returns:
        data.shape[:axis] + indices.shape + data.shape[axis + 1:].

    Spec: Gather, since 1, 11 and 13
    """
    return np.asarray(np.take(data, indices, axis=axis), dtype=data.dtype)


def _along_axis(indices: Array, axis: int) -> Coordinates:
    grid = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    grid[axis] = indices
    return tuple(grid)


@kernel("GatherElements", since=11, scale=exact)
def gather_elements(data: Array, indices: Array, /, *, axis: int = 0) -> Array:
    """`indices`-shaped: each element of `data` at its own place, but at its index along `axis`.

    Spec: GatherElements, since 11
    """
    return data[_along_axis(indices, axis)]


@kernel("GatherND", since=11, scale=exact)
def gather_nd(data: Array, indices: Array, /, *, batch_dims: int = 0) -> Array:
    """Slices of `data` at the index tuples in the last axis of `indices`.

    Args:
        data: (*batch, *rest).
        indices: (*batch, *places, k), k <= rank of rest; negative ones count from the end.
        batch_dims: since 12: how many leading axes both share.

    Returns:
        (*batch, *places, *rest[k:]).

    Spec: GatherND, since 11 and 12
    """
    batch, width = indices.shape[:batch_dims], indices.shape[-1]
    flat_data = data.reshape(math.prod(batch), *data.shape[batch_dims:])  # (B, *rest)
    flat = indices.reshape(math.prod(batch), math.prod(indices.shape[batch_dims:-1]), width)  # (B, places, k)
    found = flat_data[(np.arange(len(flat))[:, None], *(flat[..., i] for i in range(width)))]
    return found.reshape((*indices.shape[:-1], *data.shape[batch_dims + width :]))  # () where one element is asked for


_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter(data: Array, at: Coordinates, updates: Array, reduction: str) -> Array:
    if reduction != "none" and reduction not in _REDUCTIONS:
        raise InvalidAttributeError(f"reduction={reduction!r}; allowed: none, {', '.join(_REDUCTIONS)}")
    out = data.copy()
    if reduction == "none":
        out[at] = updates
    else:
        _REDUCTIONS[reduction].at(out, at, updates)
    return out


def _scatter_scale(y: Array, data: Array, at: Coordinates, updates: Array, reduction: str) -> Scale:
    """add: DOT over |data| and the |updates| of an element; mul: one rounding per update; elements not written: none.

    Derivation: an element that takes n updates is a sum of n + 1 values, or n multiplications of relative error u each.
    Without a reduction an element that takes different updates is open, as their order is not specified.
    """
    if reduction == "none":
        return undetermined(_contested(y, at, updates))
    if y.dtype.kind in "bOU":
        return undetermined(_written(y, at))  # what adding or multiplying truth values or texts is, is not said
    if y.dtype.kind != "f" or reduction not in ("add", "mul"):
        return undetermined(_written(y, at) & (y != y))  # noqa: PLR0124 (the larger one of NaN and a number)
    count = _scatter(np.zeros_like(y), at, np.ones_like(updates), "add")
    if reduction == "mul":
        return Scale(np.where(count > 0, np.abs(y), 0), ONCE * count, Rule.ULP)
    magnitude = _scatter(np.abs(data), at, np.abs(updates), "add")
    return Scale(np.where(count > 0, magnitude, 0), float(count.max(initial=0)) + 1, Rule.DOT)


def _written(y: Array, at: Coordinates) -> Array:
    """Which elements take an update."""
    found = np.zeros(y.shape, bool)
    found[at] = True
    return found


def _contested(y: Array, at: Coordinates, updates: Array) -> Array:
    """Elements for which there are updates that differ from the one they have."""
    taken = y[at]
    other = (updates != taken) & ((updates == updates) | (taken == taken))  # noqa: PLR0124 (NaN)
    found = np.zeros(y.shape, bool)
    if np.any(other):
        np.logical_or.at(found, at, other)
    return found


def scatter_scale(y: Array, data: Array, indices: Array, updates: Array, /, *, axis: int = 0) -> Scale:
    """Exact, open where different updates meet."""
    return _scatter_scale(y, data, _along_axis(indices, axis), updates, "none")


@kernel("Scatter", since=9, scale=scatter_scale)
def scatter(data: Array, indices: Array, updates: Array, /, *, axis: int = 0) -> Array:
    """Spec: Scatter, since 9, deprecated at 11: ScatterElements without a reduction."""
    return _scatter(data, _along_axis(indices, axis), updates, "none")


@kernel("ScatterElements", since=11)
def scatter_elements(
    data: Array, indices: Array, updates: Array, /, *, axis: int = 0, reduction: str = "none"
) -> Array:
    """`data` with each update at its own place, but at its index along `axis`.

    Args:
        data: rank >= 1.
        indices: same rank, no larger; negative ones count from the end.
        updates: shaped as `indices`.
        reduction: none, add and mul (since 16), max and min (since 18).

    Spec: ScatterElements, since 11, 16 and 18
    """
    return _scatter(data, _along_axis(indices, axis), updates, reduction)


@scale("ScatterElements", since=11)
def scatter_elements_scale(
    y: Array, data: Array, indices: Array, updates: Array, /, *, axis: int = 0, reduction: str = "none"
) -> Scale:
    """DOT for add, one rounding per update for mul, else exact and open where updates meet: see `_scatter_scale`."""
    return _scatter_scale(y, data, _along_axis(indices, axis), updates, reduction)


def _tuples(indices: Array) -> Coordinates:
    return tuple(np.moveaxis(indices, -1, 0))


@kernel("ScatterND", since=11)
def scatter_nd(data: Array, indices: Array, updates: Array, /, *, reduction: str = "none") -> Array:
    """`data` with the slices at the index tuples of `indices` replaced by, or combined with, `updates`.

    Args:
        data: rank r.
        indices: (*places, k), k <= r.
        updates: (*places, *data.shape[k:]).
        reduction: none, add and mul (since 16), max and min (since 18).

    Spec: ScatterND, since 11, 16 and 18
    """
    return _scatter(data, _tuples(indices), updates, reduction)


@scale("ScatterND", since=11)
def scatter_nd_scale(y: Array, data: Array, indices: Array, updates: Array, /, *, reduction: str = "none") -> Scale:
    """DOT for add, one rounding per update for mul, else exact: see `_scatter_scale`."""
    return _scatter_scale(y, data, _tuples(indices), updates, reduction)


@kernel("TensorScatter", since=24, scale=exact)
def tensor_scatter(
    past_cache: Array, update: Array, write_indices: Array | None = None, /, *, axis: int = -2, mode: str = "linear"
) -> Array:
    """A cache with `update` written along its sequence axis, for every batch entry from its own position on.

    Args:
        past_cache: (B, …, max_sequence_length, …), the sequence at `axis`.
        update: the same but for a shorter sequence.
        write_indices: (B,) int64 first positions, 0 where absent.
        mode: linear, or circular: positions modulo max_sequence_length.

    Raises:
        InvalidInputError: a linear write runs past the cache.

    Spec: TensorScatter, since 24
    """
    cache, new = np.moveaxis(past_cache, axis, 1).copy(), np.moveaxis(update, axis, 1)
    first = np.zeros(len(cache), np.int64) if write_indices is None else write_indices
    at = first[:, None] + np.arange(new.shape[1])  # (B, T)
    if mode == "circular":
        at %= cache.shape[1]
    elif at.size and not 0 <= at.min() <= at.max() < cache.shape[1]:
        raise InvalidInputError(f"TensorScatter: writes {at.min()} to {at.max()} of a cache of {cache.shape[1]}")
    cache[np.arange(len(cache))[:, None], at] = new
    return np.moveaxis(cache, 1, axis)


@kernel("Compress", since=9, scale=exact)
def compress(x: Array, condition: Array, /, *, axis: int | None = None) -> Array:
    """Slices of `x` along `axis` (elements of the flattened `x` where absent) whose condition is true.

    Spec: Compress, since 9
    """
    return np.compress(condition, x, axis=axis)
