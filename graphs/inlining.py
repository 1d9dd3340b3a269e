"""Replace calls of a model's local functions by their bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import onnx
from onnx import defs

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

    aligned = _aligned(model)
    try:
        return onnx.inliner.inline_local_functions(aligned, True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidModelError(f"its local functions cannot be inlined: {error}") from error


def _aligned(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose functions import the model's opset wherever that leaves every operator in them as it is.

    The inliner converts a function of another opset only where all types are declared.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    opsets = {plain_domain(entry.domain): entry.version for entry in model.opset_import}
    for function in copy.functions:
        for entry in function.opset_import:
            domain = plain_domain(entry.domain)
            wanted = opsets.get(domain, entry.version)
            used = {call[1] for call in _calls(function.node) if call[0] == domain}
            if all(_since(name, entry.version, domain) == _since(name, wanted, domain) for name in used):
                entry.version = wanted
    return copy


@cache
def _since(op_type: str, opset: int, domain: str) -> int:
    """The version of an operator at an opset; 0 where onnx has no schema (foreign domains, other functions)."""
    try:
        return defs.get_schema(op_type, opset, domain).since_version
    except (defs.SchemaError, TypeError):  # TypeError: a version that no 32-bit integer holds
        return 0


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
