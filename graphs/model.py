"""An ONNX file as validated, frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx


@dataclass(frozen=True)
class TensorSpec:
    """A declared input or output.

    Attributes:
        name: its name.
        dtype: element type; None if it is not a tensor (sequence, optional) or not declared.
        shape: per dim a size, a symbol, or None where nothing is declared; None if the rank is unknown.
        kind: "tensor", "sequence", "map", "optional" or "unknown".
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...] | None
    kind: str = "tensor"


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order with what they read; a model's graph or a subgraph of If, Loop, Scan."""

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    initializers: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        name: unique in the model and stable; "Conv_0" by op_type and order where the file has none or a duplicate.
        op_type: operator.
        domain: "" for ai.onnx.
        inputs: tensor names, "" where an optional input is absent.
        outputs: tensor names, "" where an optional output is absent.
        attributes: by ONNX name: int, float, str, list of these, np.ndarray (tensors), Graph (subgraphs).
        opset: the model's version of `domain`.
        index: position in topological order.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    index: int


@dataclass(frozen=True)
class Model:
    """A validated model: local functions inlined, nodes named and sorted, weights memory-mapped where external.

    Attributes:
        path: the .onnx file.
        proto: the model as loaded, after inlining, naming and sorting. Weights are not in it: external data are still
            external, and large embedded weights (4 KiB and more) are external data whose location is the file itself.
            `surgery.save_proto` writes such a proto anywhere.
        graph: its graph.
        opsets: version by domain ("" for ai.onnx).
        sha256: over the file and its external data files, in order of their names.
        size_bytes: of the file and its external data.
        external_files: external data files, absolute paths.
    """

    path: Path
    proto: onnx.ModelProto
    graph: Graph
    opsets: Mapping[str, int]
    sha256: str
    size_bytes: int
    external_files: tuple[Path, ...] = ()
