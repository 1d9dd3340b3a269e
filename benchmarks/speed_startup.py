"""Start-up: the command line's `--help` and `list` against a Python that only imports NumPy."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from .speed import SpeedRow, interleave

ROUNDS = 21
LIMIT = 2.0
COMMAND = "import sys; from onnx_arch.cli.main import main; sys.argv[0] = 'onnx-arch'; main()"


def measure() -> tuple[list[SpeedRow], str]:
    """Process start to exit, everything in the page cache."""
    numpy = _starting(["-c", "import numpy"])
    commands = {
        "`onnx-arch --help`": _starting(["-c", COMMAND, "--help"]),
        "`onnx-arch list`": _starting(["-c", COMMAND, "list"]),
    }
    interleave([numpy, *commands.values()], 1)
    against, *blocks = interleave([numpy, *commands.values()], ROUNDS)
    rows = [
        SpeedRow(what, '`python -c "import numpy"`', block, against, at_most=LIMIT)
        for what, block in zip(commands, blocks, strict=True)
    ]
    return rows, f"{ROUNDS} starts of each, in turn; whole processes, from start to exit."


def _starting(words: Sequence[str]) -> Callable[[], float]:
    """Seconds that one run of the interpreter takes."""

    def run() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - our own words
        return time.perf_counter() - begin

    return run
