"""Random operators: the right shape and type, the distribution's mean where the type can hold it, and the law.

Their scale's rule is DISTRIBUTION: no element is compared with another implementation's draw; the tensor is tested for
whether it can have been drawn from the law (`laws`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ._casting import convert
from ._elementwise import undetermined, with_consumed_inputs
from .laws import Classes, Dropped, Flips, Law, normal_law, uniform_law
from .registry import kernel, scale
from .scale import Array, Rule, Scale
from .softmax import softmax
from .storage import is_float

Stored = tuple[np.dtype[np.generic], ...]


def _drawn_from(law: Law) -> Scale:
    return Scale(np.zeros(()), 0, Rule.DISTRIBUTION, law=law)


def normal_scale(
    _y: Array, _x: Array | None = None, /, *, mean: float = 0.0, scale: float = 1.0, **_attributes: object
) -> Scale:
    """Judged by support, moments, goodness of fit and independence: a normal distribution."""
    return _drawn_from(normal_law(mean, scale))


def uniform_scale(
    _y: Array, _x: Array | None = None, /, *, low: float = 0.0, high: float = 1.0, **_attributes: object
) -> Scale:
    """Judged by support, moments, goodness of fit and independence: a uniform distribution."""
    return _drawn_from(uniform_law(low, high))


def bernoulli_scale(_y: Array, p: Array, /, **_attributes: object) -> Scale:
    """Judged by support, the share of ones, its dependence on the probability, and independence."""
    return _drawn_from(Flips(p))


def multinomial_scale(_y: Array, x: Array, /, **_attributes: object) -> Scale:
    """Judged by support, the share of every class, together and row by row, and independence."""
    return _drawn_from(Classes(softmax(x)))


def _constant(value: float, shape: Sequence[int], dtype: int) -> Array:
    return convert(np.full(tuple(shape), value), onnx.helper.tensor_dtype_to_np_dtype(dtype))


def _like(dtype: int | None, stored: Stored) -> int:
    """The data type asked for, else the input's, else float32 where the input is not a float."""
    if dtype is not None:
        return dtype
    return onnx.helper.np_dtype_to_tensor_dtype(stored[0]) if is_float(stored[0]) else onnx.TensorProto.FLOAT


@kernel("RandomNormal", since=1, scale=normal_scale)
def random_normal(
    *, shape: Sequence[int], dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Array:
    """`mean`, in the given shape and type.

    Spec: RandomNormal, since 1
    """
    return _constant(mean, shape, dtype)


@kernel("RandomUniform", since=1, scale=uniform_scale)
def random_uniform(
    *, shape: Sequence[int], dtype: int = 1, low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Array:
    """(low + high) / 2, in the given shape and type.

    Spec: RandomUniform, since 1
    """
    return _constant((low + high) / 2, shape, dtype)


@kernel("RandomNormalLike", since=1, scale=normal_scale)
def random_normal_like(
    x: Array,
    /,
    *,
    dtype: int | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    stored: Stored,
) -> Array:
    """`mean`, in the shape of `x` and the given type, which defaults to that of `x`.

    Spec: RandomNormalLike, since 1
    """
    return _constant(mean, x.shape, _like(dtype, stored))


@kernel("RandomUniformLike", since=1, scale=uniform_scale)
def random_uniform_like(
    x: Array,
    /,
    *,
    dtype: int | None = None,
    low: float = 0.0,
    high: float = 1.0,
    seed: float | None = None,
    stored: Stored,
) -> Array:
    """(low + high) / 2, in the shape of `x` and the given type, which defaults to that of `x`.

    Spec: RandomUniformLike, since 1
    """
    return _constant((low + high) / 2, x.shape, _like(dtype, stored))


@kernel("Bernoulli", since=15, scale=bernoulli_scale)
def bernoulli(p: Array, /, *, dtype: int | None = None, seed: float | None = None, stored: Stored) -> Array:
    """The probabilities `p`, the means of the draws; truncated where the type asked for is not a float.

    Spec: Bernoulli, since 15
    """
    return convert(p, onnx.helper.tensor_dtype_to_np_dtype(_like(dtype, stored)))


@kernel("Multinomial", since=7, scale=multinomial_scale)
def multinomial(x: Array, /, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Array:
    """Zeros, (batch, `sample_size`), for the unnormalised log-probabilities `x`, (batch, classes).

    Spec: Multinomial, since 7
    """
    return np.zeros((x.shape[0], sample_size), onnx.helper.tensor_dtype_to_np_dtype(dtype))


def _unspecified(mask: Array) -> Scale:
    return undetermined(np.ones(mask.shape, bool))


def _outputs_scale(data: Array, ratio: float, mask: Scale) -> tuple[Scale, Scale]:
    """Of output and mask, where elements are dropped with probability `ratio`."""
    if ratio == 0:
        return undetermined(False), mask
    return _drawn_from(Dropped(data, ratio)), _drawn_from(Flips(np.full(data.shape, 1 - ratio)))


def dropout_with_mode(data: Array, /, *, is_test: int = 0, ratio: float = 0.5) -> tuple[Array, Array]:
    """The input itself, which is the output in test mode and its mean in training; a mask of ones of its type.

    Args:
        data: any float.
        is_test: 1 for test mode; the default is training.
        ratio: the share of elements that training drops.

    Spec: Dropout, since 1
    """
    return np.array(data), np.ones_like(data)


def dropout_with_mode_scale(
    y: tuple[Array, Array], data: Array, /, *, is_test: int = 0, ratio: float = 0.5
) -> tuple[Scale, Scale]:
    """Exact in test mode, where what the mask holds is not specified; a distribution in training."""
    return _outputs_scale(data, 0.0 if is_test else ratio, _unspecified(y[1]))


def dropout_inference_scale(y: tuple[Array, Array], data: Array, /, **_attributes: object) -> tuple[Scale, Scale]:
    """Exact; what the mask holds is not specified."""
    return _outputs_scale(data, 0.0, _unspecified(y[1]))


@kernel("Dropout", since=7, scale=dropout_inference_scale)
def dropout_inference(data: Array, /, *, ratio: float = 0.5) -> tuple[Array, Array]:
    """The input itself; a mask of ones of its type.

    Spec: Dropout, since 7
    """
    return np.array(data), np.ones_like(data)


@kernel("Dropout", since=10, scale=dropout_inference_scale)
def dropout_inference_bool(data: Array, /, *, ratio: float = 0.5) -> tuple[Array, Array]:
    """The input itself; a mask that is all True.

    Spec: Dropout, since 10
    """
    return np.array(data), np.ones(data.shape, bool)


@kernel("Dropout", since=12)
def dropout(
    data: Array, ratio: Array | None = None, training_mode: Array | None = None, /, *, seed: int | None = None
) -> tuple[Array, Array]:
    """The input itself, the output in inference and its mean in training; a mask that is all True.

    Args:
        data: any float.
        ratio: scalar, the share of elements that training drops; 0.5 where absent.
        training_mode: scalar bool; False where absent.
        seed: of the generator.

    Spec: Dropout, since 12
    """
    return np.array(data), np.ones(data.shape, bool)


@scale("Dropout", since=12)
def dropout_scale(
    _y: tuple[Array, Array],
    data: Array,
    ratio: Array | None = None,
    training_mode: Array | None = None,
    /,
    **_attributes: object,
) -> tuple[Scale, Scale]:
    """Exact, unless `training_mode` is True and `ratio` not 0: then a distribution."""
    training = training_mode is not None and bool(training_mode.reshape(()))
    share = 0.5 if ratio is None else float(ratio.reshape(()))
    return _outputs_scale(data, share if training else 0.0, undetermined(False))


kernel("Dropout", since=1, scale=dropout_with_mode_scale)(with_consumed_inputs(dropout_with_mode))
kernel("Dropout", since=6, scale=dropout_with_mode_scale)(dropout_with_mode)
