"""Tokenizers of checkpoints against transformers' own, texts as they grow, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Tokenizer

from onnx_arch.errors import InvalidArgumentError
from onnx_arch.generation.tokenizing import Stream, Words

TEXT = "Attention is a key-value store: value = store[query]. Größe, naïve, 漢字, 🙂! " * 3
PROMPTS = ["Attention is", " store[query]", "Größe 🙂", "don't  stop\n\nhere", "a"]


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory):
    """A folder with vocab.json and merges.txt, as GPT-2's: learned from a text, all bytes known."""
    folder = tmp_path_factory.mktemp("byte_pairs")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"],
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.model.save(str(folder))
    return folder


@pytest.mark.parametrize("prompt", PROMPTS)
def test_vocab_and_merges_give_the_tokens_of_transformers(byte_pairs, prompt):
    words = Words(byte_pairs)
    expected = GPT2Tokenizer(str(byte_pairs / "vocab.json"), str(byte_pairs / "merges.txt"))
    ids = words.encode(prompt)
    assert ids == expected(prompt)["input_ids"]
    assert words.decode(ids) == prompt
    assert words.decode([*ids, json.loads((byte_pairs / "vocab.json").read_text())["<|endoftext|>"]]) == prompt


def test_texts_grow_by_whole_characters(byte_pairs):
    words = Words(byte_pairs)
    stream = Stream(words)
    text = "Größe: 漢字 🙃, Ω!"  # the last two were not in the text that the pairs were learned from
    pieces = [stream.add(token) for token in words.encode(text)]
    assert "".join(pieces) == text
    assert "" in pieces  # half a character shows nothing
    assert all("\ufffd" not in piece for piece in pieces)


def test_without_a_tokenizer_ids_are_shown_with_commas():
    stream = Stream(None)
    assert [stream.add(5, 6), stream.add(7), stream.add(8)] == ["5,6", ",7", ",8"]


def digit_words(folder, vocabulary):
    """A tokenizer.json that puts an end token behind every text, as T5's does."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.decoder = decoders.Fuse()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


VOCABULARY = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{n}": n for n in range(3, 71)}}


def test_tokenizer_json_is_found_as_a_file_in_a_folder_and_below_it(tmp_path):
    folder = digit_words(tmp_path / "tokenizer", VOCABULARY)
    for path in (folder / "tokenizer.json", folder, tmp_path):
        assert Words(path).encode("w5 w9") == [5, 9, 1]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, r"no tokenizer; read are tokenizer\.json, vocab\.json with merges\.txt, and vocab\.txt"),
        ({"spiece.model": "x"}, r"has only a sentencepiece model; read is tokenizer\.json"),
        ({"tokenizer.json": "{"}, r"tokenizer\.json is no tokenizer that can be read"),
        ({"vocab.json": "[]", "merges.txt": ""}, r"vocab\.json is no tokenizer that can be read"),
    ],
)
def test_a_folder_without_a_readable_tokenizer_is_told_what_is_read(tmp_path, files, told):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidArgumentError, match=told):
        Words(tmp_path)


def test_a_prompt_without_tokens_is_refused(byte_pairs):
    with pytest.raises(InvalidArgumentError, match="has no tokens"):
        Words(byte_pairs).encode("")


def test_command_writes_the_text_that_the_json_has(loops, onnx_arch, tmp_path):
    folder = digit_words(tmp_path / "words", VOCABULARY)
    words = ("generate", loops("t5").path, "--prompt", "w5 w9 w30", "--tokenizer", folder, "--max-length", 8)
    shown = onnx_arch(*words, "--json", "result.json", "-o", "result.txt")
    assert (shown.returncode, shown.stderr) == (0, "t5 has random parameters here: it has learned nothing\n")
    row = json.loads((tmp_path / "result.json").read_text())
    assert shown.stdout == row["texts"][0] + "\n" == (tmp_path / "result.txt").read_text()
    ids = [token for token in row["tokens"][0] if token > 2]
    assert row["texts"][0].replace(" ", "") == "".join(f"w{token}" for token in ids)


def test_command_of_several_texts_prints_each_on_its_line(loops, onnx_arch):
    done = onnx_arch("generate", loops("gpt2").path, "--tokens", "5,6", "--max-length", 9, "-n", 3, "--temperature", 1)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 3)
    assert all(line.startswith("5,6,") for line in lines)
    assert onnx_arch("generate", loops("gpt2").path, "--tokens", "5,6", "-q").stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tokens", "1,x"], "--tokens 1,x: must be whole numbers between commas, for example 1,2,3"),
        (["--tokens", "1", "--steps", "3"], "--steps means nothing to gpt2, which makes a text"),
        (["--tokens", "1", "--preset", "tiny"], "--preset means nothing here"),
        (["--tokens", "1", "-o", "nowhere/text.txt"], "cannot write nowhere/text.txt: there is no folder nowhere"),
        (["--tokens", "1", "--max-length", "99"], "99 words; the network holds at most 64"),
        ([], "give either --prompt TEXT or --tokens 1,2,3"),
    ],
)
def test_command_refuses_in_one_line(loops, onnx_arch, words, told):
    done = onnx_arch("generate", loops("gpt2").path, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_command_refuses_before_it_exports(onnx_arch):
    told = onnx_arch("generate", "bert", "--tokens", "1").stderr
    assert told.startswith("onnx-arch: error: bert generates nothing; dalle, ddpm, gpt2, ")
    told = onnx_arch("generate", "ddpm", "-o", "digit.gi").stderr
    assert told.startswith("onnx-arch: error: digit.gi: unknown kind '.gi'; allowed are .png, ")


def test_command_names_what_can_generate(onnx_arch):
    assert "is no bundle and no architecture; there are" in onnx_arch("generate", "nobody").stderr


def test_command_refuses_a_loop_of_what_appends_no_words(onnx_arch):
    done = onnx_arch("export", "mlp", "--preset", "tiny", "--loop")
    assert done.returncode == 2
    assert "--loop means nothing to mlp; it does to" in done.stderr
    assert all(name in done.stderr for name in ("gpt2", "t5", "transformer"))


def test_a_checkpoint_folder_goes_to_text_in_one_command(onnx_arch, tmp_path):
    """A folder as the ecosystem writes it: sizes, weights and tokenizer are all taken from it, and kept."""
    import torch  # noqa: PLC0415 - heavy
    import transformers  # noqa: PLC0415 - as above

    torch.manual_seed(0)
    sizes = {"vocab_size": 71, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    reference = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0)).eval()
    reference.save_pretrained(tmp_path / "folder")
    digit_words(tmp_path / "folder", VOCABULARY)
    done = onnx_arch("export", "t5", "--weights", "folder", "--loop", "-o", "out")
    assert done.returncode == 0, done.stderr
    asked = onnx_arch("generate", "out/t5", "--prompt", "w5 w9", "--max-length", 8, "--json", "-", "--one-file")
    expected = reference.generate(torch.tensor([[5, 9, 1]]), max_length=8, do_sample=False, num_beams=1)
    assert json.loads(asked.stdout)["tokens"] == np.asarray(expected).tolist()
