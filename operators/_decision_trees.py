"""Forests of decision trees as arrays, and the walk of all rows through all trees, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._tracked import UNIFORM, Tracked
from .rounding import NAIVE_VARIANCE
from .scale import Array

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
"""Comparisons of an element with a node's threshold, in the order of TreeEnsemble's numbers."""

MEMBER = MODES.index("BRANCH_MEMBER")

AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
"""In the order of TreeEnsemble's numbers."""

CHUNK = 1 << 22
"""Votes (rows x trees x targets) that are gathered at a time."""


@dataclass(frozen=True)
class Forest:
    """Trees as arrays. Inner nodes are numbered from 0, leaf i is −1 − i.

    Attributes:
        feature: of each inner node; so are `mode`, `threshold`, `missing_true`, `if_true` and `if_false`.
        mode: index in `MODES`.
        threshold: compared with the feature.
        missing_true: whether NaN takes the true branch.
        if_true: the child where the comparison holds.
        if_false: the child where it does not.
        members: sorted `node · len(member_values) + index` of every member of a BRANCH_MEMBER node's set.
        member_values: all members, sorted.
        roots: inner node or leaf of each tree.
    """

    feature: Array
    mode: Array
    threshold: Array
    missing_true: Array
    if_true: Array
    if_false: Array
    members: Array
    member_values: Array
    roots: Array

    def leaves(self, op_type: str, x: Array) -> Array:
        """The leaf that each row reaches in each tree: (N, F) -> (N, trees).

        Raises:
            InvalidInputError: fewer features than the trees ask for.
            InvalidAttributeError: nodes in a circle.
        """
        if self.feature.size and (self.feature.max() >= x.shape[1] or self.feature.min() < 0):
            raise InvalidInputError(f"{op_type}: the trees ask for feature {self.feature.max()}, X has {x.shape[1]}")
        at = np.broadcast_to(self.roots, (len(x), len(self.roots))).copy()
        row, tree = np.nonzero(at >= 0)
        for _ in range(len(self.feature)):
            if not row.size:
                break
            node = at[row, tree]
            at[row, tree] = np.where(self._holds(x, row, node), self.if_true[node], self.if_false[node])
            inner = at[row, tree] >= 0
            row, tree = row[inner], tree[inner]
        if row.size:
            raise InvalidAttributeError(f"{op_type}: its nodes form a circle")
        return -1 - at

    def _holds(self, x: Array, row: Array, node: Array) -> Array:
        """Whether each row takes the true branch at its node."""
        value, threshold, mode = x[row, self.feature[node]], self.threshold[node], self.mode[node]
        holds = np.select(
            [mode == 0, mode == 1, mode == 2, mode == 3, mode == 4, mode == 5],
            [
                value <= threshold,
                value < threshold,
                value >= threshold,
                value > threshold,
                value == threshold,
                value != threshold,
            ],
            self._is_member(value, node),
        )
        return np.where(np.isnan(value), self.missing_true[node], holds).astype(bool)

    def _is_member(self, value: Array, node: Array) -> Array:
        if not self.members.size:
            return np.zeros(value.shape, bool)
        index = np.minimum(np.searchsorted(self.member_values, value), len(self.member_values) - 1)
        listed = np.isin(node * len(self.member_values) + index, self.members)
        return listed & (self.member_values[index] == value)


def children(op_type: str, ids: Sequence[int], is_leaf: Array, inner: int, leaves: int) -> Array:
    """Children as numbered in a `Forest`.

    Raises:
        InvalidAttributeError: one that is neither a node nor a leaf.
    """
    found = np.array(ids, np.int64)
    if found.shape != is_leaf.shape or (found < 0).any() or (found >= np.where(is_leaf, leaves, inner)).any():
        raise InvalidAttributeError(f"{op_type}: children outside {inner} nodes and {leaves} leaves")
    return np.where(is_leaf, -1 - found, found)


def member_sets(op_type: str, mode: Array, values: Array | None) -> tuple[Array, Array]:
    """(members, member_values) of a `Forest` from sets that end with a NaN each, in the order of the nodes.

    Raises:
        InvalidAttributeError: another number of sets than of BRANCH_MEMBER nodes.
    """
    listed = np.zeros(0) if values is None else np.asarray(values).reshape(-1)
    nodes, ends = np.flatnonzero(mode == MEMBER), np.isnan(listed)
    if ends.sum() != nodes.size or (listed.size and not ends[-1]):
        raise InvalidAttributeError(f"{op_type}: {ends.sum()} sets of members for {nodes.size} nodes that ask for one")
    if not nodes.size:
        return np.zeros(0, np.int64), np.zeros(0)
    which = nodes[np.cumsum(ends) - ends][~ends]
    found, index = np.unique(listed[~ends], return_inverse=True)
    return np.unique(which * len(found) + index), found


@dataclass(frozen=True)
class Votes:
    """What leaves vote for.

    Attributes:
        leaf: of each vote.
        target: likewise.
        weight: likewise.
        leaves: how many there are.
        targets: how many there are.
    """

    leaf: Array
    target: Array
    weight: Array
    leaves: int
    targets: int

    def table(self, weights: Array) -> Array:
        """Σ of `weights` by leaf and target: (leaves, targets)."""
        flat = np.bincount(self.leaf * self.targets + self.target, weights, self.leaves * self.targets)
        return flat.reshape(self.leaves, self.targets)

    def extremes(self, ufunc: np.ufunc, start: float) -> Array:
        """The smallest or largest weight by leaf and target; `start` where there is none."""
        found = np.full((self.leaves, self.targets), start)
        ufunc.at(found, (self.leaf, self.target), self.weight)
        return found


def gathered(table: Array, leaves: Array, ufunc: np.ufunc) -> Array:
    """A leaf table combined over the trees of each row: (leaves, E), (N, trees) -> (N, E)."""
    N, trees = leaves.shape
    step = max(1, CHUNK // max(1, trees * table.shape[1]))
    parts = [ufunc.reduce(table[leaves[i : i + step]], axis=1) for i in range(0, N, step)]
    return np.concatenate(parts) if parts else np.zeros((0, table.shape[1]))


def aggregated(
    op_type: str, votes: Votes, leaves: Array, function: str, base: Array, dtype: np.dtype[Any]
) -> tuple[Tracked, Array]:
    """Votes of the leaves that each row reaches, combined, and the base added.

    Args:
        op_type: the operator.
        votes: by leaf.
        leaves: (N, trees).
        function: one of `AGGREGATES`.
        base: (E,).
        dtype: of the output; a weight that it does not hold is rounded, and so is one vote alone.

    Returns:
        (N, E) with the errors of the additions in any order, and how many votes each element has.

    Raises:
        InvalidAttributeError: another function.
    """
    if function not in AGGREGATES:
        allowed = ", ".join(AGGREGATES)
        raise InvalidAttributeError(f"{op_type}: aggregate_function={function!r}; allowed are {allowed}")
    count = gathered(votes.table(np.ones(votes.weight.size)), leaves, np.add)
    if function in ("MIN", "MAX"):
        ufunc, start = (np.minimum, np.inf) if function == "MIN" else (np.maximum, -np.inf)
        value = np.where(count > 0, gathered(votes.extremes(ufunc, start), leaves, ufunc), 0.0)
        rounded = 0.0 if _holds(votes.weight, dtype).all() else np.abs(value)
        return _with_base(_rounded(value, rounded), base, dtype), count
    lost = np.where(_holds(votes.weight, dtype), 0.0, np.abs(votes.weight))
    value, size, rounded = (
        gathered(votes.table(w), leaves, np.add) for w in (votes.weight, np.abs(votes.weight), lost)
    )
    additions = np.maximum(count - 1, 0)
    own = np.where(count > 1, size**2 + additions * NAIVE_VARIANCE * value**2, 0.0)
    trees = leaves.shape[1] if function == "AVERAGE" else 1
    divided = size * (trees & (trees - 1) != 0)  # by a power of two exactly; each vote, or their sum
    variance = own + UNIFORM * (rounded**2 + divided**2)
    bound = additions * size + rounded + divided
    total = Tracked(value / trees, variance / trees**2, bound / trees, size / trees)
    return _with_base(total, base, dtype), count


def _holds(x: Array, dtype: np.dtype[Any]) -> Array:
    """Which values a type holds as they are."""
    return x.astype(dtype).astype(np.float64) == x


def _rounded(value: Array, rounded: Array | float) -> Tracked:
    """Values that have been rounded at some size."""
    at = np.broadcast_to(np.asarray(rounded, np.float64), value.shape)
    return Tracked(value, UNIFORM * at**2, at, np.abs(value))


def _with_base(total: Tracked, base: Array, dtype: np.dtype[Any]) -> Tracked:
    """The base added; without a rounding where one of both is 0."""
    moved = total + _rounded(base, np.where(_holds(base, dtype), 0.0, np.abs(base)))
    keep = (base == 0) | ((total.size == 0) & _holds(base, dtype))
    pairs = ((total.variance, moved.variance), (total.bound, moved.bound), (total.size, moved.size))
    return Tracked(moved.value, *(np.where(keep, a, b) for a, b in pairs))


def classic_forest(
    op_type: str,
    *,
    treeids: Sequence[int],
    nodeids: Sequence[int],
    featureids: Sequence[int],
    modes: Sequence[str],
    thresholds: Array,
    truenodeids: Sequence[int],
    falsenodeids: Sequence[int],
    missing_true: Sequence[int] | None,
) -> tuple[Forest, dict[tuple[int, int], int]]:
    """Trees as TreeEnsembleClassifier and TreeEnsembleRegressor list them, and the number of each leaf by its ids.

    Raises:
        InvalidAttributeError: lists of different lengths, unknown modes, ids that no node has or two nodes have.
    """
    given = (nodeids, featureids, modes, thresholds, truenodeids, falsenodeids)
    lengths = {len(treeids), *(len(values) for values in given)}
    if missing_true:
        lengths.add(len(missing_true))
    if len(lengths) != 1 or not len(treeids):
        raise InvalidAttributeError(f"{op_type}: lists of nodes of lengths {sorted(lengths)}; all need the same, not 0")
    unknown = sorted(set(modes) - {*MODES[:MEMBER], "LEAF"})
    if unknown:
        raise InvalidAttributeError(
            f"{op_type}: node mode {unknown[0]!r}; allowed are {', '.join(MODES[:MEMBER])}, LEAF"
        )
    ids = list(zip(treeids, nodeids, strict=True))
    is_leaf = np.array([mode == "LEAF" for mode in modes])
    number = np.where(is_leaf, -np.cumsum(is_leaf), np.cumsum(~is_leaf) - 1)
    by_id = dict(zip(ids, number.tolist(), strict=True))
    if len(by_id) < len(ids):
        raise InvalidAttributeError(f"{op_type}: two nodes of one tree have the same id")
    inner = np.flatnonzero(~is_leaf).tolist()

    def child(listed: Sequence[int]) -> Array:
        try:
            return np.array([by_id[treeids[i], listed[i]] for i in inner], np.int64)
        except KeyError as error:
            raise InvalidAttributeError(
                f"{op_type}: node {error.args[0][1]} of tree {error.args[0][0]} is none"
            ) from None

    if_true, if_false = child(truenodeids), child(falsenodeids)
    taken = {*if_true.tolist(), *if_false.tolist()}
    roots = {ids[i][0]: number[i] for i in range(len(ids)) if number[i] not in taken}
    if len(roots) != len(set(treeids)) or len(roots) != len(ids) - len(taken):
        raise InvalidAttributeError(f"{op_type}: {len(set(treeids))} trees, but {len(ids) - len(taken)} roots")
    forest = Forest(
        feature=np.array(featureids, np.int64)[inner],
        mode=np.array([MODES.index(modes[i]) for i in inner], np.int64),
        threshold=np.asarray(thresholds)[inner],
        missing_true=np.zeros(len(inner), bool) if not missing_true else np.array(missing_true, bool)[inner],
        if_true=if_true,
        if_false=if_false,
        members=np.zeros(0, np.int64),
        member_values=np.zeros(0),
        roots=np.array(list(roots.values()), np.int64),
    )
    return forest, {key: -1 - at for key, at in by_id.items() if at < 0}


def classic_votes(
    op_type: str,
    leaves: dict[tuple[int, int], int],
    treeids: Sequence[int],
    nodeids: Sequence[int],
    targetids: Sequence[int],
    weights: Array,
    targets: int,
) -> Votes:
    """Votes as TreeEnsembleClassifier and TreeEnsembleRegressor list them.

    Raises:
        InvalidAttributeError: lists of different lengths, a vote of no leaf or for no target.
    """
    lengths = {len(treeids), len(nodeids), len(targetids), len(weights)}
    if len(lengths) != 1:
        raise InvalidAttributeError(f"{op_type}: lists of votes of lengths {sorted(lengths)}; all need the same")
    try:
        leaf = np.array([leaves[pair] for pair in zip(treeids, nodeids, strict=True)], np.int64)
    except KeyError as error:
        raise InvalidAttributeError(f"{op_type}: a vote of {error.args[0]} (tree, node), which is no leaf") from None
    return votes_of(op_type, leaf, targetids, weights, len(leaves), targets)


def votes_of(op_type: str, leaf: Array, targetids: Sequence[int], weights: Any, leaves: int, targets: int) -> Votes:
    """Votes by leaf.

    Raises:
        InvalidAttributeError: a target outside [0, targets).
    """
    target = np.array(targetids, np.int64)
    if target.size and not (target.min() >= 0 and target.max() < targets):
        raise InvalidAttributeError(
            f"{op_type}: targets {target.min()} to {target.max()}; allowed are 0 to {targets - 1}"
        )
    return Votes(leaf, target, np.asarray(weights, np.float64).reshape(-1), leaves, targets)
