"""Files of `torch.save` (.pt, .pth, .bin, .ckpt), mapped, and read so that no code in them runs."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from .paging import Shelf

NESTED_UNDER = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the state dict."""

TENSORS = (Tensor, torch.nn.Parameter)
"""What a state dict holds, and nothing derived from it."""

BOOKKEEPING = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf")
"""Packages whose objects training scripts leave beside the weights; inert ones stand in for them."""

MOST_STAND_INS = 100


def read_pickle(path: Path, shelf: Shelf) -> dict[str, Tensor]:
    """The state dict of a file, with `weights_only=True`; its storages are mapped where the file's format allows it.

    Args:
        path: the file.
        shelf: takes the mapping over.

    Raises:
        WeightsError: corrupted, running code, or holding no state dict.
    """
    content, is_mapped = _content(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; allowed is a state dict")
    nested = _nested(content)
    strange = [str(key) for key, value in nested.items() if type(value) not in TENSORS]
    if strange:
        raise WeightsError(f"{path}: no state dict: {', '.join(strange[:20])} hold no tensor")
    state = {str(key): value.detach() for key, value in nested.items()}
    if len(state) != len(nested):
        raise WeightsError(f"{path}: no state dict: two of its keys are the same text")
    for key, value in state.items():
        if value.layout != torch.strided or value.is_quantized:
            raise WeightsError(f"{path}: {key} is {value.layout}, {value.dtype}; allowed are dense tensors")
    if is_mapped:
        _adopt(state, content, shelf)
    return state


def _nested(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The state dict in what a file holds: under one of the known keys, else the only one there is."""
    for key in NESTED_UNDER:
        if isinstance(content.get(key), Mapping):
            return content[key]
    if any(type(value) in TENSORS for value in content.values()):
        return content
    inner = [value for value in content.values() if isinstance(value, Mapping) and value]
    states = [value for value in inner if all(type(item) in TENSORS for item in value.values())]
    return states[0] if len(states) == 1 else content


def _content(path: Path) -> tuple[Any, bool]:
    """What the file holds, and whether its storages are mapped; bookkeeping is replaced by inert objects."""
    inert: list[Any] = []
    while True:
        try:
            with torch.serialization.safe_globals(inert):
                return _loaded(path)
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError) as error:
            foreign = _foreign(error)
            known = any(name == foreign for _, name in inert)
            if foreign.partition(".")[0] not in BOOKKEEPING or known or len(inert) == MOST_STAND_INS:
                raise WeightsError(f"{path}: {_unreadable(error, foreign)}") from error
            inert.append((type(foreign.rpartition(".")[2], (_Inert,), {}), foreign))


class _Inert:
    """Stands in for an object of a training script; takes whatever state it is given and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take anything."""

    def __setstate__(self, state: Any) -> None:
        """Take anything."""


def _loaded(path: Path) -> tuple[Any, bool]:
    with warnings.catch_warnings():
        # a file that cannot be read is refused; one that can needs no remark on its pickle protocol
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True), True
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True), False


def _foreign(error: Exception) -> str:
    """The dotted name of what a file would call while it is read; "" if it is something else that is wrong."""
    found = re.search(r"(?i)unsupported global:? (?:global )?([\w.]+)", str(error))
    return found[1] if found is not None else ""


def _unreadable(error: Exception, foreign: str) -> str:
    """Why a file is no checkpoint; not in PyTorch's words, which advise to read it without protection."""
    if foreign:
        return f"refused, it would run {foreign} while it is read; a checkpoint holds plain tensors only"
    reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    advised = "weights_only" in reason or not reason
    return "not a file of plain tensors" if advised else f"not a file of plain tensors: {reason}"


def _adopt(state: Mapping[str, Tensor], owner: Any, shelf: Shelf) -> None:
    """Hand the mapped storages to the shelf, each once."""
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage() for value in state.values()}
    for storage in storages.values():
        if storage.nbytes():
            shelf.adopt(torch.empty(0, dtype=torch.uint8).set_(storage), owner)
