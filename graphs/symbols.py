"""Symbolic dims: sizes given by name, and the sums and products of names that exporters write."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping

_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_LONGEST_EXPRESSION = 200
_EXPRESSION = re.compile(r"[\w +\-*/()]*")


def resolve(symbol: str, sizes: Mapping[str, int]) -> int | None:
    """The size of a symbolic dim.

    Args:
        symbol: a name ("batch") or an expression of names and integers with +, −, *, // ("past + sequence").
        sizes: size by name; a whole expression may be given as well.

    Returns:
        The size, or None if a name has none or the symbol is no such expression.
    """
    if symbol in sizes:
        return sizes[symbol]
    if len(symbol) > _LONGEST_EXPRESSION or not _EXPRESSION.fullmatch(symbol):
        return None
    try:
        return _value(ast.parse(symbol, mode="eval").body, sizes)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def names(symbol: str) -> frozenset[str]:
    """The names that a symbolic dim is made of; the symbol itself if it is no expression."""
    try:
        parsed = ast.walk(ast.parse(symbol[:_LONGEST_EXPRESSION], mode="eval"))
        return frozenset(part.id for part in parsed if isinstance(part, ast.Name)) or frozenset({symbol})
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset({symbol})


def _value(expression: ast.expr, sizes: Mapping[str, int]) -> int | None:
    match expression:
        case ast.Name(id=name):
            return sizes.get(name)
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            a, b = _value(left, sizes), _value(right, sizes)
            return None if a is None or b is None else _OPERATIONS[type(op)](a, b)
    return None
