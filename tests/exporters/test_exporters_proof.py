"""The rule by which two results agree: what it must accept, what it must not, on numbers made for it."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_arch.exporters.proof import (
    LARGEST_RMS_Z,
    LARGEST_Z,
    WRONG,
    GraphProof,
    ShapeProof,
    Standing,
    Trial,
    compare,
    scales,
    worst,
)

SIZE = 5000
UNIT = 2.0**-24


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape or SIZE)


@pytest.fixture
def reference():
    return normal(0)


@pytest.fixture
def spread(reference):
    return np.abs(reference) * UNIT + UNIT


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_the_size_of_the_spread_is_accepted(reference, spread, seed):
    found = compare("y", reference + spread * normal(seed + 1), reference, spread)
    assert found.standing is Standing.PASSED
    assert found.rms_z == pytest.approx(1.0, abs=0.35)


def test_systematic_rounding_of_twenty_layers_is_accepted(reference, spread):
    found = compare("y", reference + spread * np.sqrt(3 * 20), reference, spread)
    assert found.standing is Standing.PASSED


@pytest.mark.parametrize("size", [1e-4, 1e-3, 1.0])
def test_relative_error_of_every_element_is_refused(reference, spread, size):
    found = compare("y", reference * (1 + size), reference, spread)
    assert found.standing is Standing.FAILED
    assert found.rms_z > LARGEST_RMS_Z
    assert found.rms_error == pytest.approx(size * np.sqrt(np.mean(reference**2)))


def test_one_wrong_element_among_many_is_refused_though_the_mean_is_fine(reference, spread):
    actual = reference.copy()
    actual[1234] += 1e-4
    found = compare("y", actual, reference, spread)
    assert found.standing is Standing.FAILED
    assert found.max_z > LARGEST_Z
    assert "at [1234]" in found.message


def test_spread_that_is_small_by_chance_does_not_condemn(reference, spread):
    lucky = spread.copy()
    lucky[::7] = 0.0
    assert compare("y", reference + spread * normal(3), reference, lucky).standing is Standing.PASSED


def test_without_any_rounding_only_float64_noise_is_accepted(reference):
    nothing = np.zeros(SIZE)
    assert compare("y", reference * (1 + 1e-15), reference, nothing).standing is Standing.PASSED
    assert compare("y", reference * (1 + 1e-9), reference, nothing).standing is Standing.FAILED


def test_zeros_are_judged_and_empty_tensors_agree():
    zeros = np.zeros(4)
    assert compare("y", zeros, zeros, zeros).standing is Standing.PASSED
    assert compare("y", zeros + 1e-30, zeros, zeros).standing is Standing.FAILED
    empty = np.zeros((0, 3))
    assert compare("y", empty, empty, empty).standing is Standing.PASSED


def test_another_shape_is_refused_even_if_it_broadcasts():
    found = compare("y", np.ones((3, 1)), np.ones((3, 3)), np.zeros((3, 3)))
    assert found.standing is Standing.FAILED
    assert found.message == "the graph gives (3, 1), the module (3, 3)"


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_non_finite_values_must_be_where_the_module_has_them(reference, spread, strange):
    both = reference.copy()
    both[7] = strange
    assert compare("y", both, both, spread).standing is Standing.PASSED
    assert compare("y", both, reference, spread).standing is Standing.FAILED
    assert compare("y", reference, both, spread).standing is Standing.FAILED


def test_infinities_of_other_sign_differ(reference, spread):
    up, down = reference.copy(), reference.copy()
    up[0], down[0] = np.inf, -np.inf
    assert compare("y", up, down, spread).standing is Standing.FAILED


def test_overflow_that_the_module_has_in_the_stored_type_is_accepted():
    reference, actual = np.array([1e6, 1.0]), np.array([np.inf, 1.0])
    spread = np.full(2, 1e-3)
    assert compare("y", actual, reference, spread).standing is Standing.FAILED
    control = actual.astype(np.float16)
    assert compare("y", actual, reference, spread, control).standing is Standing.PASSED


def test_control_is_the_second_witness_and_is_named(reference, spread):
    error = 100 * spread * normal(8)
    control = reference + 60 * spread * normal(9)
    alone = compare("y", reference + error, reference, spread)
    found = compare("y", reference + error, reference, spread, control)
    assert (alone.standing, found.standing) == (Standing.FAILED, Standing.PASSED)
    assert "no worse than 4 × the module itself" in found.message
    assert compare("y", reference + 9 * error, reference, spread, control).standing is Standing.FAILED


def test_integers_are_exact_but_where_rounding_flips_them():
    reference = np.array([3, 5, 7])
    assert compare("i", reference.copy(), reference, np.zeros(3)).standing is Standing.PASSED
    wrong = compare("i", np.array([3, 6, 7]), reference, np.zeros(3))
    assert (wrong.standing, wrong.message) == (
        Standing.FAILED,
        "the graph gives 6 at [1], the module 5; 1 differ",
    )
    assert compare("i", np.array([3, 6, 7]), reference, np.array([0, 1, 0])).standing is Standing.PASSED


def test_scales_come_from_the_element_and_from_the_tensor():
    found = scales(np.array([0.0, 1.0, 1.0, 7.0]), np.zeros(4))
    np.testing.assert_allclose(found, np.sqrt([0.5, 1.0, 1.0, 25.0]))


def test_worst_standing_decides_and_nothing_is_no_pass():
    assert worst([Standing.PASSED, Standing.UNSUPPORTED]) is Standing.UNSUPPORTED
    assert worst([Standing.UNJUDGED, Standing.FAILED, Standing.PASSED]) is Standing.FAILED
    assert worst([]) is Standing.UNJUDGED
    assert GraphProof("g", ()).translation is Standing.UNJUDGED


@pytest.mark.parametrize("standing", list(Standing))
def test_proof_is_as_good_as_its_worst_shape(standing):
    good, other = Trial(Standing.PASSED), Trial(standing)
    proof = GraphProof("g", (ShapeProof({}, good, good), ShapeProof({}, good, other)))
    assert (proof.translation, proof.runtime) == (Standing.PASSED, standing)
    assert (standing in WRONG) == (standing.value in {"failed", "crashed", "hung", "errored"})
