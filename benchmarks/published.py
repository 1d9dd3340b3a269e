"""Every architecture at its published size: exported, each operator judged, timed against PyTorch.

`python -m onnx_arch.benchmarks.published [NAME…]` runs the commands that a user would, each in its own process, and
keeps their results in `--results DIR`: what is there is not done again. Prints Markdown of all that DIR holds;
`--write FILE` puts it between the marks in FILE (docs/published.md). A bundle takes up to 6 GB of disk until then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ..architectures.registry import listings
from ..errors import CrashedError
from .speed import in_unit, markdown, replace_section

LEVELS = ("disabled", "all")
TOO_LARGE = ("dalle",)
"""Not run unless named: one of its graphs has 49 GB of weights."""

LENGTHS = {
    "attention": {"target_sequence": 128, "source_sequence": 128},
    "bert": {"sequence": 128},
    "gpt2": {"sequence": 128, "past": 0},
    "latent-diffusion": {"sequence": 77},
    "stable-diffusion": {"sequence": 77},
    "t5": {"sequence": 128, "encoder_sequence": 128, "past": 0},
    "transformer": {"sequence": 128, "encoder_sequence": 128, "past": 0},
}
"""What is timed where a length is free: a whole text of 128 tokens, or a prompt as CLIP pads it."""

_RUN = "from onnx_arch.cli.main import main; main()"
_EXPORTED = ("architecture", "parameters", "model files", "peak memory of the export with its proof")
_CHECKED = ("graph", "optimisation", "nodes and outputs", "judged", "outcomes", "memory: oracle", "memory: runtime")
_TIMED = ("graph", "sizes", "ONNX Runtime, median", "p95", "PyTorch eager, median", "time ratio", "95 % interval")


@dataclass(frozen=True)
class Folder:
    """What is known of one architecture: the files of each command, and the bundle until all are done."""

    name: str
    results: Path

    @property
    def bundle(self) -> Path:
        return self.results / "bundles" / self.name

    def file(self, ending: str) -> Path:
        return self.results / f"{self.name}.{ending}"

    @property
    def complete(self) -> bool:
        return self.file("json").is_file() and self.file("bench.jsonl").is_file()


def run(*words: object) -> int:
    """One command of this package, its own output on standard error; the largest resident size of its process.

    Raises:
        CrashedError: it could not do what it was asked; a finding (status 1) is a result.
    """
    process = subprocess.Popen([sys.executable, "-c", _RUN, *map(str, words)], stdout=sys.stderr)  # noqa: S603 - ours
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise CrashedError(f"onnx-arch {' '.join(map(str, words))} ended with status {process.returncode}")
    return usage.ru_maxrss * 1024


def measure(at: Folder, timed: bool = True) -> None:
    """Export, check and time one architecture, but for what is done already.

    Args:
        at: where its results are.
        timed: False leaves the timing, and the bundle, to a later call.

    Raises:
        CrashedError: a command could not do what it was asked.
    """
    if not at.file("json").is_file():
        peak = run("export", at.name, "-o", at.bundle.parent)
        _write(at.file("json"), json.dumps(_exported(at.bundle, peak)))
    for level in LEVELS:
        if not at.file(f"{level}.jsonl").is_file():
            run("check", at.bundle, "--optimization", level, "--json", at.file(f"{level}.jsonl"), "--time-limit", 1200)
    if timed:
        manifest = json.loads((at.bundle / "manifest.json").read_text(encoding="utf-8"))
        lines = "".join(_time(at, graph) for graph in manifest["graphs"])
        _write(at.file("bench.jsonl"), lines)
        shutil.rmtree(at.bundle)


def _exported(bundle: Path, peak: int) -> dict[str, Any]:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    files = sum(file.stat().st_size for file in bundle.rglob("model.onnx*"))
    return {"parameters": manifest["parameters"], "bytes": files, "peak_bytes": peak}


def _time(at: Folder, graph: dict[str, Any]) -> str:
    """JSON lines of `bench` of one graph, at the lengths of `LENGTHS` where it has them."""
    lengths = LENGTHS.get(at.name, {})
    own = {dim for port in graph["inputs"] for dim in port["shape"]}
    dims = [f"--dim={name}={length}" for name, length in lengths.items() if name in own]
    out = at.results / "bundles" / "bench.jsonl"
    model = (at.bundle / graph["model"]).parent
    run("bench", model, "--against", "torch", "--batch", 1, "--json", out, *dims)
    return out.read_text(encoding="utf-8")


def _write(file: Path, text: str) -> None:
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def document(folders: Sequence[Folder]) -> str:
    """The tables in Markdown, of every architecture of which all is known."""
    known = [at for at in folders if at.complete]
    return "\n\n".join(
        (
            "\n".join(f"- {place}" for place in dict.fromkeys(_place(at) for at in known)),
            _table(_EXPORTED, [_export_cells(at) for at in known]),
            _table(_CHECKED, [cells for at in known for cells in _check_rows(at)]),
            _table(_TIMED, [cells for at in known for cells in _bench_rows(at)]),
        )
    )


def _place(at: Folder) -> str:
    """Date, machine and versions of the timing."""
    header = next(_lines(at.file("bench.jsonl")))["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in header["packages"].items())
    day = date.fromtimestamp(at.file("bench.jsonl").stat().st_mtime).isoformat()
    memory = in_unit(header["memory_bytes"], "bytes")
    return f"{day}: {header['cpu']}, {header['physical_cores']} cores, {memory}; {header['system']}; {versions}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown([columns, ("---", *("---:" for _ in columns[1:])), *rows])


def _export_cells(at: Folder) -> tuple[str, ...]:
    record = json.loads(at.file("json").read_text(encoding="utf-8"))
    sizes = (in_unit(record[field], "bytes") for field in ("bytes", "peak_bytes"))
    return (f"`{at.name}`", f"{record['parameters']:,}", *sizes)


def _check_rows(at: Folder) -> Iterator[tuple[str, ...]]:
    """A row per graph and optimisation level; one run of a file per graph."""
    for level in LEVELS:
        header: dict[str, Any] = {}
        judged = 0
        for line in _lines(at.file(f"{level}.jsonl")):
            if line["kind"] == "header":
                header, judged = line, 0
            judged += line["kind"] in ("node", "output") and line["outcome"] not in ("unjudged", "skipped")
            if line["kind"] == "footer":
                outcomes = ", ".join(f"{count:,} {what}" for what, count in line["counts"].items() if count)
                memory = [in_unit(line["peak_memory_bytes"].get(who), "bytes") for who in ("oracle", "runtime")]
                yield (f"`{header['model']}`", level, f"{header['nodes']:,}", f"{judged:,}", outcomes, *memory)


def _bench_rows(at: Folder) -> Iterator[tuple[str, ...]]:
    for row in _lines(at.file("bench.jsonl")):
        if row["kind"] == "benchmark":
            dims = ", ".join(f"{name} {size}" for name, size in row["dims"].items()) or "as declared"
            ratio, interval = row["ratio"], row["ratio_interval"]
            yield (
                f"`{row['model']}`",
                dims,
                _median(row),
                in_unit(row["p95_s"], "s"),
                _median(row["against"]),
                "–" if ratio is None else f"{ratio:.3g}",
                "–" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}",
            )


def _median(side: dict[str, Any]) -> str:
    return in_unit(side["median_s"], "s") if side["outcome"] == "measured" else side["outcome"]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def main(words: Sequence[str] | None = None) -> None:
    """Measure the architectures named, or all, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m onnx_arch.benchmarks.published", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all without, but {', '.join(TOO_LARGE)}")
    parser.add_argument(
        "--results", type=Path, default=Path("build/published"), metavar="DIR", help="where they are kept"
    )
    parser.add_argument("--untimed", action="store_true", help="leave the timing to a later, quieter moment")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks in FILE")
    asked = parser.parse_args(words)
    names = asked.names or [name for name in listings() if name not in TOO_LARGE]
    unknown = [name for name in names if name not in listings()]
    if unknown:
        parser.error(f"no architecture {unknown[0]!r}; there are {', '.join(listings())}")
    (asked.results / "bundles").mkdir(parents=True, exist_ok=True)
    for at in (Folder(name, asked.results) for name in names):
        if not at.complete:
            measure(at, timed=not asked.untimed)
    text = document([Folder(name, asked.results) for name in listings()])
    sys.stdout.write(text + "\n")
    if asked.write is not None:
        written = replace_section(asked.write.read_text(encoding="utf-8"), "published", text)
        asked.write.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
