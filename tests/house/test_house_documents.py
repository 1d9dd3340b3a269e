"""What the documents say exists: commands, options, links, recipes; and every room is tested."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from onnx_arch.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
SCRIPTS = [ROOT / "docs" / name for name in ("tour.sh", "demo.sh", "ci-example.yml", "conform-ci.yml")]

OPTIONS = {
    "list": ["--json", "--quiet"],
    "export": [
        "-o", "--preset", "--opset", "--dtype", "--weights", "--allow-missing", "--save-weights", "--layout", "--seed",
        "--dynamic", "--input", "--unpool", "--json", "--quiet",
    ],
    "reload": ["-o", "--weights", "--module", "--allow-missing", "--quiet"],
    "check": [
        "--inputs", "--test-data", "--image", "--runtime", "--python", "--provider", "--optimization",
        "--disable-optimizer", "--json", "--junit", "--html", "--resume", "--quiet",
    ],
    "conform": [
        "--runtime", "--python", "--provider", "--op", "--opset", "--suite", "--workers", "--expect", "--json",
        "--junit", "--html", "--resume", "--compare", "--case", "--seed", "--examples", "--threads", "--time-limit",
        "--dim",
        "--no-shrink", "--reproduce", "--all", "--quiet",
    ],
    "bench": ["--against", "--provider", "--batch", "--threads", "--json", "--quiet"],
    "report": ["-o", "--quiet"],
    "generate": [
        "--prompt", "--tokens", "--tokenizer", "-o", "--count", "--seed", "--max-length", "--temperature", "--top-k",
        "--top-p", "--negative-prompt", "--steps", "--guidance", "--height", "--width", "--one-file", "--preset",
        "--weights", "--provider", "--threads", "--json", "--quiet",
    ],
    "visualise": [
        "--image", "--layer", "-o", "--feature", "--top", "--bundle", "--weights", "--preset", "--json", "--quiet",
    ],
}  # fmt: skip
"""The options that people and scripts rely on: more may come, none goes."""


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def options_of(command: str) -> frozenset[str]:
    """The options that a command's own help names."""
    code = f"from onnx_arch.cli.main import run; run([{command!r}, '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout))


def command_lines(text: str) -> list[list[str]]:
    """Every `onnx-arch …` in a text, as words: in code blocks and in backticks."""
    found = re.findall(
        r"(?:^|[`$ ])(onnx-arch (?:list|export|reload|check|conform|bench|report)\b[^`|\n>]*)", text, flags=re.MULTILINE
    )
    return [shlex.split(line, comments=True) for line in found]


@pytest.mark.parametrize(("command", "option"), [(name, option) for name in OPTIONS for option in OPTIONS[name]])
def test_command_option_relied_on_exists(command, option):
    assert option in options_of(command)


def test_options_are_listed_for_every_command():
    assert OPTIONS.keys() == COMMANDS.keys()


@pytest.mark.parametrize("path", [*DOCUMENTS, *SCRIPTS], ids=lambda path: path.name)
def test_document_commands_and_options_exist(path):
    for words in command_lines(text_of(path).replace('"$BIN/onnx-arch"', "onnx-arch")):
        named = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert named <= options_of(words[1]), shlex.join(words)


def test_command_lines_wrong_option_would_be_seen():
    (words,) = command_lines("run `onnx-arch check model.onnx --frobnicate` now")
    assert words == ["onnx-arch", "check", "model.onnx", "--frobnicate"]
    assert "--frobnicate" not in options_of("check")


def test_readme_tour_commands_are_those_that_the_script_runs():
    tour = text_of(ROOT / "README.md").partition("<!-- tour")[2].partition("<!-- end of tour")[0]
    shown = re.findall(r"^\$ (.*)$", tour, flags=re.MULTILINE)
    ran = re.findall(r"^ +run (.*)$", text_of(ROOT / "docs" / "tour.sh"), flags=re.MULTILINE)
    assert shown == ran
    assert len(ran) >= 5


@pytest.mark.parametrize("word", re.findall(r"make ([a-z-]+)", "".join(map(text_of, DOCUMENTS))))
def test_document_make_word_exists(word):
    assert re.search(rf"^{word}:", text_of(ROOT / "Makefile"), flags=re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_document_links_lead_to_files(path):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(path))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_contributing_recipes_have_at_most_eight_steps():
    recipes = text_of(ROOT / "CONTRIBUTING.md").split("\n## ")[1:]
    steps = {title: re.findall(r"^(\d+)\. ", body, flags=re.MULTILINE) for title, _, body in map(parts, recipes)}
    assert 3 <= len(steps["Add an operator"]) <= 8
    assert 3 <= len(steps["Add a runtime"]) <= 8


def parts(recipe: str) -> tuple[str, str, str]:
    return recipe.partition("\n")


def test_contributing_names_files_that_exist():
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_-]+\.[a-z.]+)`", text_of(ROOT / "CONTRIBUTING.md"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("room", sorted(path.parent.name for path in ROOT.glob("*/__init__.py")))
def test_room_has_tests(room):
    assert list((ROOT / "tests" / room).glob("test_*.py"))


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
