"""`onnx-arch check` as a user runs it: exit statuses, files, standard output, and one line for every bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnx_arch.cli.main import guarded, run
from onnx_arch.conformance.stream import partial_path, read_stream
from onnx_arch.graphs import memory

CUDA = "CUDAExecutionProvider"
NODE_BY_NODE = str(Path(__file__).parents[1] / "faulty" / "node_by_node.py")
Array = np.ndarray
Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str]) -> Command:
    """`onnx-arch check WORDS…` in this process: (exit status, standard output, standard error)."""

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        status = guarded(lambda: run(["check", *map(str, words)]))
        out, err = capfd.readouterr()
        return status, out, err

    return call


def _graph_model(
    nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: list[str], weights: dict[str, Array], opset: int = 18
) -> onnx.ModelProto:
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", declared, results, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _small(batch: int | str = "batch") -> onnx.ModelProto:
    """x (batch, 16) · w (16, 8), Relu, Softmax."""
    w = np.random.default_rng(3).standard_normal((16, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Softmax", ["r"], ["y"]),
    ]
    return _graph_model(nodes, {"x": [batch, 16]}, ["y"], {"w": w})


def _save(model: onnx.ModelProto, file: Path) -> Path:
    file.write_bytes(model.SerializeToString())
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return _save(_small(2), tmp_path / "small.onnx")


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _read(file: Path) -> list[dict[str, Any]]:
    return _lines(file.read_text(encoding="utf-8"))


# Exit statuses and standard output


def test_right_runtime_is_status_0_and_its_last_line_counts(check: Command, model: Path) -> None:
    status, out, err = check(model)
    assert status == 0
    assert "4 passed" in out.strip().splitlines()[-1]
    assert err == ""


def test_wrong_runtime_is_status_1_and_the_guilty_node_is_shown(
    check: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "drop_product")
    status, out, _ = check(model, "--runtime", NODE_BY_NODE)
    assert status == 1
    assert "MatMul_0" in out
    assert "last product dropped" in out


def test_json_on_standard_output_is_nothing_but_json(check: Command, model: Path) -> None:
    status, out, err = check(model, "--json", "-")
    records = _lines(out)
    assert (status, err) == (0, "")
    assert [record["kind"] for record in records] == ["header", "node", "node", "node", "output", "footer"]
    assert records[-1]["counts"]["passed"] == 4


def test_json_in_a_process_of_its_own_is_nothing_but_json(onnx_arch: Any, model: Path) -> None:
    result = onnx_arch("check", model, "--json", "-")
    assert (result.returncode, result.stderr) == (0, "")
    assert _lines(result.stdout)[-1]["kind"] == "footer"


def test_quiet_says_nothing_and_the_status_tells(check: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(model, "--quiet") == (0, "", "")
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "one_ulp")
    assert check(model, "--quiet", "--runtime", NODE_BY_NODE) == (1, "", "")


def test_every_view_is_written_and_agrees(
    check: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "wrong_axis")
    files = [tmp_path / f"result.{ending}" for ending in ("jsonl", "xml", "html")]
    words = [word for pair in zip(("--json", "--junit", "--html"), files, strict=True) for word in pair]
    assert check(model, "--runtime", NODE_BY_NODE, *words)[0] == 1
    rows = read_stream(files[0]).rows
    assert [row.node for row in rows if row.outcome.value == "failed"] == ["Softmax_0", "y"]
    cases = ElementTree.parse(files[1]).getroot().findall(".//testcase")  # noqa: S314 (our own file)
    wrong = [case.get("name", "") for case in cases if case.find("failure") is not None]
    assert len(cases) == len(rows)
    assert len(wrong) == 2
    page = files[2].read_text(encoding="utf-8")
    assert "Softmax_0" in page
    assert "axis 0 in place of axis 1" in page


# Inputs


def test_symbolic_dim_without_a_size_is_asked_for_by_name(check: Command, tmp_path: Path) -> None:
    file = _save(_small("batch"), tmp_path / "symbolic.onnx")
    _refused(check(file), "batch", "--dim")
    status, out, _ = check(file, "--dim", "batch=3", "--json", "-")
    assert status == 0
    assert _lines(out)[1]["shapes"] == [[3, 8]]


def test_seed_is_recorded_and_gives_the_same_figures_again(check: Command, model: Path) -> None:
    first, again, other = (_lines(check(model, "--json", "-", "--seed", seed)[1]) for seed in (5, 5, 6))
    assert first[0]["options"]["seed"] == 5
    assert first[1:-1] == again[1:-1]
    assert first[1]["max_z"] != other[1]["max_z"]


def test_inputs_from_a_file_are_used(check: Command, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, x=np.zeros((2, 16), np.float32))
    status, out, _ = check(model, "--inputs", file, "--json", "-")
    assert status == 0
    assert _lines(out)[0]["options"]["inputs"] == "inputs.npz"
    assert _lines(out)[1]["max_z"] == 0


def test_inputs_in_the_format_of_onnx_are_used(check: Command, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    tensor = numpy_helper.from_array(np.ones((2, 16), np.float32), "x")
    (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    status, out, _ = check(model, "--test-data", folder, "--json", "-")
    assert status == 0
    assert _lines(out)[0]["options"]["inputs"] == "test_data_set_0"


def test_picture_is_used(check: Command, tmp_path: Path) -> None:
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    file = _save(_graph_model([node], {"x": [1, 3, 32, 32]}, ["y"], {"w": w}), tmp_path / "picture.onnx")
    picture = tmp_path / "cat.png"
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(picture)
    status, out, _ = check(file, "--image", picture, "--json", "-")
    assert status == 0
    assert _lines(out)[0]["options"]["inputs"] == "cat.png"


# Resuming


def test_killed_run_is_resumed_and_ends_as_a_whole_one(check: Command, tmp_path: Path) -> None:
    """A run whose process is killed at its third node leaves what it judged; the next one takes that over."""
    rng = np.random.default_rng(2)
    weights = {f"w{i}": rng.standard_normal((32, 32)).astype(np.float32) / 6 for i in range(40)}
    nodes = [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"], name=f"layer{i}") for i in range(40)]
    file = _save(_graph_model(nodes, {"h0": [2, 32]}, ["h40"], weights), tmp_path / "deep.onnx")
    result = tmp_path / "result.jsonl"
    code = (
        "import os, signal, sys\n"
        "from onnx_arch.cli.main import run\n"
        "from onnx_arch.conformance import stream\n"
        "write = stream.StreamWriter.write\n"
        "def killed(self, record):\n"
        "    if getattr(record, 'node', '') == 'layer20':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(self, record)\n"
        "stream.StreamWriter.write = killed\n"
        "run(sys.argv[1:])\n"
    )
    words = ["check", str(file), "--json", str(result)]
    killed = subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not result.exists()
    unfinished = partial_path(result)
    assert len(read_stream(unfinished).rows) == 20
    marked = [{**row, "message": "judged before"} if row["kind"] == "node" else row for row in _read(unfinished)]
    unfinished.write_text("".join(f"{json.dumps(row)}\n" for row in marked), encoding="utf-8")
    status, out, err = check(file, "--json", result, "--resume", unfinished)
    assert (status, err) == (0, "")
    resumed = read_stream(result)
    assert resumed.complete
    assert [row.node for row in resumed.rows] == [*(f"layer{i}" for i in range(40)), "h40"]
    assert [row.message for row in resumed.rows] == ["judged before"] * 20 + [""] * 21
    assert "41 passed" in out.strip().splitlines()[-1]


def test_run_of_another_model_is_not_resumed(check: Command, model: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.jsonl"
    assert check(model, "--json", result)[0] == 0
    other = _save(_small(3), tmp_path / "other.onnx")
    _refused(check(other, "--resume", result), "result.jsonl", "model_sha256")


def test_interrupted_run_ends_quickly_and_says_so(model: Path, tmp_path: Path) -> None:
    """Ctrl-C while the runtime hangs: one line, no traceback, no worker left behind."""
    words = ["check", str(model), "--runtime", NODE_BY_NODE, "--json", str(tmp_path / "result.jsonl")]
    code = "from onnx_arch.cli.main import main; main()"
    environment = {**os.environ, "ONNX_ARCH_TEST_FAULT": "hang", "ONNX_ARCH_TEST_OP_TYPES": "Relu"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("onnx-arch: interrupted")


# Bad input


def _refused(outcome: Outcome, *told: str) -> None:
    """Status 2, nothing on standard output, one line on standard error that tells these words."""
    status, out, err = outcome
    assert status == 2, out + err
    assert out == ""
    assert err.startswith("onnx-arch: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in told:
        assert word in err


def _missing(_folder: Path) -> Path:
    return Path("nowhere.onnx")


def _directory(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _empty(folder: Path) -> Path:
    (folder / "empty.onnx").touch()
    return folder / "empty.onnx"


def _truncated(folder: Path) -> Path:
    file = folder / "truncated.onnx"
    file.write_bytes(_small(2).SerializeToString()[:-100])
    return file


def _text(folder: Path) -> Path:
    file = folder / "notes.onnx"
    file.write_text("this is no model\n")
    return file


def _picture(folder: Path) -> Path:
    file = folder / "picture.onnx"
    Image.new("RGB", (8, 8)).save(file, format="png")
    return file


def _external(folder: Path, location: str) -> Path:
    """A model whose weight is said to lie at `location`."""
    model = _small(2)
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return _save(model, folder / "external.onnx")


def _external_missing(folder: Path) -> Path:
    return _external(folder, "gone.data")


def _external_above(folder: Path) -> Path:
    return _external(folder, "../../etc/passwd")


def _external_absolute(folder: Path) -> Path:
    return _external(folder, "/etc/passwd")


def _external_link(folder: Path) -> Path:
    outside = folder.parent / f"{folder.name}-outside.data"
    outside.write_bytes(bytes(4096))
    (folder / "link.data").symlink_to(outside)
    return _external(folder, "link.data")


def _external_short(folder: Path) -> Path:
    (folder / "short.data").write_bytes(bytes(10))
    return _external(folder, "short.data")


def _newer_opset(folder: Path) -> Path:
    model = _small(2)
    model.opset_import[0].version = onnx.defs.onnx_opset_version() + 1
    return _save(model, folder / "newer.onnx")


def _cycle(folder: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return _save(_graph_model(nodes, {"x": [2]}, ["b"], {}), folder / "cycle.onnx")


def _self_made_attribute(folder: Path) -> Path:
    model = _small(2)
    model.graph.node[2].attribute.append(helper.make_attribute("axes", [1]))
    return _save(model, folder / "attribute.onnx")


def _dangling(folder: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "nobody"], ["y"])]
    return _save(_graph_model(nodes, {"x": [2]}, ["y"], {}), folder / "dangling.onnx")


def _no_batch(folder: Path) -> Path:
    return _save(_small(0), folder / "nobatch.onnx")


BAD_MODELS: list[tuple[Callable[[Path], Path], tuple[str, ...]]] = [
    (_missing, ("nowhere.onnx",)),
    (_directory, ("empty", "model.onnx")),
    (_empty, ("empty.onnx",)),
    (_truncated, ("truncated.onnx",)),
    (_text, ("notes.onnx",)),
    (_picture, ("picture.onnx",)),
    (_external_missing, ("external.onnx", "gone.data")),
    (_external_above, ("external.onnx", "passwd")),
    (_external_absolute, ("external.onnx", "/etc/passwd")),
    (_external_link, ("external.onnx", "link.data")),
    (_external_short, ("external.onnx", "short.data")),
    (_newer_opset, ("newer.onnx", str(onnx.defs.onnx_opset_version()))),
    (_cycle, ("cycle.onnx", "Add")),
    (_self_made_attribute, ("attribute.onnx", "axes", "Softmax")),
    (_dangling, ("dangling.onnx", "nobody")),
    (_no_batch, ("0",)),
]


@pytest.mark.parametrize(("make", "told"), BAD_MODELS, ids=[make.__name__[1:] for make, _ in BAD_MODELS])
def test_bad_model_is_refused_in_one_line_and_nothing_is_written(
    make: Callable[[Path], Path], told: tuple[str, ...], check: Command, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    folder = tmp_path / "model"
    folder.mkdir()
    words = [f"--{form}={results / form}" for form in ("json", "junit", "html")]
    _refused(check(make(folder), *words), *told)
    assert list(results.iterdir()) == []


def test_bad_model_in_a_process_of_its_own_shows_no_traceback(onnx_arch: Any, tmp_path: Path) -> None:
    result = onnx_arch("check", _truncated(tmp_path))
    _refused((result.returncode, result.stdout, result.stderr), "truncated.onnx")


BAD_FEEDS: dict[str, tuple[dict[str, Array], tuple[str, ...]]] = {
    "wrong name": ({"image": np.zeros((2, 16), np.float32)}, ("image", "x")),
    "one too many": ({"x": np.zeros((2, 16), np.float32), "z": np.zeros(1, np.float32)}, ("z",)),
    "wrong dtype": ({"x": np.zeros((2, 16))}, ("x", "float64", "float32")),
    "wrong rank": ({"x": np.zeros(16, np.float32)}, ("x", "[16]")),
    "wrong shape": ({"x": np.zeros((2, 15), np.float32)}, ("x", "15", "16")),
    "no batch": ({"x": np.zeros((0, 16), np.float32)}, ("x", "0")),
    "nothing": ({}, ("x",)),
}


@pytest.mark.parametrize(("arrays", "told"), BAD_FEEDS.values(), ids=BAD_FEEDS.keys())
def test_bad_inputs_are_refused_by_name(
    arrays: dict[str, Array], told: tuple[str, ...], check: Command, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, **arrays)  # type: ignore[arg-type]
    _refused(check(model, "--inputs", file), *told)


def _no_archive(folder: Path) -> list[object]:
    (folder / "inputs.npz").write_text("no archive")
    return ["--inputs", folder / "inputs.npz"]


def _pickled(folder: Path) -> list[object]:
    np.savez(folder / "inputs.npz", x=np.array([{"a": 1}], object))
    return ["--inputs", folder / "inputs.npz"]


BAD_WORDS: dict[str, tuple[Callable[[Path], list[object]], tuple[str, ...]]] = {
    "inputs missing": (lambda folder: ["--inputs", folder / "gone.npz"], ("gone.npz",)),
    "inputs no archive": (_no_archive, ("inputs.npz",)),
    "inputs of objects": (_pickled, ("inputs.npz",)),
    "test data missing": (lambda folder: ["--test-data", folder / "gone"], ("gone",)),
    "test data empty": (lambda folder: ["--test-data", folder], ()),
    "picture for no picture model": (lambda folder: ["--image", folder / "gone.jpg"], ("x", "[2, 16]")),
    "two sources": (lambda folder: ["--inputs", folder / "a.npz", "--image", folder / "b.png"], ("--inputs",)),
    "dim without a size": (lambda _: ["--dim", "batch"], ("--dim batch", "batch=2")),
    "dim that is none": (lambda _: ["--dim", "tokens=3"], ("tokens",)),
    "dim below zero": (lambda _: ["--dim", "batch=-1"], ("batch=-1",)),
    "dim of no size": (lambda _: ["--dim", "batch=0"], ("0",)),
    "unknown runtime": (lambda _: ["--runtime", "tensorrt"], ("tensorrt", "onnxruntime")),
    "runtime file missing": (lambda _: ["--runtime", "gone.py"], ("gone.py",)),
    "no such interpreter": (lambda _: ["--python", "/no/python"], ("/no/python",)),
    "unknown provider": (lambda _: ["--provider", "tpu"], ("tpu", "cpu")),
    "unknown level": (lambda _: ["--optimization", "most"], ("most", "disabled")),
    "no threads": (lambda _: ["--threads", "0"], ("--threads",)),
    "resume missing": (lambda folder: ["--resume", folder / "gone.jsonl"], ("gone.jsonl",)),
    "json in no folder": (lambda folder: ["--json", folder / "no" / "result.jsonl"], ("result.jsonl",)),
    "unknown option": (lambda _: ["--tolerance", "1e-3"], ("--tolerance",)),
}


@pytest.mark.parametrize(("words", "told"), BAD_WORDS.values(), ids=BAD_WORDS.keys())
def test_bad_words_are_refused_in_one_line(
    words: Callable[[Path], list[object]], told: tuple[str, ...], check: Command, tmp_path: Path
) -> None:
    given = words(tmp_path)
    batch = "batch" if given[0] == "--dim" else 2
    _refused(check(_save(_small(batch), tmp_path / "small.onnx"), *given), *told)


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has the provider")
def test_provider_that_is_not_here_is_refused(check: Command, model: Path) -> None:
    _refused(check(model, "--provider", "cuda"), CUDA, "CPUExecutionProvider")


def test_unreadable_resume_is_refused(check: Command, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.jsonl"
    file.write_text("no JSON\n")
    _refused(check(model, "--resume", file), "result.jsonl", "line 1")


def test_model_larger_than_the_memory_is_refused_before_it_runs(
    check: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    _refused(check(_save(_small(2000), tmp_path / "large.onnx")), "large.onnx", "GB", "available")


def _unknown_operator(folder: Path, domain: str) -> Path:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Frobnicate", ["h"], ["y"], domain=domain)]
    model = _graph_model(nodes, {"x": [2, 3]}, ["y"], {})
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return _save(model, folder / "unknown.onnx")


def test_operator_that_onnx_does_not_know_is_refused(check: Command, tmp_path: Path) -> None:
    _refused(check(_unknown_operator(tmp_path, "")), "unknown.onnx", "Frobnicate")


def test_operator_of_a_domain_of_its_own_is_unsupported_and_the_rest_is_judged(check: Command, tmp_path: Path) -> None:
    status, out, _ = check(_unknown_operator(tmp_path, "my.own"), "--json", "-")
    rows = [record for record in _lines(out) if record["kind"] == "node"]
    assert status == 1
    assert [row["outcome"] for row in rows] == ["passed", "unsupported"]


def test_views_that_cannot_be_written_are_told_in_one_line(check: Command, model: Path, tmp_path: Path) -> None:
    _refused(check(model, "--quiet", "--html", tmp_path / "no" / "page.html"), "page.html")
