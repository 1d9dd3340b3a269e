"""The pytest plug-in: a test per case, known failures, and nothing at all where it is not asked for."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from .conform_runs import NODE_BY_NODE

ENTRY = "onnx_arch.cli.pytest_plugin"


@pytest.fixture
def run(tmp_path: Path):
    """pytest in a process and a folder of its own, with the plug-in and no other."""

    def call(*words: object, plugin: str = ENTRY) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *map(str, words)]
        env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": plugin, "PATH": "", "COLUMNS": "200"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=240)

    return call


WORDS = ("--onnx-arch-runtime", "onnxruntime", "--onnx-arch-suite", "onnx:simple")


def test_plugin_is_registered_as_an_entry_point() -> None:
    entries = importlib.metadata.entry_points(group="pytest11", name="onnx-arch")
    assert {entry.value for entry in entries} == {ENTRY}


def test_every_case_is_a_test_beside_those_that_pytest_finds(run, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    pass\n", encoding="utf-8")
    done = run(*WORDS, "--onnx-arch-op", "Relu", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_mine.py::test_mine PASSED" in done.stdout
    assert "onnx-arch:onnx:simple::test_single_relu_model PASSED" in done.stdout
    assert "2 passed" in done.stdout


def test_cases_are_chosen_by_k_before_any_runtime_is_started(run) -> None:
    done = run("--onnx-arch-runtime", "no-such-runtime", *WORDS[2:], "-k", "relu", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "onnx-arch:onnx:simple::test_single_relu_model" in done.stdout
    assert "1/23 tests collected (22 deselected)" in done.stdout


def test_failing_case_fails_with_the_verdict_and_no_traceback(run, tmp_path: Path) -> None:
    adapter = tmp_path / "wrong.py"
    adapter.write_text(WRONG, encoding="utf-8")
    done = run("--onnx-arch-runtime", adapter, *WORDS[2:], "--onnx-arch-op", "Relu")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Relu, opset 9: failed" in done.stdout
    assert "Traceback" not in done.stdout
    assert "pytest_plugin.py" not in done.stdout


WRONG = """
import numpy as np
HONOURS = ("optimization", "threads")
class Session:
    def info(self):
        return {"versions": {"wrong": "1"}, "input_names": ["x"], "output_names": ["y"]}
    def run(self, feeds, outputs):
        return {"y": np.float32(7) + np.zeros_like(feeds["x"])}
def load(model_path, options):
    return Session()
"""


def test_known_failure_is_expected_and_a_strict_one_that_passes_fails(run, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    known = tmp_path / "known.toml"
    known.write_text('format = 1\nstrict = true\n[[known]]\nop = "Relu"\nreason = "it is wrong"\n', encoding="utf-8")
    words = (*WORDS[2:], "--onnx-arch-op", "Relu", "--onnx-arch-expect", known, "-rx")
    done = run("--onnx-arch-runtime", tmp_path / "wrong.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 xfailed" in done.stdout
    assert "it is wrong" in done.stdout
    done = run("--onnx-arch-runtime", "onnxruntime", *words)
    assert done.returncode == 1
    assert "row 1 (op Relu) of the known failures says it fails" in done.stdout


def test_generated_failure_tells_its_smallest_case(run) -> None:
    words = ("--onnx-arch-suite", "generated", "--onnx-arch-op", "Slice", "--onnx-arch-examples", "25")
    done = run("--onnx-arch-runtime", "onnxruntime", *words, "-k", "0002")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "smallest: Slice-13(" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--onnx-arch-suite", "onyx"), "suite 'onyx'"),
        (("--onnx-arch-op", "Conf"), "--op Conf"),
        (("--onnx-arch-opset", "new"), "--opset new"),
        (("--onnx-arch-expect", "gone.toml"), "gone.toml"),
    ],
)
def test_bad_option_is_refused_in_one_line(run, words: tuple[str, ...], told: str) -> None:
    done = run(*WORDS, *words)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.startswith("ERROR: onnx-arch: ")
    assert told in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_runtime_that_is_not_there_ends_the_run(run) -> None:
    done = run("--onnx-arch-runtime", "no-such-runtime", *WORDS[2:])
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "onnx-arch: runtime 'no-such-runtime'" in done.stdout + done.stderr


def test_run_that_does_not_ask_for_it_loads_and_changes_nothing(run, tmp_path: Path) -> None:
    heavy = ["numpy", "onnx", "onnxruntime", "onnx_arch.conformance.conform", "hypothesis", "pydantic", "rich"]
    text = f"import sys\ndef test_nothing():\n    assert not [name for name in {heavy} if name in sys.modules]\n"
    (tmp_path / "test_mine.py").write_text(text, encoding="utf-8")
    done = run("-q")
    assert done.returncode == 0, done.stdout + done.stderr
    without = run("-q", plugin="")
    assert done.stdout.rpartition(" in ")[0] == without.stdout.rpartition(" in ")[0]


def test_crashing_runtime_costs_one_test(run, tmp_path: Path) -> None:
    adapter = Path(NODE_BY_NODE)
    words = ("--onnx-arch-suite", "onnx:simple", "--onnx-arch-op", "Relu", "--onnx-arch-op", "Sign")
    script = tmp_path / "crashing.py"
    script.write_text(
        f"import os\nos.environ.update(ONNX_ARCH_TEST_FAULT='crash', ONNX_ARCH_TEST_OP_TYPES='Sign')\n"
        f"__file__ = {str(adapter)!r}\nexec(compile(open(__file__).read(), __file__, 'exec'))\n",
        encoding="utf-8",
    )
    done = run("--onnx-arch-runtime", script, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "crashed" in done.stdout
