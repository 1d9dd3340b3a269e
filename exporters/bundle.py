"""The folder that an export ends in: written beside its place, then renamed, so that it is whole or not there.

    resnet18/  model.onnx (+ model.onnx.data)  test_data_set_0/{input_0.pb, …, output_0.pb, …}  manifest.json

An architecture of several graphs has one such set per graph, in a folder of the graph's name, and one manifest.

`manifest.json` holds what was exported and how it was proved. Everything but `record` (durations, figures) depends only
on what was asked for, and is covered by `content_sha256`. Nothing here needs torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ExportError, InvalidArgumentError, InvalidModelError
from ..graphs.loading import MANIFEST
from .proof import WRONG, GraphProof, Standing, worst

TEST_DATA = "test_data_set_0"
FORMAT = "onnx-arch bundle"
FORMAT_VERSION = 1
UNHASHED = ("record", "content_sha256")


@dataclass(frozen=True)
class Bundle:
    """The result of an export.

    Attributes:
        name: of what was exported.
        path: the folder; nothing is there if the export is wrong.
        manifest: what manifest.json says.
        proofs: of every graph.
        written: whether the folder was written.
        durations_s: seconds by stage: "build", "trace and translate", "write", "prove".
    """

    name: str
    path: Path
    manifest: Mapping[str, Any]
    proofs: tuple[GraphProof, ...]
    written: bool
    durations_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def translation(self) -> Standing:
        """The worst of the graphs' translations."""
        return worst([proof.translation for proof in self.proofs])

    @property
    def runtime(self) -> Standing:
        """The worst of ONNX Runtime's trials."""
        return worst([proof.runtime for proof in self.proofs])

    @property
    def is_wrong(self) -> bool:
        """Whether graph or ONNX Runtime disagree with the module."""
        return self.translation in WRONG or self.runtime in WRONG


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a bundle folder.

    Raises:
        InvalidModelError: there is none, or it is not one of ours.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidModelError(f"{path} is no bundle: it has no {MANIFEST}") from error
    except (OSError, ValueError) as error:
        raise InvalidModelError(f"{path / MANIFEST} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InvalidModelError(f"{path / MANIFEST} is not the manifest of a bundle")
    if manifest.get("format_version") != FORMAT_VERSION:
        given = manifest.get("format_version")
        raise InvalidModelError(f"{path / MANIFEST} has format version {given}; {FORMAT_VERSION} is read")
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write manifest.json with the digest of its content; returns it with the digest."""
    complete = {**manifest, "content_sha256": content_sha256(manifest)}
    text = json.dumps(complete, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return complete


def content_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all that depends only on what was asked for."""
    content = {key: value for key, value in manifest.items() if key not in UNHASHED}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def check_target_folder(target: Path) -> None:
    """Refuse to replace anything but a bundle or an empty folder.

    Raises:
        InvalidArgumentError: a file, a link, or a folder with something else in it.
    """
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise InvalidArgumentError(f"{target} exists and is no folder; give another -o")
    try:
        read_manifest(target)
    except InvalidModelError as error:
        if any(target.iterdir()):
            raise InvalidArgumentError(f"{target} exists and is not replaced: {error}") from error


@contextmanager
def staged_folder(target: Path) -> Iterator[Staged]:
    """A folder beside `target` to write in; `keep` puts it in place, and without it nothing stays.

    Raises:
        InvalidArgumentError: something else is at `target`, or its folder cannot be written to.
        ExportError: no space is left.
    """
    check_target_folder(target)
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise InvalidArgumentError(f"{target.parent} cannot be written to: {error.strerror}") from error
    try:
        yield Staged(staging, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(target.parent).free
        raise ExportError(f"no space left for {target}: {free} bytes are free; nothing was written") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, until one has something in it."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@dataclass(frozen=True)
class Staged:
    """A folder that is being written, and where it is to be."""

    folder: Path
    target: Path

    def check_space(self, needed_bytes: int) -> None:
        """Refuse early what will not fit.

        Raises:
            ExportError: less space is free than is needed.
        """
        free = shutil.disk_usage(self.folder).free
        if free < needed_bytes:
            raise ExportError(f"{self.target} needs {needed_bytes} bytes, {free} are free; nothing was written")

    def keep(self) -> None:
        """Put the folder in place of what is there.

        Raises:
            InvalidArgumentError: something that is no bundle has come to be there.
        """
        check_target_folder(self.target)
        self.folder.chmod(0o777 & ~_umask())
        if not self.target.exists():
            self.folder.rename(self.target)
            return
        old = self.folder.with_suffix(".replaced")
        self.target.rename(old)
        try:
            self.folder.rename(self.target)
        except OSError:
            old.rename(self.target)
            raise
        _carry_over(old, self.target)
        shutil.rmtree(old, ignore_errors=True)


def _carry_over(old: Path, new: Path) -> None:
    """Move what the old bundle did not write itself (reports, notes) into the new one."""
    own = {MANIFEST, *_files_of(old)}
    for path in sorted(old.rglob("*")):
        relative = path.relative_to(old)
        ours = str(relative) in own or path.name.endswith((".onnx", ".onnx.data"))
        if path.is_file() and not ours and not (new / relative).exists():
            (new / relative).parent.mkdir(parents=True, exist_ok=True)
            path.rename(new / relative)


def _files_of(bundle: Path) -> set[str]:
    """The files that a bundle's manifest names."""
    try:
        content = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        return set(content["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _umask() -> int:
    """The process's mask; reading it means setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
