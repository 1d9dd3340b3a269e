"""QAttention: ONNX Runtime passes, and plausible faults fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.errors import InvalidInputError

from .contrib_nodes import fails, judge, passes, run
from .test_contrib_quantized import F, Inputs, integers, normal, number, zero

B, T, H, N, HIDDEN = 2, 6, 3, 40, 24
PADDING = np.array([[1, 1, 1, 1, 0, 0], [1] * 6], np.int32)
MASKS: dict[str, Any] = {"none": None, "ends": np.array([4, 6], np.int32), "keys": PADDING}


def inputs_of(left: Any, right: Any, *, columns: bool = False, mask: Any = None, past: Any = None) -> Inputs:
    step, start = number(0.002), zero(130, right)
    if columns:
        step, start = np.linspace(0.001, 0.003, 3 * HIDDEN, dtype=F), np.full(3 * HIDDEN, start)
    x, w = integers(0, left, B, T, N), integers(1, right, N, 3 * HIDDEN)
    return [x, w, normal(2, 3 * HIDDEN), number(0.01), step, mask, zero(120, left), start, past]


@pytest.mark.parametrize(("left", "right"), [(np.uint8, np.uint8), (np.uint8, np.int8)])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_qattention_by_onnxruntime_passes(left: Any, right: Any, columns: bool, mask: str, unidirectional: int) -> None:
    inputs = inputs_of(left, right, columns=columns, mask=MASKS[mask])
    passes("QAttention", inputs, num_heads=H, unidirectional=unidirectional, outputs=2)
    passes("QAttention", inputs, weights=[1], num_heads=H, unidirectional=unidirectional, scale=0.2)


def test_qattention_with_past_passes_and_with_a_stale_one_fails() -> None:
    inputs = inputs_of(np.uint8, np.int8, past=normal(3, 2, B, H, 4, HIDDEN // H))
    outputs = passes("QAttention", inputs, num_heads=H, unidirectional=1, outputs=2)
    outputs[1][0, 1, 2, -1] = 0
    fails("QAttention", inputs, outputs, num_heads=H, unidirectional=1)


def test_qattention_with_a_fault_fails() -> None:
    inputs = inputs_of(np.uint8, np.int8, columns=True, mask=MASKS["ends"])
    changes = [
        (2, 2 * inputs[2]),
        (4, inputs[4][::-1].copy()),
        (5, None),
        (6, zero(119, np.uint8)),
        (7, inputs[7] + np.int8(1)),
    ]
    for position, other in changes:
        wrong = run("QAttention", [*inputs[:position], other, *inputs[position + 1 :]], num_heads=H, outputs=2)
        fails("QAttention", inputs, wrong, num_heads=H)
    fails("QAttention", inputs, run("QAttention", inputs, num_heads=H, scale=0.5), num_heads=H)
    fails("QAttention", inputs, run("QAttention", inputs, num_heads=H, unidirectional=1), num_heads=H)


def test_qattention_with_a_shared_buffer_is_refused() -> None:
    inputs = inputs_of(np.uint8, np.int8)
    with pytest.raises(InvalidInputError, match="not modelled"):
        judge("QAttention", inputs, [normal(0, B, T, HIDDEN)], num_heads=H, past_present_share_buffer=1)
