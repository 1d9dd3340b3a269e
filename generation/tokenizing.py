"""Between texts and token ids, by a checkpoint's own tokenizer files."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidArgumentError
from .tokenizer_files import find_frame, load_tokenizer

UNFINISHED = "\ufffd"
"""What a decoder puts for bytes that are not yet a whole character."""


class Words:
    """A tokenizer.

    Args:
        path: `tokenizer.json`; or a folder with it, or with `vocab.json` and `merges.txt` (GPT-2's or CLIP's), or with
            `vocab.txt` (BERT's), or with a folder `tokenizer` that has them.

    Raises:
        InvalidArgumentError: none of these is there, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._tokenizer = load_tokenizer(path)
        self.frame = find_frame(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with what the tokenizer itself puts around it.

        Raises:
            InvalidArgumentError: there is nothing to go on from.
        """
        ids = self._tokenizer.encode(text).ids
        if not ids:
            raise InvalidArgumentError(f"--prompt {text!r} has no tokens")
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids; special tokens are left out."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)


class Stream:
    """Turns a growing list of token ids into the text that each adds; half characters wait for their other half."""

    def __init__(self, words: Words | None) -> None:
        self._words = words
        self._ids: list[int] = []
        self._shown = ""

    def add(self, *ids: int) -> str:
        """What these ids add to the text; without a tokenizer the ids themselves, with commas between them."""
        first = not self._ids
        self._ids += ids
        if self._words is None:
            return ("" if first else ",") + ",".join(map(str, ids))
        text = self._words.decode(self._ids)
        if text.endswith(UNFINISHED) or not text.startswith(self._shown):
            return ""
        added, self._shown = text[len(self._shown) :], text
        return added
