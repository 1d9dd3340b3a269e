"""Measure one model, alone or against another side: profile, start, compare, warm up, alternate, summarise."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ..runtimes.session import RuntimeOptions, Session
from . import estimates
from .agreement import disagreement
from .placement import check_nodes, check_session
from .profiles import times_by_op_type
from .results import BenchmarkResult, BenchOutcome, Measurement
from .sampling import STEADY_WINDOWS, STEADY_WITHIN, Pace, Track, alternate, warm_up

_UNSETTLED_RUNS = 2
"""First runs of a profiled session that are left out of its profile."""


Opener = Callable[[Path, RuntimeOptions], Session]


@dataclass(frozen=True)
class Job:
    """One row to be measured.

    Attributes:
        model: name for the reader.
        model_path: the .onnx file.
        options: runtime, provider, threads, optimisation level of the subject.
        make_feeds: makes the inputs, arrays by name.
        against: what else runs the same model, or None.
        model_sha256: of the model.
        batch: items per run, or None.
        dims: size given to each symbolic dimension.
        seed: of the inputs.
    """

    model: str
    model_path: Path
    options: RuntimeOptions
    make_feeds: Callable[[], Mapping[str, Any]]
    against: RuntimeOptions | None = None
    model_sha256: str = ""
    batch: int | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0


Teller = Callable[[Job, str], None]
"""Is told what is being done, for the user."""


def open_in_worker(model_path: Path, options: RuntimeOptions) -> Session:
    """A session in its own process."""
    from ..runtimes.process import open_session  # noqa: PLC0415 - starts processes: only where one is wanted

    return open_session(model_path, options)


def tell_nobody(_job: Job, _doing: str) -> None:
    """Where nobody looks on."""


def describe_method(pace: Pace) -> dict[str, Any]:
    """How is measured and estimated, for the header of the results."""
    return {
        **dataclasses.asdict(pace),
        "steady_windows": STEADY_WINDOWS,
        "steady_within": STEADY_WITHIN,
        "ratio": "median over pairs of blocks of (median of the block / median of the other side's block)",
        "interval": "percentile bootstrap over pairs of blocks",
        "level": estimates.LEVEL,
        "resamples": estimates.RESAMPLES,
        "bootstrap_seed": estimates.SEED,
    }


def measure_all(
    jobs: Iterable[Job], pace: Pace, opener: Opener = open_in_worker, tell: Teller = tell_nobody
) -> Iterator[BenchmarkResult]:
    """Rows as they are measured; ends after a row that the user interrupted, with what that row has.

    Raises:
        RuntimeUnavailableError: as of `measure`; the rows before have been yielded.
    """
    for job in jobs:
        result = measure(job, pace, opener, tell=tell)
        yield result
        if result.outcome is BenchOutcome.INTERRUPTED:
            return


def measure(
    job: Job,
    pace: Pace,
    opener: Opener = open_in_worker,
    clock: Callable[[], float] = time.perf_counter,
    tell: Teller = tell_nobody,
) -> BenchmarkResult:
    """Measure one job; whatever a runtime does instead of running is booked in the row, with the samples before it.

    Args:
        job: what is measured.
        pace: how long.
        opener: opens a session in a new process.
        clock: seconds, for the cold start (runs are timed inside the worker).
        tell: is told what is being done.

    Returns:
        The row. INTERRUPTED on both sides if the user stopped it.

    Raises:
        RuntimeUnavailableError: a runtime or provider is not here, or the provider that ran is not the one asked for.
    """
    feeds = job.make_feeds()
    sides = [job.options] if job.against is None else [job.options, job.against]
    tracks = [Track(job.model_path, options, feeds) for options in sides]
    distance = None
    try:
        with ExitStack() as sessions:
            tell(job, "profile")
            _each(tracks, lambda track: _profile(track, pace, opener))
            tell(job, "cold start")
            _each(tracks, lambda track: _start(track, pace, opener, clock, sessions))
            distance = _compare(tracks)
            tell(job, "warm-up")
            _each(tracks, lambda track: warm_up(track, pace))
            tell(job, "measuring")
            alternate(tracks, pace)
            _each(tracks, _weigh)
    except KeyboardInterrupt:
        for track in tracks:
            track.outcome, track.message = BenchOutcome.INTERRUPTED, "stopped by the user"
    return _summarise(job, tracks, distance)


def _each(tracks: Sequence[Track], step: Callable[[Track], None]) -> None:
    """One step for every side, as long as no side has failed."""
    for track in tracks:
        if all(other.alive for other in tracks):
            with track.booked():
                step(track)


def _start(track: Track, pace: Pace, opener: Opener, clock: Callable[[], float], sessions: ExitStack) -> None:
    """Start processes one after another, each with its load and first run; the last one stays open."""
    for _ in range(max(1, pace.cold_starts)):
        if track.session is not None:
            track.session.close()
        begin = clock()
        track.session = sessions.enter_context(opener(track.model_path, track.options))
        track.cold_starts_s.append(clock() - begin)
        check_session(track.session.info, track.options)
        track.loads_s.append(track.session.info.load_s)
        track.first_runs_s.extend(track.time_runs(1))


def _profile(track: Track, pace: Pace, opener: Opener) -> None:
    """Time by operator type, from a session of its own: recording slows a session down.

    It is also the first to read the model, so that every cold start after it finds the file in the page cache.
    """
    options = dataclasses.replace(track.options, profile=True)
    try:
        session = opener(track.model_path, options)
    except InvalidArgumentError:
        return  # this runtime records no profile; whatever else it refuses, it refuses again at its cold start
    with session:
        check_session(session.info, track.options)
        session.time_runs(track.feeds, _UNSETTLED_RUNS + pace.profiled_runs)
        events = session.finish_profile()
    check_nodes(events, track.options)
    track.op_types = times_by_op_type(events, skip_runs=_UNSETTLED_RUNS)


def _compare(tracks: Sequence[Track]) -> float | None:
    """Largest difference of the sides' outputs; sides that compute different things are not timed any further."""
    if len(tracks) == 1 or not all(track.alive for track in tracks):
        return None
    outputs = []
    for track in tracks:
        with track.booked():
            outputs.append(_outputs(track))
    if not all(track.alive for track in tracks):
        return None
    distance, complaint = disagreement(*outputs)
    if complaint:
        tracks[0].outcome, tracks[0].message = BenchOutcome.DISAGREED, complaint
    return distance


def _outputs(track: Track) -> dict[str, Any]:
    return {} if track.session is None else track.session.run(track.feeds)


def _weigh(track: Track) -> None:
    if track.session is not None:
        track.peak_memory_bytes = track.session.peak_memory_bytes()


def _summarise(job: Job, tracks: Sequence[Track], distance: float | None) -> BenchmarkResult:
    subject, *others = [_measured(track, job.batch) for track in tracks]
    ratios = estimates.pair_ratios(*(track.blocks for track in tracks)) if others else []
    return BenchmarkResult(
        **{entry.name: getattr(subject, entry.name) for entry in dataclasses.fields(Measurement)},
        model=job.model,
        model_sha256=job.model_sha256,
        batch=job.batch,
        dims=dict(job.dims),
        seed=job.seed,
        against=others[0] if others else None,
        disagreement=distance if distance is not None and distance < float("inf") else None,
        ratio=estimates.median(ratios),
        ratio_interval=estimates.ratio_interval(ratios),
        ratio_level=estimates.LEVEL,
    )


def _measured(track: Track, batch: int | None) -> Measurement:
    samples = [sample for block in track.blocks for sample in block]
    median_s = estimates.median(samples)
    return Measurement(
        runtime=runtime_name(track.options),
        provider=track.options.provider,
        versions={} if track.session is None else dict(track.session.info.versions),
        optimization=_level(track),
        threads=track.options.threads,
        outcome=track.outcome,
        message=track.message,
        cold_start_s=estimates.median(track.cold_starts_s),
        cold_starts_s=tuple(track.cold_starts_s),
        load_s=estimates.median(track.loads_s),
        first_run_s=estimates.median(track.first_runs_s),
        warm_up_s=tuple(track.warm_up_s),
        steady=track.steady,
        block_size=track.block_size,
        samples_s=tuple(samples),
        median_s=median_s,
        p95_s=estimates.p95(samples),
        items_per_s=None if batch is None or not median_s else batch / median_s,
        drift=estimates.drift(track.blocks),
        peak_memory_bytes=track.peak_memory_bytes,
        op_types=track.op_types,
    )


def _level(track: Track) -> str:
    """Graph optimisation level; a runtime that has none says so with an empty "optimization" of its own."""
    info = {} if track.session is None else track.session.info.extra
    return str(info.get("optimization", track.options.optimization))


def runtime_name(options: RuntimeOptions) -> str:
    """Name for the reader: "torch-eager" of an adapter's file torch_eager_adapter.py, wherever it lies."""
    return Path(options.runtime).stem.removesuffix("_adapter").replace("_", "-")
