"""Normalisations, losses, Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...operators.scale import Array
from .drawing import Draw, NodeCall
from .registry import strategy
from .values import SUMMED

DATA = ("normal", "small", "positive", "spread", "ties", "constant")
EPSILON = (1e-5, 1e-3, 0.1, 1.0)
FLOAT32 = np.dtype(np.float32)


def _image(d: Draw, least: int = 1, most: int = 3) -> tuple[int, ...]:
    spatial = [d.choice((3, 2, 1, 4, 5, 7, 9)) for _ in range(d.integer(least, most))]
    return (d.choice((1, 2, 3)), d.choice((2, 1, 3, 4, 6, 8)), *spatial)


def _stored(d: Draw, x: Array, parameter: str) -> Array:
    """In the type of a type parameter, the data's own where the schema has no such parameter."""
    names = {c.type_param_str for c in d.schema.type_constraints}
    return x.astype(d.dtype(parameter)) if parameter in names else x


@strategy("BatchNormalization")
def batch_normalization(d: Draw) -> NodeCall:
    dtype = d.dtype("T")
    shape = _image(d, 0)
    x = d.tensor(shape, dtype, DATA)
    sizes = (shape[1],)
    scale, bias, mean = (d.tensor(sizes, dtype, ("normal", "small")) for _ in range(3))
    var = d.tensor(sizes, dtype, ("positive", "counting"))
    if d.opset >= 15:
        other, last = d.dtype("T1"), d.dtype("T2")
        scale, bias, mean, var = scale.astype(other), bias.astype(other), mean.astype(last), var.astype(last)
    options: dict[str, Any] = d.attributes(epsilon=lambda: d.choice(EPSILON), momentum=lambda: d.real(0.0, 1.0))
    outputs: list[np.dtype[Any]] = [dtype]
    if d.opset >= 14 and d.rarely(3):
        options["training_mode"] = 1
        outputs += [mean.dtype, var.dtype]
    return d.call([x, scale, bias, mean, var], options, outputs=outputs, parameters=(1, 2, 3, 4))


@strategy("InstanceNormalization")
def instance_normalization(d: Draw) -> NodeCall:
    dtype = d.dtype()
    shape = _image(d)
    parts = [d.tensor(s, dtype, DATA) for s in (shape, shape[1:2], shape[1:2])]
    return d.call(parts, d.attributes(epsilon=lambda: d.choice(EPSILON)), parameters=(1, 2))


@strategy("GroupNormalization")
def group_normalization(d: Draw) -> NodeCall:
    dtype = d.dtype()
    groups = d.choice((1, 2, 3, 4))
    shape = list(_image(d, 1))
    shape[1] = groups * d.choice((1, 2, 3))
    each = groups if d.opset < 21 else shape[1]
    parts = [d.tensor(s, dtype, DATA) for s in (tuple(shape), (each,), (each,))]
    options = d.attributes(epsilon=lambda: d.choice(EPSILON))
    if d.opset >= 21:
        options |= d.attributes(stash_type=lambda: 1)
    return d.call(parts, {**options, "num_groups": groups}, parameters=(1, 2))


@strategy("LayerNormalization")
def layer_normalization(d: Draw) -> NodeCall:
    dtype = d.dtype("T")
    shape = d.shape(1, 4, empty=False, elements=2048)
    axis = d.axis(len(shape)) if d.boolean() else -1
    inner = shape[axis:]
    full = d.boolean()
    scale = d.tensor(inner if full else _within(d, inner), dtype, DATA)
    bias = d.tensor(inner if full else _within(d, inner), dtype, DATA) if d.boolean() else None
    options = d.attributes(epsilon=lambda: d.choice(EPSILON), stash_type=lambda: 1)
    outputs: list[np.dtype[Any] | None] = [dtype]
    if d.rarely(3):
        outputs += [FLOAT32, FLOAT32]
    elif d.rarely(3):
        outputs += [None, FLOAT32]
    return d.call(
        [d.tensor(shape, dtype, DATA), scale, bias], {**options, "axis": axis}, outputs=outputs, parameters=(1, 2)
    )


def _within(d: Draw, inner: tuple[int, ...]) -> tuple[int, ...]:
    """Unidirectionally broadcastable to the normalised part."""
    return d.broadcastable(inner)


@strategy("RMSNormalization")
def rms_normalization(d: Draw) -> NodeCall:
    dtype = d.dtype("T")
    shape = d.shape(1, 4, empty=False, elements=2048)
    axis = d.axis(len(shape)) if d.boolean() else -1
    scale_type = d.dtype("V")
    inner = shape[axis:]
    scale = d.tensor(inner if d.boolean() else _within(d, inner), scale_type, DATA)
    options = d.attributes(epsilon=lambda: d.choice(EPSILON), stash_type=lambda: 1)
    return d.call(
        [d.tensor(shape, dtype, DATA), scale], {**options, "axis": axis}, outputs=(scale_type,), parameters=(1,)
    )


@strategy("LpNormalization")
def lp_normalization(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False)
    options = d.attributes(axis=lambda: d.axis(len(shape)), p=lambda: d.integer(1, 2))
    patterns = ("small", *DATA) if d.opset >= 22 else ("positive", "normal")  # an axis of zeros: defined since 22
    return d.call([d.tensor(shape, d.dtype(), patterns)], options)


@strategy("LRN")
def local_response_normalization(d: Draw) -> NodeCall:
    options = d.attributes(
        alpha=lambda: d.real(1e-4, 1.0), beta=lambda: d.real(0.25, 1.5), bias=lambda: d.real(0.5, 2.0)
    )
    x = d.tensor(_image(d, 0, 2), d.dtype(), ("normal", "small", "spread", "ties"))
    return d.call([x], {**options, "size": d.choice((3, 1, 5, 2, 4, 7))})


@strategy("MeanVarianceNormalization")
def mean_variance_normalization(d: Draw) -> NodeCall:
    shape = _image(d, 2, 2)
    axes = d.axes(4, least=1) if d.boolean() else None
    over = [0, 2, 3] if axes is None else axes
    if np.prod([shape[a] for a in over]) == 1:  # no variance: 0 / 0
        shape = (shape[0] + 1, shape[1] + 1, shape[2] + 1, shape[3] + 1)
    return d.call([d.tensor(shape, d.dtype(), ("normal", "spread"))], {"axes": axes})


@strategy("Dropout")
def dropout(d: Draw) -> NodeCall:
    """Inference: what training drops is random."""
    dtype = d.dtype()
    ratio = np.asarray(d.choice((0.5, 0.0, 0.9)), d.dtype("T1")) if d.boolean() else None
    training = np.asarray(False) if d.boolean() else None
    mask = [np.dtype(np.bool_)] if d.boolean() else []
    return d.call([d.tensor(d.shape(), dtype, SUMMED), ratio, training], outputs=[dtype, *mask], parameters=(1, 2))


@strategy("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def losses(d: Draw) -> NodeCall:
    dtype = d.dtype("T")
    classes = d.choice((3, 1, 2, 5, 8))
    n = d.choice((2, 1, 3, 5))
    spatial = tuple(d.choice((2, 1, 3)) for _ in range(d.integer(0, 3)))
    x = d.tensor((n, classes, *spatial), dtype, ("normal", "small", "spread"))
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    target = rng.integers(0, classes, (n, *spatial)).astype(d.dtype("Tind"))
    weight = d.tensor((classes,), dtype, ("positive", "counting")) if d.boolean() else None
    options = d.attributes(reduction=lambda: d.choice(("mean", "sum", "none")))
    if target.size > 1 and d.boolean():
        options["ignore_index"] = ignored = d.choice((-1, -100, classes, 0))
        if options.get("reduction", "mean") == "mean":  # whether ignored samples count in the mean is said both ways
            options["reduction"] = "sum"
        target.reshape(-1)[0] = ignored
        target.reshape(-1)[-1] = classes - 1 if ignored != classes - 1 else 0
    outputs = [dtype]
    if d.op_type == "SoftmaxCrossEntropyLoss" and d.boolean():
        outputs = [dtype, dtype]
    return d.call([x, target, weight], options, outputs=outputs, parameters=(2,))
