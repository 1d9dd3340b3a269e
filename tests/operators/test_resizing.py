"""Resize and Upsample: ONNX's node tests, torch, plain formulas, ONNX Runtime, and faults that the scale must catch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.verdict import judge
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array, Rule

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case


@pytest.mark.parametrize("case", cases({"Resize", "Upsample"}), ids=str)
def test_onnx_node_case_gives_the_expected_output(case: Case) -> None:
    check_case(case)


def _image(height: int = 9, width: int = 11, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(2, 3, height, width))


def _resize(x: Array, *, sizes: list[int], opset: int = 19, **attributes: Any) -> Array:
    return call("Resize", x, None, None, np.array([*x.shape[:2], *sizes]), opset=opset, **attributes)


@pytest.mark.parametrize("sizes", [[18, 22], [5, 7], [13, 4], [1, 1], [9, 11]])
@pytest.mark.parametrize(
    ("mode", "torch_mode", "corners", "antialias"),
    [
        ("linear", "bilinear", False, False),
        ("linear", "bilinear", True, False),
        ("cubic", "bicubic", False, False),
        ("cubic", "bicubic", True, False),
        ("linear", "bilinear", False, True),
        ("nearest", "nearest", None, False),
        ("nearest", "nearest-exact", None, False),
    ],
)
def test_resize_agrees_with_torch(
    mode: str, torch_mode: str, corners: bool | None, antialias: bool, sizes: list[int]
) -> None:
    x = _image()
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x), sizes, mode=torch_mode, align_corners=corners, antialias=antialias
    ).numpy()
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if corners:
        attributes["coordinate_transformation_mode"] = "align_corners"
    if torch_mode == "nearest":
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if torch_mode == "nearest-exact":
        attributes["nearest_mode"] = "round_prefer_ceil"
    if antialias:
        attributes |= {"antialias": 1, "exclude_outside": 1}
    np.testing.assert_allclose(_resize(x, sizes=sizes, **attributes), expected, rtol=1e-12, atol=1e-13)


def _source(o: int, size: int, target: int, mode: str) -> float:
    scale = target / size
    return {
        "half_pixel": (o + 0.5) / scale - 0.5,
        "half_pixel_symmetric": (o + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (o + 0.5) / scale - 0.5 if target > 1 else 0.0,
        "asymmetric": o / scale,
        "tf_half_pixel_for_nn": (o + 0.5) / scale,
        "align_corners": o * (size - 1) / (target - 1) if target > 1 else 0.0,
        "tf_crop_and_resize": o * (size - 1) / (target - 1) if target > 1 else 0.5 * (size - 1),
    }[mode]


MODES = [
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "align_corners",
    "tf_crop_and_resize",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 7), st.integers(1, 12), st.sampled_from(MODES))
def test_linear_follows_the_formula_of_every_coordinate_mode(size: int, target: int, mode: str) -> None:
    x = np.random.default_rng(2).normal(size=size)
    roi = np.array([0.0, 1.0]) if mode == "tf_crop_and_resize" else None
    opset = 11 if mode == "tf_half_pixel_for_nn" else 19
    attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
    actual = call("Resize", x, roi, None, np.array([target]), opset=opset, **attributes)
    # An axis that keeps its size is left alone, also by the one mode whose formula would move it.
    at = range(size) if size == target else [_source(o, size, target, mode) for o in range(target)]
    np.testing.assert_allclose(actual, np.interp(at, np.arange(size), x), rtol=1e-9, atol=1e-9)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 12),
    st.sampled_from(["half_pixel", "asymmetric", "align_corners"]),
    st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
)
def test_nearest_takes_the_element_that_its_mode_names(size: int, target: int, mode: str, nearest_mode: str) -> None:
    sizes = np.array([target])
    attributes = {"coordinate_transformation_mode": mode, "nearest_mode": nearest_mode}
    actual = call("Resize", np.arange(size), None, None, sizes, opset=19, **attributes)
    for o, taken in enumerate(actual):
        # twice the coordinate as an exact fraction of whole numbers, so that ties are ties
        over, under = {
            "half_pixel": ((2 * o + 1) * size - target, target),
            "asymmetric": (2 * o * size, target),
            "align_corners": (2 * o * (size - 1), max(target - 1, 1)),
        }[mode]
        at = {
            "round_prefer_floor": -((under - over) // (2 * under)),
            "round_prefer_ceil": (over + under) // (2 * under),
            "floor": over // (2 * under),
            "ceil": -(-over // (2 * under)),
        }[nearest_mode]
        assert taken == min(max(at, 0), size - 1)


def test_scales_give_sizes_rounded_down_in_float32() -> None:
    scales = np.array([0.7, 1.0], np.float32)  # 10 * 0.7 is 7 in float32 and 6.9999999 in float64
    assert call("Resize", np.zeros((10, 3)), None, scales, opset=13).shape == (7, 3)
    assert call("Resize", np.zeros((3, 3)), None, np.float32([1.9, 0.5]), opset=13).shape == (5, 1)


@pytest.mark.parametrize(
    ("policy", "expected"), [("stretch", (7, 8)), ("not_larger", (4, 8)), ("not_smaller", (7, 14))]
)
def test_keep_aspect_ratio_policy_gives_these_sizes(policy: str, expected: tuple[int, int]) -> None:
    x = np.zeros((2, 4))
    y = call("Resize", x, None, None, np.array([8, 7]), opset=18, axes=[1, 0], keep_aspect_ratio_policy=policy)
    assert y.shape == expected


def test_axes_leave_the_others_alone_and_an_empty_scales_counts_as_absent() -> None:
    x = _image()
    wanted = _resize(x, sizes=[4, 5], mode="linear")
    by_axes = call("Resize", x, None, np.zeros(0, np.float32), np.array([5, 4]), opset=18, axes=[-1, 2], mode="linear")
    np.testing.assert_allclose(by_axes, wanted, rtol=1e-12, atol=1e-15)


def test_tf_crop_and_resize_extrapolates_outside_the_tensor_only() -> None:
    x = np.arange(4.0)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0}
    y = call("Resize", x, np.array([0.5, 1.5]), None, np.array([4]), opset=19, **attributes)
    np.testing.assert_array_equal(y, [1.5, 2.5, 9, 9])  # coordinates 1.5, 2.5, 3.5, 4.5


@pytest.mark.parametrize("opset", [1, 7, 9])
def test_upsample_repeats_and_interpolates_from_the_left(opset: int) -> None:
    x = np.arange(4.0).reshape(1, 1, 2, 2)
    for mode in ("nearest", "bilinear" if opset == 1 else "linear"):
        inputs, attributes = [x], {"mode": mode}
        if opset == 1:
            attributes |= {"height_scale": 1.0, "width_scale": 2.0}
        elif opset == 7:
            attributes["scales"] = [1.0, 1.0, 1.0, 2.0]
        else:
            inputs.append(np.float32([1, 1, 1, 2]))
        rows = [[0, 0, 1, 1], [2, 2, 3, 3]] if mode == "nearest" else [[0, 0.5, 1, 1], [2, 2.5, 3, 3]]
        np.testing.assert_array_equal(call("Upsample", *inputs, opset=opset, **attributes), [[rows]])


def test_resize_10_rounds_up_where_an_axis_shrinks_and_agrees_with_onnxruntime() -> None:
    x, scales = _image().astype(np.float32), np.float32([1, 1, 0.6, 1.7])
    for mode in ("nearest", "linear"):
        (actual,) = run_onnxruntime("Resize", [x, scales], {"mode": mode}, opset=10)
        assert beyond(actual, "Resize", x, scales, opset=10, mode=mode) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, object])
def test_nearest_moves_any_dtype(dtype: type) -> None:
    x = np.array(["a", "b"], object) if dtype is object else np.array([1, 2], dtype)
    y = call("Resize", x, None, None, np.array([4]), opset=19)
    assert y.dtype == x.dtype
    assert y.tolist() == [x[0], x[0], x[1], x[1]]


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_empty_tensors_stay_empty(mode: str) -> None:
    assert call("Resize", np.zeros((0, 1, 2, 2)), None, np.float32([1, 1, 2, 2]), opset=13, mode=mode).shape == (
        0, 1, 4, 4,
    )  # fmt: skip
    assert call("Resize", np.zeros((1, 4)), None, None, np.array([1, 0]), opset=13, mode=mode).shape == (1, 0)


@pytest.mark.parametrize(
    ("error", "inputs", "attributes"),
    [
        (InvalidInputError, [None, None, None], {}),
        (InvalidInputError, [None, None, np.array([2])], {}),
        (InvalidAttributeError, [None, None, np.array([2, 2])], {"mode": "area"}),
        (InvalidAttributeError, [None, None, np.array([2, 2])], {"nearest_mode": "round"}),
        (InvalidAttributeError, [None, None, np.array([2, 2])], {"coordinate_transformation_mode": "corner"}),
        (InvalidAttributeError, [None, None, np.array([2, 2])], {"keep_aspect_ratio_policy": "fit"}),
    ],
)
def test_input_or_attribute_outside_the_spec_is_refused(
    error: type[Exception], inputs: list[Any], attributes: dict[str, Any]
) -> None:
    with pytest.raises(error):
        call("Resize", np.zeros((3, 3)), *inputs, opset=19, **attributes)


RUNS = [
    {"mode": mode, "coordinate_transformation_mode": transform, "nearest_mode": nearest}
    for mode, transform, nearest in itertools.product(
        ["nearest", "linear", "cubic"],
        ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"],
        ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"],
    )
    if mode == "nearest" or nearest == "floor"
]


@pytest.mark.parametrize("attributes", RUNS, ids=lambda a: "-".join(a.values()))
@pytest.mark.parametrize("sizes", [[46, 64], [11, 96], [50, 7]])
def test_scale_allows_onnxruntime_and_condemns_a_grid_shifted_by_a_hundredth(
    attributes: dict[str, Any], sizes: list[int]
) -> None:
    x = (_image(23, 32) + 10).astype(np.float32)
    inputs = [x, None, None, np.array([2, 3, *sizes])]
    (actual,) = run_onnxruntime("Resize", inputs, attributes, opset=19)
    assert beyond(actual, "Resize", *inputs, opset=19, **attributes) == 0
    shifted = np.roll(x, 1, axis=-1) if attributes["mode"] == "nearest" else 0.99 * x + 0.01 * np.roll(x, 1, axis=-1)
    (wrong,) = run_onnxruntime("Resize", [shifted.astype(np.float32), *inputs[1:]], attributes, opset=19)
    assert beyond(wrong, "Resize", *inputs, opset=19, **attributes) > 0.8 * wrong.size


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_antialias_scale_allows_torch_in_float32(mode: str) -> None:
    x = _image(64, 48).astype(np.float32)
    a = {"cubic_coeff_a": -0.5} if mode == "cubic" else {}
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x), [20, 17], mode=f"bi{mode}", align_corners=False, antialias=True
    ).numpy()
    sizes = np.array([2, 3, 20, 17])
    attributes = {"mode": mode, "antialias": 1, "exclude_outside": 1, **a}
    assert beyond(expected, "Resize", x, None, None, sizes, opset=18, **attributes) == 0
    assert beyond(expected * np.float32(1.01), "Resize", x, None, None, sizes, opset=18, **attributes) > 1900


def test_nearest_is_exact_but_for_either_neighbour_of_a_tie_that_float32_cannot_place() -> None:
    x = np.array([3.0, 5.0, 9.0], np.float32)
    inputs = [x, None, None, np.array([5])]
    attributes = {"nearest_mode": "floor"}  # coordinate of element 2: 2.5 * 3 / 5 - 0.5 = 1, but 5 / 3 is no float32
    right = call("Resize", *inputs, opset=19, **attributes).astype(np.float32)
    np.testing.assert_array_equal(right, [3, 3, 5, 5, 9])
    for element, value, allowed in [(2, 3, True), (2, 5, True), (2, 9, False), (1, 5, False), (3, 9, False)]:
        changed = right.copy()
        changed[element] = value
        assert (beyond(changed, "Resize", *inputs, opset=19, **attributes) == 0) is allowed, (element, value)


def test_nearest_by_a_whole_factor_is_wholly_exact() -> None:
    for target, mode in itertools.product((6, 9, 12), ("half_pixel", "asymmetric")):
        node = prepare(
            "Resize",
            [np.float32([3, 5, 9]), None, None, np.array([target])],
            {"nearest_mode": "floor", "coordinate_transformation_mode": mode},
            opset=19,
        )
        (scale,) = node.scales(node.outputs()) or ()
        assert scale.rule is Rule.EXACT, (target, mode)
        assert not np.any(scale.terms)


def test_interpolation_of_integers_truncates() -> None:
    inputs = [np.array([0, 255], np.uint8), None, None, np.array([4])]
    node = prepare("Resize", inputs, {"mode": "linear"}, opset=19)
    assert node.outputs()[0].tolist() == [0, 63, 191, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolated_integers_are_judged_to_a_step(dtype: Any, mode: str) -> None:
    x = np.random.default_rng(51).integers(10, 90, (1, 2, 7, 6)).astype(dtype)
    inputs = (x, None, None, np.array([1, 2, 11, 9]))
    node = prepare("Resize", inputs, {"mode": mode}, opset=19)
    (y,) = node.outputs()
    (scale,) = node.scales((y,)) or ()
    wide = prepare("Resize", (x.astype(np.float64), *inputs[1:]), {"mode": mode}, opset=19).outputs()[0]
    assert np.isfinite(scale.terms).all()
    for rounded in (np.floor(wide), np.ceil(wide), np.rint(wide)):
        assert (np.abs(rounded - y) <= scale.terms).all()
    assert judge(y + np.asarray(4, dtype), y, np.dtype(dtype), scale).outcome is Outcome.FAILED


def test_interpolated_integers_beyond_their_range_are_open() -> None:
    x = np.array([[[[0, 255, 255, 0, 0]]]], np.uint8)
    node = prepare("Resize", (x, None, None, np.array([1, 1, 1, 13])), {"mode": "cubic"}, opset=19)
    (y,) = node.outputs()
    terms = (node.scales((y,)) or ())[0].terms
    assert np.isinf(terms).any()
    assert np.isfinite(terms).any()
