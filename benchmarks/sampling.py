"""Take samples: warm up until steady, then the sides in turn, block by block."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CrashedError, HungError, RuntimeFailure, RuntimeUnavailableError, UnsupportedByRuntimeError
from ..runtimes.session import RuntimeOptions, Session
from .results import BenchOutcome, OpTypeTime

STEADY_WINDOWS = 3
STEADY_WITHIN = 0.05


@dataclass(frozen=True)
class Pace:
    """How long and how finely is measured; all times are those of the timed runs alone.

    Attributes:
        duration_s: measured seconds of all sides together, warm-up aside; at least `min_blocks` are taken.
        min_blocks: blocks per side, even where they take longer than `duration_s`.
        max_blocks: most blocks per side.
        block_s: length of a block; a run that takes longer is a block of its own.
        max_block_size: most runs in a block.
        window_s: length of one window of the warm-up.
        warm_up_limit_s: after this long the warm-up ends, steady or not (three windows are always taken).
        settle_s: pause before a block, in which the other side's spinning threads go to sleep.
        cold_starts: processes started per side; the last one is measured.
        profiled_runs: runs of which the profile is kept.
    """

    duration_s: float = 10.0
    min_blocks: int = 12
    max_blocks: int = 1_000
    block_s: float = 0.1
    max_block_size: int = 1_000
    window_s: float = 0.05
    warm_up_limit_s: float = 10.0
    settle_s: float = 0.02
    cold_starts: int = 3
    profiled_runs: int = 5


@dataclass
class Track:
    """What one side has measured so far.

    Attributes:
        model_path, options: what is loaded, and how.
        feeds: input arrays by name.
        session: the measured session once it is open.
        cold_starts_s, loads_s, first_runs_s: one value per process started.
        warm_up_s: raw samples of the warm-up.
        blocks: raw samples, whole blocks only.
        outcome, message: MEASURED until something goes wrong.
    """

    model_path: Path
    options: RuntimeOptions
    feeds: Mapping[str, Any]
    session: Session | None = None
    cold_starts_s: list[float] = field(default_factory=list)
    loads_s: list[float] = field(default_factory=list)
    first_runs_s: list[float] = field(default_factory=list)
    warm_up_s: list[float] = field(default_factory=list)
    steady: bool = False
    block_size: int = 1
    blocks: list[list[float]] = field(default_factory=list)
    op_types: tuple[OpTypeTime, ...] = ()
    peak_memory_bytes: int | None = None
    outcome: BenchOutcome = BenchOutcome.MEASURED
    message: str = ""

    @property
    def alive(self) -> bool:
        """Whether nothing has gone wrong yet."""
        return self.outcome is BenchOutcome.MEASURED

    @contextmanager
    def booked(self) -> Iterator[None]:
        """Book what the runtime does instead of running, and go on.

        Raises:
            RuntimeUnavailableError: passed on: what was asked for is not here, so there is nothing to book.
        """
        try:
            yield
        except RuntimeUnavailableError:
            raise
        except RuntimeFailure as error:
            self.outcome, self.message = outcome_of(error), str(error)

    def time_runs(self, count: int) -> list[float]:
        """Seconds of each of `count` runs in the open session."""
        if self.session is None:
            raise RuntimeUnavailableError(f"{self.options.runtime}: no session is open for {self.model_path.name}")
        return self.session.time_runs(self.feeds, count)


def outcome_of(error: RuntimeFailure) -> BenchOutcome:
    """The outcome that says what `error` says."""
    by_type = {
        CrashedError: BenchOutcome.CRASHED,
        HungError: BenchOutcome.HUNG,
        UnsupportedByRuntimeError: BenchOutcome.UNSUPPORTED,
    }
    return next((outcome for kind, outcome in by_type.items() if isinstance(error, kind)), BenchOutcome.ERRORED)


def is_steady(window_medians: Sequence[float]) -> bool:
    """The criterion: the medians of the last three windows lie within 5 % of each other."""
    last = window_medians[-STEADY_WINDOWS:]
    return len(last) == STEADY_WINDOWS and max(last) <= min(last) * (1 + STEADY_WITHIN)


def warm_up(track: Track, pace: Pace) -> None:
    """Run until `is_steady` or until `pace.warm_up_limit_s`; then fix the size of the side's blocks.

    A window is as many runs as fill `pace.window_s` at the pace of the run before it, at least one.
    """
    medians: list[float] = []
    size = 1
    while not track.steady and (len(medians) < STEADY_WINDOWS or sum(track.warm_up_s) < pace.warm_up_limit_s):
        window = track.time_runs(size)
        track.warm_up_s.extend(window)
        medians.append(float(np.median(window)))
        size = runs_in(pace.window_s, medians[-1], pace.max_block_size)
        track.steady = is_steady(medians)
    track.block_size = runs_in(pace.block_s, medians[-1], pace.max_block_size)


def alternate(tracks: Sequence[Track], pace: Pace) -> None:
    """Fill the tracks' blocks in turn (A B, B A, A B, …) until time is up or a side fails.

    The order flips from round to round, so that a steady drift of the machine favours neither side.
    """
    spent_s, rounds = 0.0, 0
    while rounds < pace.min_blocks or (spent_s < pace.duration_s and rounds < pace.max_blocks):
        if not all(track.alive for track in tracks):
            return
        for track in tracks if rounds % 2 == 0 else reversed(tracks):
            if all(other.alive for other in tracks):
                with track.booked():
                    spent_s += take_block(track, pace)
        rounds += 1


def take_block(track: Track, pace: Pace) -> float:
    """One block after a pause; in a block of several runs an extra first one refills the caches and is dropped.

    Returns:
        Seconds that its runs took.
    """
    time.sleep(pace.settle_s)
    refill = 1 if track.block_size > 1 else 0
    samples = track.time_runs(track.block_size + refill)
    track.blocks.append(list(samples[refill:]))
    return sum(samples)


def runs_in(seconds: float, run_s: float, most: int) -> int:
    """Runs of `run_s` that fill `seconds`: at least one, at most `most`."""
    if run_s * most <= seconds:
        return most
    return max(1, min(most, math.ceil(seconds / run_s)))
