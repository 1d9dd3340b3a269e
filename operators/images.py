"""ImageDecoder: pictures as Pillow reads them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from .registry import kernel, scale
from .scale import Array, Rule, Scale

FORMATS = ("BMP", "JPEG", "JPEG2000", "TIFF", "PNG", "WEBP", "PPM")
"""Pillow's names of the formats that the specification lists."""

PIXEL_FORMATS = ("RGB", "BGR", "Grayscale")

PLAIN_MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "YCbCr")
"""Pillow's modes of 8-bit pictures; how 16-bit and CMYK ones become 8-bit RGB the text does not say."""

ORIENTATION = 0x0112
"""EXIF tag; 1 is upright."""

JPEG_STEPS = 3
"""A conforming inverse cosine transform is within one step; at B = Y + 1.772 Cb that is 2.8 steps and a rounding on
both sides."""

GRAY_STEPS = 1
"""0.299 R + 0.587 G + 0.114 B in fixed point, cut or rounded."""

_CODING_STYLE = b"\xff\x52"
_TRANSFORM_AT = 13
"""Bytes from the marker of a JPEG 2000 coding style to its wavelet: 0 is the irreversible one."""


def _opened(encoded: Array) -> Any:
    """The picture, decoded.

    Raises:
        InvalidInputError: one that Pillow cannot decode, or whose decoding the specification leaves open.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 (heavy: at the point of use)

    try:
        image = Image.open(io.BytesIO(np.asarray(encoded, np.uint8).tobytes()), formats=FORMATS)
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInputError(
            f"ImageDecoder: Pillow cannot decode it ({error}); an empty picture is right then, its shape is not said"
        ) from error
    if image.mode not in PLAIN_MODES:
        raise InvalidInputError(f"ImageDecoder: a picture of mode {image.mode}; how it becomes 8-bit RGB is not said")
    if image.getexif().get(ORIENTATION, 1) != 1:
        raise InvalidInputError("ImageDecoder: a picture with a turned orientation; who turns it is not said")
    return image


def _converted(image: Any, pixel_format: str) -> Array:
    """(H, W, channels)."""
    if pixel_format not in PIXEL_FORMATS:
        allowed = ", ".join(PIXEL_FORMATS)
        raise InvalidAttributeError(f"ImageDecoder: pixel_format={pixel_format!r}; allowed are {allowed}")
    if pixel_format == "Grayscale":
        return np.asarray(image.convert("L"))[:, :, None]
    rgb = np.asarray(image.convert("RGB"))
    return rgb[:, :, ::-1].copy() if pixel_format == "BGR" else rgb


@kernel("ImageDecoder", since=20)
def image_decoder(encoded_stream: Array, /, *, pixel_format: str = "RGB") -> Array:
    """A picture from the bytes of a file.

    Args:
        encoded_stream: uint8 (n,): BMP, JPEG, JPEG 2000, TIFF, PNG, WebP or a portable map.
        pixel_format: RGB, BGR or Grayscale (ITU-R 601 luma).

    Returns:
        (height, width, 3 or 1), uint8; transparency is dropped.

    Raises:
        InvalidInputError: what Pillow cannot decode, and 16-bit, CMYK or turned pictures, which the text leaves open.
        InvalidAttributeError: another pixel format.

    Spec: ImageDecoder, since 20
    """
    return _converted(_opened(encoded_stream), pixel_format)


@scale("ImageDecoder", since=20)
def image_decoder_scale(y: Array, encoded_stream: Array, /, *, pixel_format: str = "RGB") -> Scale:
    """Exact for lossless formats. JPEG and irreversible JPEG 2000 within 3 steps (luma read off directly, or computed
    from clipped colours); lossy WebP, whose upsampling of chroma the text leaves open, within 3 and the contrast around
    a pixel; a colour picture in grey within one step. Open where a pixel is transparent."""
    image = _opened(encoded_stream)
    steps = np.zeros(y.shape)
    gray = pixel_format == "Grayscale"
    if gray and image.mode not in ("1", "L", "LA"):
        steps = steps + GRAY_STEPS
    stored = np.asarray(encoded_stream, np.uint8).tobytes()
    if image.format == "JPEG" or (image.format == "JPEG2000" and _is_irreversible(stored)):
        steps = steps + JPEG_STEPS
        if gray and image.format == "JPEG":
            steps = steps + np.abs(y.astype(np.int64) - _luma(stored)[:, :, None])
    if image.format == "WEBP" and stored[12:16] != b"VP8L":
        steps = steps + JPEG_STEPS + _contrast(y)
    if "A" in image.mode or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3:]
        steps = np.where(alpha < np.iinfo(np.uint8).max, np.inf, steps)
    return Scale(np.zeros(()), steps, Rule.EXACT)


def _is_irreversible(stored: bytes) -> bool:
    at = stored.find(_CODING_STYLE)
    return at < 0 or stored[at + _TRANSFORM_AT : at + _TRANSFORM_AT + 1] != b"\x01"


def _luma(stored: bytes) -> Array:
    """The luma of a JPEG as it is stored."""
    from PIL import Image  # noqa: PLC0415 (heavy: at the point of use)

    image = Image.open(io.BytesIO(stored))
    image.draft("L", image.size)
    return np.asarray(image.convert("L")).astype(np.int64)


def _contrast(y: Array) -> Array:
    """Largest less smallest value within two pixels, by channel."""
    from scipy.ndimage import maximum_filter, minimum_filter  # noqa: PLC0415 (heavy: at the point of use)

    around = (5, 5, 1)
    wide = y.astype(np.int64)
    return maximum_filter(wide, around) - minimum_filter(wide, around)
