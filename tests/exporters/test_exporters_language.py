"""Graphs of language models: names of the ecosystem, types, opsets, and one graph for prompt, word and chunk."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_arch.exporters.proof import Standing

NAMES = ("gpt2", "bert", "t5", "transformer")


def ports(bundle, model):
    graph = onnx.load(bundle.path / model, load_external_data=False).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


def caches(prefix, layers, *kinds):
    return [f"{prefix}.{layer}.{kind}{name}" for kind in kinds for layer in range(layers) for name in ("key", "value")]


def test_names_are_those_of_the_ecosystem(tiny):
    tokens = ["input_ids", "attention_mask"]
    assert ports(tiny("gpt2"), "model.onnx") == (
        [*tokens, "position_ids", *caches("past_key_values", 2, "")],
        ["logits", *caches("present", 2, "")],
    )
    assert ports(tiny("bert"), "model.onnx") == (
        [*tokens, "token_type_ids"],
        ["last_hidden_state", "pooler_output"],
    )
    for name in ("t5", "transformer"):
        assert ports(tiny(name), "encoder/model.onnx") == (
            tokens,
            ["last_hidden_state", *caches("present", 2, "encoder.")],
        )
        assert ports(tiny(name), "decoder/model.onnx") == (
            ["input_ids", "encoder_attention_mask", *caches("past_key_values", 2, "decoder.", "encoder.")],
            ["logits", *caches("present", 2, "decoder.")],
        )


def test_sizes_of_batch_words_and_cache_are_dynamic(tiny):
    graph = onnx.load(tiny("gpt2").path / "model.onnx", load_external_data=False).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes["attention_mask"] == ["batch", "past + sequence"]
    assert shapes["past_key_values.1.key"] == ["batch", 4, "past", 8]
    assert shapes["present.1.key"] == ["batch", 4, "past + sequence", 8]
    assert shapes["logits"] == ["batch", "sequence", 67]


def test_one_graph_reads_a_prompt_whole_word_by_word_and_in_chunks(tiny):
    session = onnxruntime.InferenceSession(tiny("gpt2").path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    ids = np.random.default_rng(0).integers(0, 67, (2, 12))

    def read(lengths):
        past = {name: np.zeros((2, 4, 0, 8), np.float32) for name in caches("past_key_values", 2, "")}
        logits, begin = [], 0
        for length in lengths:
            places = np.arange(begin, begin + length)
            feeds = {"input_ids": ids[:, places], "position_ids": np.tile(places, (2, 1))}
            feeds |= {"attention_mask": np.ones((2, begin + length), np.int64), **past}
            results = dict(zip(names, session.run(None, feeds), strict=True))
            logits.append(results["logits"])
            past = {name: results[name.replace("past_key_values", "present")] for name in past}
            begin += length
        return np.concatenate(logits, axis=1)

    whole = read([12])
    for lengths in ([1] * 12, [5, 1, 6], [11, 1]):
        np.testing.assert_allclose(read(lengths), whole, rtol=0, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("model", ["encoder/model.onnx", "decoder/model.onnx"])
def test_distances_are_looked_up_without_logarithms(tiny, model):
    graph = onnx.load(tiny("t5").path / model, load_external_data=False).graph
    assert "Log" not in {node.op_type for node in graph.node}


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 21, 23, 24, 25])
@pytest.mark.parametrize("name", NAMES)
def test_every_opset_is_proved(tiny, name, opset):
    bundle = tiny(name, opset=opset, loop=name != "bert")
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_float16_is_proved(tiny, name):
    bundle = tiny(name, dtype="float16")
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_translated_right(tiny, name):
    assert tiny(name, dtype="bfloat16").translation is Standing.PASSED
