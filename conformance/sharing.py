"""What the elements of one normalised row share: the errors of its mean and of its scale.

Every correct implementation computes `y = w · (x − m) · i + b` with one mean m and one factor i for the whole row.
Where the row cancels, m and i can be far off; but then all elements are off together: with the m' and i' that it really
had, `y − b = i' · (w x) − m' i' · w` is a combination of two known vectors. What is left of the row when the nearest
such combination is taken off are the roundings of single elements, a few half-units each, however long the row is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..operators.evaluation import Call
from ..operators.scale import Array

EPSILON = 1e-5
"""What normalisations add to a variance by default."""

PARALLEL = 1e-6
"""A vector is taken for a multiple of another where what is left of it is smaller than this share of it."""


@dataclass(frozen=True)
class Rows:
    """The elements of a normalisation's output, ordered by rows that share their statistics; all arrays are (G, N).

    Attributes:
        at: flat index of every element.
        directions: vectors of which a row less its `offset` is a combination.
        offset: what is added to every row, exactly known.
        own: the size at which each element is rounded by itself.
    """

    at: Array
    directions: tuple[Array, ...]
    offset: Array
    own: Array


def own_deviations(rows: Rows, actual: Array, reference: Array) -> Array:
    """|deviation| of every element over its `own` size, without what its row shares; shaped like `actual`.

    Args:
        rows: of the call.
        actual: the runtime's output.
        reference: float64; only where both are finite something is found.
    """
    flat = actual.reshape(-1).astype(np.float64)[rows.at]
    usable = np.isfinite(flat) & np.isfinite(reference.reshape(-1)[rows.at]) & (rows.own > 0)
    weight = np.divide(1.0, rows.own, out=np.zeros_like(rows.own), where=usable)
    left = np.where(usable, flat - rows.offset, 0.0) * weight
    basis: list[Array] = []
    for direction in rows.directions:
        vector = np.nan_to_num(direction) * weight
        length = _length(vector)
        for _ in range(2):  # twice: what the first pass leaves of nearly parallel vectors is not yet orthogonal
            for unit in basis:
                vector = vector - unit * (unit * vector).sum(axis=1, keepdims=True)
        rest = _length(vector)
        basis.append(np.divide(vector, rest, out=np.zeros_like(vector), where=rest > PARALLEL * length))
    for unit in basis:
        left = left - unit * (unit * left).sum(axis=1, keepdims=True)
    found = np.zeros(actual.size)
    found[rows.at] = np.abs(left)
    return found.reshape(actual.shape)


def _length(vector: Array) -> Array:
    return np.sqrt((vector**2).sum(axis=1, keepdims=True))


def rows_of(call: Call) -> Rows | None:
    """The rows of an operator that normalises by statistics of its own input; None for every other."""
    if call.entry.domain or call.entry.op_type not in _ROWS or call.stored[0] == np.float64:
        return None
    return _ROWS[call.entry.op_type](call)


@dataclass(frozen=True)
class Standard:
    """How rows are normalised.

    Attributes:
        over: the axes that a row spans.
        epsilon: added to the mean square deviation.
        centred: whether the mean is taken off first.
        order: divided by the sum of absolute values (1), the root of the sum of squares (2) or of their mean (0).
    """

    over: tuple[int, ...]
    epsilon: float = EPSILON
    centred: bool = True
    order: int = 0


def _rows(x: Array, weight: Any, b: Any, how: Standard) -> Rows | None:
    """Rows of `x`; `weight` and `b` can be broadcast to it."""
    count = math.prod(x.shape[a] for a in how.over)
    if not count or not x.size:
        return None
    kept = [a for a in range(x.ndim) if a not in how.over]

    def ordered(values: Any) -> Array:
        return np.broadcast_to(values, x.shape).transpose([*kept, *how.over]).reshape(-1, count)

    values, w, offset = ordered(x), ordered(weight), ordered(b)
    with np.errstate(all="ignore"):
        mean = values.mean(axis=1, keepdims=True) if how.centred else np.zeros((len(values), 1))
        powers = np.abs(values) if how.order == 1 else (values - mean) ** 2
        total = powers.sum(axis=1, keepdims=True) / (1 if how.order else count) + how.epsilon
        size = (np.abs(values) + np.abs(mean)) / (total if how.order == 1 else np.sqrt(total))
    own = np.nan_to_num(np.abs(w) * size + np.abs(offset), posinf=0.0)
    at = ordered(np.arange(x.size).reshape(x.shape))
    return Rows(at, (w, w * values) if how.centred else (w * values,), offset, own)


def _epsilon(call: Call) -> float:
    return float(call.keywords.get("epsilon", EPSILON))


def _layer(call: Call) -> Rows | None:
    x, weight = call.inputs[:2]
    b = call.inputs[2] if len(call.inputs) > 2 else None
    over = tuple(range(int(call.keywords.get("axis", -1)) % max(x.ndim, 1), x.ndim))
    how = Standard(over, _epsilon(call), centred=call.entry.op_type == "LayerNormalization")
    return _rows(x, weight, 0.0 if b is None else b, how)


def _per_channel(values: Array, x: Array) -> Array:
    return values.reshape(1, -1, *(1,) * (x.ndim - 2))


def _instance(call: Call) -> Rows | None:
    x, weight, b = call.inputs[:3]
    return _rows(x, _per_channel(weight, x), _per_channel(b, x), Standard(tuple(range(2, x.ndim)), _epsilon(call)))


def _group(call: Call) -> Rows | None:
    x, weight, b = call.inputs[:3]
    groups, channels = int(call.keywords["num_groups"]), x.shape[1]
    form = (x.shape[0], groups, channels // groups, *x.shape[2:])
    each = (v.repeat(channels // v.size) if v.size else v for v in (weight, b))  # since 18: one for a whole group
    w, offset = (np.broadcast_to(_per_channel(v, x), x.shape).reshape(form) for v in each)
    return _rows(x.reshape(form), w, offset, Standard(tuple(range(2, len(form))), _epsilon(call)))


def _mean_variance(call: Call) -> Rows | None:
    x = call.inputs[0]
    axes = range(x.ndim) if call.keywords.get("across_channels") else call.keywords.get("axes", (0, 2, 3))
    return _rows(x, 1.0, 0.0, Standard(tuple(sorted({int(a) % x.ndim for a in axes})), epsilon=1e-18))


def _norm(call: Call) -> Rows | None:
    x, order = call.inputs[0], int(call.keywords.get("p", 2))
    axis = int(call.keywords.get("axis", -1)) % x.ndim
    return _rows(x, 1.0, 0.0, Standard((axis,), epsilon=0.0, centred=False, order=order))


_ROWS: Mapping[str, Callable[[Call], Rows | None]] = {
    "LayerNormalization": _layer,
    "RMSNormalization": _layer,
    "InstanceNormalization": _instance,
    "GroupNormalization": _group,
    "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": _norm,
}
