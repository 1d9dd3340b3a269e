"""Initializers that are the module's parameters: whether they are so to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..graphs.model import Model
from ..operators.mapped import give_back_array
from ..operators.storage import is_float
from .arrays import numpy_view
from .paging import Shelf
from .provenance import IDENTITY, TRANSPOSED, Origin
from .subject import module_state

Array = np.ndarray[Any, np.dtype[Any]]

COMPARED_ELEMENTS = 1 << 20
"""Elements that are compared at a time."""


def altered_initializer(model: Model, module: nn.Module, origins: Mapping[str, Origin], shelf: Shelf) -> str:
    """What is wrong with the first initializer that is a parameter by name and not by value; "" where none is.

    A constant that is a little off moves the outputs by less than rounding may, so they would not tell.

    Args:
        model: the graph as it was written.
        module: whose parameters it holds.
        origins: where its initializers come from.
        shelf: where large parameters lie.
    """
    state = module_state(module)
    for name, origin in origins.items():
        if origin.transform not in (IDENTITY, TRANSPOSED) or name not in model.graph.initializers:
            continue
        parameter = origin.parameters[0]
        if parameter not in state or state[parameter].is_complex():
            continue
        held, own = model.graph.initializers[name], numpy_view(state[parameter])
        if state[parameter].dtype == torch.float64 and is_float(held.dtype):
            own = own.astype(held.dtype)  # small ones are widened for the proof, which changes no value
        told = _difference(held, own.T if origin.transform == TRANSPOSED else own, shelf)
        give_back_array(held)
        shelf.release([state[parameter]])
        if told:
            reader = next((node.name for node in model.graph.nodes if name in node.inputs), "none")
            return f"initializer {name} (read by node {reader}) is not the module's {parameter}: {told}"
    return ""


def _difference(held: Array, own: Array, shelf: Shelf) -> str:
    """Where two arrays differ in any bit, and by how much; "" where nowhere. Pages are given back block by block."""
    if held.dtype != own.dtype or held.shape != own.shape:
        return f"{held.dtype} {held.shape}, the module's is {own.dtype} {own.shape}"
    bits = np.dtype(f"u{held.dtype.itemsize}")
    held, own = np.atleast_1d(held), np.atleast_1d(own)
    rows = max(1, COMPARED_ELEMENTS // max(1, held[:1].size))
    for start in range(0, len(held), rows):
        ours, theirs = (np.ascontiguousarray(array[start : start + rows]).view(bits) for array in (held, own))
        if not np.array_equal(ours, theirs):
            row, *inside = (int(index) for index in np.argwhere(ours != theirs)[0])
            index = (start + row, *inside)
            return f"it holds {held[index]} at {list(index)}, the module {own[index]}"
        give_back_array(held[start : start + rows])
        if own.flags.c_contiguous:
            shelf.release_array(own[start : start + rows])
    return ""
