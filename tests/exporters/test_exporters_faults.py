"""Wrong translations are caught, each with its output, its size and its node; the right one beside each is not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_arch.exporters import export as exporting
from onnx_arch.exporters.description import problems, result_lines
from onnx_arch.exporters.export import export_architecture, export_module
from onnx_arch.exporters.proof import LARGEST_RMS_Z, Standing

FILE = Path(__file__).resolve().with_name("wrong_translations.py")


def load(file):
    found = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


CASES = load(FILE).CASES


SMALL = ("attribute changed", "constant changed", "epsilon dropped")
"""Faults of which bfloat16, were it rounded everywhere, would hide every trace."""


@pytest.mark.parametrize(
    ("fault", "dtype"), [*((fault, "float32") for fault in CASES), *((fault, "bfloat16") for fault in SMALL)]
)
def test_wrong_translation_is_named_with_output_size_and_node(tmp_path, fault, dtype):
    factory, operator, translation, op_type, word = CASES[fault]
    target = tmp_path / "out"
    bundle = export_module(
        f"{FILE}:{factory}", target, dtype=dtype, opset=22, dynamic=["batch"], translations={operator: translation}
    )
    assert (bundle.translation, bundle.is_wrong, bundle.written) == (Standing.FAILED, True, False)
    assert not (target / factory).exists()
    proof = bundle.proofs[0]
    comparison = proof.shapes[1].graph.comparisons[0]
    assert (comparison.output, comparison.standing) == ("output", Standing.FAILED)
    assert comparison.rms_z > 10 * LARGEST_RMS_Z
    assert (proof.divergence.op_type, word in proof.divergence.torch_operator) == (op_type, True)
    text = "\n".join(problems(proof))
    assert "output output: the graph gives" in text
    assert f"from node {proof.divergence.node} ({op_type}" in text
    if dtype == "float32":
        assert bundle.runtime is Standing.FAILED


@pytest.mark.parametrize("factory", sorted({case[0] for case in CASES.values()}))
def test_the_same_module_translated_rightly_is_proved(tmp_path, factory):
    bundle = export_module(f"{FILE}:{factory}", tmp_path, opset=22, dynamic=["batch"])
    assert (bundle.translation, bundle.runtime, bundle.written) == (Standing.PASSED, Standing.PASSED, True)


def edit(monkeypatch, change):
    """Let `change` edit every model after it was written, before it is proved."""
    write = exporting.write_model

    def edited(model, path, **options):
        files = write(model, path, **options)
        proto = onnx.load(path)
        change(proto.graph)
        onnx.save(proto, path)
        return files

    monkeypatch.setattr(exporting, "write_model", edited)


def test_weight_off_by_a_thousandth_is_caught_in_the_node_that_uses_it(tmp_path, monkeypatch):
    def change(graph):
        tensor = next(tensor for tensor in graph.initializer if tensor.name == "features.7.weight")
        values = numpy_helper.to_array(tensor).copy()
        values[0, 0, 0, 0] *= 1.001
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edit(monkeypatch, change)
    bundle = export_architecture("vgg16", tmp_path, preset="tiny")
    assert bundle.translation is Standing.FAILED
    assert bundle.proofs[0].divergence.node == "features.7/Conv"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("transposed", [False, True])
def test_parameter_whose_last_bit_changed_is_caught_though_rounding_moves_outputs_further(
    tmp_path, monkeypatch, transposed
):
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        f"    def forward(self, x): return x @ self.weight{'.T' if transposed else ''} + self.bias\n"
        "def make(): return Net(3, 3), (torch.randn(2, 3),)\n"
    )

    def change(graph):
        tensor = next(tensor for tensor in graph.initializer if tensor.name.startswith("weight"))
        values = numpy_helper.to_array(tensor).copy()
        values[2, 1] = np.nextafter(values[2, 1], np.float32(9))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edit(monkeypatch, change)
    bundle = export_module(f"{tmp_path / 'net.py'}:make", tmp_path / "out")
    assert (bundle.translation, bundle.written) == (Standing.FAILED, False)
    (line,) = problems(bundle.proofs[0])
    named = "weight_transposed" if transposed else "weight"
    assert f"initializer {named} (read by node MatMul) is not the module's weight: it holds" in line
    assert "at [2, 1]" in line


def test_padding_of_a_strided_convolution_shifted_is_caught(tmp_path, monkeypatch):
    def change(graph):
        node = next(node for node in graph.node if node.name == "layer2.0.conv1/Conv")
        pads = next(attribute for attribute in node.attribute if attribute.name == "pads")
        pads.ints[:] = [0, 0, 2, 2]

    edit(monkeypatch, change)
    bundle = export_architecture("resnet18", tmp_path, preset="tiny")
    assert (bundle.translation, bundle.runtime) == (Standing.FAILED, Standing.FAILED)
    assert bundle.proofs[0].divergence.node == "layer2.0.conv1/Conv"


def test_batch_frozen_inside_the_graph_is_caught_though_the_example_agrees(tmp_path, monkeypatch):
    def change(graph):
        shape = next(tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT64)
        values = numpy_helper.to_array(shape).copy()
        assert values[0] == -1
        values[0] = 2
        shape.CopyFrom(numpy_helper.from_array(values, shape.name))

    edit(monkeypatch, change)
    bundle = export_architecture("vgg16", tmp_path, preset="tiny")
    standings = {shape.sizes["batch"]: shape.graph.standing for shape in bundle.proofs[0].shapes}
    assert standings == {2: Standing.PASSED, 1: Standing.ERRORED, 3: Standing.ERRORED}
    assert bundle.is_wrong
    assert any("cannot be evaluated where the module can" in line for line in problems(bundle.proofs[0]))


def test_another_output_type_is_caught(tmp_path, monkeypatch):
    def change(graph):
        last = graph.output[0]
        graph.node.append(onnx.helper.make_node("Cast", ["logits_inner"], ["logits"], name="late", to=11))
        for node in graph.node[:-1]:
            node.output[:] = ["logits_inner" if name == "logits" else name for name in node.output]
        last.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    edit(monkeypatch, change)
    bundle = export_architecture("mlp", tmp_path, preset="tiny")
    assert (bundle.translation, bundle.runtime) == (Standing.FAILED, Standing.FAILED)
    assert "the graph declares float64, the module gives float32" in "\n".join(problems(bundle.proofs[0]))


def test_difference_in_tracing_is_not_blamed_on_a_node(tmp_path):
    source = """
import torch
class Counts(torch.nn.Module):
    calls = 0
    def forward(self, x):
        Counts.calls += 1
        return x * (1.0 if torch.compiler.is_exporting() else 2.0)
def make():
    return Counts(), (torch.randn(2, 3),)
"""
    (tmp_path / "counts.py").write_text(source)
    bundle = export_module(f"{tmp_path / 'counts.py'}:make", tmp_path / "out")
    assert bundle.translation is Standing.FAILED
    divergence = bundle.proofs[0].divergence
    assert divergence.node == ""
    assert "tracing the module (torch.export) has changed it" in divergence.message


def test_result_of_a_wrong_export_says_so_for_a_person(tmp_path):
    factory, operator, translation, *_ = CASES["operands of Div swapped"]
    bundle = export_module(f"{FILE}:{factory}", tmp_path, translations={operator: translation})
    lines = list(result_lines(bundle))
    assert lines[0].startswith("division: WRONG, nothing was written")
    assert any(line.lstrip().startswith("from node Div (Div, translated from aten.div.Tensor) on:") for line in lines)
    assert np.isfinite(bundle.proofs[0].shapes[0].graph.comparisons[0].rms_error)
