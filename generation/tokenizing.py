"""Between texts and token ids, by a checkpoint's own tokenizer files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WHOLE = "tokenizer.json"
PAIR = ("vocab.json", "merges.txt")
UNFINISHED = "\ufffd"
"""What a decoder puts for bytes that are not yet a whole character."""


class Words:
    """A tokenizer.

    Args:
        path: `tokenizer.json`; or a folder with it, or with `vocab.json` and `merges.txt`, or with a folder
            `tokenizer` that has them.

    Raises:
        InvalidArgumentError: none of these is there, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._tokenizer = load_tokenizer(path)

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


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file or folder; see `Words`."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - only where there are texts

    file = path if path.is_file() else _find(path)
    try:
        return Tokenizer.from_file(str(file)) if file.name not in PAIR else _byte_pairs(file.parent)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidArgumentError(f"{file} is no tokenizer that can be read: {reason}") from error


def _find(folder: Path) -> Path:
    for place in (folder, folder / "tokenizer"):
        if (place / WHOLE).is_file():
            return place / WHOLE
        if all((place / name).is_file() for name in PAIR):
            return place / PAIR[0]
    if any(folder.glob("*.model")):
        raise InvalidArgumentError(
            f"{folder} has only a sentencepiece model; read is {WHOLE}, which transformers writes"
        )
    raise InvalidArgumentError(f"{folder}: no tokenizer; read are {WHOLE}, and {PAIR[0]} with {PAIR[1]}")


def _byte_pairs(folder: Path) -> Tokenizer:
    """GPT-2's byte-level byte-pair encoding."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - as above

    model = models.BPE.from_file(str(folder / PAIR[0]), str(folder / PAIR[1]))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    if tokenizer.token_to_id(end) is not None:
        tokenizer.add_special_tokens([AddedToken(end, special=True)])
    return tokenizer
