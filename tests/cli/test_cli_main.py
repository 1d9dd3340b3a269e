"""The command frame: exit status, one line per failure, nothing imported that was not asked for."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from onnx_arch import __version__
from onnx_arch.cli import main as frame
from onnx_arch.cli.terminal import ExitStatus
from onnx_arch.errors import InvalidModelError, OnnxArchError

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")

FAILURES = {
    "deliberate": (InvalidModelError("a.onnx is empty (0 bytes)"), "error: a.onnx is empty (0 bytes)"),
    "deliberate, many lines": (OnnxArchError("first\n  second"), "error: first second"),
    "usage": (typer.BadParameter("'x' is no integer"), "error: Invalid value: 'x' is no integer"),
    "memory": (MemoryError(), "error: out of memory"),
    "memory with a size": (MemoryError("Unable to allocate 8 GiB"), "error: out of memory: Unable to allocate 8 GiB"),
    "disk full": (NO_SPACE, "error: no space left on device: while reading or writing"),
    "disk full, named": (
        OSError(errno.ENOSPC, "No space left on device", "out/model.onnx"),
        "error: no space left on device: out/model.onnx",
    ),
    "no permission": (PermissionError(errno.EACCES, "Permission denied", "out"), "error: Permission denied: out"),
    "no torch": (
        ModuleNotFoundError("No module named 'torch'", name="torch"),
        "error: torch is not installed here: pip install 'onnx-arch[torch]'",
    ),
    "another module missing": (
        ModuleNotFoundError("No module named 'mine'", name="mine"),
        "error: unexpected ModuleNotFoundError: No module named 'mine' (set ONNX_ARCH_DEBUG=1 for the traceback)",
    ),
    "interrupted": (KeyboardInterrupt(), "interrupted; what was computed is kept"),
    "a bug": (
        ZeroDivisionError("division by zero"),
        "error: unexpected ZeroDivisionError: division by zero (set ONNX_ARCH_DEBUG=1 for the traceback)",
    ),
    "somebody's sys.exit(0)": (
        SystemExit(0),
        "error: unexpected SystemExit: 0 (set ONNX_ARCH_DEBUG=1 for the traceback)",
    ),
}


def raising(error: BaseException):
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(("error", "line"), FAILURES.values(), ids=FAILURES.keys())
def test_guarded_error_raised_becomes_one_line_and_status_2(error, line, capfd):
    assert frame.guarded(raising(error)) is ExitStatus.COULD_NOT_RUN
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"onnx-arch: {line}\n"


@pytest.mark.parametrize("status", list(ExitStatus))
def test_guarded_status_returned_is_kept(status, capfd):
    assert frame.guarded(lambda: status) == status
    assert capfd.readouterr() == ("", "")


def test_guarded_debug_variable_set_shows_the_traceback_before_the_line(monkeypatch, capfd):
    monkeypatch.setenv("ONNX_ARCH_DEBUG", "1")
    frame.guarded(raising(ZeroDivisionError("division by zero")))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("onnx-arch: error: unexpected ZeroDivisionError")


def test_version_asked_prints_name_and_version(onnx_arch):
    done = onnx_arch("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"onnx-arch {__version__}\n", "")


def test_help_asked_names_every_command_with_its_summary_and_the_exit_status(onnx_arch):
    done = onnx_arch("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, entry in frame.COMMANDS.items():
        line = next(line for line in done.stdout.splitlines() if f" {name} " in line and entry.summary in line)
        assert line
    assert "0 all judged and green; 1 something failed; 2 could not run" in done.stdout


def test_no_words_given_shows_the_overview_and_is_no_success(onnx_arch):
    done = onnx_arch()
    assert done.returncode == 2
    assert "Usage: onnx-arch" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["exprot"], "No such command 'exprot'. Did you mean 'export'"),
        (["--frobnicate"], "No such option: --frobnicate (see `onnx-arch --help`)"),
        (["list", "colours"], "colours"),
        (["list", "--frobnicate"], "No such option: --frobnicate (see `onnx-arch list --help`)"),
        (["list", "--json"], "Option '--json' requires an argument"),
        (["generate", "gpt2", "--seed", str(2**63)], "Invalid value for '--seed'"),
        (["export", "mlp", "--seed", str(2**64)], "Invalid value for '--seed'"),
        (["bench", "mlp", "--seed", "-1"], "Invalid value for '--seed'"),
    ],
    ids=[
        "unknown command",
        "unknown option",
        "unknown section",
        "unknown option of a command",
        "no argument",
        "seed of 64 bits",
        "seed of more",
        "seed below 0",
    ],
)
def test_usage_error_is_one_line_that_names_the_word_and_the_help(onnx_arch, words, told):
    done = onnx_arch(*words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("onnx-arch: error: ")
    assert told in line


def test_output_pipe_closed_by_its_reader_is_quiet(tmp_path):
    writer = "import sys; from onnx_arch.cli.main import guarded; sys.exit(guarded(lambda: print('x' * 10**6) or 0))"
    process = subprocess.Popen(
        [sys.executable, "-c", writer], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 2


def test_table_whose_reader_closes_the_pipe_is_quiet(tmp_path):
    """rich answers a closed pipe with an exit of its own."""
    draws = (
        "import sys; from onnx_arch.cli.main import guarded; from onnx_arch.cli.terminal import get_output\n"
        "sys.stdin.read(); sys.exit(guarded(lambda: get_output().print('x ' * 10**6) or 0))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", draws], cwd=tmp_path, stdin=-1, stdout=-1, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "")


@pytest.mark.skipif(os.name == "nt", reason="descriptors of Unix")
def test_output_closed_from_the_start_is_no_failure(onnx_arch):
    """`>&-`: what would be printed goes nowhere, and no file that is opened later takes its place."""
    done = onnx_arch("list", capture_output=False, preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


def test_warnings_of_libraries_stay_silent():
    warns = (
        "import sys, warnings; from onnx_arch.cli import main as frame\n"
        "frame.run = lambda _: warnings.warn('Mean of empty slice', RuntimeWarning) or 0\n"
        "frame.main()"
    )
    done = subprocess.run([sys.executable, "-c", warns], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here: a disk that is always full")
def test_output_on_a_full_disk_is_one_line_and_status_2(onnx_arch):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = onnx_arch("--version", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "onnx-arch: error: no space left on device: while reading or writing\n"


def test_output_terminal_cannot_show_a_letter_is_escaped(onnx_arch):
    done = onnx_arch("list", "architectures", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "VGG-16: convolution, max pool, \\u2026, linear" in done.stdout


def test_run_command_named_imports_only_its_own_module(onnx_arch):
    code = (
        "import sys; from onnx_arch.cli.main import COMMANDS, build_app; build_app('list')\n"
        "print(sorted(name for name in COMMANDS if f'onnx_arch.cli.{name}' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['list']"


@pytest.mark.parametrize("name", frame.COMMANDS)
def test_command_table_names_a_function_that_exists(name):
    entry = frame.COMMANDS[name]
    assert callable(frame.load(entry))


def test_interrupt_while_the_frame_is_imported_is_one_line() -> None:
    interrupted = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from onnx_arch.cli.start import main
main()
"""
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (ExitStatus.COULD_NOT_RUN, "")
    assert done.stderr == "onnx-arch: interrupted before anything was done\n"
