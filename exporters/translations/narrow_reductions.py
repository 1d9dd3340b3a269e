"""Reductions of float16 and bfloat16 in a traced program: computed in float32, and given back in their own type.

torch.onnx converts what they take to float32 and leaves the result in it; PyTorch rounds it to the input's type.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from .traced import graph_modules

aten = torch.ops.aten

PROMOTED = (
    aten.amax.default,
    aten.amin.default,
    aten.cumsum.default,
    aten.prod.default,
    aten.prod.dim_int,
    aten.sum.default,
    aten.sum.dim_IntList,
)
NARROW = (torch.float16, torch.bfloat16)


def round_reductions(program: torch.export.ExportedProgram) -> None:
    """Convert what reductions of a narrow type give to that type, in place."""
    for module in graph_modules(program):
        found = [node for node in module.graph.nodes if node.target in PROMOTED and _is_narrow(node)]
        for node in found:
            with module.graph.inserting_after(node):
                rounded = module.graph.call_function(aten._to_copy.default, (node,), {"dtype": node.meta["val"].dtype})
            rounded.meta = node.meta.copy()
            node.replace_all_uses_with(rounded, delete_user_cb=lambda user, new=rounded: user is not new)
        if found:
            module.recompile()


def _is_narrow(node: Node) -> bool:
    """Whether a reduction keeps its input's narrow type; one that is told a type is translated rightly."""
    return node.kwargs.get("dtype") is None and node.meta["val"].dtype in NARROW
