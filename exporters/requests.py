"""The words of `--input` and `--dynamic` as data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..architectures.specification import FLOAT, GraphSpec, Port
from ..errors import InvalidArgumentError
from .targets import DTYPES, numpy_dtype

NOTHING_DYNAMIC = "none"
"""`--dynamic none` freezes every axis."""

BATCH = "batch"
"""For a user's module, `--dynamic batch` is the first dim of every input."""

_SYMBOL = r"[A-Za-z_]\w*"
_INPUT = re.compile(r"(?P<name>[^=:]+)=(?P<shape>[^:=]*)(:(?P<dtype>\w+)(:(?P<high>\d+))?)?")
_DIM = re.compile(rf"(?P<input>.+)\.(?P<dim>\d+)=(?P<symbol>{_SYMBOL})")


@dataclass(frozen=True)
class InputRequest:
    """One `--input NAME=SHAPE:DTYPE[:HIGH]`: symbols in the shape are dynamic, integers drawn below HIGH."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    high: int | None = None

    def port(self) -> Port:
        """The input of a user's module; floating-point types follow the export's."""
        if self.dtype in DTYPES:
            return Port(self.name, self.shape)
        return Port(self.name, self.shape, self.dtype, "integers", 2 if self.high is None else self.high)


@dataclass(frozen=True)
class DimRequest:
    """One `--dynamic INPUT.DIM=SYMBOL` of a user's module; a symbol given twice ties the dims."""

    input: str
    dim: int
    symbol: str


def parse_input(text: str) -> InputRequest:
    """Read `NAME=SHAPE:DTYPE[:HIGH]`, for example `x=batch,3,224,224:float32` or `tokens=batch,16:int64:30522`.

    An empty shape is a scalar; without a dtype it is float32.

    Raises:
        InvalidArgumentError: it does not read so.
    """
    match = _INPUT.fullmatch(text.strip())
    if match is None:
        raise InvalidArgumentError(f"--input {text!r}; allowed is NAME=SHAPE:DTYPE, as in x=batch,3,224,224:float32")
    dims = [dim.strip() for dim in match["shape"].split(",")] if match["shape"].strip() else []
    strange = [dim for dim in dims if not dim.isdecimal() and not re.fullmatch(_SYMBOL, dim)]
    if strange:
        raise InvalidArgumentError(f"--input {text!r}: dim {strange[0]!r}; allowed are a size and a name")
    dtype = match["dtype"] or "float32"
    numpy_dtype(dtype)
    shape = tuple(int(dim) if dim.isdecimal() else dim for dim in dims)
    return InputRequest(match["name"].strip(), shape, dtype, int(match["high"]) if match["high"] else None)


def parse_dim(text: str) -> DimRequest:
    """Read `INPUT.DIM=SYMBOL`, for example `x.0=batch`.

    Raises:
        InvalidArgumentError: it does not read so.
    """
    match = _DIM.fullmatch(text.strip())
    if match is None:
        allowed = "INPUT.DIM=SYMBOL, as in x.0=batch; batch (the first dim of every input); or none"
        raise InvalidArgumentError(f"--dynamic {text!r}; allowed is {allowed}")
    return DimRequest(match["input"], int(match["dim"]), match["symbol"])


def choose_axes(spec: GraphSpec, words: Sequence[str]) -> GraphSpec:
    """An architecture's graph with the named axes dynamic beside those that are so by default; `none` freezes all.

    Raises:
        InvalidArgumentError: no such axis.
    """
    known = [axis.name for axis in spec.axes]
    unknown = [word for word in words if word not in (*known, NOTHING_DYNAMIC)]
    if unknown:
        raise InvalidArgumentError(f"{spec.name}: no axis {unknown[0]!r}; there are {', '.join(known)}, and none")
    frozen = NOTHING_DYNAMIC in words
    axes = [replace(axis, dynamic=axis.name in words or (axis.dynamic and not frozen)) for axis in spec.axes]
    return replace(spec, axes=tuple(axes))


def fit_inputs(spec: GraphSpec, requests: Sequence[InputRequest]) -> GraphSpec:
    """An architecture's graph at the sizes of `--input`: a size freezes its axis there, a name leaves it dynamic.

    Raises:
        InvalidArgumentError: no such input, another rank, a fixed dim changed, or two sizes for one axis.
    """
    ports = {port.name: port for port in spec.inputs}
    axes = {axis.name: axis for axis in spec.axes}
    sizes: dict[str, int] = {}
    for request in requests:
        if request.name not in ports:
            raise InvalidArgumentError(f"{spec.name}: no input {request.name!r}; there are {', '.join(ports)}")
        port = ports[request.name]
        _check_dtype(request, port)
        for axis, size in _axis_sizes(request, port):
            if sizes.setdefault(axis, size) != size:
                raise InvalidArgumentError(f"--input gives axis {axis} the sizes {sizes[axis]} and {size}")
    for name, size in sizes.items():
        axes[name] = replace(axes[name], size=size, dynamic=False)
    return replace(spec, axes=tuple(axes.values()))


def _check_dtype(request: InputRequest, port: Port) -> None:
    allowed = DTYPES if port.dtype == FLOAT else (port.dtype,)
    if request.dtype not in allowed:
        raise InvalidArgumentError(f"--input {request.name}: dtype {request.dtype}; allowed is {', '.join(allowed)}")


def _axis_sizes(request: InputRequest, port: Port) -> list[tuple[str, int]]:
    if len(request.shape) != len(port.shape):
        raise InvalidArgumentError(f"--input {request.name}: shape {request.shape}, the architecture's is {port.shape}")
    found: list[tuple[str, int]] = []
    for given, own in zip(request.shape, port.shape, strict=True):
        if isinstance(own, int) and given != own:
            raise InvalidArgumentError(f"--input {request.name}: dim {given}, the architecture fixes it at {own}")
        if isinstance(own, str) and "+" in own and isinstance(given, int):
            raise InvalidArgumentError(
                f"--input {request.name}: {own} is a sum of axes; give the inputs that have each"
            )
        if isinstance(own, str) and isinstance(given, int):
            found.append((own, given))
    return found
