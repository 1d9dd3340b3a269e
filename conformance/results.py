"""What a check says: frozen data, one closed union of outcomes, one JSON line per row.

The stream of a run is a header, rows as they come, and a footer. No footer means a truncated run.
`StreamWriter`, `read_stream` and resuming live in `conformance.stream`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT_VERSION = 1


class Outcome(enum.StrEnum):
    """What became of one judged thing. Only PASSED is green."""

    PASSED = "passed"
    FAILED = "failed"
    """It ran and is wrong."""
    CRASHED = "crashed"
    """The runtime's process died."""
    HUNG = "hung"
    """The runtime did not answer within the time limit."""
    ERRORED = "errored"
    """The runtime raised an error."""
    UNSUPPORTED = "unsupported"
    """The runtime says that it does not implement this."""
    UNJUDGED = "unjudged"
    """We have no kernel or no bound; the message says why."""
    SKIPPED = "skipped"
    """We did not ask; the message says why."""


RED = frozenset({Outcome.FAILED, Outcome.CRASHED, Outcome.HUNG, Outcome.ERRORED, Outcome.UNSUPPORTED})
"""Outcomes that make the exit status 1."""


@dataclass(frozen=True)
class Verdict:
    """The comparison of one or more output tensors with the reference.

    Attributes:
        outcome: PASSED, FAILED or UNJUDGED.
        rule: name of the rule that decided ("exact", "ulp(1)", "dot(4608)", "composed(768)", …).
        max_z: largest |z| over all elements, in half-units in the last place at the error scale; None for exact.
        rms_z: root mean square of z.
        allowed_rms_z: the bound that rms_z was held against; None where only max_z is bounded.
        allowed_max_z: the certain bound that max_z was held against.
        bits: effective bits, −log2(rms(|a − r| / s)); None for exact or where there is no error at all.
        max_abs: largest |actual − reference|; 0 for equal integers, None where not numeric.
        message: "" when nothing is to be said; else what is wrong (or noteworthy), with numbers and an index.
    """

    outcome: Outcome
    rule: str = ""
    max_z: float | None = None
    rms_z: float | None = None
    allowed_rms_z: float | None = None
    allowed_max_z: float | None = None
    bits: float | None = None
    max_abs: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Header:
    """First line of a stream (`"kind": "header"`).

    Attributes:
        command: the words of the command.
        model: file name of the model (no folder).
        model_sha256: over the model file and its external data.
        environment: versions and machine (`conformance.environment.describe`).
        options: runtime, provider, optimization level, inputs' source and seed.
        nodes: how many rows the run will have if it completes.
    """

    command: tuple[str, ...]
    model: str
    model_sha256: str
    environment: Mapping[str, Any]
    options: Mapping[str, Any]
    nodes: int
    format_version: int = FORMAT_VERSION
    kind: str = "header"


@dataclass(frozen=True)
class NodeResult:
    """One judged node (`"kind": "node"`), output of the untouched model ("output"), or case of a suite ("case").

    For kind "output": `node` is the name of the model's output, `op_type` is "" and `outputs` holds that name. For kind
    "case": `node` is the name of the case, `op_type` the operator that it is about ("" for a whole graph).

    Attributes:
        node: unique, stable name of the node ("Conv_0" by op_type and order where the file has none).
        op_type: its operator.
        domain: "" for ai.onnx.
        outputs: names of its output tensors.
        shapes: shape of each output as the runtime returned it; None where it returned none.
        dtypes: dtype of each output.
        outcome … max_abs: as in `Verdict`.
        inherited_max_abs: largest |runtime − clean float64 run of the whole graph|, how far errors have grown.
        fingerprint: the hypothesis that explains a failure ("TF32 inputs"), else "".
        opset: of a case, the model's version of the operator's domain.
        occurrences: of a case that was cut from models, how many of their nodes are like it.
        origin: of such a case, the model and the node where it was first met.
        known: the reason why this failure was expected, from an expectations file; "" where it was not.
        smallest: of a generated case that fails, the smallest call found that fails alike; else "".
    """

    node: str
    op_type: str
    domain: str
    outputs: tuple[str, ...]
    outcome: Outcome
    rule: str = ""
    max_z: float | None = None
    rms_z: float | None = None
    allowed_rms_z: float | None = None
    allowed_max_z: float | None = None
    bits: float | None = None
    max_abs: float | None = None
    inherited_max_abs: float | None = None
    shapes: tuple[tuple[int, ...] | None, ...] = ()
    dtypes: tuple[str | None, ...] = ()
    fingerprint: str = ""
    message: str = ""
    opset: int | None = None
    occurrences: int | None = None
    origin: str = ""
    known: str = ""
    smallest: str = ""
    kind: str = "node"

    @property
    def red(self) -> bool:
        """Whether it makes the exit status 1: a failure that was not expected."""
        return self.outcome in RED and not self.known

    @property
    def said(self) -> str:
        """All that is said of it in one text: the message, and what explains the failure."""
        explained = f"explained by {self.fingerprint}" if self.fingerprint else ""
        return "; ".join(part for part in (self.message, explained) if part)


@dataclass(frozen=True)
class Footer:
    """Last line of a stream (`"kind": "footer"`): without it the run was cut off.

    Attributes:
        counts: rows by outcome, all eight outcomes named, nodes and outputs together.
        duration_s: wall-clock seconds of the run.
        peak_memory_bytes: of this process and of the runtime's worker.
        first_failed: name of the first row in graph order that is not green, or None.
        unmatched: rows of a file of known failures that no case of the run is about.
        passing: names of the cases that passed although a row knows them to fail, by the row's title.
        strict: whether `unmatched` and `passing` make the exit status 1.
    """

    counts: Mapping[str, int]
    duration_s: float
    peak_memory_bytes: Mapping[str, int] = field(default_factory=dict)
    first_failed: str | None = None
    complete: bool = True
    unmatched: tuple[str, ...] = ()
    passing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strict: bool = False
    kind: str = "footer"


def count_outcomes(rows: list[NodeResult]) -> dict[str, int]:
    """Rows per outcome, every outcome named."""
    counts = {outcome.value: 0 for outcome in Outcome}
    for row in rows:
        counts[row.outcome.value] += 1
    return counts
