"""`onnx-arch list`: what there is to build, to judge with and to run on."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import typer

from .terminal import STANDARD_OUTPUT, ExitStatus, json_lines, print_columns

Row = Mapping[str, Any]


class Section(enum.StrEnum):
    """What can be listed."""

    ARCHITECTURES = "architectures"
    OPERATORS = "operators"
    RUNTIMES = "runtimes"


def _architectures() -> Iterator[Row]:
    from ..architectures.registry import listings  # noqa: PLC0415 - only what is asked for

    for entry in listings().values():
        yield {"kind": "architecture", "name": entry.name, "title": entry.title, "paper": entry.paper}


def _operators() -> Iterator[Row]:
    from ..operators.catalogue import catalogue  # noqa: PLC0415 - imports NumPy, onnx and every kernel

    for entry in catalogue():
        yield {
            "kind": "operator",
            "name": f"{entry.domain}::{entry.op_type}" if entry.domain else entry.op_type,
            "domain": entry.domain,
            "op_type": entry.op_type,
            "since": list(entry.versions),
            "rule": entry.rule,
            "types": list(entry.types),
            "bound": entry.bound,
        }


def _runtimes() -> Iterator[Row]:
    from ..runtimes.registry import listings  # noqa: PLC0415 - only what is asked for

    for entry in listings():
        yield {"kind": "runtime", "name": entry.name, "version": entry.version or "not installed", "title": entry.title}


SOURCES: dict[Section, Callable[[], Iterator[Row]]] = {
    Section.ARCHITECTURES: _architectures,
    Section.OPERATORS: _operators,
    Section.RUNTIMES: _runtimes,
}


def list_entries(
    section: Annotated[Section | None, typer.Argument(help="What to list; all in brief if left out.")] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write one JSON object per entry.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table.")] = False,
) -> ExitStatus:
    """Show the architectures, operators and runtimes there are."""
    shown = not quiet and json_file != STANDARD_OUTPUT
    brief = section is None and json_file is None
    rows = {name: list(SOURCES[name]()) for name in _asked(section, brief)}
    if json_file is not None:
        with json_lines(json_file) as write:
            for row in chain.from_iterable(rows.values()):
                write(row)
    if shown:
        _print(rows, brief)
    return ExitStatus.OK


def _asked(section: Section | None, brief: bool) -> list[Section]:
    """The sections to read; in brief not the operators, whose kernels take twice as long to import as all the rest."""
    if section is not None:
        return [section]
    return [name for name in Section if not (brief and name is Section.OPERATORS)]


def _print(rows: Mapping[Section, list[Row]], brief: bool) -> None:
    for name, listed in rows.items():
        print(f"{len(listed)} {name}")
        print_columns([_cells(row) for row in listed])
    if brief:
        print("operators\n  `onnx-arch list operators` names them, with opset versions and error bounds")


def _cells(row: Row) -> list[str]:
    hidden = {"kind", "domain", "op_type"}
    return [_text(key, value) for key, value in row.items() if key not in hidden]


def _text(key: str, value: Any) -> str:
    if key == "types":
        return in_short(value)
    return "since " + ", ".join(map(str, value)) if isinstance(value, list) else str(value)


FAMILIES: Mapping[str, tuple[str, ...]] = {
    "int2…int64": ("int2", "int4", "int8", "int16", "int32", "int64"),
    "int8…int64": ("int8", "int16", "int32", "int64"),
    "uint2…uint64": ("uint2", "uint4", "uint8", "uint16", "uint32", "uint64"),
    "uint8…uint64": ("uint8", "uint16", "uint32", "uint64"),
    "floats": ("float16", "bfloat16", "float", "double"),
    "float8": ("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"),
    "float6": ("float6e2m3", "float6e3m2"),
    "complex": ("complex64", "complex128"),
}
"""Short names of element types that come together."""


def in_short(types: Sequence[str]) -> str:
    """Element types in a table's cell: families by one name."""
    left, shown = list(types), list[str]()
    for name, members in FAMILIES.items():
        if set(members) <= set(left):
            shown.append(name)
            left = [item for item in left if item not in members]
    return " ".join([*shown, *left])
