"""The stream of results: what is written is read back, what is cut off stays readable, what is malformed is refused."""

import dataclasses
import io
import json
import math
import os
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.conformance.json_lines import encode_line
from onnx_arch.conformance.results import Footer, Header, NodeResult, Outcome, count_outcomes
from onnx_arch.conformance.stream import (
    StreamWriter,
    partial_path,
    read_stream,
    read_streams,
    resumable_rows,
)
from onnx_arch.errors import StreamError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "stream.schema.json").read_text(encoding="utf-8"))

HEADER = Header(
    command=("check", "resnet18.onnx"),
    model="resnet18.onnx",
    model_sha256="ab" * 32,
    environment={"packages": {"numpy": "2.4.6"}, "runtime_versions": {"onnxruntime": "1.32.0"}, "cpu": "x86"},
    options={"provider": "cpu", "optimization": "all", "seed": 0},
    nodes=3,
)
CONV = NodeResult(
    node="Conv_0",
    op_type="Conv",
    domain="",
    outputs=("y",),
    outcome=Outcome.PASSED,
    rule="dot(147)",
    max_z=3.25,
    rms_z=0.5,
    allowed_rms_z=1.5,
    allowed_max_z=8.0,
    bits=24.5,
    max_abs=1e-6,
    inherited_max_abs=2e-6,
    shapes=((1, 64, 112, 112),),
    dtypes=("float32",),
)
RELU = NodeResult(node="Relu_1", op_type="Relu", domain="", outputs=("r",), outcome=Outcome.FAILED, message="NaN lost")
OUTPUT = NodeResult(node="r", op_type="", domain="", outputs=("r",), outcome=Outcome.PASSED, kind="output")
ROWS = (CONV, RELU, OUTPUT)
FOOTER = Footer(count_outcomes(list(ROWS)), duration_s=1.5, peak_memory_bytes={"check": 10}, first_failed="Relu_1")

FLOATS = st.none() | st.floats()
RESULTS = st.builds(
    NodeResult,
    node=st.text(),
    op_type=st.text(),
    domain=st.text(),
    outputs=st.lists(st.text()).map(tuple),
    outcome=st.sampled_from(Outcome),
    max_z=FLOATS,
    rms_z=FLOATS,
    allowed_rms_z=FLOATS,
    allowed_max_z=FLOATS,
    bits=FLOATS,
    max_abs=FLOATS,
    inherited_max_abs=FLOATS,
    shapes=st.lists(st.none() | st.lists(st.integers(0, 2**40)).map(tuple)).map(tuple),
    dtypes=st.lists(st.none() | st.text()).map(tuple),
    message=st.text(),
    opset=st.none() | st.integers(0, 99),
    occurrences=st.none() | st.integers(1, 2**40),
    origin=st.text(),
    known=st.text(),
    smallest=st.text(),
    kind=st.sampled_from(["node", "output", "case"]),
)


def write(path: Path, *records: Header | NodeResult | Footer) -> None:
    with StreamWriter(path) as writer:
        for record in records:
            writer.write(record)


def interrupt(path: Path) -> None:
    """Write a run that is stopped after its first row."""
    with StreamWriter(path) as writer:
        writer.write(HEADER)
        writer.write(CONV)
        raise KeyboardInterrupt


def comparable(row: NodeResult) -> dict[str, object]:
    """Fields of `row` in a form in which NaN equals NaN."""
    return {name: repr(value) for name, value in dataclasses.asdict(row).items()}


def test_stream_of_complete_run_reads_back_equal(tmp_path: Path) -> None:
    write(tmp_path / "run.jsonl", HEADER, *ROWS, FOOTER)
    stream = read_stream(tmp_path / "run.jsonl")
    assert (stream.header, stream.rows, stream.footer) == (HEADER, ROWS, FOOTER)
    assert stream.complete
    assert os.listdir(tmp_path) == ["run.jsonl"]


@given(rows=st.lists(RESULTS, max_size=4))
def test_any_row_reads_back_equal_as_strict_json(rows: list[NodeResult]) -> None:
    text = io.StringIO()
    with StreamWriter(text) as writer:
        for record in (HEADER, *rows):
            writer.write(record)
    for line in text.getvalue().splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    stream = read_stream(io.StringIO(text.getvalue()))
    assert [comparable(row) for row in stream.rows] == [comparable(row) for row in rows]
    assert stream.footer is None


@given(row=RESULTS)
def test_schema_accepts_any_row(row: NodeResult) -> None:
    jsonschema.validate(json.loads(encode_line(row)), SCHEMA)


@pytest.mark.parametrize("record", [HEADER, *ROWS, FOOTER], ids=lambda record: f"{record.kind}")
def test_schema_accepts_each_kind_and_names_all_its_fields(record: Header | NodeResult | Footer) -> None:
    line = json.loads(encode_line(record))
    jsonschema.validate(line, SCHEMA)
    name = {"node": "result", "output": "result", "case": "result"}.get(record.kind, record.kind)
    assert set(SCHEMA["$defs"][name]["properties"]) == set(line)


@pytest.mark.parametrize(
    ("field", "value"),
    [("outcome", "ok"), ("bits", "many"), ("outputs", "y"), ("node", None), ("kind", "edge"), ("shapes", [[-1]])],
)
def test_schema_refuses_wrong_value(field: str, value: object) -> None:
    line = json.loads(encode_line(CONV)) | {field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(line, SCHEMA)


def test_line_of_node_begins_with_kind_and_spells_non_finite_numbers() -> None:
    row = dataclasses.replace(CONV, max_z=math.inf, rms_z=math.nan, bits=-math.inf, max_abs=np.float32(0.5))
    line = encode_line(row)
    assert line.startswith('{"kind": "node", "node": "Conv_0"')
    fields = json.loads(line)
    assert (fields["max_z"], fields["rms_z"], fields["bits"], fields["max_abs"]) == (
        "Infinity",
        "NaN",
        "-Infinity",
        0.5,
    )


def test_header_with_paths_and_numpy_scalars_is_written() -> None:
    options = {"inputs": Path("a") / "b", "seed": np.int64(3), "steps": np.longdouble(1), "deep": {"x": (1, 2)}}
    fields = json.loads(encode_line(dataclasses.replace(HEADER, options=options)))
    assert fields["options"] == {"inputs": os.path.join("a", "b"), "seed": 3, "steps": 1.0, "deep": {"x": [1, 2]}}


@pytest.mark.parametrize("value", [object(), b"bytes", {"deep": [1j]}], ids=["object", "bytes", "complex"])
def test_header_with_unwritable_value_is_refused(value: object) -> None:
    with pytest.raises(StreamError, match="cannot be written as JSON"):
        encode_line(dataclasses.replace(HEADER, options={"value": value}))


def test_crash_in_the_middle_keeps_rows_in_partial_and_older_file_untouched(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("older")
    with pytest.raises(KeyboardInterrupt):
        interrupt(path)
    assert path.read_text() == "older"
    stream = read_stream(partial_path(path))
    assert stream.rows == (CONV,)
    assert stream.footer is None
    assert not stream.complete


def test_rows_are_on_disk_before_the_writer_closes(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with StreamWriter(path) as writer:
        for count, record in enumerate((HEADER, *ROWS), start=1):
            writer.write(record)
            assert len(partial_path(path).read_text().splitlines()) == count


def test_footer_of_stopped_run_leaves_partial(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, HEADER, CONV, dataclasses.replace(FOOTER, complete=False))
    assert not path.exists()
    assert not read_stream(partial_path(path)).complete


def test_new_run_keeps_older_partial_until_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, HEADER, CONV, RELU)
    write(path, HEADER, CONV)
    backup = tmp_path / "run.jsonl.partial~"
    assert read_stream(backup).rows == (CONV, RELU)
    write(path, HEADER, *ROWS, FOOTER)
    # The complete run replaces what it grew from.
    assert os.listdir(tmp_path) == ["run.jsonl"]


SECOND = dataclasses.replace(HEADER, model_sha256="cd" * 32)


def write_graphs(path: Path, *records: Header | NodeResult | Footer) -> None:
    with StreamWriter(path, runs=2) as writer:
        for record in records:
            writer.write(record)


def test_runs_of_two_graphs_lie_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_graphs(path, HEADER, *ROWS, FOOTER, SECOND, CONV, FOOTER)
    assert [(run.header, run.rows, run.complete) for run in read_streams(path)] == [
        (HEADER, ROWS, True),
        (SECOND, (CONV,), True),
    ]
    with pytest.raises(StreamError, match="holds 2 runs"):
        read_stream(path)


def test_file_of_two_graphs_is_whole_only_with_both(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_graphs(path, HEADER, *ROWS, FOOTER, SECOND, CONV)
    assert not path.exists()
    assert [run.complete for run in read_streams(partial_path(path))] == [True, False]
    assert resumable_rows(path, HEADER, graphs=2) == {"Conv_0": CONV, "Relu_1": RELU}
    assert resumable_rows(path, SECOND, graphs=2) == {"Conv_0": CONV}


def test_graph_to_which_the_earlier_run_did_not_come_is_judged_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_graphs(path, HEADER, CONV)
    assert resumable_rows(path, SECOND, graphs=2) == {}
    with pytest.raises(StreamError, match="model_sha256"):
        resumable_rows(path, SECOND)


def test_nothing_is_created_before_the_first_line(tmp_path: Path) -> None:
    with StreamWriter(tmp_path / "run.jsonl"):
        pass
    assert os.listdir(tmp_path) == []


def test_link_is_followed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "deep" / "run.jsonl")
    write(link, HEADER, *ROWS, FOOTER)
    assert link.is_symlink()
    assert read_stream(tmp_path / "deep" / "run.jsonl").complete


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_written_directly_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(pipe, HEADER, CONV, FOOTER)
        lines = os.read(reader, 1 << 16).decode().splitlines()
    finally:
        os.close(reader)
    assert [json.loads(line)["kind"] for line in lines] == ["header", "node", "footer"]
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    "records",
    [(CONV,), (HEADER, HEADER), (HEADER, FOOTER, CONV), (HEADER, FOOTER, FOOTER)],
    ids=["row first", "two headers", "row after footer", "two footers"],
)
def test_writer_refuses_wrong_order(records: tuple[Header | NodeResult | Footer, ...]) -> None:
    *begin, last = records
    writer = StreamWriter(io.StringIO())
    for record in begin:
        writer.write(record)
    with pytest.raises(StreamError):
        writer.write(last)


@pytest.mark.parametrize("where", ["missing/run.jsonl", "."])
def test_writer_refuses_unusable_place_before_any_work(tmp_path: Path, where: str) -> None:
    with pytest.raises(StreamError, match="cannot write"), StreamWriter(tmp_path / where):
        pytest.fail("entered")


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_half_written_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "run.jsonl.partial"
    lines = [encode_line(record) for record in (HEADER, CONV, RELU)]
    path.write_text("\n".join(lines)[:-cut])
    stream = read_stream(path)
    assert stream.rows == (CONV,)
    assert stream.footer is None


def test_whole_last_line_without_newline_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(encode_line(record) for record in (HEADER, *ROWS, FOOTER)))
    assert read_stream(path).complete


def lines_with(number: int, replacement: str) -> str:
    lines = [encode_line(record) for record in (HEADER, CONV, RELU, FOOTER)]
    lines[number - 1] = replacement
    return "\n".join(lines) + "\n"


def changed(record: Header | NodeResult | Footer, **fields: object) -> str:
    return json.dumps(json.loads(encode_line(record)) | fields)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "header"),
        ("\n", 1, "not JSON"),
        ("hello\n", 1, "not JSON"),
        ("[1]\n", 1, "an object is expected"),
        ("[" * 100_000 + "\n", 1, "not JSON"),
        ('{"kind": "header"', 1, "not JSON"),
        (lines_with(1, changed(HEADER, format_version=2)), 1, "format version 2, this onnx-arch reads version 1"),
        (lines_with(1, changed(HEADER, kind="bench_header")), 1, "bench_header"),
        (lines_with(1, encode_line(CONV)), 1, "header"),
        (lines_with(2, encode_line(HEADER)), 2, "second header before a footer"),
        (lines_with(2, ""), 2, "not JSON"),
        (lines_with(3, encode_line(FOOTER)), 4, "can follow the footer"),
        (lines_with(3, changed(RELU, kind=["node"])), 3, "kind"),
        (lines_with(3, changed(RELU, outcome="green")), 3, "outcome"),
        (lines_with(3, changed(RELU, bits="many")), 3, "bits"),
        (lines_with(3, changed(RELU, node=None)), 3, "node"),
        (lines_with(3, encode_line(RELU).replace('"bits": null', '"bits": NaN')), 3, "NaN is not JSON"),
        (lines_with(3, '{"kind": "node", "node": "x"}'), 3, "op_type"),
    ],
)
def test_malformed_stream_is_refused_in_one_line_with_its_number(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(StreamError) as caught:
        read_stream(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"\x80\x81", b"\x08\x07\x12\xff\xfe"], ids=["bytes", "protobuf"])
def test_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(StreamError, match="not text"):
        read_stream(path)


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_unreadable_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StreamError, match="cannot read"):
        read_stream(tmp_path / name)


def test_unknown_fields_of_later_versions_are_ignored() -> None:
    text = f"{encode_line(HEADER)}\n{changed(CONV, colour='red')}\n"
    assert read_stream(io.StringIO(text)).rows == (CONV,)


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(encode_line(HEADER) + "\n", encoding="utf-8-sig")
    assert read_stream(path).header == HEADER


def test_resume_returns_node_rows_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, HEADER, *ROWS, FOOTER)
    assert resumable_rows(path, HEADER) == {"Conv_0": CONV, "Relu_1": RELU}


def test_resume_takes_partial_of_unfinished_run_without_half_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, HEADER, CONV)
    with partial_path(path).open("a") as file:
        file.write('{"kind": "node", "no')
    assert resumable_rows(path, dataclasses.replace(HEADER, command=("check", "--resume"))) == {"Conv_0": CONV}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_sha256": "cd" * 32}, "model_sha256 is 'abab"),
        ({"options": {**HEADER.options, "provider": "cuda"}}, "option provider is 'cpu' there and 'cuda' here"),
        ({"options": {**HEADER.options, "threads": 2}}, "option threads is None there and 2 here"),
        ({"options": {}}, "option provider is 'cpu' there and None here"),
        ({"environment": {**HEADER.environment, "packages": {"numpy": "2.4.5"}}}, "packages is"),
        ({"environment": {**HEADER.environment, "runtime_versions": {"onnxruntime": "1.20"}}}, "runtime_versions is"),
    ],
)
def test_resume_from_other_run_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "run.jsonl"
    write(path, HEADER, *ROWS, FOOTER)
    with pytest.raises(StreamError, match="cannot be resumed") as caught:
        resumable_rows(path, dataclasses.replace(HEADER, **change))  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_resume_on_another_day_of_the_same_machine_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, HEADER, CONV)
    later = dataclasses.replace(HEADER, environment={**HEADER.environment, "cpu": "other", "load": 0.5})
    assert resumable_rows(path, later) == {"Conv_0": CONV}


def test_resume_from_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"cannot read .*run\.jsonl:"):
        resumable_rows(tmp_path / "run.jsonl", HEADER)
