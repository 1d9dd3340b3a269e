"""What the language examples are made of: the right answers, the measures, the tokenizers, the figures' place."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name):
    """The module of an example; examples import one another as scripts do."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "zero"),
        (7, "seven"),
        (13, "thirteen"),
        (40, "forty"),
        (90210, "ninety thousand two hundred ten"),
        (100, "one hundred"),
        (1005, "one thousand five"),
        (999999, "nine hundred ninety nine thousand nine hundred ninety nine"),
        (700000, "seven hundred thousand"),
    ],
)
def test_numbers_are_written_in_words(number, text):
    module = example("number_words")
    assert " ".join(module.in_words(number)) == text
    assert module.text(module.words(number)) == text
    assert module.is_right(number, [0, *module.words(number), 0, 0])
    assert not module.is_right(number, [0, *module.words(number)[:-1], 3, 1])


def test_digit_tokenizer_gives_the_ids_that_training_used():
    module = example("number_words")
    for number in (0, 90210, 123456):
        assert module.digit_tokenizer().encode(str(number)).ids == module.digits(number)


def test_character_tokenizer_takes_every_character_by_itself():
    module = example("character_gpt")
    alphabet = module.END + "\n abc"
    tokenizer = module.character_tokenizer(alphabet)
    ids = tokenizer.encode("a b\nc").ids
    assert ids == [alphabet.index(character) for character in "a b\nc"]
    assert tokenizer.decode([*ids, 0], skip_special_tokens=True) == "a b\nc"


def test_counting_characters_gives_the_bits_worked_out_by_hand():
    module = example("character_gpt")
    # "aab": a and b once more each of 3 + 2: chances 3/5 and 2/5
    assert module.counted_bits("aab", "ab", 0) == pytest.approx(-(math.log2(3 / 5) + math.log2(2 / 5)) / 2)
    assert module.known_words("The cat sat on the mat", "The cat on") == pytest.approx(2 / 4)


def test_text_is_split_and_nothing_is_in_both():
    module = example("character_gpt")
    text = module.read_text()
    learned, held_out = module.split_text(text)
    assert learned + held_out == text
    assert len(text) > 400_000
    assert text.isascii()


def test_figures_go_between_their_marks_and_nowhere_else(tmp_path):
    module = example("figures")
    document = tmp_path / "examples.md"
    document.write_text("before\n<!-- a: x -->\nold\n<!-- end of a -->\nbetween\n<!-- b: y -->\n<!-- end of b -->\n")
    module.write_figures("a", [("accuracy", "97 %")], "a sample\\1", document)
    content = document.read_text()
    assert "| accuracy | 97 % |" in content
    assert "a sample\\1" in content
    assert "old" not in content
    assert content.startswith("before\n<!-- a: x -->\n")
    assert content.endswith("<!-- end of a -->\nbetween\n<!-- b: y -->\n<!-- end of b -->\n")
    with pytest.raises(ValueError, match="has no block c"):
        module.write_figures("c", [], "", document)
