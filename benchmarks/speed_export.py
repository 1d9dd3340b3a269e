"""The export of VGG-16 at its published size against a bare `torch.onnx.export` and `save` of the same module."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from .speed import SpeedRow, run_python

ROUNDS = 3
TIME_AT_MOST = 1.1
MEMORY_AT_MOST = 1.3

PEAK = """
import json, sys, time
import torch


def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))
"""
"""Linux keeps the largest resident size in VmHWM; what the imports took before (VmRSS) is taken off."""

BARE = (
    PEAK
    + """
from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture

entry = find_architecture("vgg16")
import onnxscript, torch.onnx
before = resident("VmRSS")
begin = time.perf_counter()
module = entry.build(entry.config("published")).eval()
randomize(module, 0)
weights = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
built = time.perf_counter()
batch = torch.export.Dim("batch")
program = torch.onnx.export(
    module, (torch.zeros(2, 3, 224, 224),), dynamo=True, verbose=False, dynamic_shapes=({0: batch},)
)
program.save(sys.argv[1] + "/bare.onnx")
end = time.perf_counter()
print(json.dumps({"export_s": end - built, "peak": resident("VmHWM") - before, "weights": weights}))
"""
)

OURS = (
    PEAK
    + """
import resource
from pathlib import Path
from onnx_arch.exporters.export import export_architecture

import onnxscript, torch.onnx
from onnx_arch.architectures.registry import find_architecture
find_architecture("vgg16")
before = resident("VmRSS")
peaks = []


def say(stage):
    # what is done next: the peak so far is that of what went before
    peaks.append((stage, resident("VmHWM") - before))


bundle = export_architecture("vgg16", Path(sys.argv[1]), say=say)
peak = resident("VmHWM") - before
times = bundle.durations_s
export_s = times["trace and translate"] + times["write"]
proof_s = times["run"] + times["prove"]
written = next(index for index, (stage, _) in enumerate(peaks) if stage.startswith("writing")) + 1
worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # ONNX Runtime's process, ended and waited for
found = {"export_s": export_s, "proof_s": proof_s, "peak": peak, "written_peak": peaks[written][1], "worker": worker}
print(json.dumps(found))
"""
)


def measure() -> tuple[list[SpeedRow], str]:
    """Whole exports in processes of their own, in turn."""
    bare: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []
    for turn in range(ROUNDS):
        order = [(BARE, bare), (OURS, ours)]
        for script, found in order if turn % 2 == 0 else reversed(order):
            with tempfile.TemporaryDirectory(prefix="onnx-arch-") as folder:
                found.append(json.loads(run_python(script, folder).splitlines()[-1]))
    plain, weights = "bare `torch.onnx.export` + `save`", [[float(entry["weights"])] for entry in bare]
    rows = [
        SpeedRow("translate and write", plain, _of(ours, "export_s"), _of(bare, "export_s"), at_most=TIME_AT_MOST),
        SpeedRow("prove, beside it", plain, _of(ours, "proof_s"), _of(bare, "export_s")),
        _memory("peak memory of an export, proof included", _of(ours, "peak"), weights),
        _memory("peak memory until the model is written", _of(ours, "written_peak"), weights),
        SpeedRow("peak memory of ONNX Runtime's process", "its weights", _of(ours, "worker"), weights, unit="bytes"),
        SpeedRow("peak memory of the bare export", "its weights", _of(bare, "peak"), weights, unit="bytes"),
    ]
    return rows, (
        f"{ROUNDS} rounds, each export in a new process. Building the module and filling it with random numbers is in "
        "no time, and is in all peaks; peaks are of the whole process less what it held after its imports."
    )


def _memory(what: str, blocks: list[list[float]], weights: list[list[float]]) -> SpeedRow:
    return SpeedRow(what, "its weights", blocks, weights, at_most=MEMORY_AT_MOST, unit="bytes")


def _of(found: list[dict[str, Any]], field: str) -> list[list[float]]:
    return [[float(entry[field])] for entry in found]
