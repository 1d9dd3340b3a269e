"""Get every tensor that a runtime computes, even when it crashes, hangs or refuses somewhere on the way.

The graph is run with its intermediate tensors as outputs, in segments whose tensors fit in memory; the first segment
is the whole graph when it fits. A segment whose session fails is halved, until the failing node stands alone; the nodes
behind it go on with the oracle's values.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RuntimeFailure, RuntimeUnavailableError, UnsupportedByRuntimeError
from ..graphs.model import Model, Node
from ..graphs.segments import crossing_names, segment_model, split_by_memory
from ..graphs.surgery import expose
from ..runtimes.session import RuntimeOptions, Session


def _shorter(limit_s: float) -> float:
    return min(limit_s, max(limit_s / 4, SHORTEST_LIMIT_S))


OpenSession = Callable[[Path, RuntimeOptions], Session]

_THERE = object()

SHORTEST_LIMIT_S = 30.0
"""A part of a graph that failed gets a quarter of the time limit of the whole, but not less than this."""


_SEGMENT = re.compile(r"\S*segment\d+\.onnx")


def _anonymous(failure: RuntimeFailure) -> str:
    """A message without the name of the file that was loaded, which is ours and not the user's."""
    return _SEGMENT.sub("the model", str(failure))


@dataclass(frozen=True)
class Observation:
    """What a runtime made of one node: its output tensors by name, or how it failed."""

    node: Node
    outputs: Mapping[str, Any] = field(default_factory=dict)
    failure: RuntimeFailure | None = None


@dataclass
class Watcher:
    """Runs the segments of one model.

    Attributes:
        model: the model.
        feeds: its stored inputs.
        options: how sessions are opened.
        folder: where the models of segments are written.
        open_session: starts a session on a model file.
        budget_bytes: how many bytes of tensors one segment may return.
        peak_memory_bytes: largest worker so far.
    """

    model: Model
    feeds: Mapping[str, Any]
    options: RuntimeOptions
    folder: Path
    open_session: OpenSession
    budget_bytes: int
    peak_memory_bytes: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def standalone(self) -> bool:
        """Whether segments are written without links: only ONNX Runtime is known to follow them."""
        return self.options.runtime != "onnxruntime"

    def observe(self, values: Mapping[str, Any]) -> Iterator[Observation]:
        """Every node in order; `values` holds, at each step, the stored tensors that later nodes read.

        Raises:
            RuntimeUnavailableError: the runtime cannot be started at all.
        """
        shapes = {name: value.shape for name, value in self.feeds.items() if hasattr(value, "shape")}
        segments = split_by_memory(self.model, shapes, self.budget_bytes)
        for segment in segments:
            yield from self._segment(segment, values, self.options, whole=len(segments) == 1)

    def _segment(
        self, nodes: Sequence[Node], values: Mapping[str, Any], options: RuntimeOptions, *, whole: bool = False
    ) -> Iterator[Observation]:
        if not whole and any(values.get(name, _THERE) is None for name in crossing_names(nodes)):
            yield from self._without_some(nodes, values, options)
            return
        try:
            outputs = self._run(nodes, values, options, whole=whole)
        except RuntimeUnavailableError:
            raise
        except RuntimeFailure as failure:
            yield from self._halves(nodes, values, options, failure, whole=whole)
            return
        for node in nodes:
            yield Observation(node, {name: outputs.pop(name) for name in node.outputs if name})

    def _without_some(
        self, nodes: Sequence[Node], values: Mapping[str, Any], options: RuntimeOptions
    ) -> Iterator[Observation]:
        """Nodes of which some read a tensor that nobody could compute: one by one, those are left out."""
        for node in nodes:
            if any(values.get(name, _THERE) is None for name in crossing_names([node])):
                yield Observation(node)
            else:
                yield from self._segment([node], values, options)

    def _halves(
        self,
        nodes: Sequence[Node],
        values: Mapping[str, Any],
        options: RuntimeOptions,
        failure: RuntimeFailure,
        *,
        whole: bool,
    ) -> Iterator[Observation]:
        named = type(failure)(_anonymous(failure))
        if len(nodes) == 1 and not whole:
            yield Observation(nodes[0], failure=named)
        elif whole and self._refused_whatever(nodes, values, failure):
            yield from (Observation(node, failure=named) for node in nodes)
        else:
            shorter = dataclasses.replace(options, time_limit_s=_shorter(options.time_limit_s))
            middle = max(1, len(nodes) // 2)
            yield from self._segment(nodes[:middle], values, shorter)
            if nodes[middle:]:
                yield from self._segment(nodes[middle:], values, shorter)

    def _refused_whatever(self, nodes: Sequence[Node], values: Mapping[str, Any], failure: RuntimeFailure) -> bool:
        """Whether the first node alone is refused with the very words of the whole (an opset or IR that is too new)."""
        if not isinstance(failure, UnsupportedByRuntimeError):
            return False
        try:
            self._run(nodes[:1], values, self.options, whole=False)
        except RuntimeFailure as alone:
            return _anonymous(alone) == _anonymous(failure) and nodes[0].name not in str(failure)
        return False

    def run_alone(self, node: Node, values: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of one node from a session of its own.

        Raises:
            RuntimeFailure: what the runtime did instead.
        """
        return self._run([node], values, self.options, whole=False)

    def _run(
        self, nodes: Sequence[Node], values: Mapping[str, Any], options: RuntimeOptions, *, whole: bool
    ) -> dict[str, Any]:
        destination = self.folder / f"segment{next(self._numbers)}.onnx"
        names = [name for node in nodes for name in node.outputs if name]
        if whole:
            file, feeds = expose(self.model, names, destination, standalone=self.standalone), dict(self.feeds)
        else:
            stored = self.model.graph.initializers.keys() - self.feeds.keys()
            feeds = {name: values[name] for name in crossing_names(nodes) if name in values and name not in stored}
            file = segment_model(self.model, nodes, feeds, destination, standalone=self.standalone)
        try:
            with self.open_session(file, options) as session:
                outputs = session.run(feeds, names)
                self.peak_memory_bytes = max(self.peak_memory_bytes, session.peak_memory_bytes())
        finally:
            file.unlink(missing_ok=True)
        return outputs
