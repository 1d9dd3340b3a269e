"""Data movement and choice: ArgMax, TopK, Gather, Scatter, Slice, Pad, Transpose and the like."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...operators.scale import Array
from .case import Case, Family, Fault, Outputs, Variant
from .data import KINDS, tensor
from .tampering import tampered

F = np.float32


def _x(case: Case, position: int = 0) -> Array:
    return np.asarray(case.inputs[position])


def _given(case: Case) -> dict[str, Any]:
    return dict(case.attributes)


def arg(case: Case, *, last: bool | None = None, least: bool | None = None, axis: int | None = None) -> Outputs:
    """ArgMax and ArgMin over an axis that is kept."""
    given, x = _given(case), _x(case)
    last = bool(given.get("select_last_index", 0)) if last is None else last
    least = case.op_type == "ArgMin" if least is None else least
    axis = int(given["axis"] if axis is None else axis)
    x = np.flip(x, axis) if last else x
    found = x.argmin(axis, keepdims=True) if least else x.argmax(axis, keepdims=True)
    return ((x.shape[axis] - 1 - found if last else found).astype(np.int64),)


def top(
    case: Case, *, least: bool | None = None, later_first: bool = False, fewer: int = 0, rows: bool = False
) -> Outputs:
    """TopK along the last axis: values, indices; the lower index first among equals."""
    x, k = _x(case), int(_x(case, 1)[0])
    least = not case.attributes.get("largest", 1) if least is None else least
    key = x if least else -x
    if later_first:
        order = x.shape[-1] - 1 - np.argsort(key[..., ::-1], axis=-1, kind="stable")
    else:
        order = np.argsort(key, axis=-1, kind="stable")
    order = order[..., :k].astype(np.int64)
    if fewer and k > 1:
        order[..., -1] = order[..., -2]
    if rows:
        order[1:] = order[:1]
    return np.take_along_axis(x, order, axis=-1), order


def gather(case: Case, *, wrap: bool = True, axis: int | None = None, shift: int = 0, in_float: Any = None) -> Outputs:
    """Gather; negative indices count from the end."""
    x, i = _x(case), _x(case, 1)
    axis = int(case.attributes.get("axis", 0) if axis is None else axis)
    n = x.shape[axis]
    if in_float is not None:
        i = i.astype(in_float).astype(np.int64)
    i = np.where(i < 0, i + n, i) if wrap else np.maximum(i, 0)
    return (np.take(x, np.clip(i + shift, 0, n - 1), axis=axis),)


def gather_elements(case: Case, *, axis: int | None = None, wrap: bool = True) -> Outputs:
    """Along axis 1."""
    x, i = _x(case), _x(case, 1)
    i = np.where(i < 0, i + x.shape[1], i) if wrap else np.maximum(i, 0)
    if axis == 0:
        return (np.take_along_axis(x, np.clip(i, 0, x.shape[0] - 1), axis=0)[: i.shape[0]],)
    return (np.take_along_axis(x, i, axis=1),)


def scatter(case: Case, *, how: str = "", first: bool = False, shift: int = 0, dropped: bool = False) -> Outputs:
    """ScatterND of rows, with a reduction or none."""
    x, i, updates = _x(case).copy(), _x(case, 1)[:, 0], _x(case, 2)
    how = how or case.attributes.get("reduction", "none")
    rows = list(zip((i + shift) % len(x), updates, strict=True))
    rows = rows[::-1] if first else rows[:-1] if dropped else rows
    ways: dict[str, Callable[[Array, Array], Array]] = {
        "none": lambda _, u: u,
        "add": np.add,
        "mul": np.multiply,
        "max": np.maximum,
    }
    for row, update in rows:
        x[row] = ways[how](x[row], update)
    return (x,)


def slice_(case: Case, *, shift: int = 0, step: int | None = None, inclusive: bool = False) -> Outputs | None:
    """Along the last axis."""
    x, start, end, given = _x(case), *(int(_x(case, i)[0]) for i in (1, 2, 4))
    right = x[..., start:end:given]
    wrong = x[..., start + shift : end + shift + inclusive : given if step is None else step][..., : right.shape[-1]]
    return (wrong,) if wrong.shape == right.shape else None


def pad(case: Case, *, mode: str = "", swapped: bool = False, value: float | None = None) -> Outputs:
    """Around both axes."""
    x, pads, constant = _x(case), [int(n) for n in _x(case, 1)], _x(case, 2)
    pads = pads[2:] + pads[:2] if swapped else pads
    mode = mode or case.attributes.get("mode", "constant")
    around = [(pads[0], pads[2]), (pads[1], pads[3])]
    constant = constant if value is None else np.asarray(value, x.dtype)
    options: dict[str, Any] = {"constant_values": constant} if mode == "constant" else {}
    padded: Any = np.pad(x, around, mode=mode, **options)  # type: ignore[call-overload, arg-type]
    return (padded,)


def transpose(case: Case, *, inverse: bool = False) -> Outputs | None:
    """By `perm`."""
    perm = list(case.attributes["perm"])
    y = _x(case).transpose(np.argsort(perm) if inverse else perm)
    right = _x(case).transpose(perm)
    return (np.ascontiguousarray(y).reshape(right.shape),)


def concat(case: Case, *, swapped: bool = False, repeated: bool = False) -> Outputs:
    """Of two."""
    a, b = _x(case), _x(case, 1)
    parts = (b, a) if swapped else (a, a) if repeated else (a, b)
    return (np.concatenate(parts, axis=case.attributes["axis"]),)


def tile(case: Case, *, repeated: bool = False) -> Outputs:
    """Along the last axis."""
    x, n = _x(case), int(_x(case, 1)[-1])
    return (np.repeat(x, n, axis=-1) if repeated else np.tile(x, (1, n)),)


def depth(case: Case, *, other: bool = False) -> Outputs:
    """DepthToSpace in its two modes."""
    x, b = _x(case), case.attributes["blocksize"]
    N, C, H, W = x.shape
    if (case.attributes.get("mode", "DCR") == "CRD") != other:
        y = x.reshape(N, C // b**2, b, b, H, W).transpose(0, 1, 4, 2, 5, 3)
    else:
        y = x.reshape(N, b, b, C // b**2, H, W).transpose(0, 3, 4, 1, 5, 2)
    return (y.reshape(N, C // b**2, H * b, W * b),)


def space(case: Case, *, channels_first: bool = False) -> Outputs:
    """SpaceToDepth."""
    x, b = _x(case), case.attributes["blocksize"]
    N, C, H, W = x.shape
    y = x.reshape(N, C, H // b, b, W // b, b)
    y = y.transpose(0, 1, 3, 5, 2, 4) if channels_first else y.transpose(0, 3, 5, 1, 2, 4)
    return (y.reshape(N, C * b * b, H // b, W // b),)


def one_hot(case: Case, *, swapped: bool = False, wrap: bool = True) -> Outputs:
    """Along the last axis."""
    i, n, (off, on) = _x(case), int(_x(case, 1)), _x(case, 2)
    i = np.where(i < 0, i + n, i) if wrap else i
    hot = np.arange(n) == i[..., None]
    return (np.where(hot, off, on) if swapped else np.where(hot, on, off),)


def non_zero(case: Case, *, transposed: bool = False, positive: bool = False) -> Outputs:
    """Indices, one row per axis."""
    x = _x(case)
    found = np.stack(np.nonzero(x > 0 if positive else x)).astype(np.int64)
    return (np.ascontiguousarray(found.T).reshape(found.shape) if transposed else found,)


def trilu(case: Case, *, shift: int = 0, other: bool = False) -> Outputs:
    """The upper or lower triangle."""
    x, k = _x(case), int(_x(case, 1))
    upper = bool(case.attributes.get("upper", 1)) != other
    return (np.triu(x, k + shift) if upper else np.tril(x, k + shift),)


WAYS: dict[str, Callable[..., Outputs | None]] = {
    "ArgMax": arg,
    "ArgMin": arg,
    "TopK": top,
    "Gather": gather,
    "GatherElements": gather_elements,
    "ScatterND": scatter,
    "Slice": slice_,
    "Pad": pad,
    "Transpose": transpose,
    "Concat": concat,
    "Tile": tile,
    "DepthToSpace": depth,
    "SpaceToDepth": space,
    "OneHot": one_hot,
    "NonZero": non_zero,
    "Trilu": trilu,
}

FAULTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("the last of equal largest", "ArgMax", {"last": True}),
    ("the first of equal largest where the last is wanted", "ArgMax", {"last": False}),
    ("smallest in place of largest", "ArgMax", {"least": True}),
    ("largest in place of smallest", "ArgMin", {"least": False}),
    ("the last of equal smallest", "ArgMin", {"last": True}),
    ("the other axis", "ArgMax", {"axis": 0}),
    ("ties broken by the higher index", "TopK", {"later_first": True}),
    ("smallest for largest or the other way", "TopK", {"least": True}),
    ("the last of k repeated", "TopK", {"fewer": 1}),
    ("indices of the first row for all", "TopK", {"rows": True}),
    ("negative indices cut to zero", "Gather", {"wrap": False}),
    ("index off by one", "Gather", {"shift": 1}),
    ("index in float32", "Gather", {"in_float": np.float32}),
    ("index in float16", "Gather", {"in_float": np.float16}),
    ("gathered along the other axis", "GatherElements", {"axis": 0}),
    ("negative indices cut to zero", "GatherElements", {"wrap": False}),
    ("reduction ignored", "ScatterND", {"how": "none"}),
    ("added where it replaces", "ScatterND", {"how": "add"}),
    ("the first of equal indices wins", "ScatterND", {"first": True}),
    ("row off by one", "ScatterND", {"shift": 1}),
    ("last update dropped", "ScatterND", {"dropped": True}),
    ("start off by one", "Slice", {"shift": -1}),
    ("step ignored", "Slice", {"step": 1}),
    ("pads on the other side", "Pad", {"swapped": True}),
    ("value ignored", "Pad", {"value": 0.0}),
    ("reflected with the edge", "Pad", {"mode": "symmetric"}),
    ("edge in place of the value", "Pad", {"mode": "edge"}),
    ("inverse permutation", "Transpose", {"inverse": True}),
    ("inputs exchanged", "Concat", {"swapped": True}),
    ("first input twice", "Concat", {"repeated": True}),
    ("each element repeated", "Tile", {"repeated": True}),
    ("the other mode", "DepthToSpace", {"other": True}),
    ("channels before blocks", "SpaceToDepth", {"channels_first": True}),
    ("on and off exchanged", "OneHot", {"swapped": True}),
    ("negative classes left out", "OneHot", {"wrap": False}),
    ("indices transposed", "NonZero", {"transposed": True}),
    ("diagonal off by one", "Trilu", {"shift": 1}),
    ("the other triangle", "Trilu", {"other": True}),
)


def right(case: Case) -> Outputs | None:
    """By NumPy's indexing."""
    return WAYS[case.op_type](case)


def _by_loops(case: Case) -> Outputs | None:
    """ArgMax and TopK by comparing one after the other; nothing else has two ways."""
    if case.op_type != "ArgMax" or case.attributes["axis"] not in (1, -1):
        return None
    x, last = _x(case), case.attributes.get("select_last_index", 0)
    best = np.zeros((len(x), 1), np.int64)
    for j in range(1, x.shape[1]):
        held = np.take_along_axis(x, best, axis=1)
        better = x[:, j : j + 1] >= held if last else x[:, j : j + 1] > held
        best = np.where(better, j, best)
    return (best,)


def cases(quick: bool) -> Iterator[Case]:
    """Tensors of every kind, and indices with repetitions and from the end."""
    for kind, seed in itertools.product(KINDS, range(1 if quick else 3)):
        rng = np.random.default_rng(seed)
        for columns in (9, 16, 300):
            x = tensor(kind, (9, columns), seed)
            x[:, -1] = x[:, 0]  # ties
            if kind != "equal":
                x[:, [1, columns - 2]] = np.maximum(x.max(), 1)
            yield from _of_matrix(kind, x, seed, rng)
        yield from _of_images(kind, seed)
    long = (np.arange((1 << 24) + 64) % 251).astype(F)[:, None]  # float32 counts to 2^24
    yield Case("Gather", (long, np.arange(len(long) - 40, len(long))), {"axis": 0}, "signed", 1)


def _of_matrix(kind: str, x: Array, seed: int, rng: np.random.Generator) -> Iterator[Case]:
    rows, columns = x.shape
    signed = [rng.integers(-columns, columns, (rows, columns)), rng.integers(-columns, columns, 12)]
    yield Case("ArgMax", (x,), {"axis": 1, "select_last_index": seed % 2}, kind)
    yield Case("ArgMin", (x,), {"axis": 1}, kind)
    if kind != "wide":
        yield Case("ArgMax", (x.astype(np.float16),), {"axis": 1}, kind)
    yield Case("TopK", (x, np.array([5])), {"largest": 1 - seed % 2, "axis": -1}, kind)
    yield Case("Gather", (x, signed[1]), {"axis": 1}, kind)
    yield Case("GatherElements", (x, signed[0]), {"axis": 1}, kind)
    for reduction in ("none", "add", "max"):
        unique = rng.permutation(rows)[:6] if reduction == "none" else rng.integers(0, rows, 6)
        updates = tensor(kind, (6, columns), seed, 2)
        yield Case("ScatterND", (x, unique[:, None], updates), {"reduction": reduction}, kind, 6)
    yield Case("Slice", (x, *(np.array([n]) for n in (1, columns - 2, 1, 1 + seed % 2))), {}, kind)
    pads = np.array([1, 0, 2, 3])
    value = np.asarray(F(0.25))
    yield Case("Pad", (x, pads, value), {"mode": ("constant", "reflect", "edge")[seed % 3]}, kind)
    yield Case("Concat", (x, x[::-1].copy()), {"axis": seed % 2}, kind)
    yield Case("Tile", (x, np.array([1, 3])), {}, kind)
    yield Case("OneHot", (signed[1] % 7 - 3, np.array(7), np.array([0.5, 2], F)), {}, kind)
    yield Case("NonZero", (np.where(x > np.median(x), x, 0),), {}, kind)
    yield Case("Trilu", (x, np.array(seed % 3 - 1)), {"upper": seed % 2}, kind)


def _of_images(kind: str, seed: int) -> Iterator[Case]:
    x = tensor(kind, (2, 8, 4, 6), seed)
    yield Case("Transpose", (x,), {"perm": [2, 0, 3, 1]}, kind)
    yield Case("DepthToSpace", (x,), {"blocksize": 2, "mode": ("DCR", "CRD")[seed % 2]}, kind)
    yield Case("SpaceToDepth", (x,), {"blocksize": 2}, kind)


FAMILY = Family(
    "indexing and selection",
    cases,
    right,
    (Variant("one comparison after the other", _by_loops),),
    (
        *(
            Fault(name, (op_type,), lambda case, options=options: WAYS[case.op_type](case, **options))
            for name, op_type, options in FAULTS
        ),
        *tampered(right),
    ),
)
