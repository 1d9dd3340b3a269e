"""Reductions, cumulative sums, Softmax and its kin, ArgMax and ArgMin."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...operators.storage import is_float
from .drawing import Draw, NodeCall
from .elementwise import is_integer
from .registry import strategy
from .values import ORDERED, SUMMED

AXES_ARE_INPUT_SINCE = {"ReduceSum": 13}
SMALL_INTEGERS = ("small", "normal", "counting")


def _reduce(d: Draw, dtype: np.dtype[Any], patterns: tuple[str, ...], *, empty: bool) -> NodeCall:
    shape = d.shape(elements=2048, empty=empty)
    x = d.tensor(shape, dtype, patterns)
    attributes = d.attributes(keepdims=lambda: d.integer(0, 1))
    if d.opset < AXES_ARE_INPUT_SINCE.get(d.op_type, 18):
        axes = d.axes(len(shape), least=1) if shape and d.boolean() else None
        return d.call([x], {**attributes, "axes": axes})
    attributes |= d.attributes(noop_with_empty_axes=lambda: d.integer(0, 1))
    axes = np.asarray(d.axes(len(shape)), np.int64) if d.boolean() else None
    return d.call([x, axes], attributes, parameters=(1,))


@strategy("ReduceSum", "ReduceL1", "ReduceSumSquare")
def reduce_sum(d: Draw) -> NodeCall:
    dtype = d.dtype()
    return _reduce(d, dtype, SMALL_INTEGERS if is_integer(dtype) else SUMMED, empty=True)


@strategy("ReduceL2")
def reduce_l2(d: Draw) -> NodeCall:
    return _reduce(d, d.dtype(among=is_float), SUMMED, empty=True)


@strategy("ReduceMean")
def reduce_mean(d: Draw) -> NodeCall:
    return _reduce(d, d.dtype(among=is_float), SUMMED, empty=False)


@strategy("ReduceProd")
def reduce_prod(d: Draw) -> NodeCall:
    dtype = d.dtype()
    x_patterns = ("unit", "normal", "constant") if is_float(dtype) else ("small",)
    call = _reduce(d, dtype, x_patterns, empty=True)
    x = call.inputs[0]
    if x is not None and is_integer(x.dtype):  # products that fit
        x[...] = np.where(np.abs(x.astype(np.int64)) > 1, 1, x.astype(np.int64)).astype(x.dtype)
        if x.size:
            x.reshape(-1)[0] = 3
    return call


@strategy("ReduceMax", "ReduceMin")
def reduce_extremum(d: Draw) -> NodeCall:
    return _reduce(d, d.dtype(), ORDERED, empty=d.opset >= 20)


@strategy("ReduceLogSum")
def reduce_log_sum(d: Draw) -> NodeCall:
    return _reduce(d, d.dtype(among=is_float), ("counting", "positive"), empty=d.opset >= 18)


@strategy("ReduceLogSumExp")
def reduce_log_sum_exp(d: Draw) -> NodeCall:
    patterns = ("small", "normal", "spread", "constant", "ties", "large")
    chosen = d.choice(patterns)
    call = _reduce(d, d.dtype(among=is_float), ("normal" if chosen == "large" else chosen,), empty=d.opset >= 18)
    x = call.inputs[0]
    if chosen == "large" and x is not None:
        x[...] = (x.astype(np.float64) * 50 + 200).astype(x.dtype)
    return call


@strategy("ArgMax", "ArgMin")
def arg_extremum(d: Draw) -> NodeCall:
    shape = d.shape(1, 5, empty=False)
    attributes = d.attributes(
        axis=lambda: d.axis(len(shape)), keepdims=lambda: d.integer(0, 1), select_last_index=lambda: d.integer(0, 1)
    )
    return d.call([d.tensor(shape, d.dtype(), ORDERED)], attributes)


@strategy("CumSum", "CumProd")
def cumulative(d: Draw) -> NodeCall:
    dtype = d.dtype("T")
    shape = d.shape(1, 4)
    product = d.op_type == "CumProd"
    patterns = ("unit", "constant") if product and is_float(dtype) else ("small",) if product else SUMMED
    x = d.tensor(shape, dtype, patterns)
    if product and is_integer(dtype):
        x = np.sign(x).astype(dtype) if dtype.kind == "i" else np.minimum(x, 1).astype(dtype)
    axis = np.asarray(d.axis(len(shape)), d.choice((np.int64, np.int32)))
    attributes = d.attributes(exclusive=lambda: d.integer(0, 1), reverse=lambda: d.integer(0, 1))
    return d.call([x, axis], attributes, parameters=(1,))


@strategy("Softmax", "LogSoftmax", "Hardmax")
def softmax(d: Draw) -> NodeCall:
    shape = d.shape(1, 5)
    dtype = d.dtype()
    x = d.tensor(shape, dtype, ("small", "normal", "ties", "constant", "spread"))
    if d.op_type == "Softmax" and x.size and d.rarely(4):
        x.reshape(-1)[:: d.integer(2, 5)] = -1e4  # masked scores
    if d.rarely(4):
        x = (x.astype(np.float64) + d.choice((100, -1000, 30000))).astype(dtype)
    return d.call([x], d.attributes(axis=lambda: d.axis(len(shape))))
