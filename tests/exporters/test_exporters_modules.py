"""People's own modules: what is right is not flagged, what cannot be exported is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from safetensors.torch import save_file

from onnx_arch.errors import ExportError, InvalidArgumentError, MissingKernelError, WeightsError
from onnx_arch.exporters.description import result_lines
from onnx_arch.exporters.export import export_module
from onnx_arch.exporters.factories import find_factory, sweep_sizes
from onnx_arch.exporters.float64 import run_float64
from onnx_arch.exporters.proof import Standing
from onnx_arch.operators import evaluation

ZOO = Path(__file__).resolve().with_name("zoo.py")
RIGHT = ["buffers", "scaled_dot", "tokens", "cache", "echo", "picture", "folding", "ordered"]


@pytest.mark.parametrize("name", RIGHT)
def test_right_module_is_proved(zoo, name):
    bundle = zoo(name, dynamic=("batch",))
    assert (bundle.written, bundle.translation, bundle.runtime) == (True, Standing.PASSED, Standing.PASSED)
    assert {shape.sizes["batch"] for shape in bundle.proofs[0].shapes} == {1, 2, 3, 4}
    onnx.checker.check_model(onnx.load(bundle.path / "model.onnx"), full_check=True)


@pytest.mark.parametrize(
    ("name", "opset", "dtype"),
    [
        ("picture", 18, "float32"),
        ("picture", 21, "float32"),
        ("picture", 20, "float64"),
        ("picture", 20, "float16"),
        ("tokens", 23, "float16"),
        ("tokens", 22, "bfloat16"),
        ("cache", 23, "float32"),
        ("folding", 22, "bfloat16"),
    ],
)
def test_right_module_is_proved_at_other_opsets_and_types(zoo, name, opset, dtype):
    bundle = zoo(name, opset=opset, dtype=dtype)
    assert bundle.translation is Standing.PASSED
    assert bundle.runtime in (Standing.PASSED, Standing.UNSUPPORTED)
    assert bundle.written


def test_positions_are_counted_exactly_in_narrow_types(zoo):
    """The step of a `Range` was converted at export; moved in its last place it would count one position more."""
    bundle = zoo("tokens", dtype="float16", dynamic=("tokens.1=sequence", "mask.1=sequence"))
    assert "Range" in operators(bundle)
    assert (bundle.written, bundle.translation) == (True, Standing.PASSED)


@pytest.mark.parametrize(("name", "op_type"), [("branching", "If"), ("looping", "Loop")])
def test_control_flow_is_proved(zoo, name, op_type):
    bundle = zoo(name)
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    assert op_type in operators(bundle)


def test_branch_that_cannot_be_traced_is_refused_with_advice_and_torch_prints_nothing(zoo, capfd):
    with pytest.raises(ExportError, match=r"data-dependent .*torch\.cond and while_loop can be exported"):
        zoo("guarded")
    assert capfd.readouterr() == ("", "")


def operators(bundle):
    return {node.op_type for node in onnx.load(bundle.path / "model.onnx").graph.node}


def test_composed_operators_appear_where_the_opset_has_them(zoo):
    assert {"Erf", "InstanceNormalization"} <= operators(zoo("picture", opset=18, dtype="float32"))
    assert "Gelu" in operators(zoo("picture", dynamic=("batch",)))
    assert {"Gelu", "GroupNormalization"} <= operators(zoo("picture", opset=21, dtype="float32"))
    assert "Attention" in operators(zoo("cache", opset=23, dtype="float32"))


def port_names(bundle):
    graph = bundle.manifest["graphs"][0]
    return [port["name"] for port in graph["inputs"]], [port["name"] for port in graph["outputs"]]


def test_nested_state_and_results_are_flattened_by_name(zoo):
    inputs, outputs = port_names(zoo("cache", dynamic=("batch",)))
    assert inputs == ["x", "past.0.key", "past.0.value", "past.1.key", "past.1.value"]
    assert outputs == ["output_0", "output_1.0.key", "output_1.0.value", "output_1.1.key", "output_1.1.value"]
    assert port_names(zoo("tokens", dynamic=("batch",)))[1] == ["logits", "best", "confident"]
    assert port_names(zoo("echo", dynamic=("batch",))) == (["x"], ["output_0", "output_1", "output_2"])


def test_example_arguments_of_the_factory_are_the_test_data(zoo, read_set):
    feeds, outputs = read_set(zoo("tokens", dynamic=("batch",)))
    assert feeds["tokens"].tolist() == [[1, 2, 3, 4], [10, 9, 8, 0]]
    assert feeds["mask"].dtype == np.bool_
    assert (outputs["best"].dtype, outputs["confident"].dtype) == (np.int64, np.bool_)


def test_example_inputs_of_zeros_are_not_the_only_ones_tried(zoo, read_set):
    bundle = zoo("zeros")
    assert not read_set(bundle)[0]["x"].any()
    assert len(bundle.proofs[0].shapes) == 2
    first, second = (shape.graph.comparisons[0] for shape in bundle.proofs[0].shapes)
    assert first.rms_error != second.rms_error


def test_dims_are_frozen_unless_asked_for_and_that_is_said(zoo):
    assert zoo("scaled_dot").manifest["graphs"][0]["dims"]["frozen"]["q.0"] == 2
    dims = zoo("scaled_dot", dynamic=("q.1=target", "k.1=source", "v.1=source")).manifest["graphs"][0]["dims"]
    assert [(axis["name"], axis["status"]) for axis in dims["axes"]] == [("target", "free"), ("source", "tied")]
    assert dims["frozen"] == {"q.0": 2, "q.2": 4, "k.0": 2, "k.2": 4, "v.0": 2, "v.2": 4}


def test_axes_that_the_module_makes_equal_are_tied(tmp_path):
    source = """
import torch
class Sum(torch.nn.Module):
    def forward(self, a, b):
        return a + b * 2 if a.shape[0] == b.shape[0] else a
def make():
    return Sum(), (torch.randn(3, 2), torch.randn(3, 2))
"""
    (tmp_path / "sums.py").write_text(source)
    bundle = export_module(f"{tmp_path / 'sums.py'}:make", tmp_path, dynamic=["a.0=rows", "b.0=lines"])
    axes = bundle.manifest["graphs"][0]["dims"]["axes"]
    assert [(axis["status"], axis["same_as"]) for axis in axes] == [("tied", ["lines"]), ("tied", ["rows"])]


def test_shape_that_the_module_refuses_is_told_and_not_held_against_the_graph(zoo):
    bundle = zoo("halves", dynamic=("x.1=height",))
    assert bundle.translation is Standing.PASSED
    refused = {sizes["height"]: reason for sizes, reason in bundle.proofs[0].refused}
    assert set(refused) == {1, 3}
    assert {shape.sizes["height"] for shape in bundle.proofs[0].shapes} == {2, 4, 8}
    assert not bundle.manifest["graphs"][0]["optimized"]  # onnxscript's optimiser fails on chunk of a dynamic size
    assert refused[3] == "ValueError: height 3 is odd"


def test_indices_of_the_example_that_differ_go_on_differing_in_drawn_inputs(tmp_path):
    source = """
import torch
class Placed(torch.nn.Module):
    def forward(self, x, places):
        if not torch.compiler.is_exporting() and any(len(row.unique()) < len(row) for row in places):
            raise ValueError("two elements in one place")
        return torch.zeros(x.shape[0], 30, dtype=x.dtype).scatter(1, places, x)
def make():
    places = torch.stack([torch.randperm(30)[:9] for _ in range(2)])
    return Placed(), (torch.randn(2, 9), places)
"""
    (tmp_path / "placed.py").write_text(source)
    bundle = export_module(f"{tmp_path / 'placed.py'}:make", tmp_path, dynamic=["batch"])
    assert not bundle.proofs[0].refused
    assert {shape.sizes["batch"] for shape in bundle.proofs[0].shapes} >= {1, 3}
    assert bundle.translation is bundle.runtime is Standing.PASSED


def test_dim_that_the_module_fixes_is_not_frozen_in_silence(tmp_path):
    with pytest.raises(ExportError, match=r"axis batch was to be dynamic, but the module fixes x.0 at 2"):
        export_module(f"{ZOO}:frozen", tmp_path / "out", dynamic=["batch"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_float64_run_computes_nothing_in_a_narrower_type(dtype):
    constant = torch.rand(3, dtype=dtype)

    def module(x):
        table = torch.arange(3, dtype=dtype) * torch.full((3,), 1 / 3, dtype=torch.float32)
        y = (x.half() + table.to(torch.bfloat16)) * constant + torch.tensor(0.1)
        return F.rms_norm(y, (3,)).float(), torch.zeros(2)

    x = torch.rand(2, 3, dtype=dtype)
    result, zeros = run_float64(module, (x,), {}, dtype)
    third = torch.arange(3, dtype=torch.float64) / 3
    y = (x.double() + third) * constant.double() + 0.1
    expected = y / (y.square().mean(-1, keepdim=True) + torch.finfo(dtype).eps).sqrt()
    assert result.dtype == zeros.dtype == torch.float64
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    assert torch.get_default_dtype() == torch.float32


def test_random_module_is_unjudged_with_the_reason(zoo):
    bundle = zoo("random")
    assert (bundle.translation, bundle.runtime, bundle.is_wrong) == (Standing.UNJUDGED, Standing.UNJUDGED, False)
    assert "other values every time" in bundle.proofs[0].shapes[0].graph.message


def test_outputs_without_a_number_are_unjudged(zoo):
    bundle = zoo("nothing_to_compare")
    assert (bundle.translation, bundle.runtime, bundle.is_wrong) == (Standing.UNJUDGED, Standing.UNJUDGED, False)
    assert "unjudged at 2 inputs" in "\n".join(result_lines(bundle))


def test_keywords_of_any_name_are_inputs(zoo):
    bundle = zoo("keywords")
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    assert [entry["name"] for entry in bundle.manifest["graphs"][0]["inputs"]] == [
        "x",
        "factors.first",
        "factors.second",
    ]


def test_operator_without_a_kernel_is_unjudged_and_named(tmp_path, monkeypatch):
    find = evaluation.find_kernel

    def without_softmax(op_type, **version):
        if op_type == "Softmax":
            raise MissingKernelError("no kernel for Softmax")
        return find(op_type, **version)

    monkeypatch.setattr(evaluation, "find_kernel", without_softmax)
    bundle = export_module(f"{ZOO}:scaled_dot", tmp_path)
    assert (bundle.translation, bundle.runtime, bundle.is_wrong) == (Standing.UNJUDGED, Standing.UNJUDGED, False)
    assert "node Softmax: no kernel for Softmax" in bundle.proofs[0].shapes[0].graph.message
    assert bundle.manifest["verdict"]["translation"] == "unjudged"


def test_declared_inputs_take_the_place_of_examples(zoo, read_set):
    inputs = ("q=batch,3,4:float32", "k=batch,5,4:float32", "v=batch,5,4:float32")
    bundle = zoo("only_module", inputs=inputs)
    assert bundle.runtime is Standing.PASSED
    assert bundle.manifest["graphs"][0]["inputs"][1]["shape"] == ["batch", 5, 4]
    assert zoo("instance", inputs=("input=batch,3:float32",)).runtime is Standing.PASSED


def test_declared_integers_stay_below_their_limit(zoo, read_set):
    bundle = zoo("tokens", inputs=("tokens=2,30:int64:4", "mask=2,30:bool"))
    feeds, _ = read_set(bundle)
    assert (feeds["tokens"].min(), feeds["tokens"].max()) == (0, 3)
    assert feeds["mask"].any()
    assert not feeds["mask"].all()


def test_package_module_is_found_from_the_working_directory(tmp_path):
    package = tmp_path / "nets" / "small"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "sizes.py").write_text("WIDTH = 3\n")
    (package / "net.py").write_text(
        "import torch\nfrom .sizes import WIDTH\n"
        "def make():\n    return torch.nn.Linear(WIDTH, 2), torch.randn(1, WIDTH)\n"
    )
    code = (
        "import sys; from onnx_arch.cli.main import main; sys.argv = ['onnx-arch', 'export', 'small.net:make']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "nets", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "nets" / "make" / "model.onnx")
    assert session.get_inputs()[0].shape == [1, 3]


def test_file_finds_the_files_beside_it(tmp_path):
    (tmp_path / "beside_of_net.py").write_text("WIDTH = 4\n")
    (tmp_path / "net.py").write_text("from beside_of_net import WIDTH\ndef make():\n    return WIDTH\n")
    before = list(sys.path)
    factory, source = find_factory(f"{tmp_path / 'net.py'}:make")
    assert factory() == 4
    assert source["factory"] == "net.py:make"
    assert sys.path == before


def test_factory_runs_with_the_seed_and_leaves_torchs_generator_alone(tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(1).item()
    torch.manual_seed(11)
    first, again, other = (export_module(f"{ZOO}:buffers", tmp_path / str(n), seed=n // 2) for n in range(3))
    assert torch.rand(1).item() == expected
    files = [(bundle.path / "model.onnx").read_bytes() for bundle in (first, again, other)]
    assert files[0] == files[1] != files[2]


def test_weights_of_a_users_module(tmp_path, zoo):
    weights = {"0.weight": torch.full((4, 3), 0.5), "0.bias": torch.arange(4.0)}
    save_file(weights, tmp_path / "w.safetensors")
    bundle = zoo("instance", inputs=("input=2,3:float32",), weights=tmp_path / "w.safetensors")
    stored = {tensor.name: tensor for tensor in onnx.load(bundle.path / "model.onnx").graph.initializer}
    assert onnx.numpy_helper.to_array(stored["0.bias"]).tolist() == [0, 1, 2, 3]
    origin = bundle.manifest["weights"]
    assert (origin["file"], origin["layout"]) == ("w.safetensors", "onnx-arch")
    assert list(origin["sha256"]) == ["w.safetensors"]
    save_file({"0.weight": torch.zeros(3, 3)}, tmp_path / "bad.safetensors")
    with pytest.raises(
        WeightsError, match=r"2 problems: 0.weight is \[3, 3\], the module's is \[4, 3\]; missing 0.bias"
    ):
        export_module(f"{ZOO}:instance", tmp_path, inputs=["input=2,3"], weights=tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("no/such/file.py:make", InvalidArgumentError, "no such file"),
        ("no.such.package:make", InvalidArgumentError, "no module 'no.such.package' can be imported"),
        (f"{ZOO}:nothing", InvalidArgumentError, "has no 'nothing'; it has .*Buffers"),
        (f"{ZOO}:not_callable", InvalidArgumentError, "is a int; allowed are a function and a module"),
        (f"{ZOO}:raises", ExportError, "raised KeyError: 'no such layer'"),
        (f"{ZOO}:leaves", ExportError, "raised SystemExit: 3"),
        (f"{ZOO}:not_a_module", ExportError, r"returned int; allowed is a torch.nn.Module, \(module, args\)"),
        (f"{ZOO}:wrong_arguments", ExportError, "do not fit forward.*missing a required argument: 'k'"),
        (f"{ZOO}:only_module", InvalidArgumentError, "give --input NAME=SHAPE:DTYPE for each of q, k, v"),
        (f"{ZOO}:scripted", ExportError, "TorchScript, which torch.export refuses"),
        (f"{ZOO}:complex_input", ExportError, "input input is complex64, .* real and imaginary parts"),
        (f"{ZOO}:without_values", ExportError, "weight lies on the meta device"),
        (f"{ZOO}", InvalidArgumentError, "allowed are an architecture, path/to/file.py:factory"),
        ("zoo.py:", InvalidArgumentError, "allowed are an architecture"),
    ],
)
def test_factory_that_cannot_be_used_is_refused_in_one_line(tmp_path, spec, error, message):
    with pytest.raises(error, match=message):
        export_module(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_file_with_an_error_in_it_is_refused(tmp_path):
    (tmp_path / "broken.py").write_text("def make(:\n")
    with pytest.raises(ExportError, match=r"importing .*broken.py raised SyntaxError"):
        export_module(f"{tmp_path / 'broken.py'}:make", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic": ["x.7=batch"]}, r"--dynamic x.7: inputs are x \(rank 2\)"),
        ({"dynamic": ["y.0=batch"]}, "--dynamic y.0: inputs are x"),
        ({"dynamic": ["height"]}, "allowed is INPUT.DIM=SYMBOL"),
        ({"inputs": ["y=2,6"]}, "--input y: the module's inputs are x"),
    ],
)
def test_request_that_the_module_cannot_meet_is_refused(tmp_path, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        export_module(f"{ZOO}:buffers", tmp_path / "out", **options)


def test_symbol_that_ties_unequal_dims_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="n ties dims of sizes 3 and 5"):
        export_module(f"{ZOO}:scaled_dot", tmp_path / "out", dynamic=["q.1=n", "k.1=n"])


def test_module_that_fails_on_its_own_inputs_is_told_so(tmp_path):
    with pytest.raises(ExportError, match="the module fails on its own inputs: RuntimeError"):
        export_module(f"{ZOO}:only_module", tmp_path / "out", inputs=["q=2,3,4", "k=2,5,5", "v=2,5,4"])


@pytest.mark.parametrize("size", [1, 2, 5, 16, 17, 224])
def test_sweep_has_one_two_odd_and_large(size):
    sizes = sweep_sizes(size)
    assert {1, 2} <= set(sizes)
    assert any(item % 2 and item > 2 for item in sizes)
    assert max(sizes) > size
    assert max(sizes) % (size if size % 2 else size // 2) == 0
