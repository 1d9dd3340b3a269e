"""Known failures: a TOML file whose rows say which failures are expected, and why.

    format = 1
    strict = true                 # a row that matches nothing, or a case that passes, makes the exit status 1

    [[known]]
    case = "test_gru_batchwise"   # a pattern with *, ? and […]
    runtime = "onnxruntime"
    version = ">=1.20,<1.33"      # of the runtime, as pip writes it
    reason = "layout 1 is not implemented"
    link = "https://…"

A row needs `case` or `op`, and a `reason`. A failure that it matches is counted and named, and leaves the exit status
alone. `docs/conform.md` describes every key.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidArgumentError
from .results import RED, NodeResult, Outcome

FORMAT = 1


@dataclass(frozen=True)
class Expectation:
    """One row of the file.

    Attributes:
        reason: why it fails.
        case: pattern of case names, or several; None is any.
        op: operator, "Conv" or "com.microsoft::Gelu"; None is any.
        runtime: name of the runtime; None is any.
        version: of the runtime, a PEP 440 specifier (">=1.20,<1.33"); None is any.
        provider: execution provider; None is any.
        outcome: which failures are meant; empty is every one.
        link: where more is said.
        strict: whether a matching case that passes makes the exit status 1; None is what the file says.
        row: its number in the file, from 1.
    """

    reason: str
    case: str | tuple[str, ...] | None = None
    op: str | None = None
    runtime: str | None = None
    version: str | None = None
    provider: str | None = None
    outcome: tuple[Outcome, ...] = ()
    link: str = ""
    strict: bool | None = None
    row: int = 0

    @property
    def title(self) -> str:
        """How reports call it: "row 3 (op GRU, case test_gru_*)"."""
        shown = self.patterns[0] + ", …" * (len(self.patterns) > 1) if self.patterns else None
        parts = [f"{key} {value}" for key, value in (("op", self.op), ("case", shown)) if value is not None]
        return f"row {self.row} ({', '.join(parts)})"

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of case names; none if any will do."""
        return () if self.case is None else (self.case,) if isinstance(self.case, str) else self.case

    def concerns(self, row: NodeResult) -> bool:
        """Whether the row is about this case, whatever became of it."""
        name = f"{row.domain}::{row.op_type}" if row.domain else row.op_type
        by_case = not self.patterns or any(fnmatch.fnmatchcase(row.node, pattern) for pattern in self.patterns)
        return by_case and (self.op is None or self.op == name)

    def explains(self, row: NodeResult) -> bool:
        """Whether this is a failure that the row expects."""
        return row.outcome in RED and self.concerns(row) and (not self.outcome or row.outcome in self.outcome)


@dataclass(frozen=True)
class Subject:
    """What the rows of a file are held against.

    Attributes:
        runtime: its name.
        versions: of its packages, by name.
        provider: execution provider.
    """

    runtime: str
    versions: Mapping[str, str]
    provider: str


@dataclass(frozen=True)
class Expectations:
    """The rows that hold for a runtime.

    Attributes:
        rows: in the order of the file.
        strict: what the file says of rows that do not.
        source: name of the file.
        aside: how many rows are of other runtimes, versions or providers.
    """

    rows: tuple[Expectation, ...] = ()
    strict: bool = False
    source: str = ""
    aside: int = 0

    def holding(self, subject: Subject) -> Expectations:
        """Those that are about this runtime, version and provider."""
        kept = tuple(item for item in self.rows if holds_for(item, subject))
        return dataclasses.replace(self, rows=kept, aside=len(self.rows) - len(kept))

    def annotate(self, row: NodeResult) -> NodeResult:
        """The row with the reason why its failure was expected, if it was."""
        found = next((item for item in self.rows if item.explains(row)), None)
        if found is None:
            return row
        return dataclasses.replace(row, known=f"{found.reason} {found.link}".strip())

    def contradicted(self, row: NodeResult) -> tuple[Expectation, ...]:
        """The strict rows that say of a case that passed that it fails."""
        if row.outcome is not Outcome.PASSED:
            return ()
        return tuple(item for item in self.rows if self.is_strict(item) and item.concerns(row))

    def is_strict(self, item: Expectation) -> bool:
        """Whether a passing case of a row makes the exit status 1."""
        return self.strict if item.strict is None else item.strict


@dataclass(frozen=True)
class Surprises:
    """Where a file of known failures is not what happened.

    Attributes:
        unmatched: rows that no case of the run is about.
        passing: names of the cases that passed against a row, by the row's title.
        strict: whether any of it makes the exit status 1.
    """

    unmatched: tuple[str, ...] = ()
    passing: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    strict: bool = False


def surprises(expectations: Expectations, rows: Sequence[NodeResult], *, whole: bool) -> Surprises:
    """What the file did not foresee.

    Args:
        expectations: the rows that hold.
        rows: of the run.
        whole: whether the run has all cases of its suite; rows of cases that were not asked for are no surprise.
    """
    unmatched = [item for item in expectations.rows if whole and not any(item.concerns(row) for row in rows)]
    passing: dict[str, tuple[str, ...]] = {}
    strict = expectations.strict and bool(unmatched)
    for item in expectations.rows:
        names = tuple(row.node for row in rows if row.outcome is Outcome.PASSED and item.concerns(row))
        if names:
            passing[item.title] = names
            strict |= expectations.is_strict(item)
    return Surprises(tuple(item.title for item in unmatched), passing, strict)


def read_expectations(path: str | os.PathLike[str]) -> Expectations:
    """The rows of a file, of whatever runtime.

    Raises:
        InvalidArgumentError: unreadable, no TOML, an unknown key or a value that is not allowed; names file and row.
    """
    file = _parsed(Path(path))
    rows = tuple(dataclasses.replace(item, row=number) for number, item in enumerate(file.known, start=1))
    for item in rows:
        _check(item, path)
    return Expectations(rows, file.strict, Path(path).name)


def holds_for(item: Expectation, subject: Subject) -> bool:
    """Whether a row is about this runtime, version and provider."""
    if item.runtime is not None and item.runtime != subject.runtime:
        return False
    if item.provider is not None and item.provider != subject.provider:
        return False
    if item.version is None:
        return True
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415 - only where a version is asked for

    version = subject.versions.get(_PACKAGES.get(subject.runtime, subject.runtime))
    return version is not None and SpecifierSet(item.version, prereleases=True).contains(version)


_PACKAGES = {"onnx-reference": "onnx"}
"""By name of a runtime, what its adapter calls the package whose version counts, where that is not its own name."""


@dataclass(frozen=True)
class _File:
    format: Literal[1]
    known: tuple[Expectation, ...] = ()
    strict: bool = False


def _parsed(path: Path) -> _File:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - only where a file is read

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path}: no TOML: {error}") from error
    _refuse_unknown(path, content)
    try:
        return TypeAdapter(_File).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidArgumentError(f"{path}: {_place(first['loc'])}: {first['msg']}") from error


_KEYS = frozenset(field.name for field in dataclasses.fields(Expectation)) - {"row"}


def _refuse_unknown(path: Path, content: Mapping[str, Any]) -> None:
    places: Iterable[tuple[str, Mapping[str, Any], frozenset[str]]] = (
        ("the file", content, frozenset({"format", "strict", "known"})),
        *((f"row {n}", row, _KEYS) for n, row in enumerate(_tables(content), start=1)),
    )
    for where, table, allowed in places:
        unknown = sorted(set(table) - allowed)
        if unknown:
            raise InvalidArgumentError(f"{path}: {where} has a key {unknown[0]!r}; allowed are {sorted(allowed)}")


def _tables(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    known = content.get("known", ())
    return [row for row in known if isinstance(row, dict)] if isinstance(known, list) else []


def _place(location: tuple[int | str, ...]) -> str:
    if location[:1] == ("known",) and len(location) > 1 and isinstance(location[1], int):
        return ", ".join([f"row {location[1] + 1}", *map(str, location[2:])])
    return ".".join(map(str, location))


def _check(item: Expectation, path: str | os.PathLike[str]) -> None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415 - only where a file is read

    where = f"{os.fspath(path)}: row {item.row}"
    if not item.patterns and item.op is None:
        raise InvalidArgumentError(f"{where} names neither a case nor an op, and would match everything")
    if not item.reason.strip():
        raise InvalidArgumentError(f"{where} gives no reason")
    wrong = sorted(set(item.outcome) - RED)
    if wrong:
        raise InvalidArgumentError(f"{where}: outcome {wrong[0]} is no failure; allowed are {', '.join(sorted(RED))}")
    try:
        SpecifierSet(item.version or "")
    except InvalidSpecifier as error:
        raise InvalidArgumentError(f"{where}: version {item.version!r}: give for example '>=1.20,<1.33'") from error
