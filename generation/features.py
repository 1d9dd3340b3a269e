"""What a feature map of ZFNet looks for: the deconvnet's pictures, as in figure 2 of the paper.

Paper: Zeiler, Fergus, https://arxiv.org/abs/1311.2901. The graph `deconvnet-N` of a bundle is run in ONNX Runtime: once
for the strongest activation of every feature map of layer N, then once for every map that is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError, InvalidInputError
from ..graphs.images import image_feed
from ..graphs.loading import load_model
from ..graphs.model import Model
from .sessions import BoundSession

Array = np.ndarray[Any, np.dtype[Any]]

GRAPH = "deconvnet-"
CROP_MARGIN = 0.25
"""Of the height and width of what an activation saw, shown around it in the photograph's cut-out."""

PERCENTILE = 99.5
"""Of a picture's absolute values: what becomes full brightness, as one pixel may be far brighter than the others."""

GREY = 0.5
GAP = 4
"""Pixels between the pictures of a grid."""


@dataclass(frozen=True)
class Projection:
    """One feature map, projected back.

    Attributes:
        feature: its number.
        strength: its strongest activation.
        pixels: (3, H, W), what the deconvnet gave.
        box: top, left, bottom, right of the pixels that can have caused the activation.
    """

    feature: int
    strength: float
    pixels: Array
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Features:
    """A photograph as the network saw it, (3, H, W) in [0, 1], and what features of a layer found in it."""

    layer: int
    photograph: Array
    projections: tuple[Projection, ...]


def project(  # noqa: PLR0913 - what a user may ask for
    folder: Path,
    manifest: Mapping[str, Any],
    image: Path,
    layer: int,
    features: Sequence[int] = (),
    *,
    top: int = 9,
) -> Features:
    """Project feature maps of a layer back to the pixels of a photograph.

    Args:
        folder: of the bundle.
        manifest: its manifest.
        image: the photograph.
        layer: counted from 1.
        features: numbers of the feature maps; none takes the `top` with the strongest activations.
        top: how many, the strongest first; fewer where fewer respond at all.

    Raises:
        InvalidArgumentError: a bundle without that deconvnet, or a feature map that the layer does not have.
        InvalidInputError: no usable photograph, or none of the features responds to it.
    """
    path, preprocessing = _graph(folder, manifest, layer), manifest.get("image_preprocessing")
    feeds = image_feed(_of_images(load_model(path)), image, preprocessing)
    session = BoundSession(path)
    strengths = _run(session, feeds, 0)["strengths"][0]  # (C,)
    chosen = [*features] if features else _strongest(strengths, top)
    unknown = [feature for feature in chosen if not 0 <= feature < len(strengths)]
    if unknown:
        raise InvalidArgumentError(f"--feature {unknown[0]}: layer {layer} has 0 to {len(strengths) - 1}")
    if not any(strengths[feature] > 0 for feature in chosen):
        raise InvalidInputError(f"{image}: no feature of layer {layer} that was asked for responds to it")
    projections = [_projection(session, feeds, feature, strengths[feature]) for feature in chosen]
    return Features(layer, _photograph(feeds["image"][0], preprocessing or {}), tuple(projections))


def _graph(folder: Path, manifest: Mapping[str, Any], layer: int) -> Path:
    paths = {entry["name"]: folder / entry["model"] for entry in manifest["graphs"]}
    layers = sorted(int(name.removeprefix(GRAPH)) for name in paths if name.startswith(GRAPH))
    if not layers:
        raise InvalidArgumentError(f"{folder} holds no deconvnet; `onnx-arch export zfnet` makes one")
    if layer not in layers:
        raise InvalidArgumentError(f"--layer {layer}; allowed are {layers[0]} to {layers[-1]}")
    return paths[f"{GRAPH}{layer}"]


def _of_images(model: Model) -> Model:
    """The model with its picture as only input, for preprocessing."""
    inputs = tuple(spec for spec in model.graph.inputs if spec.name != "feature")
    return replace(model, graph=replace(model.graph, inputs=inputs))


def _run(session: BoundSession, feeds: Mapping[str, Array], feature: int) -> dict[str, Array]:
    found = session.run({**feeds, "feature": np.array([feature], np.int64)})
    return {name: value.numpy() for name, value in found.items()}


def _strongest(strengths: Array, top: int) -> list[int]:
    """Numbers of the feature maps that respond, the strongest first."""
    order = np.argsort(-strengths, kind="stable")[:top]
    return [int(feature) for feature in order if strengths[feature] > 0] or [int(order[0])]


def _projection(session: BoundSession, feeds: Mapping[str, Array], feature: int, strength: float) -> Projection:
    pixels = _run(session, feeds, feature)["pixels"][0].astype(np.float32)
    return Projection(feature, float(strength), pixels, _box(pixels))


def _box(pixels: Array) -> tuple[int, int, int, int]:
    """The rectangle outside which the picture is zero; all of it where it is zero everywhere."""
    lit = np.abs(pixels).max(axis=0) > 0
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not rows.size:
        return 0, 0, lit.shape[0], lit.shape[1]
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _photograph(values: Array, preprocessing: Mapping[str, Any]) -> Array:
    """The network's input as a picture again: (3, H, W) in [0, 1]."""
    mean = np.array(preprocessing.get("mean", (0.485, 0.456, 0.406)), np.float32)
    std = np.array(preprocessing.get("std", (0.229, 0.224, 0.225)), np.float32)
    return np.clip(values.astype(np.float32) * std[:, None, None] + mean[:, None, None], 0, 1)


def normalised(pixels: Array) -> Array:
    """A projection as a picture: grey where it is zero, its large values black and white. (3, H, W) in [0, 1]."""
    largest = float(np.percentile(np.abs(pixels[pixels != 0]), PERCENTILE)) if pixels.any() else 1.0
    return np.clip(GREY + GREY * pixels / largest, 0, 1)


def grid(found: Features) -> Array:
    """The pictures of the paper's figure: projections in a square on the left, the photograph's cut-outs on the right.

    Every tile shows what the feature's strongest activation saw, enlarged to the size of the largest; below layer 5
    that is a part of the photograph.

    Returns:
        (H, W, 3), bytes.
    """
    boxes = [_square(projection.box, found.photograph.shape[1:]) for projection in found.projections]
    side = max(bottom - top for top, _, bottom, _ in boxes)
    side = side * max(1, -(-96 // side))  # small patches are enlarged by whole numbers
    left = [_tile(normalised(item.pixels), box, side) for item, box in zip(found.projections, boxes, strict=True)]
    right = [_tile(found.photograph, box, side) for box in boxes]
    pictures = [_arranged(tiles, side) for tiles in (left, right)]
    gap = np.full((pictures[0].shape[0], 2 * GAP, 3), 255, np.uint8)
    return np.concatenate([pictures[0], gap, pictures[1]], axis=1)


def _square(box: tuple[int, int, int, int], size: Sequence[int]) -> tuple[int, int, int, int]:
    """A box with some of its surroundings, square, within the picture."""
    top, left, bottom, right = box
    side = min(round(max(bottom - top, right - left) * (1 + CROP_MARGIN)), *size)
    top = min(max((top + bottom - side) // 2, 0), size[0] - side)
    left = min(max((left + right - side) // 2, 0), size[1] - side)
    return top, left, top + side, left + side


def _tile(picture: Array, box: tuple[int, int, int, int], side: int) -> Array:
    """(3, H, W) in [0, 1], cut out and enlarged: (side, side, 3), bytes."""
    from PIL import Image  # noqa: PLC0415 - only commands with a picture pay for it

    top, left, bottom, right = box
    part = np.round(picture[:, top:bottom, left:right].transpose(1, 2, 0) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BICUBIC))


def _arranged(tiles: Sequence[Array], side: int) -> Array:
    """The tiles row by row in a square, on white."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows, step = -(-len(tiles) // columns), side + GAP
    sheet = np.full((rows * step + GAP, columns * step + GAP, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = GAP + index // columns * step, GAP + index % columns * step
        sheet[top : top + side, left : left + side] = tile
    return sheet
