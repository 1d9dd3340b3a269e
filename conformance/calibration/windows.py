"""Sliding windows, as a runtime gathers them for convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...operators.scale import Array


def padded(x: Array, pads: Sequence[int], fill: float = 0.0) -> Array:
    """Spatial axes of (N, C, …) padded by ONNX's [begins, ends]."""
    rank = x.ndim - 2
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    return np.pad(x, around, constant_values=fill)


def windows(x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """(N, C, …) -> (N, C, outputs…, kernel…)."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, x.ndim)))
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
    taps = tuple(slice(None, None, d) for d in dilations)
    return view[steps + taps]
