"""Operators that move, repeat, crop or pad elements: no arithmetic, so every one of them is exact."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from . import indexing, sequences  # noqa: F401 (imported for their registrations)
from .registry import kernel
from .scale import Array, exact


def normal_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front.

    Raises:
        InvalidAttributeError: `axis` outside [-rank, rank).
    """
    if not -rank <= axis < rank:
        raise InvalidAttributeError(f"axis={axis} for rank {rank}; allowed: {-rank} to {rank - 1}")
    return int(axis) % rank


def _integers(values: Iterable[int]) -> list[int]:
    return [int(value) for value in values]


@kernel("Identity", since=1, scale=exact)
def identity(x: Array, /) -> Array:
    """`x` itself: a tensor, a sequence (since 14) or an optional (since 16). Spec: Identity, since 1."""
    return x


def _reshape(x: Array, shape: Sequence[int], *, allowzero: bool) -> Array:
    dims = [x.shape[i] if dim == 0 and not allowzero else dim for i, dim in enumerate(shape)]
    if -1 in dims:
        known = math.prod(dim for dim in dims if dim != -1)
        dims[dims.index(-1)] = x.size // known if known else 0
    if math.prod(dims) != x.size or min(dims, default=0) < 0:
        raise InvalidInputError(f"Reshape: {x.shape} has {x.size} elements, shape {list(shape)} asks for {dims}")
    return x.reshape(dims)


@kernel("Reshape", since=1, scale=exact)
def reshape_to_attribute(x: Array, /, *, shape: Sequence[int], consumed_inputs: Sequence[int] | None = None) -> Array:
    """Spec: Reshape, since 1 (the shape is an attribute; `consumed_inputs` was a hint and means nothing)."""
    return _reshape(x, _integers(shape), allowzero=False)


@kernel("Reshape", since=5, scale=exact)
def reshape(x: Array, shape: Array, /, *, allowzero: int = 0) -> Array:
    """The elements of `x` in row-major order as another shape.

    Args:
        x: any shape, any dtype.
        shape: (rank,) int64; -1 (once) is inferred, 0 copies the dim of `x`.
        allowzero: since 14: 1 makes 0 mean zero.

    Raises:
        InvalidInputError: the shapes hold different numbers of elements.

    Spec: Reshape, since 5 and 14
    """
    return _reshape(x, _integers(shape), allowzero=bool(allowzero))


@kernel("Flatten", since=1, scale=exact)
def flatten(x: Array, /, *, axis: int = 1) -> Array:
    """(prod of dims before `axis`, prod of the others); `axis` in [-rank, rank]. Spec: Flatten, since 1 and 11."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(x: Array, axes: Iterable[int] | None) -> Array:
    if axes is None:
        return x.reshape([dim for dim in x.shape if dim != 1])
    chosen = {normal_axis(int(axis), x.ndim) for axis in axes}
    if any(x.shape[axis] != 1 for axis in chosen):
        raise InvalidInputError(f"Squeeze: axes {sorted(chosen)} of shape {x.shape} are not all 1")
    return x.reshape([dim for axis, dim in enumerate(x.shape) if axis not in chosen])


@kernel("Squeeze", since=1, scale=exact)
def squeeze_attribute(x: Array, /, *, axes: Sequence[int] | None = None) -> Array:
    """Spec: Squeeze, since 1 (axes as an attribute; negative ones since 11)."""
    return _squeeze(x, axes)


@kernel("Squeeze", since=13, scale=exact)
def squeeze(x: Array, axes: Array | None = None, /) -> Array:
    """`x` without the given dims of size 1, all of them where `axes` is absent. Spec: Squeeze, since 13."""
    return _squeeze(x, axes)


@kernel("Unsqueeze", since=1, scale=exact)
def unsqueeze_attribute(x: Array, /, *, axes: Sequence[int]) -> Array:
    """Spec: Unsqueeze, since 1 (axes as an attribute; negative ones since 11)."""
    return np.expand_dims(x, tuple(axes))


@kernel("Unsqueeze", since=13, scale=exact)
def unsqueeze(x: Array, axes: Array, /) -> Array:
    """`x` with dims of size 1 inserted at `axes` of the output. Spec: Unsqueeze, since 13."""
    return np.expand_dims(x, tuple(_integers(axes.reshape(-1))))


@kernel("Transpose", since=1, scale=exact)
def transpose(x: Array, /, *, perm: Sequence[int] | None = None) -> Array:
    """Axes in the order `perm`, reversed where it is absent. Spec: Transpose, since 1."""
    return np.transpose(x, perm)


@kernel("Concat", since=1, scale=exact)
def concat_default_axis(*xs: Array, axis: int = 1) -> Array:
    """Spec: Concat, since 1 (`axis` may be left out and is then 1)."""
    return np.concatenate(xs, axis=axis)


@kernel("Concat", since=4, scale=exact)
def concat(*xs: Array, axis: int) -> Array:
    """Tensors of equal shapes but for `axis`, one after the other along it. Spec: Concat, since 4."""
    return np.concatenate(xs, axis=axis)


def split_sizes(x: Array, axis: int, sizes: Sequence[int]) -> tuple[Array, ...]:
    """Consecutive pieces of `x` along `axis`, of the given sizes.

    Raises:
        InvalidInputError: the sizes are negative or do not add up to the dim.
    """
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0:
        raise InvalidInputError(f"sizes {list(sizes)} do not split axis {axis} of shape {x.shape}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


def _equal_sizes(size: int, parts: int) -> list[int]:
    if size % parts:
        raise InvalidInputError(f"Split: {size} elements do not divide into {parts} equal parts")
    return [size // parts] * parts


@kernel("Split", since=1, scale=exact)
def split_attribute_or_input(
    x: Array, sizes: Array | None = None, /, *, axis: int = 0, split: Sequence[int] | None = None, output_count: int
) -> tuple[Array, ...]:
    """Spec: Split, since 1 (sizes as attribute `split`, or as a second input of the type of `x`)."""
    given = split if sizes is None else _integers(sizes)
    return split_sizes(x, axis, _equal_sizes(x.shape[axis], output_count) if given is None else _integers(given))


@kernel("Split", since=2, scale=exact)
def split_attribute(
    x: Array, /, *, axis: int = 0, split: Sequence[int] | None = None, output_count: int
) -> tuple[Array, ...]:
    """Spec: Split, since 2 and 11 (sizes as an attribute)."""
    return split_sizes(x, axis, _equal_sizes(x.shape[axis], output_count) if split is None else _integers(split))


@kernel("Split", since=13, scale=exact)
def split_equal(x: Array, split: Array | None = None, /, *, axis: int = 0, output_count: int) -> tuple[Array, ...]:
    """Spec: Split, since 13 (sizes as an input; else equal parts)."""
    return split_sizes(x, axis, _equal_sizes(x.shape[axis], output_count) if split is None else _integers(split))


@kernel("Split", since=18, scale=exact)
def split(
    x: Array, split: Array | None = None, /, *, axis: int = 0, num_outputs: int | None = None, output_count: int
) -> tuple[Array, ...]:
    """Pieces of `x` along `axis`.

    Args:
        x: any shape with at least one axis.
        split: (outputs,) int64, the sizes; absent: parts of ceil(size / num_outputs), the last ones smaller.
        num_outputs: number of parts; absent too: the number of outputs of the node.

    Raises:
        InvalidInputError: the sizes do not add up to the dim.

    Spec: Split, since 18
    """
    if split is not None:
        return split_sizes(x, axis, _integers(split))
    size, parts = x.shape[axis], output_count if num_outputs is None else num_outputs
    step = -(-size // parts)
    return split_sizes(x, axis, [max(min(step, size - i * step), 0) for i in range(parts)])


def _slice(
    x: Array, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> Array:
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if 0 in steps:
        raise InvalidInputError(f"Slice: steps {list(steps)} must not be 0")
    picks = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        at = normal_axis(axis, x.ndim)
        picks[at] = _run(x.shape[at], start, end, step)
    return x[tuple(picks)]


def _run(size: int, start: int, end: int, step: int) -> slice:
    """The slice of a dim, clamped as the spec says: unlike Python's, a backward one never starts before element 0."""
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return slice(max(start, 0), max(end, 0), step)
    first, last = min(max(start, 0), size - 1), max(end, -1)
    return slice(max(first, 0), None if last < 0 else last, step)


@kernel("Slice", since=1, scale=exact)
def slice_attributes(
    x: Array, /, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None
) -> Array:
    """Spec: Slice, since 1 (bounds as attributes, steps of 1)."""
    return _slice(x, _integers(starts), _integers(ends), axes, None)


@kernel("Slice", since=10, scale=exact)
def slice_inputs(
    x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None, /
) -> Array:
    """Elements from `starts` to `ends` (exclusive) in `steps` along `axes`; a step below 0 goes backwards.

    Bounds below 0 count from the end; bounds beyond either end are clamped. Spec: Slice, since 10, 11 and 13
    """
    return _slice(
        x,
        _integers(starts),
        _integers(ends),
        None if axes is None else _integers(axes),
        None if steps is None else _integers(steps),
    )


_PAD_MODES = ("constant", "reflect", "edge", "wrap")


def _pad(x: Array, pads: Sequence[int], axes: Iterable[int] | None, mode: str, value: object) -> Array:
    chosen = [normal_axis(int(axis), x.ndim) for axis in (range(x.ndim) if axes is None else axes)]
    if len(pads) != 2 * len(chosen):
        raise InvalidInputError(f"Pad: {len(pads)} pads for {len(chosen)} axes, {2 * len(chosen)} needed")
    if mode not in _PAD_MODES:
        raise InvalidAttributeError(f"Pad: mode={mode!r}; allowed: {', '.join(_PAD_MODES)}")
    widths, crop = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for axis, before, after in zip(chosen, pads[: len(chosen)], pads[len(chosen) :], strict=True):
        widths[axis] = (max(before, 0), max(after, 0))
        crop[axis] = slice(max(-before, 0), max(x.shape[axis] + min(after, 0), 0))
    cropped = x[tuple(crop)]
    if x.ndim == 0:
        return cropped  # there is no side to pad, and np.pad takes no empty list of widths
    if mode == "constant":
        return np.pad(cropped, widths, mode="constant", constant_values=value)  # type: ignore[arg-type]
    return np.pad(cropped, widths, mode=mode)  # type: ignore[call-overload]


@kernel("Pad", since=1, scale=exact)
def pad_paddings(x: Array, /, *, paddings: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    """Spec: Pad, since 1 (attribute `paddings`)."""
    return _pad(x, paddings, None, mode, value)


@kernel("Pad", since=2, scale=exact)
def pad_attributes(x: Array, /, *, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    """Spec: Pad, since 2 (attribute `pads`)."""
    return _pad(x, pads, None, mode, value)


@kernel("Pad", since=11, scale=exact)
def pad(
    x: Array,
    pads: Array,
    constant_value: Array | None = None,
    axes: Array | None = None,
    /,
    *,
    mode: str = "constant",
) -> Array:
    """`x` with elements added before and after its axes, or removed where a pad is below 0 (before anything is added).

    Args:
        x: any shape, any dtype.
        pads: (2·axes,) int64: all befores, then all afters.
        constant_value: one element of the type of `x`; absent: 0, False or "".
        axes: since 18: which axes `pads` speaks of, all where absent.
        mode: constant, reflect (without repeating the edge), edge, or wrap (since 19).

    Spec: Pad, since 11, 13, 18 and 19
    """
    empty = "" if x.dtype.kind in "OUS" else np.zeros((), x.dtype)
    value = empty if constant_value is None or constant_value.size == 0 else constant_value.reshape(())[()]
    return _pad(x, _integers(pads), axes, mode, value)


@kernel("Expand", since=8, scale=exact)
def expand(x: Array, shape: Array, /) -> Array:
    """`x` repeated along dims of size 1 to the broadcast of its shape and `shape`. Spec: Expand, since 8."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(_integers(shape))))


@kernel("Tile", since=1, scale=exact)
def tile_axis(x: Array, tiles: Array, axis: Array, /) -> Array:
    """Spec: Tile, since 1 (one axis; `tiles` and `axis` are one-element tensors of the type of `x`)."""
    repeats = np.ones(x.ndim, np.int64)
    repeats[normal_axis(int(axis.item()), x.ndim)] = int(tiles.item())
    return np.tile(x, repeats)


@kernel("Tile", since=6, scale=exact)
def tile(x: Array, repeats: Array, /) -> Array:
    """`x` laid `repeats` times along every axis. Spec: Tile, since 6."""
    return np.tile(x, repeats)


def _block_orders(mode: str, blocksize: int) -> bool:
    if mode not in ("DCR", "CRD") or blocksize < 1:
        raise InvalidAttributeError(f"mode={mode!r}, blocksize={blocksize}; allowed: DCR or CRD, at least 1")
    return mode == "DCR"


@kernel("DepthToSpace", since=1, scale=exact)
def depth_to_space(x: Array, /, *, blocksize: int, mode: str = "DCR") -> Array:
    """(B, C, H, W) -> (B, C / s², H·s, W·s), s = blocksize. Spec: DepthToSpace, since 1 (`mode` since 11)."""
    B, C, H, W = x.shape
    s, depth = blocksize, C // blocksize**2
    if _block_orders(mode, s):
        blocks = x.reshape(B, s, s, depth, H, W).transpose(0, 3, 4, 1, 5, 2)  # (B, depth, H, s, W, s)
    else:
        blocks = x.reshape(B, depth, s, s, H, W).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(B, depth, H * s, W * s)


@kernel("SpaceToDepth", since=1, scale=exact)
def space_to_depth(x: Array, /, *, blocksize: int, mode: str = "DCR") -> Array:
    """(B, C, H, W) -> (B, C·s², H / s, W / s), s = blocksize. Spec: SpaceToDepth, since 1 (`mode` since 28)."""
    B, C, H, W = x.shape
    s = blocksize
    order = (0, 3, 5, 1, 2, 4) if _block_orders(mode, s) else (0, 1, 3, 5, 2, 4)
    return x.reshape(B, C, H // s, s, W // s, s).transpose(order).reshape(B, C * s * s, H // s, W // s)


@kernel("ReverseSequence", since=10, scale=exact)
def reverse_sequence(x: Array, sequence_lens: Array, /, *, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """The first sequence_lens[b] steps of every sequence b in reverse, the others as they are.

    Spec: ReverseSequence, since 10
    """
    steps = np.arange(x.shape[time_axis])[:, None]  # (T, 1)
    source = np.where(steps < sequence_lens, sequence_lens - 1 - steps, steps)  # (T, B)
    sequences_first = np.moveaxis(x, (time_axis, batch_axis), (0, 1))
    return np.moveaxis(sequences_first[source, np.arange(source.shape[1])], (0, 1), (time_axis, batch_axis))


@kernel("Trilu", since=14, scale=exact)
def trilu(x: Array, k: Array | None = None, /, *, upper: int = 1) -> Array:
    """Zeros below (`upper`) or above diagonal `k` of the last two axes (…, N, M). Spec: Trilu, since 14."""
    rows, columns = x.shape[-2:]
    diagonal = 0 if k is None else min(max(int(k.item()), -rows - 1), columns + 1)
    return np.triu(x, diagonal) if upper else np.tril(x, diagonal)


@kernel("CenterCropPad", since=18, scale=exact)
def center_crop_pad(x: Array, shape: Array, /, *, axes: Sequence[int] | None = None) -> Array:
    """The centre of `x` cropped or padded with zeros to `shape` along `axes`; an odd element goes to the end.

    Spec: CenterCropPad, since 18
    """
    for axis, target in zip(range(x.ndim) if axes is None else axes, _integers(shape), strict=True):
        spare = x.shape[axis] - target
        before = -(spare // 2) if spare > 0 else -spare // 2
        x = _pad(x, [before, -spare - before], [axis], "constant", np.zeros((), x.dtype))
    return x
