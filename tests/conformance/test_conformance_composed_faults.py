"""Wrong results of operators of several roundings and of averages, on data where they are no rounding error."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch.nn import functional

from onnx_arch.conformance.results import Outcome

from .judged_nodes import judge

Array = np.ndarray

EPSILON = 1e-5
F = np.float32

every_length = pytest.mark.parametrize("length", [16, 256, 1024, 4608, 25088])


def _affine(size: int) -> tuple[Array, Array]:
    rng = np.random.default_rng([3, size])
    return (1 + 0.1 * rng.standard_normal(size)).astype(F), (0.1 * rng.standard_normal(size)).astype(F)


def _normal(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(F)


def _softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _off(y: Array, factor: float = 1.001) -> Array:
    """The element of median size is off by a thousandth."""
    y = y.copy()
    y.flat[np.argsort(np.abs(y), axis=None)[y.size // 2]] *= factor
    return y


def _without_largest(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / (e.sum(axis=-1, keepdims=True) - 1)


SOFTMAX: Mapping[str, Callable[[Array], Array]] = {
    "along the other axis": lambda x: _softmax(x, 0),
    "one element off": lambda x: _off(_softmax(x)),
    "one row off by 1e-3": lambda x: _softmax(x) * np.array([[1], [1], [1.001], [1]]),
    "the largest element not in the sum": _without_largest,
    "not divided": lambda x: np.exp(x - x.max(axis=-1, keepdims=True)),
    "of inputs in float16": lambda x: _softmax(np.where(x > 0, x, x.astype(np.float16))),
}


@every_length
@pytest.mark.parametrize("fault", SOFTMAX)
def test_faulty_softmax_fails_at_every_length(fault: str, length: int) -> None:
    x = np.random.default_rng([0, length]).standard_normal((4, length)).astype(F)
    assert judge("Softmax", [x], _softmax(x.astype(np.float64)).astype(F)).outcome is Outcome.PASSED
    wrong = SOFTMAX[fault](x.astype(np.float64)).astype(F)
    assert judge("Softmax", [x], wrong).outcome is Outcome.FAILED


def _normalized(x: Array, w: Array, b: Array, inverse: Callable[[Array], Array]) -> Array:
    x = x.astype(np.float64)
    return (x - x.mean(axis=-1, keepdims=True)) * inverse(x) * w + b


NORMALIZATION: Mapping[str, Callable[[Array, Array, Array], Array]] = {
    "epsilon outside the root": lambda x, w, b: _normalized(x, w, b, lambda t: 1 / (_deviation(t) + EPSILON)),
    "no epsilon": lambda x, w, b: _normalized(x, w, b, lambda t: 1 / _deviation(t)),
    "divided by n − 1": lambda x, w, b: _normalized(x, w, b, lambda t: 1 / np.sqrt(_variance(t, 1) + EPSILON)),
    "root mean square": lambda x, w, b: _right(x, w, b) + _right(_mean(x), w, 0 * b) + 1e-3,
    "shift added twice": lambda x, w, b: _right(x, w, 2 * b),
    "one element off": lambda x, w, b: _off(_right(x, w, b)),
    "one row off by 1e-3": lambda x, w, b: _right(x, w, b) * np.array([[1], [1], [1.001], [1]]),
}


def _mean(x: Array) -> Array:
    return x.mean(axis=-1, keepdims=True)


def _variance(x: Array, less: int = 0) -> Array:
    return x.var(axis=-1, keepdims=True, ddof=less)


def _deviation(x: Array) -> Array:
    return np.sqrt(_variance(x))


def _right(x: Array, w: Array, b: Array) -> Array:
    return _normalized(x, w, b, lambda t: 1 / np.sqrt(_variance(t) + EPSILON))


@every_length
@pytest.mark.parametrize("fault", NORMALIZATION)
def test_faulty_layer_normalization_fails(fault: str, length: int) -> None:
    """On data of deviation 0.01, whose variance is ten epsilons."""
    x, (w, b) = (0.01 * np.random.default_rng([0, length]).standard_normal((4, length))).astype(F), _affine(length)
    assert judge("LayerNormalization", [x, w, b], _right(x, w, b).astype(F)).outcome is Outcome.PASSED
    if (fault, length) == ("divided by n − 1", 25088):
        pytest.skip("a relative 1 / 2n is 2e-5, which a plain float32 loop over n squares may be off by")
    wrong = NORMALIZATION[fault](x, w, b).astype(F)
    assert judge("LayerNormalization", [x, w, b], wrong).outcome is Outcome.FAILED


@pytest.mark.parametrize("length", [256, 1024, 4608])
@pytest.mark.parametrize("groups", [1, 4])
def test_group_normalization_with_another_number_of_groups_fails(groups: int, length: int) -> None:
    x, (w, b) = np.random.default_rng(length).standard_normal((2, 8, length // 4)).astype(F), _affine(8)
    t = [torch.from_numpy(v) for v in (x, w, b)]
    right, wrong = (functional.group_norm(t[0], g, t[1], t[2], EPSILON).numpy() for g in (2, groups))
    assert judge("GroupNormalization", [x, w, b], right, {"num_groups": 2}).outcome is Outcome.PASSED
    assert judge("GroupNormalization", [x, w, b], wrong, {"num_groups": 2}).outcome is Outcome.FAILED


AVERAGES: Mapping[str, Callable[[Array], Array]] = {
    "last value dropped": lambda x: x[..., :-1].sum(axis=-1, keepdims=True) / x.shape[-1],
    "divided by n − 1": lambda x: x.sum(axis=-1, keepdims=True) / (x.shape[-1] - 1),
    "one mean off by 1e-3": lambda x: _mean(x) * np.array([[1], [1], [1.001], [1]]),
}


@every_length
@pytest.mark.parametrize("fault", AVERAGES)
def test_faulty_mean_fails(fault: str, length: int) -> None:
    """Of values between 1 and 2, none of which can be missed; at 25,088 of them one of them is 4e-5 of the sum."""
    x, axes = np.random.default_rng(length).uniform(1, 2, (4, length)).astype(F), np.array([-1])
    assert judge("ReduceMean", [x, axes], _mean(x.astype(np.float64)).astype(F), opset=18).outcome is Outcome.PASSED
    wrong = AVERAGES[fault](x.astype(np.float64)).astype(F)
    assert judge("ReduceMean", [x, axes], wrong, opset=18).outcome is Outcome.FAILED


@pytest.mark.parametrize("length", [16, 256, 1024, 4608])
def test_element_of_a_transposed_convolution_that_is_off_fails(length: int) -> None:
    """An operator whose products are not listed: its witness is the kernel in float32."""
    rng = np.random.default_rng(length)
    x = np.abs(rng.standard_normal((1, length // 4, 6, 6))).astype(F)
    w = np.abs(rng.standard_normal((length // 4, 5, 2, 2))).astype(F)
    y = functional.conv_transpose2d(torch.from_numpy(x), torch.from_numpy(w)).numpy()
    assert judge("ConvTranspose", [x, w], y).outcome is Outcome.PASSED
    assert judge("ConvTranspose", [x, w], _off(y).astype(F)).outcome is Outcome.FAILED


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("step", [1, -1])
def test_max_pool_shifted_by_one_fails_where_values_differ(step: int, axis: int) -> None:
    """Constant pictures hide a shifted window by nature: they pass, and that is right."""
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2]}
    varied = np.random.default_rng(0).standard_normal((1, 4, 15, 15)).astype(F)
    for x, outcome in ((varied, Outcome.FAILED), (np.ones_like(varied), Outcome.PASSED)):
        y = functional.max_pool2d(torch.from_numpy(np.roll(x, step, axis)), 3, 2).numpy()
        assert judge("MaxPool", [x], y, attributes).outcome is outcome


def test_attention_that_ignores_its_mask_fails() -> None:
    q, k, v = (np.random.default_rng(i).standard_normal((1, 2, 12, 16)).astype(F) for i in range(3))
    mask = np.random.default_rng(4).random((12, 12)) < 0.8
    mask[:, 0] = True
    t = [torch.from_numpy(x) for x in (q, k, v)]
    right = functional.scaled_dot_product_attention(*t, attn_mask=torch.from_numpy(mask)).numpy()
    wrong = functional.scaled_dot_product_attention(*t).numpy()
    assert judge("Attention", [q, k, v, mask], right).outcome is Outcome.PASSED
    assert judge("Attention", [q, k, v, mask], wrong).outcome is Outcome.FAILED


@pytest.mark.parametrize("keys", [16, 256, 1024])
@pytest.mark.parametrize("fault", ["last key dropped", "one element off", "no scale"])
def test_faulty_attention_fails(fault: str, keys: int) -> None:
    q, k, v = (_normal((1, 2, count, 32), seed) for seed, count in enumerate((9, keys, keys)))
    t = [torch.from_numpy(x).double() for x in (q, k, v)]
    right = functional.scaled_dot_product_attention(*t).numpy()
    wrong = {
        "last key dropped": functional.scaled_dot_product_attention(t[0], t[1][:, :, :-1], t[2][:, :, :-1]).numpy(),
        "one element off": _off(right, 1.01),
        "no scale": functional.scaled_dot_product_attention(*t, scale=1.0).numpy(),
    }[fault]
    assert judge("Attention", [q, k, v], right.astype(F)).outcome is Outcome.PASSED
    assert judge("Attention", [q, k, v], wrong.astype(F)).outcome is Outcome.FAILED
