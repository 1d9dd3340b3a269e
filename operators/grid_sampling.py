"""GridSample and AffineGrid: images read at normalized coordinates, and affine grids of such coordinates.

Every spatial axis has its own taps and weights (1 for nearest, 2 for linear, 4 for cubic); their products are summed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._spilling import unspecified
from .registry import kernel
from .rounding import half_unit
from .scale import Array, Rule, Scale
from .storage import float_format, is_float

Stored = tuple[np.dtype[Any] | None, ...]

ALPHA = -0.75
"""Of the cubic convolution, as in PyTorch; the specification names none."""

COORDINATE_ROUNDINGS = 6
"""The sum, two products and a shift that take a normalized coordinate to a pixel, a reflection, the distance."""

HALF = 0.5

MODES = {"linear": "linear", "bilinear": "linear", "nearest": "nearest", "cubic": "cubic", "bicubic": "cubic"}


@dataclass(frozen=True)
class _Taps:
    """Which elements along one axis a sample reads.

    Attributes:
        index: clamped to the axis, (N, *out, taps).
        weight: 0 where padding is zero.
        slope: |d weight / d coordinate|, likewise.
        size: at which a weight's polynomial rounds, likewise; 0 for weights that are not one.
        rounding: of the coordinate, (N, *out), absolute, for half-units of size one.
        is_open: where the coordinate is so near a tie that rounding decides the nearest element.
    """

    index: Array
    weight: Array
    slope: Array
    size: Array
    rounding: Array
    is_open: Array


def _pixel(grid: Array, size: int | Array, align_corners: int) -> Array:
    """Normalized coordinates (−1 to 1) in elements."""
    return (grid + 1) * (size - 1) / 2 if align_corners else ((grid + 1) * size - 1) / 2


def _reflected(at: Array, size: int, align_corners: int) -> Array:
    """Coordinates folded at the borders: element centres with align_corners, else element edges."""
    low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
    length = high - low
    if length == 0:
        return np.zeros_like(at)
    return np.abs(np.mod(at - low + length, 2 * length) - length) + low


INNER = (ALPHA + 2, -(ALPHA + 3), 0.0, 1.0)
OUTER = (ALPHA, -5 * ALPHA, 8 * ALPHA, -4 * ALPHA)
"""Coefficients of the cubic convolution's polynomials, of distances up to 1 and from 1 to 2."""


def _cubic(t: Array) -> tuple[Array, Array, Array]:
    """Weights of the neighbours −1, 0, 1, 2 at distance t behind neighbour 0, |slopes| and sizes: (…, 4) each."""
    distances = ((OUTER, 1 + t), (INNER, t), (INNER, 1 - t), (OUTER, 2 - t))
    weights = [np.polyval(coefficients, d) for coefficients, d in distances]
    slopes = [np.abs(np.polyval(np.polyder(coefficients), d)) for coefficients, d in distances]
    sizes = [np.polyval(np.abs(coefficients), d) for coefficients, d in distances]
    return np.stack(weights, axis=-1), np.stack(slopes, axis=-1), np.stack(sizes, axis=-1)


def _taps(grid: Array, size: int, mode: str, padding_mode: str, align_corners: int, unit: float) -> _Taps:
    at = _pixel(grid, size, align_corners)
    rounding = size * (np.abs(grid) + 1) / 2
    odd = ~np.isfinite(at)
    at = np.where(odd, -2.0, at)
    if mode != "cubic":  # a cubic pads each of its neighbours instead
        if padding_mode == "border":
            at = np.clip(at, 0, size - 1)
        elif padding_mode == "reflection":
            at = np.clip(_reflected(at, size, align_corners), 0, size - 1)
    first = np.rint(at) if mode == "nearest" else np.floor(at)
    is_open, size_of = odd, np.zeros((*at.shape, 1))
    if mode == "nearest":
        weight, slope, offsets = np.ones((*at.shape, 1)), np.zeros((*at.shape, 1)), np.zeros(1)
        distance = np.abs(np.abs(at - np.floor(at)) - 0.5)
        is_open = odd | (distance <= COORDINATE_ROUNDINGS * unit * rounding) & ~_is_short(grid, at)
    elif mode == "linear":
        t = at - first
        weight, slope, offsets = np.stack([1 - t, t], axis=-1), np.ones((*at.shape, 2)), np.arange(2)
    else:
        weight, slope, size_of = _cubic(at - first)
        offsets = np.arange(-1, 3)
    index = first[..., None] + offsets
    if mode == "cubic" and padding_mode == "reflection":
        index = _reflected(index, size, align_corners)
    inside = (index >= 0) & (index <= size - 1)
    if padding_mode == "zeros":
        weight, slope = weight * inside, slope * (inside if mode == "nearest" else 1)
    index = np.clip(index, 0, size - 1).astype(np.int64)
    return _Taps(index, weight, slope, np.broadcast_to(size_of, weight.shape), rounding, is_open)


def _is_short(*values: Array) -> Array:
    """Where all are multiples of 1/256 below 2^15: float32 computes exactly with them."""
    fits = [(np.abs(v) < 2**15) & (v * 256 == np.rint(v * 256)) for v in values]
    return np.logical_and.reduce(fits)


def _all_taps(x: Array, grid: Array, mode: str, padding_mode: str, align_corners: int, unit: float) -> list[_Taps]:
    rank = x.ndim - 2
    if grid.ndim != x.ndim or grid.shape[-1] != rank or len(grid) != len(x):
        raise InvalidInputError(f"GridSample: a grid of shape {grid.shape} does not go with an input of {x.shape}")
    if mode not in MODES or padding_mode not in ("zeros", "border", "reflection"):
        raise InvalidAttributeError(
            f"GridSample: mode={mode!r}, padding_mode={padding_mode!r}; allowed are linear, nearest and cubic, "
            "zeros, border and reflection"
        )
    # Coordinates are listed from the innermost axis to the outermost.
    return [
        _taps(grid[..., rank - 1 - axis], x.shape[2 + axis], MODES[mode], padding_mode, align_corners, unit)
        for axis in range(rank)
    ]


def _neighbours(x: Array, taps: list[_Taps]) -> Iterator[tuple[Array, list[Array], list[Array]]]:
    """For every combination of taps: the elements (N, C, *out), the weights, and what one rounding along each axis
    moves the weight by, in half-units at magnitude one."""
    batch = np.arange(len(x)).reshape(-1, *(1,) * (x.ndim - 2))
    for chosen in itertools.product(*(range(t.index.shape[-1]) for t in taps)):
        where = [t.index[..., i] for t, i in zip(taps, chosen, strict=True)]
        values = np.moveaxis(x[(batch, slice(None), *where)], -1, 1)
        weights = [t.weight[..., i] for t, i in zip(taps, chosen, strict=True)]
        yield (
            values,
            weights,
            [t.slope[..., i] * t.rounding + t.size[..., i] for t, i in zip(taps, chosen, strict=True)],
        )


def grid_sample_scale(
    y: Array,
    x: Array,
    grid: Array,
    /,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
    stored: Stored,
) -> Scale:
    """COMPOSED at Σ |w|·|v|, and what six roundings of a coordinate and of a cubic weight's polynomial move the weights
    by, which count six times, not once for every product.

    Nearest: exact, open near a tie. Integers: one step, as the text leaves open how they are rounded.
    """
    form = float_format(stored[1] if stored[1] is not None and is_float(stored[1]) else np.dtype(np.float32))
    taps = _all_taps(x, grid, mode, padding_mode, align_corners, half_unit(form))
    unknown = np.logical_or.reduce([t.is_open for t in taps])[:, None]
    if MODES[mode] == "nearest" or y.dtype.kind != "f":
        steps = 0.0 if MODES[mode] == "nearest" else 1.0
        return Scale(np.zeros(()), np.where(unknown, np.inf, steps), Rule.EXACT)
    size, moved = np.zeros(y.shape), np.zeros(y.shape)
    for values, weights, shifts in _neighbours(np.abs(x), taps):
        size += values * np.abs(np.prod(weights, axis=0))[:, None]
        for axis, shift in enumerate(shifts):
            others = [np.abs(w) for i, w in enumerate(weights) if i != axis]
            moved += values * (np.prod(others, axis=0) * shift)[:, None]
    products = int(np.prod([t.index.shape[-1] for t in taps]))
    terms = products + COORDINATE_ROUNDINGS + 4 * len(taps) * (MODES[mode] == "cubic")
    magnitude = size + COORDINATE_ROUNDINGS / terms * moved
    with np.errstate(all="ignore"):
        spread = np.sqrt(1 + np.nan_to_num(moved / magnitude) ** 2)
    found = Scale(np.where(unknown, np.inf, magnitude), terms, Rule.COMPOSED, spread)
    return unspecified(found, np.isnan(y) & np.isinf(x).any())  # infinity times a weight of 0, or left out


def _sampled(x: Array, grid: Array, mode: str, padding_mode: str, align_corners: int) -> Array:
    taps = _all_taps(x, grid, mode, padding_mode, align_corners, 0.0)
    wide = x.astype(np.float64) if x.dtype.kind not in "fcOUS" else x
    if MODES[mode] == "nearest":
        (values, weights, _), *_ = _neighbours(x, taps)
        kept = np.prod(weights, axis=0)[:, None] != 0
        return np.where(kept, values, "" if x.dtype.kind in "OUS" else x.dtype.type(0))
    y = np.zeros((*x.shape[:2], *grid.shape[1:-1]), wide.dtype)
    for values, weights, _ in _neighbours(wide, taps):
        y += values * np.prod(weights, axis=0)[:, None]
    return y if wide is x else y.astype(x.dtype)


@kernel("GridSample", since=20, scale=grid_sample_scale)
def grid_sample(
    x: Array,
    grid: Array,
    /,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
    stored: Stored = (),
) -> Array:
    """`x` interpolated at the normalized coordinates of `grid`.

    Args:
        x: (N, C, D1, …, Dr).
        grid: (N, O1, …, Or, r), coordinates from the innermost axis to the outermost, mostly in [−1, 1].
        align_corners: −1 and 1 are the centres of the outer elements, not their edges.
        mode: linear, nearest (ties to even) or cubic.
        padding_mode: zeros, border or reflection.

    Returns:
        (N, C, O1, …, Or).

    Raises:
        InvalidInputError: shapes that do not go together.
        InvalidAttributeError: another mode.

    Spec: GridSample, since 20
    """
    del stored
    return _sampled(x, grid, mode, padding_mode, align_corners)


def grid_sample_first_scale(
    y: Array,
    x: Array,
    grid: Array,
    /,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    stored: Stored,
) -> Scale:
    """COMPOSED, as since 20; nearest is open at a tie, of which the text of that time says nothing."""
    found = grid_sample_scale(
        y, x, grid, align_corners=align_corners, mode=mode, padding_mode=padding_mode, stored=stored
    )
    if MODES[mode] != "nearest":
        return found
    sizes = np.array(x.shape[:1:-1])  # coordinates are listed from the innermost axis to the outermost
    tied = (np.mod(_pixel(grid, sizes, align_corners), 1) == HALF).any(axis=-1)[:, None]
    return replace(found, terms=np.where(tied, np.inf, found.terms))


@kernel("GridSample", since=16, scale=grid_sample_first_scale)
def grid_sample_first(
    x: Array,
    grid: Array,
    /,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    stored: Stored = (),
) -> Array:
    """As since 20, for images; the modes are called bilinear, nearest and bicubic.

    Spec: GridSample, since 16
    """
    del stored
    return _sampled(x, grid, mode, padding_mode, align_corners)


def _base(size: int, align_corners: int) -> Array:
    """Evenly spaced coordinates of element centres, −1 to 1."""
    if align_corners:
        with np.errstate(all="ignore"):
            return -1 + 2 * np.arange(size) / np.float64(size - 1)
    return (2 * np.arange(size) + 1) / size - 1


def _homogeneous(sizes: list[int], align_corners: int) -> Array:
    """(*sizes, rank + 1): coordinates from the innermost axis to the outermost, then 1."""
    axes = np.meshgrid(*(_base(size, align_corners) for size in sizes), indexing="ij")
    return np.stack([*axes[::-1], np.ones_like(axes[0])], axis=-1)


def _grid_sizes(theta: Array, size: Array) -> list[int]:
    sizes = [int(v) for v in size]
    rank = len(sizes) - 2
    if rank not in (2, 3) or theta.shape != (sizes[0], rank, rank + 1):
        raise InvalidInputError(f"AffineGrid: theta of shape {theta.shape} does not go with size {sizes}")
    return sizes[2:]


def affine_grid_scale(y: Array, theta: Array, size: Array, /, *, align_corners: int = 0) -> Scale:
    """DOT of θ with a position: Σ |θ|·(|p| + 2·(1 + |p|)), for the two roundings of a position at 1 + |p|. Open along
    an axis of one element with align_corners, where the step is 2 / 0."""
    sizes = _grid_sizes(theta, size)
    positions = np.abs(np.nan_to_num(_homogeneous(sizes, align_corners)))
    reach = positions + 2 * (1 + positions)
    reach[..., -1] = 1.0
    magnitude = np.einsum("...k,nik->n...i", reach, np.abs(theta))
    found = Scale(magnitude, theta.shape[-1], Rule.DOT)
    return unspecified(found, np.full_like(magnitude, align_corners and 1 in sizes, bool))


@kernel("AffineGrid", since=20, scale=affine_grid_scale)
def affine_grid(theta: Array, size: Array, /, *, align_corners: int = 0) -> Array:
    """The positions of an image's elements, moved by an affine map, as GridSample takes them.

    Args:
        theta: (N, 2, 3) or (N, 3, 4).
        size: of the image: N, C, H, W or N, C, D, H, W.
        align_corners: as for GridSample.

    Returns:
        (N, H, W, 2) or (N, D, H, W, 3).

    Raises:
        InvalidInputError: shapes that do not go together.

    Spec: AffineGrid, since 20
    """
    positions = _homogeneous(_grid_sizes(theta, size), align_corners)
    return np.einsum("...k,nik->n...i", positions, theta)
