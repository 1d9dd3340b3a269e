"""The CI jobs of the documents: their steps are run as a CI machine would, but for fetching and installing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]


def commands(name: str, **matrix: str) -> dict[str, str]:
    """The shell commands of a job's steps by their names, with the matrix filled in; without the installation."""
    (job,) = yaml.safe_load((ROOT / "docs" / name).read_text(encoding="utf-8"))["jobs"].values()
    found = {step["name"]: step["run"] for step in job["steps"] if "run" in step}
    for key, value in matrix.items():
        found = {step: command.replace(f"${{{{ matrix.{key} }}}}", value) for step, command in found.items()}
    assert not any("${{" in command for command in found.values())
    return {step: command for step, command in found.items() if "pip install" not in command}


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(
        ["bash", "-e", "-c", command], cwd=folder, env={**os.environ, "PATH": path, "CI": "true"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("suite", ["onnx", "generated"])
def test_operators_of_a_runtime(tmp_path: Path, suite: str) -> None:
    shutil.copy(ROOT / "runtimes" / "onnx_reference_adapter.py", tmp_path / "my_adapter.py")
    (tmp_path / "known.toml").write_text("format = 1\n")
    judge, compare, keep = commands("conform-ci.yml", suite=suite).values()
    judged = run(f"{judge.rstrip()} --op Sign", tmp_path)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert all((tmp_path / f"conform.{kind}").stat().st_size for kind in ("jsonl", "xml", "html"))
    assert run(keep, tmp_path).returncode == 0
    compared = run(compare, tmp_path)
    assert compared.returncode == 0, compared.stdout + compared.stderr


def test_an_operator_that_is_wrong_fails_the_job(tmp_path: Path) -> None:
    adapter = (ROOT / "runtimes" / "onnx_reference_adapter.py").read_text(encoding="utf-8")
    wrong = adapter.replace("zip(names, values)", "zip(names, [value + 1 for value in values])")
    assert wrong != adapter
    (tmp_path / "my_adapter.py").write_text(wrong)
    (tmp_path / "known.toml").write_text("format = 1\n")
    judge, *_ = commands("conform-ci.yml", suite="generated").values()
    judged = run(f"{judge.rstrip()} --op Sign", tmp_path)
    assert judged.returncode == 1, judged.stdout + judged.stderr
    assert any((tmp_path / "failures").iterdir())


def test_operators_of_a_model(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "network", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "model.onnx"
    )
    for command in commands("ci-example.yml").values():
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert all((tmp_path / file).stat().st_size for file in ("check.jsonl", "check.xml", "report.html"))
