"""TreeEnsemble of ai.onnx.ml: trees as lists of inner nodes and of leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._class_scores import ML, POST_TRANSFORMS, Scores, Stored
from ._decision_trees import AGGREGATES, MODES, Forest, aggregated, children, member_sets, votes_of
from .machine_learning_trees import SINGLE, final_scores
from .registry import kernel, scale
from .scale import Array, Scale
from .storage import float_format


@kernel("TreeEnsemble", since=5, domain=ML)
def tree_ensemble(
    x: Array,
    /,
    *,
    aggregate_function: int = 1,
    leaf_targetids: Sequence[int],
    leaf_weights: Array,
    membership_values: Array | None = None,
    n_targets: int | None = None,
    nodes_falseleafs: Sequence[int],
    nodes_falsenodeids: Sequence[int],
    nodes_featureids: Sequence[int],
    nodes_hitrates: Array | None = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    nodes_modes: Array,
    nodes_splits: Array,
    nodes_trueleafs: Sequence[int],
    nodes_truenodeids: Sequence[int],
    post_transform: int = 0,
    tree_roots: Sequence[int],
    stored: Stored = (),
) -> Array:
    """Weights of the leaves that each row reaches, combined for every target.

    Args:
        x: (N, F), float16, float or double.
        aggregate_function: 0 AVERAGE (over trees), 1 SUM, 2 MIN, 3 MAX.
        leaf_targetids: the target of each leaf.
        leaf_weights: its weight.
        membership_values: the sets of BRANCH_MEMBER nodes in the order of the nodes, each ending with NaN.
        n_targets: how many there are.
        nodes_falseleafs: whether the child where the comparison fails is a leaf.
        nodes_falsenodeids: that child, an index of nodes or of leaves.
        nodes_featureids: which feature is compared.
        nodes_hitrates: ignored.
        nodes_missing_value_tracks_true: whether NaN takes the true branch; it does not by default.
        nodes_modes: the comparison, an index in `_decision_trees.MODES`.
        nodes_splits: what is compared with.
        nodes_trueleafs: as `nodes_falseleafs`, where the comparison holds.
        nodes_truenodeids: as `nodes_falsenodeids`.
        post_transform: an index in `_class_scores.POST_TRANSFORMS`.
        tree_roots: the first node of each tree.

    Returns:
        (N, n_targets).

    Raises:
        InvalidAttributeError: lists that do not go together.
        InvalidInputError: `x` is no matrix, or has too few features.

    Spec: TreeEnsemble, since 5
    """
    attributes = {name: value for name, value in locals().items() if name not in ("x", "stored")}
    return _ensemble(x, stored, **attributes).value.value


@scale("TreeEnsemble", since=5, domain=ML)
def tree_ensemble_scale(y: Any, x: Array, /, *, stored: Stored = (), **attributes: Any) -> Scale:
    """COMPOSED: additions of weights in any order, and the transform."""
    return _ensemble(x, stored, **attributes).scale(float_format(_stored_type(stored)))


def _stored_type(stored: Stored) -> np.dtype[Any]:
    return SINGLE if not stored or stored[0] is None else stored[0]


def _ensemble(
    x: Array,
    stored: Stored,
    *,
    leaf_targetids: Sequence[int],
    leaf_weights: Array,
    nodes_falseleafs: Sequence[int],
    nodes_falsenodeids: Sequence[int],
    nodes_featureids: Sequence[int],
    nodes_modes: Array,
    nodes_splits: Array,
    nodes_trueleafs: Sequence[int],
    nodes_truenodeids: Sequence[int],
    tree_roots: Sequence[int],
    aggregate_function: int = 1,
    membership_values: Array | None = None,
    n_targets: int | None = None,
    nodes_hitrates: Array | None = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    post_transform: int = 0,
) -> Scores:
    del nodes_hitrates
    op_type, mode, nodes, leaves = (
        "TreeEnsemble",
        np.asarray(nodes_modes, np.int64),
        len(nodes_modes),
        len(leaf_weights),
    )
    missing = nodes_missing_value_tracks_true or [0] * nodes
    lengths = {len(missing), len(nodes_splits), len(nodes_featureids), nodes}
    if len(lengths) > 1 or len(leaf_targetids) != leaves or (mode >= len(MODES)).any():
        raise InvalidAttributeError(f"{op_type}: lists of {sorted(lengths)} nodes, modes up to {mode.max(initial=0)}")
    for name, value, words in (
        ("aggregate_function", aggregate_function, AGGREGATES),
        ("post_transform", post_transform, POST_TRANSFORMS),
    ):
        if not 0 <= value < len(words):
            raise InvalidAttributeError(f"{op_type}: {name}={value}; allowed are 0 to {len(words) - 1}")
    if x.ndim != 2:
        raise InvalidInputError(f"{op_type}: X of shape {x.shape}; [N, F] is needed")
    members, member_values = member_sets(op_type, mode, membership_values)
    forest = Forest(
        feature=np.array(nodes_featureids, np.int64),
        mode=mode,
        threshold=np.asarray(nodes_splits, np.float64),
        missing_true=np.array(missing, bool),
        if_true=children(op_type, nodes_truenodeids, np.array(nodes_trueleafs, bool), nodes, leaves),
        if_false=children(op_type, nodes_falsenodeids, np.array(nodes_falseleafs, bool), nodes, leaves),
        members=members,
        member_values=member_values,
        roots=children(op_type, tree_roots, np.zeros(len(tree_roots), bool), nodes, leaves),
    )
    targets = 1 + max(leaf_targetids) if n_targets is None else n_targets
    weights = np.asarray(leaf_weights, np.float64)
    votes = votes_of(op_type, np.arange(leaves), leaf_targetids, weights, leaves, targets)
    words, dtype = AGGREGATES[aggregate_function], _stored_type(stored)
    raw, count = aggregated(op_type, votes, forest.leaves(op_type, x), words, np.zeros(targets), dtype)
    return final_scores(op_type, raw, count, words, POST_TRANSFORMS[post_transform], dtype, np.zeros((), bool))
