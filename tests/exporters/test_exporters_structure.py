"""The entry's contract holds for what comes later: several graphs, tokens, masks, nested states, sums of axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from onnx_arch.architectures import registry
from onnx_arch.architectures.registry import architecture
from onnx_arch.architectures.specification import Axis, GraphSpec, Literal, Port
from onnx_arch.exporters.export import export_architecture
from onnx_arch.exporters.proof import Standing

LAYERS = 2


@dataclass(frozen=True)
class TranslatorConfig:
    """Sizes of a small encoder and decoder."""

    vocabulary: int = 13
    width: int = 8


class Encoder(nn.Module):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        weights = attention_mask[..., None].to(x.dtype)
        return self.mix(x * weights)


class Decoder(nn.Module):
    """Two layers of attention over what was said before, which comes in and goes out as a nested state."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.keys = nn.ModuleList(nn.Linear(width, width) for _ in range(LAYERS))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, input_ids: Tensor, *, past_key_values, mode: str):
        x = self.embedding(input_ids)
        present = []
        for linear, past in zip(self.keys, past_key_values, strict=True):
            new = linear(x)
            key = torch.cat([past["key"], new], dim=1)  # (B, past + T, C)
            value = torch.cat([past["value"], new.tanh()], dim=1)
            scores = x @ key.transpose(1, 2) / key.shape[-1] ** 0.5
            x = x + (torch.softmax(scores, dim=-1) if mode == "softmax" else scores) @ value
            present.append({"key": key, "value": value})
        return self.head(x), present


class Translator(nn.Module):
    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.vocabulary, config.width)
        self.decoder = Decoder(config.vocabulary, config.width)


def states(prefix: str, length: str, width: int) -> tuple[Port, ...]:
    names = [f"{prefix}.{layer}.{kind}" for layer in range(LAYERS) for kind in ("key", "value")]
    return tuple(Port(name, ("batch", length, width)) for name in names)


def translator_graphs(config: TranslatorConfig) -> tuple[GraphSpec, ...]:
    tokens = Port("input_ids", ("batch", "sequence"), "int64", "integers", config.vocabulary)
    mask = Port("attention_mask", ("batch", "sequence"), "bool", "integers", 2)
    hidden = Port("hidden", ("batch", "sequence", config.width))
    batch, sequence = Axis("batch", 2, (1, 3)), Axis("sequence", 3, (1, 2, 7))
    past = Axis("past", 4, (0, 1, 9))
    encoder = GraphSpec("encoder", (tokens, mask), (hidden,), (batch, sequence), part=lambda module: module.encoder)
    template = [{"key": f"past_key_values.{n}.key", "value": f"past_key_values.{n}.value"} for n in range(LAYERS)]
    decoder = GraphSpec(
        "decoder",
        (tokens, *states("past_key_values", "past", config.width)),
        (Port("logits", ("batch", "sequence", config.vocabulary)), *states("present", "past+sequence", config.width)),
        (batch, sequence, past),
        arguments=("input_ids",),
        keywords={"past_key_values": template, "mode": Literal("softmax")},
        part=lambda module: module.decoder,
    )
    return encoder, decoder


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_entries", dict(registry._entries))
        presets = {"published": TranslatorConfig(), "tiny": TranslatorConfig(7, 4)}
        register = architecture(
            "translator", paper="https://x", presets=presets, graphs=translator_graphs, parameters=0
        )
        register(Translator)
        yield export_architecture("translator", tmp_path_factory.mktemp("several"), preset="tiny")


def test_every_graph_is_proved(translator):
    assert [proof.graph for proof in translator.proofs] == ["encoder", "decoder"]
    assert (translator.translation, translator.runtime, translator.written) == (
        Standing.PASSED,
        Standing.PASSED,
        True,
    )


def test_every_graph_has_its_folder_and_one_manifest_names_all_files(translator):
    files = {str(path.relative_to(translator.path)) for path in translator.path.rglob("*") if path.is_file()}
    assert files == {*translator.manifest["files"], "manifest.json"}
    assert {"encoder/model.onnx", "decoder/model.onnx", "decoder/test_data_set_0/input_4.pb"} <= files
    assert [graph["model"] for graph in translator.manifest["graphs"]] == ["encoder/model.onnx", "decoder/model.onnx"]


def test_decoder_is_proved_without_a_past_and_with_one_token(translator):
    sizes = [dict(shape.sizes) for shape in translator.proofs[1].shapes]
    assert {"batch": 2, "sequence": 3, "past": 0} in sizes
    assert {"batch": 2, "sequence": 1, "past": 4} in sizes
    assert {"batch": 1, "sequence": 1, "past": 0} in sizes


def test_nested_states_keep_their_names_and_sums_their_form(translator):
    graph = onnx.load(translator.path / "decoder" / "model.onnx").graph
    inputs = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input
    }
    assert inputs["past_key_values.1.value"] == ["batch", "past", 4]
    outputs = {value.name: value.type.tensor_type.shape.dim[1].dim_param for value in graph.output}
    assert list(outputs) == ["logits", "present.0.key", "present.0.value", "present.1.key", "present.1.value"]
    assert outputs["present.0.key"].replace(" ", "") in ("past+sequence", "sequence+past")


def test_decoding_step_by_step_equals_decoding_at_once(translator):
    session = onnxruntime.InferenceSession(translator.path / "decoder" / "model.onnx")
    tokens = np.array([[1, 5, 2, 6]])
    state = {
        f"past_key_values.{n}.{kind}": np.zeros((1, 0, 4), np.float32) for n in range(2) for kind in ("key", "value")
    }
    names = [output.name for output in session.get_outputs()]
    for step in range(4):
        results = dict(zip(names, session.run(None, {"input_ids": tokens[:, step : step + 1], **state}), strict=True))
        state = {name.replace("present", "past_key_values"): results[name] for name in names[1:]}
    assert state["past_key_values.0.key"].shape == (1, 4, 4)
    whole = dict(
        zip(names, session.run(None, {"input_ids": tokens[:, 3:], **state_of(session, tokens[:, :3])}), strict=True)
    )
    np.testing.assert_allclose(results["logits"], whole["logits"], rtol=1e-4, atol=1e-5)


def state_of(session, tokens):
    """The state after the tokens, fed one by one."""
    state = {
        f"past_key_values.{n}.{kind}": np.zeros((1, 0, 4), np.float32) for n in range(2) for kind in ("key", "value")
    }
    names = [output.name for output in session.get_outputs()]
    for token in tokens[0]:
        results = dict(zip(names, session.run(None, {"input_ids": np.array([[token]]), **state}), strict=True))
        state = {name.replace("present", "past_key_values"): results[name] for name in names[1:]}
    return state


def test_masks_and_tokens_are_typed_and_drawn_within_their_range(translator):
    spec = translator_graphs(TranslatorConfig(7, 4))[0]
    feeds = spec.example_inputs(batch=40, sequence=9)
    assert feeds["input_ids"].dtype == np.int64
    assert set(np.unique(feeds["input_ids"])) == set(range(7))
    assert feeds["attention_mask"].dtype == np.bool_
    assert set(np.unique(feeds["attention_mask"])) == {False, True}
