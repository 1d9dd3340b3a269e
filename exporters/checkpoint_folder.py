"""What a `--weights` path holds: one file, the shards of an index, or a folder of Hugging Face or diffusers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from .paging import Shelf
from .pickle_file import read_pickle
from .safetensors_file import read_safetensors

SAFETENSORS = ".safetensors"
PICKLES = (".pt", ".pth", ".bin", ".ckpt")
INDEX = ".index.json"
CONFIG = "config.json"
MODEL_INDEX = "model_index.json"
SCHEDULER_CONFIG = "scheduler_config.json"

NAMES = ("model", "diffusion_pytorch_model", "pytorch_model")
"""Stems of the weights in folders, the ones that are preferred first."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of all keys that DataParallel and torch.compile leave."""

LARGEST_JSON_BYTES = 50_000_000


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: nothing of its tensors is in memory.

    Attributes:
        path: as it was given.
        tensors: by key; views of mapped files where the format allows it.
        files: every file that was read, with its path below (or beside) `path`.
        config: of a folder: the content of its config.json, of a diffusers folder those of its parts; None without.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]
    config: Mapping[str, Any] | None = None

    def sha256(self) -> dict[str, str]:
        """Digest by file."""
        return {name: _digest(path) for name, path in self.files.items()}


@dataclass
class _Found:
    tensors: dict[str, Tensor] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def read_checkpoint(path: Path, shelf: Shelf | None = None, parts: Sequence[str] = ()) -> Checkpoint:
    """Find and map a checkpoint.

    Args:
        path: .safetensors; a file of `torch.save` (.pt, .pth, .bin, .ckpt), read with `weights_only=True`: no code in
            it is run; an index of shards (`….index.json`); or a folder with one of these, or with a sub-folder for each
            of `parts`.
        shelf: takes the mappings over.
        parts: sub-folders of a diffusers folder that are wanted; their keys begin with the sub-folder's name.

    Raises:
        WeightsError: missing, of an unknown kind, corrupted, or holding anything but tensors.
    """
    shelf = Shelf() if shelf is None else shelf
    found, config = _Found(), None
    if path.is_dir():
        config = _read_folder(path, shelf, parts, found)
    else:
        _add(found, _read(path, shelf), path)
    return Checkpoint(path, _unwrapped(found.tensors), found.files, config)


def _add(found: _Found, content: tuple[Mapping[str, Tensor], Mapping[str, Path]], path: Path, prefix: str = "") -> None:
    tensors, files = content
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors")
    found.tensors.update({prefix + key: tensor for key, tensor in tensors.items()})
    found.files.update({prefix.replace(".", "/") + name: file for name, file in files.items()})


def _read(path: Path, shelf: Shelf) -> tuple[dict[str, Tensor], dict[str, Path]]:
    """Tensors and files of one file or index."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file or folder")
    if path.name.endswith(INDEX):
        return _read_shards(path, shelf)
    return _read_file(path, shelf), {path.name: path}


def _read_file(path: Path, shelf: Shelf) -> dict[str, Tensor]:
    if path.suffix == SAFETENSORS:
        return read_safetensors(path, shelf)
    if path.suffix in PICKLES:
        return read_pickle(path, shelf)
    allowed = ", ".join((SAFETENSORS, *PICKLES, f"*{INDEX}"))
    raise WeightsError(f"{path}: unknown kind {path.suffix!r}; allowed are {allowed} and folders")


def _read_shards(index: Path, shelf: Shelf) -> tuple[dict[str, Tensor], dict[str, Path]]:
    """The tensors of all shards of an index; each must be in the shard that the index names, and in no other."""
    places = _json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()) or not places:
        raise WeightsError(f"{index}: no index of shards: it has no weight_map of file names")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise WeightsError(f"{index}: it names the shard {name[:200]!r}; allowed is a file beside the index")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise WeightsError(f"{index}: {len(missing)} of {len(names)} shards are missing: {', '.join(missing)}")
    tensors: dict[str, Tensor] = {}
    owners: dict[str, str] = {}
    for name in names:
        for key, tensor in _read_file(index.parent / name, shelf).items():
            if key in owners:
                raise WeightsError(f"{index}: {key} is in two shards, {owners[key]} and {name}")
            tensors[key], owners[key] = tensor, name
    astray = [key for key, name in places.items() if owners.get(key) != name]
    if astray:
        told = f"{astray[0]} should be in {places[astray[0]]} and is in {owners.get(astray[0], 'none')}"
        raise WeightsError(f"{index}: {len(astray)} keys are not where it says: {told}")
    return tensors, {index.name: index, **{name: index.parent / name for name in names}}


def _json_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise WeightsError(f"{path}: {path.stat().st_size} bytes; such a file has at most {LARGEST_JSON_BYTES}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: no JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: no JSON object")
    return content


def _read_folder(folder: Path, shelf: Shelf, parts: Sequence[str], found: _Found) -> dict[str, Any] | None:
    """Read a folder into `found`; returns its config."""
    present = [part for part in parts if (folder / part).is_dir()]
    if not present:
        _add(found, _read(_weights_file(folder), shelf), folder)
        return _json_object(folder / CONFIG) if (folder / CONFIG).is_file() else None
    config: dict[str, Any] = {}
    for part in present:
        _add(found, _read(_weights_file(folder / part), shelf), folder / part, f"{part}.")
    for name, file in [(MODEL_INDEX.removesuffix(".json"), folder / MODEL_INDEX), *_configs(folder)]:
        if file.is_file():
            config[name] = _json_object(file)
    return config or None


def _configs(folder: Path) -> list[tuple[str, Path]]:
    """Name and config of every sub-folder."""
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return [(path.name, path / (SCHEDULER_CONFIG if path.name == "scheduler" else CONFIG)) for path in inner]


def _weights_file(folder: Path) -> Path:
    """The one file of a folder that holds its weights, or their index.

    Raises:
        WeightsError: none, or several that no rule prefers.
    """
    for suffix in (SAFETENSORS, ".bin"):
        for stem in NAMES:
            for name in (f"{stem}{suffix}", f"{stem}{suffix}{INDEX}"):
                if (folder / name).is_file():
                    return folder / name
    files = sorted(path for path in folder.iterdir() if path.is_file())
    indices = [path for path in files if path.name.endswith(INDEX)]
    for kind in (indices, *([p for p in files if p.suffix in kinds] for kinds in ((SAFETENSORS,), PICKLES))):
        if len(kind) == 1:
            return kind[0]
        if kind:
            names = ", ".join(path.name for path in kind[:8])
            raise WeightsError(f"{folder}: {len(kind)} files may be the weights: {names}; name one")
    raise WeightsError(f"{folder}: a folder without weights; allowed are {SAFETENSORS}, {', '.join(PICKLES)} in it")


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys without a prefix that a wrapper gave to all of them."""
    for prefix in WRAPPERS:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return _unwrapped({key.removeprefix(prefix): tensor for key, tensor in tensors.items()})
    return dict(tensors)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
