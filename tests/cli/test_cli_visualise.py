"""`visualise` on an exported ZFNet: what the picture holds, and one line for what cannot be shown."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from onnx_arch.cli.main import run
from onnx_arch.errors import InvalidArgumentError, InvalidInputError, InvalidModelError
from onnx_arch.exporters.bundle import read_manifest
from onnx_arch.exporters.export import export_architecture
from onnx_arch.generation.features import Features, Projection, grid, normalised, project


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    made = export_architecture("zfnet", tmp_path_factory.mktemp("zfnet"), preset="tiny", seed=3)
    assert made.written
    return made.path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).resize((240, 180), Image.Resampling.BICUBIC).save(path)
    return path


MEAN_AND_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def shown(bundle, photo, layer, *features, **options):
    return project(bundle, read_manifest(bundle), photo, layer, features, **options)


def test_picture_is_written_with_projections_left_and_photograph_right(bundle, photo, tmp_path, capsys):
    target = tmp_path / "features.png"
    words = ["visualise", "zfnet", "--bundle", str(bundle), "--image", str(photo), "--layer", "2", "-o", str(target)]
    assert run(words) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{target}: layer 2, feature maps ")
    with Image.open(target) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 2 * pixels.shape[0] * 0.9
    assert pixels.std() > 10


@pytest.mark.parametrize("layer", [1, 2, 3, 4, 5])
def test_every_layer_projects_its_strongest_maps_first(bundle, photo, layer):
    found = shown(bundle, photo, layer, top=3)
    strengths = [item.strength for item in found.projections]
    assert strengths == sorted(strengths, reverse=True)
    assert all(item.pixels.shape == found.photograph.shape == (3, 64, 64) for item in found.projections)
    session = onnxruntime.InferenceSession(bundle / f"deconvnet-{layer}" / "model.onnx")
    mean, std = (np.array(found_values, np.float32)[:, None, None] for found_values in MEAN_AND_STD)
    image = ((found.photograph - mean) / std)[None]
    for item in found.projections:
        pixels, _ = session.run(None, {"image": image, "feature": np.array([item.feature])})
        np.testing.assert_allclose(item.pixels, pixels[0], atol=1e-3 * np.abs(pixels).max())


def test_strongest_activation_of_the_first_layer_is_seen_through_one_filter(bundle, photo):
    (item,) = shown(bundle, photo, 1, top=1).projections
    top, left, bottom, right = item.box
    assert 0 < bottom - top <= 7
    assert 0 < right - left <= 7
    outside = item.pixels.copy()
    outside[:, top:bottom, left:right] = 0
    assert not outside.any()


def test_features_that_are_named_are_shown_in_their_order(bundle, photo):
    found = shown(bundle, photo, 3, 5, 0)
    assert [item.feature for item in found.projections] == [5, 0]


def test_photograph_is_shown_as_the_network_sees_it(bundle, tmp_path):
    plain = tmp_path / "plain.png"
    Image.new("RGB", (100, 100), (255, 128, 0)).save(plain)
    photograph = shown(bundle, plain, 1, top=1).photograph
    np.testing.assert_allclose(photograph[:, 5, 5], [1, 128 / 255, 0], atol=1e-6)


def test_json_names_every_map(bundle, photo, tmp_path, capsys):
    options = ["--image", str(photo), "-o", str(tmp_path / "x.png"), "--top", "2", "--json", "-"]
    assert run(["visualise", str(bundle), *options]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["layer"], len(row["features"])) == ("visualisation", 5, 2)


def test_bundle_is_run_without_torch(bundle, photo, tmp_path):
    code = "import sys; sys.modules['torch'] = None; from onnx_arch.cli.main import main; main()"
    target = tmp_path / "without.png"
    words = ["visualise", bundle, "--image", photo, "--layer", "1", "-o", target]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert target.is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "6"], "--layer 6; allowed are 1 to 5"),
        (["--layer", "2", "--feature", "6"], "--feature 6: layer 2 has 0 to 5"),
        (["--feature", "1", "--top", "2"], "--feature names maps and --top chooses them"),
        (["-o", "x.txt"], r"x.txt: unknown kind '.txt'; allowed are .png"),
        (["--weights", "w.pt"], "--weights means nothing here"),
    ],
)
def test_what_cannot_be_asked_for_is_told_in_one_line(bundle, photo, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        run(["visualise", str(bundle), "--image", str(photo), *options])


def test_photograph_that_is_none_is_refused(bundle, tmp_path):
    (tmp_path / "none.png").write_text("no picture")
    with pytest.raises(InvalidInputError, match="not a picture"):
        run(["visualise", str(bundle), "--image", str(tmp_path / "none.png")])


def test_bundle_without_a_deconvnet_is_refused(photo, tmp_path):
    other = export_architecture("mlp", tmp_path, preset="tiny").path
    with pytest.raises(InvalidArgumentError, match="holds no deconvnet"):
        run(["visualise", str(other), "--image", str(photo)])
    with pytest.raises(InvalidArgumentError, match="is an export of mlp, not zfnet"):
        run(["visualise", "zfnet", "--bundle", str(other), "--image", str(photo)])
    with pytest.raises(InvalidModelError, match="is no bundle"):
        run(["visualise", "zfnet", "--bundle", str(tmp_path), "--image", str(photo)])


def test_grey_is_zero_and_the_brightest_pixels_are_cut():
    pixels = np.zeros((3, 20, 20), np.float32)
    pixels[0, :10] = np.linspace(-1, 1, 200).reshape(10, 20)
    pixels[0, 0, 0] = -50.0
    picture = normalised(pixels)
    assert picture[1, 15, 15] == 0.5
    assert picture.min() == 0.0
    assert 0.8 < picture.max() <= 1.0
    assert normalised(np.zeros((3, 4, 4), np.float32)).min() == 0.5


def test_grid_has_a_tile_for_every_projection_on_both_sides():
    photograph = np.zeros((3, 32, 32), np.float32)
    photograph[1] = 1.0
    pixels = np.zeros((3, 32, 32), np.float32)
    pixels[:, 4:12, 4:12] = 1.0
    found = Features(1, photograph, tuple(Projection(n, 1.0, pixels, (4, 4, 12, 12)) for n in range(3)))
    sheet = grid(found)
    middle = sheet.shape[1] // 2
    assert (sheet[:, middle - 2 : middle + 2] == 255).all()
    green = (sheet == [0, 255, 0]).all(axis=2)
    assert green[:, middle:].sum() == 3 * 100 * 100
    assert not green[:, :middle].any()
