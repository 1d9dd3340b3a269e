"""MaxPool, AveragePool, LpPool and the global ones, in float32 windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ...operators.scale import Array
from .case import Case, Family, Outputs, Variant, faults
from .data import KINDS, tensor
from .tampering import tampered
from .trials import stored
from .windows import windows

F = np.float32


@dataclass(frozen=True)
class Flaws:
    """What a faulty pooling does differently.

    Attributes:
        fill: padding of a max pool.
        begin: initial value of the running maximum.
        swap_pads: beginnings and ends exchanged.
        shift: the window starts so many columns late.
        less: the window lacks its last column.
        dilate: dilations are used.
        divisor: of an average: "" the right one, "all", "inside", "one more", "one less".
        combine: another reduction: "max", "mean", "sum", "min", "first".
        p: another norm.
        signed: powers of the values and not of their absolute values.
        root: the root of an Lp norm is drawn.
        channel_shift: results of the neighbouring channel.
        transposed: windows over the other spatial axis.
        partial: the last, partial window of ceil_mode is missing and reads zero.
        average_of_averages: rows first, each divided by its own number of elements inside.
    """

    fill: float = -math.inf
    begin: float | None = None
    swap_pads: bool = False
    shift: int = 0
    less: bool = False
    dilate: bool = True
    divisor: str = ""
    combine: str = ""
    p: float | None = None
    signed: bool = False
    root: bool = True
    channel_shift: int = 0
    transposed: bool = False
    partial: bool = True
    average_of_averages: bool = False


RIGHT = Flaws()


def _view(case: Case, flaws: Flaws, fill: float) -> tuple[Array, Array, Array]:
    """(windows (N, C, out…, taps), the same of ones inside the input, ones inside input or padding)."""
    x = np.asarray(case.inputs[0], F)
    given, rank = case.attributes, x.ndim - 2
    kernel = list(given["kernel_shape"])
    strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    pads = list(given.get("pads", [0] * 2 * rank))
    rounded = math.ceil if given.get("ceil_mode") else math.floor
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = list(zip(x.shape[2:], pads[:rank], pads[rank:], reach, strides, strict=True))
    out = [rounded((n + p + q - r) / s) + 1 for n, p, q, r, s in sizes]
    out = [o - ((o - 1) * s >= n + p) for o, (n, p, _, _, s) in zip(out, sizes, strict=True)]  # starts beyond the input
    beyond = [max((o - 1) * s + r - n - p - q, 0) for o, (n, p, q, r, s) in zip(out, sizes, strict=True)]
    if flaws.swap_pads:
        pads = pads[rank:] + pads[:rank]
    if not flaws.dilate:
        dilations = [1] * rank

    def gathered(values: Array, inner: float, outer: float) -> Array:
        around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        wide = np.pad(np.pad(values, around, constant_values=inner), _after(rank, beyond), constant_values=outer)
        if flaws.shift:
            wide = np.roll(wide, -flaws.shift, axis=-1)
            wide[..., -flaws.shift :] = outer
        if flaws.transposed and wide.shape[-1] == wide.shape[-2]:
            wide = wide.swapaxes(-1, -2)
        view = windows(wide, kernel, strides, dilations)[(slice(None), slice(None), *(slice(0, o) for o in out))]
        if flaws.less:
            view = view[..., :-1]
        return view.reshape(*view.shape[: 2 + rank], -1)

    one = np.ones_like(x[:1, :1])
    return gathered(x, fill, fill), gathered(one, 0, 0), gathered(one, 1, 0)


def _after(rank: int, beyond: Sequence[int]) -> list[tuple[int, int]]:
    return [(0, 0), (0, 0), *((0, n) for n in beyond)]


def _global(case: Case) -> Case:
    """A global pool as a pool whose window is the image."""
    x = np.asarray(case.inputs[0])
    local = case.op_type.removeprefix("Global")
    return Case(local, case.inputs, {**case.attributes, "kernel_shape": list(x.shape[2:])}, case.kind, case.size)


def pool(case: Case, flaws: Flaws = RIGHT, *, loop: bool = False) -> Outputs | None:
    """Any of the pools, in float32; with `loop`, one element after the other."""
    local = _global(case) if case.op_type.startswith("Global") else case
    compute = {"MaxPool": _max, "AveragePool": _average, "LpPool": _norm}[local.op_type]
    if loop and (local.op_type == "MaxPool" or math.prod(local.attributes["kernel_shape"]) > MOST_TAPS):
        return None
    y = compute(local, flaws, loop)
    if flaws.channel_shift:
        y = np.roll(y, flaws.channel_shift, axis=1)
    if not flaws.partial:
        if not case.attributes.get("ceil_mode"):
            return None
        y = y.copy()
        y[..., -1] = 0
    x = np.asarray(case.inputs[0])
    return (stored(y.astype(F), x),)


MOST_TAPS = 1 << 15


def _max(case: Case, flaws: Flaws, loop: bool) -> Array:
    view, inside, _ = _view(case, flaws, flaws.fill)
    if flaws.combine:
        return _combined(np.where(inside > 0, view, 0), flaws.combine)
    y = view.max(axis=-1)
    return y if flaws.begin is None else np.maximum(y, F(flaws.begin))


def _combined(view: Array, how: str) -> Array:
    ways = {"max": view.max, "mean": view.mean, "sum": view.sum, "min": view.min}
    return view[..., 0] if how == "first" else ways[how](axis=-1)


def _average(case: Case, flaws: Flaws, loop: bool) -> Array:
    view, inside, on_padding = _view(case, flaws, 0.0)
    if flaws.combine:
        return _combined(view, flaws.combine)
    include = bool(case.attributes.get("count_include_pad", 0))
    counted = {"": on_padding if include else inside, "other": inside if include else on_padding}
    taps = math.prod(case.attributes["kernel_shape"])
    divisor = counted[flaws.divisor].sum(axis=-1) if flaws.divisor in counted else np.asarray(F(taps))
    divisor = divisor + {"one more": 1, "one less": -1}.get(flaws.divisor, 0)
    if flaws.average_of_averages:
        last = case.attributes["kernel_shape"][-1]
        rows, ones = (t.reshape(*t.shape[:-1], -1, last) for t in (view, counted[""]))
        means = rows.sum(axis=-1) / np.maximum(ones.sum(axis=-1), 1)
        return means.sum(axis=-1) / np.maximum((ones.sum(axis=-1) > 0).sum(axis=-1), 1)
    total = np.add.accumulate(view, axis=-1)[..., -1] if loop else view.sum(axis=-1)
    return total / np.maximum(divisor, F(1)).astype(F)


def _norm(case: Case, flaws: Flaws, loop: bool) -> Array:
    view, _, _ = _view(case, flaws, 0.0)
    p = F(case.attributes.get("p", 2) if flaws.p is None else flaws.p)
    powers = (view if flaws.signed else np.abs(view)) ** p
    total = np.add.accumulate(powers, axis=-1)[..., -1] if loop else powers.sum(axis=-1)
    return total ** (F(1) / p) if flaws.root else total


MAX, AVERAGE, LP = ("MaxPool", "GlobalMaxPool"), ("AveragePool", "GlobalAveragePool"), ("LpPool", "GlobalLpPool")
LOCAL = ("MaxPool", "AveragePool", "LpPool")
EVERY = (*MAX, *AVERAGE, *LP)

FAULTS: tuple[tuple[Any, ...], ...] = (
    ("padding of zeros in a maximum", MAX, {"fill": 0.0}),
    ("running maximum begins at zero", MAX, {"begin": 0.0}),
    ("running maximum begins at the smallest normal number", MAX, {"begin": float(np.finfo(F).tiny)}),
    ("average in place of the maximum", MAX, {"combine": "mean"}),
    ("minimum in place of the maximum", MAX, {"combine": "min"}),
    ("first element in place of the maximum", MAX, {"combine": "first"}),
    ("pads on the other side", LOCAL, {"swap_pads": True}),
    ("window off by one", LOCAL, {"shift": 1}),
    ("window off by two", LOCAL, {"shift": 2}),
    ("window lacks its last column", EVERY, {"less": True}),
    ("dilations ignored", LOCAL, {"dilate": False}),
    ("window over the other axis", LOCAL, {"transposed": True}),
    ("count_include_pad turned round", "AveragePool", {"divisor": "other"}),
    ("divided by the whole window", "AveragePool", {"divisor": "all"}),
    ("divided by one more", AVERAGE, {"divisor": "one more"}),
    ("divided by one less", AVERAGE, {"divisor": "one less"}),
    ("average of the rows' averages", "AveragePool", {"average_of_averages": True}),
    ("maximum in place of the average", AVERAGE, {"combine": "max"}),
    ("sum in place of the average", AVERAGE, {"combine": "sum"}),
    ("p ignored", LP, {"p": 1.0}),
    ("powers of signed values", LP, {"signed": True}),
    ("root left out", LP, {"root": False}),
    ("results of the neighbouring channel", EVERY, {"channel_shift": 1}),
    ("last window of ceil_mode not computed", LOCAL, {"partial": False}),
)


def faulty(case: Case, **flaws: Any) -> Outputs | None:
    """A pool with one flaw."""
    return pool(case, Flaws(**flaws))


FORMS: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((1, 4, 12, 12), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((2, 3, 11, 9), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1}),
    ((1, 3, 14, 14), {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ((1, 5, 31), {"kernel_shape": [5], "strides": [3], "pads": [2, 2]}),
    ((1, 2, 6, 6, 6), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
    ((1, 2, 40, 40), {"kernel_shape": [24, 24], "strides": [8, 8]}),
)
GLOBAL = ((2, 3, 7, 7), (1, 4, 32, 32), (1, 3, 112, 112), (1, 2, 25088))


def cases(quick: bool) -> Iterator[Case]:
    """Pools of several shapes on every kind of data."""
    for kind, seed in itertools.product(KINDS, range(1 if quick else 2)):
        for shape, attributes in FORMS[:3] if quick else FORMS:
            yield from _local(kind, seed, shape, attributes)
        for shape in GLOBAL[:1] if quick else GLOBAL:
            x = tensor(kind, shape, seed)
            for op_type in ("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"):
                yield Case(op_type, (x,), {}, kind, math.prod(shape[2:]))


def _local(kind: str, seed: int, shape: tuple[int, ...], attributes: dict[str, Any]) -> Iterator[Case]:
    x, taps = tensor(kind, shape, seed), math.prod(attributes["kernel_shape"])
    padded_too = {"pads", "ceil_mode"} & set(attributes)
    yield Case("MaxPool", (x,), attributes, kind, taps)
    if kind != "wide":
        yield Case("MaxPool", (x.astype(np.float16),), attributes, kind, taps)
    for include in (0, 1) if padded_too else (0,):
        yield Case("AveragePool", (x,), {**attributes, "count_include_pad": include}, kind, taps)
        if kind != "wide":
            half = x.astype(ml_dtypes.bfloat16)
            yield Case("AveragePool", (half,), {**attributes, "count_include_pad": include}, kind, taps)
    if not attributes.get("ceil_mode"):
        plain = {name: value for name, value in attributes.items() if name != "dilations"}
        yield Case("LpPool", (x,), {**plain, "p": 2 + seed % 2}, kind, taps)


FAMILY = Family(
    "pooling",
    cases,
    pool,
    (Variant("sequential sums", lambda case: pool(case, loop=True)),),
    (*faults(faulty, *FAULTS), *tampered(pool)),
)
