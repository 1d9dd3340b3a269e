"""Layer, RMS, group, instance and batch normalisation, LRN, Lp and mean-variance normalisation in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...operators.scale import Array
from .case import Case, Family, Outputs, Variant, faults
from .data import KINDS, lengths, tensor
from .narrow import NARROW
from .tampering import tampered
from .trials import stored

F = np.float32
EPSILON = 1e-5


@dataclass(frozen=True)
class Flaws:
    """What a faulty normalisation does differently.

    Attributes:
        epsilon: another one, None the given one.
        outside: epsilon is added to the root and not under it.
        less: taken off the number of elements that the variance is divided by.
        centred: the mean is subtracted.
        gain, shift: the affine part is applied so many times (0, 1) or with "+1" (gain of 1 + scale).
        shift_first: shift before gain.
        neighbour: gain and shift of the next channel.
        groups: another number of groups.
        axis: another axis.
        dropped: so many elements are missing in the statistics.
        squared: divided by the variance and not by its root.
        mean_of_squares: E[x²] is not made less by the mean.
        narrow: the type in which statistics are kept.
        rows_mixed: statistics of the row before.
        swapped_statistics: BatchNormalization's mean and variance exchanged.
        alpha, beta, bias, window: of LRN, else the given ones.
        divided: LRN divides alpha by the size.
    """

    epsilon: float | None = None
    outside: bool = False
    less: int = 0
    centred: bool = True
    gain: int = 1
    plus_one: bool = False
    shift: int = 1
    shift_first: bool = False
    neighbour: bool = False
    groups: int | None = None
    axis: int | None = None
    dropped: int = 0
    squared: bool = False
    mean_of_squares: bool = False
    narrow: str = ""
    rows_mixed: bool = False
    swapped_statistics: bool = False
    alpha: float | None = None
    beta: float | None = None
    bias: float | None = None
    window: int = 0
    divided: bool = True


RIGHT = Flaws()
Sum = Callable[[Array], Array]


def tree(x: Array) -> Array:
    """NumPy's pairwise sum over the last axis."""
    return x.sum(axis=-1, keepdims=True)


def loop(x: Array) -> Array:
    """One after the other."""
    return np.add.accumulate(x, axis=-1)[..., -1:]


def reverse(x: Array) -> Array:
    """One after the other from the end."""
    return loop(x[..., ::-1])


def lanes(x: Array) -> Array:
    """Eight side by side."""
    padded = np.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, -x.shape[-1] % 8)])
    return loop(np.add.accumulate(padded.reshape(*x.shape[:-1], -1, 8), axis=-2)[..., -1, :])


def wide(x: Array) -> Array:
    """In float64, rounded once."""
    return x.sum(axis=-1, keepdims=True, dtype=np.float64).astype(F)


SUMS: Mapping[str, Sum] = {"pairwise": tree, "sequential": loop, "backwards": reverse, "lanes": lanes, "float64": wide}


def standardized(x: Array, epsilon: float, flaws: Flaws, total: Sum, one_pass: bool) -> Array:
    """(…, N) by its own mean and variance."""
    given = x
    if flaws.dropped:
        x = x[..., : -flaws.dropped] if x.shape[-1] > flaws.dropped else x
    n = F(x.shape[-1])
    mean = total(x) / n if flaws.centred else np.zeros((*x.shape[:-1], 1), F)
    divisor = F(max(x.shape[-1] - flaws.less, 1))
    if one_pass:
        variance = np.maximum(total(x * x) / n - mean * mean, F(0)) * (n / divisor)
    else:
        centred = x if flaws.mean_of_squares else x - mean
        variance = total(centred * centred) / divisor
    if flaws.narrow:
        mean, variance = NARROW[flaws.narrow](mean), NARROW[flaws.narrow](variance)
    if flaws.rows_mixed:
        mean, variance = (np.roll(t.reshape(-1), 1).reshape(t.shape) for t in (mean, variance))
    return (given - mean) * _inverse(variance, epsilon, flaws)


def _inverse(variance: Array, epsilon: float, flaws: Flaws) -> Array:
    e = F(epsilon if flaws.epsilon is None else flaws.epsilon)
    if flaws.outside:
        return F(1) / (np.sqrt(variance) + e)
    return F(1) / (variance + e) if flaws.squared else F(1) / np.sqrt(variance + e)


def affine(y: Array, w: Array | None, b: Array | None, flaws: Flaws) -> Array:
    """Gain and shift, broadcast already."""
    if w is not None:
        w = w + 1 if flaws.plus_one else w if flaws.gain else np.ones_like(w)
        w = w**flaws.gain if flaws.gain > 1 else w
    b = None if b is None else b * F(flaws.shift)
    if flaws.shift_first and b is not None:
        return (y + b) * w
    y = y if w is None else y * w
    return y if b is None else y + b


def normalize(case: Case, flaws: Flaws = RIGHT, total: Sum = tree, *, one_pass: bool = False) -> Outputs | None:
    """Any of the normalisations in float32."""
    y = WAYS[case.op_type](case, flaws, total, one_pass)
    x: Any = case.inputs[0]
    return None if y is None else (stored(np.asarray(y, F), x),)


def _inputs(case: Case, flaws: Flaws) -> list[Any]:
    x, *rest = [None if t is None else t.astype(F) for t in case.inputs]
    if flaws.neighbour:
        rest = [None if t is None else np.roll(t, 1, axis=-1) for t in rest]
    return [x, *rest, None, None][:3]


def _layer(case: Case, flaws: Flaws, total: Sum, one_pass: bool) -> Array | None:
    x, w, b = _inputs(case, flaws)
    if case.op_type == "RMSNormalization" and not flaws.mean_of_squares:
        flaws = _with(flaws, centred=not flaws.centred)  # its one fault here is to subtract the mean
    if flaws.axis is not None:
        y = standardized(x.swapaxes(-1, flaws.axis), EPSILON, flaws, total, one_pass).swapaxes(-1, flaws.axis)
    else:
        y = standardized(x, case.attributes.get("epsilon", EPSILON), flaws, total, one_pass)
    return affine(y, w, b, flaws)


def _with(flaws: Flaws, **changes: Any) -> Flaws:
    return Flaws(**{**flaws.__dict__, **changes})


def _grouped(case: Case, flaws: Flaws, total: Sum, one_pass: bool) -> Array | None:
    x, w, b = _inputs(case, flaws)
    N, C = x.shape[:2]
    groups = C if case.op_type == "InstanceNormalization" else case.attributes["num_groups"]
    groups = groups if flaws.groups is None else flaws.groups
    if C % groups:
        return None
    spatial = [1] * (x.ndim - 2)
    y = standardized(x.reshape(N, groups, -1), case.attributes.get("epsilon", EPSILON), flaws, total, one_pass)
    return affine(y.reshape(x.shape), w.reshape(C, *spatial), b.reshape(C, *spatial), flaws)


def _batch(case: Case, flaws: Flaws, total: Sum, one_pass: bool) -> Array | None:
    if total is not tree:
        return None
    x, w, b, mean, variance = (np.asarray(t, F) for t in case.inputs)
    if flaws.neighbour:
        w, b = np.roll(w, 1), np.roll(b, 1)
    if flaws.rows_mixed:
        mean, variance = np.roll(mean, 1), np.roll(variance, 1)
    if flaws.swapped_statistics:
        mean, variance = variance, np.abs(mean)
    if flaws.narrow:
        mean, variance = NARROW[flaws.narrow](mean), NARROW[flaws.narrow](variance)
    mean = mean if flaws.centred else 0 * mean
    form = (-1, *[1] * (x.ndim - 2))
    inverse = _inverse(variance, case.attributes.get("epsilon", EPSILON), flaws)
    w, b, mean, inverse = (t.reshape(form) for t in (w, b, mean, inverse))
    if one_pass and flaws == RIGHT:  # folded into one multiplication and one addition
        return x * (w * inverse) + (b - mean * (w * inverse))
    return affine((x - mean) * inverse, w, b, flaws)


def _mean_variance(case: Case, flaws: Flaws, total: Sum, one_pass: bool) -> Array | None:
    x, _, _ = _inputs(case, flaws)
    moved = np.moveaxis(x, 1, 0)
    flat = np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    y = standardized(flat, 1e-9, _with(flaws, outside=not flaws.outside), total, False)
    return np.moveaxis(y.reshape(moved.shape), 0, 1)


def _lp(case: Case, flaws: Flaws, total: Sum, one_pass: bool) -> Array | None:
    x, _, _ = _inputs(case, flaws)
    axis = flaws.axis if flaws.axis is not None else -1
    x = x.swapaxes(-1, axis)
    taken = x[..., : -flaws.dropped] if flaws.dropped else x
    p = case.attributes.get("p", 2)
    norm = total(np.abs(taken)) if p == 1 else total(taken * taken)
    norm = np.sqrt(norm) if p != 1 and not flaws.squared else norm
    if flaws.narrow:
        norm = NARROW[flaws.narrow](norm)
    if flaws.rows_mixed:
        norm = np.roll(norm.reshape(-1), 1).reshape(norm.shape)
    return (x / norm).swapaxes(-1, axis)


def _lrn(case: Case, flaws: Flaws, total: Sum, one_pass: bool) -> Array | None:
    x, _, _ = _inputs(case, flaws)
    given, size = case.attributes, case.attributes["size"] + flaws.window
    alpha = F(given.get("alpha", 1e-4) if flaws.alpha is None else flaws.alpha)
    beta = F(given.get("beta", 0.75) if flaws.beta is None else flaws.beta)
    bias = F(given.get("bias", 1.0) if flaws.bias is None else flaws.bias)
    before = (size - 1) // 2
    around = [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)]
    view = np.lib.stride_tricks.sliding_window_view(np.pad(x * x, around), size, axis=1)
    squares = total(np.ascontiguousarray(view))[..., 0]
    return x / (bias + (alpha / F(size) if flaws.divided else alpha) * squares) ** beta


WAYS: Mapping[str, Callable[[Case, Flaws, Sum, bool], Array | None]] = {
    "LayerNormalization": _layer,
    "RMSNormalization": _layer,
    "GroupNormalization": _grouped,
    "InstanceNormalization": _grouped,
    "BatchNormalization": _batch,
    "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": _lp,
    "LRN": _lrn,
}

OWN = ("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization")
AFFINE = (*OWN, "BatchNormalization")
CENTRED = ("LayerNormalization", "GroupNormalization", "InstanceNormalization")
SHIFTED = (*CENTRED, "BatchNormalization")

FAULTS: tuple[tuple[Any, ...], ...] = (
    ("epsilon outside the root", AFFINE, {"outside": True}),
    ("no epsilon", AFFINE, {"epsilon": 0.0}),
    ("epsilon 1e-3", AFFINE, {"epsilon": 1e-3}),
    ("epsilon 1e-6", AFFINE, {"epsilon": 1e-6}),
    ("epsilon 1e-12", AFFINE, {"epsilon": 1e-12}),
    ("unbiased variance", (*CENTRED, "MeanVarianceNormalization"), {"less": 1}),
    ("mean not subtracted", SHIFTED, {"centred": False}),
    ("mean subtracted", "RMSNormalization", {"centred": False}),
    ("mean square in place of the variance", (*CENTRED, "MeanVarianceNormalization"), {"mean_of_squares": True}),
    ("divided by the variance", (*AFFINE, "LpNormalization"), {"squared": True}),
    ("gain left out", AFFINE, {"gain": 0}),
    ("gain applied twice", AFFINE, {"gain": 2}),
    ("gain of one more", AFFINE, {"plus_one": True}),
    ("shift left out", SHIFTED, {"shift": 0}),
    ("shift added twice", SHIFTED, {"shift": 2}),
    ("shift before gain", SHIFTED, {"shift_first": True}),
    ("gain and shift of the next channel", AFFINE, {"neighbour": True}),
    ("one group", "GroupNormalization", {"groups": 1}),
    ("a group per channel", "GroupNormalization", {"groups": 8}),
    ("statistics of the other axis", ("LayerNormalization", "RMSNormalization", "LpNormalization"), {"axis": 0}),
    ("last element not in the statistics", (*OWN, "MeanVarianceNormalization", "LpNormalization"), {"dropped": 1}),
    ("last 16 elements not in the statistics", OWN, {"dropped": 16}),
    ("statistics in float16", (*AFFINE, "LpNormalization"), {"narrow": "FP16"}),
    ("statistics in bfloat16", (*AFFINE, "LpNormalization"), {"narrow": "BF16"}),
    ("statistics of the row before", (*AFFINE, "LpNormalization"), {"rows_mixed": True}),
    ("mean and variance exchanged", "BatchNormalization", {"swapped_statistics": True}),
    ("alpha not divided by the size", "LRN", {"divided": False}),
    ("alpha ignored", "LRN", {"alpha": 1e-4}),
    ("beta ignored", "LRN", {"beta": 0.75}),
    ("bias ignored", "LRN", {"bias": 1.0}),
    ("window of two channels more", "LRN", {"window": 2}),
)


def faulty(case: Case, **flaws: Any) -> Outputs | None:
    """A normalisation with one flaw."""
    return normalize(case, Flaws(**flaws))


def cases(quick: bool) -> Iterator[Case]:
    """Rows of every length, of size one, as small as epsilon, and large."""
    for kind in KINDS:
        for number, length in enumerate(lengths(quick, least=4)):
            yield from _of_length(kind, length, 0 if quick else number % 3)


def _of_length(kind: str, length: int, seed: int) -> Iterator[Case]:
    rng = np.random.default_rng([seed, length])
    level = F((1.0, 0.01, 30.0)[seed % 3])
    x = tensor(kind, (4, length), seed) * level
    w, b = (1 + 0.1 * rng.standard_normal(length)).astype(F), (0.1 * rng.standard_normal(length)).astype(F)
    yield Case("LayerNormalization", (x, w, b), {}, kind, length)
    yield Case("RMSNormalization", (x, w), {}, kind, length)
    if kind != "wide" and seed == 0:
        half = tuple(t.astype(np.float16) for t in (x, w, b))
        yield Case("LayerNormalization", half, {}, kind, length)
    yield Case("LpNormalization", (x,), {"p": 2 - seed % 2}, kind, length)
    image = tensor(kind, (2, 8, math.ceil(length / 4)), seed, 1) * level
    w, b = (1 + 0.1 * rng.standard_normal(8)).astype(F), (0.1 * rng.standard_normal(8)).astype(F)
    yield Case("GroupNormalization", (image, w, b), {"num_groups": 2}, kind, length)
    yield Case("InstanceNormalization", (image, w, b), {}, kind, math.ceil(length / 4))
    mean, variance = rng.standard_normal(8).astype(F) * level, (rng.uniform(0.2, 2, 8).astype(F) * level**2)
    yield Case("BatchNormalization", (image, w, b, mean, variance), {}, kind, 1)
    if length <= 1024:
        yield Case("MeanVarianceNormalization", (image[..., None],), {}, kind, length)
        options = {"size": 3 + 2 * (seed % 2), "alpha": 0.1, "beta": 0.5, "bias": 2.0}
        yield Case("LRN", (image[..., None],), options, kind, options["size"])


FAMILY = Family(
    "normalisation",
    cases,
    normalize,
    (
        *(
            Variant(f"{name} sums", lambda case, total=total: normalize(case, RIGHT, total))
            for name, total in SUMS.items()
            if total is not tree
        ),
        *(
            Variant(f"one pass, {name} sums", lambda case, total=total: normalize(case, RIGHT, total, one_pass=True))
            for name, total in SUMS.items()
        ),
    ),
    (*faults(faulty, *FAULTS), *tampered(normalize)),
)
