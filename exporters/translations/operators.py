"""ONNX's operators by opset, to build graphs with; untyped, as onnxscript's own types know neither numbers nor lists."""

from __future__ import annotations

from typing import Any

from onnxscript import onnx_opset

opset18: Any = onnx_opset.opset18
opset23: Any = onnx_opset.opset23
opset24: Any = onnx_opset.opset24
