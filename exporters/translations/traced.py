"""A traced program, and the programs inside it."""

from __future__ import annotations

import torch
from torch.fx import GraphModule


def graph_modules(program: torch.export.ExportedProgram) -> list[GraphModule]:
    """Its graph and those of its branches and loops; a pass that changes one leaves the list as it is."""
    return [module for module in program.graph_module.modules() if isinstance(module, GraphModule)]
