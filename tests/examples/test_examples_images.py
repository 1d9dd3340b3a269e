"""The examples on pictures run end to end: a few steps of training, export, ONNX Runtime, check, figures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def imported_as_scripts(monkeypatch):
    """Scripts import their neighbours by name; the generator goes on as if nothing had been drawn."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with torch.random.fork_rng(devices=[]):
        yield


def run(name, monkeypatch, capsys, *words):
    module = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--steps", "1", *words])
    module.main()
    rows = (line.rpartition(": ") for line in capsys.readouterr().out.splitlines())
    return module, {what: figure for what, _, figure in rows}


GREEN = "every node judged and green, optimisation disabled and all"


def test_digit_classifier_runs_both_networks(tmp_path, monkeypatch, capsys):
    _, figures = run("digit_classifier", monkeypatch, capsys, "-o", str(tmp_path))
    for name in ("mlp", "convnet"):
        assert figures[f"{name}, onnx-arch check"] == GREEN
        assert figures[f"{name}, digits never seen, recognised by ONNX Runtime"].endswith("% of 360")
        assert (tmp_path / name / "model.onnx").is_file()


def test_denoising_autoencoder_runs(tmp_path, monkeypatch, capsys):
    module, figures = run("denoising_autoencoder", monkeypatch, capsys, "-o", str(tmp_path))
    assert figures["onnx-arch check"] == GREEN
    given = float(figures["patches never seen, as they are given"].removesuffix(" dB"))
    assert given == pytest.approx(module.decibels(module.NOISE**2), abs=0.1)
    assert (tmp_path / "denoised.png").is_file()


def test_unet_segmenter_runs(tmp_path, monkeypatch, capsys):
    _, figures = run("unet_segmenter", monkeypatch, capsys, "-o", str(tmp_path))
    assert figures["onnx-arch check"] == GREEN
    assert (tmp_path / "segmented.png").is_file()


def test_pictures_that_are_learnt_from_are_not_those_that_are_asked():
    denoising = importlib.import_module("denoising_autoencoder")
    ramp = np.broadcast_to(np.arange(160, dtype=np.float32), (3, 64, 160))
    left, right = (
        denoising.patches([ramp], 50, np.random.default_rng(0), right=side).reshape(-1) for side in (False, True)
    )
    assert left.max() < 120 <= right.min()


def test_overlap_is_intersection_over_union():
    segmenter = importlib.import_module("unet_segmenter")
    assert segmenter.overlap(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])) == pytest.approx(1 / 3)


def test_digits_pixels_are_where_the_digit_is_drawn():
    segmenter = importlib.import_module("unet_segmenter")
    scenes = segmenter.Scenes(np.random.default_rng(3), held_out=True)
    scenes.grounds = [np.full((48, 60), 0.2, np.float32)]
    pictures, masks = scenes.draw(4)
    assert (pictures.shape, masks.shape) == ((4, 1, 48, 48), (4, 48, 48))
    share = masks.mean(axis=(1, 2))
    assert ((share > 0) & (share < 0.4)).all()
    ink, ground = pictures[:, 0][masks == 1], pictures[:, 0][masks == 0]
    assert (ink >= 0.6).mean() > 0.95  # white, more than half of it, over 0.2
    assert np.median(ground) == np.float32(0.2)
