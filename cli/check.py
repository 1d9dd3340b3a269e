"""`onnx-arch check`: judge every operator of a model in a runtime."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidArgumentError
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
    from ..conformance.stream import Stream


class Provider(enum.StrEnum):
    """Execution providers."""

    CPU = "cpu"
    CUDA = "cuda"


class Optimization(enum.StrEnum):
    """Graph optimisation levels."""

    DISABLED = "disabled"
    BASIC = "basic"
    EXTENDED = "extended"
    ALL = "all"


ModelPath = Annotated[Path, typer.Argument(metavar="MODEL|BUNDLE", help="Any .onnx file, or the folder of an export.")]
Inputs = Annotated[Path | None, typer.Option("--inputs", metavar="FILE.npz", help="Inputs, an array per name.")]
TestData = Annotated[
    Path | None, typer.Option("--test-data", metavar="DIR", help="Inputs in ONNX's own format: input_0.pb, …")
]
Image = Annotated[
    Path | None, typer.Option("--image", metavar="FILE", help="A picture, preprocessed as ImageNet models expect.")
]
Dims = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=N", help="Size of a symbolic dim for random inputs.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of random inputs.  [default: 0]")]
Runtime = Annotated[
    str, typer.Option("--runtime", help="A name of `onnx-arch list runtimes`, or the .py file of an adapter of yours.")
]
RuntimeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime-option",
        metavar="KEY=VALUE",
        help="What only this runtime knows: provider_options.use_tf32=0, config.INFERENCE_PRECISION_HINT=f32. "
        "Can be repeated.",
    ),
]
Python = Annotated[
    str | None, typer.Option("--python", metavar="INTERPRETER", help="Judge the runtime of another Python.")
]
ProviderOption = Annotated[Provider, typer.Option("--provider", help="Execution provider that must run the graph.")]
OptimizationOption = Annotated[Optimization, typer.Option("--optimization", help="Graph optimisation level.")]
Disabled = Annotated[
    list[str] | None,
    typer.Option("--disable-optimizer", metavar="NAME", help="Switch a graph optimiser off. Can be repeated."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Intra-op threads of the runtime.")]
TimeLimit = Annotated[float, typer.Option("--time-limit", min=0.1, metavar="S", help="A run that takes longer hangs.")]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="Write JSON lines; - is standard output.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained page.")]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="FILE", help="Take over what an interrupted run has judged.")
]
AllRows = Annotated[bool, typer.Option("--all", help="Show every node, not only the 20 worst.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing; the exit status tells.")]


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
    from ..conformance.check import CheckRequest  # noqa: PLC0415 - heavy: NumPy, ONNX
    from ..conformance.inputs import InputSource, load_feeds  # noqa: PLC0415 - as above
    from ..graphs.loading import load_model  # noqa: PLC0415 - as above
    from ..runtimes.session import RuntimeOptions  # noqa: PLC0415 - as above

    targets = {"--json": json, "--junit": junit, "--html": html}
    loaded = load_model(model)
    check_targets(targets, [loaded.path, *loaded.external_files, inputs, image, *_tensors(test_data)])
    bundle = model if model.is_dir() else None
    source = InputSource(inputs, test_data, image, parse_dims(dim or []), seed, bundle)
    feeds, described = load_feeds(loaded, source)
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
    request = CheckRequest(options, described, command_words(), _earlier(resume))
    stream = _run(loaded, feeds, request, json, quiet)
    _write_views(stream, junit, html)
    _show(stream, all_rows, quiet or json == STANDARD_OUTPUT)
    return _status(stream)


def _tensors(test_data: Path | None) -> Iterator[Path]:
    return iter(()) if test_data is None else test_data.rglob("*.pb")


def _earlier(resume: Path | None):
    from ..conformance.stream import resumable_rows  # noqa: PLC0415 - heavy: NumPy

    return (lambda _header: {}) if resume is None else (lambda header: resumable_rows(resume, header))


def _run(loaded, feeds, request: CheckRequest, json: str | None, quiet: bool) -> Stream:
    """Check, write JSON lines as they come, show progress; the whole stream at the end."""
    from ..conformance.check import check_model  # noqa: PLC0415 - heavy: NumPy, ONNX
    from ..conformance.results import Footer, Header, NodeResult  # noqa: PLC0415 - as above
    from ..conformance.stream import Stream, StreamWriter  # noqa: PLC0415 - as above

    console = get_console(quiet or json == STANDARD_OUTPUT)
    records: list[Record] = []
    with ExitStack() as stack:
        target = sys.stdout if json == STANDARD_OUTPUT else json
        writer = stack.enter_context(StreamWriter(target)) if target is not None else None
        bar = stack.enter_context(progress(console, "judging"))
        task = bar.add_task(loaded.path.name, total=len(loaded.graph.nodes) + len(loaded.graph.outputs))
        for record in check_model(loaded, feeds, request):
            records.append(record)
            if writer is not None:
                writer.write(record)
            bar.advance(task, isinstance(record, NodeResult))
    header, *rows, footer = records
    if not isinstance(header, Header) or not isinstance(footer, Footer):
        raise InvalidArgumentError("the check ended without a header or a footer")
    return Stream(header, tuple(_node_rows(rows)), footer, loaded.path.name)


def _node_rows(records: list[Record]) -> Iterator:
    from ..conformance.results import NodeResult  # noqa: PLC0415 - heavy: NumPy

    return (record for record in records if isinstance(record, NodeResult))


def _write_views(stream: Stream, junit: Path | None, html: Path | None) -> None:
    from ..reports.combine import Results  # noqa: PLC0415 - keeps start-up short
    from ..reports.writing import write_report  # noqa: PLC0415 - as above

    for path, form in ((junit, "junit"), (html, "html")):
        if path is not None:
            write_report(Results((stream,), ()), path, form)


def _show(stream: Stream, all_rows: bool, quiet: bool) -> None:
    from ..reports.terminal import print_check  # noqa: PLC0415 - draws with rich

    if not quiet:
        print_check(stream, get_output(), limit=None if all_rows else 20)


def _status(stream: Stream) -> ExitStatus:
    from ..conformance.results import RED  # noqa: PLC0415 - heavy: NumPy

    return ExitStatus.FAILED if any(row.outcome in RED for row in stream.rows) else ExitStatus.OK
