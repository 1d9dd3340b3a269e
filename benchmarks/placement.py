"""Where a model really ran: a session, and each node of it, held against the execution provider asked for."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RuntimeUnavailableError
from ..runtimes.session import RuntimeOptions, SessionInfo
from .profiles import Event, is_node, node_name

PROVIDER_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""What ONNX Runtime calls the providers that the command line names."""

_NAMED_AT_MOST = 5
_SHAPE_RANK = 1
_SHAPE_DTYPES = frozenset({"int64", "int32", "bool"})


def check_session(info: SessionInfo, options: RuntimeOptions) -> None:
    """Refuse a session whose first provider is not the one asked for.

    Raises:
        RuntimeUnavailableError: names both. A session that names no provider has only one and is let through.
    """
    if info.providers and _short(info.providers[0]) != options.provider:
        raise RuntimeUnavailableError(
            f"{options.runtime}: provider {options.provider} was asked for, but the session runs on "
            f"{', '.join(info.providers)}: not compared"
        )


def check_nodes(events: Sequence[Event], options: RuntimeOptions) -> None:
    """Refuse a run of which some nodes ran on another provider than the one asked for.

    With "cuda", nodes that compute shapes (all outputs integers or booleans of rank 0 or 1) may run on the CPU, where
    ONNX Runtime puts them on purpose; any other node there is a silent fallback.

    Args:
        events: a profile; one without node events says nothing and is let through.
        options: holds the provider asked for.

    Raises:
        RuntimeUnavailableError: names the nodes that ran elsewhere.
    """
    wanted = PROVIDER_NAMES[options.provider]
    nodes = {node_name(event): event for event in events if is_node(event)}
    strays = {name: event for name, event in nodes.items() if _strays(event, wanted)}
    if not strays:
        return
    named = [f"{name} ({event['args']['op_name']}) on {event['args']['provider']}" for name, event in strays.items()]
    more = f" and {len(named) - _NAMED_AT_MOST} more" if len(named) > _NAMED_AT_MOST else ""
    raise RuntimeUnavailableError(
        f"{options.runtime}: provider {options.provider} was asked for, but {len(strays)} of {len(nodes)} nodes ran "
        f"elsewhere: {', '.join(named[:_NAMED_AT_MOST])}{more}: not compared"
    )


def _short(provider: str) -> str:
    """ "cuda" of "CUDAExecutionProvider"."""
    return provider.lower().removesuffix("executionprovider")


def _strays(event: Event, wanted: str) -> bool:
    provider = event["args"].get("provider", wanted)
    if provider == wanted:
        return False
    return not (provider == PROVIDER_NAMES["cpu"] and _computes_shapes(event))


def _computes_shapes(event: Event) -> bool:
    """Whether all outputs are small integers; a node whose profile does not say is taken to compute values."""
    outputs = [entry for output in event["args"].get("output_type_shape", ()) for entry in output.items()]
    return bool(outputs) and all(dtype in _SHAPE_DTYPES and len(shape) <= _SHAPE_RANK for dtype, shape in outputs)
