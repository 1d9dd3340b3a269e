"""RoiAlign and MaxRoiPool: official cases, loops over samples and bins, ONNX Runtime, decisions of rounding, faults."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome, Verdict
from onnx_arch.conformance.verdict import judge
from onnx_arch.conformance.witness import witness_for
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array

from .judging import call, run_onnxruntime
from .node_cases import Case, cases, check_signature, versions

OPERATORS = {"MaxRoiPool", "RoiAlign"}
PRINTED = 1e-4
"""ONNX's expected values of RoiAlign are printed with four decimals, cut or rounded."""


@pytest.mark.parametrize("case", cases({"RoiAlign"}), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    y = call("RoiAlign", *case.inputs, opset=case.opset, **case.attributes)
    assert y.shape == case.outputs[0].shape
    np.testing.assert_allclose(y, case.outputs[0], rtol=0, atol=PRINTED)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def verdict(op_type: str, inputs: Sequence[Any], actual: Array, attributes: Mapping[str, Any]) -> Verdict:
    """The verdict on an output."""
    node = prepare(op_type, inputs, attributes, opset=16)
    (y,) = node.outputs()
    (scale,) = node.scales((y,)) or ()
    return judge(actual, y, actual.dtype, scale, witness_for(node, 0, y, scale))


def read(image: Array, y: float, x: float) -> float:
    """One bilinear sample of an (H, W) image: 0 beyond one element outside, clamped to the border within."""
    H, W = image.shape
    if y < -1 or y > H or x < -1 or x > W:
        return 0.0
    y, x = min(max(y, 0.0), H - 1.0), min(max(x, 0.0), W - 1.0)
    i, j = min(int(y), max(H - 2, 0)), min(int(x), max(W - 2, 0))
    total = 0.0
    for down, right in itertools.product((0, 1), repeat=2):
        weight = (y - i if down else 1 - (y - i)) * (x - j if right else 1 - (x - j))
        total += weight * image[min(i + down, H - 1), min(j + right, W - 1)] if weight else 0.0
    return total


def slow_mean(image: Array, roi: Sequence[float], attributes: Mapping[str, Any]) -> Array:
    """RoiAlign's mean of one region of an (H, W) image, sample by sample."""
    shift = 0.5 if attributes["coordinate_transformation_mode"] == "half_pixel" else 0.0
    left, top, right, bottom = (v * attributes["spatial_scale"] - shift for v in roi)
    rows, columns = attributes["output_height"], attributes["output_width"]
    height, width = bottom - top, right - left
    if not shift:
        height, width = max(height, 1.0), max(width, 1.0)
    ratio = attributes["sampling_ratio"]
    down, across = ratio or math.ceil(height / rows), ratio or math.ceil(width / columns)
    y = np.zeros((rows, columns))
    for i, j in np.ndindex(rows, columns):
        samples = [
            read(image, top + (i + (a + 0.5) / down) * height / rows, left + (j + (b + 0.5) / across) * width / columns)
            for a in range(down)
            for b in range(across)
        ]
        y[i, j] = np.mean(samples) if samples else 0.0
    return y


def random_node(seed: int, mode: str = "avg") -> tuple[list[Array], dict[str, Any]]:
    """Images, regions that reach beyond them, and attributes."""
    rng = np.random.default_rng(seed)
    H, W = (int(v) for v in rng.integers(2, 20, 2))
    x = rng.standard_normal((2, 3, H, W)).astype(np.float32)
    rois = np.sort(rng.uniform(-3, 2 * W, (5, 2, 2)), axis=1).reshape(5, 4).astype(np.float32)
    attributes = {
        "mode": mode,
        "output_height": int(rng.integers(1, 6)),
        "output_width": int(rng.integers(1, 6)),
        "sampling_ratio": int(rng.integers(0, 4)),
        "spatial_scale": float(rng.choice([1.0, 0.5, 0.1875])),
        "coordinate_transformation_mode": str(rng.choice(["half_pixel", "output_half_pixel"])),
    }
    return [x, rois, rng.integers(0, 2, 5)], attributes


@pytest.mark.parametrize("seed", range(12))
def test_mean_is_that_of_samples_one_by_one(seed: int) -> None:
    (x, rois, images), attributes = random_node(seed)
    y = call("RoiAlign", x, rois, images, opset=16, **attributes)
    for n, c in np.ndindex(len(rois), x.shape[1]):
        image = x[images[n], c].astype(float)
        np.testing.assert_allclose(y[n, c], slow_mean(image, rois[n].astype(float), attributes), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("seed", range(12))
def test_onnxruntime_mean_passes(seed: int) -> None:
    inputs, attributes = random_node(seed)
    (actual,) = run_onnxruntime("RoiAlign", inputs, attributes, opset=16)
    found = verdict("RoiAlign", inputs, actual, attributes)
    assert found.outcome is Outcome.PASSED, found.message
    assert found.rms_z is not None
    assert found.rms_z < 4


def test_region_of_opset_10_is_not_shifted() -> None:
    (x, rois, images), attributes = random_node(1)
    attributes.pop("coordinate_transformation_mode")
    expected = call(
        "RoiAlign", x, rois, images, opset=16, coordinate_transformation_mode="output_half_pixel", **attributes
    )
    np.testing.assert_array_equal(call("RoiAlign", x, rois, images, opset=10, **attributes), expected)


def test_largest_of_weighted_neighbours_is_open_where_the_largest_sample_differs() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    rois, images = np.array([[0.5, 0.5, 2.5, 2.5], [0.5, 0.5, 3.5, 3.5]], np.float32), np.zeros(2, np.int64)
    attributes = {"mode": "max", "sampling_ratio": 1}
    node = prepare("RoiAlign", (x, rois, images), attributes, opset=16)
    (y,) = node.outputs()
    (scale,) = node.scales((y,)) or ()
    # The first is sampled at an element itself; the second between four, where the text says their mean, 7.5.
    assert np.isinf(scale.magnitude).ravel().tolist() == [False, True]
    assert y.ravel().tolist() == [5.0, 0.25 * 10]


@pytest.mark.parametrize(("width", "is_open"), [(4.0, False), (3.0000001, True), (2.5, False)])
def test_number_of_samples_is_open_where_rounding_decides_it(width: float, is_open: bool) -> None:
    x = np.random.default_rng(2).standard_normal((1, 1, 9, 9)).astype(np.float32)
    rois = np.array([[1.3, 1.0, 1.3 + width, 5.0]], np.float32)
    rois = rois if is_open else np.round(rois * 4) / 4
    node = prepare("RoiAlign", (x, rois, np.zeros(1, np.int64)), {}, opset=16)
    outputs = node.outputs()
    (scale,) = node.scales(outputs) or ()
    assert bool(np.isinf(scale.magnitude).all()) == is_open


FAULTS: Mapping[str, Mapping[str, Any]] = {
    "shifted by half a pixel": {"coordinate_transformation_mode": "half_pixel"},
    "one sample less": {"sampling_ratio": 2},
    "the largest in place of the mean": {"mode": "max"},
    "scale ignored": {"spatial_scale": 1.0},
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_fails(name: str) -> None:
    (x, rois, images), _ = random_node(3)
    attributes = {
        "mode": "avg",
        "output_height": 3,
        "output_width": 3,
        "sampling_ratio": 3,
        "spatial_scale": 0.5,
        "coordinate_transformation_mode": "output_half_pixel",
    }
    wrong = call("RoiAlign", x, rois, images, opset=16, **{**attributes, **FAULTS[name]}).astype(np.float32)
    assert verdict("RoiAlign", (x, rois, images), wrong, attributes).outcome is Outcome.FAILED


def slow_pool(image: Array, roi: Sequence[float], shape: Sequence[int], scale: float) -> Array:
    """MaxRoiPool of one region of an (H, W) image with whole bins, element by element."""
    left, top, right, bottom = (math.floor(v * scale + 0.5) for v in roi)
    y = np.zeros(shape)
    for i, j in np.ndindex(*shape):
        rows = range(top + i * (bottom - top + 1) // shape[0], top - (-(i + 1) * (bottom - top + 1) // shape[0]))
        columns = range(left + j * (right - left + 1) // shape[1], left - (-(j + 1) * (right - left + 1) // shape[1]))
        inside = [image[a, b] for a in rows for b in columns if 0 <= a < image.shape[0] and 0 <= b < image.shape[1]]
        y[i, j] = max(inside, default=0.0)
    return y


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_largest_element_of_every_bin(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 2, 9, 11)).astype(np.float32)
    corners = np.sort(rng.integers(0, 14, (6, 2, 2)), axis=1).reshape(6, 4) / scale
    rois = np.concatenate([rng.integers(0, 2, (6, 1)), corners], axis=1).astype(np.float32)
    attributes = {"pooled_shape": [3, 4], "spatial_scale": scale}
    y = call("MaxRoiPool", x, rois, opset=1, **attributes)
    for n, c in np.ndindex(6, 2):
        expected = slow_pool(x[int(rois[n, 0]), c], rois[n, 1:].tolist(), (3, 4), scale)
        np.testing.assert_array_equal(y[n, c], expected)
    (actual,) = run_onnxruntime("MaxRoiPool", (x, rois), attributes, opset=16)
    found = verdict("MaxRoiPool", (x, rois), actual, attributes)
    assert found.outcome is Outcome.PASSED, found.message
    shifted = call(
        "MaxRoiPool", x, rois + np.float32([0, 1, 0, 1, 0]) / np.float32(scale), opset=1, **attributes
    ).astype(np.float32)
    assert verdict("MaxRoiPool", (x, rois), shifted, attributes).outcome is Outcome.FAILED


def test_corner_at_a_scaled_half_is_open() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    rois = np.array([[0, 1, 1, 3, 3], [0, 2, 2, 4, 4]], np.float32)
    node = prepare("MaxRoiPool", (x, rois), {"pooled_shape": [1, 1], "spatial_scale": 0.5}, opset=16)
    (scale,) = node.scales(node.outputs()) or ()
    assert np.isinf(scale.terms).ravel().tolist() == [True, False]


def test_index_of_no_image_is_refused() -> None:
    x, roi = np.zeros((2, 1, 4, 4), np.float32), np.ones((1, 4), np.float32)
    with pytest.raises(InvalidInputError, match="batch index 2, 2 images"):
        call("RoiAlign", x, roi, np.array([2]), opset=16)
    with pytest.raises(InvalidInputError, match="batch index 5, 2 images"):
        call("MaxRoiPool", x, np.array([[5, 0, 0, 1, 1]], np.float32), opset=1, pooled_shape=[1, 1])
    with pytest.raises(InvalidAttributeError, match="mode='sum'"):
        call("RoiAlign", x, roi, np.array([0]), opset=16, mode="sum")


def test_no_region_gives_no_output() -> None:
    x = np.zeros((2, 3, 4, 4), np.float32)
    none = np.zeros((0, 4), np.float32)
    y = call("RoiAlign", x, none, np.zeros(0, np.int64), opset=16, output_height=2, output_width=5)
    assert y.shape == (0, 3, 2, 5)
    inputs = (x, none, np.zeros(0, np.int64))
    assert verdict("RoiAlign", inputs, np.zeros((0, 3, 1, 1), np.float32), {}).outcome is Outcome.PASSED
