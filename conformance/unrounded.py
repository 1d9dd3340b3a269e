"""Narrow tensors that a runtime did not round on the way.

A runtime without a float16 kernel runs the node in float32, and where such nodes follow one another it leaves out the
two casts between them: what the model calls a float16 tensor is then read as it was before rounding. Nothing is wrong
with that, but the tensor that it returns is rounded, and judged by that its reader looks wrong. So where a node reads
narrow tensors, both are tried: the tensor as it was returned, and as the oracle has it before rounding.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError, MissingKernelError
from ..graphs.evaluation import call_node, captured_names, judge_call, run_call
from ..graphs.model import Node
from ..graphs.subgraph_call import SubgraphCall
from ..graphs.values import Value, Values, stored_value
from ..operators.rounding import half_unit
from ..operators.scale import Array, Rule, Scale
from ..operators.storage import float_format
from .fingerprint import CONTRACTIONS
from .nodes import judge_node
from .oracle import Local
from .results import NodeResult, Outcome

NARROW = frozenset({"float16", "bfloat16"})
"""Types that runtimes widen; float32 and float64 are computed as they are."""

MOST_INPUTS = 3
"""Inputs of which every choice is tried; of more, only all of them."""

MOST_KEPT = 2
"""Readings of a tensor that are kept: most nodes read it rounded or not, and say by their own outputs which."""

MOST_OF_FEW, FEW_ELEMENTS = 8, 256
"""Of a tensor of so few elements, which tell readings apart by chance only, more are kept; they cost little."""

WIDE_HALF_UNIT = half_unit(float_format(np.dtype(np.float32)))
"""Half a unit in the last place of the type in which a runtime computes instead."""


@dataclass(frozen=True)
class Reading:
    """A narrow tensor before rounding.

    Attributes:
        data: its float64 reference on one choice of its node's inputs.
        error: how far a float32 computation may be off, per element: matters where a reader cancels.
    """

    data: Array
    error: Array


@dataclass(frozen=True)
class Trial:
    """A node judged on one choice of readings; `chosen` is empty for the tensors as they were returned."""

    chosen: Mapping[str, Reading]
    local: Local
    row: NodeResult


class Unrounded:
    """What the tensors of a walk were before they were rounded to be stored.

    Attributes:
        readings: by name of a narrow tensor that was computed; freed by the walk.
    """

    def __init__(self) -> None:
        self.readings: dict[str, tuple[Reading, ...]] = {}

    def concerns(self, node: Node, actual: Mapping[str, Any]) -> bool:
        """Whether a node reads narrow tensors, which may not have been rounded."""
        return any(getattr(getattr(actual.get(name), "dtype", None), "name", "") in NARROW for name in node.inputs)

    def reconsider(
        self, node: Node, local: Local, row: NodeResult, outputs: Mapping[str, Any], actual: Mapping[str, Any]
    ) -> NodeResult:
        """The row of a node, judged on the inputs that explain its outputs best.

        Args:
            node: the node.
            local: its reference on the tensors that the runtime returned.
            row: the verdict on that.
            outputs: the runtime's outputs of the node.
            actual: the runtime's tensors.

        Returns:
            `row`, or where that is no pass, a passing one on inputs before rounding, with a message that says which.
        """
        trials, most = [Trial({}, local, row)], _most(local)
        for chosen in self._choices(node):
            if trials[-1].row.outcome is Outcome.PASSED and len(trials) > most:
                break
            trial = _tried(node, chosen, outputs, actual)
            trials += [] if trial is None else [trial]
        passing = sorted((t for t in trials if t.row.outcome is Outcome.PASSED), key=_distance)
        self._keep(node, _in_order(trials, passing), most, actual)
        if row.outcome is Outcome.PASSED or not passing:
            return row
        return dataclasses.replace(passing[0].row, message=_said(passing[0]))

    def _choices(self, node: Node) -> Iterator[dict[str, Reading]]:
        """Readings of the node's inputs: of all at once, nearest first, then of some."""
        names = [name for name in dict.fromkeys(node.inputs) if name in self.readings]
        sizes = range(len(names), 0, -1) if len(names) <= MOST_INPUTS else [len(names)]
        for size in sizes:
            for some in itertools.combinations(names, size):
                for readings in itertools.product(*(self.readings[name] for name in some)):
                    yield dict(zip(some, readings, strict=True))

    def _keep(self, node: Node, trials: list[Trial], most: int, actual: Mapping[str, Any]) -> None:
        for index, name in enumerate(node.outputs):
            kept: list[Reading] = []
            for trial in trials if name else ():
                reading = _reading(node, trial, index, actual) if len(kept) < most else None
                if reading is not None and not any(np.array_equal(reading.data, other.data) for other in kept):
                    kept.append(reading)
            if kept:
                self.readings[name] = tuple(kept)


def _most(local: Local) -> int:
    """How many readings are kept of the outputs of a node."""
    sizes = [value.data.size for value in local.outputs if isinstance(value.data, np.ndarray)]
    return MOST_OF_FEW if max(sizes, default=0) <= FEW_ELEMENTS else MOST_KEPT


def _in_order(trials: list[Trial], passing: list[Trial]) -> list[Trial]:
    """The trials whose outputs are read on: first that of a runtime which rounds nothing at all, where it passes.

    Few elements do not tell it from its neighbours (a mean per row, its root), and a reader further on has need of it.
    """
    never = [trial for trial in trials[1:2] if trial.row.outcome is Outcome.PASSED]
    others = [trial for trial in passing if not any(trial is first for first in never)]
    return [*never, *others] or trials[:1]


def _values(node: Node, data: Mapping[str, Array], actual: Mapping[str, Any]) -> Values:
    values = {name: stored_value(actual[name]) for name in captured_names(node)}
    return {**values, **{name: Value(array, values[name].dtype) for name, array in data.items()}}


def _tried(
    node: Node, chosen: Mapping[str, Reading], outputs: Mapping[str, Any], actual: Mapping[str, Any]
) -> Trial | None:
    try:
        call = call_node(node, _values(node, {name: reading.data for name, reading in chosen.items()}, actual))
        if isinstance(call, SubgraphCall):
            return None
        local = Local(call, *judge_call(node, call))
    except (MissingKernelError, InvalidInputError, InvalidAttributeError):
        return None
    row = judge_node(node, local, outputs)
    if row.outcome is not Outcome.PASSED and local.scales is not None:
        wider = tuple(
            _widened(scale, value, moved)
            for scale, value, moved in zip(
                local.scales, local.outputs, _moved(node, chosen, local, actual), strict=False
            )
        )
        row = judge_node(node, dataclasses.replace(local, scales=wider), outputs)
    return Trial(chosen, local, row)


def _moved(node: Node, chosen: Mapping[str, Reading], local: Local, actual: Mapping[str, Any]) -> list[Array]:
    """How far each output moves when the readings are off by their errors, with signs that alternate by chance."""
    rng = np.random.default_rng(0)
    signs = {name: rng.choice([-1.0, 1.0], reading.error.shape) for name, reading in chosen.items()}
    data = {name: reading.data + signs[name] * reading.error for name, reading in chosen.items()}
    call = call_node(node, _values(node, data, actual))
    with np.errstate(all="ignore"):
        pairs = zip(run_call(node, call), local.outputs, strict=False)
        return [
            np.abs(np.nan_to_num(there.data - here.data)) if _is_narrow(here) else np.zeros(()) for there, here in pairs
        ]


def _widened(scale: Scale, value: Value, moved: Array) -> Scale:
    """A scale that admits the errors of what the node read, beside its own; what only moves data rounds it once."""
    if value.dtype is None or not _is_narrow(value) or scale.law is not None:
        return scale
    extra = 2.0 * moved / half_unit(float_format(value.dtype))
    if scale.rule is Rule.EXACT:
        return Scale(np.abs(value.data) + extra, 1, Rule.ULP)
    return dataclasses.replace(scale, magnitude=scale.magnitude + extra)


def _reading(node: Node, trial: Trial, index: int, actual: Mapping[str, Any]) -> Reading | None:
    """An output of a trial before rounding; the errors of a float32 computation, and of what it read."""
    if index >= len(trial.local.outputs) or not _is_narrow(trial.local.outputs[index]):
        return None
    if node.op_type == "Cast" and not node.domain:
        return _before_the_cast(node.inputs[0], trial, actual)
    data = trial.local.outputs[index].data
    error = np.zeros(data.shape)
    if trial.local.scales is not None and index < len(trial.local.scales):
        scale = trial.local.scales[index]
        error = error + scale.magnitude * (4.0 * np.sqrt(scale.most_terms) * WIDE_HALF_UNIT)
    if trial.chosen and node.op_type not in CONTRACTIONS:  # whose own errors are larger
        error = error + _moved(node, trial.chosen, trial.local, actual)[index]
    return Reading(data, np.nan_to_num(error, posinf=0.0).astype(np.float32))


def _before_the_cast(name: str, trial: Trial, actual: Mapping[str, Any]) -> Reading | None:
    """What a cast to a narrow type rounds: its input, as it is read; None of strings."""
    if name in trial.chosen:
        return trial.chosen[name]
    data = stored_value(actual[name]).data
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "fiub":
        return None
    return Reading(data.astype(np.float64), np.zeros(data.shape, np.float32))


def _is_narrow(value: Value) -> bool:
    return isinstance(value.data, np.ndarray) and value.dtype is not None and value.dtype.name in NARROW


def _distance(trial: Trial) -> float:
    """How far off a trial's outputs are; no distance at all says little of what was read (x · 2, a transposition)."""
    return trial.row.rms_z if trial.row.rms_z else 1.0


def _said(trial: Trial) -> str:
    text = f"right on {', '.join(trial.chosen)} before rounding to the stored type, which the runtime left out"
    return f"{text}; {trial.row.said}" if trial.row.said else text
