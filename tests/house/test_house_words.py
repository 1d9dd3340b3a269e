"""No file of the repository names a machine: no absolute path of one, no host that packages come from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve()

FORBIDDEN = {
    "an absolute path of somebody's machine": re.compile(r"(?<![\w.~])/(home|work|root|Users|opt|mnt|srv)/[\w.-]+"),
    "a place where packages come from": re.compile(
        r"pythonhosted|download\.pytorch|pypi\.(org|python)|index-url|find-links|files\.pypi|artifactory|devpi", re.I
    ),
    "a note to self": re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"),
}


def tracked() -> list[Path]:
    """The files that belong to the repository: committed or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def found(text: str) -> list[str]:
    return [f"{what}: {match[0]}" for what, pattern in FORBIDDEN.items() for match in pattern.finditer(text)]


@pytest.mark.parametrize("file", [path for path in tracked() if path != HERE], ids=lambda path: str(path.name))
def test_file_names_no_machine(file):
    assert found(file.read_bytes().decode("utf-8", errors="ignore")) == []


@pytest.mark.parametrize(
    "text",
    ["see /home/ada/model.onnx", "cd /work/main", '"/Users/ada/x"', "pip install --index-url x", "# TODO: later"],
)
def test_found_forbidden_words_are_found(text):
    assert len(found(text)) == 1


@pytest.mark.parametrize("text", ["../../etc/passwd", "benchmarks/work/results", "https://arxiv.org/abs/1512.03385"])
def test_found_harmless_words_are_left_alone(text):
    assert found(text) == []
