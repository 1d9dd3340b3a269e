"""Copies of a model: what onnx's reference and ONNX Runtime compute from them is what the model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.errors import InvalidArgumentError, InvalidModelError
from onnx_arch.graphs import surgery
from onnx_arch.graphs.feeds import random_feeds
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.surgery import expose, save_proto, single_node_model

from .small_models import make_model, matmul_model, value

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def run(file, feeds):
    """Outputs by name, from ONNX Runtime without graph optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.fixture(params=["embedded", "external"])
def large(request, tmp_path):
    """A loaded model whose weight lies in its file, or in a file of its own in a folder below."""
    file = tmp_path / "source/model.onnx"
    file.parent.mkdir()
    if request.param == "embedded":
        onnx.save(matmul_model(64, 64), file)
    else:
        onnx.save(matmul_model(64, 64), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return load_model(file)


X = np.random.default_rng(0).standard_normal((3, 64), np.float32)
WEIGHT = np.arange(4096, dtype=np.float32).reshape(64, 64)


@pytest.mark.parametrize("folder", ["elsewhere", "source"])
def test_expose_returns_the_tensor_and_the_outputs(large, tmp_path, folder):
    copy = expose(large, ["h"], tmp_path / folder / "exposed.onnx")
    outputs = run(copy, {"x": X})
    assert list(outputs) == ["y", "h"]
    np.testing.assert_allclose(outputs["h"], X @ WEIGHT, rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(outputs["y"], np.maximum(outputs["h"], 0))


def test_expose_writes_no_weights_but_links_them(large, tmp_path):
    copy = expose(large, ["h"], tmp_path / "elsewhere/exposed.onnx")
    assert copy.stat().st_size < 2000
    linked = copy.with_name("exposed.data0")
    source = large.external_files[0] if large.external_files else large.path
    assert linked.samefile(source)
    assert sorted(file.name for file in copy.parent.iterdir()) == ["exposed.data0", "exposed.onnx"]


def test_expose_copies_where_links_are_not_possible(large, tmp_path, monkeypatch):
    def refuse(*_names):
        raise OSError("cross-device link")

    monkeypatch.setattr(surgery.os, "link", refuse)
    copy = expose(large, ["h"], tmp_path / "elsewhere/exposed.onnx")
    assert not copy.with_name("exposed.data0").is_symlink()
    assert list(run(copy, {"x": X})) == ["y", "h"]


def test_expose_under_the_name_of_the_model_in_another_folder(large, tmp_path):
    copy = expose(large, ["h"], tmp_path / "elsewhere/model.onnx")
    assert list(run(copy, {"x": X})) == ["y", "h"]
    assert load_model(copy.parent).graph.initializers["w"][63, 63] == 4095


def test_expose_twice_gives_the_same_bytes(large, tmp_path):
    first = expose(large, ["h"], tmp_path / "elsewhere/a.onnx").read_bytes()
    assert expose(large, ["h"], tmp_path / "elsewhere/a.onnx").read_bytes() == first


def test_expose_of_an_exposed_copy(large, tmp_path):
    copy = load_model(expose(large, ["h"], tmp_path / "a/a.onnx"))
    assert list(run(expose(copy, ["y", "h"], tmp_path / "b/b.onnx"), {"x": X})) == ["y", "h"]


def test_expose_leaves_versions_nodes_and_the_loaded_model_as_they_are(large, tmp_path):
    before = large.proto.SerializeToString()
    copy = onnx.load(expose(large, ["h", "h"], tmp_path / "elsewhere/a.onnx"), load_external_data=False)
    assert large.proto.SerializeToString() == before
    assert copy.ir_version == large.proto.ir_version
    assert list(copy.opset_import) == list(large.proto.opset_import)
    assert list(copy.graph.node) == list(large.proto.graph.node)
    assert [output.name for output in copy.graph.output] == ["y", "h"]
    assert copy.graph.output[1].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("name", ["w", "x", "nothing", ""])
def test_expose_of_what_no_node_computes_is_refused_and_writes_nothing(large, tmp_path, name):
    with pytest.raises(InvalidArgumentError, match="no node of the main graph computes"):
        expose(large, [name], tmp_path / "elsewhere/a.onnx")
    assert not (tmp_path / "elsewhere").exists()


def test_expose_hints_at_the_nearest_name(large, tmp_path):
    with pytest.raises(InvalidArgumentError, match="did you mean 'h'"):
        expose(large, ["hh"], tmp_path / "a.onnx")


def test_expose_of_a_sequence(write, tmp_path):
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0),
        helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=0),
    ]
    model = load_model(write(make_model(nodes, [value("x", [3])], [value("y", None)])))
    parts = run(expose(model, ["parts"], tmp_path / "out/a.onnx"), {"x": np.ones(3, np.float32)})["parts"]
    assert len(parts) == 3


@pytest.mark.parametrize("name", ["bvlc_alexnet", "inception_v1", "shufflenet", "squeezenet"])
def test_expose_every_tensor_of_a_light_model_keeps_its_output(tmp_path, name):
    model = load_model(LIGHT / f"light_{name}.onnx")
    feeds = random_feeds(model)
    names = [output for node in model.graph.nodes for output in node.outputs[:1]]
    outputs = run(expose(model, names, tmp_path / "all.onnx"), feeds)
    assert set(names) <= set(outputs)
    for output, expected in run(model.path, feeds).items():
        np.testing.assert_array_equal(outputs[output], expected)


def test_save_proto_whose_data_are_gone_is_refused(large, tmp_path):
    (large.external_files[0] if large.external_files else large.path).unlink()
    with pytest.raises(InvalidModelError, match=r"are missing|cannot be read"):
        save_proto(large.proto, large.path, tmp_path / "elsewhere/a.onnx")


def test_single_node_of_given_inputs(large, tmp_path):
    h = np.array([[-1, 2]], np.float32)
    copy = single_node_model(large, large.graph.nodes[1], {"h": h, "ignored": h}, tmp_path / "one/relu.onnx")
    assert run(copy, {"h": h})["y"].tolist() == [[0, 2]]
    proto = onnx.load(copy)
    assert [node.name for node in proto.graph.node] == ["Relu_0"]
    assert proto.ir_version == large.proto.ir_version
    assert list(proto.opset_import) == list(large.proto.opset_import)
    assert [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim] == [1, 2]
    onnx.checker.check_model(proto)


def test_single_node_keeps_a_weight_that_is_not_given(large, tmp_path):
    copy = single_node_model(large, large.graph.nodes[0], {"x": X}, tmp_path / "one/matmul.onnx")
    assert copy.stat().st_size < 2000
    np.testing.assert_allclose(run(copy, {"x": X})["h"], X @ WEIGHT, rtol=1e-4, atol=1e-2)


def test_single_node_takes_a_weight_that_is_given(large, tmp_path):
    feeds = {"x": X, "w": np.ones((64, 2), np.float32)}
    copy = single_node_model(large, large.graph.nodes[0], feeds, tmp_path / "one/matmul.onnx")
    np.testing.assert_allclose(run(copy, feeds)["h"], X @ feeds["w"], rtol=1e-4, atol=1e-4)
    assert [file.name for file in copy.parent.iterdir()] == ["matmul.onnx"]


def test_single_node_of_a_tensor_that_is_neither_given_nor_stored_is_refused(large, tmp_path):
    with pytest.raises(InvalidArgumentError, match="'Relu_0' reads 'h', which is neither given nor stored"):
        single_node_model(large, large.graph.nodes[1], {}, tmp_path / "one.onnx")


def test_single_node_of_another_model_is_refused(large, write, tmp_path):
    nodes = [helper.make_node("Exp", ["x"], ["y"], name="foreign")]
    other = load_model(write(make_model(nodes, [value("x", [1])], [value("y", [1])])))
    with pytest.raises(InvalidArgumentError, match="has no node 'foreign'"):
        single_node_model(large, other.graph.nodes[0], {"x": X}, tmp_path / "one.onnx")


@pytest.fixture
def branching(write):
    """y = c ? −late : |x|, where late = exp(x) is captured."""
    then = helper.make_graph([helper.make_node("Neg", ["late"], ["t"])], "then", [], [value("t", None)])
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["e"])], "other", [], [value("e", None)])
    nodes = [
        helper.make_node("Exp", ["x"], ["late"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    inputs = [value("x", [2]), value("c", [], TensorProto.BOOL)]
    return load_model(write(make_model(nodes, inputs, [value("y", None)])))


@pytest.mark.parametrize("condition", [True, False])
def test_single_node_with_subgraphs_takes_their_captures_as_inputs(branching, tmp_path, condition):
    feeds = {"c": np.array(condition), "late": np.array([1, 2], np.float32), "x": np.array([-3, 4], np.float32)}
    copy = single_node_model(branching, branching.graph.nodes[1], feeds, tmp_path / "if.onnx")
    assert run(copy, feeds)["y"].tolist() == ([-1, -2] if condition else [3, 4])


def test_single_node_of_a_subgraph(branching, tmp_path):
    node = branching.graph.nodes[1].attributes["else_branch"].nodes[0]
    feeds = {"x": np.array([-3, 4], np.float32)}
    assert run(single_node_model(branching, node, feeds, tmp_path / "abs.onnx"), feeds)["e"].tolist() == [3, 4]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 1)])
def test_single_node_of_any_shape(branching, tmp_path, shape):
    feeds = {"x": np.zeros(shape, np.float32)}
    outputs = run(single_node_model(branching, branching.graph.nodes[0], feeds, tmp_path / "exp.onnx"), feeds)
    np.testing.assert_array_equal(outputs["late"], np.ones(shape, np.float32))


def test_single_node_of_a_sequence(write, tmp_path):
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0),
        helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=0),
    ]
    model = load_model(write(make_model(nodes, [value("x", [3])], [value("y", None)])))
    feeds = {"parts": [np.ones(2, np.float32), np.zeros(1, np.float32)]}
    copy = single_node_model(model, model.graph.nodes[1], feeds, tmp_path / "one.onnx")
    assert run(copy, feeds)["y"].tolist() == [1, 1, 0]


def test_single_node_lists_initializers_as_inputs_where_the_ir_version_asks_for_it(write, tmp_path):
    proto = matmul_model()
    proto.ir_version = 3
    proto.graph.input.append(value("w", [4, 5]))
    proto.opset_import[0].version = 8
    model = load_model(write(proto))
    copy = onnx.load(single_node_model(model, model.graph.nodes[0], {"x": X[:, :4]}, tmp_path / "one.onnx"))
    assert [declared.name for declared in copy.graph.input] == ["x", "w"]
    onnx.checker.check_model(copy)


def test_single_node_keeps_a_sparse_initializer(write, tmp_path):
    proto = make_model([helper.make_node("Add", ["x", "s"], ["y"])], [value("x", [3])], [value("y", [3])])
    values = numpy_helper.from_array(np.array([5], np.float32), "s")
    indices = numpy_helper.from_array(np.array([1], np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    model = load_model(write(proto))
    feeds = {"x": np.ones(3, np.float32)}
    copy = single_node_model(model, model.graph.nodes[0], feeds, tmp_path / "one.onnx")
    assert run(copy, feeds)["y"].tolist() == [1, 6, 1]


def test_single_node_of_a_type_that_is_no_array_is_refused(large, tmp_path):
    with pytest.raises(InvalidArgumentError, match="'h' is given as float"):
        single_node_model(large, large.graph.nodes[1], {"h": 1.0}, tmp_path / "one.onnx")
