"""Whatever is wrong with what `onnx-arch check` is given: one line on standard error, status 2, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from onnx_arch.graphs import memory

from .command_models import Array, Command, assert_refused, graph_model, json_lines, save_model, small_model

CUDA = "CUDAExecutionProvider"


def _missing(_folder: Path) -> Path:
    return Path("nowhere.onnx")


def _directory(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _empty(folder: Path) -> Path:
    (folder / "empty.onnx").touch()
    return folder / "empty.onnx"


def _truncated(folder: Path) -> Path:
    file = folder / "truncated.onnx"
    file.write_bytes(small_model(2).SerializeToString()[:-100])
    return file


def _text(folder: Path) -> Path:
    file = folder / "notes.onnx"
    file.write_text("this is no model\n")
    return file


def _picture(folder: Path) -> Path:
    file = folder / "picture.onnx"
    Image.new("RGB", (8, 8)).save(file, format="png")
    return file


def _external(folder: Path, location: str) -> Path:
    """A model whose weight is said to lie at `location`."""
    model = small_model(2)
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return save_model(model, folder / "external.onnx")


def _external_missing(folder: Path) -> Path:
    return _external(folder, "gone.data")


def _external_above(folder: Path) -> Path:
    return _external(folder, "../../etc/passwd")


def _external_absolute(folder: Path) -> Path:
    return _external(folder, "/etc/passwd")


def _external_link(folder: Path) -> Path:
    outside = folder.parent / f"{folder.name}-outside.data"
    outside.write_bytes(bytes(4096))
    (folder / "link.data").symlink_to(outside)
    return _external(folder, "link.data")


def _external_short(folder: Path) -> Path:
    (folder / "short.data").write_bytes(bytes(10))
    return _external(folder, "short.data")


def _newer_opset(folder: Path) -> Path:
    model = small_model(2)
    model.opset_import[0].version = onnx.defs.onnx_opset_version() + 1
    return save_model(model, folder / "newer.onnx")


def _cycle(folder: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return save_model(graph_model(nodes, {"x": [2]}, ["b"], {}), folder / "cycle.onnx")


def _self_made_attribute(folder: Path) -> Path:
    model = small_model(2)
    model.graph.node[2].attribute.append(helper.make_attribute("axes", [1]))
    return save_model(model, folder / "attribute.onnx")


def _dangling(folder: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "nobody"], ["y"])]
    return save_model(graph_model(nodes, {"x": [2]}, ["y"], {}), folder / "dangling.onnx")


def _no_batch(folder: Path) -> Path:
    return save_model(small_model(0), folder / "nobatch.onnx")


BAD_MODELS: list[tuple[Callable[[Path], Path], tuple[str, ...]]] = [
    (_missing, ("nowhere.onnx",)),
    (_directory, ("empty", "model.onnx")),
    (_empty, ("empty.onnx",)),
    (_truncated, ("truncated.onnx",)),
    (_text, ("notes.onnx",)),
    (_picture, ("picture.onnx",)),
    (_external_missing, ("external.onnx", "gone.data")),
    (_external_above, ("external.onnx", "passwd")),
    (_external_absolute, ("external.onnx", "/etc/passwd")),
    (_external_link, ("external.onnx", "link.data")),
    (_external_short, ("external.onnx", "short.data")),
    (_newer_opset, ("newer.onnx", str(onnx.defs.onnx_opset_version()))),
    (_cycle, ("cycle.onnx", "Add")),
    (_self_made_attribute, ("attribute.onnx", "axes", "Softmax")),
    (_dangling, ("dangling.onnx", "nobody")),
    (_no_batch, ("0",)),
]


@pytest.mark.parametrize(("make", "told"), BAD_MODELS, ids=[make.__name__[1:] for make, _ in BAD_MODELS])
def test_bad_model_is_refused_in_one_line_and_nothing_is_written(
    make: Callable[[Path], Path], told: tuple[str, ...], check: Command, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    folder = tmp_path / "model"
    folder.mkdir()
    words = [f"--{form}={results / form}" for form in ("json", "junit", "html")]
    assert_refused(check(make(folder), *words), *told)
    assert list(results.iterdir()) == []


def test_bad_model_in_a_process_of_its_own_shows_no_traceback(onnx_arch: Any, tmp_path: Path) -> None:
    result = onnx_arch("check", _truncated(tmp_path))
    assert_refused((result.returncode, result.stdout, result.stderr), "truncated.onnx")


BAD_FEEDS: dict[str, tuple[dict[str, Array], tuple[str, ...]]] = {
    "wrong name": ({"image": np.zeros((2, 16), np.float32)}, ("image", "x")),
    "one too many": ({"x": np.zeros((2, 16), np.float32), "z": np.zeros(1, np.float32)}, ("z",)),
    "wrong dtype": ({"x": np.zeros((2, 16))}, ("x", "float64", "float32")),
    "wrong rank": ({"x": np.zeros(16, np.float32)}, ("x", "[16]")),
    "wrong shape": ({"x": np.zeros((2, 15), np.float32)}, ("x", "15", "16")),
    "no batch": ({"x": np.zeros((0, 16), np.float32)}, ("x", "0")),
    "nothing": ({}, ("x",)),
}


@pytest.mark.parametrize(("arrays", "told"), BAD_FEEDS.values(), ids=BAD_FEEDS.keys())
def test_bad_inputs_are_refused_by_name(
    arrays: dict[str, Array], told: tuple[str, ...], check: Command, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, **arrays)  # type: ignore[arg-type]
    assert_refused(check(model, "--inputs", file), *told)


def _no_archive(folder: Path) -> list[object]:
    (folder / "inputs.npz").write_text("no archive")
    return ["--inputs", folder / "inputs.npz"]


def _pickled(folder: Path) -> list[object]:
    np.savez(folder / "inputs.npz", x=np.array([{"a": 1}], object))
    return ["--inputs", folder / "inputs.npz"]


def _no_adapter(folder: Path) -> list[object]:
    (folder / "adapter.py").write_text("def run(feeds):\n    return feeds\n")
    return ["--runtime", folder / "adapter.py"]


def _one_file_for_two(folder: Path) -> list[object]:
    (folder / "also").symlink_to(folder)
    return ["--json", folder / "result", "--junit", folder / "also" / "result"]


BAD_WORDS: dict[str, tuple[Callable[[Path], list[object]], tuple[str, ...]]] = {
    "inputs missing": (lambda folder: ["--inputs", folder / "gone.npz"], ("gone.npz",)),
    "inputs no archive": (_no_archive, ("inputs.npz",)),
    "inputs of objects": (_pickled, ("inputs.npz",)),
    "test data missing": (lambda folder: ["--test-data", folder / "gone"], ("gone",)),
    "test data empty": (lambda folder: ["--test-data", folder], ()),
    "picture for no picture model": (lambda folder: ["--image", folder / "gone.jpg"], ("x", "[2, 16]")),
    "two sources": (lambda folder: ["--inputs", folder / "a.npz", "--image", folder / "b.png"], ("--inputs",)),
    "dim without a size": (lambda _: ["--dim", "batch"], ("--dim batch", "batch=2")),
    "dim that is none": (lambda _: ["--dim", "tokens=3"], ("tokens",)),
    "dim below zero": (lambda _: ["--dim", "batch=-1"], ("batch=-1",)),
    "dim of no size": (lambda _: ["--dim", "batch=0"], ("0",)),
    "unknown runtime": (lambda _: ["--runtime", "tensorrt"], ("tensorrt", "onnxruntime")),
    "runtime file missing": (lambda _: ["--runtime", "gone.py"], ("gone.py",)),
    "runtime file without load": (_no_adapter, ("adapter.py", "load(model_path, options)")),
    "one file for two views": (_one_file_for_two, ("--json", "--junit", "same file")),
    "too many threads": (lambda _: ["--threads", "100000"], ("100000", "1024")),
    "no such interpreter": (lambda _: ["--python", "/no/python"], ("/no/python",)),
    "unknown provider": (lambda _: ["--provider", "tpu"], ("tpu", "cpu")),
    "unknown level": (lambda _: ["--optimization", "most"], ("most", "disabled")),
    "no threads": (lambda _: ["--threads", "0"], ("--threads",)),
    "resume missing": (lambda folder: ["--resume", folder / "gone.jsonl"], ("gone.jsonl",)),
    "json in no folder": (lambda folder: ["--json", folder / "no" / "result.jsonl"], ("result.jsonl",)),
    "unknown option": (lambda _: ["--tolerance", "1e-3"], ("--tolerance",)),
}


@pytest.mark.parametrize(("words", "told"), BAD_WORDS.values(), ids=BAD_WORDS.keys())
def test_bad_words_are_refused_in_one_line(
    words: Callable[[Path], list[object]], told: tuple[str, ...], check: Command, tmp_path: Path
) -> None:
    given = words(tmp_path)
    batch = "batch" if given[0] == "--dim" else 2
    assert_refused(check(save_model(small_model(batch), tmp_path / "small.onnx"), *given), *told)


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has the provider")
def test_provider_that_is_not_here_is_refused(check: Command, model: Path) -> None:
    assert_refused(check(model, "--provider", "cuda"), CUDA, "CPUExecutionProvider")


def test_unreadable_resume_is_refused(check: Command, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.jsonl"
    file.write_text("no JSON\n")
    assert_refused(check(model, "--resume", file), "result.jsonl", "line 1")


def test_model_larger_than_the_memory_is_refused_before_it_runs(
    check: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    assert_refused(check(save_model(small_model(2000), tmp_path / "large.onnx")), "large.onnx", "GB", "available")


def _unknown_operator(folder: Path, domain: str) -> Path:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Frobnicate", ["h"], ["y"], domain=domain)]
    model = graph_model(nodes, {"x": [2, 3]}, ["y"], {})
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return save_model(model, folder / "unknown.onnx")


def test_operator_that_onnx_does_not_know_is_refused(check: Command, tmp_path: Path) -> None:
    assert_refused(check(_unknown_operator(tmp_path, "")), "unknown.onnx", "Frobnicate")


def test_operator_of_a_domain_of_its_own_is_unsupported_and_the_rest_is_judged(check: Command, tmp_path: Path) -> None:
    status, out, _ = check(_unknown_operator(tmp_path, "my.own"), "--json", "-")
    rows = [record for record in json_lines(out) if record["kind"] == "node"]
    assert status == 1
    assert [row["outcome"] for row in rows] == ["passed", "unsupported"]


def test_views_that_cannot_be_written_are_told_in_one_line(check: Command, model: Path, tmp_path: Path) -> None:
    assert_refused(check(model, "--quiet", "--html", tmp_path / "no" / "page.html"), "page.html")


@pytest.mark.parametrize("option", ["--json", "--junit", "--html"])
@pytest.mark.parametrize("target", ["small.onnx", "inputs.npz", "picture.data"])
def test_view_that_would_overwrite_what_is_read_is_refused(
    option: str, target: str, check: Command, tmp_path: Path
) -> None:
    proto = small_model(2)
    onnx.save_model(
        proto, tmp_path / "small.onnx", save_as_external_data=True, location="picture.data", size_threshold=0
    )
    np.savez(tmp_path / "inputs.npz", x=np.ones((2, 16), np.float32))
    before = (tmp_path / target).read_bytes()
    words = [tmp_path / "small.onnx", "--inputs", tmp_path / "inputs.npz", option, tmp_path / target]
    assert_refused(check(*words), option, target, "overwrite")
    assert (tmp_path / target).read_bytes() == before


def test_view_that_would_overwrite_test_data_is_refused(check: Command, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "test_data_set_0" / "input_0.pb"
    file.parent.mkdir()
    file.write_bytes(onnx.numpy_helper.from_array(np.ones((2, 16), np.float32), "x").SerializeToString())
    assert_refused(check(model, "--test-data", tmp_path, "--json", file), "input_0.pb", "overwrite")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_results_on_a_full_disk_are_told_by_name(check: Command, model: Path) -> None:
    assert_refused(check(model, "--json", "/dev/full"), "cannot write /dev/full", "No space left")
