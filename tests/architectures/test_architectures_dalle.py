"""DALL-E: published sizes, attention masks as drawn in the paper, the cache, hand-computed pictures."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from onnx_arch.architectures.dalle import attention_kind, sparse_mask
from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture


def built(preset="tiny"):
    entry = find_architecture("dalle")
    module = entry.build(entry.config(preset)).eval()
    randomize(module, 0)
    return module


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def block(a, b, kernels):
    """Parameters of a residual block, by hand."""
    inner = b // 4
    sizes = (a, inner, inner, inner, b)
    skip = a * b + b if a != b else 0
    return skip + sum(k * k * x * y + y for x, y, k in zip(sizes[:-1], sizes[1:], kernels, strict=True))


def test_published_parts_have_hand_computed_parameters():
    entry = find_architecture("dalle")
    with torch.device("meta"):
        module = entry.build(entry.config("published"))
    sizes = [256, 256, 256, 512, 512, 1024, 1024, 2048, 2048]
    encoder = sum(block(a, b, (3, 3, 3, 1)) for a, b in pairwise(sizes))
    assert count(module.encoder) == encoder + (49 * 3 * 256 + 256) + (2048 * 8192 + 8192)
    sizes = [128, 2048, 2048, 1024, 1024, 512, 512, 256, 256]
    decoder = sum(block(a, b, (1, 3, 3, 3)) for a, b in pairwise(sizes))
    assert count(module.decoder) == decoder + (8192 * 128 + 128) + (256 * 6 + 6)
    assert module.config.embed_dim == 3968
    assert 12e9 < count(module.transformer) < 12.5e9


def test_kinds_of_attention_are_those_of_the_paper():
    kinds = [attention_kind(layer, 64) for layer in range(1, 65)]
    assert kinds[:7] == ["row", "column", "row", "row", "row", "column", "row"]
    assert kinds[-1] == "conv"
    assert (kinds.count("column"), kinds.count("row"), kinds.count("conv")) == (16, 47, 1)


def seen(kind, place):
    """What the picture token at `place` sees among picture tokens, in a grid of 4×4 after 6 words (figure 11)."""
    mask = sparse_mask(kind, 6, 4, 3)
    assert mask[7 + place, :7].all()  # all words and the start
    return np.flatnonzero(mask[7 + place, 7:]).tolist()


def test_masks_are_those_that_the_paper_draws():
    assert seen("row", 10) == [6, 7, 8, 9, 10]  # five, up to the one above
    assert seen("column", 10) == [2, 6, 10]
    assert seen("conv", 10) == [5, 6, 7, 9, 10]
    assert seen("conv", 8) == [3, 4, 5, 7, 8]  # runs on at the edge
    for kind in ("row", "column", "conv"):
        mask = sparse_mask(kind, 6, 4, 3)
        assert mask.shape == (22, 22)
        assert not np.triu(mask, 1).any()
        assert np.array_equal(mask[:7, :7], np.tril(np.ones((7, 7), bool)))


@pytest.mark.parametrize("parts", [[15], [1] * 15, [7, 1, 1, 6], [3, 12]])
def test_cache_gives_what_the_whole_sequence_gives(parts):
    transformer = built().transformer
    tokens = torch.randint(0, 30, (2, 15), generator=torch.manual_seed(0))
    with torch.no_grad():
        whole, _ = transformer(tokens, transformer.empty_cache(2))
        cache, found = transformer.empty_cache(2), []
        for new in tokens.split(parts, dim=1):
            logits, cache = transformer(new, cache)
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, dim=1), whole)


def test_later_tokens_change_nothing_before_them():
    transformer = built().transformer
    tokens = torch.randint(0, 30, (1, 12), generator=torch.manual_seed(0))
    other = tokens.clone()
    other[:, 8] += 1
    with torch.no_grad():
        first, second = (transformer(ids, transformer.empty_cache(1))[0] for ids in (tokens, other))
    torch.testing.assert_close(first[:, :8], second[:, :8])
    assert not torch.allclose(first[:, 8:], second[:, 8:])


def test_picture_tokens_have_a_row_and_a_column():
    transformer = built().transformer
    with torch.no_grad():
        found = transformer.position(torch.tensor([0, 6, 7, 12]))
    expected = [
        transformer.text_positions.weight[0],
        transformer.text_positions.weight[6],
        transformer.rows.weight[0] + transformer.columns.weight[0],
        transformer.rows.weight[1] + transformer.columns.weight[1],
    ]
    torch.testing.assert_close(found, torch.stack(expected))


def test_drawing_equals_the_best_token_of_the_uncached_model():
    module = built()
    config = module.config
    words = torch.tensor([[1, 4, 2, config.padding_start + 3, config.padding_start + 4, config.padding_start + 5]])
    with torch.no_grad():
        picture = module(words)
        ids = torch.cat([torch.tensor([[config.start_token_id]]), words], dim=1)
        for _ in range(16):
            logits, _ = module.transformer(ids, module.transformer.empty_cache(1))
            ids = torch.cat([ids, logits[:, -1:, config.image_start :].argmax(dim=2) + config.image_start], dim=1)
        expected = module.decoder((ids[:, 7:] - config.image_start).reshape(1, 4, 4))
    torch.testing.assert_close(picture, expected)
    assert picture.shape == (1, 3, 16, 16)
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_residual_gain_is_one_over_the_squared_number_of_blocks():
    assert find_architecture("dalle").config("published").vae.gain == 1 / 64
    module = built().encoder.blocks.group_1.block_1
    x = torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(module(x), x + module.res_path(x) / 9)  # three groups of one block


def test_released_keys_end_in_w_and_b():
    layout = find_architecture("dalle").checkpoints[0]
    assert layout.rename("encoder.blocks.group_1.block_2.res_path.conv_1.w") == (
        "encoder.blocks.group_1.block_2.res_path.conv_1.weight"
    )
    keys = [key for key in built().state_dict() if not key.startswith("transformer.")]
    assert [layout.rename(layout.restore(key)) for key in keys] == keys
    assert all(layout.restore(key).endswith((".w", ".b")) for key in keys)
