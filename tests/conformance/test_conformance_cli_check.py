"""`onnx-arch check` as a user runs it: exit statuses, files, standard output, inputs, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from onnx_arch.conformance.stream import partial_path, read_stream, read_streams

from .command_models import Command, assert_refused, graph_model, json_lines, save_model, small_model

NODE_BY_NODE = str(Path(__file__).parents[1] / "faulty" / "node_by_node.py")


def _read(file: Path) -> list[dict[str, Any]]:
    return json_lines(file.read_text(encoding="utf-8"))


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
    records = json_lines(out)
    assert (status, err) == (0, "")
    assert [record["kind"] for record in records] == ["header", "node", "node", "node", "output", "footer"]
    assert records[-1]["counts"]["passed"] == 4


def test_json_in_a_process_of_its_own_is_nothing_but_json(onnx_arch: Any, model: Path) -> None:
    result = onnx_arch("check", model, "--json", "-")
    assert (result.returncode, result.stderr) == (0, "")
    assert json_lines(result.stdout)[-1]["kind"] == "footer"


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


# A bundle with several graphs


def test_all_graphs_of_a_bundle_are_judged(check: Command, two_graphs: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.jsonl"
    status, out, _ = check(two_graphs, "--json", result, "--html", tmp_path / "page.html")
    assert status == 0
    assert [line for line in out.splitlines() if "pair/" in line] == ["pair/first", "pair/second"]
    assert [run.header.model for run in read_streams(result)] == ["pair/first", "pair/second"]
    assert "pair/second" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_one_wrong_graph_of_a_bundle_is_status_1(
    check: Command, two_graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "wrong_axis")  # only the second has a Softmax
    status, out, _ = check(two_graphs, "--runtime", NODE_BY_NODE, "--json", "-")
    assert status == 1
    assert [record["counts"]["failed"] for record in json_lines(out) if record["kind"] == "footer"] == [0, 2]


def test_inputs_for_several_graphs_are_refused_and_the_graphs_named(check: Command, two_graphs: Path) -> None:
    assert_refused(check(two_graphs, "--dim", "batch=2"), "first, second", str(two_graphs / "first"))


@pytest.fixture
def two_graphs(model: Path, tmp_path: Path) -> Path:
    bundle = tmp_path / "pair"
    relu = helper.make_node("Relu", ["x"], ["y"])
    for name, content in (("first", graph_model([relu], {"x": [1, 4]}, ["y"], {})), ("second", onnx.load(model))):
        (bundle / name).mkdir(parents=True)
        save_model(content, bundle / name / "model.onnx")
    (bundle / "manifest.json").write_text("{}")
    return bundle


# Inputs


def test_symbolic_dim_without_a_size_is_asked_for_by_name(check: Command, tmp_path: Path) -> None:
    file = save_model(small_model("batch"), tmp_path / "symbolic.onnx")
    assert_refused(check(file), "batch", "--dim")
    status, out, _ = check(file, "--dim", "batch=3", "--json", "-")
    assert status == 0
    assert json_lines(out)[1]["shapes"] == [[3, 8]]


def test_seed_is_recorded_and_gives_the_same_figures_again(check: Command, model: Path) -> None:
    first, again, other = (json_lines(check(model, "--json", "-", "--seed", seed)[1]) for seed in (5, 5, 6))
    assert first[0]["options"]["seed"] == 5
    assert first[1:-1] == again[1:-1]
    assert first[1]["max_z"] != other[1]["max_z"]


def test_inputs_from_a_file_are_used(check: Command, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, x=np.zeros((2, 16), np.float32))
    status, out, _ = check(model, "--inputs", file, "--json", "-")
    assert status == 0
    assert json_lines(out)[0]["options"]["inputs"] == "inputs.npz"
    assert json_lines(out)[1]["max_z"] == 0


def test_inputs_in_the_format_of_onnx_are_used(check: Command, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    tensor = numpy_helper.from_array(np.ones((2, 16), np.float32), "x")
    (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    status, out, _ = check(model, "--test-data", folder, "--json", "-")
    assert status == 0
    assert json_lines(out)[0]["options"]["inputs"] == "test_data_set_0"


def test_picture_is_used(check: Command, tmp_path: Path) -> None:
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    file = save_model(graph_model([node], {"x": [1, 3, 32, 32]}, ["y"], {"w": w}), tmp_path / "picture.onnx")
    picture = tmp_path / "cat.png"
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(picture)
    status, out, _ = check(file, "--image", picture, "--json", "-")
    assert status == 0
    assert json_lines(out)[0]["options"]["inputs"] == "cat.png"


# Resuming


def test_killed_run_is_resumed_and_ends_as_a_whole_one(check: Command, tmp_path: Path) -> None:
    """A run whose process is killed at its third node leaves what it judged; the next one takes that over."""
    rng = np.random.default_rng(2)
    weights = {f"w{i}": rng.standard_normal((32, 32)).astype(np.float32) / 6 for i in range(40)}
    nodes = [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"], name=f"layer{i}") for i in range(40)]
    file = save_model(graph_model(nodes, {"h0": [2, 32]}, ["h40"], weights), tmp_path / "deep.onnx")
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
    other = save_model(small_model(3), tmp_path / "other.onnx")
    assert_refused(check(other, "--resume", result), "result.jsonl", "model_sha256")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_interrupted_run_ends_quickly_and_says_so(number: signal.Signals, model: Path, tmp_path: Path) -> None:
    """Ctrl-C, `kill` or a closed terminal while the runtime hangs: one line, no traceback, nothing left behind."""
    (tmp_path / "temporary").mkdir()
    words = ["check", str(model), "--runtime", NODE_BY_NODE, "--json", str(tmp_path / "result.jsonl")]
    code = "from onnx_arch.cli.main import main; main()"
    environment = {**os.environ, "ONNX_ARCH_TEST_FAULT": "hang", "ONNX_ARCH_TEST_OP_TYPES": "Relu"}
    environment["TMPDIR"] = str(tmp_path / "temporary")
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        while process.poll() is None and not list((tmp_path / "temporary").glob("onnx-arch-worker-*")):
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("onnx-arch: interrupted")
    assert list((tmp_path / "temporary").glob("onnx-arch-*")) == []
