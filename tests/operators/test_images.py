"""ImageDecoder: official cases, pictures that were drawn here, what the text leaves open, faults."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.scale import Array

from .ml_nodes import call, outcomes
from .node_cases import Case, cases, check_case, check_signature, versions

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED
NODE: dict[str, Any] = {"opset": 20, "domain": ""}


@pytest.mark.parametrize("case", cases({"ImageDecoder"}), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions({"ImageDecoder"}))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def drawn(seed: int, height: int = 24, width: int = 17) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int = 40, width: int = 32) -> Array:
    """Soft colours, as a lossy format stores them well."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9 + shift) + np.cos(y / 7 - shift) for shift in (0, 2, 4)]
    return (120 + 40 * np.stack(waves, axis=-1)).astype(np.uint8)


def stored(picture: Array, format_: str, **options: Any) -> Array:
    """The bytes of a file."""
    target = io.BytesIO()
    Image.fromarray(picture).save(target, format_, **options)
    return np.frombuffer(target.getvalue(), np.uint8)


LOSSLESS = [
    ("BMP", {}),
    ("PNG", {}),
    ("TIFF", {}),
    ("PPM", {}),
    ("WEBP", {"lossless": True}),
    ("JPEG2000", {"irreversible": False}),
]
LOSSY = [
    ("JPEG", {"quality": 80}),
    ("WEBP", {"quality": 80}),
    ("JPEG2000", {"irreversible": True, "quality_layers": [8]}),
]


@pytest.mark.parametrize(("format_", "options"), LOSSLESS, ids=str)
def test_lossless_picture_is_the_one_that_was_stored(format_: str, options: dict[str, Any]) -> None:
    picture = drawn(1)
    encoded = stored(picture, format_, **options)
    np.testing.assert_array_equal(call("ImageDecoder", encoded, **NODE), picture)
    np.testing.assert_array_equal(call("ImageDecoder", encoded, pixel_format="BGR", **NODE), picture[:, :, ::-1])
    assert outcomes([picture], "ImageDecoder", encoded, **NODE) == [PASSED]


@pytest.mark.parametrize(("format_", "options"), LOSSLESS, ids=str)
@pytest.mark.parametrize("fault", ["one step", "BGR", "turned", "rows from below"])
def test_fault_in_a_lossless_picture_is_caught(format_: str, options: dict[str, Any], fault: str) -> None:
    picture = drawn(2, 20, 20)
    encoded = stored(picture, format_, **options)
    wrong = {
        "one step": picture ^ np.eye(20, dtype=np.uint8)[:, :, None],
        "BGR": picture[:, :, ::-1],
        "turned": picture.swapaxes(0, 1),
        "rows from below": picture[::-1],
    }[fault].copy()
    assert outcomes([wrong], "ImageDecoder", encoded, **NODE) == [FAILED]


@pytest.mark.parametrize(("format_", "options"), LOSSY, ids=str)
def test_lossy_picture_is_judged_within_a_few_steps(format_: str, options: dict[str, Any]) -> None:
    encoded = stored(smooth(), format_, **options)
    y = call("ImageDecoder", encoded, **NODE)
    assert y.shape == (40, 32, 3)
    assert outcomes([y], "ImageDecoder", encoded, **NODE) == [PASSED]
    near = (y.astype(int) + np.random.default_rng(1).integers(-3, 4, y.shape)).clip(0, 255).astype(np.uint8)
    assert outcomes([near], "ImageDecoder", encoded, **NODE) == [PASSED]
    for wrong in (y[:, :, ::-1], np.roll(y, 4, axis=0), y + np.uint8(40), y.swapaxes(0, 1)):
        assert outcomes([np.ascontiguousarray(wrong)], "ImageDecoder", encoded, **NODE) == [FAILED]


def test_chroma_that_is_repeated_instead_of_interpolated_is_caught() -> None:
    """The text says how JPEG's chroma is upsampled."""
    encoded = stored(drawn(3, 32, 32), "JPEG", quality=90, subsampling=2)
    y = call("ImageDecoder", encoded, **NODE)
    ycc = np.asarray(Image.open(io.BytesIO(encoded.tobytes())).convert("YCbCr")).copy()
    ycc[:, :, 1:] = ycc[::2, ::2, 1:].repeat(2, axis=0).repeat(2, axis=1)
    wrong = np.asarray(Image.fromarray(ycc, "YCbCr").convert("RGB"))
    assert outcomes([y], "ImageDecoder", encoded, **NODE) == [PASSED]
    assert outcomes([wrong], "ImageDecoder", encoded, **NODE) == [FAILED]


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_grey_is_luma_within_rounding(format_: str) -> None:
    encoded = stored(smooth(), format_)
    rgb = call("ImageDecoder", encoded, **NODE).astype(np.float64)
    luma = (rgb @ np.array([0.299, 0.587, 0.114]))[:, :, None]
    gray = {"pixel_format": "Grayscale", **NODE}
    assert np.abs(call("ImageDecoder", encoded, **gray) - luma).max() <= 1
    assert outcomes([np.floor(luma).astype(np.uint8)], "ImageDecoder", encoded, **gray) == [PASSED]
    mean = rgb.mean(axis=2, keepdims=True).astype(np.uint8)
    assert outcomes([mean], "ImageDecoder", encoded, **gray) == [FAILED]


def test_grey_picture_has_three_equal_channels_in_rgb() -> None:
    picture = drawn(4)[:, :, 0]
    encoded = stored(picture, "PNG")
    np.testing.assert_array_equal(call("ImageDecoder", encoded, **NODE), picture[:, :, None].repeat(3, axis=2))
    gray = call("ImageDecoder", encoded, pixel_format="Grayscale", **NODE)
    assert outcomes([gray ^ np.uint8(1)], "ImageDecoder", encoded, pixel_format="Grayscale", **NODE) == [FAILED]


def test_pixel_that_is_transparent_is_open() -> None:
    picture = np.dstack([drawn(5), np.full((24, 17), 255, np.uint8)])
    picture[3, 4, 3] = 128
    encoded = stored(picture, "PNG")
    y = picture[:, :, :3].copy()
    y[3, 4] = 0
    assert outcomes([y], "ImageDecoder", encoded, **NODE) == [PASSED]
    y[3, 5] ^= 1
    assert outcomes([y], "ImageDecoder", encoded, **NODE) == [FAILED]


def turned() -> Array:
    exif = Image.Exif()
    exif[0x0112] = 6
    return stored(smooth(), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (np.zeros(10, np.uint8), "cannot decode"),
        (np.zeros(0, np.uint8), "cannot decode"),
        (stored(drawn(6), "PNG")[:200], "cannot decode"),
        (stored(drawn(6), "GIF"), "cannot decode"),
        (stored((drawn(6)[:, :, 0].astype(np.uint16) * 257), "PNG"), "mode I;16"),
        (turned(), "orientation"),
    ],
    ids=["zeros", "empty", "cut", "not listed", "16-bit", "turned"],
)
def test_picture_that_the_text_leaves_open_is_named(encoded: Array, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call("ImageDecoder", encoded, **NODE)


def test_unknown_pixel_format_is_named() -> None:
    with pytest.raises(InvalidAttributeError, match="HSV"):
        call("ImageDecoder", stored(drawn(7), "PNG"), pixel_format="HSV", **NODE)
