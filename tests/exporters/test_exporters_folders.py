"""Folders that transformers wrote, of sizes that no preset has: exported, equal to transformers, written back."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from onnx_arch.architectures.registry import find_architecture
from onnx_arch.cli.main import guarded, run
from onnx_arch.errors import InvalidArgumentError, OnnxArchError, WeightsError
from onnx_arch.exporters.export import export_architecture
from onnx_arch.exporters.paging import Shelf
from onnx_arch.exporters.reload import reload_bundle
from onnx_arch.exporters.subject import Parameters, architecture_subject

transformers = pytest.importorskip("transformers")


def bert():
    config = transformers.BertConfig(
        vocab_size=53, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=20,
    )  # fmt: skip
    return transformers.BertModel(config)


def gpt2():
    sizes = {"vocab_size": 61, "n_positions": 32, "n_embd": 24, "n_layer": 3, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def t5():
    config = transformers.T5Config(
        vocab_size=47, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


MODELS = {"bert": bert, "gpt2": gpt2, "t5": t5}


def saved(name, folder, seed=0, shard="1GB"):
    """A model of transformers with generic weights, and the folder that it wrote."""
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def subject_of(name, folder):
    """The module that a folder gives, without an export."""
    options = {"preset": "tiny", "dtype": "float32", "dynamic": (), "inputs": ()}
    return architecture_subject(name, Parameters(Shelf(folder), 0, folder), **options)


@pytest.mark.parametrize("name", MODELS)
def test_folder_states_the_sizes_and_gives_the_weights(tmp_path, name):
    saved(name, tmp_path / "hf", shard="10KB")
    assert (tmp_path / "hf" / "model.safetensors.index.json").is_file()
    bundle = export_architecture(name, tmp_path, weights=tmp_path / "hf", save_weights=tmp_path / "back")
    assert (bundle.translation, bundle.runtime) == ("passed", "passed")
    assert bundle.manifest["weights"]["layout"].startswith("huggingface")
    assert bundle.manifest["source"]["config"] == json.loads((tmp_path / "hf" / "config.json").read_text())
    again = type(MODELS[name]()).from_pretrained(tmp_path / "back").state_dict()
    original = type(MODELS[name]()).from_pretrained(tmp_path / "hf").state_dict()
    assert again.keys() == original.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in original.items())


def test_bert_of_a_folder_computes_what_transformers_does(tmp_path):
    model = saved("bert", tmp_path / "hf")
    bundle = export_architecture("bert", tmp_path, weights=tmp_path / "hf")
    session = onnxruntime.InferenceSession(bundle.path / "model.onnx")
    rng = np.random.default_rng(0)
    feeds = {"input_ids": rng.integers(0, 53, (2, 7)), "attention_mask": np.ones((2, 7), np.int64)}
    feeds["token_type_ids"] = np.zeros((2, 7), np.int64)
    taken = {item.name for item in session.get_inputs()}
    given = session.run(None, {key: value for key, value in feeds.items() if key in taken})[0]
    with torch.no_grad():
        wanted = model(**{key: torch.from_numpy(value) for key, value in feeds.items()}).last_hidden_state.numpy()
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4)


def test_bundle_of_a_folder_is_reloaded_from_a_bare_file(tmp_path):
    """The bundle knows its sizes; the file that comes has none to state."""
    saved("bert", tmp_path / "hf")
    other = saved("bert", tmp_path / "other", seed=1)
    bundle = export_architecture("bert", tmp_path, weights=tmp_path / "hf")
    reloaded = reload_bundle(bundle.path, tmp_path / "other" / "model.safetensors", output_dir=tmp_path / "out")
    assert (reloaded.translation, reloaded.runtime) == ("passed", "passed")
    assert len(load_file(tmp_path / "other" / "model.safetensors")) == len(other.state_dict())


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_head_that_differs_from_the_embedding_is_its_own_whatever_the_config_says(tmp_path, name):
    """transformers 5 writes "tie_word_embeddings": true into every T5's config, also beside a head of its own."""
    saved(name, tmp_path / "hf")
    state = load_file(tmp_path / "hf" / "model.safetensors")
    embedding = state["transformer.wte.weight" if name == "gpt2" else "shared.weight"]
    save_file({**state, "lm_head.weight": embedding.flip(0).contiguous()}, tmp_path / "hf" / "model.safetensors")
    theirs = type(MODELS[name]()).from_pretrained(tmp_path / "hf").eval()
    subject, ids = subject_of(name, tmp_path / "hf"), torch.tensor([[5, 7, 11]])
    with torch.no_grad():
        ours = subject.module.score(ids, torch.ones_like(ids), ids)
        wanted = theirs(input_ids=ids, **({"decoder_input_ids": ids} if name == "t5" else {})).logits
    assert subject.source["config"]["tie_word_embeddings"] is False
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", ["MaskedLM", "QuestionAnswering"])
def test_bert_that_was_trained_without_a_pooler_has_no_pooled_output(tmp_path, task):
    torch.manual_seed(0)
    model = getattr(transformers, f"BertFor{task}")(bert().config).eval()
    model.save_pretrained(tmp_path / "hf")
    bundle = export_architecture("bert", tmp_path, weights=tmp_path / "hf", save_weights=tmp_path / "back")
    assert (bundle.translation, bundle.runtime) == ("passed", "passed")
    session = onnxruntime.InferenceSession(bundle.path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["last_hidden_state"]
    ids = torch.tensor([[5, 7, 11]])
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        wanted = model.bert(**feeds).last_hidden_state.numpy()
    given = session.run(None, {key: value.numpy() for key, value in feeds.items()})[0]
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
    reloaded = reload_bundle(bundle.path, tmp_path / "hf", output_dir=tmp_path / "again")
    assert (reloaded.translation, reloaded.runtime) == ("passed", "passed")


def test_a_checkpoint_without_a_pooler_does_not_go_into_a_graph_with_one(tmp_path):
    saved("bert", tmp_path / "hf")
    bundle = export_architecture("bert", tmp_path, weights=tmp_path / "hf")
    transformers.BertForMaskedLM(bert().config).save_pretrained(tmp_path / "masked")
    with pytest.raises(OnnxArchError, match="pooler"):
        reload_bundle(bundle.path, tmp_path / "masked", output_dir=tmp_path / "again")


def test_second_head_of_gpt2_is_left_out(tmp_path):
    theirs = transformers.GPT2DoubleHeadsModel(gpt2().config)
    theirs.save_pretrained(tmp_path)
    subject, ids = subject_of("gpt2", tmp_path), torch.tensor([[5, 7, 11]])
    with torch.no_grad():
        wanted = theirs.eval()(ids).logits
        torch.testing.assert_close(subject.module.score(ids, torch.ones_like(ids), ids), wanted, rtol=1e-5, atol=1e-5)


def test_mt5_is_a_t5_that_does_not_scale(tmp_path):
    config = transformers.MT5Config(
        vocab_size=47, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3, decoder_start_token_id=0
    )
    torch.manual_seed(0)
    model = transformers.MT5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    subject, ids = subject_of("t5", tmp_path), torch.tensor([[5, 7, 11]])
    with torch.no_grad():
        ours = subject.module.score(ids, torch.ones_like(ids), ids)
        torch.testing.assert_close(ours, model(input_ids=ids, decoder_input_ids=ids).logits, rtol=1e-5, atol=1e-5)


def test_folder_that_was_written_of_a_preset_is_read_with_it(tmp_path):
    made = export_architecture(
        "stable-diffusion", tmp_path / "a", preset="tiny", save_weights=tmp_path / "w", layout="diffusers"
    )
    again = export_architecture("stable-diffusion", tmp_path / "b", preset="tiny", weights=tmp_path / "w")
    for graph in ("unet", "vae_decoder"):
        assert (made.path / graph / "model.onnx").read_bytes() == (again.path / graph / "model.onnx").read_bytes()


def test_folder_of_another_model_is_refused(tmp_path):
    saved("gpt2", tmp_path / "hf")
    with pytest.raises(InvalidArgumentError, match=r"model_type 'gpt2'; this architecture reads 'bert'"):
        export_architecture("bert", tmp_path, weights=tmp_path / "hf")


def test_config_that_is_no_config_is_refused_in_one_line(tmp_path, capsys):
    saved("bert", tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "bert", "hidden_size": "wide"}')
    assert guarded(lambda: run(["export", "bert", "--weights", str(tmp_path / "hf"), "-o", str(tmp_path / "x")])) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_file_of_other_sizes_than_the_preset_lists_what_does_not_fit(tmp_path):
    saved("bert", tmp_path / "hf")
    with pytest.raises(WeightsError, match=r"embeddings.word_embeddings.weight is \[53, 24\]"):
        export_architecture("bert", tmp_path, preset="tiny", weights=tmp_path / "hf" / "model.safetensors")
    assert find_architecture("bert").from_pretrained_config is not None
