"""What importing costs: nothing torch where torch is not needed, nothing heavy to parse a command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_TORCH = ["operators", "runtimes", "graphs", "conformance", "benchmarks", "reports", "cli"]
HEAVY = ["torch", "onnx", "onnxruntime", "onnxscript", "scipy", "sklearn", "PIL", "jinja2"]

NO_TORCH = '''
import sys

class NoTorch:
    """Makes importing torch fail, as where it is not installed, and loudly: no `except ImportError` gets past it."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "onnxscript"}:
            raise RuntimeError(f"{name} was imported where it cannot be")
        return None

sys.meta_path.insert(0, NoTorch())
'''


def modules(rooms: list[str]) -> list[str]:
    """Every module of the rooms but the scripts of the worker process, which are started by path."""
    files = [path.relative_to(ROOT) for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    inside = [file for file in files if file.stem != "worker" and not file.stem.endswith("_adapter")]
    return [".".join(["onnx_arch", *file.with_suffix("").parts]).removesuffix(".__init__") for file in inside]


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_rooms_without_torch_are_imported_whole_where_torch_cannot_be():
    names = modules(WITHOUT_TORCH)
    imports = "".join(f"import {name}\n" for name in names)
    done = run_python(f"{NO_TORCH}\n{imports}\nprint('imported')")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported\n"
    assert len(names) > len(WITHOUT_TORCH)


def test_blocked_torch_is_noticed_where_it_is_imported():
    done = run_python(f"{NO_TORCH}\ntry:\n    import torch\nexcept ImportError:\n    pass")
    assert "torch was imported where it cannot be" in done.stderr


@pytest.mark.parametrize("name", modules(["cli"]))
def test_cli_module_imported_imports_nothing_heavy(name):
    code = f"import sys, {name}; print([heavy for heavy in {HEAVY} if heavy in sys.modules])"
    done = run_python(code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("words", ["", "--version", "--help"])
def test_overview_imports_neither_numpy_nor_anything_heavier(words):
    code = (
        f"import sys; from onnx_arch.cli.main import run; run({words.split()!r})\n"
        f"print([heavy for heavy in {['numpy', *HEAVY]} if heavy in sys.modules])"
    )
    done = run_python(code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_list_in_brief_imports_no_kernel_and_no_numpy():
    code = (
        "import sys; from onnx_arch.cli.main import run; run(['list'])\n"
        f"print([heavy for heavy in {['onnx_arch.operators.scale', 'numpy', *HEAVY]} if heavy in sys.modules])"
    )
    done = run_python(code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_check_and_bench_of_a_bare_model_work_where_torch_cannot_be_imported(tmp_path, onnx_arch):
    model = write_model(tmp_path / "bare.onnx")
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH, encoding="utf-8")
    env = {"PYTHONPATH": str(tmp_path)}
    checked = onnx_arch("check", model, env=env)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
    timed = onnx_arch("bench", model, "--duration", "0.2", "--quiet", env=env)
    assert timed.returncode == 0, timed.stderr
    refused = onnx_arch("export", "mlp", "--preset", "tiny", env=env)
    assert refused.returncode == 2


def write_model(path: Path) -> Path:
    """A MatMul, an Add and a Relu, with weights."""
    import numpy as np  # noqa: PLC0415 - this file's collection stays light
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((8, 4)).astype(np.float32), "w")
    b = numpy_helper.from_array(rng.standard_normal(4).astype(np.float32), "b")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    graph = helper.make_graph(nodes, "bare", [x], [y], [w, b])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
