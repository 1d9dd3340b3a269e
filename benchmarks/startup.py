"""How long a command line takes to answer, as a multiple of `python -c "import numpy"`; run by `make bench`.

The commands and the yardstick are started in turn, round by round, so that each ratio compares processes that saw the
same state of the machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .estimates import median, pair_ratios, ratio_interval

ALLOWED_RATIO = 2.0
ROUNDS = 30
YARDSTICK = ("-c", "import numpy")
_COMMAND = "import sys; from onnx_arch.cli.main import main; sys.argv = ['onnx-arch', *sys.argv[1:]]; main()"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "onnx-arch --version": ("-c", _COMMAND, "--version"),
    "onnx-arch --help": ("-c", _COMMAND, "--help"),
    "onnx-arch list": ("-c", _COMMAND, "list"),
}


@dataclass(frozen=True)
class Startup:
    """Start-up times of one command line.

    Attributes:
        name: as a user types it.
        samples_s: seconds from start to end of each process.
        yardstick_s: the same of the yardstick, of the same rounds.
    """

    name: str
    samples_s: tuple[float, ...]
    yardstick_s: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Command over yardstick, one per round."""
        return pair_ratios([[sample] for sample in self.samples_s], [[sample] for sample in self.yardstick_s])


def time_process(words: Sequence[str]) -> float:
    """Seconds from start to end of a Python process.

    Raises:
        subprocess.CalledProcessError: it failed, and its time says nothing.
    """
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603 - this interpreter
    return time.perf_counter() - begin


def measure(commands: Mapping[str, Sequence[str]] = COMMANDS, rounds: int = ROUNDS) -> list[Startup]:
    """Time every command and the yardstick `rounds` times in turn, after one round that is thrown away."""
    lines = [*commands.values(), YARDSTICK]
    table = [[time_process(words) for words in lines] for _ in range(rounds + 1)][1:]
    *columns, yardstick = zip(*table, strict=True)
    return [Startup(name, samples, yardstick) for name, samples in zip(commands, columns, strict=True)]


def table(results: Sequence[Startup]) -> str:
    """A Markdown table: median seconds, and the ratio to the yardstick with its 95 % interval."""
    lines = [
        f'| command | median | of `python -c "import numpy"` ({_milliseconds(results[0].yardstick_s)}) | must reach |',
        "|---|---|---|---|",
    ]
    return "\n".join(lines + [_row(result) for result in results])


def _row(result: Startup) -> str:
    interval = ratio_interval(result.ratios)
    spread = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    ratio = f"{median(result.ratios):.2f} x{spread}"
    return f"| `{result.name}` | {_milliseconds(result.samples_s)} | {ratio} | {ALLOWED_RATIO:g} x |"


def _milliseconds(samples: Sequence[float]) -> str:
    return f"{(median(samples) or 0) * 1e3:.0f} ms"


if __name__ == "__main__":
    print(table(measure()))  # noqa: T201 - a script of `make bench`
