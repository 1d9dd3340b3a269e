"""Tokenizers from a checkpoint's own files: `tokenizer.json`, or the older ones of GPT-2, CLIP and BERT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WHOLE = "tokenizer.json"
PAIR = ("vocab.json", "merges.txt")
WORD_PIECES = "vocab.txt"
CONFIG = "tokenizer_config.json"

END_OF_WORD = "</w>"
"""Ends the last piece of every word of CLIP's; GPT-2's pieces carry the space before a word instead."""

CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""Short endings, runs of letters, single digits, runs of other signs."""

FRAMES = (("<|startoftext|>", "<|endoftext|>", "<|endoftext|>"), ("[CLS]", "[SEP]", "[PAD]"))
"""Start, end and padding of CLIP's prompts and of BERT's."""


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file or folder; see `generation.tokenizing.Words`."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - only where there are texts

    file = path if path.is_file() else _find(path)
    try:
        if file.name in PAIR:
            return _byte_pairs(file.parent)
        return _word_pieces(file) if file.name == WORD_PIECES else Tokenizer.from_file(str(file))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidArgumentError(f"{file} is no tokenizer that can be read: {reason}") from error


def _find(folder: Path) -> Path:
    for place in (folder, folder / "tokenizer"):
        if (place / WHOLE).is_file():
            return place / WHOLE
        if all((place / name).is_file() for name in PAIR):
            return place / PAIR[0]
        if (place / WORD_PIECES).is_file():
            return place / WORD_PIECES
    if any(folder.glob("*.model")):
        raise InvalidArgumentError(
            f"{folder} has only a sentencepiece model; read is {WHOLE}, which transformers writes"
        )
    raise InvalidArgumentError(f"{folder}: no tokenizer; read are {WHOLE}, {PAIR[0]} with {PAIR[1]}, and {WORD_PIECES}")


def _byte_pairs(folder: Path) -> Tokenizer:
    """Byte-level byte-pair encoding, GPT-2's or CLIP's."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - as above

    vocabulary, merges = models.BPE.read_file(str(folder / PAIR[0]), str(folder / PAIR[1]))
    if any(piece.endswith(END_OF_WORD) for piece in vocabulary):
        return _clip(vocabulary, merges)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    if tokenizer.token_to_id(end) is not None:
        tokenizer.add_special_tokens([AddedToken(end, special=True)])
    return tokenizer


def _clip(vocabulary: Any, merges: Any) -> Tokenizer:
    """CLIP's: small letters, words that end with a mark, a start and an end around the text."""
    from tokenizers import (  # noqa: PLC0415 - as above
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    start, end, _ = FRAMES[0]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix=END_OF_WORD, unk_token=end))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ends = decoders.Replace(END_OF_WORD, " ")
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), ends, decoders.Strip(" ", 0, 1)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (start, end)])
    around = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{start} $A {end}", special_tokens=around)
    return tokenizer


def _word_pieces(file: Path) -> Tokenizer:
    """BERT's word pieces, one on each line of `vocab.txt`; `tokenizer_config.json` says whether case counts."""
    from tokenizers import (  # noqa: PLC0415 - as above
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    settings = read_config(file.parent)
    start, end, _ = FRAMES[1]
    vocabulary = models.WordPiece.read_file(str(file))
    tokenizer = Tokenizer(models.WordPiece(vocabulary))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in vocabulary]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    around = [(token, vocabulary[token]) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{start} $A {end}", special_tokens=around)
    return tokenizer


def read_config(folder: Path) -> Mapping[str, Any]:
    """The content of `tokenizer_config.json`; nothing where there is none that can be read."""
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def find_frame(tokenizer: Tokenizer) -> tuple[int, int, int] | None:
    """Ids of what stands around a prompt, start, end and padding, as CLIP's or BERT's; None for other tokenizers."""
    for frame in FRAMES:
        start, end, padding = (tokenizer.token_to_id(token) for token in frame)
        if start is not None and end is not None and padding is not None:
            return start, end, padding
    return None
