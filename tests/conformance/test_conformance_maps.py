"""Models that return or take maps, from the file to the outcome of every node."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_arch.conformance.check import check_model
from onnx_arch.conformance.model_outputs import OutputCase, judge_output
from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Oracle
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.errors import InvalidInputError
from onnx_arch.graphs.feeds import random_feeds, validate_feeds
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model
from onnx_arch.graphs.test_data import read_test_data, write_test_data

ML = "ai.onnx.ml"


def saved(path: Path, nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any]) -> Model:
    graph = helper.make_graph(nodes, "network", inputs, outputs)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ML, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return load_model(path)


def map_type() -> onnx.TypeProto:
    proto = onnx.TypeProto()
    proto.map_type.key_type = TensorProto.STRING
    proto.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return proto


@pytest.fixture
def classifier(tmp_path: Path) -> Model:
    """A pipeline as converters write it: Scaler, LinearClassifier, ZipMap."""
    w = np.random.default_rng(0).standard_normal(12).tolist()
    labels = ["a", "b", "c"]
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], domain=ML, offset=[0.5] * 4, scale=[2.0] * 4),
        helper.make_node(
            "LinearClassifier",
            ["s"],
            ["label", "p"],
            domain=ML,
            coefficients=w,
            intercepts=[0.0, 0.1, 0.2],
            classlabels_strings=labels,
            post_transform="SOFTMAX",
        ),
        helper.make_node("ZipMap", ["p"], ["z"], domain=ML, classlabels_strings=labels),
    ]
    maps = onnx.ValueInfoProto(name="z")
    maps.type.sequence_type.elem_type.CopyFrom(map_type())
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    return saved(
        tmp_path / "classifier.onnx",
        nodes,
        [x],
        [helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]), maps],
    )


@pytest.fixture
def vectorizer(tmp_path: Path) -> Model:
    node = helper.make_node("DictVectorizer", ["m"], ["v"], domain=ML, string_vocabulary=["a", "c", "b"])
    maps = onnx.ValueInfoProto(name="m", type=map_type())
    output = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
    return saved(tmp_path / "vectorizer.onnx", [node], [maps], [output])


def rows(model: Model, feeds: Mapping[str, Any]) -> dict[str, NodeResult]:
    return {row.node: row for row in check_model(model, feeds) if isinstance(row, NodeResult)}


def test_pipeline_that_ends_in_maps_is_judged_node_by_node(classifier: Model) -> None:
    found = rows(classifier, random_feeds(classifier, dims={"N": 20}))
    judged = {name: row.outcome for name, row in found.items() if row.kind == "node"}
    assert judged == dict.fromkeys(["Scaler_0", "LinearClassifier_0", "ZipMap_0"], Outcome.PASSED)
    assert found["label"].outcome is Outcome.PASSED
    assert found["z"].outcome is Outcome.PASSED
    assert found["z"].rule == "propagated"


@pytest.mark.parametrize("fault", ["value", "key", "row", "tensor"])
def test_wrong_map_fails(classifier: Model, fault: str) -> None:
    zip_map = classifier.graph.nodes[-1]
    oracle = Oracle(classifier, {"x": np.zeros((2, 4), np.float32)})
    oracle.actual["p"] = np.array([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]], np.float32)
    local = oracle.local(zip_map)
    right: list[dict[str, float]] = [dict(zip("abc", map(float, row), strict=True)) for row in oracle.actual["p"]]
    assert judge_node(zip_map, local, {"z": right}).outcome is Outcome.PASSED
    wrong: Any = [dict(row) for row in right]
    if fault == "value":
        wrong[1]["b"] += 1e-7
    elif fault == "key":
        wrong[0]["d"] = wrong[0].pop("c")
    elif fault == "row":
        wrong = wrong[::-1]
    else:
        wrong = oracle.actual["p"]
    assert judge_node(zip_map, local, {"z": wrong}).outcome is Outcome.FAILED


CLEAN = [{"a": 0.25, "b": 0.75}, {"a": 0.5, "b": 0.5}]
NEAR = [{"a": 0.25000001, "b": 0.75}, {"a": 0.5, "b": 0.5}]

OUTPUTS = {
    "right": (NEAR, Outcome.PASSED),
    "another value": ([{"a": 0.25, "b": 0.75}, {"a": 0.501, "b": 0.5}], Outcome.FAILED),
    "another key": ([{"a": 0.25, "c": 0.75}, {"a": 0.5, "b": 0.5}], Outcome.FAILED),
    "a key less": ([{"a": 0.25}, {"a": 0.5, "b": 0.5}], Outcome.FAILED),
    "a row less": (CLEAN[:1], Outcome.FAILED),
    "rows swapped": (CLEAN[::-1], Outcome.FAILED),
    "a tensor": (np.array([[0.25, 0.75], [0.5, 0.5]], np.float32), Outcome.FAILED),
    "NaN": ([{"a": float("nan"), "b": 0.75}, {"a": 0.5, "b": 0.5}], Outcome.FAILED),
    "strings": ([{"a": "0.25", "b": "0.75"}, {"a": "0.5", "b": "0.5"}], Outcome.FAILED),
    "nothing": (None, Outcome.FAILED),
}


@pytest.mark.parametrize(("actual", "outcome"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_maps_as_output_of_a_model_are_judged(actual: Any, outcome: Outcome) -> None:
    case = OutputCase("z", actual, CLEAN, CLEAN, np.dtype(np.float32), None, True, lambda: np.full(4, 1e-8))
    assert judge_output(case).outcome is outcome


@pytest.mark.parametrize(("moved", "outcome"), [(1e-7, Outcome.PASSED), (1e-3, Outcome.FAILED)])
def test_sequence_as_output_of_a_model_is_judged(moved: float, outcome: Outcome) -> None:
    clean = [np.linspace(1, 2, 4), np.linspace(3, 4, 6).reshape(2, 3)]
    actual = [(tensor + moved).astype(np.float32) for tensor in clean]
    case = OutputCase("s", actual, None, clean, np.dtype(np.float32), None, False, lambda: np.full(10, 1e-7))
    row = judge_output(case)
    assert (row.outcome, row.shapes) == (outcome, (None,))


def test_absent_optional_as_output_of_a_model_must_be_absent() -> None:
    case = OutputCase("o", None, None, None, None, None, True, lambda: None)
    assert judge_output(case).outcome is Outcome.PASSED
    assert judge_output(dataclasses.replace(case, actual=np.zeros(1))).outcome is Outcome.FAILED


def test_map_is_read_from_test_data_and_fed(vectorizer: Model, tmp_path: Path) -> None:
    feeds = {"m": {"c": np.array(8, np.float32), "a": np.array(4, np.float32)}}
    write_test_data(vectorizer, tmp_path / "data", feeds, {"v": np.array([4, 8, 0], np.float32)})
    read, outputs = read_test_data(vectorizer, tmp_path / "data")
    assert read == feeds
    assert outputs["v"].tolist() == [4, 8, 0]
    found = rows(vectorizer, read)["DictVectorizer_0"]
    # ONNX Runtime 1.32 returns (1, 3) where the text has a 1-D tensor
    assert found.outcome is (Outcome.PASSED if found.shapes == ((3,),) else Outcome.FAILED)
    node = vectorizer.graph.nodes[0]
    local = Oracle(vectorizer, feeds).local(node)
    assert judge_node(node, local, {"v": np.array([4, 8, 0], np.float32)}).outcome is Outcome.PASSED
    assert judge_node(node, local, {"v": np.array([4, 0, 8], np.float32)}).outcome is Outcome.FAILED


def test_input_of_maps_is_asked_for_by_its_kind(vectorizer: Model) -> None:
    with pytest.raises(InvalidInputError, match="of type map"):
        random_feeds(vectorizer)
    with pytest.raises(InvalidInputError, match="takes a map"):
        validate_feeds(vectorizer, {"m": np.zeros(3, np.float32)})


def test_key_outside_the_vocabulary_leaves_the_node_unjudged(vectorizer: Model) -> None:
    found = rows(vectorizer, {"m": {"q": np.array(1, np.float32)}})
    assert found["DictVectorizer_0"].outcome is Outcome.UNJUDGED
    assert "'q' is not in the vocabulary" in found["DictVectorizer_0"].message
