"""Judge one node: its outputs against the reference on the runtime's own inputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import (
    CrashedError,
    HungError,
    OnnxArchError,
    RuntimeFailure,
    UnsupportedByRuntimeError,
)
from ..graphs.model import Node
from ..operators.scale import Rule
from .fingerprint import CONTRACTIONS, explain, narrow_inputs
from .oracle import Local
from .results import NodeResult, Outcome, Verdict
from .verdict import combine, judge
from .witness import witness_for

NARROW_RMS = 4634.0
"""rms z that TF32 inputs cause times sqrt(K): 2^13 · sqrt(2) · 0.4, where 0.4 · 2^−10 / 2 is the rms relative error of
rounding a random mantissa to 10 bits; a sum of K products of random signs has it over sqrt(K)."""


SAMPLED_RMS = 2.0
"""rms z from which narrow inputs are looked for at all: sums by a matrix library stay below it."""

COMPOSED_RMS = 0.3
"""rms z of a composed operator from which hypotheses are tried: its magnitude counts every step at full size, so that
correct implementations stay far below one; trying costs an evaluation each and cannot condemn a correct result."""


def outcome_of(failure: RuntimeFailure) -> Outcome:
    """The outcome that a runtime's failure is booked as."""
    kinds = (
        (CrashedError, Outcome.CRASHED),
        (HungError, Outcome.HUNG),
        (UnsupportedByRuntimeError, Outcome.UNSUPPORTED),
    )
    return next((outcome for kind, outcome in kinds if isinstance(failure, kind)), Outcome.ERRORED)


def one_line(error: OnnxArchError) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())


def failed_node(node: Node, failure: RuntimeFailure) -> NodeResult:
    """The row of a node that returned nothing."""
    return NodeResult(
        node=node.name,
        op_type=node.op_type,
        domain=node.domain,
        outputs=node.outputs,
        outcome=outcome_of(failure),
        message=one_line(failure),
        shapes=(None,) * len(node.outputs),
        dtypes=(None,) * len(node.outputs),
    )


def skipped_node(node: Node, absent: Sequence[str]) -> NodeResult:
    """The row of a node whose inputs nobody could compute."""
    names = ", ".join(absent[:3])
    return NodeResult(
        node=node.name,
        op_type=node.op_type,
        domain=node.domain,
        outputs=node.outputs,
        outcome=Outcome.SKIPPED,
        message=f"not run: neither the runtime nor the oracle could compute {names}",
        shapes=(None,) * len(node.outputs),
        dtypes=(None,) * len(node.outputs),
    )


def judge_node(node: Node, local: Local, actual: Mapping[str, Any], *, named: bool = True) -> NodeResult:
    """The verdict over all outputs of one node; inherited figures are the caller's.

    Args:
        node: the node.
        local: its reference.
        actual: the runtime's outputs by name.
        named: look for the cause of what failed already; nothing but the text depends on it.
    """
    if local.call is None:
        verdict = Verdict(Outcome.UNJUDGED, message=local.reason)
    else:
        parts = [_judge_output(local, index, actual.get(name)) for index, name in enumerate(node.outputs) if name]
        verdict = combine(parts) if parts else Verdict(Outcome.PASSED, "exact")
    fingerprint = ""
    if verdict.outcome is Outcome.FAILED and local.call is not None:
        fingerprint = _fingerprint(node, local, actual) if named else ""
    elif _suspicious(local, verdict):
        contraction = local.call is not None and local.call.entry.op_type in CONTRACTIONS
        fingerprint = _narrowed(node, local, actual) if contraction else _fingerprint(node, local, actual, varied=True)
        if fingerprint:
            text = "within the bounds, but nearer to another computation than to this operator"
            verdict = dataclasses.replace(verdict, outcome=Outcome.FAILED, message=text)
    return _row(node, verdict, fingerprint, actual)


def _judge_output(local: Local, index: int, actual: Any) -> Verdict:
    if index >= len(local.outputs) or local.call is None:
        return Verdict(Outcome.UNJUDGED, message="the oracle's kernel does not compute this output")
    value = local.outputs[index]
    scale = local.scales[index] if local.scales is not None and index < len(local.scales) else None
    witness = None
    if scale is not None and isinstance(value.data, np.ndarray):
        witness = witness_for(local.call, index, value.data, scale)
    left_open = local.reason and scale is not None and scale.rule is Rule.DISTRIBUTION
    if left_open and getattr(actual, "dtype", None) == value.dtype:
        return Verdict(Outcome.UNJUDGED, message=local.reason)  # its shape is as open as its values
    return judge(actual, value.data, value.dtype, scale, witness)


def _fingerprint(node: Node, local: Local, actual: Mapping[str, Any], *, varied: bool = False) -> str:
    if local.call is None or not node.outputs[0] or not local.outputs:
        return ""
    if not isinstance(local.outputs[0].data, np.ndarray):
        return ""  # no hypothesis is about a sequence or a map
    return explain(local.call, actual.get(node.outputs[0]), local.outputs[0].data, varied=varied)


def _suspicious(local: Local, verdict: Verdict) -> bool:
    """Whether a passing node is off by as much as a named fault would make it: narrow inputs of a contraction, or more
    than correct implementations of a composed operator ever are."""
    if local.call is None or local.scales is None or verdict.rms_z is None or verdict.outcome is not Outcome.PASSED:
        return False
    scale = local.scales[0]
    if local.call.entry.op_type not in CONTRACTIONS:
        return scale.rule is Rule.COMPOSED and verdict.rms_z > COMPOSED_RMS
    if scale.rule not in (Rule.DOT, Rule.COMPOSED):
        return False
    most = scale.most_terms
    if local.call.entry.products is not None:  # a sample of the outputs is enough to see it
        return most > 0 and verdict.rms_z > SAMPLED_RMS
    return most > 0 and verdict.rms_z > max(SAMPLED_RMS, 0.4 * NARROW_RMS / math.sqrt(most))


def _narrowed(node: Node, local: Local, actual: Mapping[str, Any]) -> str:
    tensor = actual.get(node.outputs[0])
    if local.call is None or not isinstance(tensor, np.ndarray):
        return ""
    return narrow_inputs(local.call, tensor, local.outputs[0].data)


def _row(node: Node, verdict: Verdict, fingerprint: str, actual: Mapping[str, Any]) -> NodeResult:
    tensors = [actual.get(name) if name else None for name in node.outputs]
    return NodeResult(
        node=node.name,
        op_type=node.op_type,
        domain=node.domain,
        outputs=node.outputs,
        outcome=verdict.outcome,
        rule=verdict.rule,
        max_z=verdict.max_z,
        rms_z=verdict.rms_z,
        allowed_rms_z=verdict.allowed_rms_z,
        allowed_max_z=verdict.allowed_max_z,
        bits=verdict.bits,
        max_abs=verdict.max_abs,
        shapes=tuple(t.shape if isinstance(t, np.ndarray) else None for t in tensors),
        dtypes=tuple(str(t.dtype) if isinstance(t, np.ndarray) else None for t in tensors),
        fingerprint=fingerprint,
        message=verdict.message,
    )
