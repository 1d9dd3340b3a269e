"""LinearClassifier, LinearRegressor: scikit-learn, ONNX Runtime, transforms at 50 digits, what is open, faults."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.scale import Array

from .ml_nodes import ML, call, check_runs, check_signature_in, outcomes, versions_in

OPERATORS = {"LinearClassifier", "LinearRegressor"}
PASSED, FAILED = Outcome.PASSED, Outcome.FAILED
TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]


@pytest.mark.parametrize(("op_type", "version"), versions_in(ML, OPERATORS))
def test_kernel_has_the_attributes_of_the_schema(op_type: str, version: int) -> None:
    check_signature_in(ML, op_type, version)


def model(seed: int, classes: int, *, features: int = 7) -> tuple[Array, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, features)).astype(np.float32)
    w, b = rng.standard_normal((classes, features)), rng.standard_normal(classes)
    floats = {"coefficients": w.ravel().tolist(), "intercepts": b.tolist()}
    return x, floats


def classifier(seed: int, classes: int, post_transform: str = "NONE") -> tuple[Array, dict[str, Any]]:
    x, floats = model(seed, classes)
    return x, {**floats, "classlabels_ints": [10 * i for i in range(1, classes + 1)], "post_transform": post_transform}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("post_transform", TRANSFORMS)
@pytest.mark.parametrize("seed", [1, 2])
def test_classifier_of_onnxruntime_passes(dtype: Any, post_transform: str, seed: int) -> None:
    x, attributes = classifier(seed, 4, post_transform)
    check_runs("LinearClassifier", (x * 3).astype(dtype), **attributes)


@pytest.mark.parametrize("post_transform", TRANSFORMS)
def test_regressor_of_onnxruntime_passes(post_transform: str) -> None:
    x, floats = model(3, 3)
    check_runs("LinearRegressor", x, **floats, targets=3, post_transform=post_transform)


def test_classifier_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(4)
    x = rng.standard_normal((80, 4))
    learnt = linear_model.LogisticRegression().fit(x, rng.integers(0, 3, 80))
    attributes = {
        "coefficients": np.float32(learnt.coef_).ravel().tolist(),
        "intercepts": np.float32(learnt.intercept_).tolist(),
        "classlabels_ints": [0, 1, 2],
    }
    learnt.coef_, learnt.intercept_ = (np.float32(v).astype(np.float64) for v in (learnt.coef_, learnt.intercept_))
    labels, scores = call("LinearClassifier", x, **attributes, post_transform="SOFTMAX")
    np.testing.assert_array_equal(labels, learnt.predict(x))
    np.testing.assert_allclose(scores, learnt.predict_proba(x), rtol=1e-12)


def exactly(row: list[Any], post_transform: str) -> list[float]:
    """The transform of a row at the working precision of mpmath."""
    scores = [mpmath.mpf(v) for v in row]
    if post_transform == "LOGISTIC":
        return [float(1 / (1 + mpmath.exp(-v))) for v in scores]
    if post_transform == "PROBIT":
        return [float(mpmath.sqrt(2) * mpmath.erfinv(2 * v - 1)) if v else -np.inf for v in scores]
    powers = [mpmath.exp(v) * (v != 0 or post_transform == "SOFTMAX") for v in scores]
    return [float(power / sum(powers)) for power in powers]


@pytest.mark.parametrize("post_transform", ["LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"])
def test_transforms_agree_with_fifty_digits(post_transform: str) -> None:
    """Of scores that are the inputs themselves."""
    x = np.array([[0.5, 0.25, 0.0], [0.99, 1e-3, 0.5], [0.75, 0.75, 0.001]])
    if post_transform != "PROBIT":
        x = x * np.array([[60.0], [1.0], [-30.0]])
    eye = {"coefficients": np.eye(3).ravel().tolist(), "targets": 3, "post_transform": post_transform}
    y = call("LinearRegressor", x, **eye)
    with mpmath.workdps(50):
        expected = [exactly(row, post_transform) for row in x.tolist()]
    np.testing.assert_allclose(y, expected, rtol=1e-13)


def test_quantile_that_is_approximated_is_caught() -> None:
    """Winitzki's formula with a = 0.147, as ONNX Runtime and the reference evaluator have it, is right to 2 digits."""
    p = np.linspace(0.05, 0.95, 19).reshape(-1, 1)
    attributes = {"coefficients": [1.0], "post_transform": "PROBIT"}
    y = call("LinearRegressor", p, **attributes)
    assert outcomes([y.astype(np.float32)], "LinearRegressor", p, **attributes) == [PASSED]
    log = np.log((2 - 2 * p) * (2 * p))
    v = 2 / (np.pi * 0.147) + log / 2
    rough = np.sign(p - 0.5) * np.sqrt(2) * np.sqrt(-v + np.sqrt(v * v - log / 0.147))
    assert np.abs(rough - y).max() < 0.02
    assert outcomes([rough.astype(np.float32)], "LinearRegressor", p, **attributes) == [FAILED]


def plain(x: Array, attributes: dict[str, Any], fault: str) -> list[Array]:
    """Labels and scores of a float32 implementation, with one of `FAULTS` if named."""
    labels = np.array(attributes["classlabels_ints"])
    w = np.array(attributes["coefficients"], np.float32).reshape(len(labels), -1)
    w = w.reshape(w.shape[::-1]).T if fault == "weights transposed" else w
    b = np.array(attributes["intercepts"], np.float32) * (fault != "intercepts ignored")
    s = x @ w.T + b
    index = s.argmin(axis=1) if fault == "smallest wins" else s.argmax(axis=1)
    index = (index + 1) % len(labels) if fault == "label off by one" else index
    e = np.exp(s - s.max(axis=1, keepdims=True))
    if fault != "not divided":
        e = e / e.sum(axis=0 if fault == "other axis" else 1, keepdims=True)
    return [labels[index], s if fault == "no transform" else 1 / (1 + np.exp(-s)) if fault == "logistic" else e]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", [PASSED, PASSED]),
        ("weights transposed", [FAILED, FAILED]),
        ("intercepts ignored", [FAILED, FAILED]),
        ("smallest wins", [FAILED, PASSED]),
        ("label off by one", [FAILED, PASSED]),
        ("not divided", [PASSED, FAILED]),
        ("other axis", [PASSED, FAILED]),
        ("no transform", [PASSED, FAILED]),
        ("logistic", [PASSED, FAILED]),
    ],
)
def test_fault_in_a_classifier_is_caught(fault: str, expected: list[Outcome]) -> None:
    x, attributes = classifier(5, 4, "SOFTMAX")
    assert outcomes(plain(x, attributes, fault), "LinearClassifier", x, **attributes) == expected


@pytest.mark.parametrize("post_transform", TRANSFORMS)
def test_one_wrong_score_is_caught(post_transform: str) -> None:
    x, attributes = classifier(6, 4, post_transform)
    labels, scores = call("LinearClassifier", x, **attributes)
    scores = scores.astype(np.float32)
    assert outcomes([labels, scores], "LinearClassifier", x, **attributes) == [PASSED, PASSED]
    scores[7, 2] += np.float32(1e-4)
    assert outcomes([labels, scores], "LinearClassifier", x, **attributes) == [PASSED, FAILED]


@pytest.mark.parametrize("post_transform", ["NONE", "LOGISTIC"])
def test_one_score_decides_between_two_classes_by_its_sign(post_transform: str) -> None:
    x, floats = model(7, 1)
    attributes = {**floats, "classlabels_strings": ["no", "yes"], "post_transform": post_transform}
    labels, scores = check_runs("LinearClassifier", x, **attributes)
    s = x.astype(np.float64) @ np.float32(floats["coefficients"]) + np.float32(floats["intercepts"])
    assert labels.tolist() == ["yes" if v > 0 else "no" for v in s]
    scores[:, 0] += 1  # −s, 1 − s or σ(−s)
    expected = [PASSED, PASSED if post_transform == "NONE" else FAILED]
    assert outcomes([labels, scores], "LinearClassifier", x, **attributes) == expected
    scores[0, 1] += np.float32(1e-3)
    assert outcomes([labels[::-1].copy(), scores], "LinearClassifier", x, **attributes) == [FAILED, FAILED]


@pytest.mark.parametrize("post_transform", ["SOFTMAX", "SOFTMAX_ZERO", "PROBIT"])
def test_mixing_one_score_for_two_classes_is_left_unjudged(post_transform: str) -> None:
    x, floats = model(7, 1)
    with pytest.raises(InvalidInputError, match="does not say"):
        call("LinearClassifier", x, **floats, classlabels_ints=[1, 2], post_transform=post_transform)


@pytest.mark.parametrize(("post_transform", "expected"), [("SOFTMAX", 1.0), ("LOGISTIC", 0.5)])
def test_transform_of_a_single_target_is_not_left_out(post_transform: str, expected: float) -> None:
    """ONNX Runtime 1.32 returns x·w + b there whatever the transform is."""
    x = np.zeros((3, 2), np.float32)
    attributes = {"coefficients": [1.0, 2.0], "post_transform": post_transform}
    assert call("LinearRegressor", x, **attributes).tolist() == [[expected]] * 3
    assert outcomes([np.zeros((3, 1), np.float32)], "LinearRegressor", x, **attributes) == [FAILED]


def test_label_that_rounding_decides_is_open() -> None:
    x = np.array([[1.0], [1.0 + 2**-20]], np.float32)
    attributes = {"coefficients": [1.0, -1.0], "intercepts": [-1.0, 1.0], "classlabels_ints": [1, 2]}
    scores = call("LinearClassifier", x, **attributes)[1].astype(np.float32)
    for tied in (1, 2):
        assert outcomes([np.array([tied, 1]), scores], "LinearClassifier", x, **attributes) == [PASSED, PASSED]
    assert outcomes([np.array([1, 2]), scores], "LinearClassifier", x, **attributes) == [FAILED, PASSED]


def test_row_of_zeros_and_near_zeros_is_open_behind_softmax_zero() -> None:
    x = np.array([[0.0, 0.0], [1e-8, 1.0], [0.0, 2.0]], np.float32)
    attributes = {"coefficients": [1.0, 0.0, 0.0, 1.0], "targets": 2, "post_transform": "SOFTMAX_ZERO"}
    y = call("LinearRegressor", x, **attributes).astype(np.float32)
    assert y[2].tolist() == [0, 1]
    y[:2] = 0.25
    assert outcomes([y], "LinearRegressor", x, **attributes) == [PASSED]
    y[2] = 0.5
    assert outcomes([y], "LinearRegressor", x, **attributes) == [FAILED]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"coefficients": [1.0]}, InvalidAttributeError, "1 coefficients"),
        ({"intercepts": [1.0]}, InvalidAttributeError, "1 intercepts"),
        ({"classlabels_ints": [1, 2]}, InvalidInputError, "4 rows"),
        ({"classlabels_ints": None}, InvalidAttributeError, "labels"),
        ({"classlabels_strings": ["a"]}, InvalidAttributeError, "not both"),
        ({"post_transform": "EXP"}, InvalidAttributeError, "EXP"),
    ],
)
def test_impossible_classifier_is_named(change: dict[str, Any], error: Any, message: str) -> None:
    x, attributes = classifier(8, 4)
    with pytest.raises(error, match=message):
        call("LinearClassifier", x, **{**attributes, **change})


def test_targets_that_do_not_fit_are_named() -> None:
    x, floats = model(8, 4)
    with pytest.raises(InvalidAttributeError, match="3 targets"):
        call("LinearRegressor", x, **floats, targets=3)
    with pytest.raises(InvalidInputError, match="rank 1 or 2"):
        call("LinearRegressor", x[None], **floats, targets=4)
