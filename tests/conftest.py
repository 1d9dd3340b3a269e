"""What tests of every room share: where the repository lies, and the command as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from onnx_arch.exporters.bundle import Bundle

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository, which is also the package `onnx_arch`."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def onnx_arch(tmp_path: Path) -> Run:
    """Runs `onnx-arch WORDS…` in a process of its own, in an empty folder, as a user would."""

    def run(*words: object, env: dict[str, str] | None = None, timeout_s: float = 300.0, **options: object):
        return subprocess.run(
            [sys.executable, "-c", "from onnx_arch.cli.main import main; main()", *map(str, words)],
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **(env or {})},
            **{"cwd": tmp_path, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **options},
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """The export of a language model at tiny size, with its one-file graph; made once."""
    made: dict[str, Bundle] = {}

    def bundle(name: str) -> Bundle:
        if name not in made:
            from onnx_arch.exporters.export import export_architecture  # noqa: PLC0415 - imports torch

            made[name] = export_architecture(name, tmp_path_factory.mktemp("loops"), preset="tiny", loop=True)
        return made[name]

    return bundle
