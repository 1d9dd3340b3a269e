"""Sessions whose run times are known, on a machine whose speed is known: nothing here measures real time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from onnx_arch.benchmarks.sampling import Pace
from onnx_arch.runtimes.session import RuntimeOptions, SessionInfo

NODE_OUTPUT = [{"float": [1, 4]}]


@dataclass
class Machine:
    """Virtual time: it passes while sessions run, and `slowness` says how slow the machine is at a moment."""

    slowness: Callable[[float], float] = lambda _now_s: 1.0
    now_s: float = 0.0

    def spend(self, work_s: float) -> float:
        """Seconds that `work_s` of work takes now."""
        duration_s = work_s * self.slowness(self.now_s)
        self.now_s += duration_s
        return duration_s


@dataclass
class FakeSession:
    """A session that takes `draw(rng)` seconds of work for each run.

    Attributes:
        fails_at_run: number of runs after which `failure` is raised, or None.
        log: every call, shared between the sessions of a test.
    """

    machine: Machine
    draw: Callable[[np.random.Generator], float]
    rng: np.random.Generator
    name: str = "a"
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    outputs: Mapping[str, Any] = field(default_factory=lambda: {"y": np.ones((1, 4), np.float32)})
    events: Sequence[Mapping[str, Any]] = ()
    fails_at_run: int | None = None
    failure: BaseException | None = None
    log: list[tuple[str, str, int]] = field(default_factory=list)
    runs: int = 0
    closed: bool = False

    @property
    def info(self) -> SessionInfo:
        return SessionInfo({"fake": "1.0"}, self.providers, ("x",), ("y",), load_s=0.25)

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        return dict(self.outputs)

    def time_runs(self, feeds: Mapping[str, Any], count: int) -> list[float]:
        self.log.append((self.name, "runs", count))
        self.runs += count
        if self.fails_at_run is not None and self.runs > self.fails_at_run and self.failure is not None:
            raise self.failure
        return [self.machine.spend(self.draw(self.rng)) for _ in range(count)]

    def finish_profile(self) -> Sequence[Mapping[str, Any]]:
        return self.events

    def peak_memory_bytes(self) -> int:
        return 1_000_000

    def close(self) -> None:
        self.closed = True
        self.log.append((self.name, "close", 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class FakeRuntimes:
    """Opens `FakeSession`s by runtime name; starting one takes `start_s` of the machine's time."""

    machine: Machine = field(default_factory=Machine)
    seed: int = 0
    start_s: float = 2.0
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)
    opened: list[tuple[str, FakeSession, RuntimeOptions]] = field(default_factory=list)
    log: list[tuple[str, str, int]] = field(default_factory=list)

    def __call__(self, model_path: Path, options: RuntimeOptions) -> FakeSession:
        self.machine.spend(self.start_s)
        kind = {"draw": lambda _rng: 0.01, **self.kinds.get(options.runtime, {})}
        opening_failure = kind.pop("opening_failure", None)
        if opening_failure is not None:
            raise opening_failure
        rng = np.random.default_rng([self.seed, len(self.opened)])
        session = FakeSession(self.machine, rng=rng, name=options.runtime, log=self.log, **kind)
        self.opened.append((options.runtime, session, options))
        return session

    def clock(self) -> float:
        return self.machine.now_s


@pytest.fixture
def pace() -> Pace:
    """Short, without pauses."""
    return Pace(duration_s=4.0, settle_s=0.0)


@pytest.fixture
def make_runtimes() -> type[FakeRuntimes]:
    """Makes fake runtimes: `make_runtimes(seed=…, kinds={"a": {"draw": …}})`, on a machine of constant speed."""
    return FakeRuntimes


class Trace:
    """Makes events of a profile as ONNX Runtime writes them."""

    @staticmethod
    def node(  # noqa: PLR0913 - one argument per field of the event
        name: str,
        op_type: str,
        start_us: int,
        duration_us: int,
        *,
        provider: str = "CPUExecutionProvider",
        outputs: Sequence[Mapping[str, Any]] = NODE_OUTPUT,
        thread: int = 1,
    ) -> dict[str, Any]:
        """One execution of a node."""
        arguments = {"op_name": op_type, "provider": provider, "output_type_shape": list(outputs)}
        times = {"ts": start_us, "dur": duration_us, "tid": thread}
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": arguments, **times}

    @staticmethod
    def run(start_us: int, duration_us: int) -> dict[str, Any]:
        """One run of the model."""
        return {"cat": "Session", "name": "model_run", "ts": start_us, "dur": duration_us, "tid": 1, "args": {}}


@pytest.fixture
def trace() -> type[Trace]:
    """Makes events as ONNX Runtime writes them."""
    return Trace
