"""GridSample and AffineGrid: official cases, torch in float64 and float32, ONNX Runtime, ties, faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from onnx_arch.conformance.results import Outcome, Verdict
from onnx_arch.conformance.verdict import judge
from onnx_arch.conformance.witness import witness_for
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array

from .judging import call, run_onnxruntime
from .node_cases import Case, cases, check_case, check_signature, versions

OPERATORS = {"AffineGrid", "GridSample"}
PRINTED = {"test_gridsample_bicubic"}
"""Cases whose expected values are printed with four decimals."""
TORCH_MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}
MODES = [
    (mode, padding, align, rank)
    for mode in TORCH_MODES
    for padding in ("zeros", "border", "reflection")
    for align in (0, 1)
    for rank in (2, 3)
    if not (mode == "cubic" and rank == 3)  # PyTorch has no cubic volumes
]


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    if case.name not in PRINTED:
        check_case(case)
        return
    y = call(case.op_type, *case.inputs, opset=case.opset, **case.attributes)
    np.testing.assert_allclose(y, case.outputs[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def verdict(op_type: str, inputs: Sequence[Any], actual: Array, attributes: Mapping[str, Any]) -> Verdict:
    """The verdict on an output."""
    node = prepare(op_type, inputs, attributes, opset=20)
    (y,) = node.outputs()
    (scale,) = node.scales((y,)) or ()
    return judge(actual, y, actual.dtype, scale, witness_for(node, 0, y, scale))


def sampled(rank: int, seed: int = 0) -> tuple[Array, Array]:
    """An image and a grid that reaches well beyond it."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, *rng.integers(2, 8, rank))).astype(np.float32)
    return x, rng.uniform(-2.2, 2.2, (2, *rng.integers(2, 8, rank), rank)).astype(np.float32)


def by_torch(inputs: Sequence[Array], attributes: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> Array:
    """PyTorch's grid_sample."""
    tensors = (torch.from_numpy(v).to(dtype) for v in inputs)
    options = {"padding_mode": attributes["padding_mode"], "align_corners": bool(attributes["align_corners"])}
    return torch.nn.functional.grid_sample(*tensors, mode=TORCH_MODES[attributes["mode"]], **options).numpy()


@pytest.mark.parametrize(("mode", "padding", "align", "rank"), MODES)
def test_samples_agree_with_torch_and_runtimes_pass(mode: str, padding: str, align: int, rank: int) -> None:
    x, grid = sampled(rank)
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
    y = call("GridSample", x, grid, opset=20, **attributes)
    np.testing.assert_allclose(y, by_torch((x, grid), attributes), rtol=1e-12, atol=1e-14)
    (runtime,) = run_onnxruntime("GridSample", (x, grid), attributes, opset=20)
    for actual in (runtime, by_torch((x, grid), attributes, torch.float32)):
        found = verdict("GridSample", (x, grid), actual, attributes)
        assert found.outcome is Outcome.PASSED, found.message
        assert found.max_z is None or found.max_z < 8


@pytest.mark.parametrize(("old", "new"), [("bilinear", "linear"), ("nearest", "nearest"), ("bicubic", "cubic")])
def test_modes_of_opset_16_are_those_of_20(old: str, new: str) -> None:
    x, grid = sampled(2, 1)
    before = call("GridSample", x, grid, opset=16, mode=old)
    np.testing.assert_array_equal(before, call("GridSample", x, grid, opset=20, mode=new))


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", TORCH_MODES)
def test_grid_of_element_centres_gives_the_image(mode: str, rank: int) -> None:
    shape = (3, 4, 2, 5)[:rank]
    x = np.random.default_rng(2).standard_normal((1, 2, *shape)).astype(np.float32)
    axes = np.meshgrid(*((2 * np.arange(n) + 1) / n - 1 for n in shape), indexing="ij")
    grid = np.stack(axes[::-1], axis=-1)[None]
    np.testing.assert_allclose(call("GridSample", x, grid, opset=20, mode=mode), x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_linear_volume_is_linear_along_each_axis(mode: str) -> None:
    rng = np.random.default_rng(3)
    x, at = rng.standard_normal((1, 1, 4, 5, 6)), rng.uniform(-1, 1, 3)
    y = call("GridSample", x, at[::-1].reshape(1, 1, 1, 1, 3), opset=20, mode=mode, padding_mode="border")
    for position in at[::-1]:  # one axis after the other, the innermost first
        line = x.reshape(1, -1, x.shape[-1])
        x = call("GridSample", line, np.array([[[position]]]), opset=20, mode=mode, padding_mode="border")
        at, x = at[:-1], x.reshape(1, 1, *{3: (4, 5), 2: (4,), 1: (1,)}[len(at)])
    np.testing.assert_allclose(y.ravel(), x.ravel(), rtol=1e-12)


def test_tie_between_two_elements_goes_to_the_even_one() -> None:
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    grid = np.array([-0.5, 0.0, 0.5], np.float32).reshape(1, 3, 1)  # elements 0.5, 1.5 and 2.5
    assert call("GridSample", x, grid, opset=20, mode="nearest").ravel().tolist() == [0, 2, 2]
    wrong = np.array([[[1, 1, 3]]], np.float32)
    assert verdict("GridSample", (x, grid), wrong, {"mode": "nearest"}).outcome is Outcome.FAILED


def test_nearest_element_is_open_where_rounding_decides() -> None:
    x = np.arange(7, dtype=np.float32).reshape(1, 1, 7)
    grid = np.array([1 / 7 - 1 + 1 / 7, 0.3], np.float32).reshape(1, 2, 1)  # element 0.5 up to rounding
    for first in (0, 1):
        actual = np.array([[[first, 4]]], np.float32)
        assert verdict("GridSample", (x, grid), actual, {"mode": "nearest"}).outcome is Outcome.PASSED
    assert verdict("GridSample", (x, grid), np.float32([[[0, 3]]]), {"mode": "nearest"}).outcome is Outcome.FAILED


def test_integers_are_interpolated_as_floats() -> None:
    x = np.array([[[0, 10, 21]]], np.int32)
    grid = np.array([-2 / 3, -0.3, 1 / 3 + 0.1], np.float32).reshape(1, 3, 1)
    y = call("GridSample", x, grid, opset=20)
    assert y.dtype == np.int32
    assert y.tolist() == [[[0, 5, 17]]]
    assert verdict("GridSample", (x, grid), np.array([[[0, 5, 17]]], np.int32), {}).outcome is Outcome.PASSED
    assert verdict("GridSample", (x, grid), np.array([[[0, 5, 13]]], np.int32), {}).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "change",
    [
        {"align_corners": 1},
        {"padding_mode": "border"},
        {"padding_mode": "reflection"},
        {"mode": "nearest"},
        {"mode": "cubic"},
    ],
    ids=str,
)
def test_fault_fails(change: dict[str, Any]) -> None:
    x, grid = sampled(2, 4)
    wrong = call("GridSample", x, grid, opset=20, **change).astype(np.float32)
    assert verdict("GridSample", (x, grid), wrong, {}).outcome is Outcome.FAILED


def test_swapped_coordinates_and_narrow_ones_fail() -> None:
    x, grid = sampled(2, 5)
    for wrong in (grid[..., ::-1], grid.astype(np.float16).astype(np.float32)):
        y = call("GridSample", x, wrong, opset=20).astype(np.float32)
        assert verdict("GridSample", (x, grid), y, {}).outcome is Outcome.FAILED


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_coordinate_that_is_no_number_is_open(value: float) -> None:
    x, grid = sampled(2, 6)
    grid[0, 0, 0, 0] = value
    y = call("GridSample", x, grid, opset=20).astype(np.float32)
    y[0, :, 0, 0] = 5
    assert verdict("GridSample", (x, grid), y, {}).outcome is Outcome.PASSED


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 3, 4, 5)])
def test_affine_grid_agrees_with_torch(size: tuple[int, ...], align: int) -> None:
    rank = len(size) - 2
    theta = np.random.default_rng(7).standard_normal((2, rank, rank + 1)).astype(np.float32)
    expected = torch.nn.functional.affine_grid(
        torch.from_numpy(theta).double(), size, align_corners=bool(align)
    ).numpy()
    inputs = (theta, np.array(size))
    np.testing.assert_allclose(
        call("AffineGrid", *inputs, opset=20, align_corners=align), expected, rtol=1e-12, atol=1e-14
    )
    (actual,) = run_onnxruntime("AffineGrid", inputs, {"align_corners": align}, opset=20)
    found = verdict("AffineGrid", inputs, actual, {"align_corners": align})
    assert found.outcome is Outcome.PASSED, found.message
    wrong = call("AffineGrid", *inputs, opset=20, align_corners=1 - align).astype(np.float32)
    assert verdict("AffineGrid", inputs, wrong, {"align_corners": align}).outcome is Outcome.FAILED


def test_shapes_and_modes_that_do_not_fit_are_named() -> None:
    x, grid = sampled(2)
    with pytest.raises(InvalidInputError, match="a grid of shape"):
        call("GridSample", x, grid[..., :1], opset=20)
    with pytest.raises(InvalidAttributeError, match="mode='lanczos'"):
        call("GridSample", x, grid, opset=20, mode="lanczos")
    with pytest.raises(InvalidInputError, match="theta of shape"):
        call("AffineGrid", np.zeros((1, 2, 3)), np.array([2, 1, 4, 4]), opset=20)
