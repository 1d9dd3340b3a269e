"""Symbolic dims: names, and sums and products of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.graphs.symbols import names, resolve


@pytest.mark.parametrize(
    ("symbol", "size"),
    [
        *[("n", 3), ("2*n", 6), ("n + m - 1", 6), ("(n + m)//2", 3), ("7", 7), ("k", None), ("n**9", None)],
        *[("n//0", None), ("", None), ("(" * 500, None), ("batch-size", None), ("n\0", None), ("-n", None)],
        *[("f(n)", None), ("True", None), ("1.5", None), ("0\r", None), ("n # m", None)],
    ],
)
def test_resolve_symbol(symbol, size):
    assert resolve(symbol, {"n": 3, "m": 4}) == size


def test_resolve_takes_a_whole_expression_as_a_name():
    assert resolve("batch-size", {"batch-size": 5}) == 5


@given(st.text(max_size=40))
def test_resolve_of_any_text_gives_a_size_or_none(symbol):
    assert resolve(symbol, {}) is None or symbol.strip(" ()+-*/0123456789_xXoObBaAcCdDeEfF") == ""
    assert names(symbol)
