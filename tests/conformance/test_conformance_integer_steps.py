"""Integers that may be off by a step where their scale says so, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.verdict import judge
from onnx_arch.operators.scale import Rule, Scale

STEPS = Scale(np.zeros(()), np.array([0.0, 1.0, 2.0, np.inf]), Rule.EXACT)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "uint64"])
@pytest.mark.parametrize(
    ("off", "outcome"),
    [
        ([0, 0, 0, 0], Outcome.PASSED),
        ([0, 1, 2, 40], Outcome.PASSED),
        ([0, -1, -2, -5], Outcome.PASSED),
        ([1, 0, 0, 0], Outcome.FAILED),
        ([0, 2, 0, 0], Outcome.FAILED),
        ([0, 0, 3, 0], Outcome.FAILED),
        ([0, 0, -3, 0], Outcome.FAILED),
    ],
    ids=str,
)
def test_integers_are_judged_within_their_steps(dtype: str, off: list[int], outcome: Outcome) -> None:
    reference = np.array([5, 6, 7, 8], dtype)
    actual = (reference.astype(np.int64) + off).astype(dtype)
    assert judge(actual, reference, reference.dtype, STEPS).outcome is outcome


@pytest.mark.parametrize("value", [np.array([1.0]), np.array([True]), np.array(["a"], object)], ids=repr)
def test_steps_are_for_integers_only(value: Any) -> None:
    scale = Scale(np.zeros(()), np.array([1.0]), Rule.EXACT)
    other = np.array(["b"], object) if value.dtype.kind == "O" else ~value if value.dtype.kind == "b" else value + 1
    assert judge(value, value, value.dtype, scale).outcome is Outcome.PASSED
    assert judge(other, value, value.dtype, scale).outcome is Outcome.FAILED
