"""`onnx-arch list`: what there is to build, to judge with and to run on."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, groupby
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
    from ..operators.registry import entries  # noqa: PLC0415 - imports NumPy and every kernel

    ordered = sorted(entries().values(), key=lambda entry: entry.key)
    for (domain, op_type), versions in groupby(ordered, key=lambda entry: entry.key[:2]):
        kernels = list(versions)
        yield {
            "kind": "operator",
            "name": f"{domain}::{op_type}" if domain else op_type,
            "domain": domain,
            "op_type": op_type,
            "since": [entry.since for entry in kernels],
            "bound": bound_of(kernels[-1].scale),
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


def bound_of(scale: Callable[..., Any] | None) -> str:
    """How an operator's error is bounded, in a word or a line: from the scale function of its newest version."""
    from ..operators.scale import exact  # noqa: PLC0415 - imports NumPy

    if scale is None:
        return "none: its outputs are unjudged"
    if scale is exact:
        return "exact"
    first_paragraph = (scale.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(first_paragraph.split()).rstrip(".") or "bounded"


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
    return [_text(value) for key, value in row.items() if key not in hidden]


def _text(value: Any) -> str:
    return "since " + ", ".join(map(str, value)) if isinstance(value, list) else str(value)
