"""Fourier transforms, windows, mel weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from .drawing import Draw, NodeCall, element_type
from .registry import strategy

SIGNAL = ("normal", "small", "positive", "constant", "ties", "spread")
FLOAT32 = np.dtype(np.float32)


@strategy("DFT")
def dft(d: Draw) -> NodeCall:
    dtype = d.dtype("T1")
    rank = d.choice((2, 1, 3))
    shape = [d.choice((1, 2, 3)) for _ in range(rank)]
    at = d.integer(0 if rank == 1 or d.opset >= 20 else 1, rank - 1)
    shape[at] = n = d.choice((4, 1, 2, 3, 5, 8, 7, 16, 15))
    inverse = d.integer(0, 1)
    onesided = d.integer(0, 1) if not inverse else 0  # what the inverse of one side looks like changed between versions
    parts = 1 if onesided else d.choice((1, 2))
    x = d.tensor((*shape, parts), dtype, SIGNAL)
    length = np.asarray(d.choice((n, n + 3, max(1, n - 2))), d.choice((np.int64, np.int32))) if d.boolean() else None
    options: dict[str, Any] = {k: v for k, v in (("inverse", inverse), ("onesided", onesided)) if v or d.boolean()}
    if d.opset < 20:
        return d.call([x, length], {**options, "axis": at}, parameters=(1,))
    axis = np.asarray(at - rank - 1 if d.boolean() else at, np.int64)
    return d.call([x, length, axis], options, parameters=(1, 2))


@strategy("STFT")
def stft(d: Draw) -> NodeCall:
    dtype = d.dtype("T1")
    frame = d.choice((4, 2, 3, 5, 8))
    length = frame + d.choice((4, 0, 1, 7, 12))
    parts = d.choice((1, 2))
    x = d.tensor((d.choice((1, 2)), length, parts), dtype, SIGNAL)
    index = d.choice((np.int64, np.int32))
    step = np.asarray(d.choice((2, 1, 3, 5)), index)
    window = d.tensor((frame,), dtype, ("positive", "unit")) if d.boolean() else None
    size = np.asarray(frame, index) if window is None or d.boolean() else None
    onesided = 0 if parts == 2 else d.integer(0, 1)
    return d.call([x, step, window, size], {"onesided": onesided}, parameters=(1, 2, 3))


@strategy("HannWindow", "HammingWindow", "BlackmanWindow")
def window(d: Draw) -> NodeCall:
    size = np.asarray(d.choice((8, 2, 3, 5, 17, 64)), d.dtype("T1"))
    options: dict[str, Any] = d.attributes(periodic=lambda: d.integer(0, 1))
    dtype = FLOAT32
    if d.boolean():
        dtype = d.dtype("T2", among=lambda t: t.kind == "f" or t.name == "bfloat16")
        options["output_datatype"] = element_type(dtype)
    return d.call([size], options, outputs=(dtype,), parameters=(0,))


@strategy("MelWeightMatrix")
def mel_weight_matrix(d: Draw) -> NodeCall:
    index = d.dtype("T1")
    numbers = [np.asarray(v, index) for v in (d.choice((8, 2, 5)), d.choice((64, 16, 33)), d.choice((8192, 16000)))]
    edge = d.dtype("T2", among=lambda t: t.name in ("float32", "float64"))
    edges = [np.asarray(v, edge) for v in (d.choice((0.0, 100.0)), d.choice((4000.0, 2000.0)))]
    return d.call([*numbers, *edges], outputs=(FLOAT32,), parameters=(0, 1, 2, 3, 4))
