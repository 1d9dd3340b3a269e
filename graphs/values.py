"""A tensor of a float64 run, with the type in which a runtime would store it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..operators.storage import decode


@dataclass(frozen=True)
class Value:
    """A tensor of a float64 run: its values, and the dtype in which a runtime would store them.

    Attributes:
        data: float64 where floating-point (a float32 weight may stay as stored), as stored otherwise; a list of
            Values' data for a sequence, None for an absent optional.
        dtype: stored dtype, of the tensors for a sequence; None where it is not determined.
    """

    data: Any
    dtype: np.dtype[Any] | None


Values = dict[str, Value]


def stored_value(tensor: Any) -> Value:
    """A value from a stored tensor or sequence, not yet decoded (the kernel's seam does that)."""
    element = tensor[0] if isinstance(tensor, list) and tensor else tensor
    return Value(tensor, element.dtype if isinstance(element, np.ndarray) else None)


def decoded(data: Any) -> Any:
    """A tensor as float64 where it is floating-point, tensor by tensor for a sequence; anything else untouched."""
    if isinstance(data, list):
        return [decoded(item) for item in data]
    return decode(data) if isinstance(data, np.ndarray) else data


def flattened(data: Any) -> tuple[Any, np.ndarray]:
    """What a tensor, sequence or map is made of (shapes, lengths, sorted keys), and all its elements in one row."""
    if isinstance(data, Mapping):
        keys = sorted(data, key=lambda key: (type(key).__name__, key))
        parts = [flattened(data[key]) for key in keys]
        made: Any = dict(zip(keys, (part[0] for part in parts), strict=True))
    elif isinstance(data, list):
        parts = [flattened(item) for item in data]
        made = [part[0] for part in parts]
    else:
        array = np.asarray(data)
        return array.shape, array.reshape(-1)
    return made, np.concatenate([part[1] for part in parts]) if parts else np.empty(0)


LARGE = 1 << 20
"""Elements from which on a weight stays as stored: its kernel converts it, block by block where it can."""


def decoded_once(tensor: Any) -> Any:
    """What many runs read: decoded, unless it is large."""
    return decode(tensor) if isinstance(tensor, np.ndarray) and tensor.size < LARGE else tensor
