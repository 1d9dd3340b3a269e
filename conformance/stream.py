"""The results of a check as JSON lines: one header, one row per judged thing as it comes, one footer.

The check of a bundle with several graphs is as many such runs, one after another in one file.

A file is written line by line beside its final name, as ``FILE.partial``, and gets its name when the footer of a
complete run is in it. So a crash loses nothing that was computed, and a file that bears its final name is whole. A
stream without a footer, or with one that says ``"complete": false``, is a truncated run.

Lines are strict JSON (RFC 8259). Numbers that JSON cannot hold are the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``; they are read back as numbers in the numeric fields. Unknown fields are ignored, so that later
versions of the tool can add some; `docs/stream.schema.json` is the schema.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

from ..errors import StreamError
from .json_lines import Source, encode_line, read_runs, source_name, to_plain, validated
from .results import FORMAT_VERSION, Footer, Header, NodeResult

Record = Header | NodeResult | Footer

PARTIAL_SUFFIX = ".partial"
"""Added to the file's name until the run is complete."""

_RECORDS: Mapping[str, type[Record]] = {
    "header": Header,
    "node": NodeResult,
    "output": NodeResult,
    "case": NodeResult,
    "footer": Footer,
}


@dataclass(frozen=True)
class Stream:
    """A results file as read.

    Attributes:
        header: its first line.
        rows: the judged nodes and outputs, in the order of the file.
        footer: its last line; None if the run was cut off.
        source: name of the file, for messages and titles.
    """

    header: Header
    rows: tuple[NodeResult, ...]
    footer: Footer | None
    source: str = ""

    @property
    def complete(self) -> bool:
        """True if the run reached its end."""
        return self.footer is not None and self.footer.complete


def partial_path(path: str | os.PathLike[str]) -> Path:
    """Where an unfinished run of `path` is kept: links followed, ``.partial`` added to the name."""
    final = Path(os.path.realpath(path))
    return final.with_name(final.name + PARTIAL_SUFFIX)


class StreamWriter:
    """Writes one stream, flushing each line; a context manager.

    Given a path, lines go to `partial_path(path)`, which is renamed to `path` once the footer of a complete run is
    written; until then an older file of that name stays as it was. An older unfinished file is kept as
    ``FILE.partial~`` until then, so that resuming a run from the file that it writes loses nothing. Nothing is created
    before the first line. Devices and pipes (``/dev/stdout``) are written directly. Given an open text stream, lines
    go there and it is left open.

    Args:
        target: a path, or an open text stream.
        runs: headers and footers that will be written.

    Raises:
        StreamError: the file cannot be written, or lines come in the wrong order.
    """

    def __init__(self, target: Source, runs: int = 1) -> None:
        self._runs_left = runs
        self._path = Path(target) if isinstance(target, str | os.PathLike) else None
        self._file: TextIO | None = None if isinstance(target, str | os.PathLike) else target
        self._in_place = self._path is None or _is_special(self._path)
        self._last: Record | None = None
        self._name = source_name(target)

    def __enter__(self) -> Self:
        if self._path is not None and not self._path.parent.is_dir():
            raise StreamError(f"cannot write {self._path}: there is no folder {self._path.parent}")
        if self._path is not None and self._path.is_dir():
            raise StreamError(f"cannot write {self._path}: it is a folder")
        return self

    def write(self, record: Record) -> None:
        """Append one line and flush it: the header first, then rows, the footer last.

        Raises:
            StreamError: out of order, or the file cannot be written.
        """
        self._check_order(record)
        line = encode_line(record)
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(line + "\n")
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._refused(error) from error
        self._last = record
        self._runs_left -= isinstance(record, Footer) and record.complete

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is None or self._file is None:
            return
        try:
            self._finish()
        except BrokenPipeError:
            raise
        except OSError as failure:
            if error is None:  # else what could not be written has been said already
                raise self._refused(failure) from failure

    def _refused(self, error: OSError) -> StreamError:
        return StreamError(f"cannot write {self._name}: {error.strerror or error}")

    def _finish(self) -> None:
        if self._path is None or self._file is None:
            return
        self._file.close()
        if not self._in_place and not self._runs_left:
            unfinished = partial_path(self._path)
            os.replace(unfinished, os.path.realpath(self._path))
            _older(unfinished).unlink(missing_ok=True)

    def _open(self) -> TextIO:
        if self._path is None:
            raise StreamError(f"cannot write {self._name}: it is closed")
        if self._in_place:
            return open(self._path, "w", encoding="utf-8", newline="\n")
        unfinished = partial_path(self._path)
        with contextlib.suppress(FileNotFoundError):
            os.replace(unfinished, _older(unfinished))
        return open(unfinished, "w", encoding="utf-8", newline="\n")

    def _check_order(self, record: Record) -> None:
        begins = self._last is None or (isinstance(self._last, Footer) and self._runs_left > 0)
        if isinstance(self._last, Footer) and not isinstance(record, Header):
            raise StreamError(f"cannot write {self._name}: nothing can follow the footer")
        if isinstance(record, Header) != begins:
            raise StreamError(f"cannot write {self._name}: a run has one header, before all other lines")


def read_stream(source: Source) -> Stream:
    """Read a file of one run whole.

    Raises:
        StreamError: as `read_streams`, or it holds several runs.
    """
    first, *others = read_streams(source)
    if others:
        raise StreamError(f"{source_name(source)} holds {1 + len(others)} runs; one is expected here")
    return first


def read_streams(source: Source) -> list[Stream]:
    """Read every run of a file.

    A last line that was cut off in the middle (it has no newline and is not whole) is dropped: such a run has no
    footer and counts as truncated.

    Args:
        source: a path, or an open text stream.

    Raises:
        StreamError: unreadable, not JSON lines, a line of an unknown kind or with an unfit value, or another format
            version; the message names the file and the line.
    """
    return [_stream(records, source_name(source)) for records in read_runs(source, _decode, Header, Footer)]


def _stream(records: list[Record], source: str) -> Stream:
    rows = tuple(record for record in records if isinstance(record, NodeResult))
    footer = records[-1] if isinstance(records[-1], Footer) else None
    return Stream(cast(Header, records[0]), rows, footer, source)


def resumable_rows(path: str | os.PathLike[str], header: Header, graphs: int = 1) -> dict[str, NodeResult]:
    """Rows of an earlier run that the run described by `header` need not judge again, by name of the node or case.

    Rows of the model's own outputs are left out: they are judged anew.

    Args:
        path: the stream of the earlier run; where it does not exist, its unfinished ``.partial`` is taken.
        header: the header of the run that is to go on.
        graphs: of the bundle that is checked; the earlier run may have ended before it came to this one.

    Raises:
        StreamError: unreadable, or of another model, other options or other versions; the message says which.
    """
    unfinished = partial_path(path)
    runs = read_streams(unfinished if unfinished.exists() and not Path(path).exists() else path)
    of_this_graph = [run for run in runs if run.header.model_sha256 == header.model_sha256]
    if graphs > len(runs) and not of_this_graph:
        return {}
    earlier = (of_this_graph or runs)[0]
    ours, theirs = _identity(header), _identity(earlier.header)
    for key in (*ours, *(key for key in theirs if key not in ours)):
        if ours.get(key) != theirs.get(key):
            difference = f"{key} is {theirs.get(key)!r} there and {ours.get(key)!r} here"
            raise StreamError(f"{earlier.source} cannot be resumed: {difference}")
    return {row.node: row for row in earlier.rows if row.kind != "output"}


def _decode(fields: dict[str, Any], where: str) -> Record:
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in _RECORDS:
        raise StreamError(f"{where}: kind is {kind!r}, must be one of {', '.join(_RECORDS)}")
    if kind == "header" and fields.get("format_version") != FORMAT_VERSION:
        found = fields.get("format_version")
        raise StreamError(f"{where}: format version {found!r}, this onnx-arch reads version {FORMAT_VERSION}")
    return validated(_RECORDS[kind], fields, where)


def _identity(header: Header) -> dict[str, Any]:
    """What two runs must share for the rows of one to stand in the other."""
    options = {f"option {key}": value for key, value in to_plain(header.options).items()}
    environment = to_plain(header.environment)
    versions = {key: environment.get(key) for key in ("packages", "runtime_versions")}
    return {"model_sha256": header.model_sha256, **options, **versions}


def _is_special(path: Path) -> bool:
    """True for a device, pipe or socket, which a rename would destroy."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _older(unfinished: Path) -> Path:
    return unfinished.with_name(unfinished.name + "~")
