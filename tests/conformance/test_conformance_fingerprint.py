"""The name of a fault: the hypothesis that explains it best, and none where none does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from onnx_arch.conformance.calibration.data import matrices
from onnx_arch.conformance.calibration.summing import blas, lanes, sequential, shuffled
from onnx_arch.conformance.fingerprint import _contains
from onnx_arch.conformance.results import Outcome

from .judged_nodes import judge

Array = np.ndarray
Rounding = Callable[[Array], Array]


def _tf32(x: Array) -> Array:
    """Ten fraction bits, by adding and taking away a number 2^13 times as large (Dekker's splitting)."""
    wide = x.astype(np.float64)
    large = np.ldexp(np.copysign(1.5, wide), np.frexp(wide)[1] - 1 + 42)
    return np.where(wide == 0, 0, (wide + large) - large).astype(np.float32)


ROUNDINGS: Mapping[str, Rounding] = {
    "TF32": _tf32,
    "BF16": lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32),
    "FP16": lambda x: x.astype(np.float16).astype(np.float32),
}


def test_rounding_of_these_tests_keeps_ten_bits() -> None:
    x = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 3.0, -1e30, 0.0], np.float32)
    kept = np.array([1, 1 + 2 * 2.0**-10, 3.0], np.float32)
    np.testing.assert_array_equal(_tf32(x)[:3], kept)
    assert abs(_tf32(x)[3] / x[3] - 1) < 2.0**-11
    assert _tf32(x)[4] == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["signed", "positive", "rectified", "constant"])
@pytest.mark.parametrize("length", [16, 256, 1024])
@pytest.mark.parametrize("name", ROUNDINGS)
def test_rounded_inputs_are_told_apart(name: str, length: int, kind: str, seed: int) -> None:
    a, b = matrices(kind, 4, length, 100, seed)
    row = judge("MatMul", [a, b], blas(ROUNDINGS[name](a), ROUNDINGS[name](b)))
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint == ("BF16 inputs" if name == "BF16" else "TF32 or FP16 inputs (set use_tf32=0)")


@pytest.mark.parametrize("name", ["TF32", "FP16"])
def test_small_inputs_tell_tf32_from_fp16(name: str) -> None:
    """Below 2^−14 float16 is subnormal and loses bits that TF32 keeps."""
    a, b = matrices("signed", 4, 64, 100, 0)
    a *= np.float32(2.0**-18)
    row = judge("MatMul", [a, b], blas(ROUNDINGS[name](a), ROUNDINGS[name](b)))
    assert row.fingerprint.split()[0] == name
    assert "or" not in row.fingerprint.split()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["signed", "positive", "constant", "equal"])
@pytest.mark.parametrize("length", [16, 256, 1024])
def test_lost_product_is_not_taken_for_rounded_inputs(length: int, kind: str, seed: int) -> None:
    a, b = matrices(kind, 4, length, 100, seed)
    row = judge("MatMul", [a, b], blas(a[:, :-1], b[:-1]))
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint == "last product dropped"


def _gemm() -> tuple[list[Array], Array]:
    a, b = matrices("signed", 6, 40, 30, 1)
    c = np.random.default_rng(2).standard_normal(30).astype(np.float32)
    return [a, b, c], a.astype(np.float64) @ b


GEMM_FAULTS: list[tuple[str, Callable[[Array, Array], Array]]] = [
    ("bias added twice", lambda y, c: 0.5 * y + 2 * 3.0 * c),
    ("bias left out", lambda y, c: 0.5 * y),
    ("alpha ignored", lambda y, c: y + 3.0 * c),
    ("beta ignored", lambda y, c: 0.5 * y + c),
    ("", lambda y, c: 0.4 * y - 2.0 * c),
]


@pytest.mark.parametrize(("name", "wrong"), GEMM_FAULTS, ids=[name or "nothing known" for name, _ in GEMM_FAULTS])
def test_fault_of_gemm_is_named(name: str, wrong: Callable[[Array, Array], Array]) -> None:
    inputs, y = _gemm()
    row = judge("Gemm", inputs, wrong(y, inputs[2]).astype(np.float32), {"alpha": 0.5, "beta": 3.0})
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint == name


@pytest.mark.parametrize("shape", [(16, 10), (16, 16)], ids=str)
def test_swapped_operands_are_named_where_they_fit_and_no_error_where_they_do_not(shape: tuple[int, int]) -> None:
    a, b = matrices("signed", 16, shape[0], shape[1], 0)
    square = shape[0] == shape[1]
    row = judge("MatMul", [a, b], b @ a if square else -(a @ b))
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint == ("operands swapped" if square else "")


def _pooled(count_include_pad: bool, ceil_mode: bool) -> Array:
    pool = torch.nn.AvgPool2d(3, 2, 1, ceil_mode=ceil_mode, count_include_pad=count_include_pad)
    return pool(torch.from_numpy(_picture())).numpy()


def _picture() -> Array:
    return np.random.default_rng(4).standard_normal((1, 2, 9, 9)).astype(np.float32) + np.float32(2)


def test_padding_counted_in_the_average_is_named() -> None:
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    assert judge("AveragePool", [_picture()], _pooled(False, False), attributes).outcome is Outcome.PASSED
    row = judge("AveragePool", [_picture()], _pooled(True, False), attributes)
    assert row.fingerprint == "padding counted in the average"
    row = judge("AveragePool", [_picture()], _pooled(False, False), {**attributes, "count_include_pad": 1})
    assert row.fingerprint == "padding not counted in the average"


def _saturated(a: Array, b: Array, zero_a: int, zero_b: int) -> Array:
    """A product of bytes whose neighbouring products are added in 16 bits, one after another."""
    rows, length = a.shape
    total = np.zeros((rows, b.shape[1]), np.int32)
    for i, j in np.ndindex(total.shape):
        row, column = [int(x) for x in a[i]], [int(x) for x in b[:, j]]
        products = [x * y for x, y in zip(row, column, strict=True)]
        pairs = [sum(products[k : k + 2]) for k in range(0, length, 2)]
        total[i, j] = (
            sum(max(-32768, min(pair, 32767)) for pair in pairs)
            - zero_a * sum(column)
            - zero_b * sum(row)
            + length * zero_a * zero_b
        )
    return total


@pytest.mark.parametrize("length", [2, 7, 64])
def test_saturation_of_byte_products_is_named(length: int) -> None:
    rng = np.random.default_rng(length)
    a, b = rng.integers(200, 256, (3, length), np.uint8), rng.integers(90, 128, (length, 5), np.int8)
    inputs = [a, b, np.uint8(7), np.int8(-3)]
    right = (a.astype(int) - 7) @ (b.astype(int) + 3)
    assert judge("MatMulInteger", inputs, right.astype(np.int32)).outcome is Outcome.PASSED
    row = judge("MatMulInteger", inputs, _saturated(a, b, 7, -3))
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint.startswith("sums of two products saturated at 16 bits")
    assert not judge("MatMulInteger", inputs, (right + 1).astype(np.int32)).fingerprint


ATTENTION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "causal mask ignored": ({"is_causal": 1}, {}),
    "causal mask added": ({}, {"is_causal": True}),
    "scale 1 / sqrt(d) in place of the given one": ({"scale": 0.5}, {}),
}


@pytest.mark.parametrize(("name", "given", "computed"), [(k, *v) for k, v in ATTENTION.items()], ids=ATTENTION.keys())
def test_fault_of_attention_is_named(name: str, given: dict[str, Any], computed: dict[str, Any]) -> None:
    q, k, v = (np.random.default_rng(i).standard_normal((2, 3, 10, 8)).astype(np.float32) for i in range(3))
    y = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)), **computed).numpy()
    row = judge("Attention", [q, k, v], y, given)
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint == name


def test_result_rounded_on_the_way_is_named() -> None:
    x = np.random.default_rng(0).standard_normal((20, 300)).astype(np.float32)
    y = torch.softmax(torch.from_numpy(x), 1).numpy()
    assert judge("Softmax", [x], ROUNDINGS["BF16"](y)).fingerprint == "result rounded to BF16"


def test_nan_turned_to_zero_is_named() -> None:
    x = np.array([[1.0, np.nan, -2.0]], np.float32)
    row = judge("Relu", [x], np.array([[1.0, 0.0, 0.0]], np.float32))
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint == "NaN turned to zero"


def test_operator_that_returns_its_input_is_named() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    assert judge("Sigmoid", [x], x).fingerprint == "returns its input"


def _buried(rows: int, columns: int, length: int, seed: int) -> tuple[Array, Array]:
    """Sums of one large product, which TF32 holds exactly, and of small ones that it rounds."""
    return matrices("dominated", rows, length, columns, seed)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("length", [1024, 4608, 25088])
def test_rounding_that_other_roundings_hide_is_seen_in_many_outputs(length: int, seed: int) -> None:
    a, b = _buried(16, 64, length, seed)
    row = judge("MatMul", [a, b], blas(_tf32(a), _tf32(b)))
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint.startswith("TF32")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("length", [1024, 4608, 25088])
@pytest.mark.parametrize("order", [sequential, lanes, shuffled], ids=lambda f: f.__name__)
def test_correct_sums_as_far_off_as_narrow_inputs_pass(
    order: Callable[[Array, Array], Array], length: int, seed: int
) -> None:
    a, b = _buried(4, 32, length, seed)
    row = judge("MatMul", [a, b], order(a, b))
    assert row.outcome is Outcome.PASSED, row.message


def test_rounding_is_seen_beside_the_errors_of_a_plain_loop() -> None:
    """One float32 loop over TF32 inputs: its own errors are as large as what TF32 does."""
    a, b = _buried(16, 64, 2304, 0)
    wrong, right = sequential(_tf32(a), _tf32(b)), sequential(a, b)
    exact = a.astype(np.float64) @ b
    own, caused = np.std(right - exact), np.std(_tf32(a).astype(np.float64) @ _tf32(b) - exact)
    assert 0.3 < own / caused < 3
    assert judge("MatMul", [a, b], right).outcome is Outcome.PASSED
    assert judge("MatMul", [a, b], wrong).outcome is Outcome.FAILED


def test_effect_is_contained_once_and_not_in_part() -> None:
    """By construction: noise of size one, and no, half, all or twice the effect in it."""
    rng = np.random.default_rng(0)
    effect, noise = rng.standard_normal(2000), rng.standard_normal(2000)
    contained = [_contains(share * effect + noise, effect) for share in (0.0, 0.5, 1.0, 2.0)]
    assert contained == [False, False, True, False]


def test_one_element_that_is_large_in_both_is_no_effect() -> None:
    effect, noise = np.random.default_rng(1).standard_normal((2, 100))
    effect[40], noise[40] = 50.0, 48.0
    assert not _contains(noise, effect)


def test_effect_in_few_outputs_is_not_believed() -> None:
    effect = np.random.default_rng(0).standard_normal(31)
    assert not _contains(effect, effect)


@pytest.mark.parametrize("seed", range(3))
def test_effect_is_not_seen_in_noise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        effect = rng.standard_normal(40) * np.exp(rng.standard_normal(40))
        assert not _contains(rng.standard_t(3, 40), effect)
