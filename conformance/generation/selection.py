"""TopK, Unique, NonMaxSuppression."""

from __future__ import annotations

import numpy as np

from .drawing import Draw, NodeCall
from .movement import whole
from .registry import strategy
from .values import ORDERED

INT64 = np.dtype(np.int64)


@strategy("TopK")
def top_k(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False)
    dtype = d.dtype()
    axis = d.axis(len(shape)) if d.boolean() else None
    size = shape[-1 if axis is None else axis]
    k = whole([d.integer(0 if d.rarely(16) else 1, size)])
    options = d.attributes(largest=lambda: d.integer(0, 1)) if d.opset >= 11 else {}
    x = d.tensor(shape, dtype, ORDERED)
    return d.call([x, k], {**options, "axis": axis}, outputs=(dtype, INT64), parameters=(1,))


@strategy("Unique")
def unique(d: Draw) -> NodeCall:
    shape = d.shape(1, 4, empty=False, elements=512)
    dtype = d.dtype()
    options = d.attributes(axis=lambda: d.axis(len(shape)), sorted=lambda: d.integer(0, 1))
    x = d.tensor(shape, dtype, ("small", "ties", "normal"))
    outputs = [dtype, *(INT64 if d.boolean() else None for _ in range(3))]
    while outputs[-1] is None:
        outputs.pop()
    return d.call([x], options, outputs=outputs)


@strategy("NonMaxSuppression")
def non_max_suppression(d: Draw) -> NodeCall:
    batches, classes, count = d.choice((1, 2)), d.choice((1, 2, 3)), d.choice((4, 1, 2, 7, 12, 20))
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    centred = d.integer(0, 1)
    # Corners on a grid of sixteenths: intersections and unions are exact in float32.
    first = rng.integers(-16, 17, (batches, count, 2)) / 16
    extent = rng.integers(1, 17, (batches, count, 2)) / 16
    if centred:
        boxes = np.concatenate([first, extent], -1)
    else:
        corners = np.stack([first, first + extent], 2)  # (batches, count, 2 corners, 2)
        flipped = rng.integers(0, 2, (batches, count, 1, 2)).astype(bool) & bool(d.integer(0, 1))
        boxes = np.where(flipped, corners[:, :, ::-1], corners).reshape(batches, count, 4)
    scores = rng.permutation(batches * classes * count).reshape(batches, classes, count) / 8 - 2
    if d.rarely(4):
        scores = np.round(scores)  # ties
    most = whole(d.choice((3, 1, 0, 100, 5))).reshape(d.choice(((), (1,)))) if d.boolean() else whole(3)
    # No fraction of the grid's areas is equal to these thresholds, nor near them.
    iou = np.asarray(d.choice((0.41803, 0.0, 0.21117, 0.70711, 1.0)), np.float32) if d.boolean() else None
    threshold = np.asarray(d.choice((0.0625, -0.4375, 1.0625)), np.float32) if d.boolean() else None
    values = [boxes.astype(np.float32), scores.astype(np.float32), most, iou, threshold]
    options = {"center_point_box": centred} if centred or d.boolean() else {}
    return d.call(values, options, outputs=(INT64,), parameters=(2, 3, 4))
