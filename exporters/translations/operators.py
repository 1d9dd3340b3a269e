"""ONNX operators by opset, to build graphs with; untyped, as the types of onnxscript know neither numbers nor lists."""

from __future__ import annotations

from typing import Any

from onnxscript import onnx_opset

opset18: Any = onnx_opset.opset18
opset23: Any = onnx_opset.opset23
opset24: Any = onnx_opset.opset24
