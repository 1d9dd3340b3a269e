"""What a normalised row shares: errors of its mean and its scale are taken off, those of one element are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.sharing import own_deviations, rows_of
from onnx_arch.operators.evaluation import prepare

from .judged_nodes import judge

Array = np.ndarray
F = np.float32
UNIT = 2.0**-24

SHAPES: dict[str, tuple[tuple[int, ...], dict[str, Any], int]] = {
    "LayerNormalization": ((4, 300), {}, 300),
    "RMSNormalization": ((4, 300), {}, 300),
    "InstanceNormalization": ((2, 3, 300), {}, 3),
    "GroupNormalization": ((2, 6, 50), {"num_groups": 2}, 6),
    "MeanVarianceNormalization": ((2, 3, 10, 15), {}, 0),
    "LpNormalization": ((4, 300), {}, 0),
}
"""op_type: shape, attributes, length of the affine parameters (0 for none)."""


def _inputs(op_type: str, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    shape, _, length = SHAPES[op_type]
    x = (3 + rng.standard_normal(shape)).astype(F)
    affine = [(1 + 0.1 * rng.standard_normal(length)).astype(F), (0.1 * rng.standard_normal(length)).astype(F)]
    count = 0 if not length else 1 if op_type == "RMSNormalization" else 2
    return [x, *affine[:count]]


def _groups(op_type: str, y: Array) -> Array:
    """Rows of the output, written down for each operator by hand: a view of (rows, elements)."""
    if op_type == "GroupNormalization":
        return y.reshape(4, 150)
    if op_type == "MeanVarianceNormalization":
        return y.transpose(1, 0, 2, 3).reshape(3, -1)
    return y.reshape(-1, 300)


def _own(op_type: str, change: Callable[[list[Array]], Array]) -> Array:
    inputs = _inputs(op_type)
    call = prepare(op_type, inputs, SHAPES[op_type][1], opset=23)
    rows, reference = rows_of(call), call.outputs()[0]
    assert rows is not None
    return own_deviations(rows, reference + change([x.astype(np.float64) for x in inputs]), reference) / UNIT


def _affine(inputs: list[Array]) -> Array | float:
    """The factor of every element, broadcast to the output."""
    if len(inputs) == 1:
        return 1.0
    return inputs[1] if inputs[1].size == inputs[0].shape[-1] else inputs[1].reshape(-1, 1)


@pytest.mark.parametrize("op_type", SHAPES)
def test_row_of_the_reference_has_nothing_of_its_own(op_type: str) -> None:
    assert _own(op_type, lambda inputs: np.zeros_like(inputs[0])).max() < 1e-3


@pytest.mark.parametrize("op_type", [name for name in SHAPES if name not in ("RMSNormalization", "LpNormalization")])
def test_mean_that_is_off_is_shared_by_the_row(op_type: str) -> None:
    assert _own(op_type, lambda inputs: 1e-3 * _affine(inputs) * np.ones_like(inputs[0])).max() < 1e-3


@pytest.mark.parametrize("op_type", SHAPES)
def test_scale_that_is_off_is_shared_by_the_row(op_type: str) -> None:
    assert _own(op_type, lambda inputs: 1e-3 * _affine(inputs) * inputs[0]).max() < 1e-3


@pytest.mark.parametrize("op_type", SHAPES)
def test_element_that_is_off_is_found_where_it_is(op_type: str) -> None:
    def change(inputs: list[Array]) -> Array:
        moved = np.zeros_like(inputs[0])
        moved.reshape(-1)[-7] = 1e-3
        return moved

    own = _own(op_type, change).reshape(-1)
    assert own.argmax() == own.size - 7
    assert own.max() > 1000


@pytest.mark.parametrize("op_type", SHAPES)
def test_element_is_compared_with_its_own_row_only(op_type: str) -> None:
    """A row whose elements are all off by one alternating pattern has it; the other rows have nothing."""

    def change(inputs: list[Array]) -> Array:
        moved = np.zeros(inputs[0].shape)
        rows = _groups(op_type, np.arange(moved.size).reshape(moved.shape))
        moved.reshape(-1)[rows[0]] = 1e-3 * (-1.0) ** np.arange(rows.shape[1])
        return moved

    own = _groups(op_type, _own(op_type, change))
    assert own[0].min() > 100
    assert own[1:].max() < 1e-3


def _long(op_type: str, level: float) -> tuple[list[Array], Array]:
    """Rows of equal values, whose mean a float32 loop gets wrong, and what that loop makes of them."""
    length = 9216
    rng = np.random.default_rng(3)
    x = np.full((2, length), level, F)
    w, b = (1 + 0.1 * rng.standard_normal(length)).astype(F), (0.1 * rng.standard_normal(length)).astype(F)
    mean = np.add.accumulate(x, axis=1)[:, -1:] / F(length)
    d = x - mean
    variance = np.add.accumulate(d * d, axis=1)[:, -1:] / F(length)
    y = d / np.sqrt(variance + F(1e-5)) * w + b
    return [x, w, b], y


@pytest.mark.parametrize("level", [0.1, 0.137, 1.7])
def test_long_row_with_a_mean_by_a_loop_passes(level: float) -> None:
    inputs, y = _long("LayerNormalization", level)
    row = judge("LayerNormalization", inputs, y)
    assert row.outcome is Outcome.PASSED, row.message


@pytest.mark.parametrize("level", [0.1, 0.137, 1.7])
def test_one_element_off_in_a_long_row_fails(level: float) -> None:
    inputs, y = _long("LayerNormalization", level)
    y[1, 4000] += F(0.02)
    row = judge("LayerNormalization", inputs, y)
    assert row.outcome is Outcome.FAILED
    assert "[1, 4000]" in row.message


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_row_that_is_not_finite_is_left_to_the_rules_of_special_values(special: float) -> None:
    inputs = _inputs("LayerNormalization")
    inputs[0][0, 0] = special
    call = prepare("LayerNormalization", inputs, {}, opset=23)
    rows, reference = rows_of(call), call.outputs()[0]
    assert rows is not None
    own = own_deviations(rows, reference, reference)
    assert np.isfinite(own).all()
    assert own[0].max() == 0


@pytest.mark.parametrize("op_type", ["Softmax", "Relu"])
def test_other_operators_have_no_rows(op_type: str) -> None:
    assert rows_of(prepare(op_type, [np.ones((2, 3), F)], {}, opset=23)) is None


def test_float64_rows_are_not_fitted() -> None:
    inputs = [x.astype(np.float64) for x in _inputs("LayerNormalization")]
    assert rows_of(prepare("LayerNormalization", inputs, {}, opset=23)) is None
