"""Fixtures of the conformance room: the command in this process, and a model for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_arch.cli.main import guarded, run

from .command_models import Command, Outcome, save_model, small_model


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str]) -> Command:
    """`onnx-arch check WORDS…` in this process: (exit status, standard output, standard error)."""

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        status = guarded(lambda: run(["check", *map(str, words)]))
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(small_model(2), tmp_path / "small.onnx")
