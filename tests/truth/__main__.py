"""`make truth`: what the kernels were compared with, written to docs/truth.md and docs/disagreements.md.

python -m tests.truth [FOLDER [SUITE…]]      FOLDER is docs, the suites are all of ONNX's if left out
"""

from __future__ import annotations

import platform
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import ml_dtypes
import mpmath
import numpy as np
import onnx

from onnx_arch.conformance.results import Outcome
from onnx_arch.operators.catalogue import catalogue
from onnx_arch.operators.unjudged import UNJUDGED

from .bodies import Compared, bodies, compared
from .digits import DIGITS, Digits, attention, elementwise, rows
from .disagreements import BODY, DECLARED, LEFT_OPEN, ONNX, Difference, runtime_on_node_tests, undeclared
from .official import SUITES, Judged, judged, official

COUNTED = (Outcome.PASSED, Outcome.FAILED, Outcome.UNJUDGED, Outcome.ERRORED)


def versions() -> str:
    """Of everything that takes part."""
    import onnxruntime  # noqa: PLC0415 (only here)
    import torch  # noqa: PLC0415 (optional: the table says so where it is absent)

    return (
        f"onnx {onnx.__version__} (opset {onnx.defs.onnx_opset_version()}), ONNX Runtime {onnxruntime.__version__} "
        f"(CPU), torch {torch.__version__}, mpmath {mpmath.__version__}, NumPy {np.__version__}, "
        f"ml_dtypes {ml_dtypes.__version__}, Python {platform.python_version()}, {platform.machine()}"
    )


def official_rows(judged_rows: dict[str, list[Judged]]) -> Iterator[str]:
    """The table of ONNX's own data."""
    yield "| suite | tests | outputs passed | declared disagreements | left open | raised |"
    yield "|---|---|---|---|---|---|"
    for suite, found in judged_rows.items():
        counts = Counter(row.outcome for row in found)
        cells = [f"{counts[outcome]:,}" for outcome in COUNTED]
        yield f"| {suite} | {len(official(suite)):,} | {' | '.join(cells)} |"


def body_rows(found: Iterable[Compared]) -> Iterator[str]:
    """The table of function bodies."""
    by_operator: dict[str, list[Compared]] = {}
    for item in found:
        by_operator.setdefault(item.body.schema.name, []).append(item)
    yield "| operator | versions (opset of the body) | calls | agree | differ |"
    yield "|---|---|---|---|---|"
    for name, items in by_operator.items():
        written = dict.fromkeys(f"{c.body.schema.since_version} ({c.body.opset})" for c in items)
        agree = sum(c.outcome is Outcome.PASSED for c in items)
        yield f"| {name} | {', '.join(written)} | {len(items)} | {agree} | {len(items) - agree or '–'} |"


def digit_rows(found: Iterable[Digits]) -> Iterator[str]:
    """The table of fifty digits."""
    yield "| operator | elements | largest error, as a share of its bound |"
    yield "|---|---|---|"
    for item in found:
        yield f"| {item.name} | {item.points} | {item.worst:.2g} |"


def pair_rows() -> Iterator[str]:
    """The table of PyTorch."""
    from .pairs import PAIRS, agreement  # noqa: PLC0415 (imports torch)

    yield "| operator | PyTorch | largest distance | as a share of the bound |"
    yield "|---|---|---|---|"
    for name, pair in PAIRS.items():
        found = agreement(pair, name)
        yield f"| {name} | `{pair.torch}` | {found.distance:.2g} | {found.share:.2g} |"


def coverage_lines() -> Iterator[str]:
    """How much there is."""
    listed = list(catalogue())
    by_domain = Counter(entry.domain or "ai.onnx" for entry in listed)
    counts = ", ".join(f"{domain} {count}" for domain, count in by_domain.items())
    pairs = sum(len(entry.versions) for entry in listed)
    yield f"{len(listed)} operators ({counts})"
    yield f"in {pairs} versions; `onnx-arch list operators` names versions, rule and types of each."
    yield "Every type that a schema allows is run and judged by a test, except:"
    yield ""
    for (domain, op_type), (types, reason) in UNJUDGED.items():
        which = "" if types is None else f" in {', '.join(sorted(t.removeprefix('tensor(')[:-1] for t in types))}"
        yield f"- `{domain + '::' if domain else ''}{op_type}`{which}: {reason}."


def truth(found: dict[str, list[Judged]], expansions: list[Compared]) -> Iterator[str]:
    """Lines of docs/truth.md."""
    yield "# What the kernels were compared with"
    yield f"\nMade by `make truth` with {versions()}.\n\n## Coverage\n"
    yield from coverage_lines()
    yield "\n## ONNX's own test data\n"
    yield "ONNX's expected outputs are judged by the rule by which a runtime is judged. Disagreements and what is left"
    yield "open are listed in [disagreements.md](disagreements.md).\n"
    yield from official_rows(found)
    yield "\n## Function bodies\n"
    yield "Operators that ONNX defines by others: the expansion, evaluated in float64 by our kernels of those others,"
    yield "is judged like a runtime's result. The calls are ONNX's node tests and samples of our own.\n"
    yield from body_rows(expansions)
    yield "\n## Fifty digits\n"
    yield f"Float64 kernels against mpmath at {DIGITS} digits: subnormals, ±0, the neighbourhood of overflow, poles,"
    yield "cancellation, ties. The bound is that of a float64 result; below 1 the reference keeps its own rule.\n"
    yield from digit_rows([*elementwise(), *rows(), *attention()])
    yield "\n## PyTorch in float64\n"
    yield from pair_rows()


def disagreements(found: dict[str, list[Judged]], differences: list[Difference]) -> Iterator[str]:
    """Lines of docs/disagreements.md."""
    yield "# Disagreements"
    yield f"\nMade by `make truth` with {versions()}.\n"
    yield "Where ONNX's expected values, its function bodies, or ONNX Runtime on ONNX's node tests are outside our"
    yield "bounds, and who is right by the specification's text. A test keeps this list complete in both directions.\n"
    yield "| who differs | on | how | who is right |"
    yield "|---|---|---|---|"
    for item in differences:
        how = item.how.split("; worst")[0].replace("|", "\\|")
        yield f"| {item.who} | `{item.what}` | {how} | {DECLARED.get(item.key, '(not explained)')} |"
    yield "\n## Left open\n\n| test | why | what the row says |\n|---|---|---|"
    for row in (row for suite in found.values() for row in suite if row.outcome is Outcome.UNJUDGED):
        yield f"| `{row.case.name}` | {LEFT_OPEN.get(row.case.name, '(not explained)')} | {row.text} |"


def all_differences(found: dict[str, list[Judged]], expansions: list[Compared]) -> list[Difference]:
    """Of ONNX's data, of function bodies, and of ONNX Runtime."""
    data = [Difference(ONNX, r.case.name, r.text) for rows_ in found.values() for r in rows_ if _differs(r.outcome)]
    body = [Difference(BODY, str(c.body), c.text) for c in expansions if _differs(c.outcome)]
    return [*data, *body, *runtime_on_node_tests().differences]


def _differs(outcome: Outcome) -> bool:
    return outcome in (Outcome.FAILED, Outcome.ERRORED)


def main() -> int:
    """Write both documents; 1 if anything differs without a declaration."""
    warnings.simplefilter("ignore")  # ONNX computes log(0) and the like while collecting its tests
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    found = {suite: [row for case in official(suite) for row in judged(case)] for suite in sys.argv[2:] or SUITES}
    with tempfile.TemporaryDirectory() as space:
        expansions = [item for body in bodies() for item in compared(body, Path(space), all_tests=True)]
    differences = all_differences(found, expansions)
    for name, lines in (("truth", truth(found, expansions)), ("disagreements", disagreements(found, differences))):
        (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for text in undeclared(differences):
        sys.stderr.write(f"not declared: {text}\n")
    return 1 if undeclared(differences) else 0


if __name__ == "__main__":
    raise SystemExit(main())
