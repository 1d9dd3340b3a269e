"""`onnx-arch report`: results files in, one page out."""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidArgumentError
from .terminal import STANDARD_OUTPUT, ExitStatus, get_console


class ReportFormat(enum.StrEnum):
    """What a report is written as."""

    HTML = "html"
    JUNIT = "junit"
    MARKDOWN = "markdown"


Files = Annotated[
    list[Path], typer.Argument(metavar="FILE…", help="Results of `check --json` and `bench --json`, any number.")
]
Output = Annotated[
    str,
    typer.Option("--output", "-o", metavar="FILE", help="Where to write; the suffix .html, .md or .xml says what."),
]
Format = Annotated[
    ReportFormat | None, typer.Option("--format", help="What to write, whatever the suffix; needed for `-o -`.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not say where the report is.")]


def report(files: Files, output: Output = "report.html", form: Format = None, quiet: Quiet = False) -> ExitStatus:
    """Turn results into one self-contained page (.html), a summary (.md) or JUnit (.xml).

    The status is 0 when the report is written, whatever it says.
    """
    from ..reports.combine import read_results  # noqa: PLC0415 - keeps `--help` free of the results' libraries
    from ..reports.writing import format_of, render, write_whole  # noqa: PLC0415 - as above

    _refuse_overwriting(files, output)
    if output == STANDARD_OUTPUT and form is None:
        raise InvalidArgumentError("-o - needs --format")
    text = render(read_results(files), format_of(output) if form is None else form.value)
    if output == STANDARD_OUTPUT:
        sys.stdout.write(text)
    else:
        write_whole(output, text)
        get_console(quiet).print(f"report: {output}", markup=False, soft_wrap=True)
    return ExitStatus.OK


def _refuse_overwriting(files: list[Path], output: str) -> None:
    for file in files:
        if os.path.realpath(file) == os.path.realpath(output):
            raise InvalidArgumentError(f"{output} is among the files to read; the report would overwrite it")
