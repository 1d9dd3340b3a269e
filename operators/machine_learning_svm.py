"""SVMClassifier and SVMRegressor of ai.onnx.ml, as LIBSVM defines them: the text names the attributes and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._class_scores import (
    ML,
    UNIT,
    Scores,
    Stored,
    entering,
    label_scale,
    labels_of,
    open_labels,
    pair_of,
    rows,
    sign_scale,
    transformed,
    value_of,
)
from ._svm_kernel import svm_kernel
from ._tracked import UNIFORM, Number, Tracked, matmul
from .registry import kernel, scale
from .scale import Array, Rule, Scale
from .transcendental import LIBRARY

CLASSIFIER, REGRESSOR = "SVMClassifier", "SVMRegressor"

FLAT = 1e-7
"""Probabilities are kept this far from 0 and 1 before they are coupled, as in LIBSVM."""


def _matrix(op_type: str, what: str, values: Sequence[float] | None, shape: tuple[int, int]) -> Array:
    found = np.array([] if values is None else values, np.float64)
    if found.size != shape[0] * shape[1]:
        raise InvalidAttributeError(f"{op_type}: {found.size} {what}; {shape[0]} x {shape[1]} are needed")
    return found.reshape(shape)


def _regression(x: Number, given: dict[str, Any]) -> Number:
    """The value before one_class and post_transform: (N, 1)."""
    features, n = value_of(x).shape[1], int(given.get("n_supports", 0))
    rho = _matrix(REGRESSOR, "values of rho", given.get("rho"), (1, 1))[0]
    coefficients = given.get("coefficients")
    if n <= 0:
        return matmul(x, _matrix(REGRESSOR, "coefficients", coefficients, (features, 1)), features) + rho
    function = svm_kernel(REGRESSOR, given.get("kernel_type", "LINEAR"), given.get("kernel_params"))
    vectors = _matrix(REGRESSOR, "numbers of support_vectors", given.get("support_vectors"), (n, features))
    return _weighted(function(x, vectors), _matrix(REGRESSOR, "coefficients", coefficients, (n, 1))) + rho


def _weighted(k: Number, w: Array) -> Number:
    return matmul(k, w, w.shape[0])


@kernel("SVMRegressor", since=1, domain=ML)
def svm_regressor(
    x: Array,
    /,
    *,
    coefficients: Sequence[float] | None = None,
    kernel_params: Sequence[float] | None = None,
    kernel_type: str = "LINEAR",
    n_supports: int = 0,
    one_class: int = 0,
    post_transform: str = "NONE",
    rho: Sequence[float] | None = None,
    support_vectors: Sequence[float] | None = None,
    stored: Stored = (),
) -> Array:
    """Σ c_j K(x, v_j) + ρ.

    Args:
        x: (N, F) or (F,), any number.
        coefficients: (n_supports,), or (F,) without support vectors: x·c + ρ then.
        kernel_params: gamma, coef0, degree.
        kernel_type: LINEAR, POLY, RBF or SIGMOID.
        n_supports: how many support vectors there are.
        one_class: 1 gives 1 where the value is positive, −1 elsewhere.
        post_transform: NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT.
        rho: one number.
        support_vectors: (n_supports, F), flat.

    Returns:
        (N, 1).

    Raises:
        InvalidAttributeError: sizes that do not go together.

    Spec: SVMRegressor, since 1
    """
    given = {name: value for name, value in locals().items() if name not in ("x", "stored")}
    value = _regression(rows(REGRESSOR, x), given)
    if one_class:
        return np.where(np.asarray(value) > 0, 1.0, -1.0)
    return np.asanyarray(transformed(REGRESSOR, value, post_transform).value)


@scale("SVMRegressor", since=1, domain=ML)
def svm_regressor_scale(y: Array, x: Array, /, *, stored: Stored = (), **attributes: Any) -> Scale:
    """COMPOSED: the kernel's own error, weighted and added; with one_class exact where the sign is certain."""
    raw = _regression(entering(rows(REGRESSOR, x), stored), attributes)
    if attributes.get("one_class"):
        return Scale(np.zeros(()), np.asarray(sign_scale(raw).terms)[:, None], Rule.EXACT)
    return transformed(REGRESSOR, raw, attributes.get("post_transform", "NONE")).scale()


def _decisions(x: Number, given: dict[str, Any], classes: int) -> tuple[Number, bool]:
    """(decision values (N, pairs) of one class against another, or (N, E) of each; whether they are pairs)."""
    features, per_class = value_of(x).shape[1], given.get("vectors_per_class")
    rho = np.array(given.get("rho") or [], np.float64)
    if not per_class or not sum(per_class):
        weights = _matrix(CLASSIFIER, "coefficients", given.get("coefficients"), (classes, features))
        if len(set(rho.tolist())) != 1:
            raise InvalidInputError("SVMClassifier: without support vectors, which rho is whose the text does not say")
        return matmul(x, weights.T, features) + rho[0], False
    if len(per_class) != classes:
        raise InvalidAttributeError(f"{CLASSIFIER}: vectors of {len(per_class)} classes, {classes} labels")
    total = sum(per_class)
    function = svm_kernel(CLASSIFIER, given.get("kernel_type", "LINEAR"), given.get("kernel_params"))
    vectors = _matrix(CLASSIFIER, "numbers of support_vectors", given.get("support_vectors"), (total, features))
    alphas = _matrix(CLASSIFIER, "coefficients", given.get("coefficients"), (classes - 1, total))
    pairs = _pairs(classes)
    if rho.size != len(pairs):
        raise InvalidAttributeError(f"{CLASSIFIER}: {rho.size} values of rho for {len(pairs)} pairs of classes")
    first = np.cumsum([0, *per_class])
    weights = np.zeros((total, len(pairs)))
    for column, (i, j) in enumerate(pairs):
        weights[first[i] : first[i + 1], column] = alphas[j - 1, first[i] : first[i + 1]]
        weights[first[j] : first[j + 1], column] = alphas[i, first[j] : first[j + 1]]
    return _weighted(function(x, vectors), weights) + rho, True


def _pairs(classes: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(classes) for j in range(i + 1, classes)]


def _votes(decisions: Array, classes: int) -> Array:
    """How many pairs each class wins; a positive decision is for the first of the two."""
    found = np.zeros((len(decisions), classes), np.int64)
    for column, (i, j) in enumerate(_pairs(classes)):
        won = decisions[:, column] > 0
        found[:, i] += won
        found[:, j] += ~won
    return found


def _platt(decisions: Number, given: dict[str, Any]) -> Number:
    """1 / (1 + exp(a s + b)) for every pair."""
    a, b = (np.array(given.get(name) or [], np.float64) for name in ("prob_a", "prob_b"))
    if a.size != b.size or a.size != value_of(decisions).shape[1]:
        raise InvalidAttributeError(f"{CLASSIFIER}: {a.size} values of prob_a, {b.size} of prob_b; one for each pair")
    return transformed(CLASSIFIER, -(decisions * a + b), "LOGISTIC").value


def _problem(r: Array, classes: int) -> Array:
    """Q of Wu, Lin and Weng: Q_tt = Σ_s r_st², Q_ts = −r_st r_ts: (N, E, E)."""
    both = np.zeros((len(r), classes, classes))
    for column, (i, j) in enumerate(_pairs(classes)):
        kept = np.clip(r[:, column], FLAT, 1 - FLAT)
        both[:, i, j], both[:, j, i] = kept, 1 - kept
    q = -both * both.swapaxes(1, 2)
    diagonal = np.arange(classes)
    q[:, diagonal, diagonal] = (both**2).sum(axis=1)
    return q


def _coupled(r: Array, classes: int) -> Array:
    """Pairwise probabilities made one distribution by LIBSVM's iteration: (N, pairs) -> (N, E)."""
    q = _problem(r, classes)
    p = np.full((len(r), classes), 1 / classes)
    running = np.ones(len(r), bool)
    for _ in range(max(100, classes)):
        qp = np.einsum("nij,nj->ni", q, p)
        pqp = (p * qp).sum(axis=1)
        running &= np.abs(qp - pqp[:, None]).max(axis=1) >= 0.005 / classes
        if not running.any():
            break
        for t in range(classes):
            step = np.where(running, (pqp - qp[:, t]) / q[:, t, t], 0.0)
            p[:, t] += step
            pqp = (pqp + step * (step * q[:, t, t] + 2 * qp[:, t])) / (1 + step) ** 2
            qp = (qp + step[:, None] * q[:, t]) / (1 + step)[:, None]
            p /= (1 + step)[:, None]
    return p


def _optimum(r: Array, classes: int) -> Array:
    """What the iteration of `_coupled` tends to: the distribution p with Q p constant."""
    q = np.pad(_problem(r, classes), ((0, 0), (0, 1), (0, 1)), constant_values=1.0)
    q[:, classes, classes] = 0.0
    right = np.zeros((len(r), classes + 1, 1))
    right[:, classes] = 1.0
    return np.linalg.solve(q, right)[:, :classes, 0]


STEP = 1e-6
"""Of the difference quotients that stand for derivatives."""


def _probabilities(pairwise: Any, classes: int) -> Any:
    """Coupled probabilities; tracked ones carry the rounding of the pairwise ones through the optimum's sensitivity,
    and as far as an iteration that stops early, or late, may be off: the distance from the optimum."""
    r = value_of(pairwise)
    p = _coupled(r, classes)
    if not isinstance(pairwise, Tracked):
        return p
    moved = np.zeros(p.shape)
    best = _optimum(r, classes)
    for column in range(r.shape[1]):
        shift = np.zeros(r.shape)
        shift[:, column] = STEP
        difference = _optimum(r + shift, classes) - _optimum(r - shift, classes)
        moved += np.abs(difference) / (2 * STEP) * pairwise.bound[:, column : column + 1]
    stop = 2 * np.abs(p - best) / UNIT
    own = LIBRARY * classes + moved + stop
    return Tracked(p, UNIFORM * own**2, own, p)


@dataclass(frozen=True)
class _Result:
    """What a classifier computes: the winner's index, the scores, how far the label is open."""

    index: Array
    scores: Scores
    label: Scale | None


def _classified(x: Number, given: dict[str, Any]) -> _Result:
    labels = labels_of(CLASSIFIER, given.get("classlabels_ints"), given.get("classlabels_strings"))
    classes, post_transform = len(labels), given.get("post_transform", "NONE")
    decisions, paired = _decisions(x, given, classes)
    values = value_of(decisions)
    if not paired:
        final = transformed(CLASSIFIER, decisions, post_transform)
        label = label_scale(decisions, final) if isinstance(decisions, Tracked) else None
        return _Result(values.argmax(axis=1), final, label)
    votes = _votes(np.asarray(values), classes)
    open_ = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
    if isinstance(decisions, Tracked):
        open_ |= ~(np.abs(values) > decisions.bound * UNIT).all(axis=1)
    if given.get("prob_a"):
        probabilities = _probabilities(_platt(decisions, given), classes)
        open_ |= value_of(probabilities).argmax(axis=1) != votes.argmax(axis=1)
        scores = transformed(CLASSIFIER, probabilities, post_transform)
    elif classes == 2:
        scores = _one_pair(decisions, post_transform)
    else:
        scores = transformed(CLASSIFIER, decisions, post_transform)
    return _Result(votes.argmax(axis=1), scores, open_labels(open_))


def _one_pair(decisions: Number, post_transform: str) -> Scores:
    """−s and s, or σ(−s) and σ(s): the implementations there are agree, though a positive s is for the first class."""
    found = pair_of(CLASSIFIER, decisions, post_transform)
    return Scores(found.value, np.zeros((), bool))


@kernel("SVMClassifier", since=1, domain=ML)
def svm_classifier(
    x: Array,
    /,
    *,
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Sequence[float] | None = None,
    kernel_params: Sequence[float] | None = None,
    kernel_type: str = "LINEAR",
    post_transform: str = "NONE",
    prob_a: Sequence[float] | None = None,
    prob_b: Sequence[float] | None = None,
    rho: Sequence[float] | None = None,
    support_vectors: Sequence[float] | None = None,
    vectors_per_class: Sequence[int] | None = None,
    stored: Stored = (),
) -> tuple[Array, Any]:
    """The class that wins most pairs of classes, and the pairs' decision values or the classes' probabilities.

    Args:
        x: (N, F) or (F,), any number.
        classlabels_ints: E labels; or else `classlabels_strings`.
        coefficients: (E − 1, V) as LIBSVM lists them, or (E, F) without support vectors.
        kernel_params: gamma, coef0, degree.
        kernel_type: LINEAR, POLY, RBF or SIGMOID.
        post_transform: NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT.
        prob_a: Platt's coefficients of each pair; so is `prob_b`. With them scores are probabilities.
        rho: of each pair.
        support_vectors: (V, F), flat.
        vectors_per_class: E numbers that add up to V.

    Returns:
        (labels (N,), scores: (N, E) with probabilities or without support vectors, (N, 2) of two classes, else one for
        each pair).

    Raises:
        InvalidAttributeError: sizes that do not go together.
        InvalidInputError: what the text does not define.

    Spec: SVMClassifier, since 1. Probabilities: https://www.jmlr.org/papers/v5/wu04a.html
    """
    given = {name: value for name, value in locals().items() if name not in ("x", "stored")}
    labels = labels_of(CLASSIFIER, classlabels_ints, classlabels_strings)
    found = _classified(rows(CLASSIFIER, x), given)
    return labels[found.index], np.asanyarray(found.scores.value)


@scale("SVMClassifier", since=1, domain=ML)
def svm_classifier_scale(y: Any, x: Array, /, *, stored: Stored = (), **attributes: Any) -> tuple[Scale, ...]:
    """COMPOSED: as SVMRegressor's, through Platt's sigmoid and the coupling; labels are open where a decision value's
    sign is not certain, two classes win alike, or the most probable class is another one."""
    found = _classified(entering(rows(CLASSIFIER, x), stored), attributes)
    label = open_labels(np.zeros((), bool)) if found.label is None else found.label
    return label, found.scores.scale()
