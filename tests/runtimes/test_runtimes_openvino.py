"""The OpenVINO adapter: on a stand-in for its Python API everywhere, on OpenVINO itself where it is installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_arch.errors import UnsupportedByRuntimeError
from onnx_arch.runtimes.process import open_session
from onnx_arch.runtimes.registry import find_script
from onnx_arch.runtimes.session import RuntimeOptions

PYTHON = os.environ.get("ONNX_ARCH_OPENVINO_PYTHON") or (
    sys.executable if importlib.util.find_spec("openvino") is not None else ""
)
installed = pytest.mark.skipif(
    not PYTHON, reason="OpenVINO is not installed: pip install '.[openvino]', or set ONNX_ARCH_OPENVINO_PYTHON"
)
F32 = {"config": {"INFERENCE_PRECISION_HINT": "f32"}}


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The adapter's file over a module that only has a name."""
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    spec = importlib.util.spec_from_file_location("openvino_adapter_under_test", find_script("openvino"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_paired_known_names_are_kept_and_renamed_inputs_follow_in_order(adapter: ModuleType) -> None:
    assert adapter.paired(["a", "b", "c"], {"y": 0, "b": 1, "z": 2}) == {"a": 0, "b": 1, "c": 2}


def test_paired_another_number_of_inputs_is_refused(adapter: ModuleType) -> None:
    with pytest.raises(ValueError, match="do not go with"):
        adapter.paired(["a", "b"], {"a": 0})


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("No conversion rule found for operations: Det-11", NotImplementedError),
        ("CPU plug-in doesn't support Unsqueeze operation with dynamic rank", NotImplementedError),
        ("Check 'false' failed", RuntimeError),
    ],
)
def test_guarded_only_a_lack_of_support_counts_as_unsupported(
    adapter: ModuleType, words: str, kind: type[Exception]
) -> None:
    def refuse() -> None:
        raise RuntimeError(words)

    with pytest.raises(kind) as caught:
        adapter.guarded(refuse)
    assert type(caught.value) is kind


def _model(path: Path, op_type: str, dtype: int, shape: list[int], **attributes: Any) -> Path:
    node = helper.make_node(op_type, ["x"], ["y"], **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [value("x", dtype, shape)], [value("y", dtype, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def _run(path: Path, x: Any) -> tuple[dict[str, Any], Any]:
    with open_session(path, RuntimeOptions("openvino", PYTHON, threads=1, extra=F32)) as session:
        return session.run({"x": x}), session.info


@installed
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "uint8", "bool"])
def test_run_returns_the_input_of_an_identity_in_its_own_type(tmp_path: Path, dtype: str) -> None:
    x = np.asarray([[1, 0, 3]], dtype)
    path = _model(tmp_path / "m.onnx", "Identity", helper.np_dtype_to_tensor_dtype(x.dtype), [1, 3])
    outputs, info = _run(path, x)
    assert outputs["y"].dtype == x.dtype
    np.testing.assert_array_equal(outputs["y"], x)
    assert info.versions["openvino"]


@installed
def test_run_float32_is_computed_in_float32_where_asked(tmp_path: Path) -> None:
    x = np.asarray([1 + 2.0**-20, -3.0], np.float32)
    outputs, info = _run(_model(tmp_path / "m.onnx", "Abs", TensorProto.FLOAT, [2]), x)
    np.testing.assert_array_equal(outputs["y"], np.abs(x))
    assert info.extra["inference_precision"] == "f32"


@installed
def test_load_operator_without_conversion_is_unsupported(tmp_path: Path) -> None:
    path = _model(tmp_path / "m.onnx", "Det", TensorProto.FLOAT, [2, 2])
    with pytest.raises(UnsupportedByRuntimeError, match="Det"):
        _run(path, np.eye(2, dtype=np.float32))
