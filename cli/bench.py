"""`onnx-arch bench`: how fast a model is, alone or against another runtime."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExportError, UnknownEntryError
from .options import (
    LARGEST_SEED,
    Dims,
    Html,
    Json,
    Optimization,
    OptimizationOption,
    Provider,
    ProviderOption,
    Python,
    Quiet,
    Runtime,
    RuntimeOption,
)
from .terminal import (
    STANDARD_OUTPUT,
    ExitStatus,
    check_targets,
    command_words,
    get_console,
    get_output,
    json_lines,
    parse_dims,
    parse_runtime_options,
    progress,
)

if TYPE_CHECKING:
    from ..benchmarks.engine import Job
    from ..benchmarks.results import BenchFooter, BenchHeader, BenchmarkResult, BenchRow
    from ..benchmarks.sampling import Pace

PUBLISHED = "published"


Models = Annotated[
    list[str], typer.Argument(metavar="MODEL…", help=".onnx files, bundles, or names of architectures to export first.")
]
Against = Annotated[
    str | None,
    typer.Option("--against", metavar="torch|RUNTIME[:PYTHON]", help="Measure this beside it, block by block in turn."),
]
Batches = Annotated[list[int] | None, typer.Option("--batch", metavar="N", help="Items per run; repeat for several.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of both sides; else the usable cores.")]
Duration = Annotated[float, typer.Option("--duration", min=0.0, help="Measured seconds per row, warm-up aside.")]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=LARGEST_SEED, help="Of random inputs, and of an exported architecture's parameters."
    ),
]
Preset = Annotated[str, typer.Option("--preset", help="Size of architectures that are given by name.")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Checkpoint that the bundle was exported from, for --against torch.")
]


def bench(
    models: Models,
    *,
    against: Against = None,
    runtime: Runtime = "onnxruntime",
    python: Python = None,
    provider: ProviderOption = Provider.CPU,
    optimization: OptimizationOption = Optimization.ALL,
    runtime_option: RuntimeOption = None,
    batch: Batches = None,
    dim: Dims = None,
    threads: Threads = None,
    duration: Duration = 10.0,
    seed: Seed = 0,
    preset: Preset = PUBLISHED,
    weights: Weights = None,
    json: Json = None,
    html: Html = None,
    quiet: Quiet = False,
) -> ExitStatus:
    """Measure models: median, p95, cold start, time per operator, and the ratio to another side with its interval."""
    from ..benchmarks.planning import Request, plan  # noqa: PLC0415 - keeps `--help` free of NumPy and ONNX
    from ..benchmarks.sampling import Pace  # noqa: PLC0415 - as above
    from ..runtimes.session import RuntimeOptions  # noqa: PLC0415 - as above

    options = RuntimeOptions(
        runtime=runtime,
        python=python,
        provider=provider.value,
        optimization=optimization.value,
        threads=threads,
        extra=parse_runtime_options(runtime_option or ()),
    )
    request = Request(options, against, tuple(batch or ()), parse_dims(dim or ()), seed, weights)
    with ExitStack() as temporary:
        paths = [path for word in models for path in find_models(word, preset, seed, temporary)]
        check_targets({"--json": json, "--html": html}, [weights, *map(_file, paths)])
        jobs = [job for path in paths for job in plan(path, request)]
        return _measure(jobs, Pace(duration_s=duration), json, html, quiet)


def find_models(word: str, preset: str, seed: int, temporary: ExitStack) -> list[Path]:
    """The models that a word names: a file, a bundle, or an architecture, exported into a folder of `temporary`.

    Raises:
        UnknownEntryError: none of these.
    """
    from ..architectures.registry import listings  # noqa: PLC0415 - only where models are looked for
    from ..graphs.loading import models_in  # noqa: PLC0415 - as above

    path = Path(word)
    if path.exists():
        return models_in(path)
    if word in listings():
        folder = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="onnx-arch-")))
        return models_in(export_to(folder, word, preset, seed))
    if path.suffix or len(path.parts) > 1:
        return [path]  # loading says what is wrong with it
    raise UnknownEntryError(f"{word}: no such file, and no such architecture; there are {', '.join(listings())}")


def _file(path: Path) -> Path:
    return path / "model.onnx" if path.is_dir() else path


def export_to(folder: Path, name: str, preset: str, seed: int) -> Path:
    """Export an architecture; returns its bundle.

    Raises:
        ExportError: the export is wrong.
    """
    from ..exporters.export import export_architecture  # noqa: PLC0415 - imports torch

    bundle = export_architecture(name, folder, preset=preset, seed=seed)
    if not bundle.written:
        raise ExportError(f"{name}: the exported graph does not compute what the module does: see onnx-arch export")
    return bundle.path


def _measure(jobs: Sequence[Job], pace: Pace, json: str | None, html: Path | None, quiet: bool) -> ExitStatus:
    from ..benchmarks.engine import measure_all  # noqa: PLC0415 - as above
    from ..benchmarks.results import BenchFooter, BenchOutcome, count_outcomes, worst_outcome  # noqa: PLC0415

    begin = time.monotonic()
    head = _header(jobs, pace)
    rows: list[BenchmarkResult] = []
    with _stream(json) as write, _told(jobs, quiet) as tell:
        write(head)
        for row in measure_all(jobs, pace, tell=tell):
            rows.append(row)
            write(row)
        stopped = any(row.outcome is BenchOutcome.INTERRUPTED for row in rows)
        foot = BenchFooter(count_outcomes(rows), time.monotonic() - begin, complete=not stopped)
        write(foot)
    _show(rows, quiet or json == STANDARD_OUTPUT)
    if html is not None:
        _write_page(html, head, rows, foot)
    if stopped:
        raise KeyboardInterrupt
    measured = all(worst_outcome(row) is BenchOutcome.MEASURED for row in rows)
    return ExitStatus.OK if measured else ExitStatus.FAILED


def _header(jobs: Sequence[Job], pace: Pace) -> BenchHeader:
    from ..benchmarks.engine import describe_method  # noqa: PLC0415 - as above
    from ..benchmarks.machine import describe  # noqa: PLC0415 - as above
    from ..benchmarks.results import BenchHeader  # noqa: PLC0415 - as above

    return BenchHeader(command_words(), describe(), describe_method(pace), rows=len(jobs))


@contextmanager
def _stream(file: str | None) -> Iterator[Callable[[BenchRow], None]]:
    """Where rows are written as they come; nowhere without `--json`."""
    from ..benchmarks.results import to_fields  # noqa: PLC0415 - as above

    if file is None:
        yield lambda _row: None
        return
    with json_lines(file) as write:
        yield lambda row: write(to_fields(row))


@contextmanager
def _told(jobs: Sequence[Job], quiet: bool) -> Iterator[Callable[[Job, str], None]]:
    """What is being done, on the terminal, as it goes on."""
    with progress(get_console(quiet), "bench") as bar:
        task = bar.add_task("", total=len(jobs))

        def tell(job: Job, doing: str) -> None:
            batch = "" if job.batch is None else f", batch {job.batch}"
            bar.update(task, description=f"{job.model}{batch}: {doing}", completed=jobs.index(job))

        yield tell


def _show(rows: Sequence[BenchmarkResult], quiet: bool) -> None:
    if quiet:
        return
    from .bench_table import print_benchmarks  # noqa: PLC0415 - draws with rich

    print_benchmarks(rows, get_output())


def _write_page(file: Path, head: BenchHeader, rows: Sequence[BenchmarkResult], foot: BenchFooter) -> None:
    from ..reports.combine import BenchStream, Results  # noqa: PLC0415 - only where a page is made
    from ..reports.writing import render, write_whole  # noqa: PLC0415 - as above

    write_whole(str(file), render(Results(benchmarks=(BenchStream(head, tuple(rows), foot, "bench"),)), "html"))
