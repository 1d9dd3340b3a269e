"""Run cases, one after another, in one worker process that is replaced when it dies."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from ..errors import InvalidInputError, InvalidModelError, OnnxArchError, RuntimeFailure, RuntimeUnavailableError
from ..graphs.loading import load_model
from ..graphs.model import Model
from ..runtimes.process import Worker
from ..runtimes.session import RuntimeOptions, Session
from .case_judging import CaseJudge
from .nodes import one_line, outcome_of
from .results import NodeResult, Outcome
from .suites.case import Case, Feeds, Subject

StartWorker = Callable[[RuntimeOptions], Worker]


@dataclass
class CaseRunner:
    """One worker of a runtime, and what is judged with it; used by one thread at a time.

    A crash or a hang costs the case that caused it and a new process; the others never notice.

    Attributes:
        options: how models are loaded.
        start_worker: starts a process; tests replace it.
        peak_memory_bytes: largest process so far.
        runtime_versions: what the runtime last said of itself.
    """

    options: RuntimeOptions
    start_worker: StartWorker = Worker
    _worker: Worker | None = None
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    peak_memory_bytes: int = 0
    runtime_versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="onnx-arch-conform-")

    @property
    def folder(self) -> Path:
        """Where the models of cases are written."""
        return Path(self._folder.name)

    def open_session(self, file: Path, options: RuntimeOptions) -> Session:
        """Load a model in the worker, in a new one if the last has died."""
        return self._alive().load(file, options)

    def _alive(self) -> Worker:
        with self._lock:
            if self._closed:
                raise RuntimeUnavailableError("the run was stopped")
            if self._worker is None or not self._worker.alive:
                if self._worker is not None:
                    self._worker.close()
                self._worker = self.start_worker(self.options)
            return self._worker

    def probe(self) -> dict[str, str]:
        """Versions of the runtime, its Python and its NumPy, from loading a model of one node.

        Raises:
            RuntimeUnavailableError: it cannot be started.
        """
        file = self.folder / "probe.onnx"
        file.write_bytes(_smallest_model().SerializeToString())
        versions = self._alive().versions
        try:
            with self.open_session(file, self.options) as session:
                return dict(session.info.versions)
        except RuntimeUnavailableError:
            raise
        except RuntimeFailure:
            return dict(versions)

    def judge(self, case: Case) -> NodeResult:
        """The row of a case; whatever happens in the runtime or in the oracle is its outcome.

        Raises:
            RuntimeUnavailableError: the runtime cannot be started.
        """
        if case.skip:
            return row_of(case, Outcome.SKIPPED, case.skip)
        try:
            subject = case.subject()
            file = subject.write(self.folder)
            model = load_model(file)
        except (InvalidModelError, InvalidInputError) as error:
            return row_of(case, Outcome.UNJUDGED, one_line(error))
        return self.judge_model(case, model, subject)

    def judge_model(self, case: Case, model: Model, subject: Subject) -> NodeResult:
        """The row of a case whose model is on disk.

        Raises:
            RuntimeUnavailableError: the runtime cannot be started.
        """
        rows = []
        try:
            with self.open_session(model.path, self.options) as session:
                self.runtime_versions = session.info.versions
                for feeds in subject.data_sets:
                    outputs = session.run(feeds)
                    rows.append(self._verdict(case, model, feeds, outputs))
                self._note_memory()
        except RuntimeUnavailableError:
            raise
        except RuntimeFailure as failure:
            return row_of(case, outcome_of(failure), one_line(failure))
        return _worst(rows)

    def _verdict(self, case: Case, model: Model, feeds: Feeds, outputs: dict[str, Any]) -> NodeResult:
        judge = CaseJudge(self.options, self.open_session)
        try:
            return named(case, judge.judge(model, feeds, outputs))
        except RuntimeFailure:
            raise
        except OnnxArchError as error:
            return row_of(case, Outcome.UNJUDGED, one_line(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end a run of thousands, nor pass
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return row_of(case, Outcome.UNJUDGED, f"onnx-arch itself failed: {text}")

    def _note_memory(self) -> None:
        if self._worker is not None:
            self.peak_memory_bytes = max(self.peak_memory_bytes, self._worker.connection.peak_bytes)

    def close(self) -> None:
        """End the worker, even while another thread waits for it; safe to call twice."""
        with self._lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            worker.close()
        self._folder.cleanup()


def _smallest_model() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def row_of(case: Case, outcome: Outcome, message: str = "") -> NodeResult:
    """A row without figures."""
    return named(case, NodeResult("", "", "", (), outcome, message=message))


def named(case: Case, row: NodeResult) -> NodeResult:
    """A verdict as the row of a case."""
    return dataclasses.replace(
        row,
        node=case.name,
        op_type=case.op_type,
        domain=case.domain,
        opset=case.opset,
        occurrences=case.occurrences,
        origin=case.origin,
        kind="case",
    )


def _worst(rows: list[NodeResult]) -> NodeResult:
    """Of several data sets the first that did not pass; else the one with the largest error."""
    bad = [(index, row) for index, row in enumerate(rows) if row.outcome is not Outcome.PASSED]
    if not bad:
        return max(rows, key=lambda row: row.rms_z or 0.0)
    index, row = bad[0]
    where = f"data set {index}: " if len(rows) > 1 else ""
    return dataclasses.replace(row, message=f"{where}{row.message}")
