"""The guard that two sides compute the same thing: what it lets through and what it stops."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnx_arch.benchmarks.agreement import disagreement, fraction_bits


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [(np.float64, 52), (np.float32, 23), (np.float16, 10), (ml_dtypes.bfloat16, 7), (np.int64, None), (np.bool_, None)],
)
def test_fraction_bits_are_those_of_the_format(dtype, bits: int | None) -> None:
    assert fraction_bits(np.dtype(dtype)) == bits


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_rounding_noise_agrees_and_a_hundredth_of_noise_in_float32_does_not(dtype) -> None:
    exact = np.random.default_rng(0).normal(size=1000)
    rounded = exact.astype(dtype)
    noisy = (exact * (1 + 2.0 ** -fraction_bits(np.dtype(dtype)))).astype(dtype)
    assert disagreement({"y": rounded}, {"y": noisy})[1] == ""
    assert "differs by" in disagreement({"y": rounded}, {"y": (exact * 1.2).astype(dtype)})[1]


def test_one_wrong_element_of_many_is_seen_and_its_distance_told() -> None:
    mine = np.full(10_000, 2.0, np.float32)
    theirs = mine.copy()
    theirs[777] = 2.5
    distance, complaint = disagreement({"y": mine}, {"y": theirs})
    assert distance == pytest.approx(0.2)
    assert complaint == "output y: differs by 0.2 of the largest value; 0.00035 is allowed"


def test_distance_is_relative_to_the_largest_value_also_where_only_small_ones_differ() -> None:
    mine = np.array([1000.0, 0.001], np.float32)
    theirs = np.array([1000.0, 0.002], np.float32)
    assert disagreement({"y": mine}, {"y": theirs}) == (pytest.approx(1e-6, rel=1e-3), "")


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_agree_in_the_same_place_only(special: float) -> None:
    mine = np.array([1.0, special], np.float32)
    assert disagreement({"y": mine}, {"y": mine.copy()}) == (0.0, "")
    assert disagreement({"y": mine}, {"y": mine[::-1].copy()})[0] == float("inf")


def test_integers_must_be_equal() -> None:
    assert disagreement({"i": np.array([1, 2])}, {"i": np.array([1, 2])}) == (0.0, "")
    assert disagreement({"i": np.array([1, 2])}, {"i": np.array([1, 3])})[1] == "output i: 1 of 2 elements differ"


def test_empty_tensors_and_zeros_agree() -> None:
    assert disagreement({"y": np.zeros((0, 3), np.float32)}, {"y": np.zeros((0, 3), np.float32)}) == (0.0, "")
    assert disagreement({"y": np.zeros(3, np.float32)}, {"y": -np.zeros(3, np.float32)}) == (0.0, "")


def test_what_is_no_tensor_cannot_be_compared() -> None:
    assert disagreement({"s": [np.zeros(2)]}, {"s": [np.zeros(2)]})[1] == "output s: only tensors can be compared"
