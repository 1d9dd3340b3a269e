"""Parameters in mapped files: what is not being read takes no memory.

The values of a large parameter lie in a file, a checkpoint or an unnamed one beside the bundle, and are mapped. Pages
that were read count as the process's memory until they are given back; giving them back loses nothing, because the
next read takes them from the file. So a module of any size is run in the memory of its largest layer.
"""

from __future__ import annotations

import bisect
import math
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..operators.mapped import give_back, give_back_heap

SMALLEST_SHELVED_BYTES = 1 << 20
"""Smaller tensors stay in memory: they are as many as a module has layers, and take nothing."""

CHUNK_BYTES = 1 << 28
"""Size of the unnamed files; what is not written takes no room in them."""

COPIED_ELEMENTS = 1 << 22
"""Elements that are copied or converted at a time."""


def is_shelved(shape: Sequence[int], dtype: torch.dtype) -> bool:
    """Whether tensors of that shape are kept in files: large matrices and filters, no biases."""
    return len(shape) > 1 and math.prod(shape) * dtype.itemsize >= SMALLEST_SHELVED_BYTES


class _UnnamedFile:
    """A file that is gone when nothing holds it any more."""

    def __init__(self, folder: Path | None) -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            self.descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True)
class _Region:
    """A mapped range of addresses; `mapping` keeps it mapped, `file` is where room is reserved in it."""

    start: int
    stop: int
    mapping: Any
    file: _UnnamedFile | None = None


class Shelf:
    """Keeps large tensors in mapped files and gives their pages back."""

    def __init__(self, folder: Path | None = None) -> None:
        """Nothing is made yet.

        Args:
            folder: where the unnamed files lie; None is the system's own for temporary files.
        """
        self._folder = folder
        self._starts: list[int] = []
        self._regions: list[_Region] = []
        self._free = (0, 0, None)  # address, end, mapping of what is left of the newest file

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of zeros in an unnamed file, which takes room when it is written; a small one in memory."""
        size = math.prod(shape) * dtype.itemsize
        if not is_shelved(shape, dtype):
            return torch.zeros(tuple(shape), dtype=dtype)
        offset, end, mapping = self._free
        if mapping is None or offset + size > end:
            offset, end, mapping = 0, *self._new_file(max(size, CHUNK_BYTES))
        self._free = (-(-(offset + size) // mmap.PAGESIZE) * mmap.PAGESIZE, end, mapping)
        return torch.frombuffer(mapping, dtype=dtype, count=math.prod(shape), offset=offset).reshape(tuple(shape))

    def _new_file(self, size: int) -> tuple[int, mmap.mmap]:
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        file = _UnnamedFile(self._folder)
        os.ftruncate(file.descriptor, size)
        mapping = mmap.mmap(file.descriptor, size)
        self.adopt(mapping, mapping, file)
        return size, mapping

    def adopt(self, buffer: mmap.mmap | Tensor, owner: Any, file: _UnnamedFile | None = None) -> None:
        """From now on, give back pages of this mapped file.

        Args:
            buffer: the mapping, shared or never written to, or a one-dimensional tensor that spans it.
            owner: kept as long as this shelf, so that the addresses stay what they are.
            file: where room has to be reserved before it is written.
        """
        tensor = torch.frombuffer(buffer, dtype=torch.uint8) if isinstance(buffer, mmap.mmap) else buffer
        start = tensor.data_ptr()
        position = bisect.bisect(self._starts, start)
        self._starts.insert(position, start)
        self._regions.insert(position, _Region(start, start + tensor.numel() * tensor.element_size(), owner, file))

    def _region(self, tensor: Tensor) -> _Region | None:
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return None
        position = bisect.bisect(self._starts, tensor.data_ptr()) - 1
        found = self._regions[position] if position >= 0 else None
        return found if found is not None and tensor.data_ptr() < found.stop and tensor.numel() else None

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in a mapped file."""
        return self._region(tensor) is not None

    def reserve(self, tensor: Tensor) -> None:
        """Make sure that there is room for a tensor of `empty` before it is written.

        Raises:
            OSError: the disk is full.
        """
        region = self._region(tensor)
        if region is not None and region.file is not None and hasattr(os, "posix_fallocate"):
            size = tensor.numel() * tensor.element_size()
            os.posix_fallocate(region.file.descriptor, tensor.data_ptr() - region.start, size)

    def release(self, tensors: Iterable[Tensor]) -> None:
        """Give back the pages of those of the tensors that lie in mapped files."""
        for tensor in tensors:
            if (region := self._region(tensor)) is not None:
                start, size = tensor.data_ptr(), _span(tensor)
                give_back(start, min(size, region.stop - start))

    def release_array(self, array: np.ndarray) -> None:
        """Give back the pages of an array that lies in a mapped file."""
        if array.size and array.dtype.kind != "O":
            start, stop = np.lib.array_utils.byte_bounds(array)
            position = bisect.bisect(self._starts, start) - 1
            if position >= 0 and start < self._regions[position].stop:
                give_back(start, min(stop, self._regions[position].stop) - start)

    def release_all(self) -> None:
        """Give back every page of every mapped file."""
        for region in self._regions:
            give_back(region.start, region.stop - region.start)

    def write(self, target: Tensor, source: Tensor) -> None:
        """Copy values, converted to the target's dtype, in blocks whose pages are given back.

        Raises:
            OSError: the disk is full.
        """
        self.reserve(target)
        rows = max(1, COPIED_ELEMENTS // max(1, source[0].numel())) if source.ndim and source.numel() else 1
        with torch.no_grad():
            for start in range(0, len(source), rows) if source.ndim else ():
                target[start : start + rows].copy_(source[start : start + rows])
                self.release((target[start : start + rows], source[start : start + rows]))
            if not source.ndim:
                target.copy_(source)

    @contextmanager
    def releasing(self, module: nn.Module) -> Iterator[None]:
        """Inside, the pages of a layer's parameters are given back when the layer has run, at the end all of them."""
        handles = []
        for layer in module.modules():
            held = [parameter for parameter in layer.parameters(recurse=False) if self.holds(parameter)]
            if held:
                handles.append(layer.register_forward_hook(lambda *_, held=held: self.release(held)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.release_all()
            give_back_heap()


def _span(tensor: Tensor) -> int:
    """Bytes from a tensor's first element to its last."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (steps + 1) * tensor.element_size()


class _NotDrawn(TorchFunctionMode):
    """Leaves out what would initialise a shelved parameter: all of them are overwritten."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__()
        self.shelf = shelf

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        in_place = getattr(func, "__name__", "").endswith("_") and not getattr(func, "__name__", "").endswith("__")
        if in_place and isinstance(target, nn.Parameter) and self.shelf.holds(target):
            return target
        return func(*args, **kwargs)


@contextmanager
def built_on(shelf: Shelf, dtype: torch.dtype) -> Iterator[None]:
    """Inside, modules are built with their large parameters on the shelf, in `dtype`, without values.

    Parameters of other than floating-point types, and small ones, are as the module makes them.
    """
    register = nn.Module.register_parameter

    def shelved(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        drawn = parameter is not None and parameter.is_floating_point() and not shelf.holds(parameter)
        if parameter is not None and drawn and is_shelved(parameter.shape, dtype):
            parameter.data = shelf.empty(parameter.shape, dtype)
        register(module, name, parameter)

    with patch.object(nn.Module, "register_parameter", shelved), _NotDrawn(shelf):
        yield


def shelve(module: nn.Module, shelf: Shelf) -> None:
    """Move the large parameters of a module that is already built onto the shelf.

    Raises:
        OSError: the disk is full.
    """
    for parameter in module.parameters():
        plain = type(parameter.data) is Tensor and parameter.layout == torch.strided and parameter.is_contiguous()
        large = parameter.device.type == "cpu" and is_shelved(parameter.shape, parameter.dtype)
        if plain and large and not shelf.holds(parameter):
            place = shelf.empty(parameter.shape, parameter.dtype)
            shelf.write(place, parameter.data)
            parameter.data = place
