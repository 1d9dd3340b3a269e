"""Strings."""

from __future__ import annotations

from typing import Any

import numpy as np

from .drawing import Draw, NodeCall
from .elementwise import pair
from .registry import strategy
from .values import MOVED

STRING = np.dtype(object)
WORDS = (
    "a",
    "b",
    "A",
    "monday",
    "Tuesday",
    "a b",
    "x-y-z",
    "--",
    " lead",
    "trail ",
    "",
    "ä",
    "É",
    "日本 語",
    "1,2,,3",
    "a  b",
)
PATTERNS = ("a", "[a-z]+", "a|b", ".*", "\\w+", "[A-Z][a-z]*", "(ab)*", "x-y-z", "a?", "[^a]+", "\\d+,?", "a{2,3}")


def _words(d: Draw, shape: tuple[int, ...], words: tuple[str, ...] = WORDS) -> Any:
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    return np.asarray(rng.choice(np.asarray(words, object), shape), object).reshape(shape)


@strategy("StringConcat")
def string_concat(d: Draw) -> NodeCall:
    return d.call([d.tensor(shape, STRING, MOVED) for shape in pair(d)], parameters=(0, 1))


@strategy("StringSplit")
def string_split(d: Draw) -> NodeCall:
    shape = d.shape(0, 3, empty=False, elements=32)
    options = d.attributes(
        delimiter=lambda: d.choice((" ", "-", ",", "--", "", "b")), maxsplit=lambda: d.choice((1, 2, 5))
    )
    return d.call([_words(d, shape)], options, outputs=(STRING, np.dtype(np.int64)))


@strategy("StringNormalizer")
def string_normalizer(d: Draw) -> NodeCall:
    count = d.choice((3, 1, 2, 5))
    ascii_words = tuple(word for word in WORDS if word.isascii())
    x = _words(d, (count,) if d.boolean() else (1, count), ascii_words)
    options = d.attributes(
        case_change_action=lambda: d.choice(("NONE", "LOWER", "UPPER")),
        is_case_sensitive=lambda: d.integer(0, 1),
        stopwords=lambda: d.choice((["a"], ["monday", "A"], ["zzz"], list(ascii_words[:4]))),
    )
    return d.call([x], options)


@strategy("RegexFullMatch")
def regex_full_match(d: Draw) -> NodeCall:
    x = d.tensor(d.shape(0, 3, elements=64), STRING, MOVED)
    return d.call([x], {"pattern": d.choice(PATTERNS)})


@strategy("TfIdfVectorizer")
def tf_idf_vectorizer(d: Draw) -> NodeCall:
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    ones, twos = d.choice((3, 1, 2)), d.choice((2, 1, 3))
    tokens = np.arange(4)
    pairs = [(int(a), int(b)) for a in tokens for b in tokens]
    pool_one = [int(t) for t in rng.permutation(tokens)[:ones]]
    pool_two = [pairs[i] for i in rng.permutation(len(pairs))[:twos]]
    pool = [*pool_one, *(t for p in pool_two for t in p)]
    smallest = d.integer(1, 2)
    options: dict[str, Any] = {
        "mode": d.choice(("TF", "IDF", "TFIDF")),
        "ngram_counts": [0, ones],
        "ngram_indexes": [int(i) for i in rng.permutation(ones + twos)],
        "min_gram_length": smallest,
        "max_gram_length": d.integer(smallest, 2),
        "max_skip_count": d.integer(0, 3),
    }
    if d.boolean():
        options["weights"] = [float(np.float32(v)) for v in rng.uniform(0.5, 2, ones + twos)]
    length = d.choice((5, 2, 8, 12))
    content = rng.integers(0, 5, (length,) if d.boolean() else (d.choice((2, 1, 3)), length))
    dtype = d.dtype()
    if dtype.kind in "OUS":
        names = np.asarray(["red", "green", "blue", "grey", "none"], object)
        return d.call([names[content]], {**options, "pool_strings": [str(names[i]) for i in pool]})
    return d.call([content.astype(dtype)], {**options, "pool_int64s": pool})
