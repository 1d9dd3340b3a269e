"""Intermediate results beyond the range of their type: what the formula gives in that type conforms, nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.operators.scale import Array

from ..conformance.judged_nodes import judge
from .judging import run_onnxruntime

F = np.float32
LAST, ONES, CHANNELS = np.array([-1]), np.ones(6, F), np.ones(4, F)
CALLS: dict[str, tuple[str, list[Array | None], dict[str, Any], int]] = {
    "ReduceL2": ("ReduceL2", [None, LAST], {}, 18),
    "ReduceLogSum": ("ReduceLogSum", [None, LAST], {}, 18),
    "ReduceMean": ("ReduceMean", [None, LAST], {}, 18),
    "Mean": ("Mean", [None, None, None], {}, 13),
    "LpNormalization": ("LpNormalization", [None], {}, 1),
    "LpPool": ("LpPool", [None], {"kernel_shape": [3]}, 18),
    "GlobalLpPool": ("GlobalLpPool", [None], {}, 2),
    "AveragePool": ("AveragePool", [None], {"kernel_shape": [3]}, 11),
    "LayerNormalization": ("LayerNormalization", [None, ONES], {}, 17),
    "RMSNormalization": ("RMSNormalization", [None, ONES], {}, 23),
    "InstanceNormalization": ("InstanceNormalization", [None, CHANNELS, CHANNELS], {}, 6),
    "GroupNormalization": ("GroupNormalization", [None, CHANNELS, CHANNELS], {"num_groups": 2}, 21),
    "MeanVarianceNormalization": ("MeanVarianceNormalization", [None], {"axes": [0, 2]}, 13),
}


def called(name: str, size: float) -> tuple[str, list[Array], dict[str, Any], int]:
    """A call on positive float32 values of about this size."""
    op_type, inputs, attributes, opset = CALLS[name]
    x = (np.random.default_rng(41).uniform(0.2, 1, (2, 4, 6)) * size).astype(F)
    return op_type, [x if value is None else value for value in inputs], attributes, opset


@pytest.mark.parametrize("size", [3e38, 1e30, 1.0, 1e-30, 1e-42])
@pytest.mark.parametrize("name", CALLS)
def test_results_of_onnxruntime_at_any_size_are_not_called_wrong(name: str, size: float) -> None:
    op_type, inputs, attributes, opset = called(name, size)
    (y,) = run_onnxruntime(op_type, inputs, attributes, opset=opset)
    row = judge(op_type, inputs, y, attributes, opset=opset)
    every_element_spills = size != 1.0 and row.outcome is Outcome.UNJUDGED
    assert row.outcome is Outcome.PASSED or every_element_spills, row.message


@pytest.mark.parametrize("size", [1e16, 1e3, 1e-3])
@pytest.mark.parametrize("name", CALLS)
def test_zero_and_infinity_within_the_range_fail(name: str, size: float) -> None:
    op_type, inputs, attributes, opset = called(name, size)
    (y,) = run_onnxruntime(op_type, inputs, attributes, opset=opset)
    for wrong in (0.0, np.inf, np.nan):
        tampered = y.copy()
        tampered.flat[3] = wrong
        row = judge(op_type, inputs, tampered, attributes, opset=opset)
        assert row.outcome is Outcome.FAILED, f"{wrong}: {row.message}"


def test_normalisation_by_the_text_or_by_the_function_body_passes_and_between_them_only() -> None:
    x = called("MeanVarianceNormalization", 1e-4)[1][0].astype(np.float64)
    d = x - x.mean(axis=(0, 2), keepdims=True)
    deviation = np.sqrt((d**2).mean(axis=(0, 2), keepdims=True))
    for epsilon, outcome in ((0.0, Outcome.PASSED), (1e-9, Outcome.PASSED), (1e-7, Outcome.FAILED)):
        y = (d / (deviation + epsilon)).astype(F)
        row = judge("MeanVarianceNormalization", [x.astype(F)], y, {"axes": [0, 2]}, opset=13)
        assert row.outcome is outcome, f"{epsilon}: {row.message}"


def test_float32_result_of_float64_input_is_held_to_float32() -> None:
    x = np.random.default_rng(42).standard_normal((3, 8))
    weight = np.ones(8, F)
    y = (x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + F(1e-5))).astype(F)
    assert judge("RMSNormalization", [x, weight], y).outcome is Outcome.PASSED
    assert judge("RMSNormalization", [x, weight], y * F(1.0001)).outcome is Outcome.FAILED
