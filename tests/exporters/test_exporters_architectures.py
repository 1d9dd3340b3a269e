"""Every architecture at tiny size becomes a bundle that is proved, valid, complete and the same everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from onnx_arch.architectures.registry import find_architecture, listings
from onnx_arch.errors import ExportError, InvalidArgumentError
from onnx_arch.exporters.bundle import content_sha256, read_manifest
from onnx_arch.exporters.export import export_architecture
from onnx_arch.exporters.proof import Standing

SLOW = ("dalle", "latent-diffusion", "stable-diffusion", "zfnet")
"""Half a minute each: `make test` exports them in tests/generation and tests/cli, the pipelines at one shape."""

NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in listings()]


@pytest.mark.parametrize("name", NAMES)
def test_export_tiny_is_proved_at_every_swept_shape(tiny, name):
    bundle = tiny(name)
    assert (bundle.written, bundle.translation, bundle.runtime) == (True, Standing.PASSED, Standing.PASSED)
    entry = find_architecture(name)
    specs = entry.graphs(entry.config("tiny"))
    assert [proof.graph for proof in bundle.proofs[: len(specs)]] == [spec.name for spec in specs]
    for spec, proof in zip(specs, bundle.proofs, strict=False):
        assert proof.refused == ()
        for axis in spec.axes:
            proved = {shape.sizes[axis.name] for shape in proof.shapes}
            assert proved == ({axis.size, *axis.sweep} if axis.dynamic else {axis.size})


@pytest.mark.parametrize("name", NAMES)
def test_exported_model_is_valid_and_carries_no_trace_of_where_it_was_made(tiny, name):
    bundle = tiny(name)
    for entry in bundle.manifest["graphs"]:
        path = bundle.path / entry["model"]
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        assert (model.opset_import[0].version, len(model.opset_import)) == (20, 1)
        assert not model.metadata_props
        assert not model.doc_string
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert len({node.name for node in model.graph.node}) == len(model.graph.node)
        content = path.read_bytes()
        for trace in (str(Path.cwd()), sys.prefix, os.path.expanduser("~"), "site-packages", "pkg.torch", ".py"):
            assert trace.encode() not in content, trace


@pytest.mark.parametrize("name", NAMES)
def test_test_data_agree_with_onnxruntime_asked_directly(tiny, read_set, name):
    bundle = tiny(name)
    for entry in bundle.manifest["graphs"]:
        feeds, expected = read_set(bundle, entry["test_data"])
        session = onnxruntime.InferenceSession(bundle.path / entry["model"], providers=["CPUExecutionProvider"])
        for output, actual in zip(session.get_outputs(), session.run(None, feeds), strict=True):
            wanted = expected[output.name]
            assert actual.dtype == wanted.dtype
            assert actual.dtype in (np.float32, np.int64)
            tolerance = 1e-5 * np.abs(wanted).max() if actual.dtype == np.float32 else 0
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_names_every_file_with_its_digest(tiny, name):
    bundle = tiny(name)
    manifest = read_manifest(bundle.path)
    present = {str(path.relative_to(bundle.path)) for path in bundle.path.rglob("*") if path.is_file()}
    assert present == {*manifest["files"], "manifest.json"}
    for file, entry in manifest["files"].items():
        content = (bundle.path / file).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (entry["sha256"], entry["size_bytes"])
    assert manifest["content_sha256"] == content_sha256(manifest)
    assert manifest["verdict"] == {"translation": "passed", "onnxruntime": "passed"}
    assert manifest["source"]["architecture"] == name
    assert manifest["command"][:3] == ["onnx-arch", "export", name]
    assert {"torch", "onnx", "onnxruntime", "onnx-arch"} <= set(manifest["versions"])


def test_manifest_says_how_a_photograph_becomes_an_input(tiny):
    picture = tiny("resnet18").manifest["image_preprocessing"]
    assert picture["crop"] == 32
    assert picture["mean"] == (0.485, 0.456, 0.406)
    assert "image_preprocessing" not in tiny("mlp").manifest


def test_manifest_names_free_tied_and_frozen_dims(tiny):
    dims = tiny("attention").manifest["graphs"][0]["dims"]
    axes = {axis["name"]: axis for axis in dims["axes"]}
    assert axes["batch"]["status"] == "tied"
    assert axes["batch"]["dims"] == ["query.0", "key.0", "value.0"]
    assert axes["target_sequence"]["status"] == "free"
    assert axes["target_sequence"]["tested"] == [1, 2, 5, 7, 64]
    assert axes["source_sequence"]["dims"] == ["key.1", "value.1"]
    assert dims["frozen"] == {"query.2": 16, "key.2": 16, "value.2": 16}


def declared(bundle, name):
    graph = onnx.load(bundle.path / "model.onnx").graph
    value = next(value for value in (*graph.input, *graph.output) if value.name == name)
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_symbols_are_the_axes_own_names(tiny):
    bundle = tiny("attention")
    assert declared(bundle, "key") == ["batch", "source_sequence", 16]
    assert declared(bundle, "output") == ["batch", "target_sequence", 16]
    assert declared(tiny("resnet18"), "image") == ["batch", 3, 32, 32]


def test_dynamic_adds_an_axis_and_proves_it(tiny):
    bundle = tiny("resnet18", dynamic=("height",))
    assert declared(bundle, "image") == ["batch", 3, "height", 32]
    assert {shape.sizes["height"] for shape in bundle.proofs[0].shapes} == {32, 16, 33, 64}
    assert bundle.runtime is Standing.PASSED


def test_dynamic_none_freezes_everything(tiny):
    bundle = tiny("mlp", dynamic=("none",))
    assert declared(bundle, "features") == [2, 16]
    assert bundle.manifest["graphs"][0]["dims"] == {"axes": [], "frozen": {"features.0": 2, "features.1": 16}}


def test_input_freezes_an_axis_at_its_size(tiny, read_set):
    bundle = tiny("resnet18", inputs=("image=batch,3,48,40:float32",))
    assert declared(bundle, "image") == ["batch", 3, 48, 40]
    assert read_set(bundle)[0]["image"].shape == (2, 3, 48, 40)


def operators(bundle):
    return {node.op_type for node in onnx.load(bundle.path / "model.onnx").graph.node}


def test_attention_is_decomposed_before_opset_23_and_one_node_from_then_on(tiny):
    assert {"MatMul", "Softmax"} <= operators(tiny("attention", opset=18))
    assert "Attention" not in operators(tiny("attention"))
    newest = tiny("attention", opset=23)
    assert "Attention" in operators(newest)
    assert "Softmax" not in operators(newest)
    assert newest.runtime is Standing.PASSED


def initializers(bundle):
    graph = onnx.load(bundle.path / "model.onnx").graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_parameters_that_are_themselves_keep_their_names_and_bits(tiny):
    bundle = tiny("vgg16", seed=3)
    entry = find_architecture("vgg16")
    module = entry.build(entry.config("tiny"))
    from onnx_arch.architectures.initialization import randomize  # noqa: PLC0415

    randomize(module, 3)
    stored = initializers(bundle)
    for name, parameter in module.named_parameters():
        assert np.array_equal(stored[name], parameter.detach().numpy()), name
        origin = bundle.manifest["graphs"][0]["initializers"][name]
        assert (origin["transform"], origin["parameters"]) == ("identity", (name,))


def test_folded_parameters_lose_their_names_and_their_origin_is_told(tiny):
    bundle = tiny("resnet18")
    stored, graph = initializers(bundle), bundle.manifest["graphs"][0]
    assert "conv1.weight" not in stored
    folded = graph["initializers"]["conv1.weight_folded"]
    assert folded["transform"] == "computed"
    assert {"BatchNormalization", "Conv"} <= set(folded["operators"])
    norm = {f"bn1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert set(folded["parameters"]) == {"conv1.weight", *norm}
    assert graph["initializers"]["fc.weight"]["transform"] == "identity"
    assert "bn1.num_batches_tracked" in graph["unused_parameters"]


def test_transposed_parameters_say_so(tiny):
    bundle = tiny("attention", opset=18)
    entry = find_architecture("attention")
    origin = bundle.manifest["graphs"][0]["initializers"]["query.weight_transposed"]
    assert (origin["transform"], origin["parameters"]) == ("transposed", ("query.weight",))
    assert initializers(bundle)["query.weight_transposed"].shape == (entry.config("tiny").embed_dim,) * 2


EXPORT = """
import os, sys
from pathlib import Path
os.chdir(sys.argv[1])
from onnx_arch.exporters.export import export_architecture, export_module
export_architecture("attention", Path("out"), preset="tiny", seed=7)
export_module(f"{sys.argv[2]}:folding", Path("out"), seed=7, dynamic=["batch"])
"""


def test_same_request_gives_same_bytes_wherever_and_whenever(tmp_path, tiny):
    zoo = (Path(__file__).parent / "zoo.py").read_text(encoding="utf-8")
    contents = []
    for place, hash_seed in (("a", "1"), ("elsewhere/deep", "2")):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "zoo.py").write_text(zoo, encoding="utf-8")
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", EXPORT, folder, folder / "zoo.py"], check=True, env=env)
        files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
        digests = {str(file.relative_to(folder)): file.read_bytes() for file in files if file.name != "manifest.json"}
        manifests = [json.loads(file.read_text()) for file in files if file.name == "manifest.json"]
        contents.append((digests, [{k: v for k, v in m.items() if k != "record"} for m in manifests]))
        assert str(tmp_path) not in "".join(file.read_text() for file in files if file.name == "manifest.json")
    assert contents[0] == contents[1]
    assert len(contents[0][0]) >= 5 + 3
    own = tiny("attention", seed=7).path / "model.onnx"
    assert own.read_bytes() == contents[0][0]["out/attention/model.onnx"]


def test_another_seed_gives_other_parameters(tiny):
    assert not np.array_equal(
        initializers(tiny("mlp", seed=1))["hidden.weight"], initializers(tiny("mlp"))["hidden.weight"]
    )


@pytest.mark.parametrize("name", ["mlp", "resnet18", "attention"])
def test_float16_is_proved_and_stored_in_float16(tiny, read_set, name):
    bundle = tiny(name, dtype="float16")
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    floats = [array.dtype for array in initializers(bundle).values() if array.dtype.kind == "f"]
    assert set(floats) == {np.dtype(np.float16)}
    assert read_set(bundle)[1][bundle.manifest["graphs"][0]["outputs"][0]["name"]].dtype == np.float16


@pytest.mark.parametrize("name", ["resnet18", "attention"])
def test_bfloat16_is_proved_and_that_onnxruntime_has_no_kernels_is_no_pass(tiny, name):
    bundle = tiny(name, dtype="bfloat16")
    assert bundle.written
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.UNSUPPORTED)
    assert bundle.manifest["verdict"]["onnxruntime"] == "unsupported"
    assert {array.dtype.name for array in initializers(bundle).values() if array.dtype.kind in "fV"} == {"bfloat16"}
    onnx.checker.check_model(onnx.load(bundle.path / "model.onnx"), full_check=True)


def test_bfloat16_at_an_opset_without_it_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"Conv of opset 20 takes no bfloat16 as X \(node conv1/Conv"):
        export_architecture("resnet18", tmp_path, preset="tiny", dtype="bfloat16", opset=20)
    assert list(tmp_path.iterdir()) == []


def test_external_data_are_beside_the_model_and_read_by_onnxruntime(tiny):
    bundle = tiny("vgg16", external_data=True)
    assert "model.onnx.data" in bundle.manifest["files"]
    assert bundle.runtime is Standing.PASSED
    embedded, external = initializers(tiny("vgg16")), initializers(bundle)
    assert embedded.keys() == external.keys()
    assert all(np.array_equal(embedded[name], external[name]) for name in embedded)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, "opset 17; allowed are 18 to 28"),
        ({"dtype": "float8"}, "dtype 'float8'; allowed are float32, float16"),
        ({"dynamic": ["depth"]}, "no axis 'depth'; there are batch, height, width, and none"),
        ({"inputs": ["image=1,3,32:float32"]}, "shape .* the architecture's is"),
        ({"inputs": ["image=1,4,32,32"]}, "dim 4, the architecture fixes it at 3"),
        ({"inputs": ["picture=1,3,32,32"]}, "no input 'picture'; there are image"),
        ({"inputs": ["image=1,3,32,32:int64"]}, "dtype int64; allowed is float32"),
    ],
)
def test_bad_request_is_refused_and_leaves_nothing(tmp_path, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        export_architecture("resnet18", tmp_path / "out", preset="tiny", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_size_is_proved(tmp_path, name):
    bundle = export_architecture(name, tmp_path)
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    assert bundle.manifest["parameters"] == find_architecture(name).parameters
