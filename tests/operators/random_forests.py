"""Random decision trees in the attributes of the three tree operators, and a plain walk of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx_arch.operators.scale import Array

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


@dataclass
class Branch:
    """An inner node, or a leaf (mode LEAF) with its votes (target, weight)."""

    mode: str
    feature: int = 0
    threshold: float = 0.0
    missing_true: int = 0
    children: tuple[Branch, ...] = ()
    votes: list[tuple[int, float]] = field(default_factory=list)

    def leaf(self, row: Array) -> Branch:
        """The leaf that a row reaches, by the definition."""
        if self.mode == "LEAF":
            return self
        x, t = float(row[self.feature]), self.threshold
        holds = {
            "BRANCH_LEQ": x <= t,
            "BRANCH_LT": x < t,
            "BRANCH_GTE": x >= t,
            "BRANCH_GT": x > t,
            "BRANCH_EQ": x == t,
            "BRANCH_NEQ": x != t,
        }[self.mode]
        if math.isnan(x):
            holds = bool(self.missing_true)
        return self.children[0 if holds else 1].leaf(row)


def grown(rng: np.random.Generator, *, depth: int, features: int, targets: list[int], modes: list[str]) -> Branch:
    """A random tree; thresholds are multiples of 1/4, so that elements can equal them."""
    if depth == 0 or rng.random() < 0.1:
        chosen = rng.choice(targets, size=rng.integers(1, len(targets) + 1), replace=False)
        return Branch("LEAF", votes=[(int(t), float(np.float32(rng.standard_normal()))) for t in chosen])
    children = tuple(grown(rng, depth=depth - 1, features=features, targets=targets, modes=modes) for _ in range(2))
    threshold = float(rng.integers(-4, 5)) / 4
    return Branch(
        str(rng.choice(modes)), int(rng.integers(features)), threshold, int(rng.integers(2)), children=children
    )


def classic_attributes(trees: list[Branch], votes: str) -> dict[str, Any]:
    """Attributes of TreeEnsembleClassifier (votes="class") or TreeEnsembleRegressor (votes="target")."""
    a: dict[str, Any] = {
        f"nodes_{name}": []
        for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    }
    a["nodes_missing_value_tracks_true"] = []
    a.update({f"{votes}_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")})
    for number, tree in enumerate(trees):
        nodes = [tree]
        for node in nodes:
            nodes.extend(node.children)
        ids = {id(node): index for index, node in enumerate(nodes)}
        for index, node in enumerate(nodes):
            first, second = (ids[id(child)] for child in node.children) if node.children else (0, 0)
            row = (number, index, node.feature, node.threshold, node.mode, first, second, node.missing_true)
            for key, value in zip(list(a)[:8], row, strict=True):
                a[key].append(value)
            for target, weight in node.votes:
                for name, value in (("treeids", number), ("nodeids", index), ("ids", target), ("weights", weight)):
                    a[f"{votes}_{name}"].append(value)
    return a


def ensemble_attributes(trees: list[Branch], dtype: Any) -> dict[str, Any]:
    """Attributes of TreeEnsemble; every leaf has one vote (the first)."""
    nodes: list[Branch] = []
    leaves: list[Branch] = []
    roots = []
    for grown_tree in trees:
        tree = grown_tree if grown_tree.children else Branch("BRANCH_LEQ", children=(grown_tree, grown_tree))
        roots.append(len(nodes))
        pending = [tree]
        for node in pending:
            (leaves if node.mode == "LEAF" else nodes).append(node)
            pending.extend(node.children[:1] if node.children[:1] == node.children[1:] else node.children)
    places = {id(node): index for index, node in enumerate(nodes)}
    places.update({id(node): index for index, node in enumerate(leaves)})
    a: dict[str, Any] = {"tree_roots": roots, "nodes_featureids": [node.feature for node in nodes]}
    for side, child in (("true", 0), ("false", 1)):
        a[f"nodes_{side}nodeids"] = [places[id(node.children[child])] for node in nodes]
        a[f"nodes_{side}leafs"] = [int(node.children[child].mode == "LEAF") for node in nodes]
    a["nodes_modes"] = np.array([MODES.index(node.mode) for node in nodes], np.uint8)
    a["nodes_splits"] = np.array([node.threshold for node in nodes], dtype)
    a["nodes_missing_value_tracks_true"] = [node.missing_true for node in nodes]
    a["leaf_targetids"] = [leaf.votes[0][0] for leaf in leaves]
    a["leaf_weights"] = np.array([leaf.votes[0][1] for leaf in leaves], dtype)
    return a


def plain_sums(trees: list[Branch], x: Array, targets: int, *, first_vote: bool = False) -> Array:
    """Σ of the votes of the leaves that each row reaches, row by row: (N, targets)."""
    total = np.zeros((len(x), targets))
    for row, out in zip(x, total, strict=True):
        for tree in trees:
            votes = tree.leaf(row).votes
            for target, weight in votes[:1] if first_vote else votes:
                out[target] += weight
    return total


def rows(rng: np.random.Generator, count: int, features: int, *, missing: bool = False) -> Array:
    """Multiples of 1/4, so that thresholds are met exactly; NaN in places if asked."""
    x = (rng.integers(-6, 7, (count, features)) / 4).astype(np.float32)
    if missing:
        x[rng.random(x.shape) < 0.1] = np.nan
    return x
