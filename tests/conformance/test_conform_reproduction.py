"""Folders that show a failure alone: they fail with the wrong runtime, and pass with a right one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_arch.conformance.case_runner import CaseRunner
from onnx_arch.conformance.reproduction import Failure, all_values, safe_name, write_reproduction
from onnx_arch.conformance.suites.case import Case, Subject
from onnx_arch.errors import InvalidArgumentError
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.test_data import read_test_data
from onnx_arch.runtimes.session import RuntimeOptions

from .conform_runs import NODE_BY_NODE, Conform, conform_command, rows_of


@pytest.fixture
def conform(capfd: pytest.CaptureFixture[str]) -> Conform:
    return conform_command(capfd)


def run_script(folder: Path) -> subprocess.CompletedProcess[str]:
    """As a stranger runs it: in its own folder, with nothing of this package on the path."""
    return subprocess.run(
        [sys.executable, "repro.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_failures_of_a_runtime_are_written_and_reproduce(conform: Conform, tmp_path: Path) -> None:
    file, folder = tmp_path / "r.jsonl", tmp_path / "failures"
    words = ("--op", "Resize", "--op", "GRU", "--suite", "onnx:node", "--runtime", "onnxruntime")
    assert conform(*words, "--json", file, "--reproduce", folder)[0] == 1
    red = {name for name, row in rows_of(file).items() if row.red}
    assert {path.name for path in folder.iterdir()} == red
    for name in red:
        done = run_script(folder / name)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "onnx_arch" not in (folder / name / "repro.py").read_text(encoding="utf-8")
        verdict = json.loads((folder / name / "verdict.json").read_text(encoding="utf-8"))
        assert verdict["row"]["node"] == name
        assert name.partition("_")[2].split("_")[0].lower() in (folder / name / "ISSUE.md").read_text().lower()
        model = load_model(folder / name / "model.onnx")
        feeds, outputs = read_test_data(model, folder / name / "test_data_set_0")
        assert feeds
        assert set(outputs) <= {spec.name for spec in model.graph.outputs}


def test_script_of_an_adapter_fails_with_the_fault_and_passes_without(
    conform: Conform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "drop_product")
    words = ("--runtime", NODE_BY_NODE, "--op", "MatMul", "--suite", "onnx:node", "--case", "test_matmul_2d")
    assert conform(*words, "--reproduce", tmp_path)[0] == 1
    folder = tmp_path / "test_matmul_2d"
    for beside in ("faults.py", "arithmetics.py"):
        shutil.copy(Path(NODE_BY_NODE).with_name(beside), folder)
    wrong = run_script(folder)
    assert wrong.returncode == 1
    assert "elements are wrong" in wrong.stdout
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "none")
    right = run_script(folder)
    assert (right.returncode, right.stdout.strip()) == (0, "c: right")


def test_generated_failure_is_written_small(conform: Conform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "drop_product")
    words = ("--suite", "generated", "--op", "MatMul", "--opset", "13", "--examples", "3", "--seed", "5")
    conform(*words, "--runtime", NODE_BY_NODE, "--reproduce", tmp_path)
    folders = list(tmp_path.iterdir())
    assert folders
    for folder in folders:
        feeds = np.load(folder / "inputs.npz")
        assert sum(feeds[key].size for key in feeds) <= 16


def test_known_failures_are_not_written(conform: Conform, tmp_path: Path) -> None:
    known = tmp_path / "known.toml"
    known.write_text('format = 1\n[[known]]\nop = "GRU"\nreason = "r"\n', encoding="utf-8")
    words = ("--op", "GRU", "--suite", "onnx:node", "--runtime", "onnxruntime", "--expect", known)
    assert conform(*words, "--reproduce", tmp_path / "out")[0] == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["bfloat16", "float8_e4m3fn", "string", "int64", "float64"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "onnx-reference"])
def test_values_of_every_type_go_through_the_files_unchanged(tmp_path: Path, value: str, runtime: str) -> None:
    """Identity of a type, reproduced: the script says that the runtime, which is right, is right."""
    dtype = np.dtype(object) if value == "string" else np.dtype(getattr(ml_dtypes, value, value))
    x = np.array(["a", "", "日本"], object) if value == "string" else np.arange(-3, 4).astype(dtype)
    kind = TensorProto.STRING if value == "string" else helper.np_dtype_to_tensor_dtype(dtype)
    info = [helper.make_tensor_value_info(name, kind, x.shape) for name in ("file", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["file"], ["y"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    case = Case("Identity", "Identity", "", 21, lambda: Subject(model, ({"file": x},)))
    runner = CaseRunner(RuntimeOptions(runtime=runtime, threads=1))
    try:
        row = runner.judge(case)
        loaded = load_model(case.subject().write(runner.folder))
        failure = Failure("a case/of mine", loaded, {"file": x}, row, runner.options, runner.runtime_versions)
        folder = write_reproduction(tmp_path, failure)
    finally:
        runner.close()
    assert folder.name == "a_case_of_mine"
    done = run_script(folder)
    assert (done.returncode, done.stdout.strip()) == (0, "y: right"), done.stdout + done.stderr


def test_folder_that_cannot_be_written_is_an_error_in_one_line(conform: Conform, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    words = ("--op", "GRU", "--suite", "onnx:node", "--runtime", "onnxruntime")
    status, _, err = conform(*words, "--reproduce", tmp_path / "file", "-q")
    assert status == 2
    assert err.count("\n") == 1
    assert "cannot write" in err


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b c", "a_b_c"), ("../x", "x"), ("…", "case"), ("Add-14-seed0-of25-0007",) * 2]
)
def test_names_of_folders_are_plain(name: str, expected: str) -> None:
    assert safe_name(name) == expected


def test_failure_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    file = tmp_path / "m.onnx"
    file.write_bytes(model.SerializeToString())
    runner = CaseRunner(RuntimeOptions(threads=1))
    feeds = {"x": np.ones(1, np.float32)}
    row = runner.judge(Case("c", "Relu", "", 21, lambda: Subject(file, (feeds,))))
    runner.close()
    with pytest.raises(InvalidArgumentError, match="cannot write"):
        write_reproduction(tmp_path / "file", Failure("c", load_model(file), feeds, row, runner.options, {}))


@pytest.mark.parametrize(("name", "bits", "number"), [("int4", 0xFF, -1), ("int4", 0x0F, -1), ("uint4", 0x0F, 15)])
def test_table_of_a_narrow_type_has_its_signs(name: str, bits: int, number: int) -> None:
    stored = np.zeros(1, getattr(ml_dtypes, name))
    assert all_values(stored.dtype)[bits] == number


def test_failing_graph_is_written_as_its_failing_node(
    conform: Conform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "drop_product")
    monkeypatch.setenv("ONNX_ARCH_TEST_OP_TYPES", "MatMul")
    words = (
        "--runtime",
        NODE_BY_NODE,
        "--suite",
        "onnx:node",
        "--op",
        "Attention",
        "--case",
        "test_attention_4d_expanded",
    )
    assert conform(*words, "--reproduce", tmp_path)[0] == 1
    model = load_model(tmp_path / "test_attention_4d_expanded" / "model.onnx")
    assert [node.op_type for node in model.graph.nodes] == ["MatMul"]


def test_failure_of_writing_leaves_the_verdict(
    conform: Conform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise TypeError("no way")

    monkeypatch.setattr("onnx_arch.conformance.aftermath.write_reproduction", broken)
    file = tmp_path / "r.jsonl"
    words = ("--op", "GRU", "--suite", "onnx:node", "--runtime", "onnxruntime", "--json", file)
    assert conform(*words, "--reproduce", tmp_path / "out")[0] == 1
    message = rows_of(file)["test_gru_batchwise"].message
    assert "layout_ == 0" in message
    assert message.endswith("no reproduction was written: TypeError: no way")
