"""Small models, adapters and interpreters for the tests of runtimes."""

from __future__ import annotations

import os
import sys
import textwrap
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

SaveModel = Callable[..., Path]
WriteAdapter = Callable[..., str]


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """Saves a model of the given nodes: `save_model(nodes, inputs, outputs, opset=…, ir=…, name=…)`.

    Inputs and outputs are value infos, or "name" for a float32 tensor of unknown shape.
    """

    def save(
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto | str] = ("x",),
        outputs: Sequence[onnx.ValueInfoProto | str] = ("y",),
        *,
        opset: int = 18,
        ir: int = 8,
    ) -> Path:
        graph = helper.make_graph(list(nodes), "graph", _infos(inputs), _infos(outputs))
        path = tmp_path / f"model_{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir), path)
        return path

    return save


def _infos(given: Sequence[onnx.ValueInfoProto | str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(v, TensorProto.FLOAT, None) if isinstance(v, str) else v for v in given]


@pytest.fixture
def relu(save_model: SaveModel) -> Path:
    """y = max(x, 0), float32 of any shape."""
    return save_model([helper.make_node("Relu", ["x"], ["y"], name="the_relu")], opset=13, ir=7)


@pytest.fixture
def write_adapter(tmp_path: Path) -> WriteAdapter:
    """Writes an adapter whose session has `run` with the given body (`feeds` in, `outputs` names), after `head`."""

    def write(body: str, head: str = "") -> str:
        path = tmp_path / "my_adapter.py"
        text = textwrap.dedent(head) + textwrap.dedent("""
            import os, sys, time
            import numpy as np

            def load(model_path, options):
                return Mine(options)

            class Mine:
                def __init__(self, options):
                    self.options = options

                def info(self):
                    return {"versions": {"mine": "7"}, "output_names": ["y"], "input_names": ["x"], "remark": "own"}

                def run(self, feeds, outputs):
            """)
        path.write_text(text + textwrap.indent(textwrap.dedent(body), " " * 8), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def is_gone() -> Callable[[int], bool]:
    """Waits up to ten seconds for a process to end, and says whether it has."""

    def wait(process_id: int) -> bool:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            time.sleep(0.05)
        return False

    return wait


@pytest.fixture(scope="session")
def make_interpreter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes a virtual environment that sees only the named folders of this one's packages, and gives its Python."""

    def make(*packages: str) -> str:
        folder = tmp_path_factory.mktemp("interpreter")
        venv.create(folder / "venv", with_pip=False, symlinks=os.name != "nt")
        seen = folder / "seen"
        seen.mkdir()
        installed = Path(np.__file__).parents[1]
        for package in packages:
            for entry in installed.glob(f"{package}*"):
                (seen / entry.name).symlink_to(entry)
        python = folder / "venv" / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = folder / "venv" / "lib" / version / "site-packages"
        (site / "seen.pth").write_text(str(seen), encoding="utf-8")
        return str(python)

    return make
