"""The shapes at which an export is proved, and what is said of every dim afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..architectures.specification import Axis, GraphSpec
from ..errors import ExportError

SHOWN = 5
"""Dims that are named in one line of text; the manifest names all."""

SMALLEST_TRACED = 2
"""Tracing takes sizes of 0 and 1 for constants."""


def traced_sizes(spec: GraphSpec) -> dict[str, int]:
    """Axis sizes to trace with."""
    return {axis.name: max(axis.size, SMALLEST_TRACED) if axis.dynamic else axis.size for axis in spec.axes}


def swept_sizes(spec: GraphSpec) -> list[dict[str, int]]:
    """Axis sizes to prove at: the axes' own, every dynamic axis alone over its sweep, and all at their smallest."""
    own = spec.sizes()
    dynamic = [axis for axis in spec.axes if axis.dynamic]
    found = [own]
    found += [{**own, axis.name: size} for axis in dynamic for size in axis.sweep]
    if len(dynamic) > 1:
        found.append({**own, **{axis.name: min(axis.sweep) for axis in dynamic}})
        found.append({**own, **{axis.name: axis.sweep[index % len(axis.sweep)] for index, axis in enumerate(dynamic)}})
    return [sizes for index, sizes in enumerate(found) if sizes not in found[:index]]


def check_dynamic(spec: GraphSpec, dims: Mapping[str, Sequence[int | str]]) -> None:
    """Refuse a graph in which an axis that was to be dynamic is frozen.

    Args:
        spec: what was asked for.
        dims: what the graph has, by input.

    Raises:
        ExportError: names the axis, the dim and its size.
    """
    for axis in spec.axes:
        for port, dim in _places(spec, axis) if axis.dynamic else ():
            if isinstance(size := dims[port][dim], int):
                raise ExportError(
                    f"{spec.name}: axis {axis.name} was to be dynamic, but the module fixes {port}.{dim} at {size}: "
                    "leave it out of --dynamic, or change the module"
                )


def classify_dims(
    spec: GraphSpec, dims: Mapping[str, Sequence[int | str]], tested: Sequence[Mapping[str, int]]
) -> dict[str, Any]:
    """Which input dims are free, tied or frozen in the graph.

    Args:
        spec: what was asked for.
        dims: what the graph has, by input.
        tested: the axis sizes at which the graph was proved.

    Returns:
        For the manifest: "axes" (name, "free" or "tied", the dims, sizes tested) and "frozen" (dim by size).
    """
    places = {axis.name: _places(spec, axis) for axis in spec.axes if axis.dynamic}
    symbols = {name: {dims[port][dim] for port, dim in found} for name, found in places.items()}
    axes = [_axis_entry(name, places[name], symbols, tested) for name in places]
    sized = ((port.name, dim, size) for port in spec.inputs for dim, size in enumerate(dims[port.name]))
    frozen = {f"{port}.{dim}": size for port, dim, size in sized if isinstance(size, int)}
    return {"axes": axes, "frozen": frozen}


def _places(spec: GraphSpec, axis: Axis) -> list[tuple[str, int]]:
    return [(port.name, dim) for port in spec.inputs for dim, name in enumerate(port.shape) if name == axis.name]


def _axis_entry(
    name: str,
    found: Sequence[tuple[str, int]],
    symbols: Mapping[str, set[int | str]],
    tested: Sequence[Mapping[str, int]],
) -> dict[str, Any]:
    """An axis is tied if several dims share it, or if the module made it equal to another axis."""
    same = sorted(other for other, own in symbols.items() if other != name and own & symbols[name])
    entry: dict[str, Any] = {
        "name": name,
        "status": "tied" if same or len(found) > 1 else "free",
        "dims": [f"{port}.{dim}" for port, dim in found],
        "tested": sorted({sizes[name] for sizes in tested}),
    }
    return {**entry, "same_as": same} if same else entry


def dims_text(dims: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a person: free, tied and frozen dims."""
    for axis in dims["axes"]:
        sizes = ", ".join(str(size) for size in axis["tested"]) or "no size"
        same = f", the same as {', '.join(axis['same_as'])}" if "same_as" in axis else ""
        yield f"{axis['status']} {axis['name']} ({_few(axis['dims'], ' = ')}{same}), proved at {sizes}"
    if dims["frozen"]:
        yield "frozen " + _few([f"{place}={size}" for place, size in dims["frozen"].items()], ", ")


def _few(words: Sequence[str], between: str) -> str:
    """All of a few words; the first of many (a cache has two dims of a kind per layer) and how many more there are."""
    if len(words) <= SHOWN:
        return between.join(words)
    return f"{between.join(words[: SHOWN - 1])} and {len(words) - SHOWN + 1} more"
