"""A control-flow node as a call of a kernel: outputs from its subgraphs, error scales by Monte-Carlo arithmetic.

No closed form bounds what a subgraph computes, so it is run again with every node's output moved by a normal error of
the size of its own rounding (`operators.rounding.natural_spread`). The root mean square σ of how far an output element
moves over the samples is its propagated standard deviation; the scale is Scale(σ / half-unit, k, COMPOSED, spread=1),
so that z is the deviation in units of σ. What each part of it rests on:

- σ is an estimate from few samples, so a fifth of the output's median σ is added in squares: an element whose samples
  happened to stay near is not judged by luck.
- The certain bound. Roundings are not always independent: a loop that adds the same number a thousand times errs the
  same way each time. Let rounding j move the result by J_j e_j, with |e_j| <= b_j certainly and standard deviation s_j.
  By Cauchy and Schwarz Σ |J_j| b_j <= sqrt(R) · sqrt(Σ J_j² b_j²) <= sqrt(R) · max(b_j / s_j) · σ over R roundings, and
  σ is known within a factor of `ESTIMATE_SLACK`. Between 8 σ and that bound the witness decides: the subgraphs in
  float32 with plain loops.
- An output that no sample moves is data movement or integers: EXACT. Elements of an integer, boolean or string output
  that a sample moves are left open, one by one.
- Where a sample goes another way than the reference (another branch, another trip count), rounding alone decides the
  path: an output that moves is not judged, and `SubgraphCall.doubt` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import MissingKernelError, OnnxArchError
from ..operators.evaluation import Call
from ..operators.plain import PlainArray
from ..operators.registry import KernelEntry
from ..operators.rounding import half_unit
from ..operators.scale import Array, Rule, Scale
from ..operators.storage import float_format, is_float
from .control_flow import Flow, Run, RunGraph, find_flow, undefined_elements
from .model import Node
from .values import Value, decoded_once

SAMPLES = 8
"""Perturbed runs; half as many where one takes more than `LONG_RUN` nodes."""

LONG_RUN = 20_000

POOLED_SHARE = 0.04
"""Share of the output's squared median deviation that is added to every element's own."""

ESTIMATE_SLACK = 8.0
"""Eight samples of a normal variable show less than an eighth of its deviation with probability 10^−6."""

SEED = 20


@dataclass(frozen=True, kw_only=True)
class SubgraphCall(Call):
    """A call of a control-flow node on its inputs and on what its subgraphs capture.

    `inputs` are the node's own and then the captured tensors, in the order of `names`.

    Attributes:
        node: the node.
        names: "" for an input that is absent.
        run_graph: runs a subgraph.
    """

    node: Node
    names: tuple[str, ...]
    run_graph: RunGraph

    def run(self, run: Run) -> tuple[Value, ...]:
        """The outputs, computed as `run` says.

        Raises:
            MissingKernelError: an operator in the subgraphs without a kernel; names the node.
            InvalidInputError: inputs that do not go together, or a limit of `control_flow` is reached.
        """
        flow = find_flow(self.node)
        if flow is None:
            raise MissingKernelError(f"no kernel for {self.node.op_type} at opset {self.node.opset}")
        values = [Value(x, dtype) for x, dtype in zip(self.inputs, self.stored, strict=True)]
        scope = {name: value for name, value in zip(self.names, values, strict=True) if name}
        results = flow(Flow(self.node, scope, self.run_graph, run), values[: len(self.node.inputs)])
        return tuple(results[: self.output_count])

    @cached_property
    def reference(self) -> tuple[tuple[Value, ...], Run]:
        """The outputs of the unperturbed run, and the run."""
        run = Run()
        return self.run(run), run

    def outputs(self) -> tuple[Any, ...]:
        """The reference outputs: float64 where floating-point, as stored otherwise."""
        return tuple(value.data for value in self.reference[0])

    @cached_property
    def _samples(self) -> tuple[list[tuple[tuple[Value, ...], Run]], list[str]]:
        """Perturbed runs, and why outputs cannot be judged by them."""
        _, reference = self.reference
        found: list[tuple[tuple[Value, ...], Run]] = []
        doubts = list(reference.doubts)
        for sample in range(SAMPLES if reference.node_runs <= LONG_RUN else SAMPLES // 2):
            run = Run(noise=np.random.default_rng([SEED, sample]))
            try:
                found.append((self.run(run), run))
            except OnnxArchError as error:
                doubts.append(f"rounding alone decides whether it can be computed: {error}")
            doubts += run.doubts
        return found, list(dict.fromkeys(doubts))

    @property
    def doubt(self) -> str:
        """Why outputs are not judged, or ""."""
        samples, doubts = self._samples
        if doubts:
            return "; ".join(doubts)
        if any(run.decisions != self.reference[1].decisions for _, run in samples):
            return "rounding alone decides which branch is taken, or how often a loop runs"
        return ""

    def scales(self, outputs: Sequence[Any]) -> tuple[Scale, ...]:
        """The error scale of every output; Rule.DISTRIBUTION for one that is not judged."""
        return tuple(self._scale(index, value) for index, value in enumerate(self.reference[0][: len(outputs)]))

    def _scale(self, index: int, value: Value) -> Scale:
        samples, doubts = self._samples
        if doubts:
            return Scale(np.zeros(()), 0, Rule.DISTRIBUTION)
        moved = [sample[index].data for sample, _ in samples]
        if all(_same(value.data, other) for other in moved):
            return self._with_undefined(Scale(np.zeros(()), 0, Rule.EXACT), index, value)
        if self.doubt or not all(_alike(value.data, other) for other in moved):
            return Scale(np.zeros(()), 0, Rule.DISTRIBUTION)
        bound = max(np.sqrt(max(run.roundings, 1)) * run.widest for _, run in samples)
        if isinstance(value.data, list):
            return _sequence_scale(value, moved, float(bound))
        return self._with_undefined(_moved_scale(value, moved, float(bound)), index, value)

    def _with_undefined(self, scale: Scale, index: int, value: Value) -> Scale:
        """The scale, infinite where the specification defines no value."""
        if not isinstance(value.data, np.ndarray):
            return scale
        inputs = self.inputs[: len(self.node.inputs)]
        undefined = undefined_elements(self.node, inputs, index, value.data.shape)
        if not undefined.any():
            return scale
        size = scale.magnitude if scale.rule is Rule.EXACT else np.where(undefined, np.inf, scale.magnitude)
        return Scale(size, np.where(undefined, np.inf, scale.terms), scale.rule, scale.spread)

    def plain_outputs(self, *inputs: Any) -> tuple[Any, ...]:
        """The subgraphs in float32 with plain loops, on the path of the reference; a sequence has no such control.

        Where the control still has another shape (a data-dependent one), it is infinitely far away.
        """
        values, reference = self.reference
        control = self.run(Run(plain=True, follow=reference.decisions))
        return tuple(_control(mine.data, plain.data) for mine, plain in zip(values, control, strict=True))


def _control(reference: Any, plain: Any) -> Array:
    if not isinstance(reference, np.ndarray):
        return np.zeros(0)
    return plain if np.shape(plain) == reference.shape else np.full(reference.shape, np.inf)


def subgraph_call(node: Node, scope: Mapping[str, Value], run_graph: RunGraph) -> SubgraphCall:
    """Resolve a control-flow node to a call.

    Args:
        node: holds subgraphs.
        scope: its inputs and what its subgraphs capture, by name.
        run_graph: runs a subgraph.

    Raises:
        MissingKernelError: no control flow of that name and opset is known.
    """
    if find_flow(node) is None:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise MissingKernelError(f"no kernel for {name} at opset {node.opset}: it holds a subgraph")
    names = (*node.inputs, *sorted(set(scope) - set(node.inputs)))
    values = [scope[name] if name else Value(None, None) for name in names]
    call: SubgraphCall

    def function(*inputs: Any) -> tuple[Any, ...]:
        return call.plain_outputs() if any(isinstance(x, PlainArray) for x in inputs) else call.outputs()

    call = SubgraphCall(
        entry=KernelEntry(node.domain, node.op_type, node.opset, function),
        inputs=tuple(decoded_once(value.data) for value in values),
        keywords={},
        stored=tuple(value.dtype for value in values),
        output_count=len(node.outputs),
        opset=node.opset,
        node=node,
        names=names,
        run_graph=run_graph,
    )
    return call


def _same(reference: Any, other: Any) -> bool:
    if isinstance(reference, list):
        same_length = isinstance(other, list) and len(other) == len(reference)
        return same_length and all(_same(r, o) for r, o in zip(reference, other, strict=True))
    if not isinstance(reference, np.ndarray):
        return reference is None and other is None
    if not isinstance(other, np.ndarray) or other.shape != reference.shape:
        return False
    return bool(np.array_equal(reference, other, equal_nan=reference.dtype.kind in "fc"))


def _alike(reference: Any, other: Any) -> bool:
    """Whether two results can be compared element by element."""
    if isinstance(reference, list):
        same_length = isinstance(other, list) and len(other) == len(reference)
        return same_length and all(_alike(r, o) for r, o in zip(reference, other, strict=True))
    return isinstance(reference, np.ndarray) and np.shape(other) == reference.shape


def _moved_scale(value: Value, moved: Sequence[Any], bound: float) -> Scale:
    """The scale of an output that samples move; `bound` is sqrt(R) · max(b / s)."""
    dtype = value.dtype
    if dtype is None or not is_float(dtype):
        different = np.any([_differs(value.data, other) for other in moved], axis=0)
        return Scale(np.zeros(()), np.where(different, np.inf, 0.0), Rule.EXACT)
    spread, unstable = _deviation(value.data, moved)
    form = float_format(dtype)
    doubled = 2.0 ** ((form.accumulator_bits - form.fraction_bits) / 2)
    terms = np.where(unstable, np.inf, ESTIMATE_SLACK * bound / 2 * doubled)
    return Scale(spread / half_unit(form), terms if unstable.any() else float(terms.max()), Rule.COMPOSED, spread=1.0)


def _differs(reference: Array, other: Array) -> Array:
    nan = (reference != reference) & (other != other)  # noqa: PLR0124 (NaN of any kind of array)
    return np.asarray((reference != other) & ~np.asarray(nan, bool), bool)


def _deviation(reference: Array, moved: Sequence[Array]) -> tuple[Array, Array]:
    """(σ per element with its share of the median, which elements are finite in some runs only)."""
    total, unstable = np.zeros(reference.shape), np.zeros(reference.shape, bool)
    with np.errstate(all="ignore"):
        for other in moved:
            unstable |= ~np.isfinite(other - reference) & _differs(reference, other)
            total += np.nan_to_num(other - reference, nan=0.0, posinf=0.0, neginf=0.0) ** 2
    spread = np.sqrt(total / len(moved))
    level = np.median(spread[spread > 0]) if (spread > 0).any() else 0.0
    return np.sqrt(spread**2 + POOLED_SHARE * level**2), unstable


def _sequence_scale(value: Value, moved: Sequence[list[Any]], bound: float) -> Scale:
    """One scale for all tensors of a sequence: the largest deviation of any element."""
    parts = []
    for index, item in enumerate(value.data):
        parts.append(_moved_scale(Value(item, value.dtype), [other[index] for other in moved], bound))
    terms = float(np.max([np.max(part.terms, initial=0) for part in parts]))
    largest = float(np.max([np.max(part.magnitude, initial=0) for part in parts]))
    return Scale(np.asarray(largest), terms, parts[0].rule, parts[0].spread)
