"""From a model and what the user asks for to the rows to be measured; everything is refused before anything runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ..graphs.feeds import random_feeds, required_inputs
from ..graphs.loading import BUNDLE_MODEL, load_model, model_name
from ..graphs.model import Model, TensorSpec
from ..graphs.symbols import resolve
from ..graphs.test_data import read_test_data
from ..runtimes.session import RuntimeOptions
from .engine import Job
from .machine import usable_cores

MANIFEST = "manifest.json"
TEST_DATA = "test_data_set_0"
TORCH = "torch"
TORCH_ADAPTER = Path(__file__).parent.parent / "runtimes" / "torch_eager_adapter.py"

_BATCH_SYMBOLS = frozenset({"batch", "batch_size", "batchsize", "b", "n", "bs"})


@dataclass(frozen=True)
class Request:
    """What is asked of every model.

    Attributes:
        options: runtime, provider, optimisation level and threads of the subject.
        against: "torch", or a runtime with or without an interpreter ("onnxruntime:/path/to/python"); None is alone.
        batches: items per run, one row each; empty is one.
        dims: size by symbolic dim.
        seed: of random inputs.
        weights: checkpoint that a bundle was exported from, where "torch" cannot have the parameters otherwise.
    """

    options: RuntimeOptions
    against: str | None = None
    batches: tuple[int, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    weights: Path | None = None


def plan(path: Path, request: Request) -> list[Job]:
    """The rows of one model.

    Args:
        path: an .onnx file, or a bundle.
        request: what is asked.

    Raises:
        InvalidModelError: the file is not a usable model.
        InvalidInputError: a dim is missing or unknown, or an input cannot be random.
        InvalidArgumentError: a batch that the model does not take, or another side that cannot be had.
    """
    model = load_model(path)
    options = dataclasses.replace(request.options, threads=request.options.threads or usable_cores())
    base = Job(
        model=model_name(model.path),
        model_path=model.path,
        options=options,
        make_feeds=dict,
        against=None if request.against is None else other_side(request, options, model.path),
        model_sha256=model.sha256,
        seed=request.seed,
    )
    known = _test_data(model)
    return [_with_batch(base, model, request, known, batch) for batch in dict.fromkeys(request.batches or (None,))]


def other_side(request: Request, options: RuntimeOptions, model_file: Path) -> RuntimeOptions:
    """Options of the side to compare with: the subject's provider and threads in another runtime.

    Args:
        request: its `against` is "torch", or "RUNTIME" or "RUNTIME:INTERPRETER" of a registered runtime.
        options: of the subject.
        model_file: the .onnx file.

    Raises:
        InvalidArgumentError: "torch" for a model of which no PyTorch module is known.
    """
    runtime, _, python = (request.against or "").partition(":")
    if runtime != TORCH:
        extra = options.extra if runtime == options.runtime else {}
        return dataclasses.replace(options, runtime=runtime, python=python or options.python, extra=extra)
    if not any((folder / MANIFEST).is_file() for folder in (model_file.parent, model_file.parent.parent)):
        raise InvalidArgumentError(
            f"{model_file.name}: --against torch needs the PyTorch module, and no {MANIFEST} beside the model names "
            "one; give an architecture's name or a bundle written by `onnx-arch export`"
        )
    extra = {} if request.weights is None else {"weights": str(request.weights.resolve())}
    return RuntimeOptions(
        runtime=str(TORCH_ADAPTER),
        python=python or None,
        provider=options.provider,
        threads=options.threads,
        time_limit_s=options.time_limit_s,
        extra=extra,
    )


def batch_dims(model: Model) -> tuple[str, ...]:
    """The free dims that count items: first dims of inputs that are called like a batch, or all if they are one.

    Returns:
        As `graphs.feeds.random_feeds` takes them; empty where the first dims are fixed or mean several things.
    """
    first = [_first_dim(spec) for spec in required_inputs(model) if spec.shape]
    free = list(dict.fromkeys(dim for dim in first if isinstance(dim, str)))
    called = [dim for dim in free if dim.lower() in _BATCH_SYMBOLS]
    unnamed = [dim for dim in free if ":" in dim]
    if called or len(free) > len(unnamed):
        return tuple(called or free) if len(called or free) == 1 else ()
    return tuple(unnamed)


def fixed_batch(model: Model) -> int | None:
    """The number of items that the declared shapes fix: the first dim of every input, if it is the same."""
    first = {_first_dim(spec) for spec in required_inputs(model) if spec.shape}
    only = first.pop() if len(first) == 1 else None
    return only if isinstance(only, int) else None


def _first_dim(spec: TensorSpec) -> int | str:
    first = spec.shape[0] if spec.shape else 0
    return f"{spec.name}:0" if first is None else first


def _with_batch(base: Job, model: Model, request: Request, known: Mapping[str, Any], batch: int | None) -> Job:
    """The row for one batch: on the test data if that has the wanted sizes, else on random inputs."""
    own = _dims_of(model, known)
    dims, items = _sizes(model, request, own, batch)
    if known and dims == own:
        make_feeds = functools.partial(dict, known)
    else:
        make_feeds = functools.partial(random_feeds, model, dims=dims, seed=request.seed)
        make_feeds()
    return dataclasses.replace(base, make_feeds=make_feeds, batch=items, dims=dims)


def _sizes(
    model: Model, request: Request, own: Mapping[str, int], batch: int | None
) -> tuple[dict[str, int], int | None]:
    """Size of every free dim, and the number of items: those asked for, else the test data's with one item."""
    symbols, fixed = batch_dims(model), fixed_batch(model)
    if batch is not None and batch < 1:
        raise InvalidArgumentError(f"--batch {batch}: allowed are sizes from 1 on")
    if batch is not None and not symbols and batch != fixed:
        raise InvalidArgumentError(f"{model_name(model.path)}: --batch {batch}: {_why_no_batch(model, fixed)}")
    items = next((request.dims[symbol] for symbol in symbols if symbol in request.dims), batch or 1)
    sizes = {**own, **dict.fromkeys(symbols, items), **request.dims}
    return sizes, items if symbols else fixed


def _why_no_batch(model: Model, fixed: int | None) -> str:
    if fixed is not None:
        return f"the model has a fixed batch of {fixed}; export it with a dynamic batch"
    shown = ", ".join(f"{spec.name} {_shown(spec)}" for spec in required_inputs(model))
    return f"none of its dims is known to be the batch (inputs: {shown}); give sizes with --dim NAME=N"


def _shown(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "of any rank"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in spec.shape) + "]"


def _test_data(model: Model) -> Mapping[str, Any]:
    """Inputs of the first data set of a bundle, or none."""
    folder = model.path.parent / TEST_DATA
    if model.path.name != BUNDLE_MODEL or not folder.is_dir():
        return {}
    return read_test_data(model, folder)[0]


def _dims_of(model: Model, feeds: Mapping[str, Any]) -> dict[str, int]:
    """Size of every free dim in `feeds`; those that follow from others ("past + sequence") are left out."""
    sizes: dict[str, int] = {}
    for spec in required_inputs(model):
        shape = getattr(feeds.get(spec.name), "shape", ())
        for axis, (dim, size) in enumerate(zip(spec.shape or (), shape, strict=False)):
            if not isinstance(dim, int):
                sizes[dim or f"{spec.name}:{axis}"] = size
    names = {dim: size for dim, size in sizes.items() if dim.isidentifier()}
    return {dim: size for dim, size in sizes.items() if dim in names or resolve(dim, names) is None}
