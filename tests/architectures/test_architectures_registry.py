"""Every registered architecture: what it states, what it builds, what it gives. Registered means tested."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from onnx_arch.architectures import registry
from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import architecture, find_architecture, listings
from onnx_arch.errors import DuplicateEntryError, InvalidArgumentError, UnknownEntryError
from onnx_arch.exporters.calling import arguments

NAMES = list(listings())
EXPECTED = {
    "mlp": 784 * 300 + 300 + 300 * 10 + 10,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "attention": 4 * 512 * 512,
    "zfnet": 62_357_608,
    "conv-autoencoder": 2 * (3 * 100 * 25 + 100 * 150 * 25 + 150 * 200 * 9) + (100 + 150 + 200) + (150 + 100 + 3),
    "unet": sum(
        9 * (above * c + c * c + c * c + 2 * c * c + c * out) + 4 * c + out  # down, deconvolution, up
        for above, c, out in ((1, 64, 64), (64, 128, 64), (128, 256, 128), (256, 512, 256))
    )
    + 9 * 2 * 512 * 1024
    + 1024
    + 512
    + 64 * 2
    + 2,
    "transformer": 37000 * 512
    + 6 * (4 * 512**2 + 2 * 512 * 2048 + 2560 + 2048)
    + 6 * (8 * 512**2 + 2 * 512 * 2048 + 5632),
    "gpt2": 124_439_808,
    "bert": 109_482_240,
    "t5": 60_506_624,
    "dalle": 53_786_240
    + 43_829_766
    + 64 * (12 * 3968**2 + 13 * 3968)
    + (2 * 24832 + 1 + 257 + 2 * 32 + 2) * 3968
    + 24832,
    "ddpm": 35_746_307,
    "latent-diffusion": 581_994_042 + 872_300_484 + 83_653_863,
    "stable-diffusion": 123_060_480 + 859_520_964 + 83_653_863,
}
"""Parameters at published size: of the papers and of the checkpoints that people have."""

UNUSED = {"latent-diffusion": ["text_encoder.to_logits.weight", "text_encoder.to_logits.bias"]}
"""Parameters that are in the checkpoints and in no picture."""


def tiny_graphs():
    """Every graph of every architecture at tiny size."""
    for name in NAMES:
        entry = find_architecture(name)
        for spec in entry.graphs(entry.config("tiny")):
            yield pytest.param(entry, spec, id=name if spec.name == name else f"{name}-{spec.name}")


GRAPHS = list(tiny_graphs())


def built(entry):
    module = entry.build(entry.config("tiny")).eval()
    randomize(module, 0)
    return module


def call(module, spec, feeds):
    """The tensors that one graph's part of a module gives for inputs by name."""
    part = module if spec.part is None else spec.part(module)
    args, kwargs = arguments(spec, feeds)
    return [leaf for leaf in pytree.tree_leaves(part(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]


def run(entry, spec, **sizes):
    module = built(entry)
    with torch.no_grad():
        return module, call(module, spec, spec.example_inputs(seed=1, **sizes))


def test_listings_read_from_source_equal_what_is_registered():
    for name, listing in listings().items():
        entry = find_architecture(name)
        assert (entry.name, entry.paper) == (listing.name, listing.paper)
        assert entry.build.__module__.endswith(f".{listing.module}")
        assert listing.title


def test_every_architecture_has_an_expected_parameter_count():
    assert set(NAMES) == set(EXPECTED)


@pytest.mark.parametrize("name", NAMES)
def test_published_size_has_the_papers_parameters(name):
    entry = find_architecture(name)
    with torch.device("meta"):
        module = entry.build(entry.config("published"))
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count == EXPECTED[name] == entry.parameters


@pytest.mark.parametrize("name", NAMES)
def test_paper_is_a_link_and_configs_are_frozen(name):
    entry = find_architecture(name)
    assert entry.paper.startswith("https://")
    field = next(iter(vars(entry.config("tiny"))))
    with pytest.raises(FrozenInstanceError):
        setattr(entry.config("tiny"), field, 0)


@pytest.mark.parametrize(("entry", "spec"), GRAPHS)
def test_every_axis_is_used_and_every_dim_is_known(entry, spec):
    axes = {axis.name for axis in spec.axes}
    used = {part for port in spec.inputs for dim in port.shape if isinstance(dim, str) for part in dim.split("+")}
    assert used == axes
    assert all(1 in axis.sweep or axis.size > 8 for axis in spec.axes)
    assert "batch" in {axis.name for axis in spec.axes if axis.dynamic}
    assert len({port.name for port in (*spec.inputs, *spec.outputs)}) == len(spec.inputs) + len(spec.outputs)


@pytest.mark.parametrize(("entry", "spec"), GRAPHS)
def test_forward_gives_the_declared_shapes_at_every_size_of_every_axis(entry, spec):
    tried = [{}, *({axis.name: size} for axis in spec.axes for size in axis.sweep)]
    for sizes in tried:
        _, results = run(entry, spec, **sizes)
        expected = [port.sizes(spec.sizes(**sizes)) for port in spec.outputs]
        assert [tuple(item.shape) for item in results] == expected, sizes
        types = [torch.float32 if port.dtype == "float" else getattr(torch, port.dtype) for port in spec.outputs]
        assert [item.dtype for item in results] == types
        assert all(item.isfinite().all() for item in results)


@pytest.mark.parametrize(("entry", "spec"), GRAPHS)
def test_items_of_a_batch_do_not_see_one_another(entry, spec):
    module, three = run(entry, spec, batch=3)
    feeds = spec.example_inputs(seed=1, batch=3)
    own = {
        port.name: feeds[port.name][2:] if port.shape[:1] == ("batch",) else feeds[port.name] for port in spec.inputs
    }
    with torch.no_grad():
        last = call(module, spec, own)
    for port, of_three, alone in zip(spec.outputs, three, last, strict=True):
        assert port.shape[0] == "batch"
        torch.testing.assert_close(of_three[2:], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_moves_an_output(name):
    entry = find_architecture(name)
    module = built(entry)
    for spec in entry.graphs(entry.config("tiny")):
        outputs = call(module, spec, spec.example_inputs(seed=1))
        moving = [output.square().sum() for output in outputs if output.requires_grad]
        if moving:
            sum(moving).backward()
    unmoved = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert unmoved == UNUSED.get(entry.name, [])


def test_mlp_gives_hand_computed_logits():
    entry = find_architecture("mlp")
    module = entry.build(replace(entry.config("tiny"), in_features=2, hidden_features=2, out_features=1))
    with torch.no_grad():
        module.hidden.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, -1.0]]))
        module.hidden.bias.copy_(torch.tensor([0.5, 1.0]))
        module.output.weight.copy_(torch.tensor([[3.0, 7.0]]))
        module.output.bias.fill_(-1.0)
        # hidden: (1 + 4 + 0.5, −1 − 2 + 1) = (5.5, −2) -> (5.5, 0); output: 16.5 + 0 − 1
        assert module(torch.tensor([[1.0, 2.0]])).item() == pytest.approx(15.5)


def test_attention_with_one_matching_key_gives_its_value():
    entry = find_architecture("attention")
    module = entry.build(replace(entry.config("tiny"), embed_dim=2, num_heads=1))
    with torch.no_grad():
        for linear in (module.query, module.key, module.value, module.output):
            linear.weight.copy_(torch.eye(2))
        keys = torch.tensor([[[100.0, 0.0], [0.0, 100.0]]])
        values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        found = module(torch.tensor([[[0.0, 100.0]]]), keys, values)
    torch.testing.assert_close(found, torch.tensor([[[3.0, 4.0]]]))


def test_attention_equals_torchs_own_multi_head_attention():
    entry = find_architecture("attention")
    module = entry.build(entry.config("tiny"))
    own = torch.nn.MultiheadAttention(16, 4, bias=False, batch_first=True)
    with torch.no_grad():
        own.in_proj_weight.copy_(torch.cat([module.query.weight, module.key.weight, module.value.weight]))
        own.out_proj.weight.copy_(module.output.weight)
        query, store = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
        expected, _ = own(query, store, store)
        torch.testing.assert_close(module(query, store, store), expected)


def test_resnet_block_adds_its_input():
    module = find_architecture("resnet18").build(find_architecture("resnet18").config("tiny"))
    block = module.eval().layer1[0]
    with torch.no_grad():
        block.bn2.weight.zero_()
        block.bn2.bias.fill_(-0.25)
        x = torch.randn(1, 4, 5, 5)
        torch.testing.assert_close(block(x), (x - 0.25).relu())


def test_checkpoint_keys_are_torchvisions():
    vgg, resnet = (find_architecture(name) for name in ("vgg16", "resnet18"))
    with torch.device("meta"):
        vgg_keys = set(vgg.build(vgg.config("published")).state_dict())
        resnet_keys = set(resnet.build(resnet.config("published")).state_dict())
    features = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    layers = [f"features.{n}" for n in features] + [f"classifier.{n}" for n in (0, 3, 6)]
    assert vgg_keys == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    norms = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{norm}" for norm in norms)}
    expected |= {f"{block}.conv{n}.weight" for block in blocks for n in (1, 2)}
    expected |= {f"{block}.bn{n}.{norm}" for block in blocks for n in (1, 2) for norm in norms}
    expected |= {f"layer{stage}.0.downsample.0.weight" for stage in (2, 3, 4)}
    expected |= {f"layer{stage}.0.downsample.1.{norm}" for stage in (2, 3, 4) for norm in norms}
    assert resnet_keys == expected


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_published_image_models_take_imagenet_pictures(name):
    entry = find_architecture(name)
    picture = entry.graphs(entry.config("published"))[0].image_preprocessing
    assert (picture.resize, picture.crop) == (256, 224)
    assert picture.mean == (0.485, 0.456, 0.406)
    assert picture.std == (0.229, 0.224, 0.225)


def test_randomize_leaves_no_number_at_its_identity_and_depends_on_the_seed():
    module = find_architecture("resnet18").build(find_architecture("resnet18").config("tiny"))
    randomize(module, 3)
    first = {name: tensor.clone() for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    assert all(not torch.any((tensor == 0) | (tensor == 1)) for tensor in first.values())
    randomize(module, 4)
    assert all(not torch.equal(first[name], module.state_dict()[name]) for name in first)
    randomize(module, 3)
    assert all(torch.equal(first[name], module.state_dict()[name]) for name in first)


def test_example_inputs_are_seeded_and_typed():
    spec = find_architecture("attention").graphs(find_architecture("attention").config("tiny"))[0]
    first, again = spec.example_inputs(seed=5, batch=4), spec.example_inputs(seed=5, batch=4)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert first["query"].shape == (4, 5, 16)
    assert spec.example_inputs(dtype=np.float16)["query"].dtype == np.float16
    assert not np.array_equal(first["key"], spec.example_inputs(seed=6, batch=4)["key"])
    with pytest.raises(InvalidArgumentError, match="axes are batch, target_sequence, source_sequence"):
        spec.example_inputs(height=3)


def test_listing_imports_neither_torch_nor_numpy():
    code = "import sys; from onnx_arch.architectures.registry import listings; listings(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "numpy", "onnx"}.isdisjoint(done.stdout.split())


def test_unknown_names_are_told_what_there_is():
    with pytest.raises(UnknownEntryError, match="no architecture 'resnet19'; there are attention, bert, "):
        find_architecture("resnet19")
    with pytest.raises(UnknownEntryError, match="no preset 'huge'; there are published, tiny"):
        find_architecture("mlp").config("huge")


@dataclass(frozen=True)
class Nothing:
    """A config without fields."""


def test_registering_twice_or_without_a_preset_is_refused(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    presets = {"published": Nothing(), "tiny": Nothing()}
    make = architecture("twice", paper="https://x", presets=presets, graphs=lambda _: (), parameters=0)
    make(lambda _: torch.nn.Identity())
    with pytest.raises(DuplicateEntryError, match="twice is already registered by"):
        make(lambda _: torch.nn.Identity())
    with pytest.raises(InvalidArgumentError, match="preset tiny missing"):
        architecture("x", paper="", presets={"published": Nothing()}, graphs=lambda _: (), parameters=0)(lambda _: None)


def test_two_files_with_one_name_are_refused(tmp_path, monkeypatch):
    for stem in ("a", "b"):
        text = '"""Title."""\n@architecture("same", paper="https://x")\ndef build(config): ...\n'
        (tmp_path / f"{stem}.py").write_text(text)
    monkeypatch.setattr(registry, "__file__", str(Path(tmp_path) / "registry.py"))
    with pytest.raises(DuplicateEntryError, match="same is registered by a and b"):
        listings.__wrapped__()
