"""From the newest opset that torch.onnx makes to newer ones.

A newer version of an operator mostly takes more types and is otherwise the same. Whether it is so for an operator of
the graph is read from the two schemas; where it is not, the opset is refused. What schemas do not say (a changed
meaning) the proof finds: graph and ONNX Runtime are run at the opset that was asked for.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from ..errors import ExportError

NEWEST_OF_TORCH = 25
"""Above it torch.onnx keeps another opset in silence."""


def raise_opset(model: ir.Model, opset: int) -> None:
    """Let `model` import `opset` of ai.onnx in place of an older one.

    Raises:
        ExportError: onnx has no such opset, or an operator of the graph is another one there.
    """
    own = model.graph.opset_imports[""]
    if own == opset:
        return
    if opset > onnx.defs.onnx_opset_version():
        raise ExportError(f"opset {opset}: the installed onnx knows up to {onnx.defs.onnx_opset_version()}")
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for node in (node for graph in graphs for node in graph.all_nodes() if not node.domain):
        old, new = onnx.defs.get_schema(node.op_type, own), onnx.defs.get_schema(node.op_type, opset)
        if new.deprecated or not _takes_all(old, new):
            raise ExportError(f"{node.op_type} of opset {own} is another operator in opset {opset}")
        node.version = None
    for holder in (model.graph, *model.functions.values()):
        holder.opset_imports[""] = opset


def _takes_all(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> bool:
    """Whether a call that fits the old schema means the same by the new one, as far as schemas say."""
    if old.since_version == new.since_version:
        return True
    same_results = len(old.outputs) == len(new.outputs)
    names = [formal.name for formal in old.inputs] == [formal.name for formal in new.inputs[: len(old.inputs)]]
    return same_results and names and all(_same_attribute(old, new, name) for name in old.attributes)


def _same_attribute(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema, name: str) -> bool:
    """Whether an attribute is still there, of the same type and with the same default."""
    before, after = old.attributes[name], new.attributes.get(name)
    return after is not None and before.type == after.type and before.default_value == after.default_value
