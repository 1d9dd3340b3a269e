"""Adapters by name, and the description of the environment."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from onnx_arch.errors import DuplicateEntryError, UnknownEntryError
from onnx_arch.runtimes import environment, registry


def test_built_in_adapters_are_listed_with_their_versions() -> None:
    listed = {entry.name: entry for entry in registry.listings()}
    assert {"onnxruntime", "onnx-reference"} <= set(listed)
    assert listed["onnx-reference"].version == importlib.metadata.version("onnx")
    assert all(entry.script.is_file() and entry.title for entry in listed.values())


def test_version_of_a_runtime_that_is_not_installed_is_none() -> None:
    assert registry.AdapterEntry("none", Path("none.py"), "", ("no-such-distribution-anywhere",)).version is None


def test_listing_imports_no_runtime() -> None:
    code = (
        "import sys; from onnx_arch.runtimes.registry import listings; [e.version for e in listings()];"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_name_taken_is_refused() -> None:
    with pytest.raises(DuplicateEntryError, match=r"'onnxruntime' is already registered with onnxruntime_adapter\.py"):
        registry.register(registry.AdapterEntry("onnxruntime", Path("other.py"), ""))


@pytest.mark.parametrize("runtime", ["onnx_runtime", "no/such/adapter.py", ""])
def test_unknown_runtime_is_refused_with_the_known_ones(runtime) -> None:
    with pytest.raises(UnknownEntryError, match="onnx-reference, onnxruntime"):
        registry.find_script(runtime)


def test_environment_is_json_and_says_what_it_should() -> None:
    described = environment.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["packages"]["numpy"] == importlib.metadata.version("numpy")
    assert described["python"] == platform.python_version()
    assert described["cores"] >= 1
    assert described["memory_bytes"] > 1 << 28
    assert "threads" in described["blas"]


def test_environment_names_no_machine_no_user_and_no_path() -> None:
    text = json.dumps(environment.describe())
    secrets = {platform.node(), getpass.getuser(), str(Path.home()), sys.prefix, tempfile.gettempdir()}
    assert not [secret for secret in secrets if len(secret) > 3 and re.search(rf"\b{re.escape(secret)}\b", text)]


def test_kernel_release_is_cut_after_its_numbers(monkeypatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-31-my-host")
    assert environment.kernel_version() == "6.8.0"
