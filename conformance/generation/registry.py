"""The strategies by operator; importing a family registers them.

Add one (recipe): in the file of its family write a function of a `Draw` that returns `draw.call(...)`, decorate it with
`@strategy("OpType", …)`, and keep every call valid by the spec's text: an invalid call is a false alarm.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from types import MappingProxyType

from ...errors import DuplicateEntryError
from .drawing import Draw, NodeCall

FAMILIES = (
    "attention",
    "chance",
    "contraction",
    "convolution",
    "elementwise",
    "indexing",
    "movement",
    "normalization",
    "quantization",
    "recurrent",
    "reduction",
    "sampling",
    "selection",
    "signal",
    "text",
)

Strategy = Callable[[Draw], NodeCall]

_strategies: dict[str, Strategy] = {}


def strategy(*op_types: str) -> Callable[[Strategy], Strategy]:
    """Register the decorated function for these operators.

    Raises:
        DuplicateEntryError: one of them has a strategy.
    """

    def register(function: Strategy) -> Strategy:
        for op_type in op_types:
            if op_type in _strategies:
                raise DuplicateEntryError(f"{op_type} already has a strategy")
            _strategies[op_type] = function
        return function

    return register


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f".{family}", __package__)


def strategies() -> MappingProxyType[str, Strategy]:
    """All strategies by operator, read-only."""
    _load()
    return MappingProxyType(_strategies)
