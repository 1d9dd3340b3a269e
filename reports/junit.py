"""Checks as JUnit XML, which CI systems read: one suite per run, one case per row.

A wrong result is a failure; a crash, a hang, an error and an operator that the runtime does not implement are errors;
what was not judged or not asked is skipped, and so
is a failure that was expected. A run that was cut off has a case of its own that is an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from ..conformance.results import NodeResult, Outcome
from ..conformance.stream import Stream
from .summary import allowance_used, summarise
from .text import facts, figure, percent, visible

_RESULTS: dict[Outcome, type[Failure] | type[Error] | type[Skipped]] = {
    Outcome.FAILED: Failure,
    Outcome.CRASHED: Error,
    Outcome.HUNG: Error,
    Outcome.ERRORED: Error,
    Outcome.UNSUPPORTED: Error,
    Outcome.UNJUDGED: Skipped,
    Outcome.SKIPPED: Skipped,
}


def junit_xml(checks: Iterable[Stream]) -> str:
    """The runs as one JUnit document, UTF-8 declared; control characters in names are spelled out."""
    runs = [(stream, _suite(stream)) for stream in checks]
    document = JUnitXml("onnx-arch")
    for _, suite in runs:
        document.append(suite)
    document.update_statistics()
    # After the statistics, which sum the times of the cases: only the whole run is timed.
    for stream, suite in runs:
        suite.time = _duration(stream)
    document.time = sum(_duration(stream) for stream, _ in runs)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + document.tostring().decode("utf-8") + "\n"


def _duration(stream: Stream) -> float:
    return 0.0 if stream.footer is None else stream.footer.duration_s


def _suite(stream: Stream) -> TestSuite:
    suite = TestSuite(visible(stream.header.model))
    suite.add_property("model_sha256", visible(stream.header.model_sha256))
    for label, value in (*facts(stream.header.options), *facts(stream.header.environment)):
        suite.add_property(label, value)
    cases = [_case(stream, row) for row in stream.rows] + [_warning_case(stream, text) for text in _warnings(stream)]
    suite.add_testcases(cases)
    return suite


def _case(stream: Stream, row: NodeResult) -> TestCase:
    kind = row.op_type if row.kind != "output" else "output"
    case = TestCase(visible(row.node), f"{visible(stream.header.model)}.{visible(kind)}")
    if row.outcome is not Outcome.PASSED:
        message = visible(row.message) or row.outcome.value
        kind = Skipped if row.known else _RESULTS[row.outcome]
        result = kind(f"known failure: {visible(row.known)}; {message}" if row.known else message, row.outcome.value)
        result.text = _details(row)
        case.result = [result]
    return case


def _warning_case(stream: Stream, warning: str) -> TestCase:
    case = TestCase("the run is whole", visible(stream.header.model))
    case.result = [Error(warning, "truncated")]
    return case


def _warnings(stream: Stream) -> tuple[str, ...]:
    return summarise(stream).warnings


def _details(row: NodeResult) -> str:
    """Every figure that the row has, one to a line."""
    figures = {
        "rule": visible(row.rule),
        "of allowed": percent(allowance_used(row)),
        "max |z|": figure(row.max_z),
        "rms z": figure(row.rms_z),
        "allowed rms z": figure(row.allowed_rms_z),
        "bits": figure(row.bits),
        "max abs": figure(row.max_abs),
        "inherited max abs": figure(row.inherited_max_abs),
        "fingerprint": visible(row.fingerprint),
        "opset": figure(row.opset),
        "occurrences": figure(row.occurrences),
        "origin": visible(row.origin),
        "smallest": visible(row.smallest),
        "outputs": ", ".join(visible(name) for name in row.outputs),
    }
    return "\n".join(f"{name}: {value}" for name, value in figures.items() if value not in ("", "–"))
