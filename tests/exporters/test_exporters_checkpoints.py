"""Checkpoints as the ecosystems write them: shards, folders, layouts in both directions; hostile ones in one line."""

from __future__ import annotations

import json
import pickle
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture, listings
from onnx_arch.architectures.specification import PLAIN, CheckpointLayout
from onnx_arch.errors import WeightsError
from onnx_arch.exporters.checkpoint_folder import read_checkpoint
from onnx_arch.exporters.export import export_architecture
from onnx_arch.exporters.paging import Shelf
from onnx_arch.exporters.safetensors_file import read_safetensors, write_safetensors
from onnx_arch.exporters.saving import save_weights
from onnx_arch.exporters.weights import layout_to_write, load_weights, stored_elsewhere


def small_state(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "a.weight": torch.from_numpy(rng.standard_normal((4, 3)).astype(np.float32)),
        "a.bias": torch.from_numpy(rng.standard_normal(4).astype(np.float32)).to(torch.bfloat16),
        "steps": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.from_numpy(rng.standard_normal((2, 2, 3)).astype(np.float16)),
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def write_shards(folder, state, suffix=".safetensors", stem="model"):
    """Two shards and their index, as transformers writes them."""
    names = [f"{stem}-0000{index}-of-00002{suffix}" for index in (1, 2)]
    keys = sorted(state)
    parts = [dict.fromkeys(keys[::2]), dict.fromkeys(keys[1::2])]
    for name, part in zip(names, parts, strict=True):
        held = {key: state[key] for key in part}
        save_file(held, folder / name) if suffix == ".safetensors" else torch.save(held, folder / name)
    places = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_safetensors_is_read_as_its_own_library_reads_it(tmp_path):
    save_file(small_state(), tmp_path / "c.safetensors", metadata={"format": "pt"})
    assert same(dict(read_checkpoint(tmp_path / "c.safetensors").tensors), load_file(tmp_path / "c.safetensors"))


def test_safetensors_is_written_as_its_own_library_reads_it(tmp_path):
    state = {**small_state(), "transposed": torch.arange(12.0).reshape(3, 4).t(), "scalar": torch.tensor(2.5)}
    write_safetensors(tmp_path / "c.safetensors", state, Shelf())
    assert same(load_file(tmp_path / "c.safetensors"), state)
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_safetensors_with_unaligned_tensors_is_read(tmp_path):
    header = {
        "x": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "y": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    text = json.dumps(header).encode()
    data = bytes([1, 2, 3]) + np.array([0.5, -2], "<f4").tobytes()
    (tmp_path / "c.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    found = read_safetensors(tmp_path / "c.safetensors", Shelf())
    assert found["y"].tolist() == [0.5, -2]
    assert found["x"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("given", ["index", "folder"])
def test_shards_are_read_as_one_checkpoint(tmp_path, suffix, given):
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    index = write_shards(tmp_path, small_state(), suffix, stem)
    found = read_checkpoint(index if given == "index" else tmp_path)
    assert same(dict(found.tensors), small_state())
    assert len(found.files) == 3


def lightning_checkpoint(path):
    """As CompVis's trainer writes it: state_dict among objects of classes that are not installed here."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    packages = {name: types.ModuleType(name) for name in ("pytorch_lightning", "pytorch_lightning.callbacks")}
    sys.modules.update({**packages, module.__name__: module})
    try:
        best = module.ModelCheckpoint()
        best.best = 0.5
        content = {"epoch": 3, "callbacks": {module.ModelCheckpoint: {"best": best}}, "state_dict": small_state()}
        torch.save(content, path)
    finally:
        for name in (*packages, module.__name__):
            del sys.modules[name]


def test_checkpoint_of_a_trainer_is_read_without_its_classes(tmp_path):
    lightning_checkpoint(tmp_path / "model.ckpt")
    assert same(dict(read_checkpoint(tmp_path / "model.ckpt").tensors), small_state())


def test_averages_beside_the_weights_are_skipped(tmp_path):
    state = find_architecture("mlp").build(tiny_config("mlp")).state_dict()
    averages = {f"model_ema.{key.replace('.', '')}": tensor for key, tensor in state.items()}
    torch.save({"state_dict": {**state, **averages, "model_ema.decay": torch.tensor(0.9)}}, tmp_path / "c.ckpt")
    module = find_architecture("mlp").build(tiny_config("mlp"))
    assert not load_weights(module, tmp_path / "c.ckpt", (PLAIN,)).problems


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path, prefix):
    save_file({f"{prefix}{key}": value for key, value in small_state().items()}, tmp_path / "c.safetensors")
    assert read_checkpoint(tmp_path / "c.safetensors").tensors.keys() == small_state().keys()


def test_old_format_of_torch_is_read(tmp_path):
    torch.save(small_state(), tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    assert same(dict(read_checkpoint(tmp_path / "c.pt").tensors), small_state())


def tiny_config(name):
    return find_architecture(name).config("tiny")


@pytest.mark.parametrize("name", listings())
def test_layout_of_an_architecture_leads_there_and_back(tmp_path, name):
    """The layout that is taken without asking is an ecosystem's wherever the architecture has one that is written."""
    entry = find_architecture(name)
    module = entry.build(tiny_config(name))
    randomize(module, 3)
    layout = layout_to_write(module, entry.checkpoints, None)
    assert layout is not PLAIN or all(other is PLAIN or not other.is_written for other in entry.checkpoints)
    written = stored_elsewhere(module, layout)
    save_weights(module, tmp_path / "c", entry.checkpoints, Shelf())
    again = entry.build(tiny_config(name))
    parts = tuple(dict.fromkeys(file.partition("/")[0] for file in layout.files.values()))
    found = read_checkpoint(tmp_path / "c", Shelf(), parts)
    assert found.tensors.keys() == written.keys()
    fit = load_weights(again, found, (layout,))
    assert not fit.missing
    own = module.state_dict()
    assert all(torch.equal(tensor, own[key]) for key, tensor in again.state_dict().items() if key in fit.tensors)


def test_vgg16_of_timm_begins_its_classifier_with_convolutions(tmp_path):
    entry = find_architecture("vgg16")
    module, again = (entry.build(tiny_config("vgg16")) for _ in range(2))
    randomize(module, 5)
    theirs = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    shapes = {"pre_logits.fc1.weight": (16, 8, 2, 2), "pre_logits.fc2.weight": (16, 16, 1, 1)}
    keys = {key: theirs.get(key[:12], key[:12]) + key[12:] for key in module.state_dict()}
    state = {
        keys[key]: tensor.reshape(shapes.get(keys[key], tensor.shape)) for key, tensor in module.state_dict().items()
    }
    save_file(state, tmp_path / "c.safetensors")
    assert load_weights(again, tmp_path / "c.safetensors", entry.checkpoints).layout.name == "timm"
    assert same(again.state_dict(), module.state_dict())


class Pointwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(3, 2, bias=False)


@pytest.mark.parametrize("stored", [(2, 3, 1, 1), (2, 3)], ids=["filters", "matrix"])
def test_pointwise_filters_become_a_matrix(tmp_path, stored):
    layout = CheckpointLayout("compvis", pointwise=(r"^q\.weight$",))
    weight = torch.arange(6.0).reshape(2, 3)
    save_file({"q.weight": weight.reshape(stored)}, tmp_path / "c.safetensors")
    module = Pointwise()
    load_weights(module, tmp_path / "c.safetensors", (layout,))
    assert torch.equal(module.q.weight, weight)
    assert stored_elsewhere(module, layout)["q.weight"].shape == (2, 3, 1, 1)


def test_folder_of_parts_is_read_and_written(tmp_path):
    layout = CheckpointLayout(
        "diffusers",
        renames=((r"^vae\.", "decoder."), (r"^unet\.", "noise.")),
        restores=((r"^decoder\.", "vae."), (r"^noise\.", "unet.")),
        files={"unet": "unet/diffusion_pytorch_model.safetensors", "vae": "vae/diffusion_pytorch_model.safetensors"},
    )
    module = nn.ModuleDict({"noise": nn.Linear(2, 3), "decoder": nn.Linear(3, 1)})
    config = {"unet": {"sample_size": 64}, "vae": {}, "scheduler": {"beta_start": 0.1}, "model_index": {"a": 1}}
    save_weights(module, tmp_path, (layout,), Shelf(), config=config)
    (tmp_path / "safety_checker").mkdir()
    (tmp_path / "safety_checker" / "model.safetensors").write_bytes(b"not read")
    assert load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors").keys() == {"weight", "bias"}
    found = read_checkpoint(tmp_path, Shelf(), ("unet", "vae"))
    assert found.config == config
    again = nn.ModuleDict({"noise": nn.Linear(2, 3), "decoder": nn.Linear(3, 1)})
    load_weights(again, found, (layout,))
    assert torch.equal(again["decoder"].weight, module["decoder"].weight)


def test_missing_keys_are_drawn_where_that_is_allowed(tmp_path):
    module = find_architecture("mlp").build(tiny_config("mlp"))
    randomize(module, 4)
    state = module.state_dict()
    del state["hidden.bias"]
    save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(WeightsError, match=r"1 problem: missing hidden.bias \[12\] \(--allow-missing draws"):
        export_architecture("mlp", tmp_path, preset="tiny", weights=tmp_path / "c.safetensors")
    bundle = export_architecture(
        "mlp",
        tmp_path,
        preset="tiny",
        weights=tmp_path / "c.safetensors",
        allow_missing=True,
        save_weights=tmp_path / "w.safetensors",
    )
    assert bundle.manifest["weights"]["missing"] == ["hidden.bias"]
    saved = load_file(tmp_path / "w.safetensors")
    assert torch.equal(saved["hidden.weight"], state["hidden.weight"])
    assert saved["hidden.bias"].abs().sum() > 0


def test_missing_keys_allowed_do_not_excuse_other_problems(tmp_path):
    save_file({"hidden.weight": torch.zeros(2, 2)}, tmp_path / "c.safetensors")
    module = find_architecture("mlp").build(tiny_config("mlp"))
    with pytest.raises(WeightsError, match=r"hidden.weight is \[2, 2\]"):
        load_weights(module, tmp_path / "c.safetensors", (PLAIN,), allow_missing=True)


def test_tied_weight_stored_under_one_of_its_keys_is_enough(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(4, 2)
            self.head = nn.Linear(2, 4, bias=False)
            self.head.weight = self.words.weight

    weight = torch.arange(8.0).reshape(4, 2)
    save_file({"words.weight": weight}, tmp_path / "c.safetensors")
    module = Tied()
    load_weights(module, tmp_path / "c.safetensors", (PLAIN,))
    assert torch.equal(module.head.weight, weight)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_weight_of_another_kind_is_refused(tmp_path, dtype):
    state = find_architecture("mlp").build(tiny_config("mlp")).state_dict()
    state["hidden.weight"] = state["hidden.weight"].to(dtype)
    save_file(state, tmp_path / "c.safetensors")
    module = find_architecture("mlp").build(tiny_config("mlp"))
    with pytest.raises(WeightsError, match=f"hidden.weight is {str(dtype)[6:]}, the module's is float32"):
        load_weights(module, tmp_path / "c.safetensors", (PLAIN,))


def safetensors_bytes(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1234", "4 bytes; the length of the header alone takes 8"),
        (safetensors_bytes({}, length=2**62), "states a header of 4611686018427387904 bytes"),
        (safetensors_bytes({}, length=200_000_000), "states a header of 200000000 bytes"),
        (safetensors_bytes(b"[1, 2]"), "no JSON object"),
        (safetensors_bytes(b"\xff\xfe"), "its header is no JSON"),
        (safetensors_bytes(b"[" * 100_000), "its header is no JSON"),
        (safetensors_bytes(b'{"x": 1, "x": 2}'), "its header has 'x' twice"),
        (safetensors_bytes({"x": entry(0, 8)}, bytes(4)), "describes 8 bytes of data, the file has 4"),
        (safetensors_bytes({"x": entry(0, 8)}, bytes(12)), "describes 8 bytes of data, the file has 12"),
        (safetensors_bytes({"x": entry(0, 8), "y": entry(4, 8)}, bytes(8)), "'y' overlaps the one before"),
        (safetensors_bytes({"x": entry(4, 8)}, bytes(8)), "'x' leaves a gap"),
        (safetensors_bytes({"x": entry(0, 8, shape=[3])}, bytes(8)), "takes 12 bytes, its offsets give 8"),
        (safetensors_bytes({"x": entry(0, 8, shape=[-2])}, bytes(8)), "no shape and two offsets"),
        (safetensors_bytes({"x": entry(0, 8, shape=[2.0])}, bytes(8)), "no shape and two offsets"),
        (safetensors_bytes({"x": entry(0, 8, dtype="Q4")}, bytes(8)), "has dtype 'Q4'; known are F64"),
        (safetensors_bytes({"x": 5}), "has dtype None"),
    ],
)
def test_hostile_safetensors_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "c.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=message) as refusal:
        read_checkpoint(tmp_path / "c.safetensors")
    assert "\n" not in str(refusal.value)


def test_every_truncation_of_a_safetensors_file_is_refused(tmp_path):
    save_file({"x": torch.ones(3), "y": torch.ones(2, 2)}, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    for length in range(len(content)):
        (tmp_path / "c.safetensors").write_bytes(content[:length])
        with pytest.raises(WeightsError, match="not a safetensors file"):
            read_checkpoint(tmp_path / "c.safetensors")


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (open, ("ran", "w"))


@pytest.mark.parametrize("suffix", [".bin", ".ckpt"])
def test_code_in_a_shard_is_not_run(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": small_state(), "callbacks": Evil()}, tmp_path / f"evil{suffix}")
    (tmp_path / "i.index.json").write_text(json.dumps({"weight_map": {"a.bias": f"evil{suffix}"}}))
    with pytest.raises(WeightsError, match=r"refused, it would run _?io\.open while it is read"):
        read_checkpoint(tmp_path / "i.index.json")
    assert not (tmp_path / "ran").exists()


def test_code_named_like_bookkeeping_is_not_run(tmp_path, monkeypatch):
    """What stands in for a trainer's classes is inert, whatever name a file gives to what it calls."""
    monkeypatch.chdir(tmp_path)
    program = b"\x80\x02}q\x00(X\x01\x00\x00\x00xq\x01cpytorch_lightning.os\nsystem\nX\x09\x00\x00\x00touch ran\x85Ru."
    (tmp_path / "c.bin").write_bytes(program)
    with pytest.raises(WeightsError, match=r"not a file of plain tensors|no state dict"):
        read_checkpoint(tmp_path / "c.bin")
    assert not (tmp_path / "ran").exists()
    assert pickle.HIGHEST_PROTOCOL >= 2


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"x": "../other.safetensors"}, "names the shard '../other.safetensors'; allowed is a file beside the index"),
        ({"x": "/etc/passwd"}, "names the shard '/etc/passwd'"),
        ({"x": ".."}, "names the shard"),
        ({"x": "sub/other.safetensors"}, "names the shard"),
        ({"x": "missing.safetensors"}, "1 of 1 shards are missing: missing.safetensors"),
        ({"x": 5}, "it has no weight_map of file names"),
        ({}, "it has no weight_map of file names"),
        ([], "it has no weight_map of file names"),
        ({"x": "a.safetensors", "y": "b.safetensors"}, "x is in two shards, a.safetensors and b.safetensors"),
        ({"x": "a.safetensors", "z": "a.safetensors"}, "1 keys are not where it says: z should be in a.safetensors"),
    ],
)
def test_hostile_index_is_refused_in_one_line(tmp_path, weight_map, message):
    (tmp_path / "in").mkdir()
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "in" / "a.safetensors")
    save_file({"x": torch.ones(1), "y": torch.ones(1)}, tmp_path / "in" / "b.safetensors")
    (tmp_path / "in" / "m.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / "in" / "m.index.json")


def test_index_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "m.index.json").write_text("{" * 10)
    with pytest.raises(WeightsError, match="no JSON"):
        read_checkpoint(tmp_path / "m.index.json")


def test_folder_with_several_candidates_asks_for_one(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_file(small_state(), tmp_path / name)
    with pytest.raises(WeightsError, match=r"2 files may be the weights: a.safetensors, b.safetensors; name one"):
        read_checkpoint(tmp_path)


def test_layout_that_is_only_read_is_not_written(tmp_path):
    layout = CheckpointLayout("theirs", renames=((r"^x\.", ""),))
    with pytest.raises(WeightsError, match="checkpoints are written in the layouts onnx-arch"):
        save_weights(nn.Linear(2, 2), tmp_path / "c.safetensors", (layout, PLAIN), Shelf(), name="theirs")


def test_layout_whose_way_back_leads_astray_is_refused(tmp_path):
    wrong = replace(PLAIN, name="wrong", renames=((r"^x\.", ""),), restores=((r"^", "y."),))
    with pytest.raises(WeightsError, match=r"weight is written as y\.weight, which is read as y\.weight"):
        save_weights(nn.Linear(2, 2), tmp_path / "c.safetensors", (wrong,), Shelf(), name="wrong")
