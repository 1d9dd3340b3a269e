"""Gather, scatter and what else reads or writes by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...operators.scale import Array
from ...operators.storage import is_float
from .drawing import Draw, NodeCall
from .elementwise import is_integer
from .registry import strategy
from .values import MOVED, SUMMED


def indices_below(d: Draw, size: int, shape: tuple[int, ...], dtype: Any = np.int64, *, negative: bool = True) -> Array:
    """Indices of an axis of `size`, from −size where negative ones are allowed."""
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    low = -size if negative and d.boolean() else 0
    return rng.integers(low, size, shape).astype(dtype)


def _index_dtype(d: Draw) -> np.dtype[Any]:
    return d.dtype("Tind")


@strategy("Gather")
def gather(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False, elements=1024)
    axis = d.axis(len(shape))
    indices = indices_below(d, shape[axis], d.shape(0, 3, elements=32), _index_dtype(d))
    options = d.attributes(axis=lambda: axis)
    if "axis" not in options:
        indices = indices_below(d, shape[0], indices.shape, indices.dtype)
    return d.call([d.tensor(shape, d.dtype(), MOVED), indices], options, parameters=(0, 1))


@strategy("GatherElements")
def gather_elements(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False)
    axis = d.axis(len(shape))
    at = axis % len(shape)
    wanted = tuple(
        d.integer(0 if d.rarely(16) else 1, n) if i != at else d.integer(1, n + 2) for i, n in enumerate(shape)
    )
    indices = indices_below(d, shape[at], wanted, _index_dtype(d))
    return d.call([d.tensor(shape, d.dtype(), MOVED), indices], {"axis": axis}, parameters=(1,))


def tuples_into(d: Draw, shape: Sequence[int], count: tuple[int, ...], *, unique: bool) -> Array:
    """Index tuples (*count, len(shape)) into a tensor of `shape`."""
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    places, cells = int(np.prod(count)), int(np.prod(shape))
    flat = rng.permutation(cells)[:places] if unique else rng.integers(0, max(cells, 1), places)
    found = np.stack(np.unravel_index(flat, tuple(shape)), -1) if shape else np.zeros((places, 0))
    if d.boolean():
        found = found - np.asarray(shape) * rng.integers(0, 2, found.shape)
    return found.reshape(*count, len(shape)).astype(np.int64)


@strategy("GatherND")
def gather_nd(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False, elements=1024)
    batch = d.integer(0, min(len(shape) - 1, 2))
    depth = d.integer(1, len(shape) - batch)
    between = d.shape(0, 2, elements=16)
    indices = tuples_into(d, shape[batch : batch + depth], (*shape[:batch], *between), unique=False)
    attributes = {"batch_dims": batch} if batch or d.boolean() else {}
    return d.call([d.tensor(shape, d.dtype(), MOVED), indices], attributes, parameters=(1,))


def _reduction(d: Draw, dtype: np.dtype[Any]) -> str:
    """One that the opset has and the type admits."""
    if dtype.kind in "OUSb" or dtype.kind == "c" or d.opset < 16:
        return "none"
    return d.choice(("none", "add", "mul", "max", "min") if d.opset >= 18 else ("none", "add", "mul"))


def _content(d: Draw, shape: tuple[int, ...], dtype: np.dtype[Any], reduction: str) -> Array:
    if reduction == "none":
        return d.tensor(shape, dtype, MOVED)
    if reduction == "add":
        return d.tensor(shape, dtype, SUMMED)
    if reduction == "mul":
        x = d.tensor(shape, dtype, ("unit",))
        return (
            np.sign(x).astype(dtype)
            if dtype.kind == "i"
            else np.minimum(x, 1).astype(dtype)
            if is_integer(dtype)
            else x
        )
    return d.tensor(shape, dtype, ("small", "normal", "ties"))


@strategy("ScatterElements")
def scatter_elements(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False, elements=1024)
    dtype = d.dtype()
    axis = d.axis(len(shape))
    at = axis % len(shape)
    reduction = _reduction(d, dtype)
    updates_shape = tuple(d.integer(1, n) for n in shape)
    if reduction == "none":  # every place once: which of two updates wins is left open
        rng = np.random.default_rng(d.integer(0, 1 << 31))
        ranks = np.argsort(rng.random((*updates_shape[:at], shape[at], *updates_shape[at + 1 :])), axis=at)
        indices = np.take(ranks, range(updates_shape[at]), axis=at).astype(_index_dtype(d))
        if d.boolean():
            indices = (indices - shape[at] * rng.integers(0, 2, indices.shape)).astype(indices.dtype)
    else:
        indices = indices_below(d, shape[at], updates_shape, _index_dtype(d))
    attributes: dict[str, Any] = {"axis": axis}
    if reduction != "none" or (d.opset >= 16 and d.boolean()):
        attributes["reduction"] = reduction
    data, updates = (_content(d, s, dtype, reduction) for s in (shape, updates_shape))
    return d.call([data, indices, updates], attributes, parameters=(1,))


@strategy("ScatterND")
def scatter_nd(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False, elements=1024)
    dtype = d.dtype()
    reduction = _reduction(d, dtype)
    depth = d.integer(1, len(shape))
    cells = int(np.prod(shape[:depth]))
    count = d.integer(1, min(cells, 12) if reduction == "none" else 12)
    between = d.choice(((count,), (1, count), ())) if count > 1 else d.choice(((1,), (), (1, 1)))
    indices = tuples_into(d, shape[:depth], between, unique=reduction == "none")
    attributes = {"reduction": reduction} if reduction != "none" or (d.opset >= 16 and d.boolean()) else {}
    updates = _content(d, (*between, *shape[depth:]), dtype, reduction)
    return d.call([_content(d, shape, dtype, reduction), indices, updates], attributes, parameters=(1,))


@strategy("TensorScatter")
def tensor_scatter(d: Draw) -> NodeCall:
    shape = d.shape(2, 5, empty=False, elements=1024)
    at = d.integer(1, len(shape) - 1)
    axis = at - len(shape) if d.boolean() else at
    mode = d.choice(("linear", "circular"))
    length = d.integer(1, shape[at])
    dtype = d.dtype()
    update = d.tensor((*shape[:at], length, *shape[at + 1 :]), dtype, MOVED)
    most = shape[at] if mode == "circular" else shape[at] - length + 1
    where = indices_below(d, most, (shape[0],), negative=False) if d.boolean() else None
    return d.call([d.tensor(shape, dtype, MOVED), update, where], {"axis": axis, "mode": mode}, parameters=(2,))


@strategy("Compress")
def compress(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False)
    axis = d.axis(len(shape)) if d.boolean() else None
    size = int(np.prod(shape)) if axis is None else shape[axis]
    condition = d.tensor((d.integer(0, size),), np.bool_, MOVED)
    return d.call([d.tensor(shape, d.dtype(), MOVED), condition], {"axis": axis}, parameters=(1,))


@strategy("OneHot")
def one_hot(d: Draw) -> NodeCall:
    shape = d.shape(0, 3, elements=256)
    depth = d.choice((3, 1, 2, 5, 8))
    index_type = d.dtype("T1", among=_orderly)
    reach = depth + 2
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    low = 0 if index_type.kind in "u" or index_type.name.startswith("u") else -reach
    indices = rng.integers(low, reach, shape).astype(index_type)
    depth_type = d.dtype("T2", among=_orderly)
    depth_input = np.asarray(depth, depth_type).reshape(d.choice(((), (1,))) if d.opset >= 11 else ())
    values = d.tensor((2,), d.dtype("T3"), ("small", "normal", "special"))
    axis = d.axis(len(shape) + 1) if d.boolean() else None
    return d.call([indices, depth_input, values], {"axis": axis}, parameters=(1, 2))


def _orderly(dtype: np.dtype[Any]) -> bool:
    """Types that hold the indices of this family exactly."""
    return dtype.itemsize >= 2 and (is_integer(dtype) or is_float(dtype))


@strategy("NonZero")
def non_zero(d: Draw) -> NodeCall:
    x = d.tensor(d.shape(1, 4), d.dtype(), ("small", "ties", "special"))
    return d.call([x])


@strategy("ReverseSequence")
def reverse_sequence(d: Draw) -> NodeCall:
    shape = d.shape(2, 4, empty=False)
    batch = d.integer(0, 1)
    lengths = np.random.default_rng(d.integer(0, 1 << 31)).integers(1, shape[1 - batch], shape[batch], endpoint=True)
    axes = {"batch_axis": batch, "time_axis": 1 - batch}
    return d.call([d.tensor(shape, d.dtype(), MOVED), lengths.astype(np.int64)], axes, parameters=(1,))
