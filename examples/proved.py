"""What every example does with a network that it has trained: export it, ask ONNX Runtime, judge every operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.torch import save_file
from torch import nn

from onnx_arch.cli.main import run
from onnx_arch.exporters.export import export_module

LEVELS = ("disabled", "all")


def export_trained(module: nn.Module, factory: str, output: Path, dynamic: Sequence[str]) -> Path:
    """Write the weights beside the bundle and export the factory's module with them.

    Args:
        module: trained.
        factory: "path/to/file.py:factory", which builds the same module.
        output: the bundle becomes a folder in it.
        dynamic: dims that stay open, as in `onnx-arch export --dynamic`.

    Returns:
        The .onnx file, proved.
    """
    output.mkdir(parents=True, exist_ok=True)
    weights = output / f"{factory.rpartition(':')[2]}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, weights)
    bundle = export_module(factory, output, weights=weights, dynamic=dynamic)
    if bundle.is_wrong:
        raise SystemExit(f"{factory}: the export is wrong")
    return bundle.path / "model.onnx"


def answers(model: Path, inputs: np.ndarray, batch: int = 64) -> np.ndarray:
    """What ONNX Runtime gives for all inputs, some at a time."""
    session = onnxruntime.InferenceSession(model)
    (name,) = [value.name for value in session.get_inputs()]
    return np.concatenate([session.run(None, {name: part})[0] for part in parts(inputs, batch)])


def parts(inputs: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """The inputs, some at a time."""
    for start in range(0, len(inputs), batch):
        yield inputs[start : start + batch]


def checked(model: Path) -> str:
    """What `onnx-arch check` finds, without and with graph optimisations."""
    test_data = str(model.parent / "test_data_set_0")
    wrong = [
        level
        for level in LEVELS
        if run(["check", str(model), "--quiet", "--optimization", level, "--test-data", test_data])
    ]
    if wrong:
        raise SystemExit(f"{model}: onnx-arch check is not green at optimisation {', '.join(wrong)}")
    return f"every node judged and green, optimisation {' and '.join(LEVELS)}"
