"""Load a checkpoint into a module: every key must be there, be known and have the right shape."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..architectures.specification import CheckpointLayout
from ..errors import WeightsError

SAFETENSORS = ".safetensors"
PICKLES = (".pt", ".pth", ".bin")
NESTED_UNDER = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the state dict."""


def load_weights(module: nn.Module, path: Path, layouts: Sequence[CheckpointLayout]) -> str:
    """Copy a checkpoint into `module`.

    Args:
        module: overwritten in place; tensors are converted to its dtypes.
        path: .safetensors, or a file of `torch.save` (.pt, .pth, .bin), which is read with `weights_only=True`: no code
            in it is run.
        layouts: whose keys it may have; the one that fits best is taken.

    Returns:
        Name of the layout.

    Raises:
        WeightsError: unreadable, or keys missing, unexpected or of another shape: all are listed.
    """
    given = read_checkpoint(path)
    own = module.state_dict()
    renamed = {layout.name: _renamed(given, layout, path) for layout in layouts}
    problems = {layout.name: list(_problems(own, renamed[layout.name], layout)) for layout in layouts}
    layout = min(layouts, key=lambda candidate: len(problems[candidate.name]))
    if problems[layout.name]:
        raise WeightsError(_refusal(path, layout, problems[layout.name]))
    with torch.no_grad():
        for key, tensor in renamed[layout.name].items():
            own[key].copy_(tensor)
    return layout.name


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by key.

    Raises:
        WeightsError: missing, of an unknown kind, corrupted, or holding anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix not in (SAFETENSORS, *PICKLES):
        raise WeightsError(f"{path}: unknown kind {path.suffix!r}; allowed are {', '.join((SAFETENSORS, *PICKLES))}")
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_pickle(path)
    nested = next((content[key] for key in NESTED_UNDER if isinstance(content.get(key), Mapping)), content)
    strange = [str(key) for key, value in nested.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(f"{path}: no state dict: {', '.join(strange)} hold no tensor")
    return {str(key): value for key, value in nested.items()}


def _read_safetensors(path: Path) -> Mapping[Any, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a safetensors file: {error}") from error


def _read_pickle(path: Path) -> Mapping[Any, Any]:
    try:
        with warnings.catch_warnings():
            # a file that cannot be read is refused below; one that can needs no remark on its pickle protocol
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: {_unreadable(error)}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; allowed is a state dict")
    return content


def _unreadable(error: Exception) -> str:
    """Why a file is no checkpoint; not in PyTorch's words, which advise to read it without protection."""
    text = str(error)
    foreign = re.search(r"(?i)unsupported global:? (?:global )?([\w.]+)", text)
    if foreign is not None:
        return f"refused, it would run {foreign[1]} while it is read; a checkpoint holds plain tensors only"
    reason = text.rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    advised = "weights_only" in reason or not reason
    return "not a file of plain tensors" if advised else f"not a file of plain tensors: {reason}"


def _renamed(given: Mapping[str, Tensor], layout: CheckpointLayout, path: Path) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, tensor in given.items():
        own = layout.rename(key)
        if own in renamed:
            raise WeightsError(f"{path}: two keys of layout {layout.name} become {own}; one is {key}")
        if own:
            renamed[own] = tensor.t() if layout.is_transposed(own) else tensor
    return renamed


def _problems(own: Mapping[str, Tensor], given: Mapping[str, Tensor], layout: CheckpointLayout) -> Iterator[str]:
    for key in own.keys() - given.keys():
        if not layout.is_optional(key):
            yield f"missing {key} {list(own[key].shape)}"
    for key in given.keys() - own.keys():
        yield f"unexpected {key} {list(given[key].shape)}"
    for key in own.keys() & given.keys():
        if own[key].shape != given[key].shape:
            yield f"{key} is {list(given[key].shape)}, the module's is {list(own[key].shape)}"


def _refusal(path: Path, layout: CheckpointLayout, problems: Sequence[str]) -> str:
    return f"{path} does not fit (layout {layout.name}), {len(problems)} problems: {'; '.join(sorted(problems))}"
