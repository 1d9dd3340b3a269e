"""`onnx-arch bench` as a user runs it, on real worker processes with runtimes that behave and that do not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from onnx_arch.benchmarks import engine
from onnx_arch.cli import bench as command
from onnx_arch.cli.main import guarded, run
from onnx_arch.cli.terminal import parse_dims
from onnx_arch.errors import InvalidArgumentError

ADAPTER = """
import os, numpy

HONOURS = ("provider", "optimization", "threads")


def load(model_path, options):
    return Session()


class Session:
    runs = 0

    def info(self):
        names = {{"input_names": ["x"], "output_names": ["y"]}}
        return dict(names, versions={{"fake": "1.0"}}, providers={providers!r})

    def run(self, feeds, outputs):
        Session.runs += 1
        if Session.runs > {crash_after}:
            os.abort()
        return {{"y": numpy.maximum(feeds["x"], 0) + numpy.float32({offset})}}
"""


@pytest.fixture
def model(tmp_path) -> Path:
    """Relu of (batch, 4)."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", ports[:1], ports[1:])
    file = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)
    return file


@pytest.fixture
def adapter(tmp_path):
    """Writes an adapter that computes Relu, unless it is told to misbehave."""

    def write(name="fake", providers=("CPUExecutionProvider",), crash_after=10**9, offset=0.0) -> str:
        file = tmp_path / f"{name}.py"
        file.write_text(ADAPTER.format(providers=list(providers), crash_after=crash_after, offset=offset))
        return str(file)

    return write


@pytest.fixture
def bench(tmp_path, capfd):
    """Runs `onnx-arch bench` with no more than the least number of blocks; exit status, JSON rows, both outputs."""

    def call(*words: object) -> tuple[int, list[dict], str, str]:
        file = tmp_path / "bench.jsonl"
        file.unlink(missing_ok=True)
        arguments = ["bench", *map(str, words), "--duration", "0", "--json", str(file)]
        status = guarded(lambda: run(arguments))
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        captured = capfd.readouterr()
        return status, rows, captured.out, captured.err

    return call


def test_bare_model_gives_a_row_per_batch_a_table_and_the_operators(bench, model) -> None:
    status, rows, out, err = bench(model, "--batch", 1, "--batch", 3, "--threads", 1)
    assert (status, err) == (0, "")
    assert [row["kind"] for row in rows] == ["bench_header", "benchmark", "benchmark", "bench_footer"]
    header, first, second, footer = rows
    assert header["rows"] == 2
    assert (first["batch"], second["batch"]) == (1, 3)
    assert first["threads"] == 1
    assert first["provider"] == "cpu"
    assert [entry["op_type"] for entry in first["op_types"]] == ["Relu"]
    assert first["op_types"][0]["providers"] == ["CPUExecutionProvider"]
    assert len(first["samples_s"]) == 12 * first["block_size"]
    assert len(first["cold_starts_s"]) == 3
    assert footer["counts"]["measured"] == 2
    assert footer["complete"]
    assert "net" in out


def test_same_runtime_twice_is_compared_with_an_interval(bench, model) -> None:
    status, rows, out, _ = bench(model, "--against", f"onnxruntime:{sys.executable}", "--threads", 1)
    assert status == 0
    row = rows[1]
    assert row["against"]["runtime"] == "onnxruntime"
    assert row["disagreement"] == 0.0
    low, high = row["ratio_interval"]
    assert low <= row["ratio"] <= high
    assert len(row["against"]["samples_s"]) == 12 * row["against"]["block_size"]
    assert "onnxruntime" in out


def test_json_on_standard_output_is_all_there_is_on_it(model, capfd) -> None:
    status = guarded(lambda: run(["bench", str(model), "--duration", "0", "--json", "-"]))
    kinds = [json.loads(line)["kind"] for line in capfd.readouterr().out.splitlines()]
    assert (status, kinds) == (0, ["bench_header", "benchmark", "bench_footer"])


def test_html_page_names_the_model(bench, model, tmp_path) -> None:
    page = tmp_path / "page.html"
    status, _, _, _ = bench(model, "--html", page, "--quiet")
    assert status == 0
    assert "net" in page.read_text(encoding="utf-8")


def test_quiet_prints_nothing(bench, model) -> None:
    assert bench(model, "--quiet")[2:] == ("", "")


def test_crash_in_the_middle_keeps_the_samples_and_exits_1(bench, model, adapter) -> None:
    """Each process counts its own runs: blocks of 1,000 after a first run and a warm-up of some thousand."""
    status, rows, _, _ = bench(model, "--runtime", adapter(crash_after=9_000))
    row = rows[1]
    assert status == 1
    assert row["outcome"] == "crashed"
    assert "SIGABRT" in row["message"]
    assert len(row["warm_up_s"]) > 0
    assert rows[-1]["counts"]["crashed"] == 1


def test_session_on_another_provider_than_asked_exits_2_with_one_line(bench, model, adapter) -> None:
    status, rows, out, err = bench(model, "--runtime", adapter(), "--provider", "cuda")
    assert status == 2
    assert err.count("\n") == 1
    assert "provider cuda was asked for, but the session runs on CPUExecutionProvider" in err
    assert out == ""
    assert [row["kind"] for row in rows] == ["bench_header"]


def test_provider_that_is_not_installed_exits_2_with_one_line(bench, model) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the provider")
    status, _, _, err = bench(model, "--provider", "cuda")
    assert status == 2
    assert err.count("\n") == 1
    assert "CUDAExecutionProvider" in err


def test_other_result_is_not_compared_and_exits_1(bench, model, adapter) -> None:
    status, rows, out, _ = bench(model, "--against", adapter(offset=0.25))
    assert status == 1
    assert rows[1]["outcome"] == "disagreed"
    assert rows[1]["ratio"] is None
    assert rows[1]["samples_s"] == []
    assert "differs by" in out


def test_right_runtime_of_a_user_is_compared(bench, model, adapter) -> None:
    status, rows, _, _ = bench(model, "--against", adapter("mine"))
    assert status == 0
    assert rows[1]["against"]["runtime"] == "mine"
    assert rows[1]["against"]["op_types"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.onnx"], "no such file"),
        (["resnet19"], "no such architecture; there are"),
        (["net.onnx", "--against", "torch"], "no manifest.json beside the model"),
        (["net.onnx", "--against", "tensorrt"], "tensorrt"),
        (["net.onnx", "--python", "/no/such/python"], "/no/such/python"),
        (["net.onnx", "--batch", "0"], "from 1 on"),
        (["net.onnx", "--dim", "sequence"], "NAME=N"),
        (["net.onnx", "--dim", "sequence=3"], "sequence"),
        (["net.onnx", "--threads", "0"], "threads"),
        (["net.onnx", "--provider", "tpu"], "tpu"),
    ],
    ids=lambda value: "-".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_request_exits_2_with_one_line_and_measures_nothing(bench, model, monkeypatch, words, said) -> None:
    monkeypatch.chdir(model.parent)
    status, rows, out, err = bench(*words)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert out == ""
    assert [row["kind"] for row in rows] in ([], ["bench_header"])


def test_architecture_by_name_is_exported_at_its_preset_and_measured(bench, model, monkeypatch) -> None:
    asked = []

    def export(folder: Path, name: str, preset: str, seed: int) -> Path:
        asked.append((name, preset, seed))
        (folder / name).mkdir()
        (folder / name / "model.onnx").write_bytes(model.read_bytes())
        return folder / name

    monkeypatch.setattr(command, "export_to", export)
    status, rows, _, _ = bench("mlp", "--preset", "tiny", "--seed", 3)
    assert status == 0
    assert asked == [("mlp", "tiny", 3)]
    assert rows[1]["model"] == "mlp"


def test_bundle_of_several_graphs_gives_a_row_for_each(bench, model, tmp_path) -> None:
    for name in ("encoder", "decoder"):
        (tmp_path / "bundle" / name).mkdir(parents=True)
        (tmp_path / "bundle" / name / "model.onnx").write_bytes(model.read_bytes())
    status, rows, _, _ = bench(tmp_path / "bundle")
    assert status == 0
    assert [row["model"] for row in rows[1:-1]] == ["decoder", "encoder"]


def test_folder_without_a_model_is_refused(bench, tmp_path) -> None:
    status, rows, _, err = bench(tmp_path)
    assert (status, rows) == (2, [])
    assert "model.onnx" in err


def test_ctrl_c_keeps_the_rows_and_exits_2(bench, model, monkeypatch) -> None:
    calls = []

    def interrupted(tracks, pace) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "alternate", interrupted)
    status, rows, out, err = bench(model, "--batch", 1, "--batch", 2, "--batch", 3)
    assert status == 2
    assert "interrupted" in err
    assert [row.get("outcome") for row in rows[1:-1]] == ["measured", "interrupted"]
    assert rows[-1]["complete"] is False
    assert "net" in out


def test_bare_model_is_measured_where_torch_cannot_be_imported(model) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from onnx_arch.cli.main import run\n"
        f"sys.exit(run(['bench', {str(model)!r}, '--duration', '0', '--quiet']))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_dims_are_read_as_name_and_size() -> None:
    assert parse_dims(["sequence=128", "x:0=2"]) == {"sequence": 128, "x:0": 2}
    with pytest.raises(InvalidArgumentError, match="NAME=N"):
        parse_dims(["sequence=-1"])


def test_sigint_in_the_middle_keeps_the_row_and_leaves_no_process(model) -> None:
    words = ["bench", str(model), "--duration", "600", "--json", "-"]
    script = f"import sys; from onnx_arch.cli.main import main; sys.argv = ['onnx-arch', *{words!r}]; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["kind"] == "bench_header"
        workers = wait_for_children(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    rows = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 2
    assert err == "onnx-arch: interrupted; what was computed is kept\n"
    assert [row["kind"] for row in rows] == ["benchmark", "bench_footer"]
    assert rows[0]["outcome"] == "interrupted"
    assert rows[1]["complete"] is False
    assert not any(psutil.pid_exists(worker) for worker in workers)


def wait_for_children(pid: int) -> list[int]:
    """Processes that `pid` has started, once there are any."""
    for _ in range(600):
        children = [child.pid for child in psutil.Process(pid).children(recursive=True)]
        if children:
            return children
        time.sleep(0.1)
    pytest.fail("no worker was started within a minute")
