"""The wheel holds every room and nothing else, and works away from the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "build", "dist", "demo", "*.egg-info", "__pycache__", ".*_cache")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_BEHIND)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder / "source"],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def rooms() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def shipped() -> set[str]:
    """Every file of the rooms that is not a leftover, and the files of the root that belong to the package."""
    inside = [path for room in rooms() for path in (ROOT / room).rglob("*") if path.is_file()]
    kept = [path for path in inside if "__pycache__" not in path.parts]
    return {f"onnx_arch/{path.relative_to(ROOT).as_posix()}" for path in kept} | {
        "onnx_arch/__init__.py",
        "onnx_arch/errors.py",
        "onnx_arch/py.typed",
    }


def test_wheel_holds_every_file_of_every_room_and_nothing_else(contents):
    packaged = {name for name in contents if ".dist-info/" not in name}
    assert packaged == shipped()


def test_wheel_holds_licence_and_command(wheel, contents):
    (licence,) = (name for name in contents if name.endswith("licenses/LICENSE"))
    (commands,) = (name for name in contents if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        assert "onnx-arch = onnx_arch.cli.start:main" in archive.read(commands).decode()


def test_wheel_metadata_names_no_place_of_this_machine(wheel, contents):
    (metadata,) = (name for name in contents if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.11" in text
    requirements = re.findall(r"^Requires-Dist: (.*)$", text, flags=re.MULTILINE)
    assert all(Requirement(line).url is None for line in requirements)


def test_wheel_installed_elsewhere_lists_exports_and_checks(wheel, tmp_path):
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel], check=True
    )
    env = {**os.environ, "PYTHONPATH": str(target)}

    def run(code: str) -> str:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(target) in run("import onnx_arch; print(onnx_arch.__file__)")
    command = "import sys; from onnx_arch.cli.main import main; sys.argv = ['onnx-arch', *{!r}]; main()"
    assert "mlp" in run(command.format(["list"]))
    run(command.format(["export", "mlp", "--preset", "tiny", "-o", "bundles"]))
    run(command.format(["check", "bundles/mlp"]))


def test_packages_of_the_settings_are_the_rooms():
    listed = set(SETTINGS["tool"]["setuptools"]["packages"])
    inner = {
        ".".join(["onnx_arch", *path.parent.relative_to(ROOT).parts])
        for room in rooms()
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert listed == {"onnx_arch"} | inner


def pinned() -> dict[str, str]:
    """Name and version of every line of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    matches = {line: re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)", line) for line in kept}
    assert all(matches.values()), [line for line, match in matches.items() if match is None]
    return {canonicalize_name(match[1]): match[2] for match in matches.values() if match}


def declared() -> Iterator[str]:
    yield from PROJECT["dependencies"]
    yield from (line for extra in PROJECT["optional-dependencies"].values() for line in extra)
    yield from SETTINGS["build-system"]["requires"]


def test_constraints_pin_torch_without_a_local_version():
    assert pinned()["torch"] == "2.13.0"


def test_constraints_pin_every_declared_requirement_within_its_bounds():
    versions = pinned()
    for requirement in map(Requirement, declared()):
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), str(requirement)


def test_constraints_pin_everything_that_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze", "--exclude-editable", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        text=True,
    )
    here = dict(line.split("==") for line in done.stdout.splitlines())
    names = {canonicalize_name(name): version.partition("+")[0] for name, version in here.items()}
    for own in ("pip", PROJECT["name"]):
        names.pop(own, None)
    assert names.items() <= pinned().items()


def test_torch_is_no_requirement_of_checking():
    plain = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert plain & {"torch", "onnxscript", "pytest", "scikit-learn", "ruff"} == set()
