"""The language models against the ecosystem's implementations on the same random weights, and against each paper."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from onnx_arch.architectures._relative_bias import bucket_starts
from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture
from onnx_arch.errors import InvalidArgumentError

RELATIVE = 2e-5


def built(name, config, seed=0):
    module = find_architecture(name).build(config).eval()
    randomize(module, seed)
    return module


def taken_over(name, reference, **changed):
    """Our module with the sizes and parameters of a reference implementation, by our entry's config and layouts."""
    randomize(reference.eval(), 0)
    entry = find_architecture(name)
    module = entry.build(entry.from_pretrained_config({**reference.config.to_dict(), **changed})).eval()
    layout = next(layout for layout in entry.checkpoints if _fits(layout, reference, module))
    given = {layout.rename(key): value for key, value in reference.state_dict().items()}
    given = {key: value.t() if layout.is_transposed(key) else value for key, value in given.items() if key}
    module.load_state_dict(given)
    return module


def _fits(layout, reference, module):
    keys = {layout.rename(key) for key in reference.state_dict()} - {""}
    return keys == set(module.state_dict())


def assert_same(actual, expected):
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= RELATIVE * float(expected.abs().max())


def tokens(vocabulary, *shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, vocabulary, shape))


def padded(*lengths, left=False):
    rows = [[0] * (max(lengths) - n) + [1] * n if left else [1] * n + [0] * (max(lengths) - n) for n in lengths]
    return torch.tensor(rows)


TINY = {
    "gpt2": {"vocab_size": 67, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "eos_token_id": 66,
             "bos_token_id": 66},
    "bert": {"vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 48, "max_position_embeddings": 40},
    "t5": {"vocab_size": 71, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3,
           "num_heads": 4, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
}  # fmt: skip
GPT2 = [{}, {"activation_function": "relu", "n_inner": 50}, {"scale_attn_by_inverse_layer_idx": True}]
T5 = [{}, {"feed_forward_proj": "gated-gelu"}, {"feed_forward_proj": "gated-silu"}, {"feed_forward_proj": "gelu_new"}]


@pytest.mark.parametrize("settings", GPT2, ids=str)
def test_gpt2_gives_the_reference_logits_with_padding_and_cache(settings):
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY["gpt2"], **settings))
    module = taken_over("gpt2", reference)
    ids, mask = tokens(67, 2, 9), padded(9, 6, left=True)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = reference(ids, attention_mask=mask, position_ids=positions).logits
        whole, _ = module(ids, mask, positions, module.empty_cache(2))
        _, past = module(ids[:, :4], mask[:, :4], positions[:, :4], module.empty_cache(2))
        later, presents = module(ids[:, 4:], mask, positions[:, 4:], past)
    assert_same(whole[mask != 0], expected[mask != 0])
    assert_same(later[mask[:, 4:] != 0], expected[:, 4:][mask[:, 4:] != 0])
    assert [pair[0].shape for pair in presents] == [(2, 4, 9, 8)] * 3


def test_gpt2_without_a_tied_head_has_one_of_its_own():
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY["gpt2"], tie_word_embeddings=False))
    module = taken_over("gpt2", reference)
    assert not torch.equal(module.lm_head.weight, module.wte.weight)
    ids = tokens(67, 2, 5)
    with torch.no_grad():
        assert_same(module.score(ids, torch.ones_like(ids), ids), reference(ids).logits)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_bert_gives_the_reference_states(activation):
    reference = transformers.BertModel(transformers.BertConfig(**TINY["bert"], hidden_act=activation))
    module = taken_over("bert", reference)
    ids, mask, types = tokens(101, 3, 11), padded(11, 1, 7), tokens(2, 3, 11)
    with torch.no_grad():
        states, pooled = module(ids, mask, types)
        expected = reference(ids, attention_mask=mask, token_type_ids=types)
    assert_same(states, expected.last_hidden_state)
    assert_same(pooled, expected.pooler_output)


@pytest.mark.parametrize("settings", T5, ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_t5_gives_the_reference_logits_with_padding_and_cache(settings, tied):
    config = transformers.T5Config(**TINY["t5"], **settings, tie_word_embeddings=tied)
    reference = transformers.T5ForConditionalGeneration(config)
    if not tied:  # this version of the reference shares the head whatever the config says; older ones did not
        reference.lm_head.weight = torch.nn.Parameter(torch.randn(71, 32))
    module = taken_over("t5", reference, tie_word_embeddings=tied)
    ids, mask, words = tokens(71, 2, 30), padded(30, 17), tokens(71, 2, 26, seed=1)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask, decoder_input_ids=words).logits
        assert_same(module(ids, mask, words), expected)
        _, source = module.encode(ids, mask)
        _, past = module.decode(words[:, :3], mask, module.empty_cache(2), source)
        later, _ = module.decode(words[:, 3:], mask, past, source)
    assert_same(later, expected[:, 3:])


@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (16, 128), (8, 20), (32, 64), (6, 16)])
def test_t5_buckets_are_the_references_at_every_distance(buckets, longest):
    module = transformers.models.t5.modeling_t5.T5Attention
    distance = torch.arange(-3 * longest, 3 * longest)
    for bidirectional in (True, False):
        expected = module._relative_position_bucket(distance, bidirectional, buckets, longest)
        one_way = buckets // 2 if bidirectional else buckets
        behind = distance.abs() if bidirectional else (-distance).clamp(min=0)
        found = sum((behind >= start).long() for start in bucket_starts(one_way, longest))
        found = found + (distance > 0) * one_way * bidirectional
        assert torch.equal(found, expected)


def reference_transformer(config):
    """PyTorch's own layers, whose projections have biases where the paper has none: zero."""
    sizes = {"d_model": config.embed_dim, "nhead": config.num_heads, "dim_feedforward": config.hidden_dim}
    options = {"dropout": 0.0, "batch_first": True, "norm_first": False, "layer_norm_eps": config.epsilon}
    encoder = torch.nn.ModuleList(
        torch.nn.TransformerEncoderLayer(**sizes, **options) for _ in range(config.num_layers)
    )
    decoder = torch.nn.ModuleList(
        torch.nn.TransformerDecoderLayer(**sizes, **options) for _ in range(config.num_layers)
    )
    return encoder.eval(), decoder.eval()


def copy_attention(theirs, ours):
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
    theirs.out_proj.weight.copy_(ours.output.weight)
    theirs.in_proj_bias.zero_()
    theirs.out_proj.bias.zero_()


def copy_layer(theirs, ours):
    copy_attention(theirs.self_attn, ours.self_attention)
    pairs = [(theirs.linear1, ours.feed_forward.hidden), (theirs.linear2, ours.feed_forward.output)]
    pairs += [(getattr(theirs, f"norm{n}"), getattr(ours, f"norm{n}")) for n in (1, 2, 3) if hasattr(ours, f"norm{n}")]
    for theirs_part, ours_part in pairs:
        theirs_part.load_state_dict(ours_part.state_dict())
    if hasattr(ours, "cross_attention"):
        copy_attention(theirs.multihead_attn, ours.cross_attention)


def test_transformer_gives_the_logits_of_pytorchs_own_layers():
    entry = find_architecture("transformer")
    config = entry.config("tiny")
    module = built("transformer", config)
    ids, mask, words = tokens(59, 2, 8), padded(8, 5), tokens(59, 2, 6, seed=1)
    with torch.no_grad():
        encoder, decoder = reference_transformer(config)
        for theirs, ours in zip((*encoder, *decoder), (*module.encoder, *module.decoder), strict=True):
            copy_layer(theirs, ours)
        embed = module.shared.weight * math.sqrt(config.embed_dim)
        x, y = embed[ids] + waves(8, 32), embed[words] + waves(6, 32)
        for layer in encoder:
            x = layer(x, src_key_padding_mask=mask == 0)
        causal = torch.triu(torch.ones(6, 6, dtype=torch.bool), diagonal=1)
        for layer in decoder:
            y = layer(y, x, tgt_mask=causal, memory_key_padding_mask=mask == 0)
        assert_same(module(ids, mask, words), y @ module.shared.weight.T)


def waves(length, channels):
    """Section 3.5 of the paper, element by element."""
    return torch.tensor(
        [
            [(math.sin, math.cos)[c % 2](position / 10000 ** (c // 2 * 2 / channels)) for c in range(channels)]
            for position in range(length)
        ]
    )


def test_transformer_counts_its_parameters_as_its_file_derives_them():
    attention, feed_forward, norm = 4 * 512**2, 2 * 512 * 2048 + 2048 + 512, 2 * 512
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    assert 37_000 * 512 + 6 * (encoder + decoder) == find_architecture("transformer").parameters == 63_045_632


COUNTS = {
    ("gpt2", "medium"): 354_823_168,
    ("gpt2", "large"): 774_030_080,
    ("gpt2", "xl"): 1_557_611_200,
    ("bert", "large"): 335_141_888,
    ("t5", "base"): 222_903_552,
    ("t5", "large"): 737_668_096,
    ("t5", "v1.1-small"): 76_961_152,
    ("t5", "v1.1-base"): 247_577_856,
}


@pytest.mark.parametrize(("name", "preset"), COUNTS)
def test_other_published_sizes_have_the_published_parameters(name, preset):
    entry = find_architecture(name)
    with torch.device("meta"):
        module = entry.build(entry.config(preset))
    assert sum(parameter.numel() for parameter in module.parameters()) == COUNTS[name, preset]


def test_published_configs_are_the_ecosystems_defaults():
    for name, reference in (
        ("gpt2", transformers.GPT2Config()),
        ("bert", transformers.BertConfig()),
        ("t5", transformers.T5Config()),
    ):
        entry = find_architecture(name)
        assert entry.from_pretrained_config(reference.to_dict()) == entry.config("published")
        assert entry.from_pretrained_config({}) == entry.config("published")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gpt2", {"model_type": "bert"}, "model_type 'bert'; this architecture reads 'gpt2'"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False; built is True"),
        ("gpt2", {"activation_function": "mish"}, "no activation 'mish'; there are gelu"),
        ("gpt2", {"n_head": 7}, "n_head 7 does not divide n_embd 768"),
        ("bert", {"model_type": "roberta"}, "model_type 'roberta'"),
        ("bert", {"position_embedding_type": "relative_key"}, "built is 'absolute'"),
        ("bert", {"hidden_size": 770}, "does not divide hidden_size 770"),
        ("t5", {"feed_forward_proj": "doubled-gelu"}, "'doubled-gelu'; one may be gated"),
        ("t5", {"model_type": "umt5"}, "model_type 'umt5'"),
    ],
)
def test_foreign_or_unbuilt_configs_are_refused_by_name(name, content, told):
    with pytest.raises(InvalidArgumentError, match=told):
        find_architecture(name).from_pretrained_config(content)


def test_old_keys_and_prefixes_are_read():
    bert, gpt2, t5 = (find_architecture(name).checkpoints[0] for name in ("bert", "gpt2", "t5"))
    assert bert.rename("bert.encoder.layer.0.output.LayerNorm.gamma") == "encoder.layer.0.output.LayerNorm.weight"
    assert bert.rename("embeddings.LayerNorm.beta") == "embeddings.LayerNorm.bias"
    assert bert.rename("cls.predictions.bias") == bert.rename("bert.embeddings.position_ids") == ""
    assert gpt2.rename("h.3.attn.bias") == gpt2.rename("transformer.h.3.attn.masked_bias") == ""
    assert gpt2.rename("transformer.h.3.attn.c_attn.bias") == "h.3.attn.c_attn.bias"
    assert gpt2.is_transposed("h.3.mlp.c_proj.weight")
    assert not gpt2.is_transposed("wte.weight")
    assert t5.rename("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight") == ""
    assert t5.rename("encoder.embed_tokens.weight") == "shared.weight"


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_layouts_lead_back_to_the_keys_that_the_ecosystem_writes(name):
    reference = {
        "gpt2": transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY["gpt2"])),
        "bert": transformers.BertModel(transformers.BertConfig(**TINY["bert"])),
        "t5": transformers.T5ForConditionalGeneration(transformers.T5Config(**TINY["t5"])),
    }[name]
    entry = find_architecture(name)
    module = entry.build(entry.from_pretrained_config(reference.config.to_dict()))
    layout = entry.checkpoints[0]
    shared = {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert layout.is_written
    assert {layout.restore(key) for key in module.state_dict()} == set(reference.state_dict()) - shared


def test_gpt2_padding_changes_nothing_of_what_stands_behind_it():
    module = built("gpt2", find_architecture("gpt2").config("tiny"))
    ids = tokens(67, 1, 6)
    before = torch.cat((tokens(67, 1, 3, seed=5), ids), dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        alone = module.score(ids, torch.ones_like(ids), ids)
        behind, _ = module(before, mask, positions, module.empty_cache(1))
    assert_same(behind[:, 3:], alone)


def test_a_decoder_does_not_see_the_future():
    for name in ("t5", "transformer"):
        module = built(name, find_architecture(name).config("tiny"))
        ids, words = tokens(50, 1, 6), tokens(50, 1, 7, seed=1)
        other = words.clone()
        other[:, 4:] = (other[:, 4:] + 1) % 50
        with torch.no_grad():
            first, second = (module(ids, torch.ones_like(ids), text) for text in (words, other))
        assert torch.equal(first[:, :4], second[:, :4])
        assert not torch.allclose(first[:, 4:], second[:, 4:])


@pytest.mark.slow
def test_gpt2_at_published_size_gives_the_reference_logits():
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    module = taken_over("gpt2", reference)
    ids = tokens(50257, 1, 64)
    with torch.no_grad():
        assert_same(module.score(ids, torch.ones_like(ids), ids), reference(ids).logits)


@pytest.mark.slow
def test_bert_at_published_size_gives_the_reference_states():
    reference = transformers.BertModel(transformers.BertConfig())
    module = taken_over("bert", reference)
    ids, mask, types = tokens(30522, 2, 64), padded(64, 40), tokens(2, 2, 64)
    with torch.no_grad():
        states, pooled = module(ids, mask, types)
        expected = reference(ids, attention_mask=mask, token_type_ids=types)
    assert_same(states, expected.last_hidden_state)
    assert_same(pooled, expected.pooler_output)


@pytest.mark.slow
def test_t5_at_published_size_gives_the_reference_logits():
    reference = transformers.T5ForConditionalGeneration(transformers.T5Config())
    module = taken_over("t5", reference)
    ids, mask, words = tokens(32128, 2, 64), padded(64, 40), tokens(32128, 2, 48, seed=1)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask, decoder_input_ids=words).logits
        assert_same(module(ids, mask, words), expected)


def test_config_replaced_by_a_preset_keeps_every_other_size():
    entry = find_architecture("t5")
    assert entry.config("base") == replace(
        entry.config("published"), embed_dim=768, hidden_dim=3072, num_layers=12, num_decoder_layers=12, num_heads=12
    )
