"""Files in, one file out: combining streams, writing whole or not at all, the command's refusals."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from onnx_arch.conformance.json_lines import encode_line
from onnx_arch.conformance.stream import Stream
from onnx_arch.errors import InvalidArgumentError, StreamError
from onnx_arch.reports.combine import BenchStream, Results, read_file, read_results
from onnx_arch.reports.writing import format_of, render, write_report, write_whole

Write = Callable[[str, Stream | BenchStream], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writer(name: str, stream: Stream | BenchStream) -> Path:
        records = [stream.header, *stream.rows, *([] if stream.footer is None else [stream.footer])]
        path = tmp_path / name
        path.write_text("".join(encode_line(record) + "\n" for record in records))
        return path

    return writer


def command(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", "from onnx_arch.cli.main import main; main()", "report", *map(str, words)]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_files_of_both_sorts_read_back_equal_and_in_order(make: SimpleNamespace, write: Write) -> None:
    first, second, bench = make.check(make.residual_network()), make.check([make.row()], model="b.onnx"), make.bench()
    paths = [write("1.jsonl", second), write("2.jsonl", bench), write("3.jsonl", first)]
    results = read_results(paths)
    assert [(c.header, c.rows, c.footer) for c in results.checks] == [
        (c.header, c.rows, c.footer) for c in (second, first)
    ]
    (read,) = results.benchmarks
    assert (read.header, read.rows, read.footer) == (bench.header, bench.rows, bench.footer)


def test_benchmark_cut_off_in_the_middle_of_a_line_is_read_as_truncated(make: SimpleNamespace, write: Write) -> None:
    path = write("b.jsonl", make.bench([make.bench_row(), make.bench_row(batch=8)], complete=None))
    path.write_text(path.read_text()[:-9])
    (stream,) = read_file(path)
    assert isinstance(stream, BenchStream)
    assert [row.batch for row in stream.rows] == [1]
    assert not stream.complete


@pytest.mark.parametrize(
    ("line", "change", "says"),
    [
        (1, {"format_version": 2}, "format version 2"),
        (1, {"kind": "bench_footer", "counts": {}, "duration_s": 1}, "first line must be a header"),
        (2, {"kind": "bench_row"}, "bench_row"),
        (2, {"outcome": "fast"}, "fast"),
        (2, {"median_s": "quick"}, "median_s"),
        (2, {"op_types": [{"op_type": "Conv"}]}, "time_s"),
        (2, {"versions": 3}, "versions"),
        (2, {"against": {"runtime": "torch"}}, "outcome"),
    ],
)
def test_malformed_benchmark_is_refused_in_one_line(
    make: SimpleNamespace, write: Write, line: int, change: dict[str, object], says: str
) -> None:
    path = write("b.jsonl", make.bench())
    lines = path.read_text().splitlines()
    lines[line - 1] = json.dumps(json.loads(lines[line - 1]) | change)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(StreamError) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04\xff", b"<html>", b"{}\n", b'{"kind": []}\n', b"null\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(StreamError):
        read_file(path)


@pytest.mark.parametrize(
    ("name", "form"), [("a.html", "html"), ("a.HTM", "html"), ("a.md", "markdown"), ("dir.x/junit.xml", "junit")]
)
def test_suffix_names_the_format(name: str, form: str) -> None:
    assert format_of(name) == form


@pytest.mark.parametrize("name", ["report", "report.pdf", ".html"])
def test_other_suffix_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="suffix"):
        format_of(name)


def test_unknown_format_is_refused(make: SimpleNamespace) -> None:
    with pytest.raises(InvalidArgumentError, match="'pdf'"):
        render(Results(), "pdf")


def test_junit_without_a_check_is_refused(make: SimpleNamespace) -> None:
    with pytest.raises(InvalidArgumentError, match="JUnit holds checks"):
        render(Results((), (make.bench(),)), "junit")


def test_report_replaces_older_file_and_keeps_its_mode_and_link(make: SimpleNamespace, tmp_path: Path) -> None:
    real, link = tmp_path / "real.md", tmp_path / "link.md"
    real.write_text("older")
    real.chmod(0o640)
    link.symlink_to(real)
    write_report(Results((make.check([make.row()]),)), link)
    assert link.is_symlink()
    assert real.read_text().startswith("# onnx-arch report")
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.md", "real.md"]


def test_failed_write_leaves_older_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("older")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InvalidArgumentError, match="No space left on device"):
        write_whole(path, "newer")
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_command_writes_each_format_and_says_where(make: SimpleNamespace, write: Write, tmp_path: Path) -> None:
    write("check.jsonl", make.check([make.row()]))
    write("bench.jsonl", make.bench())
    for output, begins in (("r.html", "<!doctype html>"), ("r.md", "# onnx-arch"), ("r.xml", "<?xml")):
        done = command("check.jsonl", "bench.jsonl", "-o", output, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", f"report: {output}\n")
        assert (tmp_path / output).read_text().lstrip().startswith(begins)


def test_command_writes_to_standard_output_and_nothing_else(
    make: SimpleNamespace, write: Write, tmp_path: Path
) -> None:
    write("check.jsonl", make.check([make.row()]))
    done = command("check.jsonl", "-o", "-", "--format", "markdown", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("# onnx-arch report")
    assert done.stderr == ""
    assert os.listdir(tmp_path) == ["check.jsonl"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing.jsonl"], "cannot read missing.jsonl: No such file"),
        (["."], "cannot read ."),
        (["text.txt"], "text.txt, line 1: not JSON"),
        (["check.jsonl", "text.txt"], "text.txt, line 1: not JSON"),
        (["check.jsonl", "-o", "r.pdf"], "r.pdf: the suffix must be one of"),
        (["check.jsonl", "-o", "no/r.html"], "cannot write no/r.html: No such file"),
        (["check.jsonl", "-o", "check.jsonl"], "would overwrite it"),
        (["check.jsonl", "-o", "-"], "needs --format"),
        ([], "FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_refuses_in_one_line_with_status_2(
    make: SimpleNamespace, write: Write, tmp_path: Path, words: list[str], says: str
) -> None:
    write("check.jsonl", make.check([make.row()]))
    (tmp_path / "text.txt").write_text("hello\n")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert sorted(os.listdir(tmp_path)) == ["check.jsonl", "text.txt"]
