"""Replace calls of a model's local functions by their bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx

from ..errors import InvalidModelError
from .conversion import plain_domain
from .ordering import subgraphs

LARGEST_NODE_COUNT = 2_000_000

FunctionId = tuple[str, str, str]


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without local functions, or the same one if it has none.

    Raises:
        InvalidModelError: a function calls itself, or inlining would give an absurd number of nodes, or fails.
    """
    if not model.functions:
        return model
    _check_size(model)
    import onnx.inliner  # noqa: PLC0415 (only models with functions pay for it)

    try:
        inlined = onnx.inliner.inline_local_functions(model, True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidModelError(f"its local functions cannot be inlined: {error}") from error
    return inlined


def _check_size(model: onnx.ModelProto) -> None:
    functions = {
        _function_id(function.domain, function.name, function.overload): function for function in model.functions
    }
    if len(functions) < len(model.functions):
        raise InvalidModelError("two local functions have the same domain, name and overload")
    sizes: dict[FunctionId, int] = {}
    for function in functions:
        _measure(function, functions, sizes)
    total = sum(sizes.get(call, 1) * count for call, count in _calls(model.graph.node).items())
    if total > LARGEST_NODE_COUNT:
        raise InvalidModelError(
            f"inlining its local functions gives {total} nodes; at most {LARGEST_NODE_COUNT} are taken"
        )


def _measure(root: FunctionId, functions: dict[FunctionId, onnx.FunctionProto], sizes: dict[FunctionId, int]) -> None:
    """Count the nodes of a function once it is inlined; iterative, since calls may be nested deeply."""
    stack, open_calls = [root], set()
    while stack:
        current = stack[-1]
        if current in sizes:
            stack.pop()
            continue
        calls = _calls(functions[current].node)
        missing = [call for call in calls if call in functions and call not in sizes]
        if current in open_calls and missing:
            raise InvalidModelError(f"the local function {current[1]!r} of domain {current[0]!r} calls itself")
        open_calls.add(current)
        if missing:
            stack.extend(missing)
        else:
            sizes[current] = sum(sizes.get(call, 1) * count for call, count in calls.items())
            open_calls.discard(current)


def _function_id(domain: str, name: str, overload: str) -> FunctionId:
    return plain_domain(domain), name, overload


def _calls(nodes: Iterable[onnx.NodeProto]) -> Counter[FunctionId]:
    """How often each operator is called in nodes and their subgraphs."""
    calls: Counter[FunctionId] = Counter()
    for node in nodes:
        calls[_function_id(node.domain, node.op_type, node.overload)] += 1
        for _, graph in subgraphs(node):
            calls.update(_calls(graph.node))
    return calls
