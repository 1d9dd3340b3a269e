"""SVMClassifier, SVMRegressor: scikit-learn's LIBSVM, ONNX Runtime, what is open, faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.scale import Array

from .ml_nodes import ML, call, check_runs, check_signature_in, outcomes, versions_in

OPERATORS = {"SVMClassifier", "SVMRegressor"}
KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]
PASSED, FAILED = Outcome.PASSED, Outcome.FAILED

svm = pytest.importorskip("sklearn.svm")


@pytest.mark.parametrize(("op_type", "version"), versions_in(ML, OPERATORS))
def test_kernel_has_the_attributes_of_the_schema(op_type: str, version: int) -> None:
    check_signature_in(ML, op_type, version)


def drawn(seed: int, rows: int = 60, features: int = 5) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, features)).astype(np.float32)


def regressor(seed: int, kernel_type: str, vectors: int = 20) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 1])
    return {
        "kernel_type": kernel_type,
        "kernel_params": [0.25, 0.125, 3.0],
        "coefficients": rng.standard_normal(vectors).tolist(),
        "support_vectors": rng.standard_normal((vectors, 5)).ravel().tolist(),
        "n_supports": vectors,
        "rho": [0.5],
    }


def classifier(seed: int, kernel_type: str, per_class: list[int], *, probable: bool = False) -> dict[str, Any]:
    rng, classes, vectors = np.random.default_rng([seed, 2]), len(per_class), sum(per_class)
    pairs = classes * (classes - 1) // 2
    attributes = {
        "kernel_type": kernel_type,
        "kernel_params": [0.25, 0.125, 3.0],
        "coefficients": rng.standard_normal((classes - 1, vectors)).ravel().tolist(),
        "support_vectors": rng.standard_normal((vectors, 5)).ravel().tolist(),
        "vectors_per_class": per_class,
        "rho": rng.standard_normal(pairs).tolist(),
        "classlabels_ints": [7 * i for i in range(1, classes + 1)],
    }
    if probable:
        attributes.update(prob_a=(-rng.random(pairs) - 0.5).tolist(), prob_b=rng.standard_normal(pairs).tolist())
    return attributes


@pytest.mark.parametrize("kernel_type", KERNELS)
@pytest.mark.parametrize("seed", [1, 2])
def test_regressor_of_onnxruntime_passes(kernel_type: str, seed: int) -> None:
    check_runs("SVMRegressor", drawn(seed), **regressor(seed, kernel_type))


@pytest.mark.parametrize("kernel_type", KERNELS)
@pytest.mark.parametrize("per_class", [[8, 12], [6, 9, 5], [4, 4, 4, 4]], ids=str)
@pytest.mark.parametrize("probable", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classifier_of_onnxruntime_passes(kernel_type: str, per_class: list[int], probable: bool, dtype: Any) -> None:
    x = drawn(3).astype(dtype)
    check_runs("SVMClassifier", x, **classifier(3, kernel_type, per_class, probable=probable))


@pytest.mark.parametrize("post_transform", ["LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("probable", [False, True])
def test_transformed_scores_of_onnxruntime_pass(post_transform: str, probable: bool) -> None:
    attributes = classifier(4, "RBF", [6, 9, 5], probable=probable)
    check_runs("SVMClassifier", drawn(4), **attributes, post_transform=post_transform)


def from_libsvm(learnt: Any) -> dict[str, Any]:
    """Attributes of a fitted SVC or SVR."""
    name = {"linear": "LINEAR", "poly": "POLY", "rbf": "RBF", "sigmoid": "SIGMOID"}[learnt.kernel]
    return {
        "kernel_type": name,
        "kernel_params": [learnt._gamma, learnt.coef0, float(learnt.degree)],
        "coefficients": learnt._dual_coef_.ravel().tolist(),
        "support_vectors": learnt.support_vectors_.ravel().tolist(),
        "rho": learnt._intercept_.ravel().tolist(),
    }


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
@pytest.mark.parametrize("classes", [2, 4])
def test_votes_and_decisions_are_those_of_libsvm(kernel: str, classes: int) -> None:
    rng, x = np.random.default_rng(5), drawn(5).astype(np.float64)
    kind = rng.integers(0, classes, len(x))
    learnt = svm.SVC(kernel=kernel, gamma=0.25, coef0=0.125, decision_function_shape="ovo").fit(x, kind)
    attributes = from_libsvm(learnt)
    attributes.update(vectors_per_class=learnt.n_support_.tolist(), classlabels_ints=list(range(classes)))
    labels, scores = call("SVMClassifier", x, **attributes)
    decisions = learnt.decision_function(x)
    assert (labels == learnt.predict(x)).mean() > 0.95  # attributes are float32: a sign may turn
    expected = decisions if classes > 2 else np.stack([decisions, -decisions], axis=1)
    np.testing.assert_allclose(scores, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_regression_and_novelty_are_those_of_libsvm(kernel: str) -> None:
    rng, x = np.random.default_rng(6), drawn(6).astype(np.float64)
    learnt = svm.SVR(kernel=kernel, gamma=0.25).fit(x, rng.standard_normal(len(x)))
    attributes = {**from_libsvm(learnt), "n_supports": len(learnt.support_)}
    np.testing.assert_allclose(call("SVMRegressor", x, **attributes)[:, 0], learnt.predict(x), rtol=1e-5, atol=1e-5)
    novelty = svm.OneClassSVM(kernel=kernel, gamma=0.25).fit(x)
    attributes = {**from_libsvm(novelty), "n_supports": len(novelty.support_), "one_class": 1}
    assert (call("SVMRegressor", x, **attributes)[:, 0] == novelty.predict(x)).mean() > 0.95


def test_probabilities_solve_the_coupling_problem() -> None:
    """Wu, Lin and Weng: p minimises Σ (r_ji p_i − r_ij p_j)²; LIBSVM's iteration stops at a gradient of 0.005 / k."""
    x, attributes = drawn(7), classifier(7, "RBF", [6, 9, 5], probable=True)
    _, p = call("SVMClassifier", x, **attributes)
    plain = {name: value for name, value in attributes.items() if not name.startswith("prob")}
    _, s = call("SVMClassifier", x, **plain)
    a, b = np.float32(attributes["prob_a"]).astype(float), np.float32(attributes["prob_b"]).astype(float)
    pairwise = 1 / (1 + np.exp(a * s + b))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    for row, chances in zip(p, pairwise, strict=True):
        r = np.zeros((3, 3))
        for (i, j), chance in zip([(0, 1), (0, 2), (1, 2)], chances, strict=True):
            r[i, j], r[j, i] = chance, 1 - chance
        q = np.diag((r**2).sum(axis=0)) - r.T * r
        gradient = q @ row - row @ q @ row
        assert np.abs(gradient).max() <= 0.005 / 3


def plain_decisions(x: Array, attributes: dict[str, Any], fault: str) -> Array:
    """The one pair's decision value in float64, with one of the faults if named."""
    per_class = attributes["vectors_per_class"]
    vectors = np.float32(attributes["support_vectors"]).reshape(sum(per_class), -1).astype(float)
    weights = np.float32(attributes["coefficients"]).astype(float)
    gamma = 0.5 if fault == "gamma" else 0.25
    squares = ((x[:, None].astype(float) - vectors) ** 2).sum(axis=2)
    k = np.exp(-gamma * (np.sqrt(squares) if fault == "distance not squared" else squares))
    if fault == "last vector left out":
        k[:, -1] = 0
    return k @ weights + np.float32(attributes["rho"][0]) * {"rho subtracted": -1, "rho ignored": 0}.get(fault, 1)


@pytest.mark.parametrize(
    "fault", ["gamma", "distance not squared", "last vector left out", "rho subtracted", "rho ignored", ""]
)
@pytest.mark.parametrize("post_transform", ["NONE", "LOGISTIC"])
def test_fault_in_a_classifier_is_caught(fault: str, post_transform: str) -> None:
    x, attributes = drawn(8), classifier(8, "RBF", [8, 12])
    s = plain_decisions(x, attributes, fault)
    scores = np.stack([-s, s], axis=1)
    scores = scores if post_transform == "NONE" else 1 / (1 + np.exp(-scores))
    stored = [np.where(s > 0, 7, 14), scores.astype(np.float32)]
    found = outcomes(stored, "SVMClassifier", x, **attributes, post_transform=post_transform)
    assert found[1] is (FAILED if fault else PASSED)
    turned = [stored[0][::-1].copy(), stored[1]]
    assert outcomes(turned, "SVMClassifier", x, **attributes, post_transform=post_transform)[0] is FAILED


@pytest.mark.parametrize("fault", ["a ignored", "b ignored", "complement", "not coupled"])
def test_fault_in_probabilities_is_caught(fault: str) -> None:
    x, attributes = drawn(9), classifier(9, "RBF", [6, 9, 5], probable=True)
    labels, p = call("SVMClassifier", x, **attributes)
    changed = dict(attributes)
    if fault == "a ignored":
        changed["prob_a"] = [-1.0] * 3
    if fault == "b ignored":
        changed["prob_b"] = [0.0] * 3
    wrong = call("SVMClassifier", x, **changed)[1]
    wrong = (
        1 - p
        if fault == "complement"
        else np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
        if fault == "not coupled"
        else wrong
    )
    assert outcomes([labels, p.astype(np.float32)], "SVMClassifier", x, **attributes) == [PASSED, PASSED]
    assert outcomes([labels, wrong.astype(np.float32)], "SVMClassifier", x, **attributes) == [PASSED, FAILED]


def test_transform_of_a_regression_is_not_left_out() -> None:
    """ONNX Runtime 1.32 returns the value itself whatever the transform is."""
    x, attributes = drawn(10), regressor(10, "RBF")
    plain = call("SVMRegressor", x, **attributes)
    y = call("SVMRegressor", x, **attributes, post_transform="LOGISTIC")
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-plain)), rtol=1e-13)
    stored = plain.astype(np.float32)
    assert outcomes([stored], "SVMRegressor", x, **attributes) == [PASSED]
    assert outcomes([stored], "SVMRegressor", x, **attributes, post_transform="LOGISTIC") == [FAILED]


def test_novelty_is_exact_where_the_sign_is_certain() -> None:
    x = drawn(11)
    attributes = {**regressor(11, "RBF"), "one_class": 1}
    (y,) = check_runs("SVMRegressor", x, **attributes)
    assert set(y.ravel().tolist()) == {-1.0, 1.0}
    y[5] *= -1
    assert outcomes([y], "SVMRegressor", x, **attributes) == [FAILED]


@pytest.mark.parametrize("post_transform", ["SOFTMAX", "SOFTMAX_ZERO", "PROBIT"])
def test_mixing_one_decision_for_two_classes_is_left_unjudged(post_transform: str) -> None:
    with pytest.raises(InvalidInputError, match="does not say"):
        call("SVMClassifier", drawn(1), **classifier(1, "RBF", [8, 12]), post_transform=post_transform)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kernel_type": "CHI2"}, InvalidAttributeError, "CHI2"),
        ({"kernel_params": [1.0]}, InvalidAttributeError, "kernel_params"),
        ({"rho": [1.0]}, InvalidAttributeError, "3 pairs"),
        ({"support_vectors": [1.0]}, InvalidAttributeError, "support_vectors"),
        ({"coefficients": [1.0]}, InvalidAttributeError, "coefficients"),
        ({"vectors_per_class": [20]}, InvalidAttributeError, "3 labels"),
        ({"prob_a": [1.0]}, InvalidAttributeError, "prob_a"),
        ({"vectors_per_class": None, "coefficients": [1.0] * 15}, InvalidInputError, "rho"),
    ],
)
def test_impossible_machine_is_named(change: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call("SVMClassifier", drawn(1), **{**classifier(1, "RBF", [6, 9, 5]), **change})
