"""The names that others may rely on: each resolves, and none comes or goes unnoticed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import onnx_arch

PUBLIC = {
    "OnnxArchError",
    "__version__",
    "check_model",
    "evaluate",
    "export_architecture",
    "export_module",
    "load_model",
}


def test_public_names_are_pinned():
    assert set(onnx_arch.__all__) == PUBLIC
    assert set(dir(onnx_arch)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_resolves_to_the_thing_of_that_name(name):
    value = getattr(onnx_arch, name)
    assert isinstance(value, str) if name == "__version__" else value.__name__ == name


def test_public_name_unknown_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'onnx_arch' has no attribute 'frobnicate'"):
        _ = onnx_arch.frobnicate


def test_import_of_the_package_imports_no_room():
    code = "import sys, onnx_arch; print(sorted(name for name in sys.modules if name.startswith('onnx_arch')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['onnx_arch']\n"
