"""The kernels and scales of ONNX operators, by domain, op_type and the opset version since which they hold.

    @kernel("Softmax", since=13)
    def softmax(x: Array, /, *, axis: int = -1) -> Array: ...

    @scale("Softmax", since=13)
    def softmax_scale(y: Array, x: Array, /, *, axis: int = -1) -> Scale: ...

A kernel takes the operator's inputs positionally in the order of the spec (an absent optional one is None, variadic
ones are `*xs`) and its attributes as keywords with the names and defaults of the spec; it returns one array, or a tuple
in the order of the spec. A scale takes the reference output(s) first, then the same arguments.

Floating-point inputs arrive as float64 whatever their stored type (`storage.decode`), integers, booleans and strings
arrive as they are stored. A kernel may declare these keyword-only parameters beyond the attributes:

    output_count: int      how many outputs the node asks for (Split, BatchNormalization, MaxPool, Dropout, …)
    stored: tuple          the stored dtype of every input, None where absent (where the type is the semantics)
    opset: int             the opset version of the model (where it is needed beyond `since`)
    precision: dtype       float64, or float32 where a deviation is propagated through a linear operator

and `streams=True` at registration leaves float32 inputs as they are stored (the kernel converts block by block, so that
a weight of a gigabyte is never held twice).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

from ..errors import DuplicateEntryError, MissingKernelError
from .scale import ScaleFunction

ROOMS = (
    "activations",
    "arithmetic",
    "attention",
    "batch_normalization",
    "comparison",
    "contrib_activations",
    "contrib_attention",
    "contrib_block_weights",
    "contrib_group_query",
    "contrib_multi_head_attention",
    "contrib_nchwc",
    "contrib_normalization",
    "contrib_products",
    "contrib_quantization",
    "contrib_quantized",
    "contrib_quantized_attention",
    "contrib_quantized_pooling",
    "contrib_quantized_products",
    "conversion",
    "convolution",
    "deformable",
    "detection",
    "flexible_attention",
    "grid_sampling",
    "images",
    "indexing",
    "linear",
    "linear_attention",
    "losses",
    "machine_learning_features",
    "machine_learning_labels",
    "machine_learning_linear",
    "machine_learning_svm",
    "machine_learning_tree_ensemble",
    "machine_learning_trees",
    "mean_variance_normalization",
    "movement",
    "normalization",
    "optimizers",
    "pooling",
    "power_normalization",
    "quantization",
    "quantized",
    "random",
    "recurrent",
    "reduction",
    "reduction_products",
    "regions",
    "resizing",
    "selection",
    "sequences",
    "shapes",
    "softmax",
    "spectral",
    "text",
    "transcendental",
    "transposed_convolution",
    "unpooling",
)
"""The modules of this package that register kernels; a new module is added here."""

SEAM_PARAMETERS = frozenset({"output_count", "stored", "opset", "precision"})

Kernel = Callable[..., Any]
Key = tuple[str, str, int]


@dataclass(frozen=True)
class KernelEntry:
    """One kernel: what computes an operator since one opset version, and how its error is bounded.

    Attributes:
        domain: "" for the default domain.
        op_type: the operator's name in the spec.
        since: the first opset version for which this kernel holds.
        function: the kernel.
        scale: its scale; None while none is registered: its outputs are then UNJUDGED.
        products: for DOT operators, the products that are summed in chosen output elements; None where not written.
        judged: value and scale in one pass, for operators whose cost is reading or gathering operands; None elsewhere.
        linear_in: positions of the inputs in which the operator is linear with the others fixed.
        streams: the kernel takes float32 inputs as stored.
    """

    domain: str
    op_type: str
    since: int
    function: Kernel
    scale: ScaleFunction | None = None
    products: Callable[..., Any] | None = None
    judged: Callable[..., Any] | None = None
    linear_in: tuple[int, ...] = ()
    streams: bool = False

    @property
    def key(self) -> Key:
        return (self.domain, self.op_type, self.since)


_entries: dict[Key, KernelEntry] = {}


def kernel(
    op_type: str,
    *,
    since: int,
    domain: str = "",
    scale: ScaleFunction | None = None,
    linear_in: tuple[int, ...] = (),
    streams: bool = False,
) -> Callable[[Kernel], Kernel]:
    """Register the decorated function as the kernel of `op_type` from opset `since` on.

    Args:
        op_type: the operator's name in the spec.
        since: the first opset version for which it holds.
        domain: operator set domain; "" is ai.onnx.
        scale: `exact`, `ulp(n)` or another scale function; leave it out to register one with `@scale`.
        linear_in: positions of inputs in which the operator is linear (Conv: input and weight).
        streams: give the kernel float32 inputs as stored instead of decoded to float64.

    Raises:
        DuplicateEntryError: the same domain, op_type and since are registered already.
    """

    def register(function: Kernel) -> Kernel:
        entry = KernelEntry(domain, op_type, since, function, scale, linear_in=linear_in, streams=streams)
        if entry.key in _entries:
            there = _entries[entry.key].function
            raise DuplicateEntryError(
                f"kernel {op_type} since {since} of domain {domain or 'ai.onnx'!r} is already registered by "
                f"{there.__module__}.{there.__qualname__}"
            )
        _entries[entry.key] = entry
        return function

    return register


def _amend(field: str, op_type: str, since: int, domain: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        key = (domain, op_type, since)
        if key not in _entries:
            raise MissingKernelError(f"a {field} for {op_type} since {since} needs its kernel registered first")
        if getattr(_entries[key], field) is not None:
            raise DuplicateEntryError(f"{op_type} since {since} already has a {field}")
        _entries[key] = replace(_entries[key], **{field: function})
        return function

    return register


def scale(op_type: str, *, since: int, domain: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the error scale of a kernel that is already registered.

    Raises:
        MissingKernelError: no such kernel.
        DuplicateEntryError: it has a scale.
    """
    return _amend("scale", op_type, since, domain)


def products(op_type: str, *, since: int, domain: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function that lists the summands of chosen output elements of a DOT operator.

    It takes the flat indices of n elements of the (first) output, then the kernel's own arguments, and returns float64
    (n, K): the K products whose sum is that element (a bias is the last one), zero-padded.
    """
    return _amend("products", op_type, since, domain)


def judged(op_type: str, *, since: int, domain: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function that computes an operator's one output and its Scale together.

    It takes the kernel's own arguments and returns (output, Scale), or None to have kernel and scale called apart.
    """
    return _amend("judged", op_type, since, domain)


@cache
def load_kernels() -> None:
    """Import every module that registers kernels, once."""
    for room in ROOMS:
        importlib.import_module(f".{room}", __package__)


def entries() -> MappingProxyType[Key, KernelEntry]:
    """All registered kernels by (domain, op_type, since), read-only."""
    load_kernels()
    return MappingProxyType(_entries)


@cache
def _versions(domain: str, op_type: str) -> tuple[KernelEntry, ...]:
    found = [entry for entry in entries().values() if (entry.domain, entry.op_type) == (domain, op_type)]
    return tuple(sorted(found, key=lambda entry: entry.since))


def find_kernel(op_type: str, *, opset: int, domain: str = "") -> KernelEntry:
    """The kernel of an operator at an opset version: the newest registered one that is not newer.

    Raises:
        MissingKernelError: no kernel, or only for later opsets.
    """
    domain = "" if domain == "ai.onnx" else domain
    versions = _versions(domain, op_type)
    for entry in reversed(versions):
        if entry.since <= opset:
            return entry
    name = f"{domain}::{op_type}" if domain else op_type
    if versions:
        raise MissingKernelError(f"no kernel for {name} at opset {opset}: the oldest one is since {versions[0].since}")
    raise MissingKernelError(f"no kernel for {name}")


@cache
def parameters(function: Kernel) -> tuple[str, ...]:
    """Names of the keyword-only parameters of a kernel or scale."""
    return tuple(_keyword_only(function))


def _keyword_only(function: Kernel) -> Iterator[str]:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            yield parameter.name
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            yield "**"
