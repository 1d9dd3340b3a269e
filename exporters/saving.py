"""Write a module's parameters as a checkpoint of an ecosystem: `--save-weights FILE|DIR [--layout NAME]`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor, nn

from ..architectures.specification import CheckpointLayout
from ..errors import WeightsError
from .checkpoint_folder import CONFIG, MODEL_INDEX, PICKLES, SAFETENSORS, SCHEDULER_CONFIG
from .paging import Shelf
from .safetensors_file import write_safetensors
from .weights import layout_to_write, stored_elsewhere

WEIGHTS = f"model{SAFETENSORS}"


def save_weights(  # noqa: PLR0913 - what, where, how
    module: nn.Module,
    path: Path,
    layouts: Sequence[CheckpointLayout],
    shelf: Shelf,
    *,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a checkpoint that the ecosystem of a layout reads.

    Args:
        module: whose parameters and buffers, in the type that they have.
        path: a .safetensors file, or a folder, which is made: with `model.safetensors` or the layout's own files.
        layouts: of the architecture.
        shelf: where large parameters lie.
        name: of the layout; None is the first that can be written and knows every key of the module.
        config: of the folder that the parameters came from; it is written too.

    Returns:
        The files written.

    Raises:
        WeightsError: no such layout, a layout of several files for one file, a pickle, or what cannot be written.
    """
    if path.suffix in PICKLES:
        raise WeightsError(f"{path}: pickles are not written; allowed are a {SAFETENSORS} file and a folder")
    layout = layout_to_write(module, layouts, name)
    tensors = stored_elsewhere(module, layout)
    if path.suffix == SAFETENSORS:
        if layout.files:
            raise WeightsError(f"{path}: layout {layout.name} has a file for each part; name a folder")
        places = {path: tensors}
    else:
        places = {path / file: part for file, part in _by_file(tensors, layout).items()}
    for file, part in places.items():
        _make_folder(file.parent)
        partial = file.with_name(f".{file.name}.partial")
        try:
            write_safetensors(partial, part, shelf)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return [*places, *(_write_configs(path, layout, config) if path.suffix != SAFETENSORS and config else ())]


def _by_file(tensors: Mapping[str, Tensor], layout: CheckpointLayout) -> dict[str, dict[str, Tensor]]:
    """Tensors by file; of several files, each has its keys without the part's name."""
    if not layout.files:
        return {WEIGHTS: dict(tensors)}
    files = {part: _without_pickle(file) for part, file in layout.files.items()}
    found: dict[str, dict[str, Tensor]] = {file: {} for file in files.values()}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        if part not in layout.files:
            raise WeightsError(f"layout {layout.name}: {key} belongs to none of {', '.join(layout.files)}")
        found[files[part]][rest] = tensor
    return found


def _without_pickle(file: str) -> str:
    """The name under which an ecosystem looks for the safetensors file in place of its pickled one."""
    path = PurePosixPath(file)
    if path.suffix == SAFETENSORS:
        return file
    return str(path.with_name(WEIGHTS if path.stem == "pytorch_model" else f"{path.stem}{SAFETENSORS}"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{folder}: cannot be made: {error.strerror}") from error


def _write_configs(folder: Path, layout: CheckpointLayout, config: Mapping[str, Any]) -> list[Path]:
    """The configs as they were read, where they were."""
    own = {part: folder / file for part, file in layout.files.items()}
    found = {path.parent / CONFIG: config[part] for part, path in own.items() if part in config}
    if not layout.files:
        found = {folder / CONFIG: config}
    for name, file in (("scheduler", f"scheduler/{SCHEDULER_CONFIG}"), ("model_index", MODEL_INDEX)):
        if layout.files and name in config:
            found[folder / file] = config[name]
    for file, content in found.items():
        _make_folder(file.parent)
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return list(found)
