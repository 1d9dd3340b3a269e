"""Resize and Upsample; the interpolation itself is in `_interpolation`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._interpolation import Axis, Sampling, resample, resample_scale
from .registry import kernel, scale
from .scale import Array, Scale

ASYMMETRIC = Sampling(coordinate_transformation_mode="asymmetric", nearest_mode="simple")
"""What Upsample, and Resize before opset 11, do: nearest rounds down, and up along an axis that shrinks. The spec of
those versions names no coordinates; this is what ONNX Runtime computes and what the examples of ONNX 1.5 expect."""


def _scaled_size(size: int, scale_factor: float, extent: float = 1.0) -> int:
    """floor(size · extent · scale) in float32, in which runtimes and ONNX's own shape inference compute it."""
    return math.floor(np.float32(size) * np.float32(extent) * np.float32(scale_factor))


def _axes_by_scales(x: Array, scales: Sequence[float]) -> list[Axis]:
    if len(scales) != x.ndim or min(scales, default=1) <= 0:
        raise InvalidInputError(f"scales {list(scales)} for shape {x.shape}: one above 0 is needed per axis")
    pairs = zip(x.shape, map(float, scales), strict=True)
    found = [Axis(i, size, _scaled_size(size, factor), Fraction(factor)) for i, (size, factor) in enumerate(pairs)]
    return [axis for axis in found if axis.factor != 1]


def _by_sizes(lengths: Sequence[int], sizes: Sequence[int], policy: str) -> list[tuple[int, Fraction]]:
    ratios = [Fraction(wanted, length) for wanted, length in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return list(zip(sizes, ratios, strict=True))
    if policy not in ("not_larger", "not_smaller"):
        raise InvalidAttributeError(f"keep_aspect_ratio_policy={policy!r}; allowed: stretch, not_larger, not_smaller")
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(math.floor(ratio * length + Fraction(1, 2)), ratio) for length in lengths]


def _resize_axes(
    x: Array,
    roi: Array | None,
    scales: Array | None,
    sizes: Array | None,
    axes: Sequence[int] | None,
    policy: str,
    mode: str,
) -> list[Axis]:
    """The axes that change, from the inputs of Resize; `scales` or `sizes` of no elements count as absent.

    An axis of scale 1 is left alone whatever the mode (tf_half_pixel_for_nn would move it by half an element).
    """
    chosen = [axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)]
    lengths = [x.shape[axis] for axis in chosen]
    crop = mode == "tf_crop_and_resize" and roi is not None and roi.size > 0
    region = [float(edge) for edge in roi] if crop and roi is not None else [0.0] * len(chosen) + [1.0] * len(chosen)
    edges = list(zip(region[: len(chosen)], region[len(chosen) :], strict=True))
    given = scales if scales is not None and scales.size else sizes
    if given is None or given.size != len(chosen):
        raise InvalidInputError(f"Resize: {len(chosen)} scales or sizes are needed for shape {x.shape}")
    if given is scales:
        factors = [float(factor) for factor in given]
        triples = zip(lengths, factors, edges, strict=True)
        pairs = [(_scaled_size(n, f, end - start), Fraction(f)) for n, f, (start, end) in triples]
    else:
        pairs = _by_sizes(lengths, [int(size) for size in given], policy)
    found = [
        Axis(axis, length, target, factor, *edge)
        for axis, length, (target, factor), edge in zip(chosen, lengths, pairs, edges, strict=True)
    ]
    return [axis for axis in found if axis.factor != 1 or (axis.start, axis.end) != (0, 1)]


@kernel("Resize", since=11)
def resize(
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    /,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    stored: tuple[np.dtype[Any] | None, ...] = (),
) -> Array:
    """`x` on another grid of the same extent (or of `roi`).

    Args:
        x: any shape; any dtype for `nearest`, numbers otherwise (integers are truncated).
        roi: (2·axes,) starts, then ends, in units of the extent; for tf_crop_and_resize.
        scales: (axes,) output size over input size; this or `sizes`.
        sizes: (axes,) int64 output sizes.
        antialias: since 18, as are `axes` (all where absent) and `keep_aspect_ratio_policy` (stretch, not_larger,
            not_smaller). See `Sampling` for the other attributes.
        stored: read by the scale.

    Raises:
        InvalidInputError: neither or a wrong number of scales and sizes.
        InvalidAttributeError: an unknown mode.

    Spec: Resize, since 11, 13, 18 and 19
    """
    sampling = Sampling(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        exclude_outside,
        antialias,
        extrapolation_value,
    )
    changed = _resize_axes(x, roi, scales, sizes, axes, keep_aspect_ratio_policy, coordinate_transformation_mode)
    return resample(x, changed, sampling)


@scale("Resize", since=11)
def resize_scale(
    y: Array,
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    /,
    *,
    axes: Sequence[int] | None = None,
    keep_aspect_ratio_policy: str = "stretch",
    stored: tuple[np.dtype[Any] | None, ...] = (None,),
    **attributes: Any,
) -> Scale:
    """COMPOSED, or exact where whole elements are taken: see `resample_scale`."""
    sampling = Sampling(**attributes)
    mode = sampling.coordinate_transformation_mode
    changed = _resize_axes(x, roi, scales, sizes, axes, keep_aspect_ratio_policy, mode)
    return resample_scale(y, x, changed, sampling, stored[0])


_LEGACY_MODES = {"bilinear": "linear", "trilinear": "linear"}


def _asymmetric(mode: str) -> Sampling:
    return replace(ASYMMETRIC, mode=_LEGACY_MODES.get(mode, mode))


def _register_scaled(op_type: str, since: int) -> None:
    """Upsample and Resize-10 with `scales` as an input."""

    @kernel(op_type, since=since)
    def by_input(
        x: Array, scales: Array, /, *, mode: str = "nearest", stored: tuple[np.dtype[Any] | None, ...] = ()
    ) -> Array:
        return resample(x, _axes_by_scales(x, scales.tolist()), _asymmetric(mode))

    @scale(op_type, since=since)
    def by_input_scale(
        y: Array,
        x: Array,
        scales: Array,
        /,
        *,
        mode: str = "nearest",
        stored: tuple[np.dtype[Any] | None, ...] = (None,),
    ) -> Scale:
        """COMPOSED, or exact where whole elements are taken: see `resample_scale`."""
        return resample_scale(y, x, _axes_by_scales(x, scales.tolist()), _asymmetric(mode), stored[0])


_register_scaled("Upsample", since=9)
_register_scaled("Resize", since=10)


@kernel("Upsample", since=7)
def upsample_attribute(
    x: Array, /, *, scales: Sequence[float], mode: str = "nearest", stored: tuple[np.dtype[Any] | None, ...] = ()
) -> Array:
    """Spec: Upsample, since 7 (`scales` as an attribute; coordinates o / scale, rounded down for nearest)."""
    return resample(x, _axes_by_scales(x, scales), _asymmetric(mode))


@scale("Upsample", since=7)
def upsample_attribute_scale(
    y: Array,
    x: Array,
    /,
    *,
    scales: Sequence[float],
    mode: str = "nearest",
    stored: tuple[np.dtype[Any] | None, ...] = (None,),
) -> Scale:
    """COMPOSED, or exact where whole elements are taken: see `resample_scale`."""
    return resample_scale(y, x, _axes_by_scales(x, scales), _asymmetric(mode), stored[0])


@kernel("Upsample", since=1)
def upsample_image(
    x: Array,
    /,
    *,
    height_scale: float,
    width_scale: float,
    mode: str = "nearest",
    stored: tuple[np.dtype[Any] | None, ...] = (),
) -> Array:
    """(N, C, H, W) only. Spec: Upsample, since 1."""
    return upsample_attribute(x, scales=(1, 1, height_scale, width_scale), mode=mode)


@scale("Upsample", since=1)
def upsample_image_scale(
    y: Array,
    x: Array,
    /,
    *,
    height_scale: float,
    width_scale: float,
    mode: str = "nearest",
    stored: tuple[np.dtype[Any] | None, ...] = (None,),
) -> Scale:
    """COMPOSED, or exact where whole elements are taken: see `resample_scale`."""
    return upsample_attribute_scale(y, x, scales=(1, 1, height_scale, width_scale), mode=mode, stored=stored)
