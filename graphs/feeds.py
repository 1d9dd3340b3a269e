"""Inputs of a model: seeded random ones, those of a file, and the check that they fit."""

from __future__ import annotations

import difflib
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .consumers import Shapes, decides_shapes, index_limit
from .memory import available_memory, ensure_shapes_fit, tensor_shapes
from .model import Model, TensorSpec
from .symbols import names, resolve

SMALL_INTEGERS = 10
BYTE_INTEGERS = 128
WORDS = ("the", "network", "reads", "a", "short", "line", "of", "plain", "words")

_NPY_MAGIC = b"\x93NUMPY"


def required_inputs(model: Model) -> tuple[TensorSpec, ...]:
    """The inputs that have to be fed: those without an initializer as their default."""
    return tuple(spec for spec in model.graph.inputs if spec.name not in model.graph.initializers)


def random_feeds(model: Model, *, dims: Mapping[str, int] | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded random inputs of the declared shapes.

    Floating-point values are standard normal, rounded to the input's type; integers are non-negative and small, below
    the rows of the table that they index where the graph says so; inputs with "mask" in their name are ones with
    zeros behind, at least one 1 in a row; booleans are tossed; strings are words.

    Args:
        model: a loaded model.
        dims: size by symbolic dim ("batch") or, where a dim has no name, by input and position ("x:2").
        seed: the same seed gives the same values for every input, whatever else the model has.

    Raises:
        InvalidInputError: a dim that is needed and not given, or given and not known; an input whose type, rank or
            role allows no random values.
        InvalidModelError: the inputs would not fit in memory.
    """
    specs = required_inputs(model)
    given = {} if dims is None else dims
    _check_dims(specs, given)
    shapes = {spec.name: _concrete_shape(spec, given) for spec in specs}
    for spec in specs:
        _check_random(model, spec)
    ensure_shapes_fit(model, shapes)
    known = {**tensor_shapes(model, shapes), **shapes} if any(map(_is_integer, specs)) else {}
    return {
        spec.name: _random(model, spec, shapes[spec.name], np.random.default_rng([seed, index]), known)
        for index, spec in enumerate(specs)
    }


def _check_dims(specs: Iterable[TensorSpec], dims: Mapping[str, int]) -> None:
    known = sorted({name for spec in specs for name in _dim_names(spec)})
    for name, size in dims.items():
        if size < 0:
            raise InvalidInputError(f"dim {name!r} is given as {size}; allowed are sizes from 0 on")
        if name not in known and not any(name in names(symbol) for symbol in known):
            raise InvalidInputError(f"dim {name!r} is given; the model's free dims are {', '.join(known) or 'none'}")


def _dim_names(spec: TensorSpec) -> list[str]:
    """How each free dim is asked for: by its symbol, or as input:position."""
    shape = () if spec.shape is None else spec.shape
    return [dim or f"{spec.name}:{axis}" for axis, dim in enumerate(shape) if not isinstance(dim, int)]


def _concrete_shape(spec: TensorSpec, dims: Mapping[str, int]) -> tuple[int, ...]:
    if spec.kind in ("sequence", "map", "optional"):
        raise InvalidInputError(f"input {spec.name!r} is of type {spec.kind}: give it with --test-data")
    if spec.shape is None or spec.dtype is None:
        missing = "element type" if spec.dtype is None else "rank"
        raise InvalidInputError(f"input {spec.name!r} declares no {missing}: give it with --inputs FILE.npz")
    return tuple(_size(spec, axis, dim, dims) for axis, dim in enumerate(spec.shape))


def _size(spec: TensorSpec, axis: int, dim: int | str | None, dims: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    wanted = f"{spec.name}:{axis}" if dim is None else dim
    size = resolve(wanted, dims) if dim is not None else dims.get(wanted)
    if size is None:
        what = f"the symbolic dim {dim!r}" if dim is not None else f"a dim without a size or name at position {axis}"
        raise InvalidInputError(f"input {spec.name!r} has {what}: give it with --dim {_quoted(wanted)}=N")
    if size < 0:
        raise InvalidInputError(f"input {spec.name!r}: dim {wanted!r} comes to {size}; allowed are sizes from 0 on")
    return size


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


def _check_random(model: Model, spec: TensorSpec) -> None:
    reader = decides_shapes(model.graph, spec.name)
    if reader is not None:
        raise InvalidInputError(
            f"input {spec.name!r} decides shapes (node {reader.name!r}, {reader.op_type}), so random values mean "
            "nothing: give it with --inputs FILE.npz"
        )


def _is_integer(spec: TensorSpec) -> bool:
    return spec.dtype is not None and (spec.dtype.kind in "iu" or "int" in spec.dtype.name)


def _random(
    model: Model, spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator, known: Shapes
) -> np.ndarray:
    dtype = np.dtype(np.float32) if spec.dtype is None else spec.dtype
    if dtype.kind == "O":
        return rng.choice(np.array(WORDS, object), shape) if shape else np.array(rng.choice(WORDS), object)
    if "mask" in spec.name.lower() and dtype.kind != "c":
        return _random_mask(shape, rng).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if _is_integer(spec):
        return rng.integers(0, _integer_limit(model, spec.name, dtype, known), shape).astype(dtype)
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return np.asarray(rng.standard_normal(shape, np.float64 if dtype == np.float64 else np.float32)).astype(dtype)


def _random_mask(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Ones with zeros behind along the last axis, as a padded batch has; at least one 1 in a row."""
    if not shape or not shape[-1]:
        return np.ones(shape, np.int64)
    lengths = rng.integers(1, shape[-1] + 1, shape[:-1])
    return (np.arange(shape[-1]) < lengths[..., None]).astype(np.int64)


def _integer_limit(model: Model, name: str, dtype: np.dtype[Any], known: Shapes) -> int:
    """One above the largest random value."""
    largest = {"int2": 2, "uint2": 4, "int4": 8, "uint4": 16}.get(
        dtype.name, BYTE_INTEGERS if dtype.itemsize == 1 else 2**31
    )
    rows = index_limit(model.graph, name, known)
    usual = BYTE_INTEGERS if dtype.itemsize == 1 else SMALL_INTEGERS
    return max(1, min(largest, usual if rows is None else rows))


def load_npz(model: Model, path: Path) -> dict[str, np.ndarray]:
    """The inputs in an .npz file, or in an .npy file for a model with one input; validated.

    Args:
        model: a loaded model.
        path: arrays by input name. bfloat16 and float8, which NumPy stores as raw bytes, are recognised by the
            model's declaration; strings are stored as unicode arrays.

    Raises:
        InvalidInputError: unreadable, corrupted, pickled, too large, or not what the model takes.
    """
    try:
        arrays = _read_arrays(model, Path(path))
    except _CORRUPTED as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InvalidInputError(f"{path}: no readable .npz or .npy file: {reason}") from error
    declared = {spec.name: spec for spec in model.graph.inputs}
    feeds = {name: _as_declared(array, declared.get(name)) for name, array in arrays.items()}
    try:
        validate_feeds(model, feeds)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    return feeds


_CORRUPTED = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
)
"""What numpy.load raises on files that are missing, damaged, encrypted, pickled, or hostile."""


def _read_arrays(model: Model, path: Path) -> dict[str, np.ndarray]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > available_memory():
            raise InvalidInputError(f"{path}: {unpacked} bytes unpacked; {available_memory()} are available")
    elif not _is_npy(path):
        raise InvalidInputError(f"{path}: neither an .npz nor an .npy file")
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        names = [spec.name for spec in required_inputs(model)]
        if len(names) != 1:
            raise InvalidInputError(
                f"{path}: one array, the model takes {len(names)} inputs; give them in an .npz file"
            )
        return {names[0]: loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def _is_npy(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(_NPY_MAGIC)) == _NPY_MAGIC


def _as_declared(array: np.ndarray, spec: TensorSpec | None) -> np.ndarray:
    """Undo what the file format does to types that NumPy lacks, and nothing else."""
    if spec is None or spec.dtype is None:
        return array
    if array.dtype.kind == "V" and array.dtype.itemsize == spec.dtype.itemsize and spec.dtype.kind == "V":
        return array.view(spec.dtype)
    if array.dtype.kind == "U" and spec.dtype.kind == "O":
        return array.astype(object)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def validate_feeds(model: Model, feeds: Mapping[str, Any]) -> None:
    """Check that feeds are what a model declares: names, types, ranks, sizes; nothing is cast.

    Args:
        model: a loaded model.
        feeds: arrays by input name; lists for sequences, dicts for maps, None for an absent optional.

    Raises:
        InvalidInputError: the first thing that does not fit, with what is allowed.
    """
    declared = {spec.name: spec for spec in model.graph.inputs}
    for name in feeds:
        if name not in declared:
            raise InvalidInputError(_unknown_input(name, [spec.name for spec in required_inputs(model)]))
    missing = [spec.name for spec in required_inputs(model) if spec.name not in feeds and spec.kind != "optional"]
    if missing:
        raise InvalidInputError(f"input {', '.join(map(repr, missing))} is missing; given are {_listed(feeds)}")
    sizes: dict[str, tuple[int, str]] = {}
    for spec in model.graph.inputs:
        if spec.name in feeds:
            _validate_feed(spec, feeds[spec.name], sizes)
    _validate_expressions(model, feeds, sizes)


def _unknown_input(name: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(name, allowed, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"the model has no input {name!r}; its inputs are {_listed(allowed)}{hint}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _validate_feed(spec: TensorSpec, value: Any, sizes: dict[str, tuple[int, str]]) -> None:
    if spec.kind == "optional" or (spec.kind == "unknown" and not isinstance(value, np.ndarray)):
        return
    wanted = {"sequence": list, "map": dict}.get(spec.kind, np.ndarray)
    if not isinstance(value, wanted):
        raise InvalidInputError(f"input {spec.name!r} is of type {type(value).__name__}; the model takes a {spec.kind}")
    if isinstance(value, np.ndarray):
        _validate_array(spec, value, sizes)


def _validate_array(spec: TensorSpec, value: np.ndarray, sizes: dict[str, tuple[int, str]]) -> None:
    if spec.dtype is not None and value.dtype != spec.dtype:
        given, wanted = _dtype_name(value.dtype), _dtype_name(spec.dtype)
        raise InvalidInputError(f"input {spec.name!r} has dtype {given}; the model takes {wanted}, nothing is cast")
    if value.dtype.kind == "O" and not all(isinstance(item, str) for item in value.flat):
        raise InvalidInputError(f"input {spec.name!r} holds objects that are not strings; allowed are str")
    if spec.shape is None:
        return
    shown = "[" + ", ".join("?" if dim is None else str(dim) for dim in spec.shape) + "]"
    given = list(value.shape)
    if value.ndim != len(spec.shape):
        raise InvalidInputError(
            f"input {spec.name!r} has rank {value.ndim} (shape {given}); the model takes rank {len(spec.shape)} {shown}"
        )
    for axis, (size, dim) in enumerate(zip(value.shape, spec.shape, strict=True)):
        if isinstance(dim, int) and size != dim:
            raise InvalidInputError(
                f"input {spec.name!r} has shape {given}; the model takes {shown}: dim {axis} is {dim}"
            )
        if isinstance(dim, str):
            known, where = sizes.setdefault(dim, (size, f"{spec.name}:{axis}"))
            if known != size:
                raise InvalidInputError(
                    f"dim {dim!r} is {known} in {where} and {size} in {spec.name}:{axis}; it must be the same in both"
                )


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind == "O" else dtype.name


def _validate_expressions(model: Model, feeds: Mapping[str, Any], sizes: Mapping[str, tuple[int, str]]) -> None:
    """Symbols such as "past + sequence" must agree with the sizes of their parts."""
    plain = {symbol: size for symbol, (size, _) in sizes.items() if symbol.isidentifier()}
    for symbol, (size, where) in sizes.items():
        expected = resolve(symbol, plain)
        if expected is not None and expected != size:
            raise InvalidInputError(f"{where} is {size}; the model takes {symbol} = {expected} there")
