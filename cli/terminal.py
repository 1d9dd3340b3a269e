"""What every command shares: exit status, where text goes, progress, and JSON on standard output.

Standard output carries the result (a table, or with `--json -` JSON and nothing else); everything said on the way goes
to standard error. `rich` is imported when something is drawn.
"""

from __future__ import annotations

import enum
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError, StreamError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_FOLDERS = re.compile(r"(?:^|(?<==))[^=]*/(?=[^/])")
"""The folders of a path, which is a whole word or what follows the = of an option."""

STANDARD_OUTPUT = "-"
"""The FILE of `--json FILE` that means standard output."""


class ExitStatus(enum.IntEnum):
    """What a command says to its caller."""

    OK = 0
    """All was judged and is green."""
    FAILED = 1
    """It ran, and something failed."""
    COULD_NOT_RUN = 2
    """It could not run, or not to its end."""


def get_console(quiet: bool = False) -> Console:
    """A console on standard error for what is said on the way; silent if `quiet`."""
    from rich.console import Console  # noqa: PLC0415 - drawn text only: costs 40 ms

    return Console(stderr=True, quiet=quiet, highlight=False)


def get_output(quiet: bool = False) -> Console:
    """A console on standard output for results; silent if `quiet` (or while JSON goes there).

    Where the output is no terminal, lines are as long as they need to be: a table in a file is not cut at 80 columns.
    """
    from rich.console import Console  # noqa: PLC0415 - drawn text only: costs 40 ms

    width = None if sys.stdout.isatty() else 200
    return Console(quiet=quiet, highlight=False, width=width)


@contextmanager
def progress(console: Console, description: str) -> Iterator[Progress]:
    """A progress display that is drawn on an interactive terminal only, and leaves nothing behind.

    Args:
        console: from `get_console`; a quiet one, a pipe or CI draws nothing.
        description: what goes on, before each task's own description.

    Yields:
        A `rich.progress.Progress`: `task = bar.add_task("Conv_0", total=20)`, `bar.advance(task)`.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    words = description.replace("{", "{{").replace("}", "}}")
    text = TextColumn(f"{words} {{task.description}}", markup=False)
    silent = console.quiet or not console.is_interactive or bool(os.environ.get("CI"))
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        yield bar


def print_columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> None:
    """Print rows of cells on standard output, each column as wide as its widest cell; costs no import of `rich`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(indent + line.rstrip())


Place = str | os.PathLike[str]


def check_targets(targets: Mapping[str, Place | None], read: Iterable[Place | None] = ()) -> None:
    """Refuse, before any work is done, what could not be written after it, and what would write over another file.

    Args:
        targets: where each option writes, by its name; None where it was not given. Devices may be shared.
        read: files that must stay as they are; None where one was not given.

    Raises:
        InvalidArgumentError: two of them name one file, or a place that is no file.
        StreamError: there is no such folder, or nothing can be written into it.
    """
    taken = {os.path.realpath(file): "" for file in read if file is not None}
    for option, target in targets.items():
        if target is None or str(target).startswith("/dev/"):
            continue
        if str(target) == STANDARD_OUTPUT:
            if option != "--json":
                raise InvalidArgumentError(f"{option} {STANDARD_OUTPUT}: only --json goes to standard output")
            continue
        place = os.path.realpath(target)
        if taken.get(place) == "":
            raise InvalidArgumentError(f"{option} {os.fspath(target)} would overwrite a file that is read")
        if place in taken:
            raise InvalidArgumentError(f"{option} and {taken[place]} name the same file: {os.fspath(target)}")
        taken[place] = option
        if option in _ONE_FILE:
            _check_place(os.fspath(target))


_ONE_FILE = ("--json", "--junit", "--html", "--output")
"""Options that write one file; `--save-weights` may make a folder."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff", ".tif")


def check_picture(target: Place) -> None:
    """Refuse, before any work is done, a picture of a kind that cannot be written.

    Raises:
        InvalidArgumentError: names the kinds that can.
    """
    kind = os.path.splitext(target)[1]
    if kind.lower() not in PICTURES:
        raise InvalidArgumentError(f"{os.fspath(target)}: unknown kind {kind!r}; allowed are {', '.join(PICTURES)}")


def _check_place(target: str) -> None:
    """Refuse what is a folder, or lies where nothing can be written."""
    folder = os.path.dirname(target) or os.curdir
    if not target or os.path.isdir(target):
        raise StreamError(f"cannot write {target}: it is a folder")
    if not os.path.isdir(folder):
        raise StreamError(f"cannot write {target}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise StreamError(f"cannot write {target}: nothing can be written into {folder}")


def command_words() -> tuple[str, ...]:
    """The words of this command for a result's header, without the folders of this machine."""
    return ("onnx-arch", *(_FOLDERS.sub("", word) for word in sys.argv[1:]))


def parse_dims(words: Iterable[str]) -> dict[str, int]:
    """Sizes by name of `--dim NAME=N`: `["batch=2"]` as {"batch": 2}.

    Raises:
        InvalidArgumentError: not NAME=N with N a whole number of at least 0.
    """
    dims: dict[str, int] = {}
    for word in words:
        name, equals, size = word.rpartition("=")
        if not equals or not name or not size.isdecimal():
            raise InvalidArgumentError(f"--dim {word}: must be NAME=N with a whole number, for example batch=2")
        dims[name] = int(size)
    return dims


def parse_runtime_options(words: Iterable[str]) -> dict[str, Any]:
    """What only one runtime knows, of `--runtime-option KEY=VALUE`, as `RuntimeOptions.extra` holds it.

    `provider_options.use_tf32=0` is {"provider_options": {"use_tf32": "0"}}: what stands behind the first dot is a name
    of the runtime's own, dots included, and keeps its value as text. Without a dot the value is read as JSON if it is
    any: `log_severity=0`.

    Raises:
        InvalidArgumentError: no KEY=VALUE, or a key with and without names of its own.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        group, dot, name = key.partition(".")
        if not equals or not group or (dot and not name):
            raise InvalidArgumentError(
                f"--runtime-option {word}: must be KEY=VALUE, for example provider_options.use_tf32=0"
            )
        held = options.setdefault(group, {} if dot else None)
        if bool(dot) != isinstance(held, dict):
            raise InvalidArgumentError(f"--runtime-option {word}: {group} is given with and without names of its own")
        if dot:
            held[name] = value
        else:
            options[group] = _json_or_text(value)
    return options


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


@contextmanager
def json_lines(file: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Where `--json FILE` writes: yields a function that writes one row as one line.

    Args:
        file: a path, or "-" for standard output.
    """
    if file == STANDARD_OUTPUT:
        yield print_json_line
        return
    with ExitStack() as stack:
        with _naming(file):
            stream = stack.enter_context(open(file, "wb", buffering=0))

        def write(row: Mapping[str, Any]) -> None:
            with _naming(file):
                stream.write((json_line(row) + "\n").encode())

        yield write


@contextmanager
def _naming(file: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StreamError(f"cannot write {file}: {error.strerror or error}") from error


def print_json_line(row: Mapping[str, Any]) -> None:
    """Write one JSON object as one line on standard output, at once."""
    print(json_line(row), flush=True)


def json_line(row: Mapping[str, Any]) -> str:
    """One JSON object on one line; NaN and infinities, which JSON has not, as in the streams of checks: as strings."""
    from ..conformance.json_lines import to_plain  # noqa: PLC0415 - imports NumPy

    return json.dumps(to_plain(row), ensure_ascii=False, allow_nan=False)
