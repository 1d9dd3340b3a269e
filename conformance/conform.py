"""Judge a suite of cases in a runtime: in parallel, each case alone, results as they come.

for record in run_suite(ConformRequest(suite=find_suite("onnx"))):
    ...   # Header, then a NodeResult per case as it is judged, then Footer
"""

from __future__ import annotations

import dataclasses
import hashlib
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InvalidArgumentError, RuntimeUnavailableError
from ..runtimes.environment import cores, describe
from ..runtimes.process import Worker
from ..runtimes.session import RuntimeOptions
from .case_runner import CaseRunner, StartWorker, row_of
from .expectations import Expectations, Subject, surprises
from .results import Footer, Header, NodeResult, Outcome, count_outcomes
from .suites.case import Case, Suite

Record = Header | NodeResult | Footer

Finish = Callable[[CaseRunner, Case, NodeResult], NodeResult]
"""What is done with a fresh row in the thread that judged it: make its case smaller, write a reproduction."""


def _nothing(_header: Header) -> Mapping[str, NodeResult]:
    return {}


def _as_it_is(_runner: CaseRunner, _case: Case, row: NodeResult) -> NodeResult:
    return row


@dataclass(frozen=True)
class ConformRequest:
    """How a suite is judged.

    Attributes:
        suite: the cases.
        options: the runtime and how it loads models; `threads` holds for each worker.
        workers: processes of the runtime; None is as many as cores over threads.
        command: the words of the command; recorded in the header.
        earlier: given the header, the rows of an interrupted run that are taken over.
        expectations: failures that are known.
        finish: called with every fresh row that is red, in the thread that judged it.
        stop: set from outside, it ends the run after what is judged by then.
        start_worker: starts processes; tests replace it.
    """

    suite: Suite
    options: RuntimeOptions = field(default_factory=lambda: RuntimeOptions(threads=1, time_limit_s=60.0))
    workers: int | None = None
    command: tuple[str, ...] = ()
    earlier: Callable[[Header], Mapping[str, NodeResult]] = _nothing
    expectations: Expectations = field(default_factory=Expectations)
    finish: Finish = _as_it_is
    stop: threading.Event = field(default_factory=threading.Event)
    start_worker: StartWorker = Worker


def run_suite(request: ConformRequest) -> Iterator[Record]:
    """Judge every case of a suite.

    Args:
        request: the suite, and how.

    Yields:
        The header, a row per case as it is judged, the footer; `complete` is False in it if the run was stopped.

    Raises:
        InvalidArgumentError: no case at all, or more workers than the cores have room for.
        RuntimeUnavailableError: the runtime, or the provider asked for, is not there.
        StreamError: an earlier run cannot be continued.
    """
    if not request.suite.cases:
        raise InvalidArgumentError(f"suite {request.suite.name}: no case is left to judge")
    workers = worker_count(request)
    started = time.monotonic()
    pool = _Pool(request, workers)
    rows: list[NodeResult] = []
    try:
        header = _header(request, pool.probe())
        pool.known = _known(request, header)
        earlier = dict(request.earlier(header))
        yield header
        for row in pool.rows(earlier):
            rows.append(row)
            yield row
    finally:
        pool.close()
    yield _footer(rows, started, pool)


def worker_count(request: ConformRequest) -> int:
    """How many processes are used.

    Raises:
        InvalidArgumentError: more than the cores have room for.
    """
    threads, available = request.options.threads or 1, cores()
    if request.workers is None:
        return max(1, available // threads) if request.options.provider == "cpu" else 1
    if request.workers < 1:
        raise InvalidArgumentError(f"workers={request.workers}: give at least 1")
    if request.workers > 1 and request.workers * threads > available:
        raise InvalidArgumentError(
            f"{request.workers} workers of {threads} threads are more than the {available} cores of this machine"
        )
    return request.workers


def suite_digest(cases: Sequence[Case]) -> str:
    """Of the names of the cases, in order: two runs with the same judge the same cases."""
    return hashlib.sha256("\n".join(case.name for case in cases).encode()).hexdigest()


def _header(request: ConformRequest, versions: Mapping[str, str]) -> Header:
    options = request.options
    return Header(
        command=request.command,
        model=f"suite {request.suite.name}",
        model_sha256=suite_digest(request.suite.cases),
        environment={**describe(), "runtime_versions": dict(versions)},
        options={
            "suite": request.suite.name,
            "runtime": Path(options.runtime).name,
            "provider": options.provider,
            "optimization": options.optimization,
            "threads": options.threads,
            **({"runtime_options": dict(options.extra)} if options.extra else {}),
            **request.suite.options,
        },
        nodes=len(request.suite.cases),
    )


def _known(request: ConformRequest, header: Header) -> Expectations:
    """The known failures of this runtime, version and provider."""
    versions = header.environment["runtime_versions"]
    return request.expectations.holding(Subject(request.options.runtime, versions, request.options.provider))


def _footer(rows: list[NodeResult], started: float, pool: _Pool) -> Footer:
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    suite = pool.request.suite
    complete = len(rows) == len(suite.cases)
    order = {case.name: index for index, case in enumerate(suite.cases)}
    found = surprises(pool.known, rows, whole=suite.whole and complete)
    red = sorted((row.node for row in rows if row.red), key=order.__getitem__)
    return Footer(
        counts=count_outcomes(rows),
        duration_s=time.monotonic() - started,
        peak_memory_bytes={"oracle": own, "runtime": pool.peak_memory_bytes()},
        first_failed=red[0] if red else None,
        complete=complete,
        unmatched=found.unmatched,
        passing=found.passing,
        strict=found.strict,
    )


class _Pool:
    """Threads that take cases from one queue, each with a worker process of its own."""

    def __init__(self, request: ConformRequest, workers: int) -> None:
        self.request = request
        self.known = Expectations()
        self._runners = [CaseRunner(request.options, request.start_worker) for _ in range(workers)]
        self._waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
        self._judged: queue.SimpleQueue[NodeResult | BaseException | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def probe(self) -> dict[str, str]:
        """Versions of the runtime, from loading a model of one node.

        Raises:
            RuntimeUnavailableError: it cannot be started.
        """
        return self._runners[0].probe()

    def rows(self, earlier: Mapping[str, NodeResult]) -> Iterator[NodeResult]:
        """Rows of an earlier run first, then the others as they are judged; ends early once `stop` is set."""
        left = [case for case in self.request.suite.cases if case.name not in earlier]
        taken = (earlier[case.name] for case in self.request.suite.cases if case.name in earlier)
        yield from (self.known.annotate(dataclasses.replace(row, known="")) for row in taken)
        for case in left:
            self._waiting.put(case)
        self._start(min(len(self._runners), len(left)))
        running = len(self._threads)
        while running:
            try:
                item = self._judged.get(timeout=_STOP_CHECK_S)
            except queue.Empty:
                if self.request.stop.is_set():
                    self._stop_workers()
                continue
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    def _start(self, count: int) -> None:
        for runner in self._runners[:count]:
            thread = threading.Thread(target=self._work, args=(runner,), daemon=True, name="onnx-arch case runner")
            self._threads.append(thread)
            thread.start()

    def _work(self, runner: CaseRunner) -> None:
        try:
            while not self.request.stop.is_set():
                try:
                    case = self._waiting.get_nowait()
                except queue.Empty:
                    break
                row = self._judge(runner, case)
                if row is not None:
                    self._judged.put(row)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for the rows
            if not self.request.stop.is_set():
                self._judged.put(error)
        self._judged.put(None)

    def _judge(self, runner: CaseRunner, case: Case) -> NodeResult | None:
        """The row of a case: CRASHED until something better is known; None if the run was stopped under it."""
        row = row_of(case, Outcome.CRASHED, "the runtime's process did not come back")
        try:
            row = self.known.annotate(runner.judge(case))
            if row.red and not self.request.stop.is_set():
                row = self.request.finish(runner, case, row)
        except RuntimeUnavailableError:
            if self.request.stop.is_set():
                return None
            raise
        return None if self.request.stop.is_set() and row.outcome is Outcome.CRASHED else row

    def _stop_workers(self) -> None:
        for runner in self._runners:
            runner.close()

    def peak_memory_bytes(self) -> int:
        """Largest resident size of all workers."""
        return max(runner.peak_memory_bytes for runner in self._runners)

    def close(self) -> None:
        """End the threads and the processes."""
        self.request.stop.set()
        self._stop_workers()
        for thread in self._threads:
            thread.join(_JOIN_LIMIT_S)


_STOP_CHECK_S = 0.2
_JOIN_LIMIT_S = 10.0
