"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from .registry import kernel
from .scale import Array, Rule, Scale
from .softmax import log_softmax, log_softmax_scale

REDUCTIONS = ("mean", "none", "sum")


@dataclass(frozen=True)
class _Picked:
    """What a loss takes from each sample.

    Attributes:
        value: the input of the sample's class, shape of the target; 0 where ignored.
        weight: of the class; 0 where ignored.
        weighted: whether weights were given.
        reduction: mean, none or sum.
    """

    value: Array
    weight: Array
    weighted: bool
    reduction: str

    @property
    def total(self) -> float:
        """What a mean divides by: the weights of the samples that count."""
        return float(self.weight.sum())

    def loss(self) -> Array:
        """−weight · value, reduced."""
        each = -self.weight * self.value
        if self.reduction == "none":
            return each
        summed = np.asarray(each.sum())
        return summed if self.reduction == "sum" else np.asarray(summed / np.float64(self.total))

    def scale(self, size: Array, terms: int) -> Scale:
        """COMPOSED: `size` half-units of each value are weighted and added up; a mean adds the sum of the weights.

        Args:
            size: at which each value rounds, shape of the target, 0 for values without an error.
            terms: of the longest sum behind `size`.
        """
        product = (self.weighted * np.abs(self.value) + size) * np.abs(self.weight)
        if self.reduction == "none":
            return Scale(product, max(1, terms), Rule.COMPOSED, spread=1.0)
        count = self.value.size
        summed = (np.abs(self.weight * self.value) + product).sum()
        if self.reduction == "sum":
            return Scale(np.asarray(summed), count + terms, Rule.COMPOSED, spread=math.sqrt(1 + count / 9))
        with np.errstate(all="ignore"):
            mean = summed / abs(self.total)
            divisor = np.abs(self.loss()) * np.abs(self.weight).sum() / abs(self.total)
        return Scale(np.asarray(mean + divisor), count + terms, Rule.COMPOSED, spread=math.sqrt(1 + count / 9))


def _picked(
    op_type: str, x: Array, target: Array, weight: Array | None, ignore_index: int | None, reduction: str
) -> _Picked:
    if reduction not in REDUCTIONS:
        raise InvalidAttributeError(f"{op_type}: reduction={reduction!r}; allowed are {', '.join(REDUCTIONS)}")
    if x.ndim < 2 or target.shape != x.shape[:1] + x.shape[2:]:
        raise InvalidInputError(f"{op_type}: target of shape {target.shape} does not go with {x.shape}")
    counts = np.ones(target.shape, bool) if ignore_index is None else target != ignore_index
    classes = np.where(counts, target, 0).astype(np.int64)
    if classes.size and not (classes.min() >= 0 and classes.max() < x.shape[1]):
        raise InvalidInputError(f"{op_type}: classes {classes.min()} to {classes.max()}, {x.shape[1]} exist")
    value = np.take_along_axis(x, classes[:, None], axis=1)[:, 0] if x.shape[1] else np.zeros(target.shape)
    each = np.ones(target.shape) if weight is None else weight[classes]
    return _Picked(np.where(counts, value, 0.0), np.where(counts, each, 0.0), weight is not None, reduction)


def negative_log_likelihood_loss_scale(
    y: Array,
    x: Array,
    target: Array,
    weight: Array | None = None,
    /,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Scale:
    """COMPOSED: values without an error, weighted and added up; exact where nothing is computed with them."""
    picked = _picked("NegativeLogLikelihoodLoss", x, target, weight, ignore_index, reduction)
    if reduction == "none" and weight is None:
        return Scale(np.zeros(()), 0, Rule.EXACT)
    return picked.scale(np.zeros(target.shape), 1)


@kernel("NegativeLogLikelihoodLoss", since=12, scale=negative_log_likelihood_loss_scale)
def negative_log_likelihood_loss(
    x: Array,
    target: Array,
    weight: Array | None = None,
    /,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Array:
    """The weighted mean of −x at the class of each sample.

    Args:
        x: (N, C, d1, …), log-probabilities.
        target: (N, d1, …), classes.
        weight: (C,), 1 by default.
        ignore_index: a class that does not count, in [0, C) or not.
        reduction: mean (over the weights), sum or none.

    Returns:
        A scalar, or (N, d1, …).

    Raises:
        InvalidInputError: shapes that do not go together, or a class outside [0, C).
        InvalidAttributeError: another reduction.

    Spec: NegativeLogLikelihoodLoss, since 12
    """
    return _picked("NegativeLogLikelihoodLoss", x, target, weight, ignore_index, reduction).loss()


def softmax_cross_entropy_loss_scale(
    y: Array | tuple[Array, ...],
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    /,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    output_count: int = 1,
) -> tuple[Scale, ...]:
    """COMPOSED: every log-probability has the scale of LogSoftmax, picked, weighted and added up."""
    log_prob = log_softmax(scores, axis=1)
    inner = log_softmax_scale(log_prob, scores, axis=1)
    size = np.broadcast_to(inner.magnitude, log_prob.shape)
    arguments = (labels, weights, ignore_index, reduction)
    picked, sizes = (_picked("SoftmaxCrossEntropyLoss", x, *arguments) for x in (log_prob, size))
    loss = picked.scale(sizes.value, int(np.max(inner.terms)))
    return (loss, inner)[:output_count]


@kernel("SoftmaxCrossEntropyLoss", since=12, scale=softmax_cross_entropy_loss_scale)
def softmax_cross_entropy_loss(
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    /,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    output_count: int = 1,
) -> tuple[Array, ...]:
    """The negative log-likelihood of the softmax of scores over their classes.

    Args:
        scores: (N, C, d1, …).
        labels: (N, d1, …), classes.
        weights: (C,), 1 by default.
        ignore_index: a class that does not count, in [0, C) or not.
        reduction: mean (over the weights), sum or none.

    Returns:
        The loss, a scalar or (N, d1, …); the log-probabilities, like `scores`.

    Raises:
        InvalidInputError: shapes that do not go together, or a class outside [0, C).
        InvalidAttributeError: another reduction.

    Spec: SoftmaxCrossEntropyLoss, since 12
    """
    log_prob = log_softmax(scores, axis=1)
    loss = _picked("SoftmaxCrossEntropyLoss", log_prob, labels, weights, ignore_index, reduction).loss()
    return (loss, log_prob)[:output_count]
