"""The published tables: who accepts what, by rule and kind of data."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from ..fingerprint import MATCHED
from ..results import Outcome
from .data import LENGTHS, TITLES
from .library import FAMILIES
from .like import reach
from .prose import APART_TEXT, FALSE_ALARMS, HEAD, MISSES, READING, TF32_TEXT, UNTOLD, WRONG_TEXT
from .sessions import WRONG
from .tampering import TAMPERS
from .tolerances import FIXED
from .trials import PROMISE, Trial

RULES = ("exact", "ulp", "dot", "composed")
TF32 = "TF32 inputs"
EQUAL = "equal"
SUMS_OF_EQUALS = 40
LEAST_TF32 = 16
SINGLE = (
    "a product dropped in one output element",
    "one element off by a thousandth",
    "the last element off by a thousandth",
    "one element negated",
    "one element NaN",
    "the last element is not written",
)

Cells = Sequence[object]


def markdown(header: Cells, rows: Iterable[Cells]) -> str:
    """A table, its first columns to the left and its numbers to the right."""
    rows = list(rows)
    numbers = [bool(rows) and not isinstance(rows[0][i], str) for i in range(len(header))]
    lines = [header, ["---:" if number else "---" for number in numbers], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def document(trials: Sequence[Trial], pieces: str = "all") -> str:
    """All tables, as Markdown.

    Args:
        trials: of a run.
        pieces: how many pieces of the library the run has; each has every n-th case of a family.
    """
    sections = (
        HEAD + "\n\n" + _goals(trials),
        READING + "\n\n" + _versions(pieces),
        "## False alarms\n\n" + FALSE_ALARMS + "\n\n" + _by_rule(trials, _alarm_cells, ALARM_HEADER),
        "## Misses\n\n" + MISSES + "\n\n" + _by_rule(trials, _miss_cells, MISS_HEADER),
        _listed(trials),
        "## What no check can tell\n\n" + _untold(),
        "## A single wrong element\n\n" + _single(trials),
        "## TF32 told from float32\n\n" + TF32_TEXT + "\n\n" + _tf32(trials),
        "## Algorithms with larger errors\n\n" + APART_TEXT + "\n\n" + _apart(trials),
        "## Runtimes not taken as correct\n\n" + WRONG_TEXT + "\n\n" + _wrong(),
        "## The library\n\n" + _library(trials),
    )
    return "\n\n".join(sections) + "\n"


ALARM_HEADER = ("rule", "data", "correct results", "ours", *FIXED)
MISS_HEADER = ("rule", "data", "promised", "ours", "like a correct one", *FIXED, "smaller", "found")


def _versions(pieces: str) -> str:
    names = ("numpy", "onnx", "onnxruntime", "torch")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return f"Run with Python {platform.python_version()}, {', '.join(found)}; {pieces} pieces of the library."


def correct(trials: Iterable[Trial]) -> list[Trial]:
    """Correct results that were judged, but for those of a class of their own."""
    return [t for t in trials if not t.faulty and not t.apart and t.outcome is not Outcome.UNJUDGED]


def promised(trials: Iterable[Trial]) -> list[Trial]:
    """Faults that must be found."""
    return [t for t in trials if t.promised]


def missed(trials: Iterable[Trial]) -> list[Trial]:
    """Promised faults that our verdict does not call wrong."""
    return [t for t in promised(trials) if not t.failed]


def tf32(trials: Iterable[Trial]) -> list[Trial]:
    """Products of TF32 inputs of at least 16 summands."""
    return [t for t in trials if t.name == TF32 and t.family == "contractions" and t.size >= LEAST_TF32]


def _unjudged(trials: Sequence[Trial]) -> str:
    where = ", ".join(sorted({f"{t.op_type} of {t.kind} numbers" for t in trials}))
    return f"{len(trials):,} unjudged" + (f": {where}" if where else "")


def _goals(trials: Sequence[Trial]) -> str:
    right, wrong, narrow = correct(trials), promised(trials), tf32(trials)
    alarms, misses = [t for t in right if t.failed], missed(trials)
    single = [t for t in wrong if t.name in SINGLE]
    unjudged = [t for t in trials if t.outcome is Outcome.UNJUDGED]
    own, generic = fault_counts()
    rows = [
        (
            "faults in the library",
            f"{own + generic:,}: {own:,} of single operators, {generic} that any operator can have",
        ),
        ("no false alarm", f"{len(alarms):,} in {len(right):,} correct results"),
        (f"no fault missed that moves an element by more than {PROMISE:g} · u · s · √k", _of(misses, wrong)),
        ("the same without sums of equal summands", _of(_unequal(misses), _unequal(wrong))),
        (f"TF32 told from float32, K from {LEAST_TF32} to {LENGTHS[-1]:,}", _told(narrow)),
        ("the same without sums of equal summands", _told(_unequal(narrow))),
        ("a single wrong element found", _told(single)),
        ("the same without sums of equal summands", _told(_unequal(single))),
        ("everything judged", _unjudged(unjudged)),
    ]
    return markdown(("goal", "counted"), rows)


def _of(misses: Sequence[Trial], wrong: Sequence[Trial]) -> str:
    alike = sum(t.like_correct for t in misses)
    remark = f" ({alike:,} of them no farther off than a correct result)" if misses else ""
    return f"{len(misses):,} missed of {len(wrong):,}{remark}"


def _told(trials: Sequence[Trial]) -> str:
    alike = sum(t.like_correct for t in trials if not t.failed)
    remark = f" ({alike:,} of the others no farther off than a correct result)" if alike else ""
    return f"{sum(t.failed for t in trials):,} of {len(trials):,}{remark}"


def _unequal(trials: Iterable[Trial]) -> list[Trial]:
    return [t for t in trials if t.kind != EQUAL]


def fault_counts() -> tuple[int, int]:
    """(faults of single families, faults that are tried on every operator)."""
    generic = {name for name, _ in TAMPERS}
    return sum(f.name not in generic for family in FAMILIES.values() for f in family.faults), len(generic)


def _untold() -> str:
    count, largest = reach(SUMS_OF_EQUALS)
    return UNTOLD.format(count=count, reach=largest, MATCHED=MATCHED)


def _by_rule(trials: Sequence[Trial], cells: Callable[[Sequence[Trial]], Cells], header: Cells) -> str:
    rows: list[Cells] = []
    for rule in RULES:
        mine = [t for t in trials if t.rule == rule]
        rows += [
            (rule, title, *cells([t for t in mine if t.kind == kind]))
            for kind, title in TITLES.items()
            if any(t.kind == kind for t in mine)
        ]
        rows.append((f"**{rule}**", "**all**", *cells(mine)))
    rows.append(("**all**", "**all**", *cells(trials)))
    return markdown(header, rows)


def _alarm_cells(trials: Sequence[Trial]) -> Cells:
    right = correct(trials)
    fixed = [sum(name not in t.accepted for t in right) for name in FIXED]
    return (len(right), sum(t.failed for t in right), *fixed)


def _miss_cells(trials: Sequence[Trial]) -> Cells:
    wrong, misses = promised(trials), missed(trials)
    smaller = [t for t in trials if t.faulty and not t.promised]
    fixed = [sum(name in t.accepted for t in wrong) for name in FIXED]
    alike = sum(t.like_correct for t in misses)
    return (len(wrong), len(misses), alike, *fixed, len(smaller), sum(t.failed for t in smaller))


def _span(values: Iterable[float]) -> str:
    values = sorted(values)
    ends = f"{values[0]:.3g}", f"{values[-1]:.3g}"
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _listed(trials: Sequence[Trial]) -> str:
    alarms = [
        (t.op_type, t.name, TITLES[t.kind], t.size, t.elements, t.message.replace("|", "\\|"))
        for t in correct(trials)
        if t.failed
    ]

    def key(t: Trial) -> tuple[str, str, str]:
        return t.op_type, t.name, TITLES[t.kind]

    rows = []
    for (op_type, name, kind), group in groupby(sorted(missed(trials), key=key), key=key):
        mine = list(group)
        spans = [
            _span(values) for values in ([t.size for t in mine], [t.elements for t in mine], [t.moved for t in mine])
        ]
        deviation = _span(t.max_z or 0.0 for t in mine)
        usual = _span(t.usual for t in mine)
        rows.append((op_type, name, kind, *spans, deviation, usual, len(mine), sum(t.like_correct for t in mine)))
    header = (
        "operator",
        "fault",
        "data",
        "K",
        "T",
        "moved by (u·s·√k)",
        "its \\|z\\|",
        "\\|z\\| of correct ones",
        "misses",
        "like a correct one",
    )
    parts = ["### What was missed", markdown(header, rows) if rows else "Nothing."]
    if alarms:
        parts += ["### False alarms", markdown(("operator", "variant", "data", "K", "T", "verdict"), alarms)]
    return "\n\n".join(parts)


def _single(trials: Sequence[Trial]) -> str:
    rows = []
    for name in SINGLE:
        mine = [t for t in promised(trials) if t.name == name]
        fixed = [sum(rule in t.accepted for t in mine) for rule in FIXED]
        rows.append((name, len(mine), sum(not t.failed for t in mine), *fixed))
    return markdown(("fault", "promised", "missed: ours", *FIXED), rows)


def _tf32(trials: Sequence[Trial]) -> str:
    mine = tf32(trials)
    sizes = sorted({t.size for t in mine if t.op_type == "MatMul"})
    rows = []
    for kind, title in TITLES.items():
        of_kind = [t for t in mine if t.kind == kind]
        cells = [_share([t for t in of_kind if t.size == size]) for size in sizes]
        rows.append((title, *cells, _share(of_kind)))
    return markdown(("data", *(f"{size:,}" for size in sizes), "all K"), rows)


def _share(trials: Sequence[Trial]) -> str:
    """Told of tried, and a sign for each that is no farther off than a correct result."""
    alike = sum(t.like_correct for t in trials if not t.failed)
    return f"{sum(t.failed for t in trials)}/{len(trials)}{'†' * alike}" if trials else "–"


def _apart(trials: Sequence[Trial]) -> str:
    rows = []
    for name in sorted({t.apart for t in trials if t.apart}):
        for kind, title in TITLES.items():
            mine = [t for t in trials if t.apart == name and t.kind == kind]
            if mine:
                z = _span(t.max_z or 0.0 for t in mine)
                fixed = [sum(rule not in t.accepted for t in mine) for rule in FIXED]
                rows.append((name, title, z, len(mine), sum(t.failed for t in mine), *fixed))
    return markdown(("algorithm", "data", "largest \\|z\\|", "results", "called wrong: ours", *FIXED), rows)


def _wrong() -> str:
    return markdown(("runtime", "operator", "why"), [(w.runtime, w.op_type, w.reason) for w in WRONG])


def _library(trials: Sequence[Trial]) -> str:
    rows = []
    generic = {name for name, _ in TAMPERS}
    for family in FAMILIES.values():
        mine = [t for t in trials if t.family == family.name]
        own = [f for f in family.faults if f.name not in generic]
        seen = {t.name for t in mine if t.faulty}
        idle = sum(fault.name not in seen for fault in own)
        counts = len({t.op_type for t in mine}), len({t.name for t in mine if not t.faulty}), len(own), idle
        rows.append((family.name, *counts, sum(not t.faulty for t in mine), sum(t.faulty for t in mine)))
    header = (
        "family",
        "operators",
        "correct variants",
        "own faults",
        "without effect",
        "correct results",
        "faulty results",
    )
    own_count, generic_count = fault_counts()
    text = (
        f"{own_count} faults of single families, and {generic_count} that are tried on every operator (elements, rows "
        "and buffers changed after a right computation). `without effect`: changed nothing on any case of this run."
    )
    return text + "\n\n" + markdown(header, rows)
