"""Where ONNX's expected values, its function bodies or ONNX Runtime are not where our kernels' bounds are.

Every difference that is known is declared here with who is right by the specification's text; `docs/disagreements.md`
is made from it, and a test finds both a difference without a declaration and a declaration without a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import MissingKernelError

from ..conformance.judged_nodes import judge_named
from ..operators.judging import run_onnxruntime
from ..operators.node_cases import Case, all_cases

ONNX, BODY, RUNTIME = "ONNX's expected values", "ONNX's function body", "ONNX Runtime"
ROUNDED = "We are: the text's formula gives ours, and ONNX's values are written with four decimals."
AS_ABOVE = "As above."

DECLARED: Mapping[tuple[str, str], str] = {
    (ONNX, "test_averagepool_2d_ceil_last_window_starts_on_pad"): ROUNDED,
    (ONNX, "test_roialign_aligned_false"): ROUNDED,
    (ONNX, "test_roialign_aligned_true"): ROUNDED,
    (BODY, "Bernoulli-15 in opset 15"): (
        'We are. The text: "an output of 1 is produced with probability p". The function body is Greater(X_random, '
        "input), which is 1 with probability 1 − p; what has no kernel of its own and runs the body, ONNX Runtime "
        "among them, draws the complement."
    ),
    (BODY, "Bernoulli-22 in opset 22"): AS_ABOVE,
    (BODY, "AffineGrid-20 in opset 20"): (
        "We are: the body squeezes every dimension of size one, the batch's too, and then splits along axis 1: for one "
        "image in two dimensions it cannot be computed. The text knows no such limit."
    ),
    (RUNTIME, "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal"): (
        "We are: scores that a mask excludes are the lowest float in place of −∞. The text adds −∞; Y is the same."
    ),
    (RUNTIME, "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal"): AS_ABOVE,
    (RUNTIME, "test_resize_downsample_scales_linear_align_corners"): (
        "We are: the text divides by `output_width` − 1, which may be fractional when it comes from a scale; ONNX "
        "Runtime takes the whole number."
    ),
    (RUNTIME, "test_resize_downsample_scales_cubic_align_corners"): AS_ABOVE,
}
"""(who differs, the test or body) -> who is right, and why."""

LEFT_OPEN: Mapping[str, str] = {
    "test_bernoulli": "Ten draws are too few for a distribution; their support is tested.",
    "test_bernoulli_double": "As above.",
    "test_bernoulli_seed": "As above.",
    "test_bernoulli_expanded": "Numbers drawn inside a graph determine no element of its output.",
    "test_bernoulli_double_expanded": "As above.",
    "test_bernoulli_seed_expanded": "As above.",
    "test_dynamicquantizelinear_expanded": "One element lies so near a tie that rounding alone decides it.",
    "test_gradient_of_add": "Gradient differentiates the graph around it: there is no kernel for it.",
    "test_gradient_of_add_and_mul": "As above.",
}
"""ONNX's tests of which an output is not judged, and why."""


@dataclass(frozen=True)
class Difference:
    """Someone who is not where the kernel's bounds are, on one test or body."""

    who: str
    what: str
    how: str

    @property
    def key(self) -> tuple[str, str]:
        return self.who, self.what


@dataclass
class Witnessed:
    """ONNX Runtime on ONNX's node tests."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    refused: int = 0


def runtime_on_node_tests() -> Witnessed:
    """Judge ONNX Runtime, without optimisation, on every node test that it runs as one node."""
    found = Witnessed()
    for case in all_cases():
        if not _is_asked(case):
            continue
        try:
            count = len(case.outputs)
            outputs = run_onnxruntime(case.op_type, case.inputs, case.attributes, opset=case.opset, output_count=count)
            row = judge_named(case, outputs)
        except (MissingKernelError, *_refusals()):
            found.refused += 1
            continue
        found.outcomes[row.outcome] += 1
        if row.outcome is Outcome.FAILED:
            found.differences.append(Difference(RUNTIME, case.name, row.message))
    return found


def _is_asked(case: Case) -> bool:
    """Whether Python's interface takes and returns all its tensors as they are, and no subgraph is in it."""
    tensors = (*case.inputs, *case.outputs)
    plain = all(x is None or _is_plain(x) for x in tensors)
    return plain and not case.domain and not any(isinstance(a, onnx.GraphProto) for a in case.attributes.values())


def _is_plain(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind != "V" and not hasattr(ml_dtypes, x.dtype.name)


def _refusals() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as errors  # noqa: PLC0415 (only here)

    own = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.NotImplemented, errors.RuntimeException)
    return (*own, RuntimeError, ValueError, TypeError)


def undeclared(found: Iterator[Difference] | list[Difference]) -> list[str]:
    """Differences without a declaration."""
    return [f"{item.who}, {item.what}: {item.how}" for item in found if item.key not in DECLARED]


def outlived(found: list[Difference], *who: str) -> list[str]:
    """Declarations of these that no difference stands for any more."""
    seen = {item.key for item in found}
    return [f"{by}, {what}" for by, what in DECLARED if by in who and (by, what) not in seen]
