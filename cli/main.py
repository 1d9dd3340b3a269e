"""The command frame: finds the command, runs it, and turns whatever happens into one line and an exit status.

A command is a plain typed function in its own module (`cli/check.py` holds `check`), with Typer annotations and an
`ExitStatus` as its result. Only the module of the command that was named is imported, so `--help` and `--version` cost
neither NumPy nor ONNX nor a runtime. This is the only place that catches.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import OnnxArchError
from .terminal import ExitStatus

DEBUG_VARIABLE = "ONNX_ARCH_DEBUG"


@dataclass(frozen=True)
class CommandEntry:
    """Where a command lives and what the overview says of it, known without importing it.

    Attributes:
        module: module of this package that holds it.
        function: its name there.
        summary: its line in `onnx-arch --help`.
    """

    module: str
    function: str
    summary: str


COMMANDS: dict[str, CommandEntry] = {
    "list": CommandEntry("list", "list_entries", "Show the architectures, operators and runtimes there are."),
    "export": CommandEntry("export", "export", "Build a network, translate it to ONNX and prove the translation."),
    "reload": CommandEntry("reload", "reload", "Put another checkpoint into a bundle, and prove it."),
    "check": CommandEntry("check", "check", "Judge every operator of an .onnx file in a runtime."),
    "conform": CommandEntry("conform", "conform", "Judge a runtime by a suite of operators."),
    "generate": CommandEntry("generate", "generate", "Generate words or pictures, step by step."),
    "visualise": CommandEntry("visualise", "visualise", "Show what the features of a network see in a photograph."),
    "bench": CommandEntry("bench", "bench", "Measure a model's speed, and compare it."),
    "report": CommandEntry("report", "report", "Turn results into one HTML page."),
}

EPILOG = "Exit status: 0 all judged and green; 1 something failed; 2 could not run."


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"onnx-arch {__version__}")
        raise typer.Exit(ExitStatus.OK)


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")]


def _overview(version: Version = False) -> None:
    """Build, export, check operator by operator and benchmark neural networks in ONNX."""


def _placeholder() -> None:
    """Stands in the overview for a command that was not named and is therefore not imported."""


def load(entry: CommandEntry) -> Callable[..., Any]:
    """Import the module of a command and return its function."""
    return getattr(importlib.import_module(f".{entry.module}", __package__), entry.function)


def build_app(named: str | None) -> typer.Typer:
    """The command line with the command `named` imported, and the others by their summaries only."""
    app = typer.Typer(add_completion=False, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
    app.callback()(_overview)
    for name, entry in COMMANDS.items():
        function = load(entry) if name == named else _placeholder
        app.command(name, short_help=entry.summary)(function)
    return app


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command line; what goes wrong is raised.

    Args:
        arguments: the words after `onnx-arch`; none shows the overview.

    Returns:
        The exit status: the command's own result, or that of `typer.Exit`.
    """
    named = next((word for word in arguments if not word.startswith("-")), None)
    command = typer.main.get_command(build_app(named))
    try:
        with command.make_context("onnx-arch", list(arguments) or ["--help"]) as context:
            return int(command.invoke(context) or ExitStatus.OK)
    except typer.Exit as asked:
        return asked.exit_code if arguments else ExitStatus.COULD_NOT_RUN


def main() -> None:
    """Entry point of `onnx-arch`: exits 0, 1 or 2 and never shows a traceback unless ONNX_ARCH_DEBUG is set."""
    _open_what_is_closed()
    _end_in_order()
    if not sys.warnoptions and not os.environ.get(DEBUG_VARIABLE):
        warnings.simplefilter("ignore")  # libraries warn their programmers; what concerns the user is a result
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    sys.exit(guarded(lambda: run(sys.argv[1:])))


def _open_what_is_closed() -> None:
    """Put the null device where standard output or error is closed: the next file opened would take its place."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as we run


def _end_in_order() -> None:
    """Let what ends a job (`kill`, a closed terminal) end it as Ctrl-C does: processes ended, folders removed."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def guarded(work: Callable[[], int]) -> int:
    """Run `work`; report whatever it raises as one line on standard error.

    Returns:
        What `work` returns; `COULD_NOT_RUN` if it raises.
    """
    try:
        status = work()
        sys.stdout.flush()
    except BrokenPipeError:
        status = ExitStatus.COULD_NOT_RUN
    except KeyboardInterrupt as error:
        status = _refuse("interrupted; what was computed is kept", error)
    except BaseException as error:  # noqa: BLE001 - the one place that catches: every failure becomes one line
        silent = isinstance(error.__context__, BrokenPipeError) and isinstance(error, SystemExit)  # rich ends so
        status = ExitStatus.COULD_NOT_RUN if silent else _refuse(f"error: {describe(error)}", error)
    _settle_output()
    return status


def describe(error: BaseException) -> str:
    """What one line says of an exception: the message of deliberate errors, a cause and a way on for the others."""
    match error:
        case OnnxArchError():
            return str(error)
        case typer.TyperException():
            return error.format_message() + _where_help_is(error)
        case MemoryError():
            return f"out of memory: {error}" if str(error) else "out of memory"
        case ModuleNotFoundError(name="torch" | "onnxscript" as missing):
            return f"{missing} is not installed here: pip install 'onnx-arch[torch]'"
        case OSError(strerror=str(reason)):
            return _with_place(reason, error)
        case _:
            return f"unexpected {type(error).__name__}: {error} (set {DEBUG_VARIABLE}=1 for the traceback)"


def _with_place(reason: str, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        reason = "no space left on device"
    return f"{reason}: {error.filename or 'while reading or writing'}"


def _where_help_is(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return "" if context is None else f" (see `{context.command_path} --help`)"


def _refuse(text: str, error: BaseException) -> ExitStatus:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    line = " ".join(part.strip() for part in text.splitlines())
    print(f"onnx-arch: {line}", file=sys.stderr)
    return ExitStatus.COULD_NOT_RUN


def _settle_output() -> None:
    """Leave nothing for the interpreter's own last flush, which would complain of a closed pipe or a full disk."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
