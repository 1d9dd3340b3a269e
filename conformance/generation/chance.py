"""Random operators: shapes, types and parameters of what they draw, with a seed and without."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...operators.scale import Array
from ...operators.storage import decode, encode, is_float
from .drawing import Draw, NodeCall, element_type
from .registry import strategy

MOST_DRAWS = 4096
LEAST_DRAWS = 64
"""As many as a distribution is told from; below 46 only the support is tested."""


def _shape(d: Draw) -> tuple[int, ...]:
    """A shape of enough elements."""
    *sizes, last = d.shape(1, empty=False, elements=MOST_DRAWS)
    return (*sizes, last * math.ceil(LEAST_DRAWS / (math.prod(sizes) * last)))


def _parameters(d: Draw) -> dict[str, Any]:
    """Mean and deviation, or the two ends, and the seed; each left to its default half of the time."""
    seed = d.attributes(seed=lambda: float(d.integer(0, 1000)))
    if "Normal" in d.op_type:
        return seed | d.attributes(mean=lambda: d.real(-4, 4), scale=lambda: d.real(0.125, 4))
    return seed | d.attributes(low=lambda: d.real(-4, 0), high=lambda: d.real(1, 4))


@strategy("RandomNormal", "RandomUniform")
def random_tensor(d: Draw) -> NodeCall:
    shape, dtype = _shape(d), d.dtype()
    named = {} if dtype == np.float32 and d.boolean() else {"dtype": element_type(dtype)}
    return d.call([], {"shape": list(shape), **named, **_parameters(d)}, outputs=[dtype])


@strategy("RandomNormalLike", "RandomUniformLike")
def random_tensor_like(d: Draw) -> NodeCall:
    x = d.tensor(_shape(d), d.dtype("T1"), ("small",))
    if is_float(x.dtype) and d.boolean():
        return d.call([x], _parameters(d), outputs=[x.dtype])
    dtype = d.dtype("T2")
    return d.call([x], {"dtype": element_type(dtype), **_parameters(d)}, outputs=[dtype])


@strategy("Multinomial")
def multinomial(d: Draw) -> NodeCall:
    x = d.tensor((d.size(), d.size()), d.dtype("T1"), ("normal", "small", "constant"))
    attributes = d.attributes(seed=lambda: float(d.integer(0, 1000)))
    dtype = d.dtype("T2")
    named = {} if dtype == np.int32 and d.boolean() else {"dtype": element_type(dtype)}
    return d.call([x], {"sample_size": d.integer(LEAST_DRAWS, 200), **named, **attributes}, outputs=[dtype])


@strategy("Bernoulli")
def bernoulli(d: Draw) -> NodeCall:
    p = _probabilities(d.tensor(_shape(d), d.dtype("T1"), ("unit", "small", "constant")))
    seed = d.attributes(seed=lambda: float(d.integer(0, 1000)))
    if d.boolean():
        return d.call([p], seed, outputs=[p.dtype])
    dtype = d.dtype("T2")
    return d.call([p], {"dtype": element_type(dtype), **seed}, outputs=[dtype])


def _probabilities(x: Array) -> Array:
    """Any numbers as ones between 0 and 1, both included."""
    return encode(np.minimum(np.abs(decode(x)), 1.0), x.dtype)
