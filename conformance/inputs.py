"""Where the inputs of a check come from: a file, test data, a picture, or seeded random numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError, InvalidInputError
from ..graphs.feeds import load_npz, random_feeds
from ..graphs.images import image_feed
from ..graphs.model import Model
from ..graphs.test_data import find_test_data, read_test_data

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class InputSource:
    """At most one of `file`, `test_data`, `image`; else random inputs.

    Attributes:
        file: an .npz with an array per input.
        test_data: a folder with input_0.pb, … or test_data_set_0, ….
        image: a picture for a model with one image input.
        dims: sizes of symbolic dims for random inputs.
        seed: of random inputs.
        bundle: the folder of an export, whose own test data stand in where nothing else is asked for.
    """

    file: Path | None = None
    test_data: Path | None = None
    image: Path | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None
    bundle: Path | None = None


def load_feeds(model: Model, source: InputSource) -> tuple[dict[str, Any], dict[str, Any]]:
    """The feeds of a model, validated, and how a result's header names their source.

    Raises:
        InvalidArgumentError: two sources at once.
        InvalidInputError: unreadable, or not what the model takes; a symbolic dim without a size.
    """
    given = [path for path in (source.file, source.test_data, source.image) if path is not None]
    if len(given) > 1:
        raise InvalidArgumentError("inputs are given twice: allowed is one of --inputs, --test-data and --image")
    if given and source.dims:
        raise InvalidArgumentError("--dim sizes random inputs; with --inputs, --test-data or --image it has no use")
    if source.file is not None:
        return load_npz(model, source.file), {"inputs": source.file.name}
    if source.test_data is not None:
        return _test_data(model, source.test_data)
    if source.image is not None:
        return image_feed(model, source.image, _preprocessing(model)), {"inputs": source.image.name}
    own = None if source.bundle is None else source.bundle / "test_data_set_0"
    if own is not None and own.is_dir() and not source.dims and source.seed is None:
        return _test_data(model, own)
    seed = source.seed or 0
    return random_feeds(model, dims=source.dims, seed=seed), {
        "inputs": "random",
        "seed": seed,
        "dims": dict(source.dims),
    }


def _test_data(model: Model, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    first = find_test_data(folder)[0]
    feeds, _ = read_test_data(model, first)
    return feeds, {"inputs": first.name}


def _preprocessing(model: Model) -> Mapping[str, Any] | None:
    """What the manifest beside the model says of pictures; None where there is no manifest or it says nothing."""
    manifest = model.path.parent / MANIFEST
    if not manifest.is_file():
        return None
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInputError(f"{manifest}: not a readable manifest: {error}") from error
    return content.get("image_preprocessing") if isinstance(content, dict) else None
