"""The project's own speed, as ratios measured in one run: `python -m onnx_arch.benchmarks.speed [SECTION…]`.

Prints Markdown; `--write FILE` puts each table between the marks of its section in FILE (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CrashedError
from . import estimates
from .machine import describe

SECTIONS = {
    "startup": "Start-up of the command line",
    "vgg16": "Exact check of VGG-16",
    "export": "Export of VGG-16",
    "kernels": "Kernels of the oracle",
    "conform": "All official node tests",
}
"""Titles by name; each is measured by `measure()` in `speed_<name>.py`."""

_UNITS = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")), "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))}
_COLUMNS = ("what", "", "against", "", "ratio", "95 % interval", "must be", "")


@dataclass(frozen=True)
class SpeedRow:
    """One ratio.

    Attributes:
        what: the measured thing.
        against: what it is held against.
        blocks: its samples, one block per round.
        against_blocks: samples of the other, taken in the same rounds.
        at_most: the ratio must not be above this, or None.
        at_least: the ratio other over measured ("how many times faster") must not be below this, or None.
        unit: of the samples: "s" or "bytes".
    """

    what: str
    against: str
    blocks: Sequence[Sequence[float]]
    against_blocks: Sequence[Sequence[float]]
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "s"

    @property
    def ratios(self) -> list[float]:
        """Measured over other per round; the other way round where a speed-up is asked for."""
        sides = (self.blocks, self.against_blocks)
        return estimates.pair_ratios(*(reversed(sides) if self.at_least is not None else sides))


def interleave(subjects: Sequence[Callable[[], float]], rounds: int) -> list[list[list[float]]]:
    """Samples of each subject, one block of one sample per round, in an order that flips from round to round."""
    blocks: list[list[list[float]]] = [[] for _ in subjects]
    for turn in range(rounds):
        order = range(len(subjects)) if turn % 2 == 0 else reversed(range(len(subjects)))
        for index in order:
            blocks[index].append([subjects[index]()])
    return blocks


def run_python(script: str, *words: str) -> str:
    """Standard output of a script in a process of its own.

    Raises:
        CrashedError: it failed; says what it wrote last on standard error.
    """
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own scripts
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise CrashedError(f"a measuring script ended with status {done.returncode} and said: {said[0]}")
    return done.stdout


def table(rows: Sequence[SpeedRow]) -> str:
    """The rows in Markdown."""
    return markdown([_COLUMNS, ("---", "---:", "---", "---:", "---:", "---", "---", "---"), *map(_cells, rows)])


def markdown(lines: Iterable[Sequence[str]]) -> str:
    """The lines of a table, its columns and their alignment first, in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: SpeedRow) -> tuple[str, ...]:
    ratio = estimates.median(row.ratios)
    return (
        row.what,
        in_unit(_middle(row.blocks), row.unit),
        row.against,
        in_unit(_middle(row.against_blocks), row.unit),
        "–" if ratio is None else f"{ratio:.3g}" + (" × faster" if row.at_least is not None else ""),
        _spread(row.ratios),
        _demand(row),
        _met(row, ratio),
    )


def _spread(ratios: Sequence[float]) -> str:
    """The interval, or with few rounds all that was seen."""
    interval = estimates.ratio_interval(ratios)
    if interval is not None:
        return f"{interval[0]:.3g} to {interval[1]:.3g}"
    return f"({min(ratios):.3g} to {max(ratios):.3g} in {len(ratios)} rounds)" if ratios else "–"


def _middle(blocks: Sequence[Sequence[float]]) -> float | None:
    return estimates.median([sample for block in blocks for sample in block])


def _demand(row: SpeedRow) -> str:
    if row.at_most is not None:
        return f"≤ {row.at_most:g}"
    return "" if row.at_least is None else f"≥ {row.at_least:g} × faster"


def _met(row: SpeedRow, ratio: float | None) -> str:
    if ratio is None or (row.at_most is None and row.at_least is None):
        return ""
    met = ratio <= row.at_most if row.at_most is not None else ratio >= (row.at_least or 0.0)
    return "yes" if met else "**no**"


def in_unit(value: float | None, unit: str) -> str:
    """ "12.3 ms": three digits in the unit that leaves one to three before the point."""
    if value is None:
        return "–"
    scale, name = next((pair for pair in _UNITS[unit] if abs(value) >= pair[0]), _UNITS[unit][-1])
    return f"{value / scale:.3g} {name}"


def environment() -> str:
    """One line: machine and versions."""
    machine = describe()
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    load = "" if machine["load_1min"] is None else f", load {machine['load_1min']} before"
    hardware = f"{machine['cpu']}, {machine['physical_cores']} cores{load}"
    return f"{hardware}; {machine['system']}; Python {machine['python']}, {machine['blas']}, {versions}."


def section(name: str) -> str:
    """Measure one section and say it in Markdown: machine, table, notes."""
    module = importlib.import_module(f".speed_{name}", __package__)
    where = environment()
    rows, notes = module.measure()
    return "\n\n".join(part for part in (where, table(rows), notes) if part)


def replace_section(text: str, name: str, content: str) -> str:
    """`text` with `content` between the marks `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        ValueError: the marks are not there.
    """
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"no marks <!-- {name} --> … <!-- /{name} -->")
    return marks.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def main(words: Sequence[str] | None = None) -> None:
    """Measure the sections named, or all."""
    parser = argparse.ArgumentParser(prog="python -m onnx_arch.benchmarks.speed", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all without")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks in FILE")
    asked = parser.parse_args(words)
    unknown = [name for name in asked.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    for name in asked.sections or SECTIONS:
        content = section(name)
        sys.stdout.write(f"## {SECTIONS[name]}\n\n{content}\n\n")
        sys.stdout.flush()
        if asked.write is not None:
            written = replace_section(asked.write.read_text(encoding="utf-8"), name, content)
            asked.write.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
