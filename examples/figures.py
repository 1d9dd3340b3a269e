"""Writes what an example measured into docs/examples.md, between the marks of its name.

<!-- character-gpt: written by examples/character_gpt.py -->
…
<!-- end of character-gpt -->
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "examples.md"


def write_figures(name: str, rows: Sequence[tuple[str, str]], text: str = "", document: Path = DOCUMENT) -> None:
    """Replace the block of `name` by a table, when and on what it was measured, and a text.

    Args:
        name: of the block.
        rows: what was measured, and the figure.
        text: printed as it is below the table, a sample for example.
        document: where the block is.

    Raises:
        ValueError: the document has no such block.
    """
    marks = re.compile(rf"(<!-- {re.escape(name)}: [^\n]* -->\n).*?(<!-- end of {re.escape(name)} -->)", re.DOTALL)
    content = document.read_text(encoding="utf-8")
    if not marks.search(content):
        raise ValueError(f"{document} has no block {name}")
    block = "\n".join([*table(rows), "", measured(), *(["", "```text", text.rstrip(), "```"] if text else []), ""])
    document.write_text(marks.sub(lambda match: match[1] + block + match[2], content), encoding="utf-8")


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| what | figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows)]


def measured() -> str:
    """When, with what, on what."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime"))
    return (
        f"Measured {date.today().isoformat()} with Python {platform.python_version()}, {packages}, on {_cores()} cores."
    )


def _cores() -> int:
    import os  # noqa: PLC0415 - here only

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
