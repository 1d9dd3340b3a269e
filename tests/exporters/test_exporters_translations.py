"""Which operators each PyTorch operation becomes at which opset, and that the graph is right; faults are caught."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnxscript.onnx_opset import opset18, opset23, opset24

from onnx_arch.errors import DuplicateEntryError, ExportError, InvalidArgumentError
from onnx_arch.exporters.export import export_module
from onnx_arch.exporters.opsets import raise_opset
from onnx_arch.exporters.proof import Standing
from onnx_arch.exporters.targets import NEWEST_OPSET
from onnx_arch.exporters.translations.table import translation, translation_table

FILE = Path(__file__).resolve().with_name("one_operator.py")
aten = torch.ops.aten


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Exports a module of `one_operator.py`; the same request is answered by the same bundle."""
    made = {}

    def answer(name, **options):
        key = repr((name, sorted(options.items())))
        if key not in made:
            made[key] = export_module(f"{FILE}:{name}", tmp_path_factory.mktemp("one"), **options)
        return made[key]

    return answer


def graph(bundle):
    return onnx.load(bundle.path / "model.onnx").graph


def operators(bundle):
    return [node.op_type for node in graph(bundle).node]


def assert_proved(bundle):
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)


SCORES = ["Transpose", "Mul", "MatMul", "Softmax", "MatMul"]
MASKED = ["Transpose", "Mul", "MatMul", "Add", "Softmax", "MatMul", "ReduceMax", "Equal", "Where"]
RMS = ["Mul", "Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
GROUPS = ["Reshape", "InstanceNormalization", "Shape", "Reshape", "Mul", "Add"]
PLAIN_GROUPS = ["ConstantOfShape", "ConstantOfShape", "GroupNormalization"]
TANH = ["Pow", "Mul", "Add", "Mul", "Tanh", "Add", "Mul", "Mul"]

BECOMES = {
    "attention": {18: SCORES, 22: SCORES, 23: ["Attention"], NEWEST_OPSET: ["Attention"]},
    "attention_scaled": {20: SCORES, 23: ["Attention"]},
    "attention_causal": {20: [*SCORES[:3], "Add", *SCORES[3:]], 23: ["Attention"], 24: ["Attention"]},
    "attention_causal_oblong": {20: [*SCORES[:3], "Add", *SCORES[3:]], 23: ["Attention"]},
    "attention_boolean_mask": {
        20: ["Where", *MASKED],
        23: ["Attention"],
    },
    "attention_padding_mask": {
        20: ["Where", *MASKED],
        23: ["Expand", "Attention"],
    },
    "attention_additive_mask": {20: MASKED, 23: ["Attention"]},
    "attention_of_rank_five": {20: SCORES, 23: SCORES},
    "layer_norm": {18: ["LayerNormalization"], NEWEST_OPSET: ["LayerNormalization"]},
    "layer_norm_plain": {18: ["LayerNormalization"]},
    "group_norm": {20: GROUPS, 21: ["GroupNormalization"], NEWEST_OPSET: ["GroupNormalization"]},
    "group_norm_plain": {20: GROUPS, 21: PLAIN_GROUPS},
    "rms_norm": {18: RMS, 22: RMS, 23: ["Mul", "RMSNormalization"], NEWEST_OPSET: ["Mul", "RMSNormalization"]},
    "rms_norm_plain": {20: RMS[:-1], 23: ["Mul", "RMSNormalization"]},
    "gelu": {19: ["Div", "Erf", "Add", "Mul", "Mul"], 20: ["Gelu"], NEWEST_OPSET: ["Gelu"]},
    "gelu_tanh": {19: TANH, 20: ["Gelu"]},
    "response_norm": {18: ["LRN"], NEWEST_OPSET: ["LRN"]},
    "silu": {18: ["Sigmoid", "Mul"], 23: ["Sigmoid", "Mul"], 24: ["Swish"], NEWEST_OPSET: ["Sigmoid", "Mul"]},
    "deconvolution": {18: ["ConvTranspose"], NEWEST_OPSET: ["ConvTranspose"]},
    "deconvolution_plain": {20: ["ConvTranspose"]},
    "unpool": {18: ["MaxPool", "Exp", "MaxUnpool"], NEWEST_OPSET: ["MaxPool", "Exp", "MaxUnpool"]},
    "unpool_overlapping": {20: ["MaxPool", "Exp", "MaxUnpool"]},
    "unpool_odd": {20: ["MaxPool", "Exp", "MaxUnpool"]},
    "unpool_padded": {20: ["MaxPool", "Exp", "MaxUnpool"]},
    "unpool_ceiled": {20: ["MaxPool", "Exp", "MaxUnpool"]},
    "unpool_every_step": {20: ["MaxPool", "Exp", "MaxUnpool"]},
    "unpool_by_default_size": {20: ["MaxPool", "Exp", "MaxUnpool"]},
}
"""By module, the operators of the graph at an opset, its batch left open."""


@pytest.mark.parametrize(("name", "opset"), [(name, opset) for name, at in BECOMES.items() for opset in at])
def test_operation_becomes_the_operators_of_its_opset_and_is_proved(export, name, opset):
    bundle = export(name, opset=opset, dynamic=("batch",))
    assert_proved(bundle)
    assert operators(bundle) == BECOMES[name][opset]
    assert bundle.manifest["opset"] == opset
    model = onnx.load(bundle.path / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        ("attention_without_heads", 20),
        ("attention_without_heads", 23),
        ("attention_broadcast", 20),
        ("attention_broadcast", 23),
        ("attention_grouped", 20),
        ("attention_grouped", 23),
        ("response_norm_even", 20),
        ("response_norm_of_another_square", 20),
        ("response_norm_of_rank_three", 20),
        ("response_norm_one_sided", 20),
        ("rotary", 22),
        ("rotary", 23),
        ("rotary_interleaved", 22),
        ("rotary_interleaved", NEWEST_OPSET),
        ("unpool_unbatched", 20),
        ("unpool_other_ranks", 20),
        ("unpool_of_some_channels", 20),
    ],
)
def test_operation_in_another_shape_is_proved(export, name, opset):
    bundle = export(name, opset=opset)
    assert_proved(bundle)
    assert "LRN" not in operators(bundle)
    if name.startswith("rotary"):
        assert (operators(bundle) == ["RotaryEmbedding"]) == (opset >= 23)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize(("name", "opset"), [("rms_norm_plain", 20), ("rms_norm_plain", 23)])
def test_epsilon_that_is_not_given_is_that_of_the_type(export, name, opset, dtype):
    bundle = export(name, opset=opset, dtype=dtype)
    assert bundle.translation is Standing.PASSED


UNPOOLED = [name for name in BECOMES if name.startswith("unpool")]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_reductions_of_narrow_types_give_their_own_type(export, dtype):
    """torch.onnx leaves them in float32, where PyTorch rounds them."""
    bundle = export("reductions", opset=20, dtype=dtype)
    assert (bundle.written, bundle.translation) == (True, Standing.PASSED)
    types = [output.type.tensor_type.elem_type for output in graph(bundle).output]
    own = onnx.TensorProto.FLOAT16 if dtype == "float16" else onnx.TensorProto.BFLOAT16
    assert types == [own] * 6 + [onnx.TensorProto.FLOAT]


def test_pool_and_unpool_are_joined_by_the_pools_own_indices(export):
    for name in UNPOOLED:
        nodes = graph(export(name, opset=20, dynamic=("batch",))).node
        assert nodes[2].input[1] == nodes[0].output[1]
        assert len(nodes[2].input) == 2


@pytest.mark.parametrize("name", [*UNPOOLED, "unpool_other_ranks", "unpool_of_some_channels", "unpool_unbatched"])
def test_scatter_is_the_same_without_max_unpool(export, name):
    bundle = export(name, opset=20, dynamic=("batch",), unpool="scatter")
    assert_proved(bundle)
    assert "MaxUnpool" not in operators(bundle)
    assert ("GatherElements" in operators(bundle)) == (name not in PLAIN_SCATTERS)


PLAIN_SCATTERS = {"unpool", "unpool_odd", "unpool_by_default_size", "unpool_unbatched"}
"""Windows that do not overlap put no two elements in one place."""


@pytest.mark.parametrize("unpool", ["native", "scatter"])
@pytest.mark.parametrize("name", ["unpool", "unpool_overlapping", "unpool_padded"])
def test_unpooling_of_any_height_and_width_is_proved_at_odd_ones_too(export, name, unpool):
    bundle = export(name, unpool=unpool, dynamic=("x.0=batch", "x.2=height", "x.3=width"))
    assert_proved(bundle)
    heights = {shape.sizes["height"] for shape in bundle.proofs[0].shapes}
    assert {height % 2 for height in heights} == {0, 1}
    assert ("MaxUnpool" in operators(bundle)) == (unpool == "native")


@pytest.mark.parametrize("dynamic", [("batch",), ("x.0=b", "switches.0=b", "x.2=h", "switches.2=h")])
@pytest.mark.parametrize("unpool", ["native", "scatter"])
def test_unpooling_with_switches_from_outside_is_proved(export, unpool, dynamic):
    bundle = export("unpool_given_switches", unpool=unpool, dynamic=dynamic)
    assert_proved(bundle)
    found = [node for node in graph(bundle).node if node.op_type == "MaxUnpool"]
    assert len(found) == (unpool == "native")
    for node in found:
        window = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        assert (window["kernel_shape"], window["strides"]) == ([2, 2], [2, 2])


def test_unpooled_picture_is_pytorchs_own(export):
    """ONNX Runtime, asked directly, about pictures with many ties."""
    found = importlib.util.spec_from_file_location("one_operator", FILE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    rng = np.random.default_rng(5)
    for name in UNPOOLED:
        network, (_, C, H, W) = getattr(module, name)()[0].eval(), getattr(module, name)()[1].shape
        x = rng.integers(-2, 3, (5, C, H, W)).astype(np.float32)
        with torch.no_grad():
            wanted = network(torch.from_numpy(x)).numpy()
        for unpool, options in (("native", {}), ("scatter", {"unpool": "scatter"})):
            path = export(name, opset=20, dynamic=("batch",), **options).path / "model.onnx"
            (actual,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
            np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=0, err_msg=f"{name} {unpool}")


def swish_without_gate(x):
    return opset24.Swish(opset18.Neg(x))


def attention_without_scale(q, k, v, *mask_and_more, **options):
    return opset23.Attention(q, k, v, scale=1.0)[0]


def attention_without_causality(q, k, v, *mask_and_more, **options):
    return opset23.Attention(q, k, v)[0]


def rms_with_another_epsilon(x, shape, weight=None, eps=None):
    return opset23.RMSNormalization(x, weight, axis=-1, epsilon=2e-6)


def response_norm_not_divided(x, size, alpha, beta, k):
    return opset18.LRN(x, size=size, alpha=alpha * size, beta=beta, bias=k)


def unpool_by_planes(x, indices, output_size, kernel_shape, strides, *pads_and_form):
    """PyTorch's indices given to ONNX's operator as they are: every channel lands in the first plane."""
    return opset18.MaxUnpool(x, indices, kernel_shape=list(kernel_shape), strides=list(strides))


FAULTS = {
    "gate inverted": ("silu", 24, aten.silu.default, swish_without_gate),
    "scale dropped": ("attention", 23, aten.scaled_dot_product_attention.default, attention_without_scale),
    "causality dropped": (
        "attention_causal",
        23,
        aten.scaled_dot_product_attention.default,
        attention_without_causality,
    ),
    "epsilon changed": ("rms_norm", 23, aten.rms_norm.default, rms_with_another_epsilon),
    "alpha not divided": (
        "response_norm",
        20,
        torch.ops.onnx_arch.local_response_norm.default,
        response_norm_not_divided,
    ),
    "indices of planes": ("unpool_odd", 20, torch.ops.onnx_arch.max_unpool.default, unpool_by_planes),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_translation_is_caught(tmp_path, fault):
    name, opset, operator, wrong = FAULTS[fault]
    bundle = export_module(f"{FILE}:{name}", tmp_path, opset=opset, translations={operator: wrong})
    assert (bundle.translation, bundle.written) == (Standing.FAILED, False)
    assert list(tmp_path.iterdir()) == []


def attention_by_softmax(q, k, v, mask, **options):
    """A query that may attend nothing gets NaN."""
    op = opset18
    scores = op.MatMul(op.Mul(q, 8**-0.5), op.Transpose(k, perm=[0, 1, 3, 2]))
    bias = op.Where(mask, op.Constant(value_float=0.0), op.Constant(value_float=-np.inf))
    return op.MatMul(op.Softmax(op.Add(scores, bias), axis=-1), v)


def test_softmax_over_no_keys_is_caught(tmp_path):
    table = {aten.scaled_dot_product_attention.default: attention_by_softmax}
    bundle = export_module(f"{FILE}:attention_boolean_mask", tmp_path, opset=20, translations=table)
    assert (bundle.translation, bundle.written) == (Standing.FAILED, False)


def test_height_that_the_module_divides_evenly_needs_no_padding(export):
    options = {"dynamic": ("x.0=batch", "x.2=height", "x.3=width")}
    assert operators(export("unpool_of_even_sizes", **options)) == ["MaxPool", "Exp", "MaxUnpool"]
    assert "Pad" in operators(export("unpool", **options, unpool="native"))


def test_table_holds_the_newest_translation_of_an_opset():
    names = {opset: translation_table(opset).get(aten.silu.default) for opset in (20, 24, 28)}
    assert names[20] is None
    assert [names[24].__name__, names[28].__name__] == ["swish", "swish_decomposed"]
    attentions = [translation_table(opset)[aten.scaled_dot_product_attention.default] for opset in (18, 22, 23)]
    assert [entry.__name__ for entry in attentions] == ["attention_decomposed", "attention_decomposed", "attention"]


def test_second_translation_of_one_operator_and_opset_is_refused():
    with pytest.raises(DuplicateEntryError, match=r"aten.silu.default since opset 24 is already translated by swish"):
        translation(aten.silu.default, since=24)(lambda x: x)


def test_random_attention_is_refused(tmp_path):
    source = "from one_operator import Attention, queries\ndef make(): return Attention(dropout_p=0.5), queries(2, 3)\n"
    (tmp_path / "random_attention.py").write_text(source)
    (tmp_path / "one_operator.py").write_text(FILE.read_text())
    with pytest.raises(ExportError, match=r"dropout_p=0.5 is random"):
        export_module(f"{tmp_path / 'random_attention.py'}:make", tmp_path / "out")


def test_unknown_form_of_unpooling_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="unpool 'loop'; allowed are native, scatter"):
        export_module(f"{FILE}:unpool", tmp_path, unpool="loop")


def test_form_of_unpooling_is_in_the_command_of_the_manifest(export):
    words = export("unpool", opset=20, dynamic=("batch",), unpool="scatter").manifest["command"]
    assert words[words.index("--unpool") + 1] == "scatter"
    assert "--unpool" not in export("unpool", opset=20, dynamic=("batch",)).manifest["command"]


def ir_model(node, opset):
    import onnx_ir as ir  # noqa: PLC0415 - heavy

    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    made = onnx.helper.make_graph([node], "g", [x], [y])
    return ir.serde.deserialize_model(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", opset)]))


def test_raising_an_opset_keeps_what_is_the_same_operator_there():
    model = ir_model(onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT16), 25)
    raise_opset(model, NEWEST_OPSET)
    assert model.graph.opset_imports[""] == NEWEST_OPSET


def test_raising_an_opset_refuses_what_is_another_operator_there():
    model = ir_model(onnx.helper.make_node("Pad", ["x", "x"], ["y"]), 2)  # its pads were an attribute
    with pytest.raises(ExportError, match="Pad of opset 2 is another operator in opset 28"):
        raise_opset(model, NEWEST_OPSET)
    with pytest.raises(ExportError, match=r"opset 99: the installed onnx knows up to"):
        raise_opset(model, 99)


def test_newest_opset_is_the_newest_that_onnxruntime_loads():
    for opset, loads in ((NEWEST_OPSET, True), (NEWEST_OPSET + 1, False)):
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                [onnx.helper.make_node("Relu", ["x"], ["y"])],
                "g",
                [onnx.helper.make_tensor_value_info("x", 1, [2])],
                [onnx.helper.make_tensor_value_info("y", 1, [2])],
            ),
            opset_imports=[onnx.helper.make_opsetid("", opset)],
            ir_version=10,
        )
        try:
            onnxruntime.InferenceSession(model.SerializeToString())
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            assert not loads
        else:
            assert loads


def test_indices_that_are_results_are_pytorchs_own(export):
    outputs = {output.name for output in graph(export("unpool_other_ranks", opset=20)).output}
    assert outputs == {"output_0", "output_1", "output_2", "output_3"}
    tensors = sorted((export("unpool_other_ranks", opset=20).path / "test_data_set_0").glob("output_*.pb"))
    switches = numpy_helper.to_array(onnx.TensorProto.FromString(tensors[2].read_bytes()))
    assert switches.max() < 8
