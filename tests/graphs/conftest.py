"""Fixtures of the graphs room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a proto, or bytes, to an .onnx file in a fresh folder."""

    def save(model: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
        file = tmp_path / name
        file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return file

    return save
