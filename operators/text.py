"""Strings: concatenation, splitting, normalization, regular expressions, counts of n-grams."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError, MissingKernelError
from ._elementwise import ONCE, undetermined
from .registry import kernel
from .scale import Array, Rule, Scale, exact

ASCII_WHITESPACE = " \t\n\v\f\r"


def _strings(values: Sequence[str], shape: Sequence[int]) -> Array:
    out = np.empty(len(values), object)
    out[:] = values
    return out.reshape(shape)


@kernel("StringConcat", since=20, scale=exact)
def string_concat(x: Array, y: Array, /) -> Array:
    """Every string of `x` followed by that of `y`, broadcast to each other.

    Spec: StringConcat, since 20
    """
    return np.asarray(np.add(x.astype(object), y.astype(object)), object)


def _split(x: Array, split: Callable[[str], list[str]]) -> tuple[Array, Array]:
    rows = [split(text) for text in x.ravel()]
    counts = np.array([len(row) for row in rows], np.int64).reshape(x.shape)
    width = int(counts.max(initial=0))
    padded = itertools.chain.from_iterable([*row, *[""] * (width - len(row))] for row in rows)
    return _strings(list(padded), (*x.shape, width)), counts


def string_split_scale(
    y: tuple[Array, Array], x: Array, /, *, delimiter: str | None = None, maxsplit: int | None = None
) -> tuple[Scale, Scale]:
    """Exact.

    Raises:
        InvalidInputError: the specification does not say whether characters beyond ASCII count as whitespace, nor
            whether it is removed behind what `maxsplit` leaves unsplit; and that decides.
    """
    if not delimiter and maxsplit != 0:
        limit = 0 if maxsplit is None else maxsplit

        def split(text: str) -> list[str]:
            stripped = text.strip(ASCII_WHITESPACE)
            return re.split(f"[{ASCII_WHITESPACE}]+", stripped, maxsplit=limit) if stripped else []

        if _split(x, split)[0].tolist() != y[0].tolist():
            raise InvalidInputError("StringSplit is not determined: there is whitespace beyond ASCII, or behind a rest")
    return Scale(np.zeros(()), 0, Rule.EXACT), Scale(np.zeros(()), 0, Rule.EXACT)


@kernel("StringSplit", since=20, scale=string_split_scale)
def string_split(x: Array, /, *, delimiter: str | None = None, maxsplit: int | None = None) -> tuple[Array, Array]:
    """The pieces of every string between delimiters.

    Args:
        x: strings, any shape.
        delimiter: what separates; None or "": runs of whitespace, those at either end left out.
        maxsplit: how many splits are made at most, from the left; None: all.

    Returns:
        (…, most pieces) strings, filled up with ""; (…) int64, the number of pieces.

    Spec: StringSplit, since 20
    """
    return _split(x, lambda text: text.split(delimiter or None, -1 if maxsplit is None else maxsplit))


_CASES: dict[str, Callable[[str], str]] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}


def string_normalizer_scale(
    y: Array,
    x: Array,
    /,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str | None = None,
    stopwords: Sequence[str] | None = None,
) -> Scale:
    """Exact; the case of letters beyond ASCII depends on the locale: open."""
    if case_change_action == "NONE":
        return undetermined(False)
    kept = string_normalizer(x, is_case_sensitive=is_case_sensitive, stopwords=stopwords)
    return undetermined(np.array([not text.isascii() for text in kept.ravel()], bool).reshape(y.shape))


@kernel("StringNormalizer", since=10, scale=string_normalizer_scale)
def string_normalizer(
    x: Array,
    /,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str | None = None,
    stopwords: Sequence[str] | None = None,
) -> Array:
    """The strings that are no stop words, in another case.

    Args:
        x: (C,) or (1, C).
        case_change_action: LOWER, UPPER or NONE.
        is_case_sensitive: whether stop words are compared with their case.
        locale: not read: Unicode's own case mapping is taken.
        stopwords: what is removed.

    Returns:
        (kept,) or (1, kept); one "" where nothing is kept.

    Raises:
        InvalidInputError: another shape.
        InvalidAttributeError: another case_change_action.

    Spec: StringNormalizer, since 10
    """
    if case_change_action not in _CASES:
        raise InvalidAttributeError(f"StringNormalizer: case_change_action={case_change_action!r} is none of {_CASES}")
    if x.ndim not in (1, 2) or (x.ndim == 2 and len(x) != 1):
        raise InvalidInputError(f"StringNormalizer: shape {x.shape}; allowed are (C,) and (1, C)")
    fold = str if is_case_sensitive else str.lower
    removed = {fold(word) for word in (() if stopwords is None else stopwords)}
    kept = [_CASES[case_change_action](text) for text in x.ravel() if fold(text) not in removed] or [""]
    return _strings(kept, (1,) * (x.ndim - 1) + (len(kept),))


_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\x00-\\x7F",
    "blank": "\\t ",
    "cntrl": "\\x00-\\x1F\\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\t\\n\\v\\f\\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_TOKEN = re.compile(r"\\.|\[:(\^?)(\w+):\]|\(\?[a-zA-Z-]*|.", re.DOTALL)


def _python_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern in RE2's syntax as one of Python's, classes of ASCII.

    Raises:
        MissingKernelError: syntax that Python does not have.
        InvalidAttributeError: no regular expression.
    """
    inside, out = False, []
    for token in _TOKEN.finditer(pattern):
        text, (negated, name) = token[0], token.groups()
        if text[:2] in ("\\p", "\\P", "\\Q", "\\C") or (text.startswith("(?") and "U" in text) or negated:
            raise MissingKernelError(f"no kernel for RegexFullMatch with {text!r} of RE2's syntax")
        if name and inside:
            text = _POSIX.get(name, text)
        elif text == "\\z" or (text == "$" and not inside and "(?m" not in pattern):
            text = "\\Z"
        inside = (inside or text == "[") and text != "]"
        out.append(text)
    try:
        return re.compile("".join(out), re.ASCII)
    except re.error as error:
        raise InvalidAttributeError(f"RegexFullMatch: pattern {pattern!r}: {error}") from error


@kernel("RegexFullMatch", since=20, scale=exact)
def regex_full_match(x: Array, /, *, pattern: str | None = None) -> Array:
    """Whether every whole string matches a regular expression.

    Args:
        x: strings, any shape.
        pattern: in RE2's syntax; \\w, \\d, \\s and \\b know ASCII only.

    Returns:
        Same shape, bool.

    Raises:
        InvalidAttributeError: no pattern, or no regular expression.
        MissingKernelError: a part of RE2's syntax that is not translated: \\p, \\Q, \\C, (?U), negated POSIX classes.

    Spec: RegexFullMatch, since 20
    """
    if pattern is None:
        raise InvalidAttributeError("RegexFullMatch: a pattern is needed")
    compiled = _python_pattern(pattern)
    return np.array([compiled.fullmatch(text) is not None for text in x.ravel()], bool).reshape(x.shape)


def _pool(items: Sequence[Any], ngram_counts: Sequence[int], lengths: range) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(number of the n-gram in the pool, its items) for all n-grams of the wanted lengths."""
    number = 0
    for n, start in enumerate(ngram_counts, 1):
        stop = ngram_counts[n] if n < len(ngram_counts) else len(items)
        for first in range(start, stop - n + 1, n):
            if n in lengths:
                yield number, tuple(items[first : first + n])
            number += 1


def _grams(row: Sequence[Any], lengths: range, max_skip_count: int) -> Iterator[tuple[Any, ...]]:
    """Items of a row at equal distances; a single one once, whatever is skipped."""
    for n in lengths:
        for step in range(1, max_skip_count + 2 if n > 1 else 2):
            for first in range(len(row) - (n - 1) * step):
                yield tuple(row[first : first + (n - 1) * step + 1 : step])


def tf_idf_vectorizer_scale(y: Array, _x: Array, /, *, mode: str, **_attributes: Any) -> Scale:
    """Counts and weights are exact; a count times a weight is rounded once."""
    return Scale(np.abs(y), ONCE, Rule.ULP) if mode == "TFIDF" else Scale(np.zeros(()), 0, Rule.EXACT)


@kernel("TfIdfVectorizer", since=9, scale=tf_idf_vectorizer_scale)
def tf_idf_vectorizer(
    x: Array,
    /,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Array:
    """How often the n-grams of a pool occur in every row.

    Args:
        x: (C,) or (N, C), integers or strings.
        max_gram_length: of n-grams that are counted.
        max_skip_count: up to how many items may lie between neighbours of an n-gram, always as many.
        min_gram_length: of n-grams that are counted.
        mode: TF: counts; IDF: the weight where there is one; TFIDF: counts times weights.
        ngram_counts: where the pool's 1-grams, 2-grams, … begin.
        ngram_indexes: the place of every n-gram of the pool in the output.
        pool_int64s: the n-grams, one after the other; or `pool_strings`.
        pool_strings: likewise.
        weights: of every n-gram, 1 by default.

    Returns:
        (places,) or (N, places), float32.

    Raises:
        InvalidInputError: another shape.
        InvalidAttributeError: another mode, no pool or two, or lists of different lengths.

    Spec: TfIdfVectorizer, since 9
    """
    pool = pool_int64s if pool_strings is None else pool_strings
    if mode not in ("TF", "IDF", "TFIDF") or pool is None or (pool_int64s is not None and pool_strings is not None):
        raise InvalidAttributeError(f"TfIdfVectorizer: mode={mode!r}; TF, IDF or TFIDF and one pool are needed")
    if x.ndim not in (1, 2):
        raise InvalidInputError(f"TfIdfVectorizer: shape {x.shape}; allowed are (C,) and (N, C)")
    lengths = range(min_gram_length, max_gram_length + 1)
    places = {gram: number for number, gram in _pool(list(pool), list(ngram_counts), lengths)}
    if max(places.values(), default=-1) >= len(ngram_indexes) or (
        weights is not None and len(weights) != len(ngram_indexes)
    ):
        raise InvalidAttributeError(f"TfIdfVectorizer: {len(ngram_indexes)} ngram_indexes for more n-grams or weights")
    rows = np.atleast_2d(x)
    y = np.zeros((len(rows), max(ngram_indexes, default=-1) + 1))
    for n, row in enumerate(rows.tolist()):
        for number in (places[gram] for gram in _grams(row, lengths, max_skip_count) if gram in places):
            y[n, ngram_indexes[number]] += 1
    if mode != "TF":
        factor = np.ones(y.shape[1])
        factor[list(ngram_indexes)] = 1.0 if weights is None else list(weights)
        y = (y if mode == "TFIDF" else np.minimum(y, 1)) * factor
    stored = y.astype(np.float32)
    return stored[0] if x.ndim == 1 else stored
