"""Quantization in ONNX Runtime's own domain, and Conv and Where between quantized tensors: it passes, faults fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .contrib_nodes import fails, passes, run
from .test_contrib_quantized import Inputs, both_types, integers, normal, number, zero

F = np.float32
WIDTHS = pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])


@WIDTHS
@pytest.mark.parametrize("real", [F, np.float16])
def test_quantize_and_dequantize_by_onnxruntime_pass(dtype: Any, real: Any) -> None:
    x, steps = normal(0, 3, 4, 50).astype(real), np.array([0.03, 0.02, 0.05, 0.01], real)
    zeros, step = np.array([1, 2, 3, 4], dtype), np.array(0.03, real)
    passes("QuantizeLinear", [x, step, np.array(4, dtype)])
    passes("QuantizeLinear", [x, steps, zeros], axis=1)
    passes("QuantizeLinear", [x[:, :3].copy(), steps[:3], zeros[:3]], axis=-3)
    passes("DequantizeLinear", [integers(1, dtype, 3, 4, 5), step])
    passes("DequantizeLinear", [integers(1, dtype, 3, 4, 5), steps, zeros], axis=-2)


def test_quantize_and_dequantize_along_another_axis_or_without_zero_point_fail() -> None:
    x, steps, zeros = normal(0, 4, 4, 50), np.array([0.03, 0.02, 0.05, 0.01], F), np.array([1, 2, 3, 4], np.int8)
    fails("QuantizeLinear", [x, steps, zeros], run("QuantizeLinear", [x, steps, zeros], axis=0), axis=1)
    fails("QuantizeLinear", [x, steps, zeros], run("QuantizeLinear", [x, steps, 0 * zeros], axis=1), axis=1)
    whole = integers(1, np.int8, 4, 4, 50)
    fails("DequantizeLinear", [whole, steps, zeros], run("DequantizeLinear", [whole, steps, zeros], axis=0), axis=1)
    fails("DequantizeLinear", [whole, steps, zeros], run("DequantizeLinear", [whole, steps, 0 * zeros], axis=1), axis=1)


CONVS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 1, 1, 1]},
    {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"dilations": [2, 1], "group": 2},
    {"group": 4, "pads": [0, 1, 1, 0]},
]


def conv_inputs(dtype: Any, *, last: int = 1, group: int = 1, per_channel: bool = False, bias: bool = True) -> Inputs:
    x, w = integers(0, dtype, 2, 4, 8, 9), integers(1, np.int8, 8, 4 // group, 3, 3)
    x = np.moveaxis(x, 1, -1).copy() if last else x
    scales = (np.linspace(0.005, 0.02, 8, dtype=F), np.zeros(8, np.int8))
    w_scale, w_zero = scales if per_channel else (number(0.013), np.array(3, np.int8))
    c = [np.random.default_rng(2).integers(-2000, 2000, 8).astype(np.int32)] if bias else []
    return [x, number(0.03), zero(117, dtype), w, w_scale, w_zero, number(0.6), zero(120, dtype), *c]


@both_types
@pytest.mark.parametrize("conv", CONVS, ids=lambda conv: "-".join(conv) or "plain")
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinear_conv_by_onnxruntime_passes(dtype: Any, conv: dict[str, Any], last: int, per_channel: bool) -> None:
    for bias in (False, True):
        inputs = conv_inputs(dtype, last=last, group=conv.get("group", 1), per_channel=per_channel, bias=bias)
        passes("QLinearConv", inputs, channels_last=last, **conv)
        passes("QLinearConv", inputs, weights=[3], channels_last=last, **conv)


@pytest.mark.parametrize("last", [0, 1])
def test_qlinear_conv_with_a_fault_fails(last: int) -> None:
    inputs = conv_inputs(np.uint8, last=last)
    wrongs = [
        run("QLinearConv", inputs, channels_last=last, pads=[0, 0, 2, 2]),
        run("QLinearConv", inputs[:8], channels_last=last, pads=[1, 1, 1, 1]),
        run("QLinearConv", [*inputs[:5], np.array(0, np.int8), *inputs[6:]], channels_last=last, pads=[1, 1, 1, 1]),
        run("QLinearConv", [*inputs[:2], zero(0, np.uint8), *inputs[3:]], channels_last=last, pads=[1, 1, 1, 1]),
    ]
    for wrong in wrongs:
        fails("QLinearConv", inputs, wrong, channels_last=last, pads=[1, 1, 1, 1])


def test_qlinear_conv_with_channels_not_moved_back_fails() -> None:
    inputs = conv_inputs(np.uint8)
    right = run("QLinearConv", inputs, channels_last=1)[0]
    fails("QLinearConv", inputs, [np.moveaxis(right, -1, 1).reshape(right.shape)], channels_last=1)


def test_qlinear_conv_one_step_off_fails() -> None:
    inputs = conv_inputs(np.uint8)
    right = run("QLinearConv", inputs, channels_last=1)[0]
    fails("QLinearConv", inputs, [np.where(right < 255, right + 1, 254).astype(np.uint8)], channels_last=1)


def where_inputs(dtype: Any, shapes: tuple[tuple[int, ...], ...]) -> Inputs:
    condition = np.asarray(np.random.default_rng(3).random(shapes[0]) > 0.5)
    x, y = (integers(i, dtype, *shape) for i, shape in enumerate(shapes[1:]))
    return [
        *(condition, x, number(0.031), zero(117, dtype)),
        *(y, number(0.017), zero(3, dtype)),
        *(number(0.04), zero(90, dtype)),
    ]


@both_types
@pytest.mark.parametrize("shapes", [((3, 64),) * 3, ((3, 1), (2, 3, 64), (64,)), ((64,), (), (3, 1))])
def test_qlinear_where_by_onnxruntime_passes_and_the_other_choice_fails(dtype: Any, shapes: Any) -> None:
    inputs = where_inputs(dtype, shapes)
    passes("QLinearWhere", inputs)
    fails("QLinearWhere", inputs, run("QLinearWhere", [np.asarray(~inputs[0]), *inputs[1:]]))
    fails("QLinearWhere", inputs, run("QLinearWhere", [*inputs[:5], inputs[2], *inputs[6:]]))
    fails("QLinearWhere", inputs, run("QLinearWhere", [*inputs[:8], zero(91, dtype)]))


def test_qlinear_where_without_rescaling_fails() -> None:
    inputs = where_inputs(np.uint8, ((3, 64),) * 3)
    fails("QLinearWhere", inputs, [np.where(inputs[0], inputs[1], inputs[4])])
