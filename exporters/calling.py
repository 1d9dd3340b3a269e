"""Between named flat tensors, as a graph has them, and the nested arguments and results of a module."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ..architectures.specification import GraphSpec, Literal, Port
from ..errors import ExportError
from .arrays import to_numpy, to_torch

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def arguments(spec: GraphSpec, feeds: Mapping[str, np.ndarray]) -> Arguments:
    """Positional and keyword arguments of the module: tensors in place of input names, constants as they are."""
    tensors = {name: to_torch(array) for name, array in feeds.items()}
    return substitute(spec, tensors)


def substitute(spec: GraphSpec, values: Mapping[str, Any]) -> Arguments:
    """The arguments with `values` in place of input names."""

    def leaf(item: Any) -> Any:
        if isinstance(item, Literal):
            return item.value
        return values[item] if isinstance(item, str) else item

    return pytree.tree_map(leaf, spec.argument_names()), pytree.tree_map(leaf, dict(spec.keywords))


def register_dataclasses(nest: Any) -> None:
    """Let torch look into the dataclasses of a module's arguments or results; it takes others for constants."""
    for leaf in pytree.tree_leaves(nest):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            torch.export.register_dataclass(type(leaf))
            register_dataclasses(leaf)


def result_arrays(spec: GraphSpec, result: Any) -> dict[str, np.ndarray]:
    """A module's result by output name.

    Raises:
        ExportError: another number of tensors than the graph has outputs.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    if len(tensors) != len(spec.outputs):
        names = ", ".join(port.name for port in spec.outputs)
        raise ExportError(f"{spec.name}: the module returns {len(tensors)} tensors; its outputs are {names}")
    return {port.name: to_numpy(tensor) for port, tensor in zip(spec.outputs, tensors, strict=True)}


def with_outputs(spec: GraphSpec, result: Any) -> GraphSpec:
    """The graph with its outputs named after the structure of a result, where it states none.

    One tensor is "output", the items of a sequence "output_0", …, those of a mapping go by their keys.

    Raises:
        ExportError: the module returns no tensor.
    """
    if spec.outputs:
        return spec
    register_dataclasses(result)
    leaves, _ = pytree.tree_flatten_with_path(result)
    names = [_output_name(path) for path, leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not names:
        raise ExportError(f"{spec.name}: the module returns no tensor, but {type(result).__name__}")
    return replace(spec, outputs=tuple(_distinct(names, [port.name for port in spec.inputs])))


def _output_name(path: Sequence[Any]) -> str:
    parts = path_parts(path)
    if not parts:
        return "output"
    first = f"output_{parts[0]}" if isinstance(path[0], pytree.SequenceKey) else parts[0]
    return ".".join((first, *parts[1:]))


def path_parts(path: Sequence[Any]) -> list[str]:
    """The words of a path into a nest: indices, keys, field names."""
    return [str(getattr(key, "idx", getattr(key, "key", getattr(key, "name", key)))) for key in path]


def _distinct(names: Sequence[str], taken: Sequence[str]) -> Iterator[Port]:
    seen = set(taken)
    for name in names:
        own = name
        while own in seen:
            own += "_out"
        seen.add(own)
        yield Port(own, ())
