"""Look-ups and maps of ai.onnx.ml: official cases, ONNX Runtime, hand derivations, what is open, faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.scale import Array

from .ml_nodes import ML, call, check_runs, check_signature_in, outcomes, versions_in
from .node_cases import Case, cases, check_case

OPERATORS = {"CastMap", "CategoryMapper", "DictVectorizer", "LabelEncoder", "ZipMap"}
PASSED, FAILED = Outcome.PASSED, Outcome.FAILED
NAN = float("nan")


@pytest.mark.parametrize("case", cases({"LabelEncoder"}, domain=ML), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions_in(ML, OPERATORS))
def test_kernel_at_every_version_has_the_attributes_of_the_schema(op_type: str, version: int) -> None:
    check_signature_in(ML, op_type, version)


def words(*values: str) -> Array:
    return np.array(values, object)


CATEGORIES = {"cats_strings": ["a", "b", ""], "cats_int64s": [4, 5, -6]}


def test_categories_map_both_ways() -> None:
    x = words("a", "z", "", "b").reshape(2, 2)
    (y,) = check_runs("CategoryMapper", x, **CATEGORIES)
    assert y.tolist() == [[4, -1], [-6, 5]]
    (back,) = check_runs("CategoryMapper", y, **CATEGORIES, default_string="?")
    assert back.tolist() == [["a", "?"], ["", "b"]]
    assert outcomes([y.T.copy()], "CategoryMapper", x, **CATEGORIES) == [FAILED]
    assert outcomes([back.T.copy()], "CategoryMapper", y, **CATEGORIES, default_string="?") == [FAILED]


def test_categories_that_do_not_go_together_are_named() -> None:
    with pytest.raises(InvalidAttributeError, match="2 strings and 1"):
        call("CategoryMapper", words("a"), cats_strings=["a", "b"], cats_int64s=[1])
    with pytest.raises(InvalidAttributeError, match="twice"):
        call("CategoryMapper", words("a"), cats_strings=["a", "a"], cats_int64s=[1, 2])
    assert call("CategoryMapper", np.array([2]), cats_strings=["a", "a"], cats_int64s=[1, 2]).tolist() == ["a"]


def test_first_label_encoder_counts_the_classes() -> None:
    (y,) = check_runs("LabelEncoder", words("b", "q", "a"), classes_strings=["a", "b"], default_int64=-7)
    assert y.tolist() == [1, -7, 0]
    (back,) = check_runs("LabelEncoder", np.array([1, 2, -1, 0]), classes_strings=["a", "b"])
    assert back.tolist() == ["b", "_Unused", "_Unused", "a"]


VALUES: dict[str, list[Any]] = {"floats": [0.5, 1.5, -2.0], "int64s": [7, 1 << 40, -3], "strings": ["x", "", "é"]}
INPUTS: dict[str, Array] = {
    "floats": np.array([1.5, -2.0, 9.0, 0.5], np.float32),
    "int64s": np.array([1 << 40, 7, 8, -3]),
    "strings": words("é", "x", "y", ""),
}
DEFAULTS: dict[str, Any] = {"floats": -0.0, "int64s": -1, "strings": "_Unused"}


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("keys", VALUES)
@pytest.mark.parametrize("values", VALUES)
def test_every_pair_of_types_is_mapped(version: int, keys: str, values: str) -> None:
    attributes = {f"keys_{keys}": VALUES[keys], f"values_{values}": VALUES[values]}
    (y,) = check_runs("LabelEncoder", INPUTS[keys], opset=version, **attributes)
    table = dict(zip(VALUES[keys], VALUES[values], strict=True))
    assert y.tolist() == [table.get(v, DEFAULTS[values]) for v in INPUTS[keys].tolist()]
    assert outcomes([np.roll(y, 1)], "LabelEncoder", INPUTS[keys], opset=version, **attributes) == [FAILED]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int32, np.int16])
def test_tensors_of_keys_keep_their_type(dtype: Any) -> None:
    keys, values = np.array([1, 5, 2], dtype), np.array([3, 4, 8], dtype)
    tensors = {"keys_tensor": keys, "values_tensor": values}
    y = call("LabelEncoder", np.array([5, 9, 1], dtype), opset=4, **tensors, default_tensor=np.array([6], dtype))
    assert (y.dtype, y.tolist()) == (dtype, [4, 6, 3])
    y = call("LabelEncoder", np.array([9], dtype), opset=4, **tensors)
    assert y.tolist() == [0.0 if np.dtype(dtype).kind == "f" else -1]


def test_nan_is_a_key_by_its_bits_in_version_2_and_by_being_one_in_4() -> None:
    """ONNX Runtime 1.32 finds no NaN in version 2, and takes −0 for 0."""
    other = np.array([0xFFC00001], np.uint32).view(np.float32)[0]
    x = np.array([np.nan, other, 0.0, -0.0], np.float32)
    attributes = {"keys_floats": [NAN, 0.0], "values_int64s": [1, 2]}
    assert call("LabelEncoder", x, opset=2, **attributes).tolist() == [1, -1, 2, -1]
    assert call("LabelEncoder", x, opset=4, **attributes).tolist() == [1, 1, 2, 2]
    check_runs("LabelEncoder", x, opset=4, **attributes)
    assert outcomes([np.array([-1, -1, 2, -1])], "LabelEncoder", x, opset=2, **attributes) == [FAILED]


def test_last_of_equal_keys_counts_in_version_4() -> None:
    """ONNX Runtime 1.32 takes the first."""
    x, attributes = np.array([1, 2]), {"keys_int64s": [1, 1, 2], "values_strings": ["a", "b", "c"]}
    assert call("LabelEncoder", x, opset=4, **attributes).tolist() == ["b", "c"]
    assert outcomes([words("a", "c")], "LabelEncoder", x, opset=4, **attributes) == [FAILED]
    with pytest.raises(InvalidAttributeError, match="twice"):
        call("LabelEncoder", x, opset=2, **attributes)


@pytest.mark.parametrize(
    ("x", "attributes", "error", "message"),
    [
        (np.array([1]), {"keys_int64s": [1]}, InvalidAttributeError, "no values"),
        (np.array([1]), {"values_int64s": [1]}, InvalidAttributeError, "no keys"),
        (np.array([1]), {"keys_int64s": [1], "values_int64s": [1, 2]}, InvalidAttributeError, "1 keys and 2 values"),
        (np.array([1.0]), {"keys_int64s": [1], "values_int64s": [1]}, InvalidInputError, "must be alike"),
        (
            np.array([1]),
            {"keys_int64s": [1], "keys_strings": ["a"], "values_int64s": [1]},
            InvalidAttributeError,
            "int64s, strings",
        ),
    ],
)
def test_impossible_encoder_is_named(x: Array, attributes: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call("LabelEncoder", x, opset=4, **attributes)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [[-8.5, 4.75]]),
        ({"cast_to": "TO_INT64"}, [[-8, 4]]),
        ({"map_form": "SPARSE", "max_map": 5}, [[0, -8.5, 0, 4.75, 0]]),
    ],
)
def test_map_becomes_a_tensor_in_the_order_of_its_keys(attributes: dict[str, Any], expected: list[list[float]]) -> None:
    y = call("CastMap", {3: 4.75, 1: np.array(-8.5, np.float32)}, **attributes)
    assert y.tolist() == expected
    assert y.dtype == (np.int64 if "cast_to" in attributes else np.float32)


def test_map_of_strings_is_read() -> None:
    assert call("CastMap", {2: "4.5", 1: "8"}).tolist() == [[8, 4.5]]
    assert call("CastMap", {2: "4", 1: "8"}, cast_to="TO_INT64").tolist() == [[8, 4]]
    assert call("CastMap", {2: "x", 1: "y"}, cast_to="TO_STRING").tolist() == [["y", "x"]]


@pytest.mark.parametrize(
    ("x", "attributes", "error", "message"),
    [
        ({5: 1.0}, {"map_form": "SPARSE", "max_map": 5}, InvalidInputError, "0 to 4"),
        ({1: 1.0}, {"cast_to": "TO_STRING"}, InvalidInputError, "how a number"),
        ({1: "one"}, {}, InvalidInputError, "one"),
        ({1: 1.0}, {"cast_to": "TO_BOOL"}, InvalidAttributeError, "TO_BOOL"),
        (np.zeros(3), {}, InvalidInputError, "a map is needed"),
        ({1: np.zeros(2)}, {}, InvalidInputError, "one element"),
    ],
)
def test_impossible_map_is_named(x: Any, attributes: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call("CastMap", x, **attributes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_vocabulary_places_values(dtype: Any) -> None:
    """The example of the specification, which calls the output 1-D (ONNX Runtime 1.32 gives it two dimensions)."""
    y = call("DictVectorizer", {"a": dtype(4), "c": dtype(8)}, string_vocabulary=["a", "c", "b", "z"])
    assert (y.dtype, y.tolist()) == (dtype, [4, 8, 0, 0])
    attributes = {"int64_vocabulary": [9, 2, 5]}
    y = call("DictVectorizer", {5: dtype(1), 9: dtype(2)}, **attributes)
    assert y.tolist() == [2, 0, 1]
    assert outcomes([y], "DictVectorizer", {5: dtype(1), 9: dtype(2)}, **attributes) == [PASSED]
    assert outcomes([y[::-1].copy()], "DictVectorizer", {5: dtype(1), 9: dtype(2)}, **attributes) == [FAILED]
    assert outcomes([y[None]], "DictVectorizer", {5: dtype(1), 9: dtype(2)}, **attributes) == [FAILED]


def test_vocabulary_places_strings() -> None:
    assert call("DictVectorizer", {1: "u"}, int64_vocabulary=[2, 1]).tolist() == ["", "u"]


@pytest.mark.parametrize(
    ("x", "attributes", "error", "message"),
    [
        ({"q": 1.0}, {"string_vocabulary": ["a"]}, InvalidInputError, "'q' is not in the vocabulary"),
        ({}, {"string_vocabulary": ["a"]}, InvalidInputError, "no type"),
        ({"a": 1.0}, {}, InvalidAttributeError, "needed"),
        ({"a": 1.0}, {"string_vocabulary": ["a", "a"]}, InvalidAttributeError, "twice"),
    ],
)
def test_impossible_vocabulary_is_named(x: Any, attributes: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call("DictVectorizer", x, **attributes)


@pytest.mark.parametrize("labels", [{"classlabels_int64s": [3, 4]}, {"classlabels_strings": ["no", "yes"]}], ids=str)
def test_rows_become_maps(labels: dict[str, Any]) -> None:
    x = np.array([[0.1, 0.9], [np.nan, -0.0]], np.float32)
    (keys,) = labels.values()
    maps = call("ZipMap", x, **labels)
    assert [list(each) for each in maps] == [keys, keys]
    assert np.array([list(each.values()) for each in maps]).tobytes() == x.tobytes()
    check_runs("ZipMap", x, **labels)


def zipped() -> list[dict[str, Any]]:
    return [{"no": np.float32(0.1), "yes": np.float32(0.9)}, {"no": np.float32(0.5), "yes": np.float32(0.25)}]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda maps: maps, PASSED),
        (lambda maps: [dict(reversed(list(m.items()))) for m in maps], PASSED),
        (lambda maps: [{k: np.asarray(float(v)) for k, v in m.items()} for m in maps], PASSED),
        (lambda maps: maps[::-1], FAILED),
        (lambda maps: maps[:1], FAILED),
        (lambda maps: [{"no": m["yes"], "yes": m["no"]} for m in maps], FAILED),
        (lambda maps: [{"no": m["no"]} for m in maps], FAILED),
        (lambda maps: [{**m, "maybe": m["no"]} for m in maps], FAILED),
        (lambda maps: [{"No": m["no"], "yes": m["yes"]} for m in maps], FAILED),
        (lambda maps: [{k: np.nextafter(v, np.float32(1)) for k, v in m.items()} for m in maps], FAILED),
        (lambda maps: maps[0], FAILED),
        (lambda maps: np.array([[0.1, 0.9], [0.5, 0.25]], np.float32), FAILED),
        (lambda maps: [np.array([0.1, 0.9], np.float32)] * 2, FAILED),
        (lambda maps: None, FAILED),
        (lambda maps: [dict.fromkeys(m, "0.1") for m in maps], FAILED),
        (lambda maps: [{k: np.zeros(2) for k in m} for m in maps], FAILED),
    ],
)
def test_maps_are_judged_key_by_key(change: Any, expected: Outcome) -> None:
    x = np.array([[0.1, 0.9], [0.5, 0.25]], np.float32)
    assert outcomes([change(zipped())], "ZipMap", x, classlabels_strings=["no", "yes"]) == [expected]


def test_as_many_keys_as_columns_are_needed() -> None:
    with pytest.raises(InvalidInputError, match="2 keys"):
        call("ZipMap", np.zeros((2, 3), np.float32), classlabels_int64s=[1, 2])
    with pytest.raises(InvalidAttributeError, match="not both"):
        call("ZipMap", np.zeros((2, 1), np.float32), classlabels_int64s=[1], classlabels_strings=["a"])
    assert call("ZipMap", np.zeros((0, 1), np.float32), classlabels_int64s=[1]) == []
