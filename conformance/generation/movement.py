"""Shapes and movement: everything that puts elements elsewhere and changes none."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...operators.scale import Array
from ...operators.storage import is_float
from .drawing import Draw, NodeCall, element_type
from .registry import strategy
from .values import MOVED

HUGE = (1 << 31) - 1
HUGEST = (1 << 63) - 1


def whole(numbers: Any) -> Array:
    return np.asarray(numbers, np.int64)


@strategy("Transpose")
def transpose(d: Draw) -> NodeCall:
    shape = d.shape(0, 5)
    order = d.permutation(range(len(shape))) if d.boolean() else None
    return d.call([d.tensor(shape, d.dtype(), MOVED)], {"perm": order or None})


def _factors(d: Draw, size: int, most: int) -> list[int]:
    """Sizes whose product is `size`."""
    parts: list[int] = []
    for _ in range(d.integer(0, most - 1)):
        divisors = [n for n in range(1, min(size, 64) + 1) if size % n == 0]
        parts.append(d.choice(divisors))
        size //= parts[-1]
    return [*parts, size]


@strategy("Reshape")
def reshape(d: Draw) -> NodeCall:
    shape = d.shape(0, 5)
    size = int(np.prod(shape))
    x = d.tensor(shape, d.dtype(), MOVED)
    if size == 0:
        if d.opset >= 14 and d.boolean():
            target = d.permutation([0, d.choice((1, 2, 3))])
            return d.call([x, whole(target)], {"allowzero": 1}, parameters=(1,))
        return d.call([x, whole([0] * len(shape))], parameters=(1,))
    target = _factors(d, size, 4)
    if size == 1 and d.rarely(4):
        target = []
    copied = [i for i in range(min(len(target), len(shape))) if target[i] == shape[i]]
    if copied and d.boolean():
        target[d.choice(copied)] = 0
    known = [i for i, n in enumerate(target) if n != 0]
    if known and d.boolean():
        target[d.choice(known)] = -1
    options = {} if 0 in target or d.opset < 14 else d.attributes(allowzero=lambda: d.integer(0, 1))
    return d.call([x, whole(target)], options, parameters=(1,))


@strategy("Flatten")
def flatten(d: Draw) -> NodeCall:
    shape = d.shape(0, 4)
    low = -len(shape) if d.opset >= 11 else 0
    axis = d.integer(low, len(shape)) if shape and d.boolean() else None
    axis = 0 if not shape else axis
    return d.call([d.tensor(shape, d.dtype(), MOVED)], {"axis": axis})


@strategy("Squeeze")
def squeeze(d: Draw) -> NodeCall:
    shape = d.shape(0, 5)
    ones = d.subset([i for i, n in enumerate(shape) if n == 1])
    axes = [i - len(shape) if d.boolean() else i for i in ones]
    x = d.tensor(shape, d.dtype(), MOVED)
    if not axes and d.boolean():
        return d.call([x])
    if not axes:
        return d.call([x])
    return d.call([x, whole(axes)], parameters=(1,)) if d.opset >= 13 else d.call([x], {"axes": axes})


@strategy("Unsqueeze")
def unsqueeze(d: Draw) -> NodeCall:
    shape = d.shape(0, 4)
    count = d.integer(1, 3)
    rank = len(shape) + count
    chosen = d.permutation(range(rank))[:count]
    axes = [i - rank if d.boolean() else i for i in chosen]
    x = d.tensor(shape, d.dtype(), MOVED)
    return d.call([x, whole(axes)], parameters=(1,)) if d.opset >= 13 else d.call([x], {"axes": sorted(axes)})


@strategy("Shape")
def shape_of(d: Draw) -> NodeCall:
    shape = d.shape(0, 5)
    ends = {}
    if d.opset >= 15:
        ends = d.attributes(start=lambda: d.integer(-7, 7), end=lambda: d.integer(-7, 7))
    return d.call([d.tensor(shape, d.dtype(), MOVED)], ends)


@strategy("Size")
def size_of(d: Draw) -> NodeCall:
    return d.call([d.tensor(d.shape(0, 5), d.dtype(), MOVED)])


@strategy("Concat")
def concat(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, elements=512)
    axis = d.axis(len(shape))
    dtype = d.dtype()
    shapes = [list(shape) for _ in range(d.integer(1, 5))]
    for sizes in shapes:
        sizes[axis] = d.size(empty=True)
    return d.call([d.tensor(tuple(s), dtype, MOVED) for s in shapes], {"axis": axis}, parameters=(0, 1))


@strategy("Split")
def split(d: Draw) -> NodeCall:
    shape = list(d.shape(1, 4, elements=512))
    axis = d.axis(len(shape))
    dtype = d.dtype()
    count = d.integer(1, 5)
    mode = d.choice(("sizes", "even", "uneven") if d.opset >= 18 else ("sizes", "even"))
    sizes = [d.choice((1, 2, 0, 3, 5)) for _ in range(count)]
    attributes: dict[str, Any] = {"axis": axis}
    wanted = None
    if mode == "sizes":
        shape[axis] = sum(sizes)
        if d.opset >= 13:
            wanted = whole(sizes)
        else:
            attributes["split"] = sizes
    else:
        each = d.choice((1, 2, 3))
        shape[axis] = each * count
        if mode == "uneven":  # the last one is smaller, and not empty
            shape[axis] = each * count - d.integer(0, each - 1)
        if d.opset >= 18:
            attributes["num_outputs"] = count
    outputs = [dtype] * count
    return d.call([d.tensor(tuple(shape), dtype, MOVED), wanted], attributes, outputs=outputs, parameters=(1,))


@strategy("Slice")
def slice_(d: Draw) -> NodeCall:
    shape = d.shape(1, 5)
    chosen = d.subset(range(len(shape)), least=1)
    starts, ends, steps = [], [], []
    for axis in chosen:
        n = shape[axis]
        step = d.choice((1, 2, -1, 3, -2, -3, 7, HUGE, -HUGE, HUGEST, -HUGEST))
        start = d.choice((d.integer(-n - 2, n + 2), 0, -1, HUGE, -HUGE, HUGEST, -HUGEST - 1))
        end = d.choice((d.integer(-n - 2, n + 2), n, -1, HUGE, -HUGE, HUGEST, -HUGEST - 1))
        starts.append(start)
        ends.append(end)
        steps.append(step)
    index_type = d.choice((np.int64, np.int32))
    axes = [a - len(shape) if d.boolean() else a for a in chosen]
    if index_type is np.int32:
        starts, ends, steps = ([max(-HUGE - 1, min(HUGE, n)) for n in row] for row in (starts, ends, steps))
    ordered = chosen == list(range(len(shape)))
    rows: list[Array | None] = [np.asarray(row, index_type) for row in (starts, ends, axes, steps)]
    if ordered and d.boolean():
        rows[2] = None
    if all(step == 1 for step in steps) and d.boolean():
        rows[3] = None
    return d.call([d.tensor(shape, d.dtype(), MOVED), *rows], parameters=(1, 2, 3, 4))


@strategy("Pad")
def pad(d: Draw) -> NodeCall:
    shape = d.shape(0, 4, elements=512, empty=False)
    mode = d.choice(("constant", "reflect", "edge", "wrap") if d.opset >= 19 else ("constant", "reflect", "edge"))
    dtype = d.dtype()
    chosen = d.subset(range(len(shape)), least=1) if d.opset >= 18 and shape and d.boolean() else None
    axes = list(range(len(shape))) if chosen is None else chosen
    begin, end = ([_pad_of(d, mode, shape[a]) for a in axes] for _ in range(2))
    for i, a in enumerate(axes):
        mixed = min(begin[i], end[i]) < 0 <= max(begin[i], end[i])  # only a constant is put beside what is cut off
        if begin[i] + end[i] + shape[a] < 1 or (mixed and mode != "constant"):
            begin[i] = end[i] = 0
    value = None
    if mode == "constant" and d.boolean():
        value = d.tensor((), dtype, ("small", "normal", "special"))
    named = None
    if chosen is not None:
        named = np.asarray([a - len(shape) if d.boolean() else a for a in chosen], d.choice((np.int64, np.int32)))
    options = {} if mode == "constant" and d.boolean() else {"mode": mode}
    return d.call([d.tensor(shape, dtype, MOVED), whole(begin + end), value, named], options, parameters=(1, 2, 3))


def _pad_of(d: Draw, mode: str, size: int) -> int:
    if d.rarely(5):
        return -d.integer(0, max(size - 1, 0))
    most = {"reflect": size - 1, "wrap": size}.get(mode, 4)
    return d.integer(0, min(most, 5))


@strategy("Tile")
def tile(d: Draw) -> NodeCall:
    shape = d.shape(0, 4, elements=256)
    repeats = [d.choice((1, 2, 3, 0) if d.rarely(4) else (1, 2, 3)) for _ in shape]
    return d.call([d.tensor(shape, d.dtype(), MOVED), whole(repeats)], parameters=(1,))


@strategy("Expand")
def expand(d: Draw) -> NodeCall:
    shape = d.shape(0, 5)
    x = d.tensor(d.broadcastable(shape), d.dtype(), MOVED)
    # The target may hold 1 where x does not: both broadcast to one another.
    target = list(shape) if d.boolean() else list(d.broadcastable(shape))
    return d.call([x, whole(target)], parameters=(1,))


@strategy("DepthToSpace", "SpaceToDepth")
def depth_space(d: Draw) -> NodeCall:
    block = d.choice((2, 1, 3))
    n, c, h, w = (d.choice((1, 2, 3, 5)) for _ in range(4))
    if d.op_type == "DepthToSpace":
        shape, options = (n, c * block * block, h, w), d.attributes(mode=lambda: d.choice(("DCR", "CRD")))
    else:
        shape, options = (n, c, h * block, w * block), {}
        if d.opset >= 28 and "mode" in d.schema.attributes:
            options = d.attributes(mode=lambda: d.choice(("DCR", "CRD")))
    return d.call([d.tensor(shape, d.dtype(), MOVED)], {**options, "blocksize": block})


@strategy("CenterCropPad")
def center_crop_pad(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False, elements=512)
    chosen = d.subset(range(len(shape)), least=1) if d.boolean() else None
    count = len(shape) if chosen is None else len(chosen)
    target = [d.choice((3, 1, 2, 4, 5, 8)) for _ in range(count)]
    axes = None if chosen is None else [a - len(shape) if d.boolean() else a for a in chosen]
    wanted = np.asarray(target, d.choice((np.int64, np.int32)))
    return d.call([d.tensor(shape, d.dtype(), MOVED), wanted], {"axes": axes}, parameters=(1,))


@strategy("Trilu")
def trilu(d: Draw) -> NodeCall:
    shape = d.shape(2, 4)
    k = whole(d.choice((0, 1, -1, 2, -2, 40, -40, HUGEST, -HUGEST))) if d.boolean() else None
    return d.call([d.tensor(shape, d.dtype(), MOVED), k], d.attributes(upper=lambda: d.integer(0, 1)), parameters=(1,))


@strategy("EyeLike")
def eye_like(d: Draw) -> NodeCall:
    source = d.dtype("T1")
    target = d.dtype("T2")
    options: dict[str, Any] = d.attributes(k=lambda: d.integer(-4, 4))
    if d.boolean():
        options["dtype"] = element_type(target)
    else:
        target = source
    return d.call([d.tensor(d.shape(2, 2), source, ("small",))], options, outputs=(target,))


@strategy("ConstantOfShape")
def constant_of_shape(d: Draw) -> NodeCall:
    shape = whole(d.shape(0, 4))
    if d.rarely(4):
        return d.call([shape], outputs=(np.dtype(np.float32),), parameters=(0,))
    dtype = d.dtype("T2")
    return d.call([shape], {"value": d.tensor((1,), dtype, MOVED)}, outputs=(dtype,), parameters=(0,))


@strategy("Range")
def range_(d: Draw) -> NodeCall:
    dtype = d.dtype()
    if is_float(dtype):
        start, delta = d.integer(-6, 6) / 2, d.choice((0.5, 1.0, 0.25, 2.0, -0.5, -1.0))
    else:
        start, delta = d.integer(-6, 6), d.choice((1, 2, 3, -1, -2))
        if dtype.kind == "u":
            start, delta = abs(start) + 60, abs(delta)
    # The limit lies a quarter of a step before a whole number of steps, so that rounding decides nothing.
    limit = start + delta * (d.integer(-2, 40) if is_float(dtype) else d.integer(-1, 20))
    if is_float(dtype):
        limit -= delta / 4
    return d.call([np.asarray(v).astype(dtype) for v in (start, limit, delta)], parameters=(0, 1, 2))
