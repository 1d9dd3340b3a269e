"""Another checkpoint in a bundle: the same graph as an export with it gives, proved; what cannot be made is refused."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture
from onnx_arch.errors import ExportError, InvalidArgumentError, InvalidModelError, WeightsError
from onnx_arch.exporters.bundle import content_sha256, read_manifest
from onnx_arch.exporters.export import export_architecture, export_module
from onnx_arch.exporters.reload import reload_bundle

FACTORIES = Path(__file__).resolve().with_name("folded.py")


def initializers(bundle):
    model = onnx.load(bundle.path / "model.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def nodes(bundle):
    return [node.SerializeToString() for node in onnx.load(bundle.path / "model.onnx").graph.node]


def checkpoint_of(module, path, seed):
    randomize(module, seed)
    torch.save(module.state_dict(), path)
    return module.eval()


def tiny_module(name):
    entry = find_architecture(name)
    return entry.build(entry.config("tiny"))


def run(bundle, feeds):
    return onnxruntime.InferenceSession(bundle.path / "model.onnx").run(None, feeds)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return export_architecture("resnet18", tmp_path_factory.mktemp("resnet"), preset="tiny")


def test_resnet_reloaded_is_what_an_export_of_the_checkpoint_is(tmp_path, resnet):
    module = checkpoint_of(tiny_module("resnet18"), tmp_path / "c.pt", 7)
    reloaded = reload_bundle(resnet.path, tmp_path / "c.pt", output_dir=tmp_path)
    exported = export_architecture("resnet18", tmp_path / "x", preset="tiny", weights=tmp_path / "c.pt")
    assert (reloaded.translation, reloaded.runtime) == ("passed", "passed")
    assert nodes(reloaded) == nodes(resnet) == nodes(exported)
    given, wanted = initializers(reloaded), initializers(exported)
    assert given.keys() == wanted.keys()
    folded = [name for name in given if name.endswith("_folded")]
    assert len(folded) == 40
    for name, array in wanted.items():
        np.testing.assert_allclose(given[name], array, rtol=2e-6, atol=2e-7)
    image = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        reference = module(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(run(reloaded, {"image": image})[0], reference, rtol=1e-3, atol=1e-4)


def test_reloaded_bundle_says_so_and_can_be_reloaded(tmp_path, resnet):
    checkpoint_of(tiny_module("resnet18"), tmp_path / "c.pt", 7)
    shutil.copytree(resnet.path, tmp_path / "mine")
    bundle = reload_bundle(tmp_path / "mine", tmp_path / "c.pt")
    assert bundle.path == tmp_path / "mine"
    manifest = read_manifest(tmp_path / "mine")
    assert manifest["weights"]["file"] == "c.pt"
    assert manifest["command"][:2] == ["onnx-arch", "reload"]
    once = initializers(bundle)
    again = initializers(reload_bundle(tmp_path / "mine", tmp_path / "c.pt"))
    assert all(np.array_equal(again[name], array) for name, array in once.items())


def tampered(folder, change):
    """Change `recipes.onnx` and the manifest's digest of it, as a faulty exporter would have written them."""
    model = onnx.load(folder / "recipes.onnx")
    change(model.graph)
    content = model.SerializeToString()
    (folder / "recipes.onnx").write_bytes(content)
    manifest = read_manifest(folder)
    manifest["files"]["recipes.onnx"]["sha256"] = hashlib.sha256(content).hexdigest()
    manifest["content_sha256"] = content_sha256(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def larger_epsilon(graph):
    for tensor in graph.initializer:
        if tensor.name.endswith("epsilon"):
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1e-3), tensor.name))


def forgotten_shift(graph):
    next(node for node in graph.node if node.output[0].endswith(" bias")).op_type = "Sub"


def wrong_parameter(graph):
    for node in graph.node:
        node.input[:] = ["layer1.0.bn2.weight" if name == "layer1.0.bn1.weight" else name for name in node.input]


@pytest.mark.parametrize("change", [larger_epsilon, forgotten_shift, wrong_parameter])
def test_wrong_recipe_is_caught_and_nothing_is_written(tmp_path, resnet, change):
    checkpoint_of(tiny_module("resnet18"), tmp_path / "c.pt", 7)
    shutil.copytree(resnet.path, tmp_path / "bundle")
    tampered(tmp_path / "bundle", change)
    before = (tmp_path / "bundle" / "model.onnx").read_bytes()
    bundle = reload_bundle(tmp_path / "bundle", tmp_path / "c.pt")
    assert bundle.translation == "failed"
    assert bundle.is_wrong
    assert not bundle.written
    assert (tmp_path / "bundle" / "model.onnx").read_bytes() == before


@pytest.mark.parametrize("name", ["model.onnx", "recipes.onnx"])
def test_bundle_that_was_changed_is_refused(tmp_path, resnet, name):
    checkpoint_of(tiny_module("resnet18"), tmp_path / "c.pt", 7)
    shutil.copytree(resnet.path, tmp_path / "bundle")
    (tmp_path / "bundle" / name).write_bytes((resnet.path / name).read_bytes() + b"\x00")
    with pytest.raises(InvalidModelError, match=f"{name}: changed since it was exported"):
        reload_bundle(tmp_path / "bundle", tmp_path / "c.pt")


def test_initializer_without_recipe_is_refused_by_name(tmp_path, resnet):
    checkpoint_of(tiny_module("resnet18"), tmp_path / "c.pt", 7)
    shutil.copytree(resnet.path, tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    manifest["graphs"][0]["initializers"]["conv1.weight_folded"]["recipe"] = False
    manifest["graphs"][0]["vanished_parameters"] = ["scale"]
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(manifest))
    told = r"conv1.weight_folded was computed from bn1.bias, .* by BatchNormalization, Conv.*parameter scale was optim"
    with pytest.raises(ExportError, match=told):
        reload_bundle(tmp_path / "bundle", tmp_path / "c.pt")


def test_checkpoint_that_does_not_fit_is_refused(tmp_path, resnet):
    torch.save({"x": torch.zeros(1)}, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match="unexpected x"):
        reload_bundle(resnet.path, tmp_path / "c.pt", output_dir=tmp_path)


@pytest.mark.parametrize("factory", ["normalized", "equal", "computed"])
def test_module_of_ones_own_is_reloaded(tmp_path, factory):
    bundle = export_module(f"{FACTORIES}:{factory}", tmp_path / "a", seed=1)
    other = export_module(f"{FACTORIES}:{factory}", tmp_path / "b", seed=2)
    assert not bundle.manifest["graphs"][0]["vanished_parameters"]
    module, (x,) = other_module(factory)
    path = tmp_path / "c.pt"
    torch.save(module.state_dict(), path)
    reloaded = reload_bundle(bundle.path, path, output_dir=tmp_path / "c", module=f"{FACTORIES}:{factory}")
    assert (reloaded.translation, reloaded.runtime) == ("passed", "passed")
    with torch.no_grad():
        reference = module.eval()(x).numpy()
    (name,) = (port["name"] for port in reloaded.manifest["graphs"][0]["inputs"])
    np.testing.assert_allclose(run(reloaded, {name: x.numpy()})[0], reference, rtol=1e-4, atol=1e-5)
    assert other.manifest["graphs"][0]["initializers"].keys() == reloaded.manifest["graphs"][0]["initializers"].keys()


def other_module(factory):
    """A module of a factory with other parameters, everyone of them different."""
    scope = runpy.run_path(str(FACTORIES))
    torch.manual_seed(3)
    module, inputs = scope[factory]()
    return scope["randomized"](module), inputs


def test_every_parameter_has_an_initializer_of_its_own_where_values_are_equal(tmp_path):
    bundle = export_module(f"{FACTORIES}:equal", tmp_path)
    found = bundle.manifest["graphs"][0]["initializers"]
    own = [name for name, origin in found.items() if origin["transform"] == "identity"]
    assert sorted(own) == sorted(f"norms.{index}.{kind}" for index in range(3) for kind in ("weight", "bias"))


def test_module_that_is_not_here_is_asked_for(tmp_path):
    bundle = export_module(f"{FACTORIES}:equal", tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"the module of this bundle is folded.py:equal; give --module"):
        reload_bundle(bundle.path, tmp_path / "c.pt")


def test_half_precision_and_external_data_are_reloaded(tmp_path):
    bundle = export_architecture("resnet18", tmp_path, preset="tiny", dtype="float16", external_data=True)
    checkpoint_of(tiny_module("resnet18"), tmp_path / "c.pt", 7)
    reloaded = reload_bundle(bundle.path, tmp_path / "c.pt", output_dir=tmp_path / "out")
    assert not reloaded.is_wrong
    assert (reloaded.path / "model.onnx.data").is_file()
    assert {array.dtype.name for array in initializers(reloaded).values()} >= {"float16"}


SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("mlp", "attention", "vgg16", "bert", "gpt2", "transformer")
]


@pytest.mark.parametrize("name", ["t5", *SLOW])
def test_architecture_is_reloaded(tmp_path, name):
    bundle = export_architecture(name, tmp_path, preset="tiny")
    checkpoint_of(tiny_module(name), tmp_path / "c.pt", 8)
    reloaded = reload_bundle(bundle.path, tmp_path / "c.pt", output_dir=tmp_path / "out")
    assert (reloaded.translation, reloaded.runtime) == ("passed", "passed")
