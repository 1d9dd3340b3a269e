"""Pictures of benchmark rows as coordinates: samples, ratios, time by operator type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..benchmarks.results import BenchmarkResult, Measurement, OpTypeTime
from .speed import sides
from .text import duration, figure, visible

WIDTH = 1040
_LEFT, _RIGHT = 12, WIDTH - 12
_BINS = 80
_LANE, _COLUMN_HEIGHT = 84, 54
_MOST_OP_TYPES = 12


@dataclass(frozen=True)
class Column:
    """A bar of a histogram: left edge, top, width, height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Samples:
    """The samples of one side: a histogram, with marks at median and p95.

    Attributes:
        name: of the side.
        columns: the histogram, on the axis shared by all sides.
        median_x, p95_x: positions; None where unknown or off the axis.
        label: the figures in words.
        label_y, base_y: where label and histogram stand.
        index: 0 for the measured side, 1 for the other.
    """

    name: str
    columns: tuple[Column, ...]
    median_x: float | None
    p95_x: float | None
    label: str
    label_y: float
    base_y: float
    index: int


@dataclass(frozen=True)
class SamplesPicture:
    """Samples of every side on one time axis; `ticks` are (x, label), `description` says it in words."""

    lanes: tuple[Samples, ...]
    ticks: tuple[tuple[float, str], ...]
    description: str
    height: int
    width: int = WIDTH
    left: int = _LEFT
    right: int = _RIGHT


@dataclass(frozen=True)
class RatioPicture:
    """A ratio of times on a logarithmic axis around 1, with its interval: positions in a box of 200 × 22."""

    low_x: float
    high_x: float
    x: float
    one_x: float
    title: str


@dataclass(frozen=True)
class OpTypeBar:
    """Time of one operator type: `share` of all, 0 to 1; `width` of its bar, 0 to 100."""

    op_type: str
    time: str
    share: float
    width: float
    count: str
    providers: str


def samples_picture(row: BenchmarkResult) -> SamplesPicture | None:
    """Histograms of all sides' samples on one axis; None if there are none, or not numbers.

    The axis ends at the 99th percentile of the slower side, so that one slow outlier does not flatten the rest.
    """
    measured = [(name, side) for name, side in sides(row) if side.samples_s and all(map(math.isfinite, side.samples_s))]
    if not measured:
        return None
    low = min(min(side.samples_s) for _, side in measured)
    high = max(sorted(side.samples_s)[math.ceil(0.99 * len(side.samples_s)) - 1] for _, side in measured)
    low, high = (low, high) if high > low else (low * 0.9, low * 1.1 or 1.0)
    lanes = tuple(_samples(name, side, low, high, index) for index, (name, side) in enumerate(measured))
    ticks = tuple((_x(time, low, high), duration(time)) for time in _round_times(low, high))
    words = "; ".join(f"{lane.name}: {lane.label}" for lane in lanes)
    return SamplesPicture(lanes, ticks, f"Distribution of run times. {words}.", _LANE * len(lanes) + 24)


def ratio_picture(row: BenchmarkResult) -> RatioPicture | None:
    """The ratio of a row, on an axis from 1/4 to 4; None where nothing was compared."""
    if row.ratio is None or not 0 < row.ratio < math.inf:
        return None
    low, high = row.ratio_interval or (row.ratio, row.ratio)
    title = f"time ratio {figure(row.ratio)}, interval {figure(low)} to {figure(high)}"
    return RatioPicture(_ratio_x(low), _ratio_x(high), _ratio_x(row.ratio), _ratio_x(1.0), title)


def op_type_bars(side: Measurement) -> tuple[OpTypeBar, ...]:
    """Time by operator type, largest first; beyond the first twelve they are summed as "others"."""
    ordered = sorted(side.op_types, key=lambda entry: -entry.time_s)
    shown, others = ordered[:_MOST_OP_TYPES], ordered[_MOST_OP_TYPES:]
    if others:
        time_s, share, count = (
            sum(values) for values in zip(*((o.time_s, o.share, o.count) for o in others), strict=True)
        )
        shown.append(OpTypeTime(f"{len(others)} others", time_s, share, count))
    most = max((entry.share for entry in shown), default=0.0) or 1.0
    return tuple(_bar(entry, most) for entry in shown)


def _bar(entry: OpTypeTime, most: float) -> OpTypeBar:
    width = round(100 * entry.share / most, 1)
    providers = ", ".join(visible(name.removesuffix("ExecutionProvider"), 40) for name in entry.providers)
    return OpTypeBar(
        visible(entry.op_type, 80), duration(entry.time_s), entry.share, width, figure(entry.count), providers
    )


def _samples(name: str, side: Measurement, low: float, high: float, index: int) -> Samples:
    base = _LANE * (index + 1) - 6
    label = f"median {duration(side.median_s)}, p95 {duration(side.p95_s)}, {len(side.samples_s):,} samples"
    beyond = sum(sample > high for sample in side.samples_s)
    if beyond:
        label += f", {beyond:,} beyond the axis"
    columns = _histogram(side.samples_s, low, high, base)
    positions = [_x(t, low, high) if t is not None and low <= t <= high else None for t in (side.median_s, side.p95_s)]
    return Samples(name, columns, positions[0], positions[1], label, base - _COLUMN_HEIGHT - 8, base, index)


def _histogram(samples: Sequence[float], low: float, high: float, base: float) -> tuple[Column, ...]:
    counts = [0] * _BINS
    for sample in samples:
        if low <= sample <= high:
            counts[min(int((sample - low) / (high - low) * _BINS), _BINS - 1)] += 1
    width, most = (_RIGHT - _LEFT) / _BINS, max(counts) or 1
    heights = [(i, round(_COLUMN_HEIGHT * count / most, 1)) for i, count in enumerate(counts) if count]
    return tuple(Column(round(_LEFT + i * width, 1), round(base - h, 1), round(width - 1, 1), h) for i, h in heights)


def _x(time: float, low: float, high: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * (time - low) / (high - low), 1)


def _ratio_x(ratio: float) -> float:
    reach = math.log(4)
    clamped = min(max(math.log(ratio) if ratio > 0 else -reach, -reach), reach)
    return round(100 + 94 * clamped / reach, 1)


def _round_times(low: float, high: float) -> list[float]:
    """About six round times between `low` and `high`."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
