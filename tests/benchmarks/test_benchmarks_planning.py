"""From a model and a request to rows: batches, sizes, test data, threads, the other side, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.benchmarks.planning import Request, other_side, plan
from onnx_arch.errors import InvalidArgumentError, InvalidInputError, InvalidModelError
from onnx_arch.runtimes.session import RuntimeOptions

OPTIONS = RuntimeOptions(threads=2)


def write_model(file: Path, **inputs: list[int | str | None]) -> Path:
    """A model that hands its inputs through, float32, with the given dims."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    results = [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs]
    graph = helper.make_graph(nodes, "graph", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)
    return file


def write_test_data(bundle: Path, *arrays: np.ndarray) -> None:
    folder = bundle / "test_data_set_0"
    folder.mkdir()
    for index, array in enumerate(arrays):
        (folder / f"input_{index}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())


def test_every_batch_is_a_row_with_its_own_inputs(tmp_path) -> None:
    file = write_model(tmp_path / "net.onnx", x=["batch", 3])
    rows = plan(file, Request(OPTIONS, batches=(1, 8, 1)))
    assert [(row.model, row.batch, dict(row.dims)) for row in rows] == [
        ("net", 1, {"batch": 1}),
        ("net", 8, {"batch": 8}),
    ]
    assert [row.make_feeds()["x"].shape for row in rows] == [(1, 3), (8, 3)]
    assert rows[0].model_sha256 == rows[1].model_sha256 != ""


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": ["batch", 3]},
        {"x": ["N", 3], "y": ["N", "T"]},
        {"x": ["rows", 3]},
        {"x": [None, 3]},
        {"x": [None, 3], "y": [None]},
        {"x": ["batch", 3], "mask": [5, 5]},
        {"x": ["batch", 3], "y": ["T", 3]},
    ],
    ids=lambda inputs: "-".join(map(str, inputs.values())),
)
def test_batch_dim_is_found_and_set_in_every_input(tmp_path, inputs: dict) -> None:
    file = write_model(tmp_path / "net.onnx", **inputs)
    (row,) = plan(file, Request(OPTIONS, batches=(4,), dims={"T": 6} if "T" in str(inputs) else {}))
    feeds = row.make_feeds()
    assert feeds["x"].shape == (4, 3)
    assert row.batch == 4
    if inputs.get("y") in (["N", "T"], [None]):
        assert feeds["y"].shape[0] == 4


def test_model_without_batch_asked_for_has_one_item(tmp_path) -> None:
    (row,) = plan(write_model(tmp_path / "net.onnx", x=["batch", 3]), Request(OPTIONS))
    assert row.batch == 1


def test_fixed_batch_is_told_and_another_refused(tmp_path) -> None:
    file = write_model(tmp_path / "net.onnx", x=[2, 3])
    assert [row.batch for row in plan(file, Request(OPTIONS))] == [2]
    assert [row.batch for row in plan(file, Request(OPTIONS, batches=(2,)))] == [2]
    with pytest.raises(InvalidArgumentError, match=r"net: --batch 8: the model has a fixed batch of 2"):
        plan(file, Request(OPTIONS, batches=(2, 8)))


def test_batch_of_a_model_whose_first_dims_mean_several_things_is_refused(tmp_path) -> None:
    file = write_model(tmp_path / "net.onnx", x=["rows", 3], y=["columns", 3])
    with pytest.raises(InvalidArgumentError, match=r"none of its dims is known to be the batch.*x \[rows, 3\]"):
        plan(file, Request(OPTIONS, batches=(8,)))
    (row,) = plan(file, Request(OPTIONS, dims={"rows": 2, "columns": 5}))
    assert row.batch is None
    assert row.make_feeds()["y"].shape == (5, 3)


@pytest.mark.parametrize("batch", [0, -1])
def test_batch_below_one_is_refused(tmp_path, batch: int) -> None:
    file = write_model(tmp_path / "net.onnx", x=["batch", 3])
    with pytest.raises(InvalidArgumentError, match="from 1 on"):
        plan(file, Request(OPTIONS, batches=(batch,)))


def test_missing_dim_is_asked_for_by_name_before_anything_runs(tmp_path) -> None:
    file = write_model(tmp_path / "net.onnx", x=["batch", "sequence"])
    with pytest.raises(InvalidInputError, match="--dim sequence=N"):
        plan(file, Request(OPTIONS))


def test_dim_given_by_name_wins_over_the_batch(tmp_path) -> None:
    file = write_model(tmp_path / "net.onnx", x=["batch", 3])
    (row,) = plan(file, Request(OPTIONS, dims={"batch": 5}))
    assert row.batch == 5
    assert row.make_feeds()["x"].shape == (5, 3)


def test_test_data_of_a_bundle_is_used_where_its_sizes_fit_and_gives_the_other_sizes(tmp_path) -> None:
    bundle = tmp_path / "net"
    write_model(bundle / "model.onnx", x=["batch", "sequence"])
    array = np.arange(14, dtype=np.float32).reshape(2, 7)
    write_test_data(bundle, array)
    same, other = plan(bundle, Request(OPTIONS, batches=(2, 4)))
    assert same.model == "net"
    np.testing.assert_array_equal(same.make_feeds()["x"], array)
    assert other.make_feeds()["x"].shape == (4, 7)
    assert other.dims == {"batch": 4, "sequence": 7}


def test_size_that_follows_from_others_is_not_kept_from_the_test_data(tmp_path) -> None:
    bundle = tmp_path / "net"
    write_model(bundle / "model.onnx", x=["batch", 3], y=["2*batch", 3])
    write_test_data(bundle, np.ones((2, 3), np.float32), np.ones((4, 3), np.float32))
    (row,) = plan(bundle, Request(OPTIONS, batches=(3,), dims={}))
    assert {name: feed.shape for name, feed in row.make_feeds().items()} == {"x": (3, 3), "y": (6, 3)}


def test_both_sides_get_the_same_threads_provider_and_level(tmp_path) -> None:
    file = write_model(tmp_path / "net.onnx", x=["batch", 3])
    options = RuntimeOptions(provider="cpu", optimization="basic")
    (row,) = plan(file, Request(options, against="onnxruntime:/other/python"))
    assert row.against is not None
    assert row.options.threads is not None
    assert row.options.threads >= 1
    assert row.against.threads == row.options.threads
    assert (row.against.provider, row.against.optimization) == ("cpu", "basic")
    assert (row.options.python, row.against.python) == (None, "/other/python")


def test_torch_for_a_bare_file_is_refused_and_for_a_bundle_taken(tmp_path) -> None:
    file = write_model(tmp_path / "net.onnx", x=["batch", 3])
    with pytest.raises(InvalidArgumentError, match=r"net\.onnx: --against torch needs the PyTorch module"):
        plan(file, Request(OPTIONS, against="torch"))
    (tmp_path / "manifest.json").write_text("{}")
    side = other_side(Request(OPTIONS, against="torch"), OPTIONS, file)
    assert side.runtime.endswith("torch_eager_adapter.py")
    assert side.threads == 2
    assert other_side(Request(OPTIONS, against="torch:/other/python"), OPTIONS, file).python == "/other/python"
    weights = Request(OPTIONS, against="torch", weights=tmp_path / "w.safetensors")
    assert other_side(weights, OPTIONS, file).extra == {"weights": str(tmp_path / "w.safetensors")}


def test_missing_model_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidModelError, match="no such file"):
        plan(tmp_path / "absent.onnx", Request(OPTIONS))
