"""The bundle that a generator runs: a folder that was exported, or an architecture that is exported once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ..exporters.bundle import MANIFEST, read_manifest


def find_bundle(
    subject: str, options: Mapping[str, Any], cache: Path, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest of what `subject` names.

    Args:
        subject: the folder of an export, or the name of an architecture.
        options: of the export of an architecture: "preset", "weights", "seed", "dtype", "opset"; None is its default.
        cache: where exports of architectures are kept: the same request is not exported again.
        say: told what is done next.

    Raises:
        InvalidArgumentError: options of an export beside a folder that was exported already, or a wrong export.
        UnknownEntryError: no such architecture.
    """
    folder = Path(subject)
    if (folder / MANIFEST).is_file():
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise InvalidArgumentError(f"--{given[0]} means nothing here: {subject} is exported already")
        return folder, read_manifest(folder)
    return _exported(subject, {name: value for name, value in options.items() if value is not None}, cache, say)


def _exported(
    name: str, options: dict[str, Any], cache: Path, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    from ..architectures.registry import listings  # noqa: PLC0415 - reads every file
    from ..errors import UnknownEntryError  # noqa: PLC0415 - as above

    if name not in listings():
        raise UnknownEntryError(f"{name} is no bundle and no architecture; there are {', '.join(listings())}")
    target = cache / _key(name, options)
    if not (target / name / MANIFEST).is_file():
        from ..exporters.export import export_architecture  # noqa: PLC0415 - imports torch

        bundle = export_architecture(name, target, say=say, **options)
        if bundle.is_wrong:
            raise InvalidArgumentError(f"{name}: the export is wrong; `onnx-arch export {name}` says where")
    return target / name, read_manifest(target / name)


def _key(name: str, options: Mapping[str, Any]) -> str:
    """A folder name for one request: what is asked for, and of files when they were last changed."""
    from ..exporters.description import versions  # noqa: PLC0415 - heavy

    words = [f"{key}={_state(value)}" for key, value in sorted(options.items())]
    words += [f"{package}={version}" for package, version in sorted(versions().items())]
    return f"{name}-{hashlib.sha256('|'.join(words).encode()).hexdigest()[:16]}"


def _state(value: Any) -> str:
    if not isinstance(value, Path):
        return str(value)
    files = sorted(value.rglob("*")) if value.is_dir() else [value]
    return "|".join(f"{file.resolve()}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)
