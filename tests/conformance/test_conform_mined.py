"""Cases cut from models: what counts as alike, real values, weights, and models that cannot be run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.suites.case import Case
from onnx_arch.conformance.suites.mined import mined_cases
from onnx_arch.errors import InvalidArgumentError
from onnx_arch.graphs.loading import load_model

from .command_models import graph_model, json_lines, save_model, small_model
from .conform_runs import NODE_BY_NODE, Conform, conform_command


@pytest.fixture
def conform(capfd: pytest.CaptureFixture[str]) -> Conform:
    return conform_command(capfd)


def chain(op_types: list[str], shape: list[int | str] = [2, 3], opset: int = 18) -> onnx.ModelProto:  # noqa: B006
    """x → op → op → … → y."""
    names = ["x", *(f"t{i}" for i in range(len(op_types) - 1)), "y"]
    nodes = [helper.make_node(o, [a], [b]) for o, a, b in zip(op_types, names[:-1], names[1:], strict=True)]
    return graph_model(nodes, {"x": shape}, ["y"], {}, opset)


def mined(folder: Path, **options: object) -> dict[str, list[Case]]:
    """Cases by operator."""
    found: dict[str, list[Case]] = {}
    for case in mined_cases(folder, **options):  # type: ignore[arg-type]
        found.setdefault(case.op_type, []).append(case)
    return found


def test_calls_that_are_alike_become_one_case_with_their_number(tmp_path: Path) -> None:
    save_model(chain(["Abs", "Sqrt", "Sqrt", "Relu"]), tmp_path / "a.onnx")
    (tmp_path / "deeper").mkdir()
    save_model(chain(["Abs", "Relu", "Relu"]), tmp_path / "deeper" / "b.onnx")
    cases = mined(tmp_path, seed=1)
    assert {op_type: [case.occurrences for case in found] for op_type, found in cases.items()} == {
        "Abs": [2],
        "Sqrt": [2],
        "Relu": [3],
    }
    assert cases["Sqrt"][0].origin == "a.onnx: Sqrt_0"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (chain(["Relu"], [2, 3]), chain(["Relu"], [3, 2])),
        (chain(["Relu"], opset=18), chain(["Relu"], opset=13)),
        (
            graph_model([helper.make_node("Softmax", ["x"], ["y"], axis=0)], {"x": [2, 3]}, ["y"], {}),
            graph_model([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {"x": [2, 3]}, ["y"], {}),
        ),
        (
            graph_model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [2]}, ["y"], {"w": np.ones(2, np.float32)}),
            graph_model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [2], "w": [2]}, ["y"], {}),
        ),
        (
            graph_model([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": [2]}, ["y"], {"w": np.float32([1, 1])}),
            graph_model([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": [2]}, ["y"], {"w": np.float32([1e9, 1])}),
        ),
    ],
    ids=["shape", "opset", "attribute", "weight", "range"],
)
def test_calls_that_differ_are_cases_of_their_own(
    tmp_path: Path, first: onnx.ModelProto, second: onnx.ModelProto
) -> None:
    save_model(first, tmp_path / "a.onnx")
    save_model(second, tmp_path / "b.onnx")
    assert [case.occurrences for case in mined_cases(tmp_path)] == [1, 1]


def test_names_of_cases_are_the_same_for_other_names_of_files_and_nodes(tmp_path: Path) -> None:
    for folder, prefix in (("a", "one"), ("b", "two")):
        (tmp_path / folder).mkdir()
        model = chain(["Abs", "Sqrt"])
        for node in model.graph.node:
            node.name = f"{prefix}_{node.op_type}"
        save_model(model, tmp_path / folder / f"{prefix}.onnx")
    first, second = ([case.name for case in mined_cases(tmp_path / folder)] for folder in "ab")
    assert first == second


def test_values_are_those_of_the_float64_run_in_their_stored_type(tmp_path: Path) -> None:
    save_model(chain(["Abs", "Sqrt"]), tmp_path / "a.onnx")
    cases = mined(tmp_path, seed=3)
    (before,), (after,) = (cases[name][0].subject().data_sets for name in ("Abs", "Sqrt"))
    (x,), (absolute,) = before.values(), after.values()
    assert absolute.dtype == np.float32
    np.testing.assert_array_equal(absolute, np.abs(x))


def test_weights_stay_weights_and_test_data_beside_the_model_are_used(tmp_path: Path) -> None:
    save_model(small_model(2), tmp_path / "a.onnx")
    data = tmp_path / "test_data_set_0"
    data.mkdir()
    x = np.arange(32, dtype=np.float32).reshape(2, 16)
    (data / "input_0.pb").write_bytes(numpy_helper.from_array(x, "x").SerializeToString())
    cases = mined(tmp_path)
    subject = cases["MatMul"][0].subject()
    np.testing.assert_array_equal(subject.data_sets[0]["x"], x)
    assert isinstance(subject.model, Path)
    assert list(load_model(subject.model).graph.initializers) == ["w"]


def test_symbolic_dims_are_one_or_as_given(tmp_path: Path) -> None:
    save_model(chain(["Relu"], ["batch", 3]), tmp_path / "a.onnx")
    for dims, expected in (({}, (1, 3)), ({"batch": 5}, (5, 3))):
        (case,) = mined(tmp_path, dims=dims)["Relu"]
        (feeds,) = case.subject().data_sets
        assert next(iter(feeds.values())).shape == expected


def test_loop_is_one_case_with_what_its_body_sees(tmp_path: Path, conform: Conform) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["s", "x"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [2]),
        ],
    )
    loop = helper.make_node("Loop", ["n", "", "zero"], ["y"], body=body)
    weights = {"n": np.array(3), "zero": np.zeros(2, np.float32)}
    model = graph_model([helper.make_node("Abs", ["v"], ["x"]), loop], {"v": [2]}, ["y"], weights)
    save_model(model, tmp_path / "loop.onnx")
    status, out, _ = conform("--suite", f"mined:{tmp_path}", "--json", "-")
    rows = [line for line in json_lines(out) if line["kind"] == "case"]
    assert status == 0
    assert sorted((row["op_type"], row["outcome"]) for row in rows) == [("Abs", "passed"), ("Loop", "passed")]


def test_model_that_cannot_be_run_is_skipped_with_the_reason(conform: Conform, tmp_path: Path) -> None:
    save_model(chain(["Relu"]), tmp_path / "good.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"nonsense")
    save_model(chain(["NoSuchOperator"]), tmp_path / "unknown.onnx")
    status, out, _ = conform("--suite", f"mined:{tmp_path}", "--json", "-")
    rows = {line["node"]: line for line in json_lines(out) if line["kind"] == "case"}
    assert status == 0
    assert rows["broken.onnx"]["outcome"] == rows["unknown.onnx"]["outcome"] == Outcome.SKIPPED
    assert "not mined to its end" in rows["broken.onnx"]["message"]
    assert str(tmp_path) not in out


def test_wrong_runtime_is_found_by_mined_cases_and_their_weight_is_told(
    conform: Conform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "drop_product")
    save_model(small_model(2), tmp_path / "a.onnx")
    save_model(small_model(2), tmp_path / "b.onnx")
    status, out, _ = conform("--suite", f"mined:{tmp_path}", "--runtime", NODE_BY_NODE)
    assert status == 1
    assert "(2 nodes)" in out
    assert "first met in a.onnx: MatMul_0" in out


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    for folder, told in ((tmp_path / "gone", "no such folder"), (file, "no folder"), (tmp_path, r"no \.onnx file")):
        with pytest.raises(InvalidArgumentError, match=told):
            mined_cases(folder)
