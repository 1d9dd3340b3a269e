"""Pooling regions of images: RoiAlign, MaxRoiPool."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._spilling import unspecified
from .registry import kernel
from .scale import Array, Rule, Scale

ROUND = 2.0**-24
"""Half a unit in the last place of float32, in which coordinates are computed."""


COORDINATE_ROUNDINGS = 8
"""Two products with the scale, two shifts, the length, the bin's size, the sample's place in it, their sum."""


@dataclass(frozen=True)
class _Samples:
    """Where one region is sampled, along one spatial axis.

    Attributes:
        low: index of the left neighbour, (bins, samples).
        share: of the right neighbour, 0 to 1.
        inside: whether the sample lies within one of the image at all.
        error: one rounding of the coordinate in float32.
        open: whether rounding decides if it lies inside.
    """

    low: Array
    share: Array
    inside: Array
    error: Array
    open: Array


def _samples(start: float, length: float, reach: float, bins: int, count: int, size: int) -> _Samples:
    """Coordinates start + (bin + (i + ½) / count) · length / bins; `reach` is the size at which its parts round."""
    step = length / bins
    at = start + np.arange(bins)[:, None] * step + (np.arange(count) + 0.5) * step / max(count, 1)
    error = np.full(at.shape, ROUND * reach)
    inside = (at >= -1) & (at <= size)
    edge = np.minimum(np.abs(at + 1), np.abs(at - size)) <= COORDINATE_ROUNDINGS * error
    clamped = np.clip(at, 0, size - 1)
    low = np.minimum(np.floor(clamped).astype(np.int64), max(size - 2, 0))
    return _Samples(low, clamped - low if size > 1 else np.zeros_like(at), inside, error, edge)


@dataclass(frozen=True)
class _Region:
    """One region of interest: its image and its samples along height and width; None where their number is open."""

    image: int
    rows: _Samples
    columns: _Samples
    is_open: bool


@dataclass(frozen=True)
class _Align:
    """The attributes of RoiAlign."""

    mode: str
    output_height: int
    output_width: int
    sampling_ratio: int
    spatial_scale: float
    offset: float

    def regions(self, x: Array, rois: Array, batch_indices: Array) -> Iterator[_Region]:
        """The regions in order.

        Raises:
            InvalidInputError: an index of no image.
        """
        for roi, image in zip(rois, batch_indices.tolist(), strict=True):
            if not 0 <= image < len(x):
                raise InvalidInputError(f"RoiAlign: batch index {image}, {len(x)} images are given")
            left, top, right, bottom = (float(v) * self.spatial_scale for v in roi)
            rows, open_rows = self._axis(top, bottom, self.output_height, x.shape[2])
            columns, open_columns = self._axis(left, right, self.output_width, x.shape[3])
            yield _Region(image, rows, columns, open_rows or open_columns)

    def _axis(self, start: float, end: float, bins: int, size: int) -> tuple[_Samples, bool]:
        length = end - start if self.offset else max(end - start, 1.0)
        per_bin = length / bins
        count = self.sampling_ratio if self.sampling_ratio > 0 else max(0, math.ceil(per_bin))
        reach = abs(start) + abs(end) + self.offset
        error = ROUND * (3 * reach + 2 * abs(length)) / bins
        near = abs(per_bin - round(per_bin)) <= error and not _is_short(start, end, per_bin)
        is_open = self.sampling_ratio <= 0 and near
        return _samples(start - self.offset, length, reach, bins, count, size), is_open


def _is_short(*values: float) -> bool:
    """Whether all are multiples of 1/256 below 2^15: what float32 computes with them is exact."""
    return all(abs(v) < 2**15 and v * 256 == round(v * 256) for v in values)


def _corners(image: Array, rows: _Samples, columns: _Samples) -> Iterator[tuple[Array, Array]]:
    """(weights, values) of the four neighbours of every sample: (bins, bins, samples, samples), (C, …)."""
    right, below = min(1, image.shape[2] - 1), min(1, image.shape[1] - 1)
    inside = rows.inside[:, None, :, None] & columns.inside[None, :, None, :]
    for i, along_rows in ((0, 1 - rows.share), (below, rows.share)):
        for j, along_columns in ((0, 1 - columns.share), (right, columns.share)):
            weights = along_rows[:, None, :, None] * along_columns[None, :, None, :] * inside
            values = image[:, (rows.low + i)[:, None, :, None], (columns.low + j)[None, :, None, :]]
            yield weights, values


def _pooled(image: Array, region: _Region, mode: str) -> Array:
    """(C, output_height, output_width)."""
    products = [weights * values for weights, values in _corners(image, region.rows, region.columns)]
    if products[0].size == 0:
        return np.zeros(products[0].shape[:3])
    if mode == "avg":
        return np.sum(products, axis=0).mean(axis=(3, 4))
    return np.maximum.reduce(products).max(axis=(3, 4))


def _region_scale(image: Array, region: _Region, mode: str, terms: int) -> tuple[Array, Array]:
    """(magnitude, standard deviation of z) of one region's output, (C, output_height, output_width) each.

    The magnitude is infinite where the output is open.
    """
    parts = list(_corners(image, region.rows, region.columns))
    if parts[0][1].size == 0:
        shape = parts[0][1].shape[:3]
        return np.full(shape, np.inf if region.is_open else 0.0), np.ones(shape)
    sizes = np.sum([weights * np.abs(values) for weights, values in parts], axis=0)
    corners = np.stack([values for _, values in parts])
    shift = region.rows.error[:, None, :, None] + region.columns.error[None, :, None, :]
    moved = (corners.max(axis=0) - corners.min(axis=0)) * shift / ROUND
    jumps = region.rows.open[:, None, :, None] | region.columns.open[None, :, None, :]
    unknown = jumps.any(axis=(2, 3)) | region.is_open
    combine = np.mean if mode == "avg" else np.max
    size, coordinate = combine(sizes, axis=(3, 4)), combine(moved, axis=(3, 4))
    magnitude = size + COORDINATE_ROUNDINGS / terms * coordinate
    if mode == "max":
        other = np.sum([weights * values for weights, values in parts], axis=0).max(axis=(3, 4))
        unknown = unknown | (np.abs(other - _pooled(image, region, mode)) > ROUND * magnitude)
    with np.errstate(all="ignore"):
        spread = np.sqrt(1 + np.nan_to_num(2 * coordinate / magnitude) ** 2)
    return np.where(unknown, np.inf, magnitude), spread


def _align(
    coordinate_transformation_mode: str,
    mode: str,
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    spatial_scale: float,
) -> _Align:
    offsets = {"half_pixel": 0.5, "output_half_pixel": 0.0}
    if coordinate_transformation_mode not in offsets or mode not in ("avg", "max"):
        raise InvalidAttributeError(
            f"RoiAlign: coordinate_transformation_mode={coordinate_transformation_mode!r}, mode={mode!r}; allowed are "
            "half_pixel and output_half_pixel, avg and max"
        )
    offset = offsets[coordinate_transformation_mode]
    return _Align(mode, output_height, output_width, sampling_ratio, spatial_scale, offset)


def roi_align_scale(
    y: Array,
    x: Array,
    rois: Array,
    batch_indices: Array,
    /,
    *,
    coordinate_transformation_mode: str | None = None,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    opset: int,
) -> Scale:
    """COMPOSED: a mean (or the largest) of interpolated samples, at Σ w·|v|; the slope of the image times what eight
    roundings of a coordinate err by counts eight times, not once for every product.

    Open where rounding decides how many samples there are or whether one lies in the image; and for "max" where the
    largest of the weighted neighbours, which ONNX's data show, is not the largest interpolated value, which the text
    says.
    """
    transformation = coordinate_transformation_mode or _default_transformation(opset)
    align = _align(transformation, mode, output_height, output_width, sampling_ratio, spatial_scale)
    regions = list(align.regions(x, rois, batch_indices))
    if not regions:
        return Scale(np.zeros(()), 1, Rule.COMPOSED)
    most = max(region.rows.share.shape[1] * region.columns.share.shape[1] for region in regions)
    terms = COORDINATE_ROUNDINGS + (4 * most if mode == "avg" else 4)
    sizes, spreads = zip(*(_region_scale(x[region.image], region, mode, terms) for region in regions), strict=True)
    found = Scale(np.stack(sizes), terms, Rule.COMPOSED, np.stack(spreads))
    return unspecified(found, np.isnan(y) & np.isinf(x).any())  # infinity times a weight of 0, or left out


def _default_transformation(opset: int) -> str:
    return "half_pixel" if opset >= 16 else "output_half_pixel"


@kernel("RoiAlign", since=16, scale=roi_align_scale)
def roi_align(
    x: Array,
    rois: Array,
    batch_indices: Array,
    /,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    opset: int = 16,
) -> Array:
    """Pool regions of images at sampled points, bilinearly interpolated.

    Args:
        x: (N, C, H, W).
        rois: (regions, 4): x1, y1, x2, y2 in the coordinates of the input image.
        batch_indices: (regions,), the image of each.
        coordinate_transformation_mode: half_pixel shifts by −½; output_half_pixel does not, and takes regions as at
            least 1 wide.
        mode: avg or max (over the samples' weighted neighbours, as in ONNX's own data).
        output_height: bins along the height; `output_width` along the width.
        sampling_ratio: samples along each axis of a bin; 0: as many as it is wide, rounded up.
        spatial_scale: of the coordinates.

    Returns:
        (regions, C, output_height, output_width).

    Raises:
        InvalidAttributeError: another mode.
        InvalidInputError: an index of no image.

    Spec: RoiAlign, since 16. Paper: https://arxiv.org/abs/1703.06870
    """
    del opset
    align = _align(coordinate_transformation_mode, mode, output_height, output_width, sampling_ratio, spatial_scale)
    pooled = [_pooled(x[region.image], region, mode) for region in align.regions(x, rois, batch_indices)]
    return np.stack(pooled) if pooled else np.zeros((0, x.shape[1], output_height, output_width))


@kernel("RoiAlign", since=10, scale=roi_align_scale)
def roi_align_first(
    x: Array,
    rois: Array,
    batch_indices: Array,
    /,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    opset: int = 10,
) -> Array:
    """As since 16, without the shift by half a pixel.

    Spec: RoiAlign, since 10
    """
    return roi_align(
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
        opset=opset,
    )


def _cells(start: int, stop: int, bins: int, size: int, nudge: float) -> Iterator[tuple[int, int]]:
    """First and last index (excluded) of every bin of MaxRoiPool; `nudge` moves the bins' borders outwards, as a share
    of the region."""
    length = max(stop - start + 1, 1)
    step = length / bins
    if _is_short(step):
        nudge = 0.0
    for i in range(bins):
        low = math.floor(i * step - nudge * length * (i > 0)) + start
        high = math.ceil((i + 1) * step + nudge * length) + start
        yield min(max(low, 0), size), min(max(high, 0), size)


def _max_pooled(x: Array, rois: Array, pooled_shape: Sequence[int], spatial_scale: float, nudge: float) -> Array:
    y = np.zeros((len(rois), x.shape[1], *pooled_shape))
    for n, (image, *corners) in enumerate(rois):
        # round() of C: halves away from zero.
        left, top, right, bottom = (int(math.copysign(math.floor(abs(v) * spatial_scale + 0.5), v)) for v in corners)
        if not 0 <= int(image) < len(x):
            raise InvalidInputError(f"MaxRoiPool: batch index {int(image)}, {len(x)} images are given")
        for i, (low, high) in enumerate(_cells(top, bottom, pooled_shape[0], x.shape[2], nudge)):
            for j, (first, last) in enumerate(_cells(left, right, pooled_shape[1], x.shape[3], nudge)):
                cell = x[int(image), :, low:high, first:last]
                y[n, :, i, j] = cell.max(axis=(1, 2)) if cell.size else 0.0
    return y


NUDGE = 4 * ROUND
"""By how much of a region a bin's border may be off in float32: the quotient, the product, and the same again."""


def max_roi_pool_scale(
    y: Any, x: Array, rois: Array, /, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Scale:
    """Exact; open where a corner times `spatial_scale` is within rounding of a half, or a bin's border that lies on an
    element within rounding of the next one makes a difference."""
    scaled = np.abs(rois[:, 1:]) * spatial_scale
    halves = (spatial_scale != 1) & (np.abs(scaled % 1 - 0.5) <= ROUND * 4 * (scaled + 1))
    unknown = halves.any(axis=1).reshape(-1, 1, 1, 1)
    moved = [_max_pooled(x, rois, pooled_shape, spatial_scale, nudge) for nudge in (NUDGE, -NUDGE)]
    unknown = unknown | (moved[0] != y) | (moved[1] != y)
    return Scale(np.zeros(()), np.where(unknown, np.inf, 0.0), Rule.EXACT)


@kernel("MaxRoiPool", since=1, scale=max_roi_pool_scale)
def max_roi_pool(x: Array, rois: Array, /, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> Array:
    """The largest element in each of a fixed number of bins of every region; 0 in an empty bin.

    Args:
        x: (N, C, H, W).
        rois: (regions, 5): image, x1, y1, x2, y2, both corners included.
        pooled_shape: bins along height and width.
        spatial_scale: of the coordinates, which are rounded to whole elements then.

    Returns:
        (regions, C, *pooled_shape).

    Raises:
        InvalidInputError: an index of no image.

    Spec: MaxRoiPool, since 1; the bins are those of Fast R-CNN: https://arxiv.org/abs/1504.08083
    """
    return _max_pooled(x, rois, pooled_shape, spatial_scale, 0.0)
