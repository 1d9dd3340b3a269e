"""The words of the Makefile, on a machine that has nothing yet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["demo", "test", "test-slow", "lint", "types", "bench", "wheel", "clean"]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What make reads, in a folder without an environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("word", WORDS)
def test_make_word_exists(word):
    done = make("--dry-run", word)
    assert (done.returncode, done.stderr) == (0, "")


def test_make_without_a_word_names_every_word_and_builds_nothing(clone):
    done = make(folder=clone)
    assert done.returncode == 0
    assert all(f"make {word}" in done.stdout for word in WORDS)
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("word", [word for word in WORDS if word != "clean"])
def test_make_fresh_clone_installs_with_the_constraints_first(clone, word):
    done = make("--dry-run", word, folder=clone)
    assert done.returncode == 0
    installs = [line for line in done.stdout.splitlines() if " pip install " in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


def test_make_no_interpreter_new_enough_says_so_and_makes_nothing(clone):
    old = clone / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    done = make("test", f"PYTHON={old}", folder=clone)
    assert done.returncode == 2
    assert f"onnx-arch needs Python 3.11 or newer; {old} is older" in done.stderr
    assert not (clone / ".venv").exists()


def test_make_no_interpreter_at_all_says_so(clone):
    done = make("test", "PYTHON=", folder=clone)
    assert done.returncode == 2
    assert "onnx-arch needs Python 3.11 or newer; set PYTHON=" in done.stderr


def test_ci_script_runs_the_words_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(f"\nmake {word}\n" in script for word in ("test", "lint", "types", "wheel"))
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", [".ci/run", "docs/demo.sh", "docs/tour.sh"])
def test_script_is_executable_and_parses(script):
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    shell = "bash" if "bash" in path.read_text(encoding="utf-8").partition("\n")[0] else "sh"
    assert subprocess.run([shell, "-n", path], check=False).returncode == 0
