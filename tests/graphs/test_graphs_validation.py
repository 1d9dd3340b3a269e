"""What is no usable model: one clear line that names the file, what is wrong and what is allowed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_arch.errors import InvalidModelError
from onnx_arch.graphs.loading import load_model

from .small_models import make_model, matmul_model, value

NEWEST = onnx.defs.onnx_opset_version()


def refusal(path: Path) -> str:
    """The message with which a path is refused: one line that begins with the path."""
    with pytest.raises(InvalidModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def with_nodes(*nodes: NodeProto, opset: int = 18, **weights: np.ndarray) -> onnx.ModelProto:
    """A model of these nodes from x (2, 3) to y."""
    return make_model(nodes, [value("x", [2, 3])], [value("y", None)], opset=opset, weights=weights)


def relu(read: str, write: str, name: str = "") -> NodeProto:
    return helper.make_node("Relu", [read], [write], name=name)


def test_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "model.onnx")


def test_folder_without_model(tmp_path):
    assert "a folder without model.onnx" in refusal(tmp_path)


def test_fifo(tmp_path):
    os.mkfifo(tmp_path / "model.onnx")
    assert "not a regular file" in refusal(tmp_path / "model.onnx")


def test_name_with_a_zero_byte(tmp_path):
    with pytest.raises(InvalidModelError, match=r"a\\x00b: no such file"):
        load_model(tmp_path / "a\0b")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"this is a text file\n" * 40, "no ONNX model"),
        (b'{"model": 1}', "no ONNX model"),
        (b"\x08\x08", "it has no graph"),
        (b"\xff" * 64, "truncated or not protobuf"),
        (onnx.GraphProto(name="g").SerializeToString(), "no ONNX model"),
    ],
    ids=["empty", "text", "json", "no graph", "ones", "another message"],
)
def test_content_that_is_no_model(write, content, says):
    assert says in refusal(write(content))


def test_file_above_the_limit_of_protobuf(write):
    file = write(matmul_model())
    os.truncate(file, 2**31)
    assert "2147483648 bytes; an .onnx file has at most 2147483647" in refusal(file)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(write, kept):
    content = matmul_model(40, 40).SerializeToString()
    assert "truncated" in refusal(write(content[: int(len(content) * kept)]))


def graph_without_outputs() -> onnx.ModelProto:
    model = with_nodes(relu("x", "y"))
    model.graph.ClearField("output")
    return model


def opset_twice() -> onnx.ModelProto:
    model = with_nodes(relu("x", "y"))
    model.opset_import.append(helper.make_opsetid("ai.onnx", 17))
    return model


def without_imports() -> onnx.ModelProto:
    model = with_nodes(relu("x", "y"))
    model.ClearField("opset_import")
    return model


def newer_ir() -> onnx.ModelProto:
    model = with_nodes(relu("x", "y"))
    model.ir_version = onnx.IR_VERSION + 1
    return model


def two_attributes() -> onnx.ModelProto:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    node.attribute.append(helper.make_attribute("axis", 0))
    return with_nodes(node)


def reference_outside_function() -> onnx.ModelProto:
    node = helper.make_node("Softmax", ["x"], ["y"])
    node.attribute.add(name="axis", ref_attr_name="axis", type=onnx.AttributeProto.INT)
    return with_nodes(node)


def nested_undefined() -> onnx.ModelProto:
    then = helper.make_graph([relu("nowhere", "t", "inner")], "then", [], [value("t", None)])
    other = helper.make_graph([relu("x", "e")], "other", [], [value("e", None)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    return with_nodes(node, c=np.array(True))


def dim_of(size: int) -> onnx.ModelProto:
    return make_model([relu("x", "y")], [value("x", [size])], [value("y", None)])


def named_in_latin_1() -> bytes:
    content = with_nodes(relu("x", "tensor_name"), relu("tensor_name", "y")).SerializeToString()
    return content.replace(b"tensor_name", b"tensor\xffname")


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    "no outputs": (graph_without_outputs, "its graph has no outputs"),
    "newer opset": (
        lambda: with_nodes(relu("x", "y"), opset=NEWEST + 1),
        f"imports opset {NEWEST + 1} of domain 'ai.onnx'",
    ),
    "newer opset, allowed": (lambda: with_nodes(relu("x", "y"), opset=99), f"knows 1 to {NEWEST}"),
    "opset 0": (lambda: with_nodes(relu("x", "y"), opset=0), "imports opset 0"),
    "negative opset": (lambda: with_nodes(relu("x", "y"), opset=-3), "imports opset -3"),
    "opset beyond 32 bits": (lambda: with_nodes(relu("x", "y"), opset=2**40), f"knows 1 to {NEWEST}"),
    "two opsets": (opset_twice, "imports domain 'ai.onnx' twice, as opset 18 and 17"),
    "no imports": (without_imports, "'Relu_0' (Relu) is of domain 'ai.onnx', which the model does not import (none)"),
    "newer IR": (newer_ir, f"IR version {onnx.IR_VERSION + 1}"),
    "domain not imported": (
        lambda: with_nodes(helper.make_node("Secret", ["x"], ["y"], domain="vendor")),
        "'Secret_0' (Secret) is of domain 'vendor', which the model does not import (domain 'ai.onnx')",
    ),
    "unknown operator": (
        lambda: with_nodes(helper.make_node("Rellu", ["x"], ["y"], name="act")),
        "node 'act' (Rellu): domain 'ai.onnx' has no operator 'Rellu'",
    ),
    "operator of a later opset": (
        lambda: with_nodes(helper.make_node("Gelu", ["x"], ["y"]), opset=18),
        "node 'Gelu_0' (Gelu): domain 'ai.onnx' has no operator 'Gelu' at opset 18, only later",
    ),
    "deprecated operator": (
        lambda: with_nodes(helper.make_node("Upsample", ["x", "x"], ["y"]), opset=18),
        "domain 'ai.onnx' deprecated Upsample in opset 10, imported is 18",
    ),
    "no operator": (lambda: with_nodes(helper.make_node("", ["x"], ["y"], name="n")), "node 'n' has no op_type"),
    "unknown attribute": (
        lambda: with_nodes(helper.make_node("Softmax", ["x"], ["y"], dim=1)),
        "node 'Softmax_0' (Softmax) has the attribute 'dim'; Softmax since 13 knows axis",
    ),
    "attribute of another type": (
        lambda: with_nodes(helper.make_node("Softmax", ["x"], ["y"], axis=1.0)),
        "attribute 'axis' is of type FLOAT; allowed is INT",
    ),
    "attribute twice": (two_attributes, "two attributes named 'axis'"),
    "attribute of a function": (reference_outside_function, "attribute 'axis' refers to 'axis' of a function"),
    "required attribute left out": (
        lambda: with_nodes(helper.make_node("Cast", ["x"], ["y"])),
        "required attribute to",
    ),
    "too few inputs": (lambda: with_nodes(helper.make_node("Add", ["x"], ["y"])), "has 1 inputs; allowed are 2"),
    "too many inputs": (
        lambda: with_nodes(helper.make_node("Clip", ["x"] * 4, ["y"])),
        "has 4 inputs; allowed are 1 to 3",
    ),
    "no input of many": (lambda: with_nodes(helper.make_node("Concat", [], ["y"], axis=0)), "allowed are 1 or more"),
    "needed input left out": (
        lambda: with_nodes(helper.make_node("Add", ["", "x"], ["y"])),
        "leaves out its input 'A'",
    ),
    "too many outputs": (
        lambda: with_nodes(helper.make_node("Add", ["x", "x"], ["y", "z"])),
        "has 2 outputs; allowed are 1",
    ),
    "undefined tensor": (
        lambda: with_nodes(relu("nowhere", "y", "first")),
        "node 'first' (Relu) reads 'nowhere', which no node, input or initializer defines",
    ),
    "undefined output": (lambda: with_nodes(relu("x", "z")), "reads 'y', which no node, input or initializer defines"),
    "undefined tensor in a subgraph": (nested_undefined, "node 'inner' (Relu) reads 'nowhere'"),
    "cycle": (
        lambda: with_nodes(
            helper.make_node("Add", ["x", "c"], ["a"], name="p"),
            relu("a", "b", "q"),
            relu("b", "c", "r"),
            relu("c", "y", "s"),
        ),
        "its nodes form a cycle: 'p' (Add) -> 'q' (Relu) -> 'r' (Relu) -> 'p' (Add)",
    ),
    "node that reads itself": (lambda: with_nodes(relu("y", "y", "n")), "form a cycle: 'n' (Relu) -> 'n' (Relu)"),
    "output of two nodes": (
        lambda: with_nodes(relu("x", "y", "p"), relu("x", "y", "q")),
        "'y' is an output of both 'p' (Relu) and 'q' (Relu)",
    ),
    "output that is an input": (
        lambda: with_nodes(relu("x", "x"), relu("x", "y")),
        "and an input or initializer as well",
    ),
    "two inputs of one name": (
        lambda: make_model([relu("x", "y")], [value("x", [2]), value("x", [3])], [value("y", None)]),
        "two inputs named 'x'",
    ),
    "input without a name": (
        lambda: make_model([relu("x", "y")], [value("x", [2]), value("", [3])], [value("y", None)]),
        "an input without a name",
    ),
    "negative dim": (lambda: dim_of(-2), "'x' declares a dim of -2"),
    "impossible dim": (lambda: dim_of(2**60), "'x' declares a dim of 1152921504606846976"),
    "name in another encoding": (named_in_latin_1, "not UTF-8"),
}


@pytest.mark.parametrize("case", MODELS)
def test_broken_model(write, case):
    build, says = MODELS[case]
    assert says in refusal(write(build()))


TENSORS: dict[str, tuple[TensorProto, str]] = {
    "10^12 elements in 4 bytes": (
        TensorProto(name="w", data_type=1, dims=[10**6, 10**6], raw_data=b"\0" * 4),
        "takes 4000000000000 bytes, the file holds 4",
    ),
    "product beyond 64 bits": (TensorProto(name="w", data_type=1, dims=[2**40, 2**40], raw_data=b""), "is too large"),
    "zero times too much": (TensorProto(name="w", data_type=1, dims=[0, 2**40, 2**40], raw_data=b""), "is too large"),
    "negative dim": (TensorProto(name="w", data_type=1, dims=[-1], raw_data=b"\0" * 4), "[-1] has a negative dim"),
    "rank 65": (TensorProto(name="w", data_type=1, dims=[1] * 65, raw_data=b"\0" * 4), "rank 65; at most 64"),
    "raw data too long": (
        TensorProto(name="w", data_type=1, dims=[2], raw_data=b"\0" * 12),
        "takes 8 bytes, the file holds 12",
    ),
    "large raw data too short": (
        TensorProto(name="w", data_type=1, dims=[5000], raw_data=b"\0" * 8000),
        "take 20000 bytes, the file holds 8000",
    ),
    "typed data too short": (
        TensorProto(name="w", data_type=7, dims=[3], int64_data=[1]),
        "takes 3 entries of int64_data",
    ),
    "data of another field": (TensorProto(name="w", data_type=1, dims=[1], int32_data=[1]), "the file holds 0"),
    "packed data too short": (TensorProto(name="w", data_type=22, dims=[5], raw_data=b"\0\0"), "takes 3 bytes"),
    "strings missing": (
        TensorProto(name="w", data_type=8, dims=[2], string_data=[b"a"]),
        "take 2 entries of string_data",
    ),
    "unknown type": (TensorProto(name="w", data_type=77, dims=[1], raw_data=b"\0"), "element type 77 is unknown"),
    "no type": (TensorProto(name="w", dims=[1], raw_data=b"\0"), "element type 0 is unknown"),
    "segment": (
        TensorProto(name="w", data_type=1, dims=[1], segment=TensorProto.Segment(begin=0, end=1)),
        "stored in segments",
    ),
}


@pytest.mark.parametrize("place", ["initializer", "attribute"])
@pytest.mark.parametrize("case", TENSORS)
def test_broken_tensor(write, case, place):
    tensor, says = TENSORS[case]
    model = with_nodes(relu("w", "y"))
    if place == "initializer":
        model.graph.initializer.append(tensor)
    else:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    message = refusal(write(model))
    assert says in message
    assert "'w'" in message


@pytest.mark.parametrize(
    ("dims", "indices", "says"),
    [
        ([2, 3], [0, 6], "an index outside its shape [2, 3]"),
        ([2, 3], [-1, 0], "an index outside its shape"),
        ([2, 3], [1], "2 values of rank 1 with int64 indices [1]"),
        ([2, 3], [[0, 0, 0], [0, 0, 0]], "allowed are int64 (2,) or (2, 2)"),
        ([10**7, 10**6], [0, 1], "takes 40000000000000 bytes written out"),
    ],
)
def test_broken_sparse_initializer(write, dims, indices, says):
    model = with_nodes(relu("w", "y"))
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    model.graph.sparse_initializer.add(
        values=values, indices=numpy_helper.from_array(np.array(indices, np.int64)), dims=dims
    )
    assert says in refusal(write(model))


def nested_ifs(depth: int) -> bytes:
    """Serialized by hand: the library refuses to write what lies too deep."""

    def field(number: int, payload: bytes) -> bytes:
        length, size = b"", len(payload)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        tag = number << 3 | 2
        return bytes([tag]) + length + bytes([size]) + payload

    graph = field(1, relu("x", "y").SerializeToString()) + field(12, value("y", None).SerializeToString())
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute)) + field(
            12, b"\n\x01y"
        )
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x12")


@pytest.mark.parametrize("depth", [20, 50, 5000])
def test_deeply_nested_subgraphs_give_one_line(write, depth):
    message = refusal(write(nested_ifs(depth)))
    assert ("truncated or not protobuf" in message) == (depth > 20)
