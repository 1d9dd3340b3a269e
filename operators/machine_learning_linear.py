"""LinearClassifier and LinearRegressor of ai.onnx.ml: scores X·Wᵀ + b and a post-transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._class_scores import (
    ML,
    Stored,
    affine,
    entering,
    label_scale,
    labels_of,
    pair_of,
    rows,
    sign_scale,
    transformed,
    value_of,
)
from .registry import kernel, scale
from .scale import Array, Scale


def _weights(
    op_type: str, features: int, coefficients: Sequence[float] | None, intercepts: Sequence[float] | None
) -> tuple[Array, Array]:
    """(F, E) and (E,)."""
    w = np.array([] if coefficients is None else coefficients, np.float64)
    if not features or not w.size or w.size % features:
        raise InvalidAttributeError(f"{op_type}: {w.size} coefficients for {features} features; allowed are multiples")
    w = w.reshape(-1, features).T
    b = np.zeros(w.shape[1]) if not intercepts else np.array(intercepts, np.float64)
    if b.size != w.shape[1]:
        raise InvalidAttributeError(f"{op_type}: {b.size} intercepts for {w.shape[1]} rows of coefficients")
    return w, b


def _is_pair(w: Array, labels: Array) -> bool:
    """Whether one score stands for two classes.

    Raises:
        InvalidInputError: neither that nor a score for each class.
    """
    if w.shape[1] == len(labels):
        return False
    if w.shape[1] == 1 and len(labels) == 2:
        return True
    raise InvalidInputError(f"LinearClassifier: {w.shape[1]} rows of coefficients for {len(labels)} classes")


@kernel("LinearClassifier", since=1, domain=ML)
def linear_classifier(
    x: Array,
    /,
    *,
    coefficients: Sequence[float],
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    intercepts: Sequence[float] | None = None,
    multi_class: int = 0,
    post_transform: str = "NONE",
    stored: Stored = (),
) -> tuple[Array, Any]:
    """The class with the largest score x·w + b, and the scores.

    Args:
        x: (N, F) or (F,), any number.
        coefficients: (E, F), flat.
        classlabels_ints: E labels; or else `classlabels_strings`.
        intercepts: (E,), 0 by default.
        multi_class: how the model was trained; changes nothing here.
        post_transform: NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT, of the scores.

    Returns:
        (labels (N,), scores (N, E)). With one row of coefficients for two classes the score is the second one's; its
        sign decides.

    Raises:
        InvalidAttributeError: sizes that do not go together.
        InvalidInputError: what the text does not define: other numbers of rows, or mixing one score for two classes.

    Spec: LinearClassifier, since 1
    """
    del multi_class, stored
    labels = labels_of("LinearClassifier", classlabels_ints, classlabels_strings)
    x = rows("LinearClassifier", x)
    w, b = _weights("LinearClassifier", x.shape[1], coefficients, intercepts)
    raw = affine(x, w, b)
    if _is_pair(w, labels):
        final = pair_of("LinearClassifier", raw, post_transform).value
        return labels[(np.asarray(raw)[:, 0] > 0).astype(np.int64)], final
    return labels[np.asarray(raw).argmax(axis=1)], transformed("LinearClassifier", raw, post_transform).value


@scale("LinearClassifier", since=1, domain=ML)
def linear_classifier_scale(
    y: tuple[Array, ...],
    x: Array,
    /,
    *,
    coefficients: Sequence[float],
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    intercepts: Sequence[float] | None = None,
    post_transform: str = "NONE",
    stored: Stored = (),
) -> tuple[Scale, ...]:
    """COMPOSED: a dot product whose error the transform passes on; the label is exact where one score stands out."""
    labels = labels_of("LinearClassifier", classlabels_ints, classlabels_strings)
    x = rows("LinearClassifier", x)
    w, b = _weights("LinearClassifier", x.shape[1], coefficients, intercepts)
    raw = affine(entering(x, stored), w, b)
    if _is_pair(w, labels):
        return sign_scale(raw), pair_of("LinearClassifier", raw, post_transform).scale()
    final = transformed("LinearClassifier", raw, post_transform)
    return label_scale(raw, final), final.scale()


@kernel("LinearRegressor", since=1, domain=ML)
def linear_regressor(
    x: Array,
    /,
    *,
    coefficients: Sequence[float] | None = None,
    intercepts: Sequence[float] | None = None,
    post_transform: str = "NONE",
    targets: int = 1,
    stored: Stored = (),
) -> Any:
    """x·w + b for every target.

    Args:
        x: (N, F) or (F,), any number.
        coefficients: (targets, F), flat.
        intercepts: (targets,), 0 by default.
        post_transform: NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT, of the targets.
        targets: how many there are.

    Returns:
        (N, targets).

    Raises:
        InvalidAttributeError: sizes that do not go together.

    Spec: LinearRegressor, since 1
    """
    del stored
    return _regressed(rows("LinearRegressor", x), coefficients, intercepts, post_transform, targets).value


def _regressed(
    x: Any,
    coefficients: Sequence[float] | None,
    intercepts: Sequence[float] | None,
    post_transform: str,
    targets: int,
) -> Any:
    w, b = _weights("LinearRegressor", value_of(x).shape[1], coefficients, intercepts)
    if w.shape[1] != targets:
        raise InvalidAttributeError(f"LinearRegressor: {w.shape[1]} rows of coefficients for {targets} targets")
    return transformed("LinearRegressor", affine(x, w, b), post_transform)


@scale("LinearRegressor", since=1, domain=ML)
def linear_regressor_scale(
    y: Array,
    x: Array,
    /,
    *,
    coefficients: Sequence[float] | None = None,
    intercepts: Sequence[float] | None = None,
    post_transform: str = "NONE",
    targets: int = 1,
    stored: Stored = (),
) -> Scale:
    """COMPOSED: a dot product whose error the transform passes on."""
    entered = entering(rows("LinearRegressor", x), stored)
    return _regressed(entered, coefficients, intercepts, post_transform, targets).scale()
