"""Random damage to a model that has everything: it loads, or is refused in one line; nothing else ever happens."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.errors import InvalidModelError
from onnx_arch.graphs.loading import load_model

from .small_models import make_model, value


def rich_model() -> bytes:
    """Functions, subgraphs, sparse, packed, text and large tensors in one model."""
    twice = helper.make_function(
        "my", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    branches = {
        name: helper.make_graph([helper.make_node(op, ["h"], [name])], name, [], [value(name, None)])
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Twice", ["m"], ["h"], domain="my"),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["c"], ["z"], **branches),
        helper.make_node("Add", ["z", "s"], ["y"]),
        helper.make_node("Cast", ["packed"], ["v"], to=1),
        helper.make_node("StringNormalizer", ["text"], ["u"], case_change_action="LOWER"),
    ]
    weights = {"w": np.ones((3, 40), np.float32), "large": np.ones(2000, np.float32)}
    outputs = [value("y", ["n", 40]), value("v", None), value("u", None, TensorProto.STRING)]
    model = make_model(nodes, [value("x", ["n", 3])], outputs, weights=weights, ir_version=10)
    model.graph.initializer.append(helper.make_tensor("packed", TensorProto.INT4, [3], [1, 2, 3]))
    model.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"A", b"b"]))
    values = numpy_helper.from_array(np.ones(2, np.float32), "s")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 3], np.int64), "i"), [40])
    )
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("my", 1))
    return model.SerializeToString()


def damaged(content: bytes, rng: random.Random) -> bytes:
    damage = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(damage))
        match rng.randrange(4):
            case 0:
                damage[place] ^= 1 << rng.randrange(8)
            case 1:
                damage[place] = rng.randrange(256)
            case 2:
                del damage[place : place + rng.randrange(1, 9)]
            case _:
                damage[place:place] = rng.randbytes(rng.randrange(1, 5))
    return bytes(damage)


def test_rich_model_is_whole_before_it_is_damaged(write):
    assert [node.op_type for node in load_model(write(rich_model())).graph.nodes][:2] == ["MatMul", "Add"]


def outcome(path: Path) -> str:
    """What became of a damaged file: "loaded", or the message that refuses it."""
    try:
        load_model(path)
    except InvalidModelError as error:
        return str(error)
    return "loaded"


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_loads_or_gives_one_line(write, seed):
    rng, content = random.Random(seed), rich_model()  # noqa: S311 (damage, not secrets)
    outcomes = [outcome(write(damaged(content, rng))) for _ in range(400)]
    assert all(message.isprintable() for message in outcomes)
    assert 10 < outcomes.count("loaded") < 390
