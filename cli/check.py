"""`onnx-arch check`: judge every operator of a model in a runtime."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidArgumentError
from .options import (
    Dims,
    Html,
    Json,
    Junit,
    Optimization,
    OptimizationOption,
    Provider,
    ProviderOption,
    Python,
    Quiet,
    Resume,
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
    parse_dims,
    parse_runtime_options,
    progress,
)

if TYPE_CHECKING:
    from ..conformance.check import CheckRequest, Record
    from ..conformance.inputs import InputSource
    from ..conformance.stream import Stream
    from ..graphs.model import Model
    from ..runtimes.session import RuntimeOptions


ModelPath = Annotated[
    Path,
    typer.Argument(metavar="MODEL|BUNDLE", help="Any .onnx file, or the folder of an export, with all its graphs."),
]
Inputs = Annotated[Path | None, typer.Option("--inputs", metavar="FILE.npz", help="Inputs, an array per name.")]
TestData = Annotated[
    Path | None, typer.Option("--test-data", metavar="DIR", help="Inputs in ONNX's own format: input_0.pb, …")
]
Image = Annotated[
    Path | None, typer.Option("--image", metavar="FILE", help="A picture, preprocessed as ImageNet models expect.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of random inputs.  [default: 0]")]
Disabled = Annotated[
    list[str] | None,
    typer.Option("--disable-optimizer", metavar="NAME", help="Switch a graph optimiser off. Can be repeated."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Intra-op threads of the runtime.")]
TimeLimit = Annotated[float, typer.Option("--time-limit", min=0.1, metavar="S", help="A run that takes longer hangs.")]
AllRows = Annotated[bool, typer.Option("--all", help="Show every node, not only the 20 worst.")]


def check(
    model: ModelPath,
    inputs: Inputs = None,
    test_data: TestData = None,
    image: Image = None,
    dim: Dims = None,
    seed: Seed = None,
    runtime: Runtime = "onnxruntime",
    python: Python = None,
    provider: ProviderOption = Provider.CPU,
    optimization: OptimizationOption = Optimization.ALL,
    disable_optimizer: Disabled = None,
    runtime_option: RuntimeOption = None,
    threads: Threads = None,
    time_limit: TimeLimit = 120.0,
    json: Json = None,
    junit: Junit = None,
    html: Html = None,
    resume: Resume = None,
    all_rows: AllRows = False,
    quiet: Quiet = False,
) -> ExitStatus:
    """Judge every operator of MODEL in a runtime against float64 kernels with derived error bounds.

    Each node is judged on the runtime's own inputs, and the model's own outputs from a session to which nothing was
    added. The status is 0 if nothing failed, 1 if something did, 2 if the check could not run; nodes that cannot be
    judged are counted and named in the last line.
    """
    from ..conformance.inputs import InputSource  # noqa: PLC0415 - heavy: NumPy, ONNX
    from ..graphs.loading import models_in  # noqa: PLC0415 - as above
    from ..runtimes.session import RuntimeOptions  # noqa: PLC0415 - as above

    models = models_in(model)
    source = InputSource(inputs, test_data, image, parse_dims(dim or []), seed)
    if len(models) > 1 and dataclasses.replace(source, seed=None) != InputSource():
        raise InvalidArgumentError(_which_graph(model, models))
    check_targets({"--json": json, "--junit": junit, "--html": html}, [inputs, image, *_tensors(test_data)])
    options = RuntimeOptions(
        runtime=runtime,
        python=python,
        provider=provider.value,
        optimization=optimization.value,
        disabled_optimizers=tuple(disable_optimizer or ()),
        threads=threads,
        time_limit_s=time_limit,
        extra=parse_runtime_options(runtime_option or ()),
    )
    silent = quiet or json == STANDARD_OUTPUT
    streams: list[Stream] = []
    with _writer(json, len(models)) as write:
        for path in models:
            job = _prepare(path, source, options, resume, len(models), (json, junit, html))
            streams.append(_run(*job, write, silent))
            _show(streams[-1], all_rows, silent, several=len(models) > 1)
    _write_views(streams, junit, html)
    return _status(streams)


def _which_graph(bundle: Path, models: Sequence[Path]) -> str:
    names = ", ".join(path.parent.name for path in models)
    first = models[0].parent
    return f"{bundle} holds {len(models)} graphs ({names}): inputs and --dim are for one of them, as in {first}"


def _prepare(
    path: Path, source: InputSource, options: RuntimeOptions, resume: Path | None, graphs: int, targets: Sequence[Any]
) -> tuple[Model, dict[str, Any], CheckRequest]:
    """A graph, its inputs, and how it is checked."""
    from ..conformance.check import CheckRequest  # noqa: PLC0415 - heavy: NumPy, ONNX
    from ..conformance.inputs import load_feeds  # noqa: PLC0415 - as above
    from ..graphs.loading import load_model  # noqa: PLC0415 - as above

    loaded = load_model(path)
    names = ("--json", "--junit", "--html")
    check_targets(dict(zip(names, targets, strict=True)), [loaded.path, *loaded.external_files])
    folder = path if path.is_dir() else loaded.path.parent if graphs > 1 else None
    feeds, described = load_feeds(loaded, dataclasses.replace(source, bundle=folder))
    return loaded, feeds, CheckRequest(options, described, command_words(), _earlier(resume, graphs))


@contextmanager
def _writer(json: str | None, runs: int) -> Iterator[Callable[[Record], None]]:
    """Where the JSON lines go, if anywhere; nothing is created before the first."""
    from ..conformance.stream import StreamWriter  # noqa: PLC0415 - heavy: NumPy

    if json is None:
        yield lambda _record: None
        return
    with StreamWriter(sys.stdout if json == STANDARD_OUTPUT else json, runs) as writer:
        yield writer.write


def _tensors(test_data: Path | None) -> Iterator[Path]:
    return iter(()) if test_data is None else test_data.rglob("*.pb")


def _earlier(resume: Path | None, graphs: int):
    from ..conformance.stream import resumable_rows  # noqa: PLC0415 - heavy: NumPy

    return (lambda _header: {}) if resume is None else (lambda header: resumable_rows(resume, header, graphs))


def _run(
    loaded: Model, feeds: dict[str, Any], request: CheckRequest, write: Callable[[Record], None], silent: bool
) -> Stream:
    """Check, write JSON lines as they come, show progress; the whole stream at the end."""
    from ..conformance.check import check_model  # noqa: PLC0415 - heavy: NumPy, ONNX
    from ..conformance.results import Footer, Header, NodeResult  # noqa: PLC0415 - as above
    from ..conformance.stream import Stream  # noqa: PLC0415 - as above

    records: list[Record] = []
    with progress(get_console(silent), "judging") as bar:
        task = bar.add_task(loaded.path.name, total=len(loaded.graph.nodes) + len(loaded.graph.outputs))
        for record in check_model(loaded, feeds, request):
            records.append(record)
            write(record)
            bar.advance(task, isinstance(record, NodeResult))
    header, *rows, footer = records
    if not isinstance(header, Header) or not isinstance(footer, Footer):
        raise InvalidArgumentError("the check ended without a header or a footer")
    return Stream(header, tuple(_node_rows(rows)), footer, header.model)


def _node_rows(records: list[Record]) -> Iterator:
    from ..conformance.results import NodeResult  # noqa: PLC0415 - heavy: NumPy

    return (record for record in records if isinstance(record, NodeResult))


def _write_views(streams: Sequence[Stream], junit: Path | None, html: Path | None) -> None:
    from ..reports.combine import Results  # noqa: PLC0415 - keeps start-up short
    from ..reports.writing import write_report  # noqa: PLC0415 - as above

    for path, form in ((junit, "junit"), (html, "html")):
        if path is not None:
            write_report(Results(tuple(streams), ()), path, form)


def _show(stream: Stream, all_rows: bool, silent: bool, several: bool) -> None:
    from ..reports.terminal import print_check  # noqa: PLC0415 - draws with rich

    if not silent:
        if several:
            get_output().print(stream.header.model, style="bold", markup=False)
        print_check(stream, get_output(), limit=None if all_rows else 20)


def _status(streams: Sequence[Stream]) -> ExitStatus:
    failed = any(row.red for stream in streams for row in stream.rows)
    return ExitStatus.FAILED if failed else ExitStatus.OK
