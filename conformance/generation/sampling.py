"""Resize, GridSample, AffineGrid, RoiAlign, MaxRoiPool: where rounding could decide which pixel is asked, the positions
are kept away from the boundary, or are exact in binary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...operators.scale import Array
from ...operators.storage import is_float
from .drawing import Draw, NodeCall
from .movement import whole
from .registry import strategy
from .values import MOVED

DATA = ("normal", "small", "ties", "positive", "constant")
FLOAT32 = np.dtype(np.float32)
TRANSFORMS = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_crop_and_resize")
EXACT_SCALES = (2.0, 1.0, 0.5, 4.0, 0.25)
"""With these every source position is exact in binary, ties included."""
SCALES = (*EXACT_SCALES, 1.5, 3.0, 0.75, 1.25, 0.6, 2.3)
CLOSE = 1e-3


def _decided(call: NodeCall, scales: Array, shape: tuple[int, ...]) -> bool:
    """Whether no source position lies where its rounding would decide, unless the positions are exact."""
    options = call.attributes
    if options.get("mode", "nearest") != "nearest":
        return True
    transform = options.get("coordinate_transformation_mode", "half_pixel")
    if transform in ("half_pixel", "asymmetric", "pytorch_half_pixel") and all(s in EXACT_SCALES for s in scales):
        return True
    tie = 0.5 if options.get("nearest_mode", "round_prefer_floor").startswith("round") else 0.0
    for size, scale in zip(shape, scales, strict=True):
        if scale == 1:
            continue
        out = np.arange(int(np.floor(size * scale)))
        if transform == "align_corners":
            at = out * (size - 1) / max(len(out) - 1, 1)
        elif transform == "asymmetric":
            at = out / scale
        else:
            at = (out + 0.5) / scale - 0.5
        off = (at - tie) - np.round(at - tie)
        if np.any(np.abs(off) < CLOSE):
            return False
    return True


@strategy("Resize")
def resize(d: Draw) -> NodeCall:
    mode = d.choice(("nearest", "linear", "cubic"))
    rank = d.choice((4, 2, 3) if mode == "cubic" else (4, 4, 3, 2, 1, 5))
    dtype = d.dtype("T1", among=_resizable if mode == "nearest" else is_float)
    spatial = min(d.choice((1, 2, 2, 3)), rank, 2 if mode == "cubic" else 3)
    shape = tuple(d.choice((3, 4, 2, 5, 1, 6, 7)) for _ in range(rank))
    resized = range(rank - spatial, rank)
    options = _resize_options(d, mode)
    scales = _scales(d, shape, resized, options)
    named = list(resized) if d.opset >= 18 and d.rarely(3) else list(range(rank))
    if len(named) < rank:
        options["axes"] = [a - rank if d.boolean() else a for a in named]
    x = d.tensor(shape, dtype, DATA if is_float(dtype) else MOVED)
    call = _resize_call(d, x, scales, named, options)
    if _decided(call, _effective(call, scales), shape):
        return call
    doubled = np.asarray([2.0 if a in resized else 1.0 for a in named], np.float32)
    return d.call([x, None, doubled], {**options, "coordinate_transformation_mode": "half_pixel"}, parameters=(1, 2))


def _resize_options(d: Draw, mode: str) -> dict[str, Any]:
    transforms = TRANSFORMS if d.opset < 19 else (*TRANSFORMS, "half_pixel_symmetric")
    if mode == "nearest":  # a cut-out has no exact positions
        transforms = tuple(name for name in transforms if name != "tf_crop_and_resize")
    transform = d.choice(transforms)
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transform}
    if mode == "nearest":
        nearest = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        options |= d.attributes(nearest_mode=lambda: d.choice(nearest))
    if mode == "cubic":
        options |= d.attributes(cubic_coeff_a=lambda: d.choice((-0.75, -0.5)), exclude_outside=lambda: d.integer(0, 1))
    if d.opset >= 18 and mode != "nearest" and transform != "tf_crop_and_resize" and d.rarely(3):
        options |= d.attributes(antialias=lambda: d.integer(0, 1))
    if transform == "tf_crop_and_resize":
        options |= d.attributes(extrapolation_value=lambda: d.real(-1, 1))
    return options


def _scales(d: Draw, shape: tuple[int, ...], resized: Sequence[int], options: dict[str, Any]) -> Array:
    """One per axis, such that every output has a pixel; a part of one pixel has none."""
    transform = options["coordinate_transformation_mode"]
    exact = options["mode"] == "nearest" and transform != "align_corners" and d.boolean()
    found = np.ones(len(shape))
    for axis in resized:
        # Outputs of whole pixels only: else the text has two scales, the one given and the ratio of the lengths.
        fitting = [s for s in (EXACT_SCALES if exact else SCALES) if shape[axis] * s >= 1 and shape[axis] * s % 1 == 0]
        found[axis] = d.choice(fitting)
    return np.where(np.asarray(shape) > 1, found, 1.0) if transform == "tf_crop_and_resize" else found


def _resize_call(d: Draw, x: Array, scales: Array, named: list[int], options: dict[str, Any]) -> NodeCall:
    """By scales, or by sizes where the transform does not tell them apart.

    A cut-out always has sizes: what scales make of it is floor(n · (end − start) · scale) by the text, floor(n · scale)
    by everyone.
    """
    transform = options["coordinate_transformation_mode"]
    sizes = np.floor(np.asarray(x.shape) * scales).astype(np.int64)[named]
    if transform == "tf_crop_and_resize":
        cut = [scales[a] != 1 and x.shape[a] * scales[a] >= 3 for a in named]
        start = [d.choice((0.0, 0.25, 0.125)) if inside else 0.0 for inside in cut]
        end = [d.choice((1.0, 0.75, 0.875)) if inside else 1.0 for inside in cut]
        roi = np.asarray(start + end, np.float32)
        return d.call([x, roi, None, sizes], options, parameters=(1, 3))
    if transform == "half_pixel_symmetric" or d.boolean():
        return d.call([x, None, scales[named].astype(np.float32)], options, parameters=(2,))
    policy = d.choice(("stretch", "stretch", "not_larger", "not_smaller")) if d.opset >= 18 else "stretch"
    if policy != "stretch" and options["mode"] != "nearest" and "axes" in options:
        options = {**options, "keep_aspect_ratio_policy": policy}
    return d.call([x, None, None, sizes], options, parameters=(3,))


def _effective(call: NodeCall, scales: Array) -> Array:
    """The ratio of the sizes where these were given."""
    x = call.inputs[0]
    if len(call.inputs) < 4 or x is None:
        return scales
    return np.floor(np.asarray(x.shape) * scales) / np.asarray(x.shape)


def _resizable(dtype: np.dtype[Any]) -> bool:
    return is_float(dtype) or dtype.kind in "iu"


@strategy("GridSample")
def grid_sample(d: Draw) -> NodeCall:
    dtype = d.dtype("T1", among=is_float)
    spatial = d.choice((2, 3)) if d.opset >= 20 else 2
    names = ("linear", "nearest", "cubic") if d.opset >= 20 else ("bilinear", "nearest", "bicubic")
    mode = d.choice(names if spatial == 2 else names[:2])
    n, c = d.choice((1, 2)), d.choice((1, 2, 3))
    image = tuple(d.choice((3, 2, 4, 5, 1)) for _ in range(spatial))
    out = tuple(d.choice((3, 1, 2, 4)) for _ in range(spatial))
    align = d.integer(0, 1)
    grid = d.tensor((n, *out, spatial), np.float64, ("unit", "normal"))
    grid_type = d.dtype("T2", among=lambda t: is_float(t) and t.itemsize >= 4)
    if mode == "nearest":
        grid = _between_pixels(grid, image, align)
    padding = d.attributes(padding_mode=lambda: d.choice(("zeros", "border", "reflection")))
    options = {"mode": mode, "align_corners": align, **padding}
    return d.call([d.tensor((n, c, *image), dtype, DATA), grid.astype(grid_type)], options)


def _between_pixels(grid: Array, image: tuple[int, ...], align: int) -> Array:
    """Positions a quarter of a pixel beside the centres: rounding does not decide which is nearest."""
    found = []
    for last, size in enumerate(reversed(image)):
        g = grid[..., last]
        pixel = (g + 1) / 2 * (size - 1) if align else ((g + 1) * size - 1) / 2
        pixel = np.floor(pixel) + 0.25
        moved = 2 * pixel / max(size - 1, 1) - 1 if align else (2 * pixel + 1) / size - 1
        found.append(moved)
    return np.stack(found, -1)


@strategy("AffineGrid")
def affine_grid(d: Draw) -> NodeCall:
    dtype = d.dtype("T1")
    spatial = d.choice((2, 3))
    n = d.choice((1, 2))
    size = [n, d.choice((1, 3)), *(d.choice((3, 2, 4, 5, 1)) for _ in range(spatial))]
    theta = d.tensor((n, spatial, spatial + 1), dtype, ("normal", "small", "unit"))
    options = d.attributes(align_corners=lambda: d.integer(0, 1))
    if options.get("align_corners"):
        size = [*size[:2], *(max(s, 2) for s in size[2:])]  # one pixel has no two corners
    return d.call([theta, whole(size)], options, parameters=(1,))


@strategy("RoiAlign")
def roi_align(d: Draw) -> NodeCall:
    dtype = d.dtype("T1")
    n, c, h, w = d.choice((1, 2)), d.choice((1, 2)), d.choice((5, 4, 8)), d.choice((5, 4, 8))
    count = d.choice((2, 1, 3))
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    start = rng.integers(0, 12, (count, 2)) / 4 + 0.0625
    rois = np.concatenate([start, start + rng.integers(4, 14, (count, 2)) / 4 + 0.03125], 1)
    batch = rng.integers(0, n, count).astype(np.int64)
    options: dict[str, Any] = {"sampling_ratio": d.choice((2, 1, 3))} if d.boolean() else {}
    options |= d.attributes(
        output_height=lambda: d.choice((2, 1, 3)),
        output_width=lambda: d.choice((2, 1, 3)),
        spatial_scale=lambda: d.choice((1.0, 0.5)),
        mode=lambda: d.choice(("avg", "max")),
    )
    if d.opset >= 16:
        transforms = ("half_pixel", "output_half_pixel")
        options |= d.attributes(coordinate_transformation_mode=lambda: d.choice(transforms))
    if options.get("mode") == "max":
        options.pop("mode")  # of four weighted corners or of the sample itself: the text does not say
    return d.call([d.tensor((n, c, h, w), dtype, DATA), rois.astype(dtype), batch], options)


@strategy("MaxRoiPool")
def max_roi_pool(d: Draw) -> NodeCall:
    dtype = d.dtype()
    n, c, h, w = d.choice((1, 2)), d.choice((1, 2)), d.choice((6, 5, 8)), d.choice((6, 5, 8))
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    count = d.choice((2, 1, 3))
    start = rng.integers(0, 3, (count, 2))
    rois = np.concatenate([rng.integers(0, n, (count, 1)), start, start + rng.integers(1, 4, (count, 2))], 1)
    options = {"pooled_shape": [d.choice((2, 1)), d.choice((2, 1))], **d.attributes(spatial_scale=lambda: 1.0)}
    return d.call([d.tensor((n, c, h, w), dtype, DATA), rois.astype(dtype)], options)
