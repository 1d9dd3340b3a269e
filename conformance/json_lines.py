"""Strict JSON lines: values as JSON can hold them, lines as checked records, every refusal with its line number.

Both the stream of a check and the stream of a benchmark are a header, rows and a footer in this form.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, TextIO, TypeVar

import numpy as np

from ..errors import StreamError

Source = str | os.PathLike[str] | TextIO
"""Where lines come from or go to: a path, or an open text stream."""

Record = TypeVar("Record")


class HasKind(Protocol):
    """A dataclass that says what it is."""

    @property
    def kind(self) -> str: ...


def to_plain(value: object) -> Any:
    """`value` in terms of what JSON has: dataclasses as objects, paths and non-finite numbers as strings.

    Raises:
        StreamError: there is no such form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    match value:
        case None | bool() | int() | str():
            return value
        case np.generic():
            return to_plain(float(value) if isinstance(value, np.floating) else value.item())
        case float():
            return value if math.isfinite(value) else _non_finite(value)
        case os.PathLike():
            return os.fspath(value)
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
        case Iterable() if not isinstance(value, bytes):
            return [to_plain(item) for item in value]
    raise StreamError(f"a {type(value).__name__} cannot be written as JSON: {value!r}")


def encode_line(record: HasKind) -> str:
    """A dataclass as one line of strict JSON, ASCII only, without its newline; ``kind`` comes first.

    Raises:
        StreamError: a value in it cannot be written as JSON.
    """
    return json.dumps({"kind": record.kind, **to_plain(record)}, allow_nan=False)


def source_name(source: Source) -> str:
    """How messages call `source`."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "<stream>")


def parse_line(line: str, where: str) -> dict[str, Any]:
    """One line of strict JSON that holds an object.

    Raises:
        StreamError: it is not; the message begins with `where`.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f'{constant} is not JSON; write "{constant}"')

    try:
        fields = json.loads(line, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise StreamError(f"{where}: not JSON: {error.msg.removesuffix(' at')} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise StreamError(f"{where}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise StreamError(f"{where}: an object is expected, not {type(fields).__name__}")
    return fields


def read_runs(
    source: Source, decode: Callable[[dict[str, Any], str], Record], header: type, footer: type
) -> list[list[Record]]:
    """The runs in `source`: of each a record of type `header`, rows, and one of type `footer`, which the last may lack.

    A last line that was cut off in the middle (it has no newline and is not whole) is dropped.

    Args:
        source: a path, or an open text stream.
        decode: makes a record of a parsed line and of how messages call the line.
        header: type of the first record of a run.
        footer: type of its last.

    Raises:
        StreamError: unreadable, not JSON lines, refused by `decode`, or out of order.
    """
    name = source_name(source)
    records = list(_decoded(name, read_text(source), decode))
    if not records or not isinstance(records[0], header):
        raise StreamError(f"{name}, line 1: the first line must be a header")
    runs = [[records[0]]]
    for number, (before, record) in enumerate(itertools.pairwise(records), start=2):
        if isinstance(record, header) != isinstance(before, footer):
            fault = "a second header before a" if isinstance(record, header) else "only a header can follow the"
            raise StreamError(f"{name}, line {number}: {fault} footer")
        if isinstance(record, header):
            runs.append([])
        runs[-1].append(record)
    return runs


def validated(cls: type[Record], fields: Mapping[str, Any], where: str) -> Record:
    """A dataclass from parsed JSON, every value of its declared type; unknown fields are ignored.

    Raises:
        StreamError: a field is missing or of another type; the message begins with `where` and names the field.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - only where a file is read: costs 100 ms

    try:
        return _adapter(cls).validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise StreamError(f"{where}: {path}: {first['msg']}") from error


def read_text(source: Source) -> str:
    """The whole text of `source`.

    Raises:
        StreamError: it cannot be read, or is not UTF-8.
    """
    name = source_name(source)
    try:
        if isinstance(source, str | os.PathLike):
            return Path(source).read_text(encoding="utf-8-sig")
        return source.read()
    except OSError as error:
        raise StreamError(f"cannot read {name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise StreamError(f"{name} is not text: byte {error.start} is not UTF-8") from error


def _decoded(name: str, text: str, decode: Callable[[dict[str, Any], str], Record]) -> Iterator[Record]:
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        unterminated = number == len(lines)
        if unterminated and not line:
            return
        where = f"{name}, line {number}"
        try:
            yield decode(parse_line(line, where), where)
        except StreamError:
            if not unterminated or number == 1:
                raise


@functools.cache
def _adapter(cls: type) -> Any:
    from pydantic import TypeAdapter  # noqa: PLC0415 - as above

    return TypeAdapter(cls)


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
