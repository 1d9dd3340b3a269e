"""A picture as a feed: against the same preprocessing written out by hand, and what is no picture."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from onnx_arch.errors import InvalidInputError
from onnx_arch.graphs.images import image_feed
from onnx_arch.graphs.loading import load_model

from .small_models import make_model, value

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@pytest.fixture
def model_of(write):
    """A loaded model with inputs of these shapes."""

    def load(*shapes, code=TensorProto.FLOAT):
        inputs = [value(f"x{index}", shape, code) for index, shape in enumerate(shapes)]
        nodes = [helper.make_node("Identity", [each.name], [f"{each.name}_out"]) for each in inputs]
        return load_model(write(make_model(nodes, inputs, [value(f"{each.name}_out", None, code) for each in inputs])))

    return load


@pytest.fixture
def picture(tmp_path):
    """Saves an array (H, W, 3) or (H, W) of bytes, or a PIL image, as a file."""

    def save(pixels, name="picture.png", **options):
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, np.uint8))
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_picture_of_one_colour_is_normalised_by_channel(model_of, picture):
    feed = image_feed(model_of([1, 3, 224, 224]), picture(np.full((300, 400, 3), (255, 0, 51))))
    expected = (np.array([1.0, 0.0, 0.2]) - MEAN) / STD
    assert list(feed) == ["x0"]
    assert feed["x0"].shape == (1, 3, 224, 224)
    assert feed["x0"].dtype == np.float32
    assert feed["x0"].flags.c_contiguous
    np.testing.assert_allclose(feed["x0"][0].transpose(1, 2, 0), np.broadcast_to(expected, (224, 224, 3)), rtol=1e-5)


def test_picture_is_resized_by_its_shorter_side_and_cropped_in_the_middle(model_of, picture):
    pixels = noise(512, 768, 3)
    feed = image_feed(model_of([1, 3, 224, 224]), picture(pixels))["x0"]
    resized = np.asarray(Image.fromarray(pixels).resize((384, 256), Image.Resampling.BILINEAR), np.float64) / 255
    expected = (resized[16:240, 80:304] - MEAN) / STD
    np.testing.assert_allclose(feed[0].transpose(1, 2, 0), expected, atol=1e-5)


def test_picture_is_smoothed_when_it_shrinks(model_of, picture):
    stripes = np.zeros((896, 896, 3), np.uint8)
    stripes[:, ::2] = 255
    feed = image_feed(model_of([1, 3, 224, 224]), picture(stripes), {**PLAIN, "resize": 224})["x0"]
    assert abs(feed - 0.5).max() < 0.05


def test_picture_that_is_already_of_the_size_is_unchanged(model_of, picture):
    pixels = noise(224, 224, 3)
    feed = image_feed(model_of([1, 3, 224, 224]), picture(pixels), {**PLAIN, "resize": 224})["x0"]
    np.testing.assert_array_equal(feed[0].transpose(1, 2, 0), pixels.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([1, 3, 32, 48], (1, 3, 32, 48)),
        (["n", 3, "h", "w"], (1, 3, 224, 224)),
        (["n", "c", None, None], (1, 3, 224, 224)),
        ([None, 3, 299, 299], (1, 3, 299, 299)),
        ([1, 32, 48, 3], (1, 32, 48, 3)),
        ([1, None, None, 3], (1, 224, 224, 3)),
        ([1, 1, 28, 28], (1, 1, 28, 28)),
        ([1, 28, 28, 1], (1, 28, 28, 1)),
        ([1, 3, 3, 3], (1, 3, 3, 3)),
    ],
)
def test_picture_takes_the_shape_and_layout_of_the_input(model_of, picture, shape, expected):
    assert image_feed(model_of(shape), picture(noise(60, 50, 3)))["x0"].shape == expected


def test_picture_with_channels_last_holds_the_same_values(model_of, picture):
    file = picture(noise(60, 50, 3))
    first, last = image_feed(model_of([1, 3, 32, 32]), file)["x0"], image_feed(model_of([1, 32, 32, 3]), file)["x0"]
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


@pytest.mark.parametrize(("code", "dtype"), [(TensorProto.FLOAT16, "float16"), (TensorProto.BFLOAT16, "bfloat16")])
def test_picture_is_rounded_to_the_type_of_the_input(model_of, picture, code, dtype):
    file = picture(noise(60, 50, 3))
    feed = image_feed(model_of([1, 3, 32, 32], code=code), file)["x0"]
    assert feed.dtype.name == dtype
    np.testing.assert_array_equal(feed, image_feed(model_of([1, 3, 32, 32]), file)["x0"].astype(feed.dtype))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16", "LA"])
def test_picture_of_any_mode(model_of, picture, mode):
    grey = Image.fromarray(np.full((40, 40), 204, np.uint8))
    image = Image.fromarray(np.full((40, 40), 204 * 257, np.uint16)) if mode == "I;16" else grey.convert(mode)
    file = picture(image, "picture.tiff" if mode in ("I;16", "CMYK") else "picture.png")
    feed = image_feed(model_of([1, 3, 32, 32]), file, PLAIN)["x0"]
    np.testing.assert_allclose(feed.mean(), 0.8, atol=0.05)  # "1" dithers


def test_picture_follows_its_exif_orientation(model_of, picture):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # the upper half is white
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90° clockwise: the upper half comes to the right
    feed = image_feed(model_of([1, 3, 32, 32]), picture(image, exif=exif), {**PLAIN, "resize": 32})["x0"]
    assert (feed[..., 16:] == 1).all()
    assert (feed[..., :16] == 0).all()


def test_preprocessing_of_a_bundle_is_used(model_of, picture):
    settings = {"resize": 40, "crop": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    feed = image_feed(model_of([1, 3, "h", "w"]), picture(np.full((80, 80, 3), 255)), settings)["x0"]
    assert feed.shape == (1, 3, 32, 32)
    assert (feed == 1).all()


def refusal(model, path, preprocessing=None):
    with pytest.raises(InvalidInputError) as caught:
        image_feed(model, path, preprocessing)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": 2}, "'scale' is unknown; known are resize, crop, mean, std"),
        ({"resize": 0}, "resize is 0; allowed are pixels from 1"),
        ({"resize": "256"}, "resize is '256'"),
        ({"resize": True}, "resize is True"),
        ({"crop": 10**9}, "crop is 1000000000"),
        ({"crop": 100}, "crop is 100; input 'x0' takes 224"),
        ({"crop": [1, 2, 3]}, "allowed are one size or height and width"),
        ({"mean": [0.5]}, "mean is [0.5]; allowed is a list of 3 numbers"),
        ({"mean": "abc"}, "mean is 'abc'"),
        ({"std": [0.0, 1.0, 1.0]}, "std is [0.0, 1.0, 1.0]; allowed are positive numbers"),
        ({"std": [float("nan")] * 3}, "allowed is a list of 3 numbers"),
    ],
)
def test_preprocessing_that_makes_no_sense(model_of, picture, settings, says):
    assert says in refusal(model_of([1, 3, 224, 224]), picture(noise(20, 20, 3)), settings)


@pytest.mark.parametrize(
    ("shapes", "code", "says"),
    [
        ([[1, 3, 8, 8], [1]], TensorProto.FLOAT, "this one has 2: give --inputs"),
        ([[1, 10]], TensorProto.FLOAT, "is not a picture"),
        ([None], TensorProto.FLOAT, "shape unknown"),
        ([[1, 3, 8, 8]], TensorProto.INT64, "('int64', shape [1, 3, 8, 8]) is not a picture".replace("'", "")),
        ([[1, 5, 8, 8]], TensorProto.FLOAT, "has 5 channels"),
        ([[4, 3, 8, 8]], TensorProto.FLOAT, "takes a batch of 4"),
        ([[1, 3, 0, 8]], TensorProto.FLOAT, "has an empty picture"),
    ],
)
def test_model_that_takes_no_picture(model_of, picture, shapes, code, says):
    assert says in refusal(model_of(*shapes, code=code), picture(noise(20, 20, 3)))


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\0" * 50])
def test_file_that_is_no_picture(model_of, tmp_path, content):
    (tmp_path / "picture.png").write_bytes(content)
    message = refusal(model_of([1, 3, 32, 32]), tmp_path / "picture.png")
    assert message.startswith(f"{tmp_path / 'picture.png'}: ")


def test_missing_picture_and_folder(model_of, tmp_path):
    assert "No such file" in refusal(model_of([1, 3, 32, 32]), tmp_path / "missing.png")
    assert "directory" in refusal(model_of([1, 3, 32, 32]), tmp_path)


def test_truncated_picture(model_of, picture):
    file = picture(noise(200, 200, 3), "picture.jpg")
    file.write_bytes(file.read_bytes()[:2000])
    assert "truncated" in refusal(model_of([1, 3, 32, 32]), file)


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_picture_of_absurd_size_is_refused_before_it_is_decoded(model_of, tmp_path, width, height):
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "BMP")
    content = bytearray(buffer.getvalue())
    content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    (tmp_path / "bomb.bmp").write_bytes(content)
    assert "pixels" in refusal(model_of([1, 3, 32, 32]), tmp_path / "bomb.bmp")


def test_picture_of_one_pixel_and_of_one_row(model_of, picture):
    model = model_of([1, 3, 32, 32])
    assert image_feed(model, picture(noise(1, 1, 3)))["x0"].shape == (1, 3, 32, 32)
    assert image_feed(model, picture(noise(1, 200, 3)))["x0"].shape == (1, 3, 32, 32)
    assert "when resized" in refusal(model, picture(noise(1, 20_000, 3)))


def outcome(model, path):
    try:
        image_feed(model, path)
    except InvalidInputError as error:
        return str(error)
    return "read"


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tiff", "webp", "bmp"])
def test_randomly_damaged_picture_is_read_or_gives_one_line(model_of, picture, suffix):
    rng, model = random.Random(suffix), model_of([1, 3, 32, 32])  # noqa: S311 (damage, not secrets)
    file = picture(noise(24, 24, 3), f"picture.{suffix}")
    content = file.read_bytes()
    for _ in range(150):
        damage = bytearray(content)
        for _ in range(rng.choice([1, 5])):
            damage[rng.randrange(min(len(damage), 400))] = rng.randrange(256)
        file.write_bytes(damage)
        assert "\n" not in outcome(model, file)
