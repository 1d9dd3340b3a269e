"""A second witness for borderline values: the same sums, made in float32 in several orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..operators.evaluation import Call
from ..operators.plain import plain_outputs
from ..operators.rounding import half_unit
from ..operators.scale import Array, Rule, Scale
from ..operators.storage import encode, float_format

ACCEPTED_RATIO = 8.0
"""A value is accepted within 8 deviations of the random walk that its own summands make in some order: a normal
variable is beyond with probability 10^−15."""

OBSERVED_RATIO = 4.0
"""A value is accepted within four times the error that a plain float32 loop over its own summands really makes."""

ACCEPTED_FLOOR = 8.0
"""Half-units that are always accepted of a sum."""


@dataclass(frozen=True)
class Finding:
    """What a witness says: whether the deviations are explained, the position of the worst suspect, and why."""

    explained: bool
    worst: int
    text: str


class Witness(Protocol):
    """Examines chosen elements of one output."""

    def examine(self, indices: Array, z: Array, dtype: np.dtype[Any]) -> Finding:
        """Judge the elements at flat `indices` with deviations `z` >= 0 in half-units of `dtype`."""
        ...


@dataclass(frozen=True)
class SummandWitness:
    """Adds the summands of the suspects themselves, forwards, backwards, in lanes and shuffled.

    Attributes:
        summands: flat indices (n,) -> (n, K) float64.
        scale: of the output.
    """

    summands: Callable[[Array], Array]
    scale: Scale

    def examine(self, indices: Array, z: Array, dtype: np.dtype[Any]) -> Finding:
        terms = self.summands(indices)
        unit = np.maximum(np.abs(terms).sum(axis=1) * half_unit(float_format(dtype)), 1e-300)
        walk, seen = np.zeros(len(indices)), np.zeros(len(indices))
        for order in _orders(terms):
            deviation, error = _float32_sum(order)
            walk = np.maximum(walk, deviation / unit)
            seen = np.maximum(seen, error / unit)
        # Roundings of like summands are correlated, and where they fall is luck: the level of all suspects counts too.
        level = np.maximum(seen, float(np.sqrt(np.mean(seen**2))))
        accepted = np.maximum(ACCEPTED_FLOOR, np.maximum(ACCEPTED_RATIO * walk, OBSERVED_RATIO * level))
        return _compare(z, accepted, f"sums in {len(ORDERS)} orders in float32")


ORDERS: tuple[str, ...] = ("forwards", "backwards", "16 lanes", "shuffled")


def _orders(terms: Array) -> Sequence[Array]:
    k = terms.shape[1]
    lanes = np.argsort(np.arange(k) % 16, kind="stable")
    shuffled = np.random.default_rng(0).permutation(k)
    return terms, terms[:, ::-1], terms[:, lanes], terms[:, shuffled]


def _float32_sum(terms: Array) -> tuple[Array, Array]:
    """(standard deviation of the random walk of rounding errors, observed error) of a plain float32 loop, (n,) each.

    Every partial sum S_j is rounded with a uniform error of at most u·|S_j|: variance u² Σ S_j² / 3.
    """
    if terms.shape[1] == 0:
        return np.zeros(len(terms)), np.zeros(len(terms))
    partial = np.cumsum(terms, axis=1)
    deviation = 2.0**-24 * np.sqrt((partial**2).sum(axis=1) / 3)
    with np.errstate(all="ignore"):
        looped = np.add.accumulate(terms.astype(np.float32), axis=1, dtype=np.float32)[:, -1]
    exact = np.array([math.fsum(row) if np.isfinite(row).all() else np.nan for row in terms])
    return deviation, np.nan_to_num(np.abs(looped - exact))


def _compare(z: Array, accepted: Array, what: str) -> Finding:
    ratio = z / accepted
    worst = int(ratio.argmax())
    if ratio[worst] <= 1:
        return Finding(True, worst, f"borderline, explained by {what}: |z| = {z[worst]:.4g} <= {accepted[worst]:.4g}")
    return Finding(False, worst, f"|z| = {z[worst]:.4g}, where {what} stay below {accepted[worst]:.4g}")


@dataclass(frozen=True)
class PlainWitness:
    """Runs the kernel in float32 with plain loops instead of pairwise sums, once, and compares element by element.

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

    def examine(self, indices: Array, z: Array, dtype: np.dtype[Any]) -> Finding:
        format_ = float_format(dtype)
        own = encode(plain_outputs(self.call)[self.output], dtype).astype(np.float64)
        with np.errstate(all="ignore"):
            size = np.maximum(self.scale.magnitude * half_unit(format_), format_.smallest_normal)
            control = np.nan_to_num(np.abs(own - self.reference) / size)
        near = np.broadcast_to(control, self.reference.shape).reshape(-1)
        level = max(float(near[indices].max()), 3 * float(np.sqrt(np.mean(near**2))))
        accepted = np.full(len(indices), max(ACCEPTED_FLOOR, ACCEPTED_RATIO * level))
        return _compare(z, accepted, "the kernel in float32 with plain loops")


def witness_for(call: Call, output: int, reference: Array, scale: Scale) -> Witness | None:
    """The witness that an operator has: its summands, or its own kernel in plain float32."""
    if scale.rule is Rule.DOT and call.entry.products is not None and output == 0:
        listed = call.entry.products
        keywords = call.keywords_of(listed)
        return SummandWitness(lambda indices: listed(indices, *call.inputs, **keywords), scale)
    if scale.rule in (Rule.DOT, Rule.COMPOSED):
        return PlainWitness(call, output, reference, scale)
    return None
