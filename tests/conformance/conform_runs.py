"""What tests of `onnx-arch conform` share: the command in this process, and the rows that it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from onnx_arch.cli.main import guarded, run
from onnx_arch.conformance.results import NodeResult
from onnx_arch.conformance.stream import read_stream

from .command_models import Outcome

NODE_BY_NODE = str(Path(__file__).parents[1] / "faulty" / "node_by_node.py")

Conform = Callable[..., Outcome]


def conform_command(capfd: pytest.CaptureFixture[str]) -> Conform:
    """`onnx-arch conform WORDS…` in this process: (exit status, standard output, standard error)."""

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        status = guarded(lambda: run(["conform", *map(str, words)]))
        out, err = capfd.readouterr()
        return status, out, err

    return call


def rows_of(file: Path) -> Mapping[str, NodeResult]:
    """The rows of a results file by name of the case."""
    return {row.node: row for row in read_stream(file).rows}
