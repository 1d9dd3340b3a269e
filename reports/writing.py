"""Results written as a file, in the format that its name says."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import InvalidArgumentError
from .combine import Results

STANDARD_OUTPUT = "-"

Render = Callable[[Results], str]


def _html(results: Results) -> str:
    from .html import html  # noqa: PLC0415 - each format brings its own library

    return html(results)


def _junit(results: Results) -> str:
    from .junit import junit_xml  # noqa: PLC0415 - as above

    if not results.checks:
        raise InvalidArgumentError("JUnit holds checks, and none of the files is one")
    return junit_xml(results.checks)


def _markdown(results: Results) -> str:
    from .markdown import markdown  # noqa: PLC0415 - as above

    return markdown(results)


FORMATS: Mapping[str, Render] = {"html": _html, "junit": _junit, "markdown": _markdown}
"""What a report can be written as."""

SUFFIXES: Mapping[str, str] = {".html": "html", ".htm": "html", ".xml": "junit", ".md": "markdown"}
"""Which format a file name asks for."""


def render(results: Results, form: str) -> str:
    """`results` as a document of one of `FORMATS`.

    Raises:
        InvalidArgumentError: no such format, or nothing that it could hold.
    """
    if form not in FORMATS:
        raise InvalidArgumentError(f"format {form!r} is not one of {', '.join(FORMATS)}")
    return FORMATS[form](results)


def format_of(output: str | os.PathLike[str]) -> str:
    """The format that the name of `output` asks for.

    Raises:
        InvalidArgumentError: its suffix is not one of `SUFFIXES`.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InvalidArgumentError(f"{os.fspath(output)}: the suffix must be one of {known}, or name the format")
    return SUFFIXES[suffix]


def write_report(results: Results, output: str | os.PathLike[str], form: str | None = None) -> None:
    """Write `results` to the file `output`, whole or not at all.

    Args:
        results: what the report is about.
        output: the file; its folder must exist.
        form: one of `FORMATS`; None takes what the suffix of `output` says.

    Raises:
        InvalidArgumentError: unknown format, or the file cannot be written.
    """
    write_whole(output, render(results, format_of(output) if form is None else form))


def write_whole(output: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8) whole or not at all: beside its name first, then renamed; links are followed.

    Devices and pipes (``/dev/stdout``) are written directly.

    Raises:
        InvalidArgumentError: the file cannot be written.
    """
    path = Path(os.path.realpath(output))
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path, text.encode("utf-8"))
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {os.fspath(output)}: {error.strerror or error}") from error


def _replace(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(name, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
