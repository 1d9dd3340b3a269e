"""A module's program as torch.export traces it, ready to be translated; what torch raises on the way in one line."""

from __future__ import annotations

import functools
import inspect
import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from ..architectures.specification import GraphSpec
from ..errors import ExportError
from .arrays import to_torch
from .calling import substitute
from .translations.narrow_reductions import round_reductions
from .translations.response_norm import join_response_norms
from .translations.unpooling import state_windows

_GATHERING = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def trace_module(module: nn.Module, spec: GraphSpec, feeds: Mapping[str, np.ndarray]) -> torch.export.ExportedProgram:
    """The program of `module`, called as `spec` says.

    Raises:
        ExportError: the module cannot be traced.
    """
    tensors = {name: to_torch(array) for name, array in feeds.items()}
    args, kwargs = substitute(spec, tensors)
    dynamic = {axis.name for axis in spec.axes if axis.dynamic}
    shapes = torch.export.ShapesCollection()
    for port in spec.inputs:
        open_dims = [d for d, dim in enumerate(port.shape) if isinstance(dim, str) and dynamic & set(dim.split("+"))]
        if open_dims:
            shapes[tensors[port.name]] = dict.fromkeys(open_dims, torch.export.Dim.AUTO)
    tracing = f"{spec.name}: torch.export cannot trace the module"
    with translating(tracing), torch.no_grad(), _spelled_out(module, args, kwargs):
        nest = shapes.dynamic_shapes(module, args, kwargs) if dynamic else None
        return torch.export.export(module, args, kwargs, dynamic_shapes=nest, strict=False)


@contextmanager
def _spelled_out(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Inside, a module of `forward(*xs, **more)` says that it takes these arguments, one by one.

    torch 2.13 cannot match dynamic shapes with arguments that have no parameter of their own.
    """
    forward: Any = module.forward
    if not {parameter.kind for parameter in inspect.signature(forward).parameters.values()} & _GATHERING:
        yield
        return
    named = [inspect.Parameter(f"argument_{index}", inspect.Parameter.POSITIONAL_ONLY) for index in range(len(args))]
    named += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in kwargs]

    @functools.wraps(forward)
    def spelled_out(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    spelled_out.__dict__["__signature__"] = inspect.Signature(named)
    with patch.object(module, "forward", spelled_out):
        yield


def prepared(traced: torch.export.ExportedProgram, opset: int, unpool: str) -> torch.export.ExportedProgram:
    """The traced program as it is translated: its results tensors only, and what several of its operations stand for.

    Operators of ONNX itself (`torch.onnx.ops`) are decomposed where `opset` has them not yet.
    """
    targets = {node.target for node in traced.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    newer = {target for target in targets if _since(target) > opset}
    if newer:
        bodies = torch.onnx.ops.aten_decompositions().items()
        table: dict[Any, Any] = {target: body for target, body in bodies if target in newer}
        traced = traced.run_decompositions(table)
    _keep_tensors(traced)
    state_windows(traced, unpool)
    join_response_norms(traced)
    round_reductions(traced)
    return traced


def _keep_tensors(traced: torch.export.ExportedProgram) -> None:
    """Take from the results what is no tensor: constants, and sizes as numbers."""
    output, specs = traced.graph.output_node(), traced.graph_signature.output_specs
    kept = [spec.kind is not OutputKind.USER_OUTPUT or isinstance(spec.arg, TensorArgument) for spec in specs]
    called = traced.module_call_graph[0].signature
    if all(kept) or called is None:
        return
    results: Any = output.args[0]
    output.args = (tuple(itertools.compress(results, kept)),)
    traced.graph_signature.output_specs = list(itertools.compress(specs, kept))
    called.outputs = [spec.arg for spec in traced.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    called.out_spec = pytree.tree_structure((0,) * len(called.outputs))


def _since(target: torch._ops.OpOverload) -> int:
    """The opset of an operator of ONNX itself, `onnx::RotaryEmbedding.opset23`; 0 of any other."""
    name, _, opset = target.name().partition(".opset")
    return int(opset) if name.startswith("onnx::") and opset.isdecimal() else 0


@contextmanager
def translating(doing: str) -> Iterator[None]:
    """PyTorch's failures, of whatever type, in one line; its doubts are not shown: the proof settles them."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # torch prints the graph that it could not finish
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
            yield
    except Exception as error:
        raise ExportError(f"{doing}: {_reason(error)}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


DATA_DEPENDENT = " (a Python `if` or loop that depends on values; torch.cond and while_loop can be exported)"


def _reason(error: BaseException) -> str:
    """The innermost cause, its first line that says something."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    advice = DATA_DEPENDENT if type(error).__name__ == "GuardOnDataDependentSymNode" else ""
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}{advice}"
