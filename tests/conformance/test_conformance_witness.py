"""The second witness: sums of like summands, whose roundings are correlated, in every number of lanes."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.witness import SummandWitness
from onnx_arch.operators.scale import Rule, Scale

from .judged_nodes import judge

Array = np.ndarray

LENGTHS = (768, 3072, 24576)


def _in_lanes(x: Array, lanes: int) -> Array:
    """Float32 sums over the last axis, side by side, joined one after the other."""
    partial = np.zeros((*x.shape[:-1], lanes), np.float32)
    for start in range(0, x.shape[-1], lanes):
        partial = partial + x[..., start : start + lanes]
    total = np.zeros(x.shape[:-1], np.float32)
    for lane in range(lanes):
        total = total + partial[..., lane]
    return total


@pytest.mark.parametrize("seed", [6, 7, 8, 10, 11, 15, 25, 31])
@pytest.mark.parametrize("length", LENGTHS)
def test_mean_of_equal_values_in_lanes_passes(length: int, seed: int) -> None:
    value = np.random.default_rng([seed, length]).uniform(0.05, 0.15)
    x = np.full((3, length), value, np.float32)
    for lanes in (1, 2, 4, 8, 16):
        y = (_in_lanes(x, lanes) / np.float32(length))[:, None]
        row = judge("ReduceMean", [x, np.array([1])], y, opset=18)
        assert row.outcome is Outcome.PASSED, f"{lanes} lanes: {row.message}"


@pytest.mark.parametrize("seed", [6, 7, 8, 10, 11, 15, 31])
@pytest.mark.parametrize("length", LENGTHS)
def test_product_of_equal_values_in_lanes_passes(length: int, seed: int) -> None:
    rng = np.random.default_rng([seed, length])
    a, b = np.full((1, length), rng.uniform(0.05, 0.15)), np.full((length, 10), rng.uniform(0.05, 0.15))
    a, b = a.astype(np.float32), b.astype(np.float32)
    for lanes in (1, 2, 4, 8, 16):
        row = judge("MatMul", [a, b], _in_lanes((a.T * b).T, lanes)[None])
        assert row.outcome is Outcome.PASSED, f"{lanes} lanes: {row.message}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length", LENGTHS)
def test_softmax_of_equal_values_in_lanes_passes(length: int, seed: int) -> None:
    x = np.full((3, length), -np.random.default_rng([seed, length]).uniform(1, 3), np.float32)
    x[:, 0] = 0
    e = np.exp(x)
    for lanes in (1, 4, 8):
        row = judge("Softmax", [x], e / _in_lanes(e, lanes)[:, None])
        assert row.outcome is Outcome.PASSED, f"{lanes} lanes: {row.message}"


@pytest.mark.parametrize("length", LENGTHS)
def test_mean_of_like_values_that_is_off_by_a_thousandth_fails(length: int) -> None:
    """What is accepted of like values has an end: a thousandth is 16,777 half-units."""
    x = (0.1 * (1 + 1e-3 * np.random.default_rng(length).standard_normal((3, length)))).astype(np.float32)
    right = x.mean(axis=1, keepdims=True, dtype=np.float64)
    assert judge("ReduceMean", [x, np.array([1])], right.astype(np.float32), opset=18).outcome is Outcome.PASSED
    wrong = (right * 1.001).astype(np.float32)
    assert judge("ReduceMean", [x, np.array([1])], wrong, opset=18).outcome is Outcome.FAILED


def test_witness_accepts_the_error_of_a_loop_and_not_eight_times_as_much() -> None:
    """1,000 times 0.1 in a float32 loop gives 99.99905, which is 160 half-units from 100."""
    terms = np.full((1, 1000), 0.1)
    total = np.float32(0)
    for _ in range(1000):
        total += np.float32(0.1)
    units = abs(float(total) - 100.0) / (100.0 * 2.0**-24)
    witness = SummandWitness(lambda indices: terms[indices], Scale(np.array([100.0]), 1000, Rule.DOT))
    at = np.array([0])
    assert witness.examine(at, np.array([units]), np.zeros(1, np.float32)).explained
    assert not witness.examine(at, np.array([8 * units]), np.zeros(1, np.float32)).explained


def test_witness_of_summands_that_cancel_accepts_little() -> None:
    """A walk of random signs is eight times 0.4 half-units off: less than the floor, so 8 is what is accepted."""
    terms = np.random.default_rng(0).standard_normal((4, 4608))
    witness = SummandWitness(lambda indices: terms[indices], Scale(np.ones(4), 4608, Rule.DOT))
    for units, explained in ((7.9, True), (8.1, False)):
        assert witness.examine(np.arange(4), np.full(4, units), np.zeros(4, np.float32)).explained is explained


def test_witness_of_no_summands_accepts_only_the_floor() -> None:
    witness = SummandWitness(lambda indices: np.zeros((len(indices), 0)), Scale(np.zeros(2), 0, Rule.DOT))
    assert witness.examine(np.arange(2), np.array([1.0, 8.0]), np.zeros(2, np.float32)).explained
    finding = witness.examine(np.arange(2), np.array([1.0, 9.0]), np.zeros(2, np.float32))
    assert not finding.explained
    assert finding.worst == 1
