"""Rows of tables that are quantized by blocks: ONNX Runtime passes, and plausible faults fail."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidInputError

from .contrib_nodes import fails, judge, passes, run
from .test_contrib_quantized import F, Inputs, given, integers, normal

BLOCKS: dict[str, Any] = {"block_size": 16}
PLACES = np.array([[1, 4], [-1, 0]], np.int64)


def table_inputs(bits: int, *, length: int = 72, zeros: bool = True, dtype: Any = F) -> Inputs:
    blocks = -(-length // 16)
    scales = (np.abs(normal(1, 5, blocks)) + 0.01).astype(dtype)
    packed = [integers(2, np.uint8, 5, -(-blocks * bits // 8))] if zeros else []
    return [integers(0, np.uint8, 5, length * bits // 8), PLACES, scales, *packed]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("dtype", [F, np.float16])
def test_gather_block_quantized_by_onnxruntime_passes(bits: int, zeros: bool, dtype: Any) -> None:
    inputs = table_inputs(bits, zeros=zeros, dtype=dtype)
    passes("GatherBlockQuantized", inputs, bits=bits, **BLOCKS)
    passes("GatherBlockQuantized", inputs, weights=given(inputs, 0, 2, 3), bits=bits, quantize_axis=-1, **BLOCKS)
    outside = [inputs[0], np.array([5, -6, -5], np.int32), *inputs[2:]]
    passes("GatherBlockQuantized", outside, bits=bits, **BLOCKS)
    passes("GatherBlockQuantized", [inputs[0], np.zeros(0, np.int32), *inputs[2:]], bits=bits, **BLOCKS)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 40), (0, 1)), ((40, 5), (1, 0)), ((3, 32, 4), (2, 1)), ((3, 4, 20), (1, 2)), ((5, 40), (1, 1))],
)
def test_gather_block_quantized_of_short_integers_passes(dtype: Any, shape: tuple[int, ...], axes: Any) -> None:
    along, blocked = axes
    blocks = tuple(-(-n // 16) if i == blocked else n for i, n in enumerate(shape))
    low = -8 if dtype == ml_dtypes.int4 else 0
    rng = np.random.default_rng(0)
    data, zeros = (rng.integers(low, low + 16, size).astype(np.int8).astype(dtype) for size in (shape, blocks))
    inputs = [data, np.array([[1, 2], [-1, 0]], np.int64), np.abs(normal(1, *blocks)) + F(0.01), zeros]
    form = {"gather_axis": along, "quantize_axis": blocked, **BLOCKS}
    passes("GatherBlockQuantized", inputs, weights=[0, 2, 3], **form)
    passes("GatherBlockQuantized", inputs[:3], weights=[0, 2], **form)


def test_gather_block_quantized_of_8_bit_floats_is_values_times_scales() -> None:
    data = normal(0, 5, 40).astype(ml_dtypes.float8_e4m3fn)
    scales = np.abs(normal(1, 1, 3))
    y = (data.astype(F) * np.repeat(scales, 16, axis=1)[:, :40])[PLACES]
    assert judge("GatherBlockQuantized", [data, PLACES, scales], [y], **BLOCKS).outcome is Outcome.PASSED
    fails("GatherBlockQuantized", [data, PLACES, scales], [y * F(1 + 1e-6)], **BLOCKS)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gather_block_quantized_with_a_fault_fails(bits: int) -> None:
    inputs = table_inputs(bits)
    scales = inputs[2]
    for position, wrong in ((1, PLACES[::-1].copy()), (2, scales[:, ::-1].copy()), (3, 0 * inputs[3])):
        changed = [*inputs[:position], wrong, *inputs[position + 1 :]]
        fails(
            "GatherBlockQuantized",
            inputs,
            run("GatherBlockQuantized", changed, bits=bits, **BLOCKS),
            bits=bits,
            **BLOCKS,
        )
    swapped = run("GatherBlockQuantized", inputs, bits=bits, **BLOCKS)[0]
    fails("GatherBlockQuantized", inputs, [np.roll(swapped, 1, axis=-1)], bits=bits, **BLOCKS)
    outside = [inputs[0], np.array([5, 1]), *inputs[2:]]
    last = run("GatherBlockQuantized", [inputs[0], np.array([4, 1]), *inputs[2:]], bits=bits, **BLOCKS)
    fails("GatherBlockQuantized", outside, last, bits=bits, **BLOCKS)


def test_gather_block_quantized_of_what_the_schema_forbids_is_refused() -> None:
    data, places, scales, zeros = table_inputs(4)
    y = [normal(0, 2, 2, 72)]
    with pytest.raises(InvalidInputError, match="gather_axis"):
        judge("GatherBlockQuantized", [data, places, scales], y, gather_axis=1, quantize_axis=0, **BLOCKS)
    floats = [x.astype(ml_dtypes.float8_e4m3fn) for x in (data, zeros)]
    with pytest.raises(InvalidInputError, match="no zero points"):
        judge("GatherBlockQuantized", [floats[0], places, scales, floats[1]], y, **BLOCKS)
    with pytest.raises(InvalidInputError, match="for blocks"):
        judge("GatherBlockQuantized", [data, places, scales[:, :4].copy()], y, **BLOCKS)
