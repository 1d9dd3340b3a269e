"""A user's own module: `path/to/file.py:factory` or `package.module:factory`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..architectures.specification import FLOAT, Axis, GraphSpec, Literal, Port
from ..errors import ExportError, InvalidArgumentError
from .arrays import to_numpy, torch_dtype
from .calling import path_parts, register_dataclasses
from .paging import shelve
from .requests import BATCH, NOTHING_DYNAMIC, DimRequest, InputRequest, parse_dim, parse_input
from .subject import Parameters, Subject, checkpoint_of, fill_parameters, on_cpu, seeded
from .targets import DTYPES, bundle_name

SMALL = 16
"""Up to this size an axis is swept over single-digit sizes; above, also over sizes near its own."""


@dataclass(frozen=True)
class Made:
    """What a factory gave: a module and example arguments; None where it gave only the module."""

    module: nn.Module
    args: tuple[Any, ...] | None
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """How a module is called: ports, examples by name, and its arguments as nests of names."""

    ports: tuple[Port, ...]
    examples: Mapping[str, np.ndarray]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def module_subject(
    spec: str,
    parameters: Parameters,
    *,
    dtype: str | None,
    dynamic: Sequence[str],
    inputs: Sequence[str],
) -> Subject:
    """The module of a factory, called with what the factory gave or `--input` declares.

    Args:
        spec: "path/to/file.py:factory" or "package.module:factory". The factory takes no argument and returns a
            module, (module, args) or (module, args, kwargs); a module itself may stand in its place.
        parameters: where they come from; torch's generator starts from its seed while the factory runs, and a
            checkpoint has the module's own keys.
        dtype: floating-point type to convert to; None leaves the module's own.
        dynamic: "INPUT.DIM=SYMBOL", "batch" for the first dim of every input, or "none".
        inputs: "NAME=SHAPE:DTYPE"; symbols in the shape are dynamic.

    Raises:
        InvalidArgumentError: the factory cannot be found, or an input or dim that the module does not have.
        ExportError: the factory raised, or gave no module.
    """
    with seeded(parameters.seed):
        factory, source = find_factory(spec)
        made = _made(spec, factory)
    requests = [parse_input(text) for text in inputs]
    call = _call(spec, made, requests)
    _check_values(spec, made.module)
    module = made.module.eval().cpu()
    module = module if dtype is None else _converted(module, torch_dtype(dtype))
    shelve(module, parameters.shelf)
    origin = fill_parameters(module, checkpoint_of(parameters, None), parameters, None)
    name = bundle_name(spec)
    graph = _graph(name, call, dynamic)
    return Subject(
        name, module, (graph,), source, dtype or _floating_dtype(module), parameters.shelf, call.examples, origin
    )


def _converted(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module in another floating-point type; complex buffers keep theirs: `to` would drop their imaginary parts."""
    return module._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def _check_values(spec: str, module: nn.Module) -> None:
    """Refuse parameters and buffers that have a shape only."""
    empty = next((name for name, tensor in module.state_dict().items() if _is_tensor(tensor) and tensor.is_meta), None)
    if empty is not None:
        raise ExportError(f"{spec}: {empty} lies on the meta device, without values; make the module on the CPU")


def _is_tensor(item: Any) -> TypeGuard[torch.Tensor]:
    """Quantised modules keep other things in their state too."""
    return isinstance(item, torch.Tensor)


def _floating_dtype(module: nn.Module) -> str:
    """The floating-point type of most of the module's parameters; float32 where it has none."""
    sizes: dict[str, int] = {}
    for tensor in filter(_is_tensor, module.state_dict().values()):
        if tensor.is_floating_point():
            name = str(tensor.dtype).removeprefix("torch.")
            sizes[name] = sizes.get(name, 0) + tensor.numel()
    return max(sizes, key=lambda name: sizes[name], default="float32")


def find_factory(spec: str) -> tuple[Any, dict[str, str]]:
    """What `spec` names, and what the manifest says of it.

    Raises:
        InvalidArgumentError: no such file, module or attribute.
        ExportError: the file or module raised while it was imported.
    """
    place, _, attribute = spec.rpartition(":")
    if not place or not attribute:
        raise InvalidArgumentError(f"{spec!r}; allowed are path/to/file.py:factory and package.module:factory")
    is_file = place.endswith(".py")
    module = _load_file(Path(place), spec) if is_file else _import(place, spec)
    if not hasattr(module, attribute):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise InvalidArgumentError(f"{place} has no {attribute!r}; it has {', '.join(public) or 'nothing callable'}")
    source = {"factory": f"{Path(place).name if is_file else place}:{attribute}"}
    if is_file:
        source["sha256"] = hashlib.sha256(Path(place).read_bytes()).hexdigest()
    return getattr(module, attribute), source


def _load_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise InvalidArgumentError(f"{path}: no such file (asked for by {spec!r})")
    name = f"_exported_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise InvalidArgumentError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    with _importing_from(path.resolve().parent), _users_code(f"importing {path}"):
        found.loader.exec_module(module)
    return module


def _import(name: str, spec: str) -> ModuleType:
    with _importing_from(Path.cwd()):
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise InvalidArgumentError(f"no module {name!r} can be imported from here (asked for by {spec!r})")
        with _users_code(f"importing {name}"):
            return importlib.import_module(name)


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Inside, `import` also looks in `folder`, as it does for a script that lies there."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _users_code(doing: str) -> Iterator[None]:
    """Whatever a user's code raises becomes one line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ExportError(f"{doing} raised {type(error).__name__}: {error}") from error


def _made(spec: str, factory: Any) -> Made:
    if isinstance(factory, nn.Module):
        return Made(factory, None, {})
    if not callable(factory):
        raise InvalidArgumentError(f"{spec} is a {type(factory).__name__}; allowed are a function and a module")
    with _users_code(f"{spec}()"):
        result = factory()
    match result:
        case torch.jit.ScriptModule() | (torch.jit.ScriptModule(), *_):
            raise ExportError(f"{spec}() gives TorchScript, which torch.export refuses; give the module behind it")
        case nn.Module():
            return Made(result, None, {})
        case (nn.Module() as module, args):
            return Made(module, _positional(args), {})
        case (nn.Module() as module, args, Mapping() as kwargs):
            return Made(module, _positional(args), dict(kwargs))
    allowed = "a torch.nn.Module, (module, args) or (module, args, kwargs)"
    raise ExportError(f"{spec}() returned {type(result).__name__}; allowed is {allowed}")


def _positional(args: Any) -> tuple[Any, ...]:
    return tuple(args) if isinstance(args, (tuple, list)) else (args,)


def _call(spec: str, made: Made, requests: Sequence[InputRequest]) -> Call:
    signature = inspect.signature(made.module.forward)
    if made.args is None:
        return _declared_call(spec, signature, requests)
    try:
        bound = signature.bind(*made.args, **made.kwargs)
    except TypeError as error:
        raise ExportError(f"{spec}: the example arguments do not fit forward{signature}: {error}") from error
    examples: dict[str, np.ndarray] = {}
    ports: list[Port] = []
    register_dataclasses(bound.arguments)
    for name, value in list(bound.arguments.items()):
        bound.arguments[name] = pytree.tree_map_with_path(
            lambda path, leaf, name=name: _named_leaf((name, *path_parts(path)), leaf, ports, examples), value
        )
    return _overridden(Call(tuple(ports), examples, bound.args, bound.kwargs), requests)


def _named_leaf(path: Sequence[str], leaf: Any, ports: list[Port], examples: dict[str, np.ndarray]) -> Any:
    """The name of a tensor, noted as a port with its example; a constant as it is."""
    if not isinstance(leaf, torch.Tensor):
        return Literal(leaf) if isinstance(leaf, str) else leaf
    name = ".".join(path)
    if leaf.is_complex():
        raise ExportError(
            f"input {name} is {str(leaf.dtype).removeprefix('torch.')}, which no graph of torch.onnx takes; "
            "let forward take the real and imaginary parts (torch.view_as_complex)"
        )
    array = to_numpy(on_cpu(leaf))
    ports.append(Port(name, array.shape, FLOAT if array.dtype.name in DTYPES else array.dtype.name))
    examples[name] = array
    return name


def _declared_call(spec: str, signature: inspect.Signature, requests: Sequence[InputRequest]) -> Call:
    """A call by keyword with the inputs of `--input`."""
    required = [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    given = [request.name for request in requests]
    unknown = [name for name in given if name not in signature.parameters]
    missing = [name for name in required if name not in given]
    if unknown or missing or not given:
        wanted = ", ".join(missing or required) or "forward's inputs"
        problem = f"forward has no {unknown[0]!r}" if unknown else f"nothing gives an example of {wanted}"
        takes = ", ".join(signature.parameters)
        ways = [f"give --input NAME=SHAPE:DTYPE for each of {takes}"] if takes else []
        way_on = " or ".join([*ways, "let the factory return (module, args)"])
        raise InvalidArgumentError(f"{spec}: {problem}; {way_on}")
    ports = {request.name: request.port() for request in requests}
    ordered = [name for name in signature.parameters if name in ports]
    return Call(tuple(ports[name] for name in ordered), {}, (), {name: name for name in ordered})


def _overridden(call: Call, requests: Sequence[InputRequest]) -> Call:
    """A call whose example arguments give way to `--input` where both are there."""
    ports = {port.name: port for port in call.ports}
    examples = dict(call.examples)
    for request in requests:
        if request.name not in ports:
            raise InvalidArgumentError(f"--input {request.name}: the module's inputs are {', '.join(ports)}")
        ports[request.name] = request.port()
        if not _keeps_example(request, examples[request.name]):
            del examples[request.name]
    return replace(call, ports=tuple(ports.values()), examples=examples)


def _keeps_example(request: InputRequest, example: np.ndarray) -> bool:
    """Whether values are still drawn from the example's: same kind, and nothing said of their range."""
    same_rank = len(example.shape) == len(request.shape)
    return same_rank and request.high is None and request.dtype in (*DTYPES, example.dtype.name)


def _graph(name: str, call: Call, dynamic: Sequence[str]) -> GraphSpec:
    """The graph with a symbol for every dim that `--dynamic` or `--input` leaves open."""
    shapes = {port.name: list(port.shape) for port in call.ports}
    sizes: dict[str, int] = {}
    for request in _dims(call, dynamic):
        if request.input not in shapes or request.dim >= len(shapes[request.input]):
            known = ", ".join(f"{port.name} (rank {len(port.shape)})" for port in call.ports)
            raise InvalidArgumentError(f"--dynamic {request.input}.{request.dim}: inputs are {known}")
        shapes[request.input][request.dim] = request.symbol
    for port in call.ports:
        for dim, symbol in enumerate(shapes[port.name]):
            if isinstance(symbol, str):
                _note_size(sizes, symbol, port.name, dim, call.examples.get(port.name))
    axes = [Axis(symbol, size, sweep_sizes(size), NOTHING_DYNAMIC not in dynamic) for symbol, size in sizes.items()]
    ports = tuple(replace(port, shape=tuple(shapes[port.name])) for port in call.ports)
    return GraphSpec(name, ports, (), tuple(axes), call.args, call.kwargs)


def _dims(call: Call, dynamic: Sequence[str]) -> Iterator[DimRequest]:
    for word in dynamic:
        if word == BATCH:
            yield from (DimRequest(port.name, 0, BATCH) for port in call.ports if port.shape)
        elif word != NOTHING_DYNAMIC:
            yield parse_dim(word)


def _note_size(sizes: dict[str, int], symbol: str, name: str, dim: int, example: np.ndarray | None) -> None:
    """The size of an axis: that of the examples; without them small numbers, different for every symbol."""
    own = sizes.get(symbol)
    size = example.shape[dim] if example is not None else own if own is not None else 2 + len(sizes)
    if own is not None and own != size and example is not None:
        raise InvalidArgumentError(f"{symbol} ties dims of sizes {own} and {size} ({name}.{dim}): they must be equal")
    sizes[symbol] = size


def sweep_sizes(size: int) -> tuple[int, ...]:
    """Sizes at which an axis of that size is proved: one, two, odd, and a large one that its divisors still divide."""
    if size <= SMALL:
        return (1, 2, 3, max(2 * size, 4))
    return (1, 2, size + 1 + size % 2, size + size // 2 if size % 2 == 0 else 2 * size)
