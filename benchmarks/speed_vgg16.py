"""The exact check of VGG-16 at 224², after loading, against the inference that it judges and `onnx.reference`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from .machine import usable_cores
from .speed import SpeedRow, run_python
from .speed_export import BARE

ROUNDS = 6
AT_MOST = 4.0
AT_LEAST = 5.0

TIMES = '''
import json, sys, time
from pathlib import Path
from onnx.reference import ReferenceEvaluator
from onnx_arch.conformance.check import CheckRequest, check_model
from onnx_arch.conformance.results import Footer
from onnx_arch.graphs.feeds import random_feeds
from onnx_arch.graphs.loading import load_model
from onnx_arch.runtimes.process import open_session
from onnx_arch.runtimes.session import RuntimeOptions

model = load_model(Path(sys.argv[1]))
rounds, options = int(sys.argv[2]), RuntimeOptions(threads=int(sys.argv[3]))
feeds = random_feeds(model, dims={"batch": 1}, seed=0)


class Timed:
    """A session whose time, from the start of its process, is kept apart."""

    spent_s = 0.0

    def __init__(self, path, options):
        self._session = Timed.call(open_session, path, options)

    @staticmethod
    def call(function, *arguments, **named):
        begin = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            Timed.spent_s += time.perf_counter() - begin

    def run(self, *arguments, **named):
        return Timed.call(self._session.run, *arguments, **named)

    def __getattr__(self, name):
        return getattr(self._session, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        Timed.call(self._session.close)


def check():
    """Seconds of the whole check, and of the oracle's own work in it: all but starting and running the runtime."""
    Timed.spent_s = 0.0
    begin = time.perf_counter()
    *_, footer = check_model(model, feeds, CheckRequest(options=options, open_session=Timed))
    whole_s = time.perf_counter() - begin
    if not isinstance(footer, Footer) or set(name for name, count in footer.counts.items() if count) != {"passed"}:
        sys.exit(f"the check is not green: {footer}")
    return whole_s, whole_s - Timed.spent_s


def reference():
    begin = time.perf_counter()
    evaluator.run(None, feeds)
    return time.perf_counter() - begin


evaluator = ReferenceEvaluator(str(model.path))
with open_session(model.path, options) as session:
    session.time_runs(feeds, 5)
    for turn in range(rounds):
        times = {"inference": session.time_runs(feeds, 5)}
        whole_s, judging_s = check()
        times["check"], times["judging"], times["reference"] = [whole_s], [judging_s], [reference()]
        times["inference"] += session.time_runs(feeds, 5)
        print(json.dumps(times), flush=True)
'''
"""Runs in a process of its own, because `benchmarks` does not import what stands beside it."""


def measure() -> tuple[list[SpeedRow], str]:
    """Rounds of: inferences, a whole check, a run of `onnx.reference`, inferences."""
    with tempfile.TemporaryDirectory(prefix="onnx-arch-") as folder:
        run_python(BARE, folder)
        lines = run_python(TIMES, str(Path(folder) / "bare.onnx"), str(ROUNDS), str(usable_cores()))
    rounds: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines()]
    times = {name: [entry[name] for entry in rounds] for name in rounds[0]}
    inference, reference = "one ONNX Runtime inference on the CPU", "`onnx.reference` running it in float32"
    rows = [
        SpeedRow("oracle's work in an exact check", inference, times["judging"], times["inference"], at_most=AT_MOST),
        SpeedRow("whole check, with its sessions", inference, times["check"], times["inference"]),
        SpeedRow("oracle's work in an exact check", reference, times["judging"], times["reference"], at_least=AT_LEAST),
        SpeedRow("whole check, with its sessions", reference, times["check"], times["reference"]),
    ]
    return rows, (
        f"{ROUNDS} rounds, batch 1, {usable_cores()} threads on every side. The oracle's work is the check less the "
        "starting and running of the runtime's own processes: kernels in float64, their error scales, the clean run "
        "and the verdicts. Loading the model is in neither."
    )
