"""Run PyTorch code in float64 whatever dtypes it names, and the traced program node by node.

`module.double()` is not enough: `x.float()`, `torch.arange(n, dtype=torch.float32)` and tensors that a module holds as
plain attributes stay in float32 and hide, or cause, differences of that size. So every operation is intercepted, and
every narrower floating-point type in its arguments widened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.nn.functional import rms_norm
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .paging import Shelf
from .wide_products import LOOKUPS, NARROW, VIEWS, Products, is_large

Release = Callable[[torch.Tensor], None]


class Widening(TorchDispatchMode):
    """Replaces narrower floating-point types by float64 in the arguments and results of every operation.

    Large stored parameters are not widened whole: what only looks at them (a transposed view) is left as it is, rows of
    an embedding are widened when they are found, and products take them in blocks (`wide_products`).
    """

    supports_higher_order_operators = True

    def __init__(self, release: Release) -> None:
        super().__init__()
        self._products = Products(release)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            with self:  # which is off in here, and must be on in the branches
                return run_control_flow(func, *pytree.tree_map(widened, args), **kwargs)
        if func in VIEWS and is_large(args[0]):
            return func(*args, **kwargs)
        if func in LOOKUPS and is_large(args[0]):
            return widened(func(*args, **kwargs))
        result = self._products.compute(func, args, kwargs)
        if result is not None:
            return result
        wide_args, wide_kwargs = pytree.tree_map(widened, args), pytree.tree_map(widened, kwargs)
        result = func(*wide_args, **wide_kwargs)
        return result if func._schema.is_mutable else pytree.tree_map(widened, result)


def run_control_flow(operator: HigherOrderOperator, *args: Any, **kwargs: Any) -> Any:
    """`torch.cond` and `torch.while_loop` taken step by step, so that whatever intercepts operations sees each one.

    Raises:
        NotImplementedError: another operator of this kind.
    """
    if operator is torch.ops.higher_order.cond:
        chosen, taken, otherwise, operands = args
        return (taken if bool(chosen) else otherwise)(*operands)
    if operator is torch.ops.higher_order.while_loop:
        holds, body, carried, constants = args
        while bool(holds(*carried, *constants)):
            carried = body(*carried, *constants)
        return tuple(carried)
    raise NotImplementedError(f"torch's {operator.name()} is not run in float64; allowed are cond and while_loop")


def widen_small(module: torch.nn.Module, shelf: Shelf) -> None:
    """Convert the parameters and buffers that are not on the shelf to float64, in place."""
    module._apply(lambda tensor: tensor if shelf.holds(tensor) else widened(tensor))


def widened(value: Any) -> Any:
    """float64 in place of a narrower floating-point tensor or dtype; anything else as it is."""
    if isinstance(value, torch.Tensor) and value.dtype in NARROW:
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value


class StoredEpsilon(TorchFunctionMode):
    """Gives a normalisation that was told no epsilon that of the stored type, as it has in a run in that type.

    Args:
        stored: the type; its spacing at one is what `torch.rms_norm` adds when `eps` is None.
    """

    def __init__(self, stored: torch.dtype) -> None:
        super().__init__()
        self.epsilon = torch.finfo(stored).eps

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.rms_norm, rms_norm) and kwargs.get("eps", args[3] if len(args) > 3 else None) is None:
            args, kwargs["eps"] = args[:3], self.epsilon
        return func(*args, **kwargs)


@contextmanager
def float64_everywhere(stored: torch.dtype, release: Release = lambda _: None) -> Iterator[None]:
    """Inside, torch computes in float64, without gradients; `stored` is the type that is stood in for.

    `release` is told of every block of a large parameter when it has been used.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), Widening(release), StoredEpsilon(stored):
            yield
    finally:
        torch.set_default_dtype(before)


def run_float64(
    module: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    stored: torch.dtype = torch.float32,
    release: Release = lambda _: None,
) -> Any:
    """What `module` returns when every operation is done in float64.

    Args:
        module: its large parameters stay as they are stored and are widened at every use, block by block.
        args: nest of tensors and constants.
        kwargs: likewise.
        stored: floating-point type in which the module is exported.
        release: told of every block of a large parameter when it has been used.
    """
    args, kwargs = pytree.tree_map(widened, (tuple(args), dict(kwargs)))
    with float64_everywhere(stored, release):
        return module(*args, **kwargs)


class Recorder(Interpreter):
    """Runs a traced graph and keeps the values of chosen nodes."""

    def __init__(self, module: torch.fx.GraphModule, names: frozenset[str]) -> None:
        super().__init__(module)
        self.names = names
        self.values: dict[str, torch.Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run a node; keep what it gave if asked for."""
        result = super().run_node(n)
        if n.name in self.names and isinstance(result, torch.Tensor):
            self.values[n.name] = result
        return result


def record_float64(
    program: torch.export.ExportedProgram, inputs: Sequence[Any], names: frozenset[str], stored: torch.dtype
) -> dict[str, torch.Tensor]:
    """Values of the named nodes of a traced program, run in float64.

    Args:
        program: its state is widened at every use.
        inputs: the leaves of the positional and keyword arguments, in order.
        names: of FX nodes.
        stored: floating-point type in which the module is exported.

    Returns:
        Tensor by node name, float64 where floating-point; nodes that gave no tensor are left out.
    """
    recorder = Recorder(program.graph_module, names)
    flat = list(_placeholders(program, (widened(item) for item in inputs)))
    with float64_everywhere(stored):
        recorder.run(*flat)
    return recorder.values


def _placeholders(program: torch.export.ExportedProgram, inputs: Iterator[Any]) -> Iterator[Any]:
    """The value of every placeholder of the traced graph: state by its name, user inputs in order."""
    state = {**program.constants, **program.state_dict}
    for spec in program.graph_signature.input_specs:
        yield next(inputs) if spec.kind is InputKind.USER_INPUT else state[spec.target or ""]
