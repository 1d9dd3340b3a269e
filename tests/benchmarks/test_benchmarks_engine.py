"""The engine on sessions of known speed: what is measured, in which order, and what becomes of faulty subjects."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from onnx_arch.benchmarks.engine import Job, measure, measure_all, runtime_name
from onnx_arch.benchmarks.results import BenchOutcome
from onnx_arch.errors import (
    CrashedError,
    HungError,
    InvalidArgumentError,
    RaisedByRuntimeError,
    RuntimeUnavailableError,
    UnsupportedByRuntimeError,
)
from onnx_arch.runtimes.session import RuntimeOptions


def job(against: str | None = "b", provider: str = "cpu", batch: int | None = 4) -> Job:
    """Runtime "a", against "b"."""
    other = None if against is None else RuntimeOptions(runtime=against, provider=provider, threads=2)
    options = RuntimeOptions(runtime="a", provider=provider, threads=2)
    return Job("net", Path("net.onnx"), options, lambda: {"x": np.zeros((4, 3))}, against=other, batch=batch)


def around(centre_s: float):
    """Run times around `centre_s`, 5 % of spread."""
    return lambda rng: centre_s * float(np.exp(rng.normal(0, 0.05)))


def test_known_speeds_come_out_as_medians_ratio_and_throughput(make_runtimes, pace) -> None:
    runtimes = make_runtimes(kinds={"a": {"draw": around(0.010)}, "b": {"draw": around(0.020)}})
    row = measure(job(), pace, runtimes, runtimes.clock)
    assert row.outcome is BenchOutcome.MEASURED
    assert row.against is not None
    assert row.median_s == pytest.approx(0.010, rel=0.02)
    assert row.against.median_s == pytest.approx(0.020, rel=0.02)
    assert row.ratio == pytest.approx(0.5, rel=0.02)
    assert row.ratio_interval is not None
    assert row.ratio_interval[0] < 0.5 < row.ratio_interval[1]
    assert row.items_per_s == pytest.approx(4 / row.median_s)
    assert row.p95_s == pytest.approx(float(np.quantile(row.samples_s, 0.95)))
    assert row.steady
    assert (row.threads, row.against.threads) == (2, 2)


def test_sides_alternate_block_by_block_in_flipping_order(make_runtimes, pace) -> None:
    runtimes = make_runtimes(kinds={"a": {"draw": lambda _: 0.01}, "b": {"draw": lambda _: 0.01}})
    measure(job(), pace, runtimes, runtimes.clock)
    blocks = [name for name, _, count in runtimes.log if count == 10 + 1]  # 0.1 s of 0.01 s runs, and a refill
    assert blocks[:8] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert blocks.count("a") == blocks.count("b")


def test_raw_samples_are_kept_in_whole_blocks(make_runtimes, pace) -> None:
    runtimes = make_runtimes(kinds={"a": {"draw": around(0.01)}})
    row = measure(job(against=None), pace, runtimes, runtimes.clock)
    assert len(row.samples_s) % row.block_size == 0
    assert len(row.samples_s) // row.block_size >= pace.min_blocks
    assert row.against is None
    assert row.ratio is None
    assert row.ratio_interval is None


def test_machine_that_slows_down_shows_as_drift_and_leaves_the_ratio_alone(make_runtimes, pace) -> None:
    runtimes = make_runtimes(kinds={"a": {"draw": around(0.010)}, "b": {"draw": around(0.020)}})
    runtimes.machine.slowness = lambda now_s: 1.0 + max(0.0, now_s - 16.0)  # starts and warm-up: the first 16 s
    row = measure(job(), pace, runtimes, runtimes.clock)
    assert row.drift is not None
    assert row.drift > 1.5
    assert row.ratio == pytest.approx(0.5, rel=0.05)


def test_bimodal_clock_gives_an_interval_that_holds_the_ratio_and_a_p95_of_the_slow_mode(make_runtimes, pace) -> None:
    def bimodal(rng: np.random.Generator) -> float:
        return 0.03 if rng.random() < 0.2 else 0.01

    runtimes = make_runtimes(kinds={"a": {"draw": bimodal}, "b": {"draw": bimodal}})
    row = measure(job(), pace, runtimes, runtimes.clock)
    assert row.median_s == 0.01
    assert row.p95_s == 0.03
    assert row.ratio_interval is not None
    assert row.ratio_interval[0] <= 1.0 <= row.ratio_interval[1]


def test_cold_start_and_first_run_are_apart_from_the_samples(make_runtimes, pace) -> None:
    runtimes = make_runtimes(start_s=2.0)
    first_runs_s = iter([0.4, 0.5, 0.7, 0.6])  # the session that is profiled, then three cold starts

    def opener(path: Path, options: RuntimeOptions):
        session = runtimes(path, options)
        first = [next(first_runs_s)]
        session.draw = lambda _rng: first.pop() if first else 0.01
        return session

    row = measure(job(against=None), pace, opener, runtimes.clock)
    assert row.cold_starts_s == pytest.approx((2.0, 2.0, 2.0))
    assert row.cold_start_s == pytest.approx(2.0)
    assert row.load_s == 0.25
    assert row.first_run_s == 0.6
    assert max(row.samples_s) == 0.01


def test_runtime_that_records_no_profile_is_measured_without(make_runtimes, pace) -> None:
    runtimes = make_runtimes()

    def opener(path: Path, options: RuntimeOptions):
        if options.profile:
            raise InvalidArgumentError("it cannot honour profile=True")
        return runtimes(path, options)

    row = measure(job(against=None), pace, opener, runtimes.clock)
    assert row.outcome is BenchOutcome.MEASURED
    assert row.op_types == ()


def test_every_session_is_closed(make_runtimes, pace) -> None:
    runtimes = make_runtimes()
    measure(job(), pace, runtimes, runtimes.clock)
    assert len(runtimes.opened) == 2 * (1 + pace.cold_starts)  # one to profile
    assert all(session.closed for _, session, _ in runtimes.opened)


def test_warm_up_that_never_steadies_ends_at_its_bound_and_says_so(make_runtimes, pace) -> None:
    growing = iter(np.geomspace(0.5, 500.0, 100).tolist())
    runtimes = make_runtimes(kinds={"a": {"draw": lambda _: next(growing)}})
    row = measure(job(against=None), dataclasses.replace(pace, warm_up_limit_s=20.0), runtimes, runtimes.clock)
    assert not row.steady
    assert 20.0 <= sum(row.warm_up_s) < 40.0
    assert row.median_s is not None


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (CrashedError("killed by SIGSEGV"), BenchOutcome.CRASHED),
        (HungError("no answer in 600 s"), BenchOutcome.HUNG),
        (RaisedByRuntimeError("bad_alloc"), BenchOutcome.ERRORED),
        (UnsupportedByRuntimeError("not implemented"), BenchOutcome.UNSUPPORTED),
    ],
    ids=["crash", "hang", "error", "unsupported"],
)
def test_failure_in_the_middle_keeps_what_was_measured_on_both_sides(make_runtimes, pace, failure, outcome) -> None:
    runtimes = make_runtimes(kinds={"a": {"fails_at_run": 100, "failure": failure}})
    row = measure(job(), pace, runtimes, runtimes.clock)
    assert row.outcome is outcome
    assert row.message == str(failure)
    assert 0 < len(row.samples_s) < 100
    assert row.against is not None
    assert row.against.outcome is BenchOutcome.MEASURED
    assert len(row.against.samples_s) > 0
    assert all(session.closed for _, session, _ in runtimes.opened)


def test_failure_of_the_other_side_is_booked_there(make_runtimes, pace) -> None:
    runtimes = make_runtimes(kinds={"b": {"opening_failure": CrashedError("killed by SIGKILL")}})
    row = measure(job(), pace, runtimes, runtimes.clock)
    assert row.outcome is BenchOutcome.MEASURED
    assert row.samples_s == ()
    assert row.against is not None
    assert row.against.outcome is BenchOutcome.CRASHED
    assert row.against.message == "killed by SIGKILL"
    assert row.ratio is None


def test_session_on_another_provider_than_asked_is_refused(make_runtimes, pace) -> None:
    runtimes = make_runtimes(kinds={"a": {"providers": ("CPUExecutionProvider",)}})
    with pytest.raises(RuntimeUnavailableError, match=r"provider cuda was asked for.*CPUExecutionProvider"):
        measure(job(against=None, provider="cuda"), pace, runtimes, runtimes.clock)
    assert all(session.closed for _, session, _ in runtimes.opened)


def test_other_side_on_another_provider_than_asked_is_refused(make_runtimes, pace) -> None:
    kinds = {"a": {"providers": ("CUDAExecutionProvider", "CPUExecutionProvider")}, "b": {"providers": ("cpu",)}}
    runtimes = make_runtimes(kinds=kinds)
    with pytest.raises(RuntimeUnavailableError, match=r"^b: provider cuda was asked for"):
        measure(job(provider="cuda"), pace, runtimes, runtimes.clock)


def test_node_that_fell_back_to_the_cpu_is_refused(make_runtimes, pace, trace) -> None:
    events = [
        trace.run(0, 100),
        trace.node("conv", "Conv", 1, 5, provider="CUDAExecutionProvider"),
        trace.node("unpool", "MaxUnpool", 10, 50),
    ]
    kind = {"providers": ("CUDAExecutionProvider", "CPUExecutionProvider"), "events": events}
    runtimes = make_runtimes(kinds={"a": kind})
    with pytest.raises(RuntimeUnavailableError, match=r"1 of 2 nodes.*unpool \(MaxUnpool\) on CPUExecutionProvider"):
        measure(job(against=None, provider="cuda"), pace, runtimes, runtimes.clock)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"y": np.ones((1, 4), np.float32) * 1.001}, "differs by 0.001"),
        ({"y": np.ones((1, 4), np.float64)}, "dtype"),
        ({"y": np.ones((4,), np.float32)}, "shape"),
        ({"z": np.ones((1, 4), np.float32)}, "outputs"),
        ({"y": np.full((1, 4), np.nan, np.float32)}, "differs by inf"),
    ],
    ids=["values", "dtype", "shape", "names", "nan"],
)
def test_sides_that_compute_different_results_are_not_timed(make_runtimes, pace, outputs, words: str) -> None:
    runtimes = make_runtimes(kinds={"b": {"outputs": outputs}})
    row = measure(job(), pace, runtimes, runtimes.clock)
    assert row.outcome is BenchOutcome.DISAGREED
    assert words in row.message
    assert row.samples_s == ()
    assert row.ratio is None


def test_ctrl_c_keeps_what_is_measured_and_ends_the_run(make_runtimes, pace) -> None:
    runtimes = make_runtimes(kinds={"a": {"fails_at_run": 100, "failure": KeyboardInterrupt()}})
    rows = list(measure_all([job(), job()], pace, runtimes))
    assert [row.outcome for row in rows] == [BenchOutcome.INTERRUPTED]
    assert len(rows[0].samples_s) > 0
    assert all(session.closed for _, session, _ in runtimes.opened)


def test_op_types_come_from_a_session_of_their_own(make_runtimes, pace, trace) -> None:
    events = [event for run in range(7) for event in (trace.run(run * 100, 90), trace.node("c", "Conv", run * 100, 80))]
    runtimes = make_runtimes(kinds={"a": {"events": events}})
    row = measure(job(against=None), pace, runtimes, runtimes.clock)
    assert [(entry.op_type, entry.count) for entry in row.op_types] == [("Conv", 1.0)]
    assert row.op_types[0].time_s == pytest.approx(80e-6)
    assert [options.profile for _, _, options in runtimes.opened] == [True, False, False, False]


@pytest.mark.parametrize(
    ("runtime", "name"), [("onnxruntime", "onnxruntime"), ("/somewhere/torch_eager_adapter.py", "torch-eager")]
)
def test_runtime_name_of_an_adapter_file_has_no_folder(runtime: str, name: str) -> None:
    assert runtime_name(RuntimeOptions(runtime=runtime)) == name
