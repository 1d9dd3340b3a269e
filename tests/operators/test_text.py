"""Strings: official cases, plain Python, ONNX Runtime, what the specification leaves open, faults."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.verdict import judge
from onnx_arch.errors import InvalidAttributeError, InvalidInputError, MissingKernelError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case, check_signature, examples, versions

OPERATORS = {"RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"}


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def words(*values: Any) -> Array:
    """Strings as a runtime stores them."""
    return np.array(values, object)


def same(op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any], opset: int = 20, outputs: int = 1) -> None:
    """ONNX Runtime returns what the kernel does."""
    ran = run_onnxruntime(op_type, inputs, attributes, opset=opset, output_count=outputs)
    for index, actual in enumerate(ran):
        assert beyond(actual, op_type, *inputs, opset=opset, output=index, **attributes) == 0


def test_strings_are_joined_element_by_element() -> None:
    x, y = words("a", "b", ""), words("é", "日本").reshape(2, 1)
    joined = call("StringConcat", x, y, opset=20)
    assert joined.tolist() == [["aé", "bé", "é"], ["a日本", "b日本", "日本"]]
    assert joined.dtype == object
    same("StringConcat", (x, y), {})


@pytest.mark.parametrize(
    "attributes",
    [{}, {"delimiter": ","}, {"delimiter": ", "}, {"delimiter": "", "maxsplit": 1}, {"maxsplit": 2}],
    ids=str,
)
def test_pieces_lie_between_delimiters(attributes: dict[str, Any]) -> None:
    x = words("a,b, c", " ", " one  two  three four", ",,", "x").reshape(5, 1)
    pieces, counts = call("StringSplit", x, opset=20, output_count=2, **attributes)
    assert counts.dtype == np.int64
    assert pieces.shape == (5, 1, counts.max())
    for text, row, count in zip(x.ravel(), pieces.reshape(5, -1), counts.ravel(), strict=True):
        given_ = attributes.get("delimiter") or None
        expected = text.split(given_, attributes.get("maxsplit", -1))
        assert row.tolist() == [*expected, *[""] * (len(row) - len(expected))]
        assert count == len(expected)
    same("StringSplit", (x,), attributes, outputs=2)


def test_tab_is_whitespace_and_an_empty_string_one_piece() -> None:
    """Where ONNX Runtime 1.32 splits at spaces only, and finds no piece."""
    pieces, counts = call("StringSplit", words("a\tb c"), opset=20, output_count=2)
    assert pieces.tolist() == [["a", "b", "c"]]
    pieces, counts = call("StringSplit", words("", ","), opset=20, output_count=2, delimiter=",")
    assert pieces.tolist() == [["", ""], ["", ""]]
    assert counts.tolist() == [1, 2]


@pytest.mark.parametrize(("text", "attributes"), [("a\u00a0b", {}), ("a b ", {"maxsplit": 1})])
def test_whitespace_that_the_text_does_not_settle_leaves_a_split_open(text: str, attributes: dict[str, Any]) -> None:
    node = prepare("StringSplit", (words(text),), attributes, opset=20, output_count=2)
    outputs = node.outputs()
    with pytest.raises(InvalidInputError, match="whitespace"):
        node.scales(outputs)
    assert prepare("StringSplit", (words(text),), {"delimiter": "b"}, opset=20, output_count=2).scales(outputs)


@pytest.mark.parametrize("action", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("sensitive", [0, 1])
@pytest.mark.parametrize("stopwords", [None, ["Monday"], ["MONDAY", "monday", "b"]])
def test_stop_words_are_removed_before_the_case_changes(
    action: str, sensitive: int, stopwords: list[str] | None
) -> None:
    x = ["Monday", "MONDAY", "monday", "a b", "B", ""]
    attributes: dict[str, Any] = {"case_change_action": action, "is_case_sensitive": sensitive}
    if stopwords is not None:
        attributes["stopwords"] = stopwords
    kept = [
        w
        for w in x
        if (w not in (stopwords or []) if sensitive else w.lower() not in [s.lower() for s in stopwords or []])
    ]
    expected = [{"NONE": w, "LOWER": w.lower(), "UPPER": w.upper()}[action] for w in kept]
    assert call("StringNormalizer", words(*x), opset=10, **attributes).tolist() == expected
    assert call("StringNormalizer", words(*x)[None], opset=10, **attributes).tolist() == [expected]
    same("StringNormalizer", (words(*x),), {**attributes, "locale": "C"}, opset=10)


def test_where_nothing_is_kept_one_empty_string_is_left() -> None:
    attributes = {"stopwords": ["a"], "is_case_sensitive": 1}
    assert call("StringNormalizer", words("a", "a"), opset=10, **attributes).tolist() == [""]
    assert call("StringNormalizer", words("a")[None], opset=10, **attributes).tolist() == [[""]]


def test_case_of_letters_beyond_ascii_is_open() -> None:
    node = prepare("StringNormalizer", (words("straße", "ab"),), {"case_change_action": "UPPER"}, opset=10)
    (y,) = node.outputs()
    (scale,) = node.scales((y,)) or ()
    assert judge(words("STRAßE", "AB"), y, y.dtype, scale).outcome is Outcome.PASSED
    assert judge(words("STRASSE", "ab"), y, y.dtype, scale).outcome is Outcome.FAILED


PATTERNS = {
    r"www\.[\w.-]+\.\bcom\b": ["www.google.com", "www.com", "wwwxa.com"],
    r"(?i)abc": ["ABC", "abc", "abd"],
    r"\d{2,3}": ["12", "1234", "٣٤"],
    r"\w+": ["été", "ete", "a_1"],
    r"[[:alpha:]]+[[:digit:]_]*": ["ab12_", "12", "é1"],
    r"[^[:space:]]+": ["ab", "a b"],
    r"a$": ["a", "a\n"],
    r"(a$)\n?": ["a", "a\n"],
    r"a\z": ["a", "a\n"],
    r"a.c": ["abc", "a\nc"],
    r"(?s)a.c": ["abc", "a\nc", "ac"],
    r"(?P<x>a|b)+": ["abab", "abc", ""],
    r"[a$]+": ["a$", "b"],
    r"\[\]": ["[]", "[", "]"],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_whole_strings_match_as_in_onnxruntime(pattern: str) -> None:
    x = words(*PATTERNS[pattern])
    (ran,) = run_onnxruntime("RegexFullMatch", (x,), {"pattern": pattern}, opset=20)
    found = call("RegexFullMatch", x, opset=20, pattern=pattern)
    assert found.dtype == bool
    assert found.tolist() == ran.tolist()
    assert len({*found.tolist()}) == 2 or len(x) == 1


@pytest.mark.parametrize("pattern", [r"\pN+", r"\p{Greek}", r"\Qa.b\E", "(?U)a+", r"[[:^alpha:]]"])
def test_untranslated_syntax_is_no_kernel(pattern: str) -> None:
    with pytest.raises(MissingKernelError, match="RE2"):
        call("RegexFullMatch", words("a"), opset=20, pattern=pattern)


@pytest.mark.parametrize("pattern", ["(", "a{2", "[", None])
def test_no_pattern_is_refused(pattern: str | None) -> None:
    if pattern == "a{2":
        assert call("RegexFullMatch", words("a{2"), opset=20, pattern=pattern).tolist() == [True]
        return
    with pytest.raises(InvalidAttributeError, match="pattern"):
        call("RegexFullMatch", words("a"), opset=20, pattern=pattern)


def slow_counts(row: Sequence[Any], grams: Sequence[tuple[Any, ...]], skips: int) -> list[int]:
    """How often each n-gram stands in a row at any equal distance of up to skips + 1, a single item once."""
    found = []
    for gram in grams:
        steps = range(1, skips + 2) if len(gram) > 1 else [1]
        places = itertools.product(steps, range(len(row)))
        found.append(
            sum(tuple(row[i + k * s] for k in range(len(gram)) if i + k * s < len(row)) == gram for s, i in places)
        )
    return found


@examples
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 3), st.integers(1, 3), st.integers(1, 3))
def test_counts_are_those_of_a_plain_search(row: list[int], skips: int, shortest: int, longest: int) -> None:
    grams: list[tuple[int, ...]] = [(0,), (3,), (1, 2), (2, 2), (0, 1, 2), (3, 3, 3)]
    attributes = {
        "mode": "TF",
        "min_gram_length": min(shortest, longest),
        "max_gram_length": longest,
        "max_skip_count": skips,
        "ngram_counts": [0, 2, 6],
        "ngram_indexes": [5, 0, 1, 4, 2, 3],
        "pool_int64s": [item for gram in grams for item in gram],
    }
    y = call("TfIdfVectorizer", np.array(row, np.int64), opset=9, **attributes)
    expected = [0] * 6
    for place, gram, count in zip(attributes["ngram_indexes"], grams, slow_counts(row, grams, skips), strict=True):
        expected[place] = count if min(shortest, longest) <= len(gram) <= longest else 0
    assert y.tolist() == expected


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.1, 3.0]])
def test_onnxruntime_weighs_the_same_words(mode: str, weights: list[float] | None) -> None:
    x = words("a", "b", "a", "b", "c", "a").reshape(2, 3)
    attributes = {
        "mode": mode,
        "min_gram_length": 1,
        "max_gram_length": 2,
        "max_skip_count": 1,
        "ngram_counts": [0, 2],
        "ngram_indexes": [0, 1, 2, 3],
        "pool_strings": ["a", "b", "a", "b", "b", "a"],
    }
    if weights is not None:
        attributes["weights"] = [float(np.float32(w)) for w in weights]
    y = call("TfIdfVectorizer", x, opset=9, **attributes)
    counts = np.array([slow_counts(row, [("a",), ("b",), ("a", "b"), ("b", "a")], 1) for row in x.tolist()])
    factor = np.ones(4) if weights is None or mode == "TF" else np.float32(weights).astype(float)
    np.testing.assert_array_equal(y, (np.minimum(counts, 1) if mode == "IDF" else counts) * factor.astype(np.float32))
    same("TfIdfVectorizer", (x,), attributes, opset=9)
    assert beyond(y + np.float32(1), "TfIdfVectorizer", x, opset=9, **attributes) == y.size


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "error", "message"),
    [
        ("StringNormalizer", [words("a").reshape(1, 1, 1)], {}, InvalidInputError, "shape"),
        ("StringNormalizer", [words("a", "b").reshape(2, 1)], {}, InvalidInputError, "shape"),
        ("StringNormalizer", [words("a")], {"case_change_action": "TITLE"}, InvalidAttributeError, "TITLE"),
    ],
)
def test_impossible_input_is_named(
    op_type: str, inputs: list[Any], attributes: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call(op_type, *inputs, opset=20, **attributes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "BM25"}, "BM25"),
        ({"pool_int64s": None}, "one pool"),
        ({"pool_strings": ["a"]}, "one pool"),
        ({"ngram_indexes": [0]}, "ngram_indexes"),
    ],
)
def test_impossible_vectorizer_is_named(change: dict[str, Any], message: str) -> None:
    attributes = {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": 1,
        "max_skip_count": 0,
        "ngram_counts": [0],
        "ngram_indexes": [0, 1],
        "pool_int64s": [3, 4],
    }
    with pytest.raises(InvalidAttributeError, match=message):
        call("TfIdfVectorizer", np.array([3, 4]), opset=9, **{**attributes, **change})
