"""`onnx-arch conform`: judge a runtime by a suite of operators."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidArgumentError
from .options import (
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
    json_lines,
    parse_dims,
    parse_runtime_options,
    progress,
)

if TYPE_CHECKING:
    from ..conformance.conform import ConformRequest, Finish, Record
    from ..conformance.stream import Stream
    from ..conformance.suites.case import Suite
    from ..conformance.suites.finding import Choice
    from ..runtimes.session import RuntimeOptions

SuiteName = Annotated[
    str,
    typer.Option("--suite", metavar="NAME", help="onnx (or onnx:light, …), generated, or mined:DIR."),
]
Ops = Annotated[list[str] | None, typer.Option("--op", metavar="TYPE", help="Only cases of this operator; repeatable.")]
Opset = Annotated[str | None, typer.Option("--opset", metavar="A..B", help="Only cases of these opset versions.")]
Cases = Annotated[
    list[str] | None, typer.Option("--case", metavar="NAME", help="Only cases of this name; * and ? match.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of generated cases and of random inputs.")]
Examples = Annotated[int, typer.Option("--examples", min=1, metavar="N", help="Generated cases per operator.")]
Dims = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=N", help="Size of a symbolic dim of models to mine.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, metavar="N", help="Processes of the runtime; as many as cores.")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime in each of them.")]
TimeLimit = Annotated[float, typer.Option("--time-limit", min=0.1, metavar="S", help="A case that takes longer hangs.")]
Shrink = Annotated[bool, typer.Option("--shrink/--no-shrink", help="Make failing generated cases smaller.")]
Expect = Annotated[Path | None, typer.Option("--expect", metavar="FILE", help="Known failures, TOML.")]
Reproduce = Annotated[
    Path | None, typer.Option("--reproduce", metavar="DIR", help="Write a folder per failure that shows it alone.")
]
Compare = Annotated[
    tuple[Path, Path] | None,
    typer.Option("--compare", metavar="A B", help="Run nothing: tell what changed between two results files."),
]
AllRows = Annotated[bool, typer.Option("--all", help="List every operator and every case that did not pass.")]


def conform(
    runtime: Runtime = "onnxruntime",
    python: Python = None,
    provider: ProviderOption = Provider.CPU,
    optimization: OptimizationOption = Optimization.ALL,
    runtime_option: RuntimeOption = None,
    suite: SuiteName = "onnx",
    op: Ops = None,
    opset: Opset = None,
    case: Cases = None,
    seed: Seed = 0,
    examples: Examples = 25,
    dim: Dims = None,
    workers: Workers = None,
    threads: Threads = 1,
    time_limit: TimeLimit = 60.0,
    shrink: Shrink = True,
    expect: Expect = None,
    reproduce: Reproduce = None,
    json: Json = None,
    junit: Junit = None,
    html: Html = None,
    resume: Resume = None,
    compare: Compare = None,
    all_rows: AllRows = False,
    quiet: Quiet = False,
) -> ExitStatus:
    """Judge a runtime by a suite of small cases, operator by operator.

    Every case is judged by this package's float64 kernels and derived bounds. A crash or a hang costs its own case
    only. The status is 0 if nothing failed that is not known to, 1 if something did, 2 if the suite could not run. With
    --compare it is 1 if something got worse.
    """
    from ..conformance.suites.finding import Choice, parse_opsets  # noqa: PLC0415 - heavy: NumPy, ONNX
    from ..runtimes.session import RuntimeOptions  # noqa: PLC0415 - as above

    if compare is not None:
        return _compare(compare, json, all_rows, quiet)
    check_targets({"--json": json, "--junit": junit, "--html": html}, [expect])
    opsets = None if opset is None else parse_opsets(opset)
    choice = Choice(tuple(op or ()), opsets, tuple(case or ()), seed, examples, tuple(parse_dims(dim or []).items()))
    extra = parse_runtime_options(runtime_option or ())
    options = RuntimeOptions(
        runtime, python, provider.value, optimization.value, threads, time_limit_s=time_limit, extra=extra
    )
    silent = quiet or json == STANDARD_OUTPUT
    with stoppable() as stop:
        request = _request(_collect(suite, choice, silent, stop), options, expect, resume)
        request = dataclasses.replace(request, workers=workers, stop=stop, finish=_finish(shrink, reproduce, stop))
        stream = _run(request, json, silent)
    _write_views(stream, junit, html)
    if not silent:
        _show(stream, all_rows)
    if not stream.complete:
        raise KeyboardInterrupt
    return _status(stream)


def _compare(files: tuple[Path, Path], json: str | None, all_rows: bool, quiet: bool) -> ExitStatus:
    from ..conformance.comparison import compare  # noqa: PLC0415 - heavy: NumPy
    from ..conformance.stream import read_stream  # noqa: PLC0415 - as above
    from ..reports.comparison import comparison_records, print_comparison  # noqa: PLC0415 - as above

    check_targets({"--json": json}, files)
    before, after = (read_stream(file) for file in files)
    found = compare(before, after)
    if json is not None:
        with json_lines(json) as write:
            for record in comparison_records(found, before, after):
                write(record)
    if not quiet and json != STANDARD_OUTPUT:
        print_comparison(found, get_output(), limit=None if all_rows else 40)
    return ExitStatus.FAILED if found.worse else ExitStatus.OK


def _request(suite: Suite, options: RuntimeOptions, expect: Path | None, resume: Path | None) -> ConformRequest:
    from ..conformance.conform import ConformRequest  # noqa: PLC0415 - heavy: NumPy, ONNX
    from ..conformance.expectations import Expectations, read_expectations  # noqa: PLC0415 - as above
    from ..conformance.stream import resumable_rows  # noqa: PLC0415 - as above

    known = Expectations() if expect is None else read_expectations(expect)
    request = ConformRequest(suite, options, command=command_words(), expectations=known)
    if resume is None:
        return request
    return dataclasses.replace(request, earlier=lambda header: resumable_rows(resume, header))


def _collect(name: str, choice: Choice, silent: bool, stop: threading.Event) -> Suite:
    """The cases; drawing or mining many takes a while, says so, and can be interrupted."""
    from ..conformance.suites.finding import find_suite  # noqa: PLC0415 - heavy: NumPy, ONNX

    with progress(get_console(silent), "collecting") as bar:
        task = bar.add_task(name, total=None)

        def told(what: str) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            bar.update(task, description=what, advance=1)

        return find_suite(name, choice, told)


def _finish(shrink: bool, reproduce: Path | None, stop: threading.Event) -> Finish:
    from ..conformance.aftermath import Aftermath  # noqa: PLC0415 - heavy: NumPy, ONNX

    return Aftermath(shrink, reproduce, stop)


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or `kill`) sets, so that what is computed is kept; the next one interrupts."""
    stop = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(request: ConformRequest, json: str | None, silent: bool) -> Stream:
    """Judge, write JSON lines as they come, show progress; the whole stream at the end, in the order of the suite."""
    from ..conformance.conform import run_suite  # noqa: PLC0415 - heavy: NumPy, ONNX
    from ..conformance.results import Footer, Header, NodeResult  # noqa: PLC0415 - as above
    from ..conformance.stream import Stream, StreamWriter  # noqa: PLC0415 - as above

    records: list[Record] = []
    with ExitStack() as stack:
        target = sys.stdout if json == STANDARD_OUTPUT else json
        writer = stack.enter_context(StreamWriter(target)) if target is not None else None
        bar = stack.enter_context(progress(get_console(silent), "judging"))
        task = bar.add_task(request.suite.name, total=len(request.suite.cases))
        for record in run_suite(request):
            records.append(record)
            if writer is not None:
                writer.write(record)
            bar.advance(task, isinstance(record, NodeResult))
    header, *rows, footer = records
    if not isinstance(header, Header) or not isinstance(footer, Footer):
        raise InvalidArgumentError("the run ended without a header or a footer")
    order = {case.name: index for index, case in enumerate(request.suite.cases)}
    judged = sorted((row for row in rows if isinstance(row, NodeResult)), key=lambda row: order[row.node])
    return Stream(header, tuple(judged), footer, header.model)


def _write_views(stream: Stream, junit: Path | None, html: Path | None) -> None:
    from ..reports.combine import Results  # noqa: PLC0415 - keeps start-up short
    from ..reports.writing import write_report  # noqa: PLC0415 - as above

    for path, form in ((junit, "junit"), (html, "html")):
        if path is not None:
            write_report(Results((stream,), ()), path, form)


def _show(stream: Stream, all_rows: bool) -> None:
    from ..reports.conform import print_conform  # noqa: PLC0415 - draws with rich

    print_conform(stream, get_output(), everything=all_rows)


def _status(stream: Stream) -> ExitStatus:
    """Red rows, and surprises where the file of known failures is strict."""
    footer = stream.footer
    surprised = footer is not None and footer.strict
    return ExitStatus.FAILED if surprised or any(row.red for row in stream.rows) else ExitStatus.OK
