"""The reductions and the cumulative sum, in float32 and int64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ...operators.scale import Array
from .case import Case, Family, Outputs, Variant, faults
from .data import KINDS, lengths, tensor
from .narrow import NARROW
from .normalization import SUMS, Sum, tree
from .tampering import tampered
from .trials import stored

F = np.float32


@dataclass(frozen=True)
class Flaws:
    """What a faulty reduction does differently.

    Attributes:
        axis: another one.
        dropped, twice: the last element is missing, or counted twice.
        remainder: what is left over of a vector of 4 is missing.
        less: taken off the number that a mean divides by.
        instead: another reduction.
        signed: an L1 norm of the values themselves.
        begin: the value that a maximum, minimum or product begins with.
        nan_dropped: NaN loses every comparison.
        narrow: inputs in a narrow type.
        accumulator: partial sums in a narrow type.
        in_float32: integers added in float32.
        in_int32: integers added in 32 bits.
        unshifted: the log of a sum of exponentials without its shift.
        exclusive, reverse: turned round, for CumSum.
        restart: a cumulative sum begins anew every 16 elements.
    """

    axis: int | None = None
    dropped: bool = False
    twice: bool = False
    remainder: bool = False
    less: int = 0
    instead: str = ""
    signed: bool = False
    begin: float | None = None
    nan_dropped: bool = False
    narrow: str = ""
    accumulator: str = ""
    in_float32: bool = False
    in_int32: bool = False
    unshifted: bool = False
    exclusive: bool = False
    reverse: bool = False
    restart: bool = False


RIGHT = Flaws()


def _mean(x: Array, total: Sum, flaws: Flaws) -> Array:
    return total(x) / x.dtype.type(max(x.shape[-1] - flaws.less, 1))


def _log_sum_exp(x: Array, total: Sum, flaws: Flaws) -> Array:
    peak = x.max(axis=-1, keepdims=True) if not flaws.unshifted else F(0)
    return np.log(total(np.exp(x - peak))) + peak


def _largest(x: Array, _total: Sum, flaws: Flaws) -> Array:
    y = np.fmax.reduce(x, axis=-1, keepdims=True) if flaws.nan_dropped else x.max(axis=-1, keepdims=True)
    return y if flaws.begin is None else np.maximum(y, F(flaws.begin))


def _smallest(x: Array, _total: Sum, flaws: Flaws) -> Array:
    y = np.fmin.reduce(x, axis=-1, keepdims=True) if flaws.nan_dropped else x.min(axis=-1, keepdims=True)
    return y if flaws.begin is None else np.minimum(y, F(flaws.begin))


def _product(x: Array, _total: Sum, flaws: Flaws) -> Array:
    y = np.multiply.accumulate(x, axis=-1)[..., -1:]
    return y if flaws.begin is None else y * F(flaws.begin)


Reduce = Callable[[Array, Sum, Flaws], Array]

REDUCTIONS: Mapping[str, Reduce] = {
    "ReduceSum": lambda x, total, _: total(x),
    "ReduceMean": _mean,
    "ReduceL1": lambda x, total, flaws: total(x if flaws.signed else np.abs(x)),
    "ReduceL2": lambda x, total, _: np.sqrt(total(x * x)),
    "ReduceSumSquare": lambda x, total, _: total(x * x),
    "ReduceLogSum": lambda x, total, _: np.log(total(x)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _largest,
    "ReduceMin": _smallest,
    "ReduceProd": _product,
}


def _narrow_sum(name: str) -> Sum:
    narrow = NARROW[name]

    def total(x: Array) -> Array:
        y = np.zeros((*x.shape[:-1], 1), F)
        for k in range(x.shape[-1]):
            y = narrow(y + x[..., k : k + 1])
        return y

    return total


def reduce(case: Case, flaws: Flaws = RIGHT, total: Sum = tree) -> Outputs | None:
    """Any of the reductions over the last axis, kept; or a cumulative sum along it."""
    given = np.asarray(case.inputs[0])
    x = given if given.dtype == np.int64 else given.astype(F)
    if case.op_type == "CumSum":
        return None if total not in (tree, SUMS["sequential"]) else (_cumulated(x, case, flaws),)
    x = _changed(x, flaws)
    if x is None or (flaws.accumulator and x.shape[-1] > LONGEST_LOOP):
        return None
    if x.dtype == np.int64:
        return _integers(x, case, flaws, total)
    op_type = flaws.instead or case.op_type
    y = REDUCTIONS[op_type](x, _narrow_sum(flaws.accumulator) if flaws.accumulator else total, flaws)
    return (stored(np.asarray(y, F), given),)


LONGEST_LOOP = 5000


def _changed(x: Array, flaws: Flaws) -> Array | None:
    if flaws.axis is not None:
        if x.shape[0] != x.shape[1]:
            return None
        x = x.swapaxes(0, 1)
    K = x.shape[-1]
    if flaws.dropped or flaws.remainder:
        kept = K - 1 if flaws.dropped else K - K % 4
        x = x[..., :kept] if 0 < kept < K else x
    if flaws.twice:
        x = np.concatenate([x, x[..., -1:]], axis=-1)
    return NARROW[flaws.narrow](x) if flaws.narrow and x.dtype == F else x


def _integers(x: Array, case: Case, flaws: Flaws, total: Sum) -> Outputs | None:
    if total is not tree or case.op_type not in ("ReduceSum", "ReduceMax"):
        return None
    if case.op_type == "ReduceMax":
        return (x.max(axis=-1, keepdims=True),)
    if flaws.in_float32:
        return (x.astype(F).sum(axis=-1, keepdims=True).astype(np.int64),)
    if flaws.in_int32:
        return (x.astype(np.int32).sum(axis=-1, keepdims=True, dtype=np.int32).astype(np.int64),)
    return (x.sum(axis=-1, keepdims=True),)


def _cumulated(x: Array, case: Case, flaws: Flaws) -> Array:
    exclusive = bool(case.attributes.get("exclusive", 0)) != flaws.exclusive
    reverse = bool(case.attributes.get("reverse", 0)) != flaws.reverse
    x = x[..., ::-1] if reverse else x
    y = np.add.accumulate(x, axis=-1)
    if flaws.restart:
        parts = [np.add.accumulate(x[..., i : i + 16], axis=-1) for i in range(0, x.shape[-1], 16)]
        y = np.concatenate(parts, axis=-1)
    if flaws.narrow:
        y = NARROW[flaws.narrow](y)
    if exclusive:
        y = np.concatenate([np.zeros_like(y[..., :1]), y[..., :-1]], axis=-1)
    return np.ascontiguousarray(y[..., ::-1] if reverse else y)


SUMMED = ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
EVERY = tuple(REDUCTIONS)

FAULTS: tuple[tuple[Any, ...], ...] = (
    ("reduced along the other axis", EVERY, {"axis": 0}),
    ("last element dropped", EVERY, {"dropped": True}),
    ("last element twice", SUMMED, {"twice": True}),
    ("remainder of a vector dropped", EVERY, {"remainder": True}),
    ("mean divided by one less", "ReduceMean", {"less": 1}),
    ("mean divided by one more", "ReduceMean", {"less": -1}),
    ("sum in place of the mean", "ReduceMean", {"instead": "ReduceSum"}),
    ("maximum in place of the sum", SUMMED, {"instead": "ReduceMax"}),
    ("minimum and maximum exchanged", "ReduceMax", {"instead": "ReduceMin"}),
    ("squares in place of the norm", "ReduceL2", {"instead": "ReduceSumSquare"}),
    ("values in place of absolute values", "ReduceL1", {"signed": True}),
    ("running maximum begins at zero", "ReduceMax", {"begin": 0.0}),
    ("running minimum begins at zero", "ReduceMin", {"begin": 0.0}),
    ("running product begins at zero", "ReduceProd", {"begin": 0.0}),
    ("NaN dropped in a maximum", "ReduceMax", {"nan_dropped": True}),
    ("NaN dropped in a minimum", "ReduceMin", {"nan_dropped": True}),
    ("inputs in float16", EVERY, {"narrow": "FP16"}),
    ("inputs in bfloat16", EVERY, {"narrow": "BF16"}),
    ("inputs in TF32", EVERY, {"narrow": "TF32"}),
    ("accumulated in float16", SUMMED, {"accumulator": "FP16"}),
    ("accumulated in bfloat16", SUMMED, {"accumulator": "BF16"}),
    ("accumulated in TF32", SUMMED, {"accumulator": "TF32"}),
    ("int64 added in float32", "ReduceSum", {"in_float32": True}),
    ("int64 added in int32", "ReduceSum", {"in_int32": True}),
    ("exponentials without their shift", "ReduceLogSumExp", {"unshifted": True}),
    ("exclusive turned round", "CumSum", {"exclusive": True}),
    ("reverse turned round", "CumSum", {"reverse": True}),
    ("cumulative sum begins anew every 16", "CumSum", {"restart": True}),
    ("cumulative sum in bfloat16", "CumSum", {"narrow": "BF16"}),
)


def faulty(case: Case, **flaws: Any) -> Outputs | None:
    """A reduction with one flaw."""
    return reduce(case, Flaws(**flaws))


def cases(quick: bool) -> Iterator[Case]:
    """Rows of every length on every kind of data; long integers; a row with NaN."""
    for kind in KINDS:
        for number, length in enumerate(lengths(quick)):
            yield from _of_length(kind, length, 0 if quick else number % 2)


def _of_length(kind: str, length: int, seed: int) -> Iterator[Case]:
    x, axes = tensor(kind, (6, length), seed), np.array([-1])
    if length == 16:
        x = tensor(kind, (16, 16), seed)
    for op_type in REDUCTIONS:
        values = np.abs(x) if op_type == "ReduceLogSum" else x
        if op_type == "ReduceProd":
            values = np.exp2(np.clip(x, -1, 1) / np.sqrt(length)).astype(F)
        yield Case(op_type, (values, axes), {}, kind, length)
    if seed == 0:
        for dtype in (np.float16, ml_dtypes.bfloat16) if kind != "wide" else ():
            yield Case("ReduceMean", (x.astype(dtype), axes), {}, kind, length)
            yield Case("ReduceSum", (x.astype(dtype), axes), {}, kind, length)
        poisoned = x.copy()
        poisoned[0, -1] = np.nan
        yield Case("ReduceMax", (poisoned, axes), {}, kind, length)
        yield Case("ReduceMin", (poisoned, axes), {}, kind, length)
        whole = np.rint(np.clip(x, -1e6, 1e6) * 1e6).astype(np.int64) * 1001
        yield Case("ReduceSum", (whole, axes), {}, kind, length)
    if length <= 4608:
        options = {"exclusive": seed % 2, "reverse": 1 - seed % 2}
        yield Case("CumSum", (x, np.array(-1)), options, kind, length)


FAMILY = Family(
    "reductions",
    cases,
    reduce,
    tuple(
        Variant(f"{name} sums", lambda case, total=total: reduce(case, RIGHT, total))
        for name, total in SUMS.items()
        if total is not tree
    ),
    (*faults(faulty, *FAULTS), *tampered(reduce)),
)
