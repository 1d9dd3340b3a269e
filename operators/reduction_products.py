"""What reductions and means over axes add up, element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .reduction import REDUCTIONS, Axes, resolved_axes
from .registry import products
from .scale import Array


def summands(flat: Array, x: Array, axes: Axes) -> Array:
    """The elements of `x` that a reduction over `axes` adds up in chosen outputs.

    Args:
        flat: (n,) flat indices into the output.
        x: the input.
        axes: reduced axes, not negative.

    Returns:
        (n, K), K the number of elements per output.
    """
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = np.transpose(x, [*kept, *axes])
    at = np.unravel_index(flat, [x.shape[axis] for axis in kept]) if kept else ()
    chosen = rows[at] if kept else np.broadcast_to(rows, (len(flat), *rows.shape))
    return chosen.reshape(len(flat), -1)


def _register_summands(op_type: str, power: Callable[[Array], Array]) -> None:
    """List what a sum of powers adds up, for both forms of `axes`."""

    @products(op_type, since=REDUCTIONS[op_type].axes_input_since)
    def by_input(
        flat: Array, x: Array, axes: Array | None = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Array:
        """The values that are added."""
        return power(summands(flat, x, resolved_axes(x, axes, bool(noop_with_empty_axes))))

    @products(op_type, since=1)
    def by_attribute(flat: Array, x: Array, /, *, axes: Sequence[int] | None = None, keepdims: int = 1) -> Array:
        """The values that are added."""
        return power(summands(flat, x, resolved_axes(x, axes, False)))


for _op_type, _power in (("ReduceSum", np.array), ("ReduceL1", np.abs), ("ReduceSumSquare", np.square)):
    _register_summands(_op_type, _power)


@products("ReduceMean", since=18)
def reduce_mean_products(
    flat: Array, x: Array, axes: Array | None = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """The values that are added, divided by their number."""
    chosen = summands(flat, x, resolved_axes(x, axes, bool(noop_with_empty_axes)))
    return chosen / chosen.shape[1]


@products("ReduceMean", since=1)
def reduce_mean_attribute_products(
    flat: Array, x: Array, /, *, axes: Sequence[int] | None = None, keepdims: int = 1
) -> Array:
    """The values that are added, divided by their number."""
    chosen = summands(flat, x, resolved_axes(x, axes, False))
    return chosen / chosen.shape[1]
