"""What tests of exports share: the zoo of modules, exports made once, and an oracle that is not ours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxscript._framework_apis import torch_2_11 as onnxscript_apis

from onnx_arch.exporters.bundle import Bundle
from onnx_arch.exporters.export import export_architecture, export_module

WRITERS = ("gpt2", "t5", "transformer")
"""Architectures that append words to their output."""

ZOO = Path(__file__).resolve().with_name("zoo.py")


@pytest.fixture(scope="session", autouse=True)
def library_parsed_once():
    """torch.onnx parses the source of its 497 translations at every export, a third of the time of a small one.

    Which translations there are does not change from test to test; a test that adds its own adds them to a registry
    that is new at every export.
    """
    parse = onnxscript_apis.get_torchlib_ops
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxscript_apis, "get_torchlib_ops", functools.cache(parse))
        yield


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Callable[..., Bundle]:
    """Exports a module of the zoo; the same request is answered by the same bundle."""
    made: dict[str, Bundle] = {}

    def export(name: str, **options) -> Bundle:
        key = repr((name, sorted(options.items())))
        if key not in made:
            made[key] = export_module(f"{ZOO}:{name}", tmp_path_factory.mktemp("zoo"), **options)
        return made[key]

    return export


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, loops) -> Callable[..., Bundle]:
    """Exports an architecture at tiny size; the same request is answered by the same bundle.

    Without options, language models come with their one-file graphs.
    """
    made: dict[str, Bundle] = {}

    def export(name: str, **options) -> Bundle:
        if not options and name in WRITERS:
            return loops(name)
        key = repr((name, sorted(options.items())))
        if key not in made:
            made[key] = export_architecture(name, tmp_path_factory.mktemp("tiny"), preset="tiny", **options)
        return made[key]

    return export


@pytest.fixture(scope="session")
def read_set() -> Callable[..., tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Reads inputs and outputs of a bundle, by name, with onnx alone."""
    return _read_set


def _read_set(bundle: Bundle, folder: str = "test_data_set_0") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {"input": {}, "output": {}}
    for file in sorted((bundle.path / folder).iterdir()):
        tensor = onnx.TensorProto.FromString(file.read_bytes())
        found[file.name.partition("_")[0]][tensor.name] = numpy_helper.to_array(tensor)
    return found["input"], found["output"]
