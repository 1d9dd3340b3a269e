"""Between NumPy arrays and torch tensors, including the dtypes that NumPy itself does not have."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InvalidArgumentError
from .targets import numpy_dtype

_CARRIERS = {
    "bfloat16": np.uint16,
    "float8_e4m3fn": np.uint8,
    "float8_e4m3fnuz": np.uint8,
    "float8_e5m2": np.uint8,
    "float8_e5m2fnuz": np.uint8,
}
"""What carries the bits of a dtype that NumPy has only through `ml_dtypes`."""


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of that name.

    Raises:
        InvalidArgumentError: torch has no such dtype.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise InvalidArgumentError(f"torch has no dtype {name!r}; it has float32, float16, bfloat16, int64, bool, …")
    return found


def to_torch(array: np.ndarray) -> torch.Tensor:
    """A tensor with a copy of the array's values and its dtype."""
    carrier = _CARRIERS.get(array.dtype.name)
    if carrier is None:
        return torch.from_numpy(np.array(array))
    return torch.from_numpy(np.array(array).view(carrier)).view(torch_dtype(array.dtype.name))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """An array with a copy of the tensor's values and its dtype."""
    return np.array(numpy_view(tensor.detach().cpu().contiguous()))


def numpy_view(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's own values on the CPU as an array of its dtype and strides; nothing is copied."""
    name, plain = str(tensor.dtype).removeprefix("torch."), tensor.detach()
    if name not in _CARRIERS:
        return plain.numpy()
    carrier = torch_dtype(np.dtype(_CARRIERS[name]).name)
    return plain.view(carrier).numpy().view(numpy_dtype(name))
