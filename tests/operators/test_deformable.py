"""DeformConv: official cases, a plain loop, torch's convolution, ONNX Runtime, faults."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.scale import Array

from .ml_nodes import call, check_runs, outcomes
from .node_cases import Case, cases, check_case, check_signature, versions

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


@pytest.mark.parametrize("case", cases({"DeformConv"}), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions({"DeformConv"}))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def out_sizes(sizes: tuple[int, ...], kernel: tuple[int, ...], a: dict[str, Any]) -> tuple[int, ...]:
    rank = len(sizes)
    return tuple(
        (sizes[i] + a["pads"][i] + a["pads"][rank + i] - a["dilations"][i] * (kernel[i] - 1) - 1) // a["strides"][i] + 1
        for i in range(rank)
    )


def inputs_of(seed: int, sizes: tuple[int, ...], kernel: tuple[int, ...], a: dict[str, Any]) -> list[Array]:
    """x (2, 4, …), w (6, 4 / group, …), offset, b, mask; offsets reach beyond the borders."""
    rng = np.random.default_rng(seed)
    out, count = out_sizes(sizes, kernel, a), a["offset_group"] * math.prod(kernel)
    x = rng.standard_normal((2, 4, *sizes))
    w = rng.standard_normal((6, 4 // a["group"], *kernel))
    offset = 2 * rng.standard_normal((2, count * len(sizes), *out))
    b, mask = rng.standard_normal(6), rng.random((2, count, *out))
    return [v.astype(np.float32) for v in (x, w, offset, b, mask)]


def slow(inputs: list[Array], a: dict[str, Any], fault: str = "") -> Array:
    """Every product by itself, from the definition; with one of `FAULTS` if named."""
    x, w, offset, b, mask = (v.astype(np.float64) for v in inputs)
    kernel, sizes, out = w.shape[2:], x.shape[2:], offset.shape[2:]
    rank, positions = len(kernel), list(np.ndindex(*kernel))
    y = np.zeros((x.shape[0], w.shape[0], *out))
    for n, m, *o in np.ndindex(*y.shape):
        for c, (number, position) in itertools.product(range(w.shape[1]), enumerate(positions)):
            channel = m // (w.shape[0] // a["group"]) * w.shape[1] + c
            group = channel // (x.shape[1] // a["offset_group"])
            at = []
            for axis in range(rank):
                shift = offset[(n, (group * len(positions) + number) * rank + axis, *o)]
                if fault == "axes swapped":
                    shift = offset[(n, (group * len(positions) + number) * rank + rank - 1 - axis, *o)]
                spread = 1 if fault == "dilation ignored" else a["dilations"][axis]
                begin = a["pads"][rank + axis] if fault == "padding of the other side" else a["pads"][axis]
                start = o[axis] * a["strides"][axis] - begin + position[axis] * spread
                at.append(start + (0.0 if fault == "offset ignored" else shift))
            value = 0.0
            for corner in itertools.product((0, 1), repeat=rank):
                index = [math.floor(p) + i for p, i in zip(at, corner, strict=True)]
                share = [p - math.floor(p) for p in at]
                weights = [s if i else 1 - s for s, i in zip(share, corner, strict=True)]
                if fault == "corner wrong":
                    weights = [1 - s if i else s for s, i in zip(share, corner, strict=True)]
                if fault == "clamped at the border":
                    index = [min(max(i, 0), size - 1) for i, size in zip(index, sizes, strict=True)]
                if all(0 <= i < size for i, size in zip(index, sizes, strict=True)):
                    value += math.prod(weights) * x[(n, channel, *index)]
            factor = 1.0 if fault == "mask ignored" else mask[(n, group * len(positions) + number, *o)]
            y[(n, m, *o)] += value * factor * w[(m, c, *position)]
    return y if fault == "bias ignored" else y + b.reshape(-1, *(1,) * rank)


def attributes(rank: int, **changes: Any) -> dict[str, Any]:
    both = {"dilations": [1, 2, 1][:rank], "strides": [2, 1, 1][:rank], "pads": [1, 0, 1][:rank] + [0, 2, 1][:rank]}
    return {**both, "group": 2, "offset_group": 2, **changes}


SIZES = {1: ((9,), (3,)), 2: ((6, 7), (2, 3)), 3: ((4, 3, 4), (2, 1, 2))}
NODE: dict[str, Any] = {"opset": 22, "domain": ""}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [(1, 1), (2, 2), (1, 4), (2, 1)])
def test_every_rank_and_grouping_is_that_of_a_plain_loop(rank: int, groups: tuple[int, int]) -> None:
    a = attributes(rank, group=groups[0], offset_group=groups[1])
    inputs = inputs_of(rank, *SIZES[rank], a)
    np.testing.assert_allclose(call("DeformConv", *inputs, **a, **NODE), slow(inputs, a), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2])
def test_without_offsets_it_is_torch_s_convolution(seed: int) -> None:
    torch = pytest.importorskip("torch")
    a = attributes(2, pads=[1, 2, 1, 2], offset_group=1)
    x, w, offset, b, _ = inputs_of(seed, (6, 7), (2, 3), a)
    x, w, b = (v.astype(np.float64) for v in (x, w, b))
    y = torch.nn.functional.conv2d(
        *(torch.from_numpy(v) for v in (x, w, b)), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2
    )
    found = call("DeformConv", x, w, np.zeros(offset.shape), b, **a, **NODE)
    np.testing.assert_allclose(found, y.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("groups", [(1, 1), (2, 2), (1, 4)])
def test_onnxruntime_passes(seed: int, groups: tuple[int, int]) -> None:
    a = attributes(2, group=groups[0], offset_group=groups[1])
    inputs = inputs_of(seed, (20, 21), (3, 3), a)
    check_runs("DeformConv", *inputs, opset=19, domain="", **a)


FAULTS = [
    "axes swapped",
    "dilation ignored",
    "padding of the other side",
    "offset ignored",
    "corner wrong",
    "clamped at the border",
    "mask ignored",
    "bias ignored",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_caught(fault: str) -> None:
    a = attributes(2)
    inputs = inputs_of(4, *SIZES[2], a)
    right, wrong = (slow(inputs, a, name).astype(np.float32) for name in ("", fault))
    assert outcomes([right], "DeformConv", *inputs, **a, **NODE) == [PASSED]
    assert outcomes([wrong], "DeformConv", *inputs, **a, **NODE) == [FAILED]


def test_one_wrong_element_is_caught() -> None:
    a = attributes(2)
    inputs = inputs_of(5, (12, 12), (3, 3), a)
    y = call("DeformConv", *inputs, **a, **NODE).astype(np.float32)
    assert outcomes([y], "DeformConv", *inputs, **a, **NODE) == [PASSED]
    y[1, 3, 2, 2] += np.float32(1e-3)
    assert outcomes([y], "DeformConv", *inputs, **a, **NODE) == [FAILED]


def test_offset_that_is_no_number_leaves_its_element_open() -> None:
    a = attributes(2)
    inputs = inputs_of(5, *SIZES[2], a)
    inputs[2][1, 3, 0, 1] = np.nan
    y = call("DeformConv", *inputs, **a, **NODE).astype(np.float32)
    y[1, :, 0, 1] = 7
    assert outcomes([y], "DeformConv", *inputs, **a, **NODE) == [PASSED]
    y[1, :, 0, 0] = 7
    assert outcomes([y], "DeformConv", *inputs, **a, **NODE) == [FAILED]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"strides": [1]}, InvalidAttributeError, "strides"),
        ({"pads": [0, 0, 0]}, InvalidAttributeError, "3 pads"),
        ({"group": 3}, InvalidAttributeError, "group=3"),
        ({"offset_group": 3}, InvalidAttributeError, "offset_group=3"),
        ({"offset_group": 1}, InvalidInputError, "offset"),
        ({"kernel_shape": [3, 3]}, InvalidInputError, "kernel_shape"),
    ],
)
def test_impossible_sizes_are_named(change: dict[str, Any], error: Any, message: str) -> None:
    a = attributes(2)
    inputs = inputs_of(1, *SIZES[2], a)
    with pytest.raises(error, match=message):
        call("DeformConv", *inputs, **{**a, **change}, **NODE)
