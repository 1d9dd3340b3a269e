"""The older tokenizer files of CLIP (vocab.json, merges.txt) and BERT (vocab.txt) against transformers' tokenizers."""

from __future__ import annotations

import json

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer

from onnx_arch.generation.tokenizing import Words

TEXT = "a logo for europython in prague, it's a photograph of 2 castles! größe naïve 漢字 " * 3
PROMPTS = ["Logo for EuroPython in Prague", "it's  a\nphotograph!", "Größe 42, naïve 漢字 🙂", "castle#", ""]
CLIP = ["<|startoftext|>", "<|endoftext|>"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder as Stable Diffusion's `tokenizer/`: pairs whose last pieces end with </w>, learned from a text."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    words = pre_tokenizers.Split(Regex(r"\s+"), behavior="removed")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=640, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False,
        special_tokens=[*(f"{letter}</w>" for letter in sorted(letters)), *CLIP],
    )  # fmt: skip
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.model.save(str(folder))
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def bert(request, tmp_path_factory):
    """A folder as a BERT's: word pieces by line, and whether case counts."""
    folder = tmp_path_factory.mktemp("bert")
    pieces = [
        *BERT,
        "logo",
        "for",
        "euro",
        "Euro",
        "##python",
        "##Python",
        "in",
        "a",
        "castle",
        "##s",
        "#",
        "!",
        "naive",
    ]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    (folder / "vocab.txt").write_text("\n".join([*pieces, *letters, *(f"##{x}" for x in letters)]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": request.param}))
    return folder, request.param


@pytest.mark.parametrize("prompt", PROMPTS)
def test_clips_pairs_give_the_tokens_of_transformers(clip, prompt):
    words, vocabulary = Words(clip), json.loads((clip / "vocab.json").read_text())
    expected = CLIPTokenizer.from_pretrained(clip)(prompt)["input_ids"]
    assert words.encode(prompt) == expected
    start, end = (vocabulary[token] for token in CLIP)
    assert words.frame == (start, end, end)
    assert expected[0] == start


def test_clips_text_comes_back(clip):
    words = Words(clip)
    assert words.decode(words.encode("Logo for EuroPython in Prague")) == "logo for europython in prague"


@pytest.mark.parametrize("prompt", [*PROMPTS, "[SEP] logo"])
def test_vocab_txt_gives_the_tokens_of_transformers(bert, prompt):
    folder, lowercase = bert
    expected = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=lowercase)(prompt)["input_ids"]
    words = Words(folder)
    assert words.encode(prompt) == expected
    assert words.frame == (2, 3, 0)


def test_case_counts_only_where_the_config_says_so(bert):
    folder, lowercase = bert
    words = Words(folder)
    assert (words.encode("Europython") == words.encode("europython")) is lowercase
