"""Loading: real files, old and new versions, weights in every form, functions, names, order."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from onnx_arch.errors import InvalidModelError
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Graph

from .small_models import make_model, matmul_model, value

DATA = Path(onnx.__file__).parent / "backend/test/data"
LIGHT = sorted(DATA.glob("light/*.onnx"))
SHIPPED = sorted(file for folder in ("simple", "pytorch-operator") for file in DATA.glob(f"{folder}/*/model.onnx"))
NODE_COUNTS = {"light_bvlc_alexnet": 40, "light_densenet121": 1746, "light_resnet50": 415, "light_vgg19": 82}


def test_shipped_models_are_there():
    assert len(LIGHT) == 9
    assert len(SHIPPED) > 20


@pytest.mark.parametrize("file", LIGHT, ids=lambda file: file.stem)
def test_load_light_model_keeps_every_node_in_order(file):
    model, proto = load_model(file), onnx.load(file)
    assert [node.op_type for node in model.graph.nodes] == [node.op_type for node in proto.graph.node]
    assert [node.outputs for node in model.graph.nodes] == [tuple(node.output) for node in proto.graph.node]
    assert len({node.name for node in model.graph.nodes}) == len(proto.graph.node)
    assert len(proto.graph.node) == NODE_COUNTS.get(file.stem, len(proto.graph.node))
    assert model.opsets == {"": 9}
    for tensor in proto.graph.initializer:
        np.testing.assert_array_equal(model.graph.initializers[tensor.name], numpy_helper.to_array(tensor))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parent.name)
def test_load_shipped_model_gives_its_declared_inputs(file):
    model, proto = load_model(file), onnx.load(file)
    assert [spec.name for spec in model.graph.inputs] == [declared.name for declared in proto.graph.input]
    assert len(model.graph.nodes) == len(proto.graph.node)


def test_load_every_model_of_the_node_tests_of_onnx(write):
    with warnings.catch_warnings(action="ignore"):  # making the expected outputs divides by zero on purpose
        cases = collect_testcases(None)
    refused = {}
    for case in cases:
        try:
            model = load_model(write(case.model))
            assert [spec.name for spec in model.graph.inputs] == [each.name for each in case.model.graph.input]
        except InvalidModelError as error:
            refused[case.name] = str(error)
    assert len(cases) > 1500
    assert refused == {}


def test_load_bundle_folder_reads_its_model(write):
    file = write(matmul_model())
    assert load_model(file.parent).path == file


def test_load_digest_covers_model_and_external_data(tmp_path):
    file = tmp_path / "model.onnx"
    onnx.save(matmul_model(64, 64), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = load_model(file)
    contents = file.read_bytes() + (tmp_path / "weights.bin").read_bytes()
    assert model.sha256 == hashlib.sha256(contents).hexdigest()
    assert model.size_bytes == len(contents)
    assert model.external_files == (tmp_path / "weights.bin",)
    np.testing.assert_array_equal(model.graph.initializers["w"], np.arange(4096, dtype=np.float32).reshape(64, 64))


@pytest.mark.parametrize("opset", [1, 6, 9, 13, 17, 21, onnx.defs.onnx_opset_version()])
def test_load_any_opset(write, opset):
    file = write(
        make_model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2])], [value("y", [2])], opset=opset)
    )
    assert load_model(file).graph.nodes[0].opset == opset


@pytest.mark.parametrize("ir_version", range(3, onnx.IR_VERSION + 1))
def test_load_any_ir_version(write, ir_version):
    model = matmul_model()
    model.ir_version = ir_version
    assert load_model(write(model)).proto.ir_version == ir_version


def test_load_without_imports_at_ir_version_2_means_opset_1(write):
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2])], [value("y", [2])], ir_version=2)
    model.ClearField("opset_import")
    assert load_model(write(model)).opsets == {"": 1}


def test_load_attributes_become_python_values(write):
    then = helper.make_graph([helper.make_node("Neg", ["x"], ["t"])], "then", [], [value("t", None)])
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["e"])], "other", [], [value("e", None)])
    nodes = [
        helper.make_node("If", ["c"], ["a"], then_branch=then, else_branch=other),
        helper.make_node("Conv", ["a", "w"], ["b"], auto_pad="SAME_UPPER", strides=[1, 1], name="conv"),
        helper.make_node("LeakyRelu", ["b"], ["d"], alpha=0.25),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(3, dtype=np.int64))),
        helper.make_node("Constant", [], ["s"], value_strings=["a", "ü"]),
    ]
    file = write(
        make_model(
            nodes,
            [value("x", [1, 1, 4, 4]), value("c", [], TensorProto.BOOL)],
            [value("d", None)],
            weights={"w": np.ones((1, 1, 3, 3), np.float32)},
        )
    )
    branch, conv, leaky, constant, strings = load_model(file).graph.nodes
    assert isinstance(branch.attributes["then_branch"], Graph)
    assert branch.attributes["then_branch"].nodes[0].op_type == "Neg"
    assert branch.attributes["then_branch"].nodes[0].inputs == ("x",)
    assert conv.attributes == {"auto_pad": "SAME_UPPER", "strides": [1, 1]}
    assert leaky.attributes == {"alpha": 0.25}
    np.testing.assert_array_equal(constant.attributes["value"], [0, 1, 2])
    assert strings.attributes == {"value_strings": ["a", "ü"]}


PLAIN = np.array([[0, 1, 2], [3, 4, 5]])
TYPES = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.FLOAT4E2M1: ml_dtypes.float4_e2m1fn,
    TensorProto.INT4: ml_dtypes.int4,
    TensorProto.UINT4: ml_dtypes.uint4,
    TensorProto.INT8: np.int8,
    TensorProto.UINT16: np.uint16,
    TensorProto.INT32: np.int32,
    TensorProto.UINT64: np.uint64,
    TensorProto.COMPLEX64: np.complex64,
}


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("code", TYPES, ids=TensorProto.DataType.Name)
def test_load_initializer_of_any_type(write, code, raw):
    expected = np.where(PLAIN == 5, 6, PLAIN).astype(TYPES[code])  # 5 has no 4-bit float
    stored = numpy_helper.from_array(expected, "w")
    if not raw:
        stored = helper.make_tensor("w", code, [2, 3], expected.reshape(-1).tolist())
    model = make_model([helper.make_node("Identity", ["w"], ["y"])], [], [value("y", None, code)], ir_version=12)
    model.graph.initializer.append(stored)
    loaded = load_model(write(model)).graph.initializers["w"]
    assert loaded.dtype == np.dtype(TYPES[code])
    np.testing.assert_array_equal(loaded, expected)


def test_load_strings_keep_trailing_zero_characters_and_bytes_that_are_not_utf8(write):
    model = make_model([helper.make_node("Identity", ["w"], ["y"])], [], [value("y", None, TensorProto.STRING)])
    strings = [b"a\0", "ü".encode(), b"\xff"]
    model.graph.initializer.add(name="w", data_type=TensorProto.STRING, dims=[3], string_data=strings)
    loaded = load_model(write(model)).graph.initializers["w"]
    assert loaded.tolist() == ["a\0", "ü", "\udcff"]


def test_load_empty_and_scalar_initializers(write):
    weights = {"empty": np.zeros((0, 3), np.float32), "scalar": np.array(2.0, np.float32)}
    nodes = [helper.make_node("Add", ["empty", "scalar"], ["y"])]
    loaded = load_model(write(make_model(nodes, [], [value("y", [0, 3])], weights=weights))).graph.initializers
    assert loaded["empty"].shape == (0, 3)
    assert loaded["scalar"].shape == ()
    assert loaded["scalar"] == 2


@pytest.mark.parametrize("coordinates", [[1, 5], [[0, 1], [1, 2]]], ids=["linear", "coordinates"])
def test_load_sparse_initializer_is_written_out(write, coordinates):
    model = make_model([helper.make_node("Identity", ["w"], ["y"])], [], [value("y", [2, 3])])
    values = numpy_helper.from_array(np.array([7, 8], np.float32), "w")
    indices = numpy_helper.from_array(np.array(coordinates, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
    np.testing.assert_array_equal(load_model(write(model)).graph.initializers["w"], [[0, 7, 0], [0, 0, 8]])


def test_load_large_embedded_weight_is_mapped_and_not_in_the_proto(write):
    model = load_model(write(matmul_model(256, 256)))
    weight = model.graph.initializers["w"]
    np.testing.assert_array_equal(weight, np.arange(65536, dtype=np.float32).reshape(256, 256))
    assert not weight.flags.writeable
    assert model.proto.ByteSize() < 2000
    assert model.external_files == ()


def test_load_of_a_large_model_allocates_a_fraction_of_it(write):
    file = write(matmul_model(2000, 2000))
    tracemalloc.start()
    try:
        model = load_model(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert model.size_bytes > 16_000_000
    assert peak < 4_000_000  # two blocks of 1 MiB, for hashing


def test_load_embedded_weight_behind_a_link_to_the_model(write, tmp_path):
    stored = write(matmul_model(64, 64), "blob")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    os.symlink(stored, folder / "model.onnx")
    assert load_model(folder).graph.initializers["w"][63, 63] == 4095


def test_load_unnamed_nodes_by_type_and_order(write):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    model = load_model(write(make_model(nodes, [value("x", [2])], [value("y", [2])])))
    assert [node.name for node in model.graph.nodes] == ["Relu_0", "Neg_0", "Relu_1", "Neg_1"]
    assert [node.name for node in model.proto.graph.node] == ["Relu_0", "Neg_0", "Relu_1", "Neg_1"]


def test_load_duplicate_names_keep_the_first_and_number_the_rest(write):
    names = ["n", "n", "", "Relu_2", "n_1"]
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=name) for i, name in enumerate(names)]
    model = load_model(write(make_model(nodes, [value("t0", [2])], [value("t5", [2])])))
    assert [node.name for node in model.graph.nodes] == ["n", "n_2", "Relu_2_1", "Relu_2", "n_1"]


def test_load_subgraph_nodes_are_named_after_their_node(write):
    then = helper.make_graph([helper.make_node("Neg", ["x"], ["t"])], "then", [], [value("t", None)])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "other", [], [value("e", None)])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    file = write(make_model(nodes, [value("x", [2]), value("c", [], TensorProto.BOOL)], [value("y", None)]))
    node = load_model(file).graph.nodes[0]
    assert node.attributes["then_branch"].nodes[0].name == "If_0/then_branch/Neg_0"
    assert node.attributes["else_branch"].nodes[0].name == "If_0/else_branch/Neg_0"


def test_load_sorts_nodes_that_are_not_and_keeps_the_rest_in_place(write):
    nodes = [
        helper.make_node("Neg", ["b"], ["y"], name="last"),
        helper.make_node("Abs", ["x"], ["u"], name="aside"),
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Exp", ["a"], ["b"], name="middle"),
    ]
    model = load_model(write(make_model(nodes, [value("x", [2])], [value("y", [2]), value("u", [2])])))
    assert [node.name for node in model.graph.nodes] == ["aside", "first", "middle", "last"]
    assert [node.index for node in model.graph.nodes] == [0, 1, 2, 3]
    assert [node.name for node in model.proto.graph.node] == ["aside", "first", "middle", "last"]


def test_load_sorts_by_what_subgraphs_capture(write):
    then = helper.make_graph([helper.make_node("Neg", ["late"], ["t"])], "then", [], [value("t", None)])
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["e"])], "other", [], [value("e", None)])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Exp", ["x"], ["late"]),
    ]
    file = write(make_model(nodes, [value("x", [2]), value("c", [], TensorProto.BOOL)], [value("y", None)]))
    assert [node.op_type for node in load_model(file).graph.nodes] == ["Exp", "If"]


def function_model(*, function_opset: int = 18) -> onnx.ModelProto:
    twice = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", function_opset)],
    )
    fourfold = helper.make_function(
        "local",
        "Fourfold",
        ["a"],
        ["c"],
        [
            helper.make_node("Twice", ["a"], ["b"], domain="local"),
            helper.make_node("Twice", ["b"], ["c"], domain="local"),
        ],
        [helper.make_opsetid("", function_opset), helper.make_opsetid("local", 1)],
    )
    model = make_model(
        [helper.make_node("Fourfold", ["x"], ["y"], domain="local")], [value("x", [2])], [value("y", [2])]
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.extend([twice, fourfold])
    return model


@pytest.mark.parametrize("function_opset", [18, 17])
def test_load_inlines_nested_functions(write, function_opset):
    model = load_model(write(function_model(function_opset=function_opset)))
    assert [node.op_type for node in model.graph.nodes] == ["Add", "Add"]
    assert model.graph.nodes[0].inputs == ("x", "x")
    assert model.graph.nodes[1].outputs == ("y",)
    assert not model.proto.functions


def test_load_function_that_calls_itself_is_refused(write):
    model = function_model()
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "Fourfold", "local"
    with pytest.raises(InvalidModelError, match="calls itself"):
        load_model(write(model))


def test_load_functions_that_multiply_are_refused(write):
    model = make_model([helper.make_node("F0", ["x"], ["y"], domain="local")], [value("x", [2])], [value("y", [2])])
    model.opset_import.append(helper.make_opsetid("local", 1))
    for level in range(30):
        calls = [helper.make_node(f"F{level + 1}", ["a"], [f"b{i}"], domain="local") for i in range(10)]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
        model.functions.append(helper.make_function("local", f"F{level}", ["a"], ["b9"], calls, imports))
    with pytest.raises(InvalidModelError, match="nodes; at most 2000000 are taken"):
        load_model(write(model))


def test_load_unknown_operator_of_a_foreign_domain_is_kept(write):
    model = make_model(
        [helper.make_node("Secret", ["x"], ["y"], domain="vendor", n=1)], [value("x", [2])], [value("y", [2])]
    )
    model.opset_import.append(helper.make_opsetid("vendor", 3))
    node = load_model(write(model)).graph.nodes[0]
    assert (node.op_type, node.domain, node.opset, node.attributes) == ("Secret", "vendor", 3, {"n": 1})


def test_load_domain_ai_onnx_is_the_default_domain(write):
    model = make_model([helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")], [value("x", [2])], [value("y", [2])])
    assert load_model(write(model)).graph.nodes[0].domain == ""


def test_load_declared_shapes_keep_sizes_symbols_and_unknowns(write):
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], [value("x", ["n", 3, None, -1])], [value("y", None)])
    graph = load_model(write(model)).graph
    assert graph.inputs[0].shape == ("n", 3, None, None)
    assert graph.inputs[0].dtype == np.float32
    assert graph.outputs[0].shape is None


def test_load_sequence_and_optional_inputs_say_their_kind(write):
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    optional = helper.make_value_info("o", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2])))
    nodes = [
        helper.make_node("SequenceLength", ["s"], ["n"]),
        helper.make_node("OptionalHasElement", ["o"], ["b"]),
    ]
    model = make_model(nodes, [sequence, optional], [value("n", [], TensorProto.INT64)])
    assert [spec.kind for spec in load_model(write(model)).graph.inputs] == ["sequence", "optional"]


def test_load_graph_without_nodes(write):
    model = make_model([], [], [value("w", [2])], weights={"w": np.ones(2, np.float32)})
    assert load_model(write(model)).graph.nodes == ()
