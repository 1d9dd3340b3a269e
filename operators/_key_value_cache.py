"""Keys and values of GroupQueryAttention that are kept from step to step: how many there are, and in which rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError
from ._scaled_dot_product import Operand
from .scale import Array


@dataclass(frozen=True)
class Lengths:
    """Tokens per batch entry, (B,) each: cached after this step, valid in this step, cached before it."""

    total: Array
    valid: Array
    before: Array


def lengths_of(seqlens_k: Array, query_seqlens: Array | None, T: int) -> Lengths:  # noqa: N803 (the spec's letter)
    """From the tokens cached after this step less one, and the valid ones of it: by default all that fit in T.

    Raises:
        InvalidInputError: lengths that do not go together.
    """
    total = seqlens_k.reshape(-1).astype(np.int64) + 1
    valid = np.minimum(T, total) if query_seqlens is None else query_seqlens.reshape(-1).astype(np.int64)
    if (total < 1).any() or (valid < 0).any() or (valid > np.minimum(T, total)).any():
        raise InvalidInputError(f"GroupQueryAttention: {valid} new tokens of {T} for {total} in all")
    return Lengths(total, valid, total - valid)


def cached(new: Operand, past: Array | None, lengths: Lengths, capacity: int) -> Operand:
    """New tokens behind the valid ones of the cache; infinite error behind the last, which is unspecified."""
    shape = (new.value.shape[0], new.value.shape[1], capacity, new.value.shape[3])
    value, error = np.zeros(shape), np.full(shape, np.inf)
    source = np.broadcast_to(new.error, new.value.shape)
    for b, (total, valid, before) in enumerate(zip(lengths.total, lengths.valid, lengths.before, strict=True)):
        if before:
            if past is None or past.shape[2] < before:
                raise InvalidInputError(f"GroupQueryAttention: {before} cached tokens are said to be, fewer are given")
            value[b, :, :before], error[b, :, :before] = past[b, :, :before], 0.0
        value[b, :, before:total], error[b, :, before:total] = new.value[b, :, :valid], source[b, :, :valid]
    return Operand(value, error)


@dataclass(frozen=True)
class WindowCache:
    """A cache that keeps only its last tokens, in rows from 0 on: `sliding_window_cache`.

    Attributes:
        capacity: rows that there are.
        window: tokens that are seen, the query's own one included.
    """

    capacity: int
    window: int

    def resident(self, tokens: Array) -> Array:
        """How many rows are filled after so many tokens: where they do not fit, capacity − window + 1 go at once."""
        freed = self.capacity - self.window + 1
        return tokens - freed * np.maximum(-((self.capacity - tokens) // freed), 0)

    def unrolled(self, past: Array, lengths: Lengths, capacity: int) -> Array:
        """Each row where its token was, zeros for those that are gone."""
        full = np.zeros((*past.shape[:2], capacity, past.shape[3]))
        for b, (end, kept) in enumerate(zip(lengths.before, self.resident(lengths.before), strict=True)):
            full[b, :, end - kept : end] = past[b, :, :kept]
        return full

    def rolled(self, full: Operand, lengths: Lengths) -> Operand:
        """What the cache holds after the step; infinite error behind."""
        shape = (*full.value.shape[:2], self.capacity, full.value.shape[3])
        value, error = np.zeros(shape), np.full(shape, np.inf)
        for b, (end, kept) in enumerate(zip(lengths.total, self.resident(lengths.total), strict=True)):
            value[b, :, :kept], error[b, :, :kept] = (x[b, :, end - kept : end] for x in (full.value, full.error))
        return Operand(value, error)
