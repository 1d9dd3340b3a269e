"""Which cases a suite's name and the choices of a user stand for."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from ...errors import InvalidArgumentError, UnknownEntryError
from ..generated import OLDEST, covered_operators, find_case
from .case import Case, Suite
from .drawn import as_case, drawn_cases
from .mined import mined_cases
from .official import PARTS, USUAL_PARTS, official_cases

NAMES = ("onnx", *(f"onnx:{part}" for part in PARTS), "generated", "mined:DIR")


@dataclass(frozen=True)
class Choice:
    """What is asked of a suite.

    Attributes:
        op_types: operators, "Conv" or "com.microsoft::Gelu"; empty is all.
        opsets: first and last version; None is all (of generated cases, from 13 on).
        names: patterns of case names with *, ? and […]; empty is all.
        seed: of generated cases, and of random inputs of mined ones.
        examples: generated cases per operator.
        dims: sizes of symbolic dims of models that cases are mined from.
    """

    op_types: tuple[str, ...] = ()
    opsets: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    seed: int = 0
    examples: int = 25
    dims: tuple[tuple[str, int], ...] = ()


def find_suite(name: str, choice: Choice | None = None, progress: Callable[[str], None] = lambda _text: None) -> Suite:
    """The cases of a suite.

    Args:
        name: one of `NAMES`.
        choice: which of them; None is all.
        progress: told what is being collected.

    Raises:
        UnknownEntryError: no such suite or operator, or no case of such a name.
        InvalidArgumentError: a folder that is none.
    """
    choice = Choice() if choice is None else choice
    kind, _, rest = name.partition(":")
    if kind == "onnx":
        cases = official_cases(USUAL_PARTS if not rest else (rest,))
        return _chosen(name, list(cases), choice, {"onnx": onnx.__version__})
    if name == "generated":
        return _generated(choice, progress)
    if kind == "mined" and rest:
        return _mined(Path(rest), choice, progress)
    near = difflib.get_close_matches(name, NAMES, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UnknownEntryError(f"suite {name!r}: there is {', '.join(NAMES)}{hint}")


def parse_opsets(text: str) -> tuple[int, int]:
    """ "13..22", "13..", "..22" or "18" as (first, last).

    Raises:
        InvalidArgumentError: none of these, or the first is above the last.
    """
    newest = onnx.defs.onnx_opset_version()
    found = re.fullmatch(r"(\d{0,6})(\.\.)?(\d{0,6})", text.strip())
    if found is None or not (found[1] or found[3]) or (found[3] and not found[2]):
        raise InvalidArgumentError(f"--opset {text}: give A..B, A.., ..B or A, for example {OLDEST}..{newest}")
    first = int(found[1]) if found[1] else 1
    last = int(found[3]) if found[3] else max(newest, first) if found[2] else first
    if not 1 <= first <= last:
        raise InvalidArgumentError(f"--opset {text}: opsets go up from 1, and the first may not be above the last")
    return first, last


def _generated(choice: Choice, progress: Callable[[str], None]) -> Suite:
    if choice.names and all(_GENERATED.fullmatch(name) for name in choice.names):
        found = [as_case(find_case(name, choice.opsets)) for name in choice.names]
        return _chosen("generated", found, choice, {})
    asked = _asked(choice.op_types, covered_operators(), "no cases are generated for it")
    cases: list[Case] = []
    for op_type in asked or covered_operators():
        progress(op_type)
        cases.extend(drawn_cases([op_type], choice.opsets, choice.seed, choice.examples))
    options = {"seed": choice.seed, "examples": choice.examples}
    return _chosen("generated", cases, choice, options)


_GENERATED = re.compile(r"\w+-\d+-seed\d+-of\d+-\d+")
"""Names of generated cases, which say all that finds them again."""


def _mined(folder: Path, choice: Choice, progress: Callable[[str], None]) -> Suite:
    cases = mined_cases(folder, dict(choice.dims), choice.seed, progress)
    options = {"seed": choice.seed, "dims": dict(choice.dims)}
    return _chosen(f"mined:{folder.name or folder}", list(cases), choice, options)


def _chosen(name: str, cases: list[Case], choice: Choice, options: Mapping[str, object]) -> Suite:
    known = {qualified(case) for case in cases if case.op_type}
    asked = set(_asked(choice.op_types, known, f"suite {name} has no case of it"))
    kept = [case for case in cases if not asked or qualified(case) in asked]
    if choice.opsets is not None:
        first, last = choice.opsets
        kept = [case for case in kept if first <= case.opset <= last]
    if choice.names:
        kept = list(_named(kept, choice.names))
    whole = not (asked or choice.opsets or choice.names)
    chosen = {"op_types": list(choice.op_types), "opset": choice.opsets and list(choice.opsets)}
    return Suite(name, tuple(kept), {**options, **chosen, "names": list(choice.names)}, whole)


def _named(cases: Iterable[Case], patterns: Sequence[str]) -> Iterator[Case]:
    return (case for case in cases if any(fnmatch.fnmatchcase(case.name, pattern) for pattern in patterns))


def qualified(case: Case) -> str:
    """The operator of a case with its domain: "Conv", "com.microsoft::Gelu"."""
    return f"{case.domain}::{case.op_type}" if case.domain else case.op_type


def _asked(op_types: Sequence[str], known: Iterable[str], why: str) -> tuple[str, ...]:
    names = sorted(known)
    for op_type in op_types:
        if op_type not in names:
            near = difflib.get_close_matches(op_type, names, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UnknownEntryError(f"--op {op_type}: {why}{hint}")
    return tuple(op_types)
