"""Where ONNX's own expected values, or ONNX Runtime's results, differ from the kernels on ONNX's node tests.

    python -m tests.conformance.disagreements

prints the table of `docs/disagreements.md`. Every difference that is known has its reason here; a new one shows up
without a reason, and a test fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime

from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Local
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.errors import MissingKernelError
from onnx_arch.graphs.evaluation import Value, call_node, run_call
from onnx_arch.graphs.model import Node

from ..operators.judging import run_onnxruntime
from ..operators.node_cases import Case, all_cases

ONNX, RUNTIME = "ONNX's expected values", "ONNX Runtime"

REASONS: Mapping[tuple[str, str], str] = {
    (ONNX, "test_averagepool_2d_ceil_last_window_starts_on_pad"): "The expected values are written with four decimals.",
    (ONNX, "test_roialign_aligned_false"): "The expected values are written with four decimals.",
    (ONNX, "test_roialign_aligned_true"): "The expected values are written with four decimals.",
    (RUNTIME, "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal"): (
        "Scores that a mask excludes are the lowest float in place of −∞. The text adds −∞; Y is the same."
    ),
    (RUNTIME, "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal"): "As above.",
    (RUNTIME, "test_maxunpool_export_with_output_shape"): (
        "ONNX Runtime reads indices as positions in the tensor of `output_shape`, the node test (and the kernel) as "
        "positions in the smaller tensor that kernel, strides and pads give, which is then put into the first corner. "
        "The text does not say; only ONNX Runtime's reading inverts a MaxPool over that shape."
    ),
    (RUNTIME, "test_resize_downsample_scales_linear_align_corners"): (
        "The text divides by `output_width` − 1, which may be fractional when it comes from a scale; ONNX Runtime "
        "takes the whole number."
    ),
    (RUNTIME, "test_resize_downsample_scales_cubic_align_corners"): "As above.",
}


@dataclass(frozen=True)
class Difference:
    """One node test on which someone is not where the kernel's bounds are."""

    who: str
    case: str
    row: NodeResult


@dataclass
class Census:
    """How many node tests were judged, by whose outputs and with which outcome."""

    judged: dict[tuple[str, Outcome], int]
    differences: list[Difference]
    without_kernel: int = 0
    refused: int = 0


def judge_case(case: Case, outputs: tuple[Any, ...]) -> NodeResult:
    """The row of one node test, as if a runtime had returned `outputs`; None where the node names none."""
    inputs = tuple("" if x is None else f"x{i}" for i, x in enumerate(case.inputs))
    names = tuple("" if y is None else f"y{i}" for i, y in enumerate(case.outputs))
    values = {name: Value(x, getattr(x, "dtype", None)) for name, x in zip(inputs, case.inputs, strict=True) if name}
    node = Node(case.name, case.op_type, case.domain, inputs, names, case.attributes, case.opset, 0)
    call = call_node(node, values)
    references = run_call(node, call)
    local = Local(call, references, call.scales([value.data for value in references]))
    return judge_node(node, local, {name: y for name, y in zip(names, outputs, strict=True) if name})


def census() -> Census:
    """Judge ONNX's expected values, and ONNX Runtime's results, on every node test that has a kernel."""
    found = Census({}, [])
    for case in all_cases():
        if any(isinstance(value, onnx.GraphProto) for value in case.attributes.values()):
            continue  # control flow has its own tests
        for who, outputs in _sources(case, found):
            try:
                row = judge_case(case, outputs)
            except MissingKernelError:
                found.without_kernel += who == ONNX
                continue
            found.judged[who, row.outcome] = found.judged.get((who, row.outcome), 0) + 1
            if row.outcome is Outcome.FAILED:
                found.differences.append(Difference(who, case.name, row))
    return found


def _sources(case: Case, found: Census) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield ONNX, case.outputs
    tensors = (*case.inputs, *case.outputs)
    if case.domain or any(x is not None and not _is_plain(x) for x in tensors):
        return
    try:
        count = len(case.outputs)
        results = run_onnxruntime(case.op_type, case.inputs, case.attributes, opset=case.opset, output_count=count)
    except _REFUSALS:
        found.refused += 1
        return
    yield RUNTIME, tuple(results)


_errors = onnxruntime.capi.onnxruntime_pybind11_state
_REFUSALS = (
    *(_errors.Fail, _errors.InvalidArgument, _errors.InvalidGraph, _errors.NotImplemented, _errors.RuntimeException),
    *(RuntimeError, ValueError, TypeError),
)


def _is_plain(x: Any) -> bool:
    """Whether ONNX Runtime's Python interface takes and returns this tensor as it is."""
    return isinstance(x, np.ndarray) and x.dtype.kind != "V" and not hasattr(ml_dtypes, x.dtype.name)


def report(found: Census) -> Iterator[str]:
    """Lines of Markdown."""
    for who in (ONNX, RUNTIME):
        counts = ", ".join(f"{n:,} {outcome}" for (by, outcome), n in sorted(found.judged.items()) if by == who)
        yield f"- {who}: {counts}."
    yield f"- {found.without_kernel} tests are of operators without a kernel."
    yield f"- {found.refused} tests ONNX Runtime does not run as one node."
    yield ""
    yield "| who differs | node test | how | who is right |"
    yield "|---|---|---|---|"
    for item in found.differences:
        reason = REASONS.get((item.who, item.case), "(not explained)")
        how = item.row.message.split("; worst")[0].replace("|", "\\|")
        yield f"| {item.who} | `{item.case}` | {how} | {reason} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(report(census())) + "\n")
