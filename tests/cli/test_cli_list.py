"""`onnx-arch list`: what it names is what is registered, as a table and as JSON."""

from __future__ import annotations

import json
from importlib.metadata import version

import onnx
import pytest

from onnx_arch.architectures.registry import listings as architectures
from onnx_arch.operators.catalogue import bound_of
from onnx_arch.operators.registry import entries
from onnx_arch.operators.scale import exact, ulp
from onnx_arch.runtimes.registry import listings as runtimes


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_list_in_brief_names_every_architecture_and_runtime(onnx_arch):
    done = onnx_arch("list")
    assert (done.returncode, done.stderr) == (0, "")
    first_words = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert set(architectures()) | {entry.name for entry in runtimes()} <= first_words
    assert "onnx-arch list operators" in done.stdout


def test_list_operators_names_every_kernel_version_rule_and_type(onnx_arch):
    done = onnx_arch("list", "operators", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    listed = {(row["domain"], row["op_type"]): row for row in rows(done.stdout)}
    assert {(domain, op_type) for domain, op_type, _ in entries()} <= set(listed)
    assert {("", name) for name in ("If", "Loop", "Scan", "SequenceMap")} <= set(listed)
    for schema in onnx.defs.get_all_schemas():
        if not schema.deprecated and schema.name != "Gradient":
            assert schema.since_version in listed[schema.domain, schema.name]["since"]
    assert listed["", "Softmax"]["rule"] == "composed"
    assert listed["", "Softmax"]["types"] == ["bfloat16", "double", "float", "float16"]
    assert "string" not in listed["", "GridSample"]["types"], "unjudged"
    assert listed["ai.onnx.ml", "TreeEnsemble"]["since"] == [5]
    assert listed["com.microsoft", "QLinearAdd"]["types"] == ["int8", "uint8"]


def test_list_operators_table_says_how_softmax_and_transpose_are_bounded(onnx_arch):
    lines = onnx_arch("list", "operators").stdout.splitlines()
    transpose = next(line for line in lines if line.split()[0] == "Transpose")
    assert "exact" in transpose
    assert "int2…int64" in transpose
    softmax = next(line for line in lines if line.split()[0] == "Softmax")
    assert "since 1, 11, 13" in softmax
    assert "composed" in softmax


def test_list_runtimes_gives_the_installed_version(onnx_arch):
    done = onnx_arch("list", "runtimes", "--json", "-")
    versions = {row["name"]: row["version"] for row in rows(done.stdout)}
    assert versions["onnxruntime"] == version("onnxruntime")
    assert versions["onnx-reference"] == version("onnx")


def test_list_json_without_a_section_holds_all_three_kinds(onnx_arch):
    kinds = {row["kind"] for row in rows(onnx_arch("list", "--json", "-").stdout)}
    assert kinds == {"architecture", "operator", "runtime"}


def test_list_json_to_a_file_writes_it_and_still_prints_the_table(onnx_arch, tmp_path):
    done = onnx_arch("list", "architectures", "--json", "list.jsonl")
    written = rows((tmp_path / "list.jsonl").read_text(encoding="utf-8"))
    assert [row["name"] for row in written] == list(architectures())
    assert all(str(row["paper"]) in done.stdout for row in written)


def test_list_quiet_prints_nothing(onnx_arch):
    done = onnx_arch("list", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_list_json_into_a_missing_folder_is_one_line_and_status_2(onnx_arch):
    done = onnx_arch("list", "--json", "missing/list.jsonl")
    assert done.returncode == 2
    assert done.stderr == "onnx-arch: error: cannot write missing/list.jsonl: No such file or directory\n"


def plain(y, /):
    return y


def documented(y, /):
    """Two roundings at |y|:
    one for each product.

    More.
    """
    return y


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (exact, "exact"),
        (None, "none: its outputs are unjudged"),
        (ulp(1), "bounded"),
        (plain, "bounded"),
        (documented, "Two roundings at |y|: one for each product"),
    ],
    ids=["exact", "none", "ulp", "undocumented", "documented"],
)
def test_bound_of_scale_is_a_word_or_its_first_paragraph(scale, text):
    assert bound_of(scale) == text
