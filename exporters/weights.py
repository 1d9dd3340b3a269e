"""Fit a checkpoint to a module: every key must be there, be known and have the right shape; and write one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..architectures.specification import CheckpointLayout
from ..errors import WeightsError
from .checkpoint_folder import Checkpoint, read_checkpoint
from .paging import COPIED_ELEMENTS, Shelf

MATRIX, FILTERS = 2, 4
"""Ranks."""

HEAD = "lm_head.weight"
"""The key of a language model's head in Hugging Face's checkpoints."""


@dataclass(frozen=True)
class Fit:
    """A checkpoint under a module's own keys, by one layout.

    Attributes:
        layout: of its keys.
        tensors: by the module's keys; views of the checkpoint's.
        missing: the module's keys that it does not have and may not lack.
        problems: what else is wrong, one line each.
    """

    layout: CheckpointLayout
    tensors: Mapping[str, Tensor]
    missing: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass
class _Renaming:
    """A checkpoint under the module's own keys, and what does not go together in it."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load_weights(
    module: nn.Module,
    checkpoint: Checkpoint | Path,
    layouts: Sequence[CheckpointLayout],
    shelf: Shelf | None = None,
    *,
    allow_missing: bool = False,
) -> Fit:
    """Give `module` a checkpoint's parameters.

    Args:
        module: changed in place. A parameter of the checkpoint's own type becomes a view of the mapped file; others are
            converted to the module's type on the shelf.
        checkpoint: or where it lies.
        layouts: whose keys it may have; the one that fits best is taken.
        shelf: where large parameters lie.
        allow_missing: leave parameters that the checkpoint does not have as they are.

    Returns:
        What was taken, and what was missing.

    Raises:
        WeightsError: unreadable, or keys missing, unexpected, of another shape or kind: all are listed.
    """
    shelf = Shelf() if shelf is None else shelf
    checkpoint = read_checkpoint(checkpoint, shelf) if isinstance(checkpoint, Path) else checkpoint
    fit = best_fit(module, checkpoint, layouts, shelf)
    if fit.problems or (fit.missing and not allow_missing):
        own = module.state_dict()
        told = [*fit.problems, *(f"missing {key} {list(own[key].shape)}" for key in fit.missing)]
        raise WeightsError(_refusal(checkpoint.path, fit.layout, told, only_missing=not fit.problems))
    _assign(module, fit.tensors, shelf)
    return fit


def best_fit(
    module: nn.Module, checkpoint: Checkpoint, layouts: Sequence[CheckpointLayout], shelf: Shelf | None = None
) -> Fit:
    """The layout under which a checkpoint has the fewest problems with a module, its keys as they are or unwrapped."""
    own = module.state_dict()
    tied = _tied(own)
    keyed = (checkpoint.tensors, _unwrapped(checkpoint.tensors))
    fits = [_fit(own, tied, given, layout, shelf or Shelf()) for given in keyed if given for layout in layouts]
    return min(fits, key=lambda fit: len(fit.problems) + len(fit.missing))


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the name under which a training framework holds the network, if all keys begin with it; else nothing."""
    parts = [key.partition(".") for key in tensors]
    wrapped = len({name for name, _, _ in parts}) == 1 and all(inner for _, _, inner in parts)
    return {inner: tensors[f"{name}.{inner}"] for name, _, inner in parts} if wrapped else {}


def _fit(
    own: Mapping[str, Tensor],
    tied: Mapping[str, frozenset[str]],
    tensors: Mapping[str, Tensor],
    layout: CheckpointLayout,
    shelf: Shelf,
) -> Fit:
    given = _renamed(tensors, layout, shelf)
    lacking = [key for key in own if key not in given.tensors and not tied[key] & given.tensors.keys()]
    missing = tuple(sorted(key for key in lacking if not layout.is_optional(key)))
    problems = [*given.problems, *_problems(own, given)]
    return Fit(layout, given.tensors, missing, tuple(sorted(problems)))


def _tied(own: Mapping[str, Tensor]) -> dict[str, frozenset[str]]:
    """For every key, the keys under which the module has the same tensor."""
    groups: dict[tuple[int, tuple[int, ...]], set[str]] = {}
    places = {key: (tensor.data_ptr() or -id(tensor), tuple(tensor.shape)) for key, tensor in own.items()}
    for key, place in places.items():
        groups.setdefault(place, set()).add(key)
    return {key: frozenset(groups[place]) for key, place in places.items()}


def _renamed(given: Mapping[str, Tensor], layout: CheckpointLayout, shelf: Shelf) -> _Renaming:
    """The checkpoint's tensors as the module stores them; two keys may become one if they hold the same."""
    found = _Renaming()
    for key, tensor in given.items():
        own = layout.rename(key)
        if not own:
            continue
        stored = _as_stored_here(tensor, own, layout)
        if own not in found.tensors:
            found.tensors[own], found.sources[own] = stored, key
        elif not _equal(found.tensors[own], stored, shelf):
            found.problems.append(f"two keys of it become {own} and differ: {found.sources[own]} and {key}")
    return found


def _as_stored_here(tensor: Tensor, own: str, layout: CheckpointLayout) -> Tensor:
    if layout.is_transposed(own) and tensor.ndim == MATRIX:
        return tensor.t()
    if layout.is_pointwise(own) and tensor.ndim == FILTERS:
        return tensor.flatten(1)
    return tensor


def has_own_head(checkpoint: Checkpoint, layout: CheckpointLayout, shelf: Shelf) -> bool:
    """Whether a checkpoint has a head and an embedding that `layout` takes for one weight, and they differ."""
    head = checkpoint.tensors.get(HEAD)
    if head is None or layout.rename(HEAD) == HEAD:
        return False
    same = (key for key in checkpoint.tensors if key != HEAD and layout.rename(key) == layout.rename(HEAD))
    return any(not _equal(checkpoint.tensors[key], head, shelf) for key in same)


def _equal(a: Tensor, b: Tensor, shelf: Shelf) -> bool:
    """Whether two tensors are equal, compared block by block."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.data_ptr() == b.data_ptr() and a.stride() == b.stride():
        return True
    a, b = (a.reshape(1), b.reshape(1)) if not a.ndim else (a, b)
    rows = max(1, COPIED_ELEMENTS // max(1, a[:1].numel()))
    same = all(torch.equal(a[i : i + rows], b[i : i + rows]) for i in range(0, len(a), rows))
    shelf.release((a, b))
    return same


def _problems(own: Mapping[str, Tensor], given: _Renaming) -> Iterator[str]:
    for key in given.tensors.keys() - own.keys():
        yield f"unexpected {given.sources[key]} {list(given.tensors[key].shape)}"
    for key in own.keys() & given.tensors.keys():
        wanted, tensor = own[key], given.tensors[key]
        if wanted.shape != tensor.shape:
            yield f"{key} is {list(tensor.shape)}, the module's is {list(wanted.shape)}"
        elif _kind(wanted.dtype) != _kind(tensor.dtype):
            yield f"{key} is {_name(tensor.dtype)}, the module's is {_name(wanted.dtype)}"


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point or dtype.is_complex:
        return "float" if dtype.is_floating_point else "complex"
    return "bool" if dtype == torch.bool else "integer"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _refusal(path: Path, layout: CheckpointLayout, problems: Sequence[str], *, only_missing: bool) -> str:
    way_on = " (--allow-missing draws what is missing from the seed)" if only_missing else ""
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    return f"{path} does not fit (layout {layout.name}), {count}: {'; '.join(sorted(problems))}{way_on}"


def _assign(module: nn.Module, tensors: Mapping[str, Tensor], shelf: Shelf) -> None:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    own = module.state_dict()
    for key, tensor in tensors.items():
        parameter = parameters.get(key)
        same = parameter is not None and parameter.dtype == tensor.dtype and tensor.is_contiguous()
        if parameter is not None and same and shelf.holds(parameter) and shelf.holds(tensor):
            parameter.data = tensor
        else:
            shelf.write(own[key], tensor)


def layout_to_write(module: nn.Module, layouts: Sequence[CheckpointLayout], name: str | None) -> CheckpointLayout:
    """The layout of that name; without a name, the first that can be written and has a way back for every key.

    Raises:
        WeightsError: none of that name, or it is only read.
    """
    written = [layout for layout in layouts if layout.is_written]
    for layout in written:
        if name == layout.name or (name is None and _leads_back(module, layout)):
            return layout
    allowed = ", ".join(layout.name for layout in written) or "none"
    given = "no layout has a way back for every key" if name is None else f"--layout {name!r}"
    raise WeightsError(f"{given}: checkpoints are written in the layouts {allowed}")


def _leads_back(module: nn.Module, layout: CheckpointLayout) -> bool:
    """Whether all keys of a module are found again under a layout's: one of other sizes may be another layout's."""
    try:
        stored_elsewhere(module, layout)
    except WeightsError:
        return False
    return True


def stored_elsewhere(module: nn.Module, layout: CheckpointLayout) -> dict[str, Tensor]:
    """A module's parameters and buffers under a layout's keys, as the layout stores them; nothing is copied.

    Raises:
        WeightsError: a key whose way back does not lead to where it came from.
    """
    found: dict[str, Tensor] = {}
    for own, tensor in module.state_dict().items():
        key = layout.restore(own)
        if not key:
            continue
        back = layout.rename(key)
        if back != own or key in found:
            raise WeightsError(f"layout {layout.name}: {own} is written as {key}, which is read as {back}")
        found[key] = _as_stored_there(tensor, own, layout)
    return found


def _as_stored_there(tensor: Tensor, own: str, layout: CheckpointLayout) -> Tensor:
    if layout.is_transposed(own) and tensor.ndim == MATRIX:
        return tensor.t()
    return tensor[:, :, None, None] if layout.is_pointwise(own) and tensor.ndim == MATRIX else tensor
