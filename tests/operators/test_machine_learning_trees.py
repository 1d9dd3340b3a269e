"""Tree ensembles: official cases, a plain walk, ONNX Runtime, what the text leaves open, faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.scale import Array

from .ml_nodes import ML, call, check_runs, check_signature_in, outcomes, run_onnxruntime, versions_in
from .node_cases import Case, cases, check_case
from .random_forests import (
    MODES,
    Branch,
    classic_attributes,
    ensemble_attributes,
    grown,
    plain_sums,
    rows,
)

OPERATORS = {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


@pytest.mark.parametrize("case", cases({"TreeEnsemble"}, domain=ML), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions_in(ML, OPERATORS))
def test_kernel_at_every_version_has_the_attributes_of_the_schema(op_type: str, version: int) -> None:
    check_signature_in(ML, op_type, version)


def forest(seed: int, *, trees: int = 12, depth: int = 5, targets: int = 3, modes: list[str] = MODES) -> list[Branch]:
    rng = np.random.default_rng(seed)
    grow = {"depth": depth, "features": 6, "targets": list(range(targets)), "modes": modes}
    return [grown(rng, **grow) for _ in range(trees)]


@pytest.mark.parametrize("seed", range(4))
def test_regressor_adds_the_leaves_of_a_plain_walk(seed: int) -> None:
    trees, x = forest(seed), rows(np.random.default_rng([seed, 1]), 100, 6, missing=True)
    y = call("TreeEnsembleRegressor", x, **classic_attributes(trees, "target"), n_targets=3)
    np.testing.assert_allclose(y, plain_sums(trees, x, 3), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_ensemble_adds_the_leaves_of_a_plain_walk(seed: int) -> None:
    trees, x = forest(seed), rows(np.random.default_rng([seed, 1]), 100, 6, missing=True)
    attributes = ensemble_attributes(trees, np.float32)
    y = call("TreeEnsemble", x, opset=5, n_targets=3, **attributes)
    np.testing.assert_allclose(y, plain_sums(trees, x, 3, first_vote=True), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("post_transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
def test_regressor_of_onnxruntime_passes(dtype: Any, aggregate: str, post_transform: str) -> None:
    trees, x = forest(7), rows(np.random.default_rng(8), 200, 6).astype(dtype)
    attributes = {**classic_attributes(trees, "target"), "n_targets": 3, "aggregate_function": aggregate}
    attributes.update(post_transform=post_transform, base_values=[0.5, -0.1, 0.3])
    check_runs("TreeEnsembleRegressor", x, opset=1, **attributes)


@pytest.mark.parametrize("post_transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("classes", [3, 5])
def test_classifier_of_onnxruntime_passes(post_transform: str, classes: int) -> None:
    trees, x = forest(9, targets=classes, trees=30), rows(np.random.default_rng(8), 200, 6)
    attributes = classic_attributes(trees, "class")
    labels = [f"c{i}" for i in range(classes)]
    ran = check_runs(
        "TreeEnsembleClassifier", x, **attributes, classlabels_strings=labels, post_transform=post_transform
    )
    if post_transform == "NONE":
        sums = plain_sums(trees, x, classes)
        assert [labels[i] for i in sums.argmax(axis=1)] == ran[0].tolist()


@pytest.mark.parametrize("missing", [False, True])
def test_missing_values_of_onnxruntime_pass_where_the_comparison_is_an_order(missing: bool) -> None:
    trees = forest(10, modes=MODES[:5])
    x = rows(np.random.default_rng(8), 200, 6, missing=missing)
    check_runs("TreeEnsembleRegressor", x, **classic_attributes(trees, "target"), n_targets=3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("aggregate", range(4))
def test_ensemble_of_onnxruntime_passes(dtype: Any, aggregate: int) -> None:
    trees, x = forest(11), rows(np.random.default_rng(8), 200, 6).astype(dtype)
    attributes = {**ensemble_attributes(trees, dtype), "n_targets": 3, "aggregate_function": aggregate}
    check_runs("TreeEnsemble", x, opset=5, **attributes)


@pytest.mark.parametrize("post_transform", [1, 2, 3])
def test_transforms_of_an_ensemble_are_told_apart(post_transform: int) -> None:
    """ONNX Runtime 1.32 takes 1 for LOGISTIC and 2 for SOFTMAX, the other way round than the text: one name fits."""
    trees, x = forest(11, trees=3), rows(np.random.default_rng(8), 200, 6)
    attributes = {**ensemble_attributes(trees, np.float32), "n_targets": 3}
    ran = run_onnxruntime("TreeEnsemble", (x,), {**attributes, "post_transform": post_transform}, opset=5)
    fits = []
    for code in range(5):
        if outcomes(ran, "TreeEnsemble", x, opset=5, **{**attributes, "post_transform": code}) == [PASSED]:
            fits.append(code)
    assert fits == [3] if post_transform == 3 else fits in ([1], [2])


def test_transform_of_doubles_in_float32_is_caught() -> None:
    """As ONNX Runtime 1.32 computes it."""
    trees, x = forest(11), rows(np.random.default_rng(8), 50, 6).astype(np.float64)
    attributes = {**ensemble_attributes(trees, np.float64), "n_targets": 3, "post_transform": 2}
    y = call("TreeEnsemble", x, opset=5, **attributes)
    assert outcomes([y], "TreeEnsemble", x, opset=5, **attributes) == [PASSED]
    narrow = y.astype(np.float32).astype(np.float64)
    assert outcomes([narrow], "TreeEnsemble", x, opset=5, **attributes) == [FAILED]


def test_double_weights_are_compared_and_added_in_double() -> None:
    trees, x = forest(12), rows(np.random.default_rng(8), 100, 6).astype(np.float64)
    attributes = classic_attributes(trees, "target")
    x[:, 0] += 1e-12
    attributes["nodes_values_as_tensor"] = np.array(attributes.pop("nodes_values"), np.float64)
    attributes["target_weights_as_tensor"] = np.array(attributes.pop("target_weights"), np.float64) + 1e-12
    (ran,) = check_runs("TreeEnsembleRegressor", x, opset=3, **attributes, n_targets=3)
    assert ran.dtype == np.float32
    narrow = run_onnxruntime("TreeEnsembleRegressor", (np.round(x, 6),), {**attributes, "n_targets": 3}, opset=3)
    assert outcomes(narrow, "TreeEnsembleRegressor", x, opset=3, **attributes, n_targets=3) == [FAILED]


def changed(attributes: dict[str, Any], fault: str) -> dict[str, Any]:
    """Attributes that make a right runtime compute what a wrong one would of the given ones."""
    a = {name: list(value) if isinstance(value, list) else value for name, value in attributes.items()}
    swaps = {"<": ("BRANCH_LEQ", "BRANCH_LT"), ">": ("BRANCH_GTE", "BRANCH_GT")}
    if fault in swaps:
        old, new = swaps[fault]
        a["nodes_modes"] = [new if mode == old else mode for mode in a["nodes_modes"]]
    elif fault == "branches":
        a["nodes_truenodeids"], a["nodes_falsenodeids"] = a["nodes_falsenodeids"], a["nodes_truenodeids"]
    elif fault == "feature":
        a["nodes_featureids"] = [(f + 1) % 6 for f in a["nodes_featureids"]]
    elif fault == "missing":
        a["nodes_missing_value_tracks_true"] = [0] * len(a["nodes_modes"])
    elif fault == "base":
        del a["base_values"]
    elif fault == "last tree":
        last = a["target_treeids"][-1]
        a["target_weights"] = [w * (t != last) for w, t in zip(a["target_weights"], a["target_treeids"], strict=True)]
    else:
        name, value = fault.split("=")
        a[name] = value
    return a


FAULTS = [
    "<",
    ">",
    "branches",
    "feature",
    "missing",
    "base",
    "last tree",
    "aggregate_function=SUM",
    "aggregate_function=MAX",
    "post_transform=NONE",
    "post_transform=SOFTMAX",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_a_regressor_is_caught(fault: str) -> None:
    trees, x = forest(13), rows(np.random.default_rng(8), 100, 6, missing=True)
    attributes = {**classic_attributes(trees, "target"), "n_targets": 3, "base_values": [0.5, -0.1, 0.3]}
    attributes.update(aggregate_function="AVERAGE", post_transform="LOGISTIC")
    wrong = call("TreeEnsembleRegressor", x, **changed(attributes, fault)).astype(np.float32)
    assert outcomes([wrong], "TreeEnsembleRegressor", x, **attributes) == [FAILED]
    right = call("TreeEnsembleRegressor", x, **attributes).astype(np.float32)
    assert outcomes([right], "TreeEnsembleRegressor", x, **attributes) == [PASSED]


@pytest.mark.parametrize("seed", [1, 2])
def test_one_wrong_vote_among_many_trees_is_caught(seed: int) -> None:
    trees, x = forest(14, trees=100), rows(np.random.default_rng(seed), 50, 6)
    attributes = {**classic_attributes(trees, "target"), "n_targets": 3}
    y = plain_sums(trees, x, 3).astype(np.float32)
    assert outcomes([y], "TreeEnsembleRegressor", x, **attributes) == [PASSED]
    y[17, 1] += np.float32(1e-3)
    assert outcomes([y], "TreeEnsembleRegressor", x, **attributes) == [FAILED]


STUMP: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [0, 0, 0],
    "nodes_values": [0.25, 0.0, 0.0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
}
X = np.array([[1.0], [0.25], [0.0], [np.nan]], np.float32)


def stump_classifier(weights: list[float], **changes: Any) -> dict[str, Any]:
    votes = {"class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 0], "class_weights": weights}
    return {**STUMP, **votes, "classlabels_int64s": [7, 9], **changes}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tracks_true", [0, 1])
def test_missing_value_takes_the_branch_that_is_said_in_every_mode(mode: str, tracks_true: int) -> None:
    """NaN != threshold is true by IEEE 754, and so for ONNX Runtime; the text names the branch for every mode."""
    attributes = {
        **STUMP,
        "nodes_modes": [mode, "LEAF", "LEAF"],
        "nodes_missing_value_tracks_true": [tracks_true, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    y = call("TreeEnsembleRegressor", X, **attributes)
    assert y[3, 0] == 2 - tracks_true
    if mode != "BRANCH_NEQ":
        check_runs("TreeEnsembleRegressor", X, **attributes)
    y[3, 0] = 1 + tracks_true
    assert outcomes([y.astype(np.float32)], "TreeEnsembleRegressor", X, **attributes) == [FAILED]


@pytest.mark.parametrize("weights", [[0.125, 0.75], [-0.125, 0.75]])
@pytest.mark.parametrize("post_transform", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("base", [None, [0.0625]])
def test_one_score_for_two_classes_is_the_second_class_s(
    weights: list[float], post_transform: str, base: list[float] | None
) -> None:
    attributes = stump_classifier(weights, post_transform=post_transform)
    if base is not None:
        attributes["base_values"] = base
    labels, scores = check_runs("TreeEnsembleClassifier", X, **attributes)
    s = np.array([weights[1], weights[0], weights[0], weights[1]]) + (0 if base is None else base[0])
    expected = s if post_transform == "NONE" else 1 / (1 + np.exp(-s))
    np.testing.assert_allclose(call("TreeEnsembleClassifier", X, **attributes)[1][:, 1], expected, rtol=1e-14)
    wrong = [labels[::-1].copy(), scores + np.array([[0, 1e-3]], np.float32)]
    swapped = [7, 9, 9, 7]
    assert outcomes(wrong, "TreeEnsembleClassifier", X, **attributes)[1] is FAILED
    assert outcomes([np.array(swapped), scores], "TreeEnsembleClassifier", X, **attributes) == [FAILED, PASSED]


@pytest.mark.parametrize("post_transform", ["SOFTMAX", "SOFTMAX_ZERO", "PROBIT"])
def test_mixing_one_score_for_two_classes_is_left_unjudged(post_transform: str) -> None:
    with pytest.raises(InvalidInputError, match="does not say"):
        call("TreeEnsembleClassifier", X, **stump_classifier([0.2, 0.7], post_transform=post_transform))


def test_two_classes_that_are_both_voted_for_have_their_own_labels() -> None:
    """Where ONNX Runtime 1.32 returns 0 or 1 whatever the labels are."""
    attributes = stump_classifier([0.2, 0.8, 0.7, 0.1])
    attributes.update(class_treeids=[0] * 4, class_nodeids=[1, 1, 2, 2], class_ids=[0, 1, 0, 1])
    labels, scores = call("TreeEnsembleClassifier", X, **attributes)
    assert labels.tolist() == [7, 9, 9, 7]
    stored = scores.astype(np.float32)
    assert outcomes([np.ones(4, np.int64), stored], "TreeEnsembleClassifier", X, **attributes) == [FAILED, PASSED]
    assert outcomes([labels, stored], "TreeEnsembleClassifier", X, **attributes) == [PASSED, PASSED]


def test_label_is_open_in_a_tie_and_wrong_beyond_it() -> None:
    attributes = stump_classifier([0.5, 0.5, 0.5, 0.25])
    attributes.update(class_treeids=[0] * 4, class_nodeids=[1, 1, 2, 2], class_ids=[0, 1, 0, 1])
    scores = call("TreeEnsembleClassifier", X, **attributes)[1].astype(np.float32)
    for tied in (7, 9):
        labels = np.array([7, tied, tied, 7])
        assert outcomes([labels, scores], "TreeEnsembleClassifier", X, **attributes) == [PASSED, PASSED]
    assert outcomes([np.array([9, 7, 7, 7]), scores], "TreeEnsembleClassifier", X, **attributes) == [FAILED, PASSED]


def test_row_whose_branch_rounding_decides_is_open() -> None:
    x = np.array([[0.25 + 1e-12], [0.3], [0.25]])
    attributes = {**STUMP, "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0], "n_targets": 1}
    attributes["target_weights"] = [1.0, 2.0]
    for first in (1, 2):
        y = np.array([[first], [2], [1]], np.float32)
        assert outcomes([y], "TreeEnsembleRegressor", x, **attributes) == [PASSED]
    assert outcomes([np.array([[1], [1], [1]], np.float32)], "TreeEnsembleRegressor", x, **attributes) == [FAILED]


def test_single_leaf_is_a_tree() -> None:
    attributes = {
        "nodes_treeids": [0],
        "nodes_nodeids": [0],
        "nodes_featureids": [0],
        "nodes_values": [0.0],
        "nodes_modes": ["LEAF"],
        "nodes_truenodeids": [0],
        "nodes_falsenodeids": [0],
        "target_treeids": [0],
        "target_nodeids": [0],
        "target_ids": [0],
        "target_weights": [3.5],
        "n_targets": 1,
    }
    (ran,) = check_runs("TreeEnsembleRegressor", X, **attributes)
    assert ran.tolist() == [[3.5]] * 4


SETS: dict[str, Any] = {
    "nodes_featureids": [0, 0],
    "nodes_modes": np.array([6, 6], np.uint8),
    "nodes_splits": np.array([0, 0], np.float32),
    "nodes_trueleafs": [1, 1],
    "nodes_falseleafs": [0, 1],
    "nodes_truenodeids": [0, 1],
    "nodes_falsenodeids": [1, 2],
    "leaf_targetids": [0, 0, 0],
    "leaf_weights": np.array([1, 2, 3], np.float32),
    "membership_values": np.array([0, 2, np.nan, 0, 5, np.nan], np.float32),
    "n_targets": 1,
    "tree_roots": [0],
}


def test_sets_of_members_belong_to_the_nodes_in_their_order() -> None:
    x = np.array([[0], [2], [5], [1], [-0.0], [np.nan]], np.float32)
    assert call("TreeEnsemble", x, opset=5, **SETS).ravel().tolist() == [1, 1, 2, 3, 1, 3]
    check_runs("TreeEnsemble", x[:5], opset=5, **SETS)


@pytest.mark.parametrize(
    ("op_type", "opset", "change", "error", "message"),
    [
        ("TreeEnsemble", 5, {"membership_values": np.array([1, np.nan], np.float32)}, InvalidAttributeError, "sets"),
        ("TreeEnsemble", 5, {"nodes_truenodeids": [0, 3]}, InvalidAttributeError, "outside"),
        ("TreeEnsemble", 5, {"nodes_falsenodeids": [0, 2]}, InvalidAttributeError, "circle"),
        ("TreeEnsemble", 5, {"leaf_targetids": [0, 0, 1]}, InvalidAttributeError, "targets"),
        ("TreeEnsemble", 5, {"aggregate_function": 4}, InvalidAttributeError, "aggregate_function"),
        ("TreeEnsemble", 5, {"nodes_featureids": [0, 3]}, InvalidInputError, "feature 3"),
        ("TreeEnsembleClassifier", 1, {"nodes_values": [0.0]}, InvalidAttributeError, "lengths"),
        ("TreeEnsembleClassifier", 1, {"nodes_modes": ["LESS", "LEAF", "LEAF"]}, InvalidAttributeError, "LESS"),
        ("TreeEnsembleClassifier", 1, {"class_nodeids": [0, 2]}, InvalidAttributeError, "no leaf"),
        ("TreeEnsembleClassifier", 1, {"classlabels_strings": ["a", "b"]}, InvalidAttributeError, "not both"),
        ("TreeEnsembleClassifier", 1, {"base_values": [1.0, 2.0]}, InvalidAttributeError, "base values"),
        ("TreeEnsembleClassifier", 1, {"post_transform": "EXP"}, InvalidInputError, "EXP"),
    ],
)
def test_impossible_trees_are_named(op_type: str, opset: int, change: dict[str, Any], error: Any, message: str) -> None:
    attributes = SETS if op_type == "TreeEnsemble" else stump_classifier([0.2, 0.7])
    with pytest.raises(error, match=message):
        call(op_type, np.ones((1, 1), np.float32), opset=opset, **{**attributes, **change})


def test_no_rows_give_no_scores() -> None:
    x: Array = np.zeros((0, 1), np.float32)
    labels, scores = call("TreeEnsembleClassifier", x, **stump_classifier([0.2, 0.7]))
    assert labels.shape == (0,)
    assert scores.shape == (0, 2)
