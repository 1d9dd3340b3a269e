"""A photograph as the input of an image model, preprocessed as ImageNet models expect."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError
from ..operators.storage import is_float
from .feeds import required_inputs
from .model import Model, TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_PIXELS = 100_000_000
"""A larger picture is refused before it is decoded: 300 MB as bytes."""

LARGEST_SIDE = 8192

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
"""Formats that are decoded; Pillow's others include some that start another program."""

DEFAULT_SIDE = 224
RESIZE_OVER_CROP = 256 / 224
IMAGE_RANK = 4
RGB = 3


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture.

    Attributes:
        resize: the shorter side in pixels after resizing, bilinear with antialiasing.
        crop: height and width in pixels of the centre that is kept.
        mean: per channel, subtracted after division by 255.
        std: per channel, divided by.
    """

    resize: int
    crop: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Layout:
    """Where an input has its batch, channels, height and width."""

    spec: TensorSpec
    channels: int
    height: int | None
    width: int | None
    channels_last: bool


def image_feed(model: Model, image_path: Path, preprocessing: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Read a picture as the feed of a model with one image input.

    The shorter side is resized to 256/224 of the crop, the centre cropped to the model's height and width (224 where it
    leaves them free), values divided by 255 and normalised by ImageNet's mean and standard deviation.

    Args:
        model: a loaded model whose only input is (N, C, H, W) or (N, H, W, C) with 1 or 3 channels.
        image_path: PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, AVIF or JPEG 2000; EXIF orientation is honoured.
        preprocessing: overrides, as in a bundle's manifest under "image_preprocessing":
            {"resize": 256, "crop": 224, "mean": […], "std": […]}.

    Returns:
        One entry: a batch of one, in the input's dtype.

    Raises:
        InvalidInputError: not one image-like input, overrides that make no sense, or no usable picture.
    """
    layout = _image_layout(model)
    settings = _settings(layout, {} if preprocessing is None else preprocessing)
    pixels = _pixels(Path(image_path), "L" if layout.channels == 1 else "RGB", settings)  # (H, W, C) in [0, 1]
    values = (pixels - np.array(settings.mean, np.float32)) / np.array(settings.std, np.float32)
    if not layout.channels_last:
        values = values.transpose(2, 0, 1)  # (C, H, W)
    return {layout.spec.name: np.ascontiguousarray(values[np.newaxis]).astype(layout.spec.dtype)}


def _image_layout(model: Model) -> _Layout:
    specs = required_inputs(model)
    if len(specs) != 1:
        raise InvalidInputError(f"a picture feeds a model with one input; this one has {len(specs)}: give --inputs")
    spec = specs[0]
    shape = spec.shape
    if shape is None or len(shape) != IMAGE_RANK or spec.dtype is None or not is_float(spec.dtype):
        raise InvalidInputError(
            f"input {spec.name!r} ({spec.dtype}, shape {_shown(shape)}) is not a picture; allowed is a floating-point "
            "(N, 3, H, W), (N, 1, H, W) or (N, H, W, 3)"
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise InvalidInputError(f"input {spec.name!r} takes a batch of {shape[0]}; one picture is a batch of 1")
    return _layout(spec, shape)


def _shown(shape: Sequence[int | str | None] | None) -> str:
    return "unknown" if shape is None else str(["?" if dim is None else dim for dim in shape])


def _layout(spec: TensorSpec, shape: tuple[int | str | None, ...]) -> _Layout:
    channels_last = shape[1] not in (1, RGB) and shape[3] in (1, RGB)
    channels, height, width = (shape[3], shape[1], shape[2]) if channels_last else shape[1:]
    if isinstance(channels, int) and channels not in (1, RGB):
        raise InvalidInputError(f"input {spec.name!r} has {channels} channels; a picture has 1 or 3")
    return _Layout(spec, channels if isinstance(channels, int) else RGB, _side(height), _side(width), channels_last)


def _side(dim: int | str | None) -> int | None:
    return dim if isinstance(dim, int) else None


def _settings(layout: _Layout, given: Mapping[str, Any]) -> Preprocessing:
    """Overrides, then what the model declares, then ImageNet's habit."""
    unknown = sorted(set(given) - {"resize", "crop", "mean", "std"})
    if unknown:
        raise InvalidInputError(f"image preprocessing {unknown[0]!r} is unknown; known are resize, crop, mean, std")
    crop = _crop(layout, given.get("crop"))
    resize = _positive_integer("resize", given.get("resize", round(min(crop) * RESIZE_OVER_CROP)))
    mean = _channel_values("mean", given.get("mean"), Preprocessing.mean, layout.channels)
    std = _channel_values("std", given.get("std"), Preprocessing.std, layout.channels)
    if min(std) <= 0:
        raise InvalidInputError(f"image preprocessing std is {list(std)}; allowed are positive numbers")
    return Preprocessing(resize, crop, mean, std)


def _crop(layout: _Layout, given: Any) -> tuple[int, int]:
    pair = list(given) if isinstance(given, (list, tuple)) else [given, given]
    if len(pair) != 2:
        raise InvalidInputError(f"image preprocessing crop is {given!r}; allowed are one size or height and width")
    wanted = [DEFAULT_SIDE if size is None else _positive_integer("crop", size) for size in pair]
    for declared, size in zip((layout.height, layout.width), wanted, strict=True):
        if declared is not None and given is not None and declared != size:
            raise InvalidInputError(
                f"image preprocessing crop is {given!r}; input {layout.spec.name!r} takes {declared}"
            )
    height, width = layout.height, layout.width
    if 0 in (height, width):
        raise InvalidInputError(f"input {layout.spec.name!r} has an empty picture: {_shown(layout.spec.shape)}")
    return (wanted[0] if height is None else height), (wanted[1] if width is None else width)


def _positive_integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST_SIDE:
        raise InvalidInputError(f"image preprocessing {name} is {value!r}; allowed are pixels from 1 to {LARGEST_SIDE}")
    return value


def _channel_values(name: str, given: Any, usual: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if given is None:
        return usual if channels == RGB else (float(np.mean(usual)),)
    numbers = isinstance(given, (list, tuple)) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value) for value in given
    )
    if not numbers or len(given) != channels:
        raise InvalidInputError(f"image preprocessing {name} is {given!r}; allowed is a list of {channels} numbers")
    return tuple(float(value) for value in given)


def _pixels(path: Path, mode: str, settings: Preprocessing) -> np.ndarray:
    """The picture, upright, resized and cropped: float32 (H, W, C) in [0, 1]."""
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 (only commands with a picture pay for it)

    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=formats) as opened:
            _check_size(path, opened)
            picture = _cropped(_as_mode(ImageOps.exif_transpose(opened), mode), settings)
    except UnidentifiedImageError:
        raise InvalidInputError(f"{path}: not a picture; allowed are {', '.join(FORMATS)}") from None
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise InvalidInputError(f"{path}: no usable picture: {' '.join(str(error).split())}") from error
    values = np.asarray(picture, np.float32) / np.float32(255)
    return values if mode == "RGB" else values[..., np.newaxis]


_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    RuntimeError,
    MemoryError,
    LookupError,
    ArithmeticError,
)
_DAMAGED += (AttributeError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files, besides what they call unidentified."""


def _check_size(path: Path, picture: Image) -> None:
    if picture.width * picture.height > LARGEST_PIXELS:
        raise InvalidInputError(
            f"{path}: {picture.width} × {picture.height} pixels; at most {LARGEST_PIXELS} are taken"
        )


def _as_mode(picture: Image, mode: str) -> Image:
    """Eight bits a channel: transparency is dropped, 16-bit greys are scaled."""
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        from PIL import Image  # noqa: PLC0415

        grey = np.clip(np.asarray(picture, np.float64) / (1 if picture.mode == "F" else 257), 0, 255)
        picture = Image.fromarray(grey.astype(np.uint8))
    return picture.convert(mode)


def _cropped(picture: Image, settings: Preprocessing) -> Image:
    from PIL.Image import Resampling  # noqa: PLC0415

    height, width = settings.crop
    scale = max(settings.resize / min(picture.size), height / picture.height, width / picture.width)
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    if max(size) > 4 * LARGEST_SIDE:
        raise ValueError(f"{picture.width} × {picture.height} pixels become {size[0]} × {size[1]} when resized")
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    resized = picture.resize(size, Resampling.BILINEAR)
    return resized.crop((left, top, left + width, top + height))
