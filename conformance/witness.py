"""A second witness for borderline values: the same sums, made in float32 in several orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..operators.evaluation import Call
from ..operators.plain import plain_outputs
from ..operators.rounding import growth, half_unit
from ..operators.scale import Array, Rule, Scale
from ..operators.storage import FloatFormat, encode, float_format
from .sharing import own_deviations, rows_of

ACCEPTED_RATIO = 8.0
"""A value is accepted within 8 deviations of the random walk that its own summands make in some order: a normal
variable is beyond with probability 10^−15."""

OBSERVED_RATIO = 2.0
"""A value is accepted within twice the largest relative error that float32 loops over its own summands make anywhere
on their way."""

PLAIN_RATIO = 2.0
"""A value of a composed operator is accepted within twice the largest error of its kernel in plain float32."""

PLAIN_FLOOR = 3.0
"""… and within 3 · √k, less than half of what is promised to be found: the kernel does not add in every order there
is, and windows row by row and then column by column."""

ACCEPTED_FLOOR = 8.0
"""Half-units that are always accepted of a sum."""


@dataclass(frozen=True)
class Finding:
    """What a witness says: whether the deviations are explained, the flat index of the worst element, and why."""

    explained: bool
    worst: int
    text: str


class Witness(Protocol):
    """Examines chosen elements of one output."""

    def examine(self, indices: Array, z: Array, actual: Array) -> Finding:
        """Judge the elements at flat `indices` of the runtime's output `actual`, which are `z` >= 0 half-units off."""
        ...


@dataclass(frozen=True)
class SummandWitness:
    """Adds the summands of the suspects themselves, forwards, backwards, shuffled, in lanes and fused.

    Attributes:
        summands: flat indices (n,) -> (n, K) float64.
        scale: of the output.
    """

    summands: Callable[[Array], Array]
    scale: Scale

    def examine(self, indices: Array, z: Array, actual: Array) -> Finding:
        terms = self.summands(indices)
        unit = np.maximum(np.abs(terms).sum(axis=1) * half_unit(float_format(actual.dtype)), 1e-300)
        walk = np.max([random_walk(order) for order in _orders(terms)], axis=0) / unit
        accepted = np.maximum(ACCEPTED_FLOOR, ACCEPTED_RATIO * walk)
        beyond = np.flatnonzero(z > accepted)
        looped = beyond[np.argsort(-(z[beyond] / accepted[beyond]), kind="stable")[:MOST_LOOPED]]
        if looped.size == 0:
            return _compare(indices, z, accepted, f"the random walk of sums in {len(ORDERS)} orders")
        # Roundings of like summands are correlated, and where they fall is luck: the level of all suspects counts too.
        seen = observed_error(terms[looped]) / unit[looped]
        level = np.maximum(seen, float(np.sqrt(np.mean(seen**2))))
        accepted = np.maximum(accepted[looped], OBSERVED_RATIO * level)
        orders = len(ORDERS) + len(LANES) + 1
        return _compare(indices[looped], z[looped], accepted, f"sums in {orders} orders in float32")


MOST_LOOPED = 64
"""So many elements beyond their random walk are really added up; they are the worst ones."""

ORDERS: tuple[str, ...] = ("forwards", "backwards", "every 16th first", "shuffled")

LANES: tuple[int, ...] = (2, 4, 8, 16)
"""Sums that vector units and unrolled loops hold side by side. Summands of one value round all the same way within a
power of two, and in which powers they do depends on the length of the sum: a loop over all may be lucky where two over
halves are not."""


def _orders(terms: Array) -> Sequence[Array]:
    k = terms.shape[1]
    strided = np.argsort(np.arange(k) % 16, kind="stable")
    shuffled = np.random.default_rng(0).permutation(k)
    return terms, terms[:, ::-1], terms[:, strided], terms[:, shuffled]


def random_walk(terms: Array) -> Array:
    """Standard deviation of the rounding errors of a plain float32 loop, (n,).

    Every partial sum S_j is rounded with a uniform error of at most u·|S_j|: variance u² Σ S_j² / 3.
    """
    return 2.0**-24 * np.sqrt((np.cumsum(terms, axis=1) ** 2).sum(axis=1) / 3)


def observed_error(terms: Array) -> Array:
    """The largest error of float32 sums in any order, in lanes, and with products that are not rounded, (n,).

    The same sums are made of the summands times their number, as a mean adds them before it divides.
    """
    k = terms.shape[1]
    if k == 0:
        return np.zeros(len(terms))
    return np.maximum(_largest_error(terms), _largest_error(terms * k) / k)


def _largest_error(terms: Array) -> Array:
    size = np.abs(terms).sum(axis=1)
    with np.errstate(all="ignore"):
        loops = [(order, _looped(order.astype(np.float32))) for order in _orders(terms)]
        relative = [_on_the_way(order, sums) for order, sums in [*loops, (terms, _fused(terms))]]
        joined = np.array([_in_lanes(terms.astype(np.float32), lanes) for lanes in LANES])
        exact = np.array([math.fsum(row) if np.isfinite(row).all() else np.nan for row in terms])
        errors = [*(share * size for share in relative), *np.abs(joined - exact)]
        return np.nan_to_num(np.max(errors, axis=0))


def _on_the_way(terms: Array, sums: Array) -> Array:
    """The largest error of a loop's partial sums, each by the size of what it has added so far, (n,).

    A loop over a part of the summands is what one lane, one thread or one block makes; summands of one value round all
    the same way within a power of two, so that its error is another one than the whole loop's.
    """
    return np.nan_to_num(np.abs(sums - np.cumsum(terms, axis=1)) / np.cumsum(np.abs(terms), axis=1)).max(axis=1)


def _looped(terms: Array) -> Array:
    """The partial sums of a float32 loop, (n, K)."""
    return np.add.accumulate(terms, axis=1, dtype=np.float32)


def _in_lanes(terms: Array, lanes: int) -> Array:
    padded = np.pad(terms, ((0, 0), (0, -terms.shape[1] % lanes)))
    side_by_side = padded.reshape(len(terms), -1, lanes)
    return _looped(np.add.accumulate(side_by_side, axis=1, dtype=np.float32)[:, -1])[:, -1]


def _fused(terms: Array) -> Array:
    """As `_looped`, by fused multiply-add: exact products, the sum rounded after each."""
    sums = np.empty(terms.shape, np.float32)
    total = np.zeros(len(terms), np.float32)
    for k, term in enumerate(terms.T):
        total = (total + term).astype(np.float32)
        sums[:, k] = total
    return sums


def _compare(indices: Array, z: Array, accepted: Array, what: str) -> Finding:
    ratio = z / accepted
    i = int(ratio.argmax())
    explained = bool(ratio[i] <= 1)
    text = (
        f"borderline, explained by {what}: |z| = {z[i]:.4g} <= {accepted[i]:.4g}"
        if explained
        else f"|z| = {z[i]:.4g}, where {what} stay below {accepted[i]:.4g}"
    )
    return Finding(explained, int(indices[i]), text)


PLAIN_LANES: tuple[int, ...] = (1, 2, 4, 8, 16)
"""One sum, and as many side by side as vector units have."""


@dataclass(frozen=True)
class PlainWitness:
    """Runs the kernel in float32 with plain loops instead of pairwise sums, in one and in several lanes.

    Attributes:
        call: the kernel's call.
        output: which output.
        reference: its float64 value.
        scale: its scale.
    """

    call: Call
    output: int
    reference: Array
    scale: Scale

    def examine(self, indices: Array, z: Array, actual: Array) -> Finding:
        format_ = float_format(actual.dtype)
        with np.errstate(all="ignore"):
            size = np.maximum(self.scale.magnitude * half_unit(format_), format_.smallest_normal)
        level = max(self._level(actual.dtype, size, lanes) for lanes in PLAIN_LANES)
        accepted = np.full(len(indices), max(ACCEPTED_FLOOR, self._floor(format_), PLAIN_RATIO * level))
        return _compare(indices, z, accepted, "the kernel in float32 with plain loops")

    def _floor(self, format_: FloatFormat) -> float:
        """0 where z counts standard deviations (`_tracked.scale_of`): there `terms` is no number of summands."""
        counted = self.scale.rule is Rule.COMPOSED and self.scale.spread is not None
        if counted and np.all(np.asarray(self.scale.spread) <= 1.0):
            return 0.0
        terms = np.asarray(self.scale.terms, np.float64)
        return PLAIN_FLOOR * math.sqrt(growth(float(terms[np.isfinite(terms)].max(initial=0.0)), format_))

    def _level(self, dtype: np.dtype[Any], size: Array, lanes: int) -> float:
        """How large the errors of the plain kernel are: the largest of the tensor, which long rows share."""
        own = encode(plain_outputs(self.call, lanes)[self.output], dtype).astype(np.float64)
        with np.errstate(all="ignore"):
            return float(np.nan_to_num(np.abs(own - self.reference) / size).max(initial=0.0))


OWN = 16.0
"""Half-units by which an element of a normalised row may be off by itself: subtraction, products and addition are six
roundings, a fit to two vectors leaves at most twice as much."""


@dataclass(frozen=True)
class RowWitness:
    """The kernel in plain float32; and what one element has that its row does not share must be its own rounding."""

    plain: PlainWitness

    def examine(self, indices: Array, z: Array, actual: Array) -> Finding:
        finding = self.plain.examine(indices, z, actual)
        rows = rows_of(self.plain.call) if finding.explained else None
        if rows is None:
            return finding
        own = own_deviations(rows, actual, self.plain.reference).reshape(-1) / half_unit(float_format(actual.dtype))
        worst = int(own.argmax())  # of all elements: what a row shares can stand out more than one that is wrong
        if own[worst] <= OWN:
            return finding
        text = f"{own[worst]:.4g} half-units apart from its row, whose elements share all errors but {OWN:g}"
        return Finding(False, worst, text)


def witness_for(call: Call, output: int, reference: Array, scale: Scale) -> Witness | None:
    """The witness that an operator has: its summands, or its own kernel in plain float32."""
    if scale.rule is Rule.DOT and call.entry.products is not None and output == 0:
        listed = call.entry.products
        keywords = call.keywords_of(listed)
        return SummandWitness(lambda indices: listed(indices, *call.inputs, **keywords), scale)
    if scale.rule in (Rule.DOT, Rule.COMPOSED):
        plain = PlainWitness(call, output, reference, scale)
        return RowWitness(plain) if output == 0 else plain
    return None
