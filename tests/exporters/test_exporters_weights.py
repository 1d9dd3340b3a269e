"""Checkpoints fit, or every reason why not is told; no code in them is run."""

from __future__ import annotations

import hashlib
import json
import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture
from onnx_arch.architectures.specification import PLAIN, CheckpointLayout
from onnx_arch.errors import WeightsError
from onnx_arch.exporters.export import export_architecture
from onnx_arch.exporters.paging import Shelf
from onnx_arch.exporters.saving import save_weights
from onnx_arch.exporters.weights import load_weights, read_checkpoint


def tiny_state(name, seed=9):
    entry = find_architecture(name)
    module = entry.build(entry.config("tiny"))
    randomize(module, seed)
    return module.state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_checkpoint_becomes_the_models_weights(tmp_path, suffix):
    state = tiny_state("vgg16")
    path = tmp_path / f"vgg{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    bundle = export_architecture("vgg16", tmp_path, preset="tiny", weights=path)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(bundle.path / "model.onnx").graph.initializer}
    assert all(np.array_equal(stored[key], value.numpy()) for key, value in state.items())
    digest = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert bundle.manifest["weights"] == {"file": path.name, "layout": "torchvision", "sha256": digest}


@pytest.mark.parametrize("nested", ["state_dict", "model"])
def test_nested_state_dict_of_a_training_script_is_found(tmp_path, nested):
    torch.save({"epoch": 3, nested: tiny_state("mlp")}, tmp_path / "c.pt")
    module = find_architecture("mlp").build(find_architecture("mlp").config("tiny"))
    assert load_weights(module, tmp_path / "c.pt", (PLAIN,)).layout.name == "onnx-arch"
    assert torch.equal(module.hidden.weight, tiny_state("mlp")["hidden.weight"])


@pytest.mark.parametrize("name", ["mlp", "bert", "t5"])
def test_network_inside_a_training_framework_is_found(tmp_path, name):
    entry = find_architecture(name)
    state = tiny_state(name)
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "c.ckpt")
    module = entry.build(entry.config("tiny"))
    load_weights(module, tmp_path / "c.ckpt", entry.checkpoints)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_some_wrapped_keys_are_not_unwrapped(tmp_path):
    state = tiny_state("mlp")
    first, *rest = state
    save_file({f"model.{first}": state[first], **{key: state[key] for key in rest}}, tmp_path / "c.safetensors")
    module = find_architecture("mlp").build(find_architecture("mlp").config("tiny"))
    with pytest.raises(WeightsError, match=f"unexpected model.{first}"):
        load_weights(module, tmp_path / "c.safetensors", (PLAIN,))


def test_old_checkpoint_without_batch_counters_fits(tmp_path):
    state = {key: value for key, value in tiny_state("resnet18").items() if not key.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "c.safetensors")
    entry = find_architecture("resnet18")
    module = entry.build(entry.config("tiny"))
    assert load_weights(module, tmp_path / "c.safetensors", entry.checkpoints).layout.name == "torchvision"
    assert torch.equal(module.bn1.running_var, state["bn1.running_var"])


def test_every_problem_is_told_at_once(tmp_path):
    state = tiny_state("mlp")
    del state["hidden.bias"]
    state["output.weight"] = torch.zeros(7, 12)
    state["head.extra"] = torch.zeros(2)
    save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(WeightsError) as caught:
        export_architecture("mlp", tmp_path / "out", preset="tiny", weights=tmp_path / "c.safetensors")
    message = str(caught.value)
    assert "3 problems" in message
    assert "missing hidden.bias [12]" in message
    assert "unexpected head.extra [2]" in message
    assert "output.weight is [7, 12], the module's is [5, 12]" in message
    assert not (tmp_path / "out").exists()


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (open, ("ran", "w"))


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"hidden.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "bare.bin"):
        with pytest.raises(WeightsError, match=r"would run _?io\.open while|not a file of plain tensors") as refusal:
            read_checkpoint(tmp_path / name)
        assert "False" not in str(refusal.value), "the advice to read it without protection"
    assert not (tmp_path / "ran").exists()


def write_text(path):
    path.write_text("weights")


def write_nothing(path):
    path.write_bytes(b"")


def write_tensor(path):
    torch.save(torch.zeros(3), path)


def write_numbers(path):
    torch.save({"epoch": 3, "lr": 0.1}, path)


def write_lying_safetensors(path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"short")


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("c.pt", write_text, "not a file of plain tensors"),
        ("c.pt", write_nothing, "not a file of plain tensors"),
        ("c.pt", write_tensor, "holds a Tensor; allowed is a state dict"),
        ("c.pt", write_numbers, "no state dict: epoch, lr hold no tensor"),
        ("c.safetensors", write_text, "not a safetensors file"),
        ("c.safetensors", write_lying_safetensors, "not a safetensors file"),
        ("c.npz", write_text, "unknown kind '.npz'; allowed are .safetensors, .pt, .pth, .bin, .ckpt"),
        ("c.pt", lambda path: None, "no such file"),
        ("c.pt", lambda path: path.mkdir(), "a folder without weights"),
    ],
)
def test_file_that_is_no_checkpoint_is_refused(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        {"ema": {"x": torch.ones(2)}, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        {"net": {"module.x": torch.ones(2)}},
        {"other": {"y": torch.ones(2)}, "model": {"x": torch.ones(2)}},
    ],
)
def test_only_state_dict_of_a_file_is_found_whatever_it_is_called(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    assert list(read_checkpoint(tmp_path / "c.pt").tensors) == ["x"]


def test_of_two_state_dicts_none_is_chosen(tmp_path):
    torch.save({"generator": {"x": torch.ones(2)}, "critic": {"x": torch.ones(2)}}, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match="no state dict: generator, critic hold no tensor"):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("name", ["c.pt", "c.bin"])
def test_pickle_is_not_written_nor_a_folder_of_its_name(tmp_path, name):
    with pytest.raises(WeightsError, match=r"pickles are not written; allowed are a .safetensors file and a folder"):
        save_weights(torch.nn.Linear(2, 2), tmp_path / name, (PLAIN,), Shelf())
    assert not (tmp_path / name).exists()


HUGGING = CheckpointLayout(
    "huggingface",
    renames=((r"^transformer\.", ""), (r"\.c_fc\.", ".hidden."), (r".*\.attn\.bias$", "")),
    transposed=(r"hidden\.weight$",),
)


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = torch.nn.ModuleDict({"hidden": torch.nn.Linear(2, 3)})


def test_layout_renames_transposes_and_drops(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    state = {
        "transformer.mlp.c_fc.weight": weight,
        "transformer.mlp.c_fc.bias": torch.ones(3),
        "transformer.h.attn.bias": torch.zeros(1),
    }
    save_file(state, tmp_path / "c.safetensors")
    module = Small()
    assert load_weights(module, tmp_path / "c.safetensors", (PLAIN, HUGGING)).layout.name == "huggingface"
    assert torch.equal(module.mlp["hidden"].weight, weight.t())


def small_state(**more):
    state = {"mlp.hidden.weight": torch.ones(2, 3), "mlp.hidden.bias": torch.ones(3)}
    return {**state, **{key.replace("_at_", "."): value for key, value in more.items()}}


def test_two_keys_that_become_one_and_differ_are_refused(tmp_path):
    save_file(small_state(transformer_at_mlp_at_hidden_at_bias=torch.zeros(3)), tmp_path / "c.safetensors")
    with pytest.raises(WeightsError, match=r"two keys of it become mlp.hidden.bias and differ: .*transformer\.mlp"):
        load_weights(Small(), tmp_path / "c.safetensors", (HUGGING,))


def test_weight_that_is_stored_twice_is_taken_once(tmp_path):
    save_file(small_state(transformer_at_mlp_at_hidden_at_bias=torch.ones(3)), tmp_path / "c.safetensors")
    assert load_weights(Small(), tmp_path / "c.safetensors", (HUGGING,)).layout is HUGGING


def test_half_precision_checkpoint_is_widened(tmp_path):
    state = {key: value.half() for key, value in tiny_state("mlp").items()}
    save_file(state, tmp_path / "c.safetensors")
    module = find_architecture("mlp").build(find_architecture("mlp").config("tiny"))
    load_weights(module, tmp_path / "c.safetensors", (PLAIN,))
    assert module.hidden.weight.dtype == torch.float32
    assert torch.equal(module.hidden.weight, state["hidden.weight"].float())
