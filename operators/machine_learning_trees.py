"""TreeEnsembleClassifier and TreeEnsembleRegressor of ai.onnx.ml."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError
from ._class_scores import (
    FLOAT32,
    ML,
    Scores,
    Stored,
    label_scale,
    labels_of,
    open_labels,
    pair_of,
    rows,
    transformed,
)
from ._decision_trees import (
    Forest,
    Votes,
    aggregated,
    classic_forest,
    classic_votes,
)
from ._tracked import Tracked
from .registry import kernel, scale
from .rounding import half_unit
from .scale import Array, Scale
from .storage import float_format

SINGLE = np.dtype(np.float32)


@dataclass(frozen=True, kw_only=True)
class _Nodes:
    """Attributes that the classifier and the regressor share, by their names in the specification."""

    base_values: Sequence[float] | None = None
    base_values_as_tensor: Array | None = None
    nodes_falsenodeids: Sequence[int] | None = None
    nodes_featureids: Sequence[int] | None = None
    nodes_hitrates: Sequence[float] | None = None
    nodes_hitrates_as_tensor: Array | None = None
    nodes_missing_value_tracks_true: Sequence[int] | None = None
    nodes_modes: Sequence[str] | None = None
    nodes_nodeids: Sequence[int] | None = None
    nodes_treeids: Sequence[int] | None = None
    nodes_truenodeids: Sequence[int] | None = None
    nodes_values: Sequence[float] | None = None
    nodes_values_as_tensor: Array | None = None
    post_transform: str = "NONE"

    def forest(self, op_type: str) -> tuple[Forest, dict[tuple[int, int], int]]:
        """The trees, and their leaves by ids."""
        return classic_forest(
            op_type,
            treeids=self.nodes_treeids or (),
            nodeids=self.nodes_nodeids or (),
            featureids=self.nodes_featureids or (),
            modes=self.nodes_modes or (),
            thresholds=_numbers(self.nodes_values, self.nodes_values_as_tensor),
            truenodeids=self.nodes_truenodeids or (),
            falsenodeids=self.nodes_falsenodeids or (),
            missing_true=self.nodes_missing_value_tracks_true,
        )

    def base(self, op_type: str, count: int) -> Array:
        """The base values, 0 by default.

        Raises:
            InvalidAttributeError: another number of them than `count`.
        """
        found = _numbers(self.base_values, self.base_values_as_tensor)
        if found.size not in (0, count):
            raise InvalidAttributeError(f"{op_type}: {found.size} base values for {count} scores")
        return found if found.size else np.zeros(count)

    def open_rows(self, forest: Forest, x: Array, leaves: Array, stored: Stored, op_type: str) -> Array:
        """Rows that take another way where a runtime compares in float32: the thresholds are, X is not."""
        narrow = bool(stored) and stored[0] == SINGLE
        if narrow or self.nodes_values_as_tensor is not None:
            return np.zeros(len(x), bool)
        return (forest.leaves(op_type, x.astype(SINGLE).astype(np.float64)) != leaves).any(axis=1)


def _numbers(values: Sequence[float] | None, tensor: Array | None) -> Array:
    if tensor is not None:
        return np.asarray(tensor, np.float64).reshape(-1)
    return np.array([] if values is None else values, np.float64)


@dataclass(frozen=True, kw_only=True)
class _Classifier(_Nodes):
    """Attributes of TreeEnsembleClassifier."""

    class_ids: Sequence[int] | None = None
    class_nodeids: Sequence[int] | None = None
    class_treeids: Sequence[int] | None = None
    class_weights: Sequence[float] | None = None
    class_weights_as_tensor: Array | None = None
    classlabels_int64s: Sequence[int] | None = None
    classlabels_strings: Sequence[str] | None = None


@dataclass(frozen=True)
class _Classified:
    """What a classifier computes: labels by index, scores, and how far both are open."""

    labels: Array
    index: Array
    scores: Scores
    label_scale: Scale


CLASSIFIER, REGRESSOR = "TreeEnsembleClassifier", "TreeEnsembleRegressor"


def _classified(x: Array, given: _Classifier, stored: Stored) -> _Classified:
    x = rows(CLASSIFIER, x)
    labels = labels_of(CLASSIFIER, given.classlabels_int64s, given.classlabels_strings)
    forest, leaf_numbers = given.forest(CLASSIFIER)
    weights = _numbers(given.class_weights, given.class_weights_as_tensor)
    votes = classic_votes(
        CLASSIFIER,
        leaf_numbers,
        given.class_treeids or (),
        given.class_nodeids or (),
        given.class_ids or (),
        weights,
        len(labels),
    )
    leaves = forest.leaves(CLASSIFIER, x)
    unsure = given.open_rows(forest, x, leaves, stored, CLASSIFIER)
    if len(labels) == 2 and len(set(given.class_ids or ())) == 1:
        found = _paired(given, labels, votes, leaves)
    else:
        raw, count = aggregated(CLASSIFIER, votes, leaves, "SUM", given.base(CLASSIFIER, len(labels)), SINGLE)
        final = transformed(CLASSIFIER, raw, given.post_transform)
        index = raw.value.argmax(axis=1)
        no_vote = np.take_along_axis(count, index[:, None], axis=1)[:, 0] == 0
        label = label_scale(raw, final)
        found = _Classified(labels, index, final, open_labels(np.isinf(label.terms) | no_vote))
    return replace(
        found,
        scores=Scores(found.scores.value, found.scores.unknown | unsure[:, None]),
        label_scale=open_labels(np.isinf(found.label_scale.terms) | unsure),
    )


def _paired(given: _Classifier, labels: Array, votes: Votes, leaves: Array) -> _Classified:
    """Two classes and votes for only one id: the sum is the second class's score, whichever id it is. The text does not
    treat it; the implementations and converters that there are agree.

    It decides by its sign, or, if no weight is negative, by being above ½: between 0 and ½ that is open.
    """
    one = replace(votes, target=np.zeros_like(votes.target), targets=1)
    s, _ = aggregated(CLASSIFIER, one, leaves, "SUM", given.base(CLASSIFIER, 1), SINGLE)
    scores = pair_of(CLASSIFIER, s, given.post_transform)
    if votes.target.any():
        scores = Scores(scores.value, np.array([[True, False]]))
    reach = s.bound[:, 0] * half_unit(FLOAT32)
    value, limit = s.value[:, 0], 0.0 if (votes.weight < 0).any() else 0.5
    open_ = (value >= -reach) & (value <= limit + reach)
    return _Classified(labels, (value > limit).astype(np.int64), scores, open_labels(open_))


@dataclass(frozen=True, kw_only=True)
class _Regressor(_Nodes):
    """Attributes of TreeEnsembleRegressor."""

    aggregate_function: str = "SUM"
    n_targets: int | None = None
    target_ids: Sequence[int] | None = None
    target_nodeids: Sequence[int] | None = None
    target_treeids: Sequence[int] | None = None
    target_weights: Sequence[float] | None = None
    target_weights_as_tensor: Array | None = None


def _regressed(x: Array, given: _Regressor, stored: Stored) -> Scores:
    x = rows(REGRESSOR, x)
    targets = 1 + max(given.target_ids or (0,)) if given.n_targets is None else given.n_targets
    forest, leaf_numbers = given.forest(REGRESSOR)
    weights = _numbers(given.target_weights, given.target_weights_as_tensor)
    votes = classic_votes(
        REGRESSOR,
        leaf_numbers,
        given.target_treeids or (),
        given.target_nodeids or (),
        given.target_ids or (),
        weights,
        targets,
    )
    leaves = forest.leaves(REGRESSOR, x)
    unsure = given.open_rows(forest, x, leaves, stored, REGRESSOR)
    base = given.base(REGRESSOR, targets)
    raw, count = aggregated(REGRESSOR, votes, leaves, given.aggregate_function, base, SINGLE)
    return final_scores(REGRESSOR, raw, count, given.aggregate_function, given.post_transform, SINGLE, unsure[:, None])


def final_scores(
    op_type: str, raw: Tracked, count: Array, function: str, post_transform: str, dtype: np.dtype[Any], unsure: Array
) -> Scores:
    """Scores after the transform; open where MIN or MAX is of no vote, and all of a row behind a softmax of that."""
    final = transformed(op_type, raw, post_transform, half_unit(float_format(dtype)))
    empty = (count == 0) & (function in ("MIN", "MAX"))
    empty = empty.any(axis=1, keepdims=True) if post_transform.startswith("SOFTMAX") else empty
    return Scores(final.value, final.unknown | empty | unsure)


def _signed(attributes: type[Any], since: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function of (x, **attributes) the signature of a kernel: the fields of `attributes`, tensors since 3."""

    def sign(function: Callable[..., Any]) -> Callable[..., Any]:
        known = [f for f in fields(attributes) if since >= AS_TENSOR or not f.name.endswith("_as_tensor")]
        parameters = [
            inspect.Parameter("x", inspect.Parameter.POSITIONAL_ONLY),
            *(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default) for f in known),
            inspect.Parameter("stored", inspect.Parameter.KEYWORD_ONLY, default=()),
        ]
        function.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return sign


AS_TENSOR = 3
"""The version since which double weights can be given, in attributes that end so."""


def _register_classic(since: int) -> None:
    """Version 5 deprecates both and changes nothing."""

    @kernel(CLASSIFIER, since=since, domain=ML)
    @_signed(_Classifier, since)
    def tree_ensemble_classifier(x: Array, /, *, stored: Stored = (), **attributes: Any) -> tuple[Array, Array]:
        """The class with the most votes of the leaves that each row reaches, and the scores.

        Args:
            x: (N, F) or (F,), any number; NaN takes the branch that `nodes_missing_value_tracks_true` says, in every
                mode.
            attributes: trees by `nodes_*`, votes by `class_*`, labels by `classlabels_*`; `base_values` are added.

        Returns:
            (labels (N,), scores (N, E)).

        Raises:
            InvalidAttributeError: lists that do not go together.
            InvalidInputError: what the text does not define: see `pair_of`.

        Spec: TreeEnsembleClassifier, since 1
        """
        found = _classified(x, _Classifier(**attributes), stored)
        return found.labels[found.index], found.scores.value.value

    @scale(CLASSIFIER, since=since, domain=ML)
    def tree_ensemble_classifier_scale(
        y: Any, x: Array, /, *, stored: Stored = (), **attributes: Any
    ) -> tuple[Scale, ...]:
        """COMPOSED: additions of votes in any order, and the transform; labels exact where one score stands out."""
        found = _classified(x, _Classifier(**attributes), stored)
        return found.label_scale, found.scores.scale()

    @kernel(REGRESSOR, since=since, domain=ML)
    @_signed(_Regressor, since)
    def tree_ensemble_regressor(x: Array, /, *, stored: Stored = (), **attributes: Any) -> Array:
        """Weights of the leaves that each row reaches, combined for every target.

        Args:
            x: (N, F) or (F,), any number.
            attributes: trees by `nodes_*`, weights by `target_*`; `aggregate_function` SUM, AVERAGE (over trees), MIN
                or MAX; `base_values` are added then.

        Returns:
            (N, n_targets).

        Raises:
            InvalidAttributeError: lists that do not go together.

        Spec: TreeEnsembleRegressor, since 1
        """
        return _regressed(x, _Regressor(**attributes), stored).value.value

    @scale(REGRESSOR, since=since, domain=ML)
    def tree_ensemble_regressor_scale(y: Any, x: Array, /, *, stored: Stored = (), **attributes: Any) -> Scale:
        """COMPOSED: additions of weights in any order, and the transform."""
        return _regressed(x, _Regressor(**attributes), stored).scale()


_register_classic(1)
_register_classic(AS_TENSOR)
