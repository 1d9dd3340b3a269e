"""Names and figures as text: nothing hidden, few digits, the right unit."""

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.reports.text import duration, facts, figure, percent, plural, size, visible

ANY_TEXT = st.text(st.characters(exclude_categories=()))
BIDI_CONTROLS = [chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]


@given(text=ANY_TEXT)
def test_visible_text_holds_no_hidden_character_and_is_utf8(text: str) -> None:
    shown = visible(text)
    assert {unicodedata.category(char) for char in shown}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert not set(shown) & set(BIDI_CONTROLS)
    shown.encode("utf-8")


@given(text=st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="".join(BIDI_CONTROLS))))
def test_visible_leaves_printable_text_of_any_script_alone(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\rc\td\0", "a\\nb\\rc\\td\\x00"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U0001ffff", "\\U0001ffff"),
        ("שלום 日本語 é 👩‍🔬", "שלום 日本語 é 👩‍🔬"),
        ("", ""),
    ],
)
def test_visible_spells_out_what_cannot_be_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_visible_cuts_long_text_with_ellipsis() -> None:
    assert visible("x" * 10_000, 10) == "x" * 9 + "…"
    assert visible("x" * 10, 10) == "x" * 10


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (0.0, "0"),
        (1.23456, "1.23"),
        (-1.5, "−1.5"),
        (999.7, "1,000"),
        (123_456.0, "123,456"),
        (1_234_567.0, "1.23e6"),
        (1.5e-7, "1.5e−7"),
        (5e-324, "4.94e−324"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "NaN"),
    ],
)
def test_figure(value: float | None, shown: str) -> None:
    assert figure(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0 %"), (0.24, "24 %"), (1.0, "100 %"), (0.0071, "0.71 %"), (math.inf, "∞ %")],
)
def test_percent(value: float | None, shown: str) -> None:
    assert percent(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0 µs"),
        (2.5e-6, "2.5 µs"),
        (0.0213, "21.3 ms"),
        (1.0, "1 s"),
        (75.0, "75 s"),
        (math.nan, "NaN"),
    ],
)
def test_duration(value: float | None, shown: str) -> None:
    assert duration(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0, "0 bytes"), (46_830_571, "46.8 MB"), (1.6e10, "16 GB"), (2_000, "2 kB")]
)
def test_size(value: float | None, shown: str) -> None:
    assert size(value) == shown


@pytest.mark.parametrize(("count", "shown"), [(0, "0 nodes"), (1, "1 node"), (1234, "1,234 nodes")])
def test_plural(count: int, shown: str) -> None:
    assert plural(count, "node") == shown


def test_facts_are_flat_named_and_visible() -> None:
    mapping = {
        "cpu": "A\x1bB",
        "versions": {"numpy": "2.4"},
        "memory_bytes": 16e9,
        "duration_s": 0.5,
        "deterministic": False,
        "seed": 0,
        "dims": [1, 2],
        "nothing": None,
        "empty": "",
    }
    assert facts(mapping) == [
        ("cpu", "A\\x1bB"),
        ("versions · numpy", "2.4"),
        ("memory", "16 GB"),
        ("duration", "500 ms"),
        ("deterministic", "no"),
        ("seed", "0"),
        ("dims", "1, 2"),
    ]
