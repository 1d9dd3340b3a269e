"""`onnx-arch export` as a user runs it: what it prints, writes and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from onnx_arch.cli.main import guarded, run

HERE = Path(__file__).resolve().parent


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_right_exports_exit_0_and_say_where_and_how(onnx_arch, tmp_path):
    done = onnx_arch("export", "mlp", "attention", "--preset", "tiny", "-o", "out", "--opset", "23", "--seed", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "mlp: out/mlp (opset 23, float32, 269 parameters" in done.stdout
    assert "tied source_sequence (key.1 = value.1), proved at 1, 2, 6, 7, 128" in done.stdout
    assert "graph in float64 against the module: passed at 14 shapes" in done.stdout
    assert "ONNX Runtime against the module: passed at 14 shapes" in done.stdout
    assert onnx.load(tmp_path / "out" / "attention" / "model.onnx").opset_import[0].version == 23


def test_json_is_a_header_rows_and_a_footer_alone_on_standard_output(onnx_arch):
    done = onnx_arch("export", "mlp", "--preset", "tiny", "--json", "-")
    assert done.returncode == 0
    header, row, footer = rows(done.stdout)
    assert (header["kind"], header["format_version"]) == ("header", 1)
    assert header["command"] == ["onnx-arch", "export", "mlp", "--preset", "tiny", "--json", "-"]
    assert (row["kind"], row["name"], row["outcome"], row["path"]) == ("export", "mlp", "passed", "mlp")
    assert (row["translation"], row["onnxruntime"], row["problems"]) == ("passed", "passed", [])
    assert row["manifest"]["opset"] == 20
    assert footer["counts"] == {"passed": 1}
    assert footer["complete"] is True


WRONG = """
import math, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
    def forward(self, x):
        y = self.linear(x)
        return y * 3.0 if torch.compiler.is_exporting() else y
def make():
    return Net(), (torch.randn(2, 4),)
"""


def test_wrong_export_exits_1_names_the_output_and_leaves_nothing(onnx_arch, tmp_path):
    (tmp_path / "net.py").write_text(WRONG)
    done = onnx_arch("export", "net.py:make", "-o", "out", "--dynamic", "batch", "--json", "rows.jsonl")
    assert (done.returncode, done.stderr) == (1, "")
    assert "make: WRONG, nothing was written" in done.stdout
    assert "output output: the graph gives" in done.stdout
    assert "× the rounding scale (allowed 8)" in done.stdout
    assert "tracing the module (torch.export) has changed it" in done.stdout
    assert not (tmp_path / "out").exists()
    _, wrong, footer = rows((tmp_path / "rows.jsonl").read_text())
    assert (wrong["outcome"], wrong["path"]) == ("failed", None)
    assert footer["counts"] == {"failed": 1}


def test_what_onnxruntime_cannot_run_is_named_and_is_no_failure(onnx_arch):
    done = onnx_arch("export", "mlp", "--preset", "tiny", "--dtype", "bfloat16")
    assert done.returncode == 0
    assert "ONNX Runtime against the module: unsupported at 4 shapes" in done.stdout
    assert "NOT_IMPLEMENTED" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "resnet19"], "no architecture 'resnet19'; there are attention"),
        (["export", "mlp", "--preset", "huge"], "no preset 'huge'"),
        (["export", "net.py"], "allowed are an architecture, path/to/file.py:factory"),
        (["export", "no.py:make"], "no.py: no such file"),
        (["export", "mlp", "--opset", "17"], "opset 17; allowed are 18 to 28"),
        (["export", "mlp", "--dtype", "int8"], "'int8' is not one of"),
        (["export", "mlp", "--weights", "none.pt"], "none.pt: no such file"),
        (["export", "mlp", "attention", "--weights", "c.pt"], "--weights is one checkpoint; 2 names are given"),
        (["export", "a.py:make", "b.py:make"], "would both be written to make"),
        (["export", "mlp", "--input", "features"], "allowed is NAME=SHAPE:DTYPE"),
        (["export", "mlp", "--dynamic", "height"], "no axis 'height'"),
        (["export", "mlp", "--seed", "-1"], "greater than or equal to 0"),
        (["export"], "Missing argument"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_2(capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    assert guarded(lambda: run(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_quiet_says_nothing_json_goes_to_a_file_and_the_bundle_checks_clean(onnx_arch, tmp_path):
    words = ["--preset", "tiny", "-o", "out", "--quiet", "--json", "rows.jsonl"]
    done = onnx_arch("export", "attention", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [row["kind"] for row in rows((tmp_path / "rows.jsonl").read_text())] == ["header", "export", "footer"]
    done = onnx_arch("check", "out/attention", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
