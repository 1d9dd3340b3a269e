"""Features of ai.onnx.ml: official cases, ONNX Runtime, hand derivations, what is open, faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.scale import Array

from .ml_nodes import ML, call, check_runs, check_signature_in, outcomes, versions_in
from .node_cases import Case, cases, check_case

OPERATORS = {
    "ArrayFeatureExtractor",
    "Binarizer",
    "FeatureVectorizer",
    "Imputer",
    "Normalizer",
    "OneHotEncoder",
    "Scaler",
}
PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


@pytest.mark.parametrize("case", cases({"ArrayFeatureExtractor", "Binarizer"}, domain=ML), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions_in(ML, OPERATORS))
def test_kernel_has_the_attributes_of_the_schema(op_type: str, version: int) -> None:
    check_signature_in(ML, op_type, version)


def drawn(seed: int, dtype: Any = np.float32, shape: tuple[int, ...] = (30, 7)) -> Array:
    return (5 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5), (5,)], ids=str)
@pytest.mark.parametrize("where", [[0, 4, 4], [[1, 3]], [[0, 1], [2, 3]], 2], ids=str)
def test_columns_are_picked(dtype: Any, shape: tuple[int, ...], where: Any) -> None:
    x, y = drawn(1, dtype, shape), np.array(where)
    (z,) = check_runs("ArrayFeatureExtractor", x, y)
    table = x[None] if x.ndim == 1 else x
    expected = np.stack([table[..., i] for i in np.ravel(where)], axis=-1)
    np.testing.assert_array_equal(z, expected)
    wrong = np.roll(z, 1) if z.size > 1 else z + z.dtype.type(1)
    assert outcomes([wrong], "ArrayFeatureExtractor", x, y) == [FAILED]


@pytest.mark.parametrize("where", [[-1], [5], []], ids=str)
def test_column_that_is_not_there_is_named(where: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="ArrayFeatureExtractor"):
        call("ArrayFeatureExtractor", drawn(1, shape=(4, 5)), np.array(where, np.int64))


def test_threshold_is_exceeded_or_not() -> None:
    x = np.array([0.25, 0.5, 0.75, -1.0], np.float32)
    (y,) = check_runs("Binarizer", x, threshold=0.5)
    assert y.tolist() == [0, 0, 1, 0]
    assert outcomes([np.array([0, 1, 1, 0], np.float32)], "Binarizer", x, threshold=0.5) == [FAILED]
    assert call("Binarizer", np.array([np.nan, np.inf]), threshold=0.5).tolist() == [0, 1]
    assert call("Binarizer", np.array([0, 1]), threshold=0.5).dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
def test_inputs_stand_side_by_side(dtype: Any) -> None:
    x, y = drawn(2, dtype, (6, 3)), drawn(3, dtype, (6, 2))
    (z,) = check_runs("FeatureVectorizer", x, y, inputdimensions=[3, 2])
    assert z.dtype == np.float32
    assert outcomes([z[:, ::-1].copy()], "FeatureVectorizer", x, y, inputdimensions=[3, 2]) == [FAILED]


def test_vector_is_one_row() -> None:
    x, y = drawn(2, shape=(3,)), drawn(3, shape=(1,))
    (z,) = check_runs("FeatureVectorizer", x, y, inputdimensions=[3, 1])
    assert z.shape == (1, 4)


@pytest.mark.parametrize(
    ("shapes", "dimensions", "error"),
    [
        ([(6, 3), (6, 2)], [2, 2], InvalidAttributeError),
        ([(6, 3), (5, 2)], [3, 2], InvalidInputError),
        ([(6, 3, 1)], [3], InvalidInputError),
    ],
)
def test_widths_that_do_not_fit_are_named(shapes: list[Any], dimensions: list[int], error: Any) -> None:
    with pytest.raises(error, match="FeatureVectorizer"):
        call("FeatureVectorizer", *(drawn(1, shape=shape) for shape in shapes), inputdimensions=dimensions)


@pytest.mark.parametrize("replaced", [float("nan"), 1.5, 0.0])
@pytest.mark.parametrize("values", [[9.0], [7.0, 8.0, 9.0]], ids=str)
@pytest.mark.parametrize("shape", [(4, 3), (2, 2, 3)], ids=str)
def test_missing_values_are_replaced(replaced: float, values: list[float], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    x = rng.choice(np.array([replaced, 0.25, -0.0, np.inf], np.float32), shape)
    attributes = {"replaced_value_float": replaced, "imputed_value_floats": values}
    y = call("Imputer", x, **attributes)
    if len(values) == 1 or len(shape) == 2:  # ONNX Runtime 1.32 takes axis 1 for the features, the text the last one
        check_runs("Imputer", x, **attributes)
    is_missing = np.isnan(x) if np.isnan(replaced) else x == replaced
    np.testing.assert_array_equal(y, np.where(is_missing, np.float32(values), x))
    assert is_missing.any()
    assert outcomes([x], "Imputer", x, **attributes) == [FAILED]


def test_missing_integers_are_replaced() -> None:
    x = np.array([[1, -1], [-1, 2]])
    (y,) = check_runs("Imputer", x, replaced_value_int64=-1, imputed_value_int64s=[5, 6])
    assert y.tolist() == [[1, 6], [5, 2]]
    narrow = call("Imputer", x.astype(np.int32), replaced_value_int64=-1, imputed_value_int64s=[5, 6])
    assert (narrow.dtype, narrow.tolist()) == (np.int32, y.tolist())


@pytest.mark.parametrize(
    "attributes", [{}, {"imputed_value_int64s": [1]}, {"imputed_value_floats": [1.0, 2.0]}], ids=str
)
def test_replacement_that_does_not_fit_is_named(attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidAttributeError, match="Imputer"):
        call("Imputer", drawn(1), **attributes)


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("shape", [(30, 7), (9,)], ids=str)
def test_normalised_rows_of_onnxruntime_pass(norm: str, dtype: Any, shape: tuple[int, ...]) -> None:
    x = drawn(5, dtype, shape)
    if len(shape) == 2:
        x[3] = 0
    check_runs("Normalizer", x, norm=norm)


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_rows_are_divided_by_their_norm(norm: str) -> None:
    x = np.array([[3.0, -4.0, 0.0], [-1.0, -2.0, -4.0], [0.0, 0.0, 0.0], [-2.0, 0.0, -1.0]])
    divisors = {"MAX": [3.0, -1.0, 1.0, 1.0], "L1": [7.0, 7.0, 1.0, 3.0], "L2": [5.0, 21**0.5, 1.0, 5**0.5]}[norm]
    np.testing.assert_allclose(call("Normalizer", x, norm=norm), x / np.array(divisors)[:, None], rtol=1e-15)


@pytest.mark.parametrize(
    ("norm", "wrong"),
    [
        ("MAX", lambda x: x / np.abs(x).max(axis=1, keepdims=True)),
        ("MAX", lambda x: x / x.max(axis=0)),
        ("L1", lambda x: x / x.sum(axis=1, keepdims=True)),
        ("L1", lambda x: x / np.abs(x).mean(axis=1, keepdims=True)),
        ("L2", lambda x: x / (x * x).sum(axis=1, keepdims=True)),
        ("L2", lambda x: np.abs(x) / np.linalg.norm(x, axis=1, keepdims=True)),
        ("L2", lambda x: x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-4)),
    ],
)
def test_fault_in_a_norm_is_caught(norm: str, wrong: Any) -> None:
    x = drawn(6)
    assert outcomes([wrong(x).astype(np.float32)], "Normalizer", x, norm=norm) == [FAILED]


def test_norm_whose_squares_leave_float32_is_open() -> None:
    x = np.array([[1e25, 1.0], [1e-30, 1e-30], [3.0, 4.0]], np.float32)
    y = np.array([[0, 0], [1, 1], [0.6, 0.8]], np.float32)
    assert outcomes([y], "Normalizer", x, norm="L2") == [PASSED]
    assert outcomes([y[:, ::-1].copy()], "Normalizer", x, norm="L2") == [FAILED]


def test_unknown_norm_and_rank_are_named() -> None:
    with pytest.raises(InvalidAttributeError, match="L3"):
        call("Normalizer", drawn(1), norm="L3")
    with pytest.raises(InvalidInputError, match="rank"):
        call("Normalizer", drawn(1, shape=(2, 2, 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_numbers_are_encoded_as_integers(dtype: Any) -> None:
    x = np.array([[1.9, -1.5, 2.0], [0.2, 7.0, -2.9]]).astype(dtype)
    (y,) = check_runs("OneHotEncoder", x, cats_int64s=[-2, -1, 0, 1, 2])
    assert y.shape == (2, 3, 5)
    expected = [[-2, -1, 0, 1, 2].index(v) if abs(v) <= 2 else -1 for v in np.trunc(x).astype(int).ravel()]
    assert [row.argmax() if row.any() else -1 for row in y.reshape(-1, 5)] == expected
    assert outcomes([np.roll(y, 1, axis=2)], "OneHotEncoder", x, cats_int64s=[-2, -1, 0, 1, 2]) == [FAILED]


def test_strings_are_encoded() -> None:
    x = np.array(["b", "", "z", "a"], object)
    (y,) = check_runs("OneHotEncoder", x, cats_strings=["a", "b", ""])
    assert y.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert call("OneHotEncoder", np.array("a", object), cats_strings=["a"]).tolist() == [1]


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"cats_int64s": [1], "zeros": 0}, InvalidInputError, "zeros=0"),
        ({"cats_int64s": [1, 1]}, InvalidAttributeError, "twice"),
        ({}, InvalidAttributeError, "cats_"),
        ({"cats_int64s": [1], "cats_strings": ["a"]}, InvalidAttributeError, "not both"),
    ],
)
def test_impossible_encoding_is_named(attributes: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call("OneHotEncoder", np.array([1, 5]), **attributes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("seed", [1, 2])
def test_scaled_features_of_onnxruntime_pass(dtype: Any, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    attributes = {name: (3 * rng.standard_normal(count)).tolist() for name in ("offset", "scale")}
    check_runs("Scaler", drawn(7, dtype), **attributes)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, o, s: x * s - o,
        lambda x, o, s: (x + o) * s,
        lambda x, o, s: x * s,
        lambda x, o, s: x - o,
        lambda x, o, s: (x - o) / s,
        lambda x, o, s: (x - np.roll(o, 1)) * s,
    ],
)
def test_fault_in_scaling_is_caught(wrong: Any) -> None:
    rng, x = np.random.default_rng(8), drawn(8)
    offset, scale = (rng.standard_normal(7).astype(np.float32) for _ in range(2))
    attributes = {"offset": offset.tolist(), "scale": scale.tolist()}
    right = (x - offset) * scale
    assert outcomes([right], "Scaler", x, **attributes) == [PASSED]
    assert outcomes([wrong(x, offset, scale)], "Scaler", x, **attributes) == [FAILED]


def test_scales_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidAttributeError, match="3 values of scale"):
        call("Scaler", drawn(1), scale=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(call("Scaler", drawn(1)), drawn(1).astype(np.float64))
