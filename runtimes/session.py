"""The contract of a runtime under test: options, a session that runs, and what a run returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

PROVIDERS = ("cpu", "cuda")
OPTIMIZATIONS = ("disabled", "basic", "extended", "all")


@dataclass(frozen=True)
class RuntimeOptions:
    """How a model is loaded; the same for every adapter, each takes what it knows and refuses what it cannot honour.

    Attributes:
        runtime: name of a registered adapter ("onnxruntime", "onnx-reference") or path of an adapter's own .py file.
        python: interpreter whose runtime is judged; None is this one.
        provider: "cpu" or "cuda"; a session that would run elsewhere raises RuntimeUnavailableError.
        optimization: graph optimisation level: "disabled", "basic", "extended", "all".
        threads: intra-op threads; None leaves the runtime's default.
        deterministic: ask for deterministic kernels where the runtime can.
        disabled_optimizers: names of graph optimisers to switch off.
        time_limit_s: after this long without an answer to one call a session counts as hung.
        memory_limit_bytes: address space of the worker; None leaves it unlimited.
        profile: record a profile of the session's runs (see `Session.finish_profile`).
        optimized_model_path: where the runtime writes the graph that it really runs; None does not ask.
        extra: what only this adapter knows, JSON values by name; see the adapter's own documentation.
    """

    runtime: str = "onnxruntime"
    python: str | None = None
    provider: str = "cpu"
    optimization: str = "all"
    threads: int | None = None
    deterministic: bool = False
    disabled_optimizers: Sequence[str] = ()
    time_limit_s: float = 600.0
    memory_limit_bytes: int | None = None
    profile: bool = False
    optimized_model_path: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class SessionInfo:
    """What the worker says of itself after loading: `versions` (python, numpy, the runtime), `providers` in use,
    names of the model's inputs and outputs, and `load_s`, the seconds that loading took."""

    versions: Mapping[str, str]
    providers: tuple[str, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    load_s: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)


class Session(Protocol):
    """A loaded model in a worker process.

    Tensors are NumPy arrays in their stored dtype (bfloat16 and float8 as `ml_dtypes`), strings are object arrays of
    str, sequences are lists, an absent optional is None.
    """

    info: SessionInfo

    @property
    def alive(self) -> bool:
        """Whether the worker can still answer: False after a crash, a hang or `close`."""
        ...

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name: all, or those named.

        Raises:
            CrashedError, HungError, RaisedByRuntimeError, UnsupportedByRuntimeError
        """
        ...

    def time_runs(self, feeds: Mapping[str, Any], count: int) -> list[float]:
        """Seconds of each of `count` runs, measured inside the worker around the runtime's own call alone."""
        ...

    def finish_profile(self) -> list[dict[str, Any]]:
        """End the profile that `RuntimeOptions.profile` asked for, and return its trace events.

        Raises:
            InvalidArgumentError: the session was not opened with `profile`.
        """
        ...

    def peak_memory_bytes(self) -> int:
        """Largest resident size of the worker so far."""
        ...

    def close(self) -> None:
        """End the worker; safe to call twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
