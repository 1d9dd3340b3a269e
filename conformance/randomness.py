"""Random operators in a graph: draws that follow from a seed, and model outputs that follow from draws.

The seed is that of the generator ("if not specified we will auto generate one"): of one implementation it determines
what a session draws first, so that two sessions must draw the same. What a second run of a session draws is not
specified: it may go on where the first one ended, or begin again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import RuntimeFailure, RuntimeUnavailableError
from ..graphs.evaluation import Value
from ..graphs.model import Graph, Node
from ..operators.scale import Array, Rule, Scale
from .exactness import where_is
from .nodes import failed_node
from .oracle import Local
from .results import NodeResult, Outcome
from .verdict import judge

RANDOM = frozenset(
    {
        *("Bernoulli", "Dropout", "Multinomial"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    }
)
"""Operators that draw, Dropout in training only."""

SIZES = frozenset({"Shape", "Size"})
"""Operators that read no element."""

RUNS, SESSIONS = 40, 24
"""Runs in one session, and first runs of others, of a graph as it is optimised and of the graph as it is written."""

ONCE_IN = 1e-9
"""How rarely two samples of one law may be told apart."""

LARGEST = 4096
"""Elements of an output up to which its law is compared."""

Sample = Callable[[int, bool], list[Any]]
"""Draws an output so many times, in one session or (True) in a session each."""

Run = Callable[[], Mapping[str, Any]]
"""The node's outputs by name, from a session that is opened for them."""


def draws_from_a_seed(node: Node, local: Local) -> bool:
    """Whether a node draws random numbers, and names the seed of its generator."""
    return node.attributes.get("seed") is not None and bool(_drawn(node, local))


def _drawn(node: Node, local: Local) -> list[str]:
    """Names of outputs that are judged by the law they are drawn from."""
    pairs = zip(node.outputs, local.scales or (), strict=False)
    return [name for name, scale in pairs if name and scale.rule is Rule.DISTRIBUTION and scale.law is not None]


def judge_repetition(node: Node, local: Local, row: NodeResult, run: Run) -> NodeResult:
    """The row of a node with a seed, once two sessions have drawn from it.

    Args:
        node: the node.
        local: its reference.
        row: what its draws were judged by themselves.
        run: opens a session and runs the node in it; called twice.

    Raises:
        RuntimeUnavailableError: the runtime cannot be started.
    """
    if row.outcome not in (Outcome.PASSED, Outcome.UNJUDGED):
        return row
    try:
        first, second = run(), run()
    except RuntimeUnavailableError:
        raise
    except RuntimeFailure as failure:
        return failed_node(node, failure)
    differences = (_difference(first.get(name), second.get(name)) for name in _drawn(node, local))
    found = next((text for text in differences if text), "")
    if found:
        text = f"seed = {node.attributes['seed']:g}, and two sessions draw different numbers: {found}"
        return dataclasses.replace(row, outcome=Outcome.FAILED, message=text)
    return dataclasses.replace(row, message=f"{row.message}; its seed draws the same in two sessions")


def _difference(first: Any, second: Any) -> str:
    """Where two draws differ, or ""."""
    if not (isinstance(first, np.ndarray) and isinstance(second, np.ndarray)):
        return ""  # no tensor at all is said where the draws are judged
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return f"{first.dtype}{list(first.shape)} and {second.dtype}{list(second.shape)}"
    wrong = np.flatnonzero(~_same(first, second))
    if not wrong.size:
        return ""
    at, flat = int(wrong[0]), (first.reshape(-1), second.reshape(-1))
    values = f"{flat[0][at]!s} and {flat[1][at]!s}"
    return f"{wrong.size} of {first.size} differ; first at {where_is(at, first.shape)}: {values}"


def _same(first: Array, second: Array) -> Array:
    return (first == second) | ((first != first) & (second != second))  # noqa: PLR0124 (NaN)


def judge_law(row: NodeResult, optimized: Sample, written: Sample) -> NodeResult:
    """The row of an output that follows from draws, once the optimised graph and the written one have drawn it.

    Args:
        row: the row, unjudged.
        optimized: draws from the graph as it is optimised.
        written: draws from it without optimisations.

    Raises:
        RuntimeUnavailableError: the runtime cannot be started.
    """
    try:
        found = told_apart(optimized(RUNS, False), written(RUNS, False))
        if found:  # unless each run of a session draws the same
            found = told_apart(optimized(SESSIONS, True), written(SESSIONS, True))
    except RuntimeUnavailableError:
        raise
    except RuntimeFailure:
        return row
    if not found:
        return row
    text = f"{found}; right with --optimization disabled: a graph optimisation changes what is drawn"
    return dataclasses.replace(row, outcome=Outcome.FAILED, rule="distribution", message=text)


def told_apart(first: list[Any], second: list[Any]) -> str:
    """Where an element of two samples of tensors cannot be of one law, or "": two-sample Kolmogorov-Smirnov.

    Of n draws and n others of one law, the shares below some value differ by k / n or more with a probability of at
    most 2 C(2n, n - k) / C(2n, n). Ties make it smaller.
    """
    tensors, n = [*first, *second], len(first)
    if len({getattr(x, "shape", None) for x in tensors}) != 1 or not isinstance(tensors[0], np.ndarray):
        return ""
    shape, size = tensors[0].shape, tensors[0].size
    if tensors[0].dtype.kind not in "biuf" or not 0 < size <= LARGEST:
        return ""
    values = np.nan_to_num(np.stack([x.reshape(-1) for x in tensors]).astype(np.float64), nan=np.inf)
    gaps = [np.abs((values[:n] <= v).sum(axis=0) - (values[n:] <= v).sum(axis=0)) for v in values]
    widest = np.max(gaps, axis=0)
    at = int(widest.argmax())
    if size * 2 * math.comb(2 * n, n - int(widest[at])) / math.comb(2 * n, n) > ONCE_IN:
        return ""
    here, there = values[:n, at], values[n:, at]
    return f"{n} times drawn, element {where_is(at, shape)} is {_summary(here)}, without optimisation {_summary(there)}"


def _summary(values: Array) -> str:
    return f"{values.min():.6g} to {values.max():.6g} (mean {values.mean():.6g})"


def may_draw(node: Node) -> bool:
    """Whether a node, or a node of its subgraphs, may draw random numbers."""
    if node.domain == "" and node.op_type in RANDOM:
        return True
    bodies = [value for value in node.attributes.values() if isinstance(value, Graph)]
    return any(may_draw(inner) for body in bodies for inner in body.nodes)


@dataclass
class Draws:
    """Tensors of a graph that are drawn, and those that depend on them.

    Attributes:
        laws: of drawn tensors, the reference and the scale that names the law.
        origins: of every tensor that draws decide, the node that draws.
    """

    laws: dict[str, tuple[Value, Scale]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def note(self, node: Node, local: Local, read: Iterable[str]) -> None:
        """Remember what a node draws and what it passes on; `read` are the tensors that it reads."""
        drawn, inner = _drawn(node, local), may_draw(node) and node.op_type not in RANDOM
        first = next((self.origins[name] for name in read if name in self.origins), node.name if inner else "")
        for index, name in enumerate(node.outputs):
            if name in drawn and local.scales is not None and not first:
                self.laws[name] = (local.outputs[index], local.scales[index])
        if first and node.op_type not in SIZES:
            self.origins.update(dict.fromkeys((name for name in node.outputs if name), first))
        self.origins.update(dict.fromkeys(drawn, node.name))

    def judge_output(self, name: str, actual: Any) -> NodeResult | None:
        """The row of a model output that draws decide, or None: by the law where it is drawn itself, else open."""
        if name not in self.origins:
            return None
        tensor = actual if isinstance(actual, np.ndarray) else None
        row = NodeResult(
            node=name,
            op_type="",
            domain="",
            outputs=(name,),
            outcome=Outcome.UNJUDGED,
            message=f"node {self.origins[name]} draws random numbers: no element is determined",
            shapes=(None if tensor is None else tensor.shape,),
            dtypes=(None if tensor is None else str(tensor.dtype),),
            kind="output",
        )
        if name not in self.laws:
            return row
        value, scale = self.laws[name]
        verdict = judge(actual, value.data, value.dtype, scale)
        return dataclasses.replace(row, outcome=verdict.outcome, rule=verdict.rule, message=verdict.message)
