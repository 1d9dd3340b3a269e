"""The tokenizer files of a checkpoint's folder, copied into the bundle: what it generates, it generates from text."""

from __future__ import annotations

from pathlib import Path

from .serialization import WrittenFile, write_bytes

FOLDER = "tokenizer"
"""Of a bundle, and of a diffusers folder."""

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")
"""What makes a folder a tokenizer's: one of these at least."""

KNOWN = (*VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json")


def copy_tokenizer(weights: Path | None, bundle: Path) -> tuple[WrittenFile, ...]:
    """Copy what there is of a tokenizer beside a checkpoint.

    Args:
        weights: the checkpoint's folder, or a file in one that has a `config.json`.
        bundle: the files go to its folder "tokenizer".

    Returns:
        What was written, named from the bundle's folder.
    """
    source = _source(weights)
    found = [] if source is None else [source / name for name in KNOWN if (source / name).is_file()]
    if not {file.name for file in found} & {*VOCABULARIES}:
        return ()
    (bundle / FOLDER).mkdir()
    written = [write_bytes(file.read_bytes(), bundle / FOLDER / file.name) for file in found]
    return tuple(WrittenFile(f"{FOLDER}/{file.name}", file.sha256, file.size_bytes) for file in written)


def _source(weights: Path | None) -> Path | None:
    """The folder in which the tokenizer lies, if there may be one."""
    if weights is None or not (weights.is_dir() or (weights.parent / "config.json").is_file()):
        return None
    folder = weights if weights.is_dir() else weights.parent
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder
