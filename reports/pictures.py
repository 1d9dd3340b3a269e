"""Pictures of a run as coordinates: what the page's template draws as inline SVG.

Coordinates are in the units of the picture's view box, x to the right, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from ..conformance.results import NodeResult, Outcome
from .text import figure, visible

WIDTH = 1040
LEFT, RIGHT = 52, 118
TOP, PLOT_HEIGHT, LANE = 12, 190, 26
_MOST_BITS = 53
_TITLE_LIMIT = 160

PRECISIONS = ((20.0, 25.0, "float32"), (10.0, 12.0, "TF32, float16"), (7.0, 9.0, "bfloat16"))
"""Effective bits that arithmetic in a type typically leaves: from, to, name. Long float32 sums go down to 20."""


@dataclass(frozen=True)
class Mark:
    """One row in a picture: `style` is its look, `row` its index in the stream, `title` its words."""

    x: float
    y: float
    style: str
    row: int
    title: str


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    position: float
    label: str


@dataclass(frozen=True)
class Band:
    """A labelled range of the y axis."""

    y: float
    height: float
    label: str


@dataclass(frozen=True)
class Scatter:
    """Rows in graph order from left to right, one figure upwards; lanes above and below for rows without that figure.

    Attributes:
        description: what the picture shows, in words, for those who do not see it.
        y_label: what goes upwards.
        marks: what is drawn, in drawing order: failures last, on top.
        bands, y_ticks, x_ticks: reference ranges and axes.
        top_lane, bottom_lane: names of the lanes, "" where there is none.
        radius: of a mark.
    """

    description: str
    y_label: str
    marks: tuple[Mark, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    bands: tuple[Band, ...] = ()
    top_lane: str = ""
    bottom_lane: str = ""
    radius: float = 4.0
    width: int = WIDTH
    left: int = LEFT
    right: int = WIDTH - RIGHT
    plot_top: int = TOP + LANE
    plot_bottom: int = TOP + LANE + PLOT_HEIGHT
    top_lane_y: float = TOP + LANE / 2
    bottom_lane_y: float = TOP + LANE + PLOT_HEIGHT + LANE / 2
    axis_y: int = TOP + PLOT_HEIGHT + 2 * LANE
    height: int = TOP + PLOT_HEIGHT + 2 * LANE + 22


def bits_picture(rows: Sequence[NodeResult]) -> Scatter:
    """Effective bits of every row; bit-exact rows in the lane above, rows without a figure in the lane below."""
    top = min(_MOST_BITS, max([26.0, *(row.bits for row in rows if _finite(row.bits)), 0.0]) + 1)

    def height(bits: float) -> float:
        return _plot_y(min(max(bits, 0.0), top) / top)

    def place(row: NodeResult) -> float:
        if _finite(row.bits):
            return height(row.bits)
        return Scatter.top_lane_y if row.outcome is Outcome.PASSED else Scatter.bottom_lane_y

    bands = tuple(Band(height(high), height(low) - height(high), name) for low, high, name in PRECISIONS)
    ticks = tuple(Tick(height(bits), f"{bits}") for bits in range(0, int(top) + 1, 5 if top < 40 else 10))
    return Scatter(
        description=_describe_bits(rows),
        y_label="effective bits",
        marks=_marks(rows, place),
        y_ticks=ticks,
        x_ticks=_order_ticks(len(rows)),
        bands=bands,
        top_lane="bit-exact",
        bottom_lane="no figure",
        radius=_radius(len(rows)),
    )


def growth_picture(rows: Sequence[NodeResult]) -> Scatter | None:
    """Inherited error of every row on a logarithmic axis, and its own error as a ring; None if no row has either."""
    found = [value for row in rows for value in (row.inherited_max_abs, row.max_abs) if _finite(value) and value > 0]
    if not any(_known(row.inherited_max_abs) for row in rows):
        return None
    low = math.floor(math.log10(min(found, default=1e-9)))
    high = max(math.ceil(math.log10(max(found, default=1e-8))), low + 1)

    def place(value: float) -> float:
        if not math.isfinite(value):
            return Scatter.top_lane_y
        return Scatter.bottom_lane_y if value <= 0 else _plot_y((math.log10(value) - low) / (high - low))

    own = [(i, row) for i, row in enumerate(rows) if _known(row.max_abs)]
    inherited = [(i, row) for i, row in enumerate(rows) if _known(row.inherited_max_abs)]
    rings = tuple(_mark(i, row, len(rows), place(row.max_abs or 0.0), "own") for i, row in own)
    marks = tuple(_mark(i, row, len(rows), place(row.inherited_max_abs or 0.0), style(row)) for i, row in inherited)
    step = max(1, (high - low) // 6)
    ticks = tuple(Tick(_plot_y((power - low) / (high - low)), f"1e{power}") for power in range(low, high + 1, step))
    return Scatter(
        description=_describe_growth(rows),
        y_label="largest |error|",
        marks=rings + tuple(sorted(marks, key=lambda mark: mark.style == "red")),
        y_ticks=ticks,
        x_ticks=_order_ticks(len(rows)),
        top_lane="not finite" if any(_known(v) and not _finite(v) for r in rows for v in _errors(r)) else "",
        bottom_lane="no error",
        radius=_radius(len(rows)),
    )


def style(row: NodeResult) -> str:
    """How a row looks everywhere on the page: "green", "amber" or "red"."""
    if row.red:
        return "red"
    return "green" if row.outcome is Outcome.PASSED else "amber"


def _marks(rows: Sequence[NodeResult], place: Callable[[NodeResult], float]) -> tuple[Mark, ...]:
    marks = [_mark(i, row, len(rows), place(row), style(row)) for i, row in enumerate(rows)]
    return tuple(sorted(marks, key=lambda mark: ("green", "amber", "red").index(mark.style)))


def _mark(index: int, row: NodeResult, count: int, y: float, look: str) -> Mark:
    return Mark(_order_x(index, count), round(y, 1), look, index, _title(row))


def _title(row: NodeResult) -> str:
    name = visible(row.node, _TITLE_LIMIT)
    kind = visible(row.op_type, 40) if row.kind != "output" else "output"
    parts = [f"{name} · {kind} · {row.outcome}"]
    figures = (("bits", row.bits), ("own error", row.max_abs), ("inherited", row.inherited_max_abs))
    parts += [f"{label} {figure(value)}" for label, value in figures if value is not None]
    return "\n".join(parts)


def _order_x(index: int, count: int) -> float:
    """Where the row of that index stands: half a step from the edges."""
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / count, 1)


def _plot_y(share: float) -> float:
    return round(TOP + LANE + PLOT_HEIGHT * (1 - share), 1)


def _order_ticks(count: int) -> tuple[Tick, ...]:
    """About ten round positions in graph order, counted from 1."""
    if count == 0:
        return ()
    step = next(step for step in (10**e * f for e in range(12) for f in (1, 2, 5)) if count / step <= 10)
    numbers = [1, *range(step, count + 1, step)] if step > 1 else list(range(1, count + 1))
    return tuple(Tick(_order_x(number - 1, count), f"{number:,}") for number in numbers)


def _radius(count: int) -> float:
    if count <= 150:
        return 4.5
    return 3.0 if count <= 600 else 2.2


def _describe_bits(rows: Sequence[NodeResult]) -> str:
    known = [row for row in rows if _finite(row.bits)]
    if not known:
        return "Effective bits per node: no node has a figure."
    least = min(known, key=lambda row: row.bits or 0.0)
    return f"Effective bits per node in graph order; the least are {figure(least.bits)} at {visible(least.node, 80)}."


def _describe_growth(rows: Sequence[NodeResult]) -> str:
    known = [row for row in rows if _finite(row.inherited_max_abs)]
    if not known:
        return "Inherited error per node in graph order."
    most = max(known, key=lambda row: row.inherited_max_abs or 0.0)
    error = figure(most.inherited_max_abs)
    return f"Inherited error per node in graph order; the largest is {error} at {visible(most.node, 80)}."


def _errors(row: NodeResult) -> tuple[float | None, float | None]:
    return row.inherited_max_abs, row.max_abs


def _known(value: float | None) -> bool:
    return value is not None


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
