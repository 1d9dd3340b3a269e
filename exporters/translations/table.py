"""Which function translates which PyTorch operator at which opset.

    @translation(aten.silu.default, since=24)
    def swish(x: Value) -> Value: ...

A translation takes the operator's own arguments, tensors as values of the graph that is being built and everything
else as it is in Python, and calls operators of an onnxscript opset no newer than `since`. What is not here is
translated by torch.onnx.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ...errors import DuplicateEntryError

Translator = Callable[..., Any]

MODULES = ("activations", "attention", "normalization", "pooling")
"""Files of this package that hold translations."""

_entries: dict[tuple[Any, int], Translator] = {}


def translation(operator: Any, *, since: int) -> Callable[[Translator], Translator]:
    """Register the decorated function as the translation of `operator` from opset `since` on.

    Raises:
        DuplicateEntryError: there is one of that operator and opset.
    """

    def register(function: Translator) -> Translator:
        if (operator, since) in _entries:
            there = _entries[operator, since].__qualname__
            raise DuplicateEntryError(f"{operator} since opset {since} is already translated by {there}")
        _entries[operator, since] = function
        return function

    return register


@cache
def _load() -> None:
    for name in MODULES:
        importlib.import_module(f".{name}", __package__)


def translation_table(opset: int) -> Mapping[Any, Translator]:
    """By PyTorch operator, the newest translation that `opset` can hold."""
    _load()
    found: dict[Any, Translator] = {}
    for operator, since in sorted(_entries, key=lambda entry: entry[1]):
        if since <= opset:
            found[operator] = _entries[operator, since]
    return found
