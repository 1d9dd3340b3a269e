"""Read a runtime's profile: time per operator type.

A profile is a list of trace events as ONNX Runtime writes them: `"cat": "Node"` events named `…_kernel_time` with
`args.op_name` and `args.provider`, inside `"cat": "Session"` events named `model_run`; `ts` and `dur` in microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .results import OpTypeTime

Event = Mapping[str, Any]


def times_by_op_type(events: Sequence[Event], *, skip_runs: int = 0) -> tuple[OpTypeTime, ...]:
    """Time per operator type and run, largest first.

    A node that holds others (If, Loop, Scan) counts with its own time only: theirs is taken off.

    Args:
        events: a profile.
        skip_runs: first runs to leave out (they allocate).

    Returns:
        Empty if the profile holds no run beyond `skip_runs`.
    """
    runs = sorted((event for event in events if _is_run(event)), key=_start)[skip_runs:]
    nodes = [event for event in events if is_node(event) and any(_within(event, run) for run in runs)]
    totals: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    providers: dict[str, set[str]] = defaultdict(set)
    for event, own_us in _own_times(nodes):
        op_type = event["args"]["op_name"]
        totals[op_type] += own_us
        counts[op_type] += 1
        providers[op_type].add(event["args"].get("provider", ""))
    whole_us = sum(totals.values()) or 1.0
    rows = (
        OpTypeTime(
            op_type, us * 1e-6 / len(runs), us / whole_us, counts[op_type] / len(runs), _sorted(providers[op_type])
        )
        for op_type, us in totals.items()
    )
    return tuple(sorted(rows, key=lambda row: (-row.time_s, row.op_type)))


def is_node(event: Event) -> bool:
    """Whether the event is the execution of a node."""
    return event.get("cat") == "Node" and event.get("name", "").endswith("_kernel_time") and "op_name" in event["args"]


def node_name(event: Event) -> str:
    """Name of the node that the event timed."""
    return event["name"].removesuffix("_kernel_time")


def _is_run(event: Event) -> bool:
    return event.get("cat") == "Session" and event.get("name") == "model_run"


def _start(event: Event) -> float:
    return event["ts"]


def _end(event: Event) -> float:
    return event["ts"] + event["dur"]


def _within(event: Event, outer: Event) -> bool:
    return _start(outer) <= _start(event) and _end(event) <= _end(outer)


def _own_times(nodes: Sequence[Event]) -> list[tuple[Event, float]]:
    """Each event with its duration less that of the events directly inside it, on the same thread (microseconds)."""
    own = {id(event): float(event["dur"]) for event in nodes}
    open_by_thread: dict[Any, list[Event]] = defaultdict(list)
    for event in sorted(nodes, key=lambda event: (_start(event), -event["dur"])):
        stack = open_by_thread[event.get("tid")]
        while stack and not _within(event, stack[-1]):
            stack.pop()
        if stack:
            own[id(stack[-1])] -= event["dur"]
        stack.append(event)
    return [(event, max(0.0, own[id(event)])) for event in nodes]


def _sorted(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names - {""}))
