"""The safetensors format, read mapped and written streamed.

Eight bytes with the header's length, the header as JSON (name: dtype, shape, offsets), then the data of all tensors:
https://github.com/huggingface/safetensors. Nothing of the data is read before it is used, so everything that a header
may lie about is checked against the file's size.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..errors import WeightsError
from .paging import COPIED_ELEMENTS, Shelf

LARGEST_HEADER_BYTES = 100_000_000
"""As the reference implementation has it; the header of a model of 6 GB has 0.2 MB."""

METADATA = "__metadata__"

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


def read_safetensors(path: Path, shelf: Shelf) -> dict[str, Tensor]:
    """Tensors by name, as views of the mapped file.

    Args:
        path: the file.
        shelf: takes the mapping over.

    Raises:
        WeightsError: truncated, or a header that is no such header; one line says what is wrong.
    """
    try:
        with path.open("rb") as file:
            return _tensors(_mapped(file), shelf)
    except WeightsError as error:
        raise WeightsError(f"{path}: not a safetensors file: {error}") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error


def _mapped(file: Any) -> mmap.mmap:
    file.seek(0, 2)
    if file.tell() < 8:
        raise WeightsError(f"{file.tell()} bytes; the length of the header alone takes 8")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _tensors(content: mmap.mmap, shelf: Shelf) -> dict[str, Tensor]:
    length, size = int.from_bytes(content[:8], "little"), len(content)
    if length > LARGEST_HEADER_BYTES or length > size - 8:
        raise WeightsError(f"it states a header of {length} bytes; {size - 8} follow, at most {LARGEST_HEADER_BYTES}")
    entries = _header(content[8 : 8 + length])
    places = [(name, *_place(name, entry)) for name, entry in entries.items() if name != METADATA]
    _check_layout([(begin, end, name) for name, _, _, begin, end in places], size - 8 - length)
    shelf.adopt(content, content)
    return {name: _view(content, dtype, shape, 8 + length + begin, shelf) for name, dtype, shape, begin, _ in places}


def _header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=_distinct)
    except WeightsError:
        raise
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"its header is no JSON ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise WeightsError("its header is no JSON object")
    return header


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise WeightsError(f"its header has {twice!r} twice")
    return found


def _place(name: str, entry: Any) -> tuple[torch.dtype, list[int], int, int]:
    """dtype, shape, first byte and end of a tensor, as its entry states them."""
    fields = entry if isinstance(entry, dict) else {}
    code, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(code, str) or code not in DTYPES:
        raise WeightsError(f"tensor {name!r} has dtype {code!r}; known are {', '.join(DTYPES)}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise WeightsError(f"tensor {name!r} has no shape and two offsets of whole numbers from 0 on")
    begin, end = offsets
    needed = math.prod(shape) * DTYPES[code].itemsize
    if end - begin != needed:
        raise WeightsError(f"tensor {name!r} of {code} {shape} takes {needed} bytes, its offsets give {end - begin}")
    return DTYPES[code], shape, begin, end


def _whole_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_layout(ranges: Sequence[tuple[int, int, str]], size: int) -> None:
    """The tensors lie one behind the other and fill the file."""
    position = 0
    for begin, end, name in sorted(ranges):
        if begin != position:
            what = "overlaps the one before" if begin < position else "leaves a gap"
            raise WeightsError(f"tensor {name!r} {what}: it begins at byte {begin} of the data, expected is {position}")
        position = end
    if position != size:
        raise WeightsError(f"its header describes {position} bytes of data, the file has {size}")


def _view(content: mmap.mmap, dtype: torch.dtype, shape: Sequence[int], start: int, shelf: Shelf) -> Tensor:
    count = math.prod(shape)
    if not count:
        return torch.zeros(tuple(shape), dtype=dtype)
    if start % dtype.itemsize == 0:
        return torch.frombuffer(content, dtype=dtype, count=count, offset=start).reshape(tuple(shape))
    stored = torch.frombuffer(content, dtype=torch.uint8, count=count * dtype.itemsize, offset=start)
    place = shelf.empty(shape, dtype)
    shelf.write(place.reshape(-1).view(torch.uint8), stored)
    return place


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], shelf: Shelf) -> None:
    """Write tensors as one file, in blocks, whatever their size.

    Args:
        path: of the file.
        tensors: by name; any strides.
        shelf: gives their pages back as they are written.

    Raises:
        WeightsError: a dtype that the format does not have, or the file cannot be written.
    """
    unknown = [name for name, tensor in tensors.items() if tensor.dtype not in _CODES]
    if unknown:
        raise WeightsError(f"{path}: safetensors has no dtype {tensors[unknown[0]].dtype} ({unknown[0]})")
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {METADATA: {"format": "pt"}}
    position = 0
    for name in order:
        tensor = tensors[name]
        end = position + tensor.numel() * tensor.dtype.itemsize
        shape = list(tensor.shape)
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                for block in tensor_blocks(tensors[name]):
                    file.write(block)
                shelf.release([tensors[name]])
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror}") from error


def tensor_blocks(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor in row-major order, a block at a time, little-endian."""
    plain = tensor.detach()
    if not plain.ndim or not plain.numel():
        plain = plain.reshape(-1)
    rows = max(1, COPIED_ELEMENTS // max(1, plain[:1].numel()))
    for start in range(0, len(plain), rows):
        block = plain[start : start + rows].contiguous().reshape(-1)
        yield block.view(torch.uint8).numpy().data.cast("B")
