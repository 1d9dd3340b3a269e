"""Where text goes: results on standard output, everything said on the way on standard error."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from onnx_arch.cli.terminal import (
    ExitStatus,
    check_targets,
    command_words,
    get_console,
    get_output,
    json_lines,
    parse_runtime_options,
    print_json_line,
    progress,
)
from onnx_arch.errors import InvalidArgumentError, StreamError


def terminal(stream: io.StringIO) -> Console:
    return Console(file=stream, force_terminal=True, force_interactive=True, width=80)


def advance(console: Console) -> None:
    with progress(console, "checking {braces} [brackets]") as bar:
        task = bar.add_task("Conv_0", total=2)
        bar.advance(task)


def test_exit_status_values_are_the_contract():
    assert {status.name: status.value for status in ExitStatus} == {"OK": 0, "FAILED": 1, "COULD_NOT_RUN": 2}


def test_get_console_text_goes_to_standard_error(capsys):
    get_console().print("on the way")
    assert capsys.readouterr() == ("", "on the way\n")


def test_get_output_text_goes_to_standard_output(capsys):
    get_output().print("the result")
    assert capsys.readouterr() == ("the result\n", "")


def test_get_output_not_a_terminal_does_not_cut_lines_at_80_columns(capsys):
    get_output().print("word " * 30)
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_json_lines_on_a_full_disk_names_the_file():
    with pytest.raises(StreamError, match="cannot write /dev/full: No space left"), json_lines("/dev/full") as write:
        write({"row": 1})


def test_check_targets_one_file_twice_is_refused_and_devices_are_shared(tmp_path):
    check_targets({"--json": "-", "--junit": "/dev/null", "--html": "/dev/null"})
    check_targets({"--json": tmp_path / "a", "--html": tmp_path / "b", "--junit": None})
    with pytest.raises(InvalidArgumentError, match="--html and --json name the same file"):
        check_targets({"--json": tmp_path / "a", "--html": tmp_path / "x" / ".." / "a"})


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("gone/a.html", "cannot write .*gone/a.html: there is no folder .*gone"),
        (".", "cannot write .*: it is a folder"),
        ("", "cannot write : it is a folder"),
        ("shut/a.html", "cannot write .*a.html: nothing can be written into .*shut"),
    ],
)
@pytest.mark.parametrize("option", ["--json", "--junit", "--html"])
def test_check_targets_place_that_takes_no_file_is_refused_before_any_work(option, target, told, tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    monkeypatch.setattr("os.access", lambda folder, _mode: not folder.endswith("shut"))  # root may write anywhere
    with pytest.raises(StreamError, match=told):
        check_targets({option: f"{tmp_path}/{target}" if target else target})


def test_check_targets_only_json_goes_to_standard_output():
    with pytest.raises(InvalidArgumentError, match="--html -: only --json goes to standard output"):
        check_targets({"--html": "-"})


def test_check_targets_file_that_is_read_is_never_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(InvalidArgumentError, match=r"--json .*link would overwrite a file that is read"):
        check_targets({"--html": None, "--json": tmp_path / "link"}, [None, tmp_path / "model.onnx"])


def test_command_words_leave_out_the_folders_of_this_machine(monkeypatch):
    words = ["check", "/data/a.onnx", "--json=/data/b.jsonl", "x=batch,3:float32", "../net.py:make", "out/"]
    monkeypatch.setattr("sys.argv", ["/usr/bin/onnx-arch", *words])
    told = ("onnx-arch", "check", "a.onnx", "--json=b.jsonl", "x=batch,3:float32", "net.py:make", "out/")
    assert command_words() == told


@pytest.mark.parametrize("make", [get_console, get_output])
def test_console_quiet_prints_nothing(make, capsys):
    make(quiet=True).print("anything")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_shows_description_and_task(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    stream = io.StringIO()
    advance(terminal(stream))
    assert "checking {braces} [brackets] Conv_0" in stream.getvalue()


def test_progress_in_ci_draws_nothing(monkeypatch):
    monkeypatch.setenv("CI", "true")
    stream = io.StringIO()
    advance(terminal(stream))
    assert stream.getvalue() == ""


def test_progress_in_a_pipe_draws_nothing(monkeypatch, capsys):
    monkeypatch.delenv("CI", raising=False)
    advance(get_console())
    assert capsys.readouterr() == ("", "")


def test_progress_quiet_draws_nothing(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    stream = io.StringIO()
    console = terminal(stream)
    console.quiet = True
    advance(console)
    assert stream.getvalue() == ""


def test_print_json_line_writes_one_line_that_any_json_reader_takes(capsys):
    row = {"max_z": math.inf, "rms_z": 0.5, "shapes": [[1, 3], None], "deep": {"nan": math.nan}, "text": "β\n"}
    print_json_line(row)
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    read = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert read == {"max_z": "Infinity", "rms_z": 0.5, "shapes": [[1, 3], None], "deep": {"nan": "NaN"}, "text": "β\n"}


def test_runtime_options_behind_a_dot_are_the_runtime_s_own_names_and_text() -> None:
    words = ["provider_options.use_tf32=0", "session_config.session.intra_op.allow_spinning=1", "log_severity=3"]
    assert parse_runtime_options(words) == {
        "provider_options": {"use_tf32": "0"},
        "session_config": {"session.intra_op.allow_spinning": "1"},
        "log_severity": 3,
    }


@pytest.mark.parametrize("words", [["use_tf32"], ["=0"], ["config.=1"], ["config=1", "config.a=1"]])
def test_runtime_options_without_key_or_value_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="--runtime-option"):
        parse_runtime_options(words)
