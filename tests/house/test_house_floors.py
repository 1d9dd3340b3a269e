"""Imports between rooms go down only, relatively and module to module; torch stays in the rooms that may know it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FLOORS = {
    "errors": 0,
    "architectures": 1,
    "operators": 1,
    "runtimes": 1,
    "graphs": 2,
    "exporters": 3,
    "conformance": 4,
    "benchmarks": 4,
    "generation": 4,
    "reports": 5,
    "cli": 6,
}
ROOMS = [name for name in FLOORS if name != "errors"]
STANDALONE = ["runtimes/worker.py", "runtimes/*_adapter.py"]
"""Scripts of the worker process: started by path, and an adapter imports the runtime that it drives."""

WITHOUT_TORCH = ["operators", "runtimes", "graphs", "conformance", "benchmarks", "generation", "reports", "cli"]
"""Checking and benchmarking a bare .onnx file works where torch cannot be imported."""

ROOT = Path(__file__).resolve().parents[2]
FILES = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@dataclass(frozen=True)
class Arrow:
    """One import: the dotted module it names, from the package's root if relative, and what it takes from it."""

    line: int
    module: str
    names: tuple[str, ...]
    relative: bool


def arrows(source: str, file: Path) -> Iterator[Arrow]:
    """Every import of a file, also inside functions, and `import_module("…")` with a literal name."""
    package = file.parent.parts
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (Arrow(node.lineno, alias.name, (), False) for alias in names)
            case ast.ImportFrom(level=0, module=str(module), names=names):
                yield Arrow(node.lineno, module, tuple(alias.name for alias in names), False)
            case ast.ImportFrom(level=level, module=module, names=names):
                base = package[: len(package) - level + 1]
                dotted = ".".join([*base, *([module] if module else [])])
                yield Arrow(node.lineno, dotted, tuple(alias.name for alias in names), True)
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"), args=[first, *_]):
                if isinstance(first, ast.Constant) and not str(first.value).startswith("."):
                    yield Arrow(node.lineno, str(first.value), (), False)


def stands_alone(file: Path) -> bool:
    return any(file.match(pattern) for pattern in STANDALONE)


def is_module(dotted: str) -> bool:
    return (ROOT / dotted.replace(".", "/")).with_suffix(".py").is_file()


def violations(source: str, file: Path) -> list[str]:
    """What a file's imports break, one line each."""
    return [f"{file}:{arrow.line}: {fault}" for arrow in arrows(source, file) for fault in faults(arrow, file)]


def faults(arrow: Arrow, file: Path) -> Iterator[str]:
    here = file.parts[0].removesuffix(".py")
    top = arrow.module.partition(".")[0]
    if not arrow.relative:
        if top == "onnx_arch":
            yield f"imports {arrow.module} absolutely; rooms import one another relatively"
        if top in {"torch", "torchvision", "onnxscript"} and here in WITHOUT_TORCH and not stands_alone(file):
            yield f"imports {arrow.module}; {here} works where torch cannot be imported"
        return
    if arrow.module == "":
        if arrow.names != ("__version__",):
            yield f"imports {arrow.names} from the package's root, which stands above every room"
        return
    if top != here and FLOORS[top] >= FLOORS[here]:
        yield f"{here} (floor {FLOORS[here]}) imports {top} (floor {FLOORS[top]}); imports go down only"
    inner = [f"{arrow.module}.{name}" for name in arrow.names]
    if any(stands_alone(Path(dotted.replace(".", "/") + ".py")) for dotted in [arrow.module, *inner]):
        yield f"imports {arrow.module}, a script of the worker process"
    if top != here and not is_module(arrow.module) and not all(map(is_module, inner)):
        yield f"imports {', '.join(arrow.names)} from the room {arrow.module}; name the module"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_of_every_file_go_down_only(file):
    assert violations((ROOT / file).read_text(encoding="utf-8"), file) == []


def test_rooms_of_the_floors_are_those_that_exist():
    assert sorted(path.parent.name for path in ROOT.glob("*/__init__.py")) == sorted(ROOMS)


@pytest.mark.parametrize(
    ("file", "source", "told"),
    [
        ("operators/a.py", "from ..graphs.model import Model", "imports go down only"),
        ("operators/a.py", "from ..runtimes.session import Session", "imports go down only"),
        ("errors.py", "from .cli.main import main", "imports go down only"),
        ("conformance/a.py", "def f():\n    from ..reports.html import write", "imports go down only"),
        ("conformance/a.py", "from ..benchmarks.results import Row", "imports go down only"),
        ("runtimes/adapters/a.py", "from ...graphs.model import Model", "imports go down only"),
        ("exporters/a.py", "from onnx_arch.graphs.model import Model", "relatively"),
        ("cli/a.py", "from ..graphs import Model", "name the module"),
        ("cli/a.py", "from .. import check_model", "above every room"),
        ("benchmarks/a.py", "def f():\n    import torch.nn", "torch cannot be imported"),
        ("graphs/a.py", "from torch import nn", "torch cannot be imported"),
        ("runtimes/a.py", "import importlib\nimportlib.import_module('torch')", "torch cannot be imported"),
        ("runtimes/a.py", "from . import worker", "a script of the worker process"),
        ("benchmarks/a.py", "from ..runtimes.any_adapter import load", "a script of the worker process"),
    ],
)
def test_violations_wrong_import_is_named(file, source, told):
    assert any(told in line for line in violations(source, Path(file)))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("graphs/a.py", "from ..operators.evaluation import evaluate"),
        ("cli/a.py", "from ..graphs import model"),
        ("cli/a.py", "from .. import __version__"),
        ("graphs/a.py", "from .model import Model"),
        ("exporters/a.py", "import torch"),
        ("runtimes/any_adapter.py", "import torch"),
        ("runtimes/a.py", "import importlib\nimportlib.import_module('.worker', __package__)"),
    ],
)
def test_violations_right_import_is_accepted(file, source):
    assert violations(source, Path(file)) == []
