"""Softmax, LogSoftmax, Attention, RotaryEmbedding and SoftmaxCrossEntropyLoss in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...operators.scale import Array
from .case import Case, Family, Outputs, Variant, faults
from .data import KINDS, lengths, tensor
from .narrow import NARROW
from .normalization import SUMS, Sum, tree
from .summing import blas, blocked, sequential
from .tampering import tampered
from .trials import stored

F = np.float32
Multiply = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Flaws:
    """What a faulty implementation does differently; each field alone.

    Attributes:
        axis: softmax along another one.
        unshifted: exponentials of the values themselves.
        undivided: not divided by the sum.
        dropped: the last element is not in the sum.
        without_largest: the largest is not in the sum.
        base_two: 2^x.
        narrow: inputs in a narrow type.
        narrow_sum: the sum in a narrow type.
        row_sum: divided by the sum of the row before.
        log_of_softmax: the logarithm of float16 probabilities.
        order: log-softmax not made less by the logarithm.
        scale: "d", "1", "0" (none), "twice" (applied to Q and K both in full).
        mask: "ignored", "inverted", "transposed", "added one", "multiplied", "late" (after the softmax).
        causal: "ignored", "added", "corner" (the other corner), "strict" (not the diagonal), "reversed".
        cap: "ignored", "late" (after the mask), "unscaled" (tanh without the factor).
        keys: "last dropped", "first twice", "half", "shifted values", "transposed".
        heads: "grouped wrongly", "swapped", "first for all".
        probabilities: "narrow", "undivided".
    """

    axis: int | None = None
    unshifted: bool = False
    undivided: bool = False
    dropped: bool = False
    without_largest: bool = False
    base_two: bool = False
    narrow: str = ""
    narrow_sum: str = ""
    row_sum: bool = False
    log_of_softmax: str = ""
    raw_log: bool = False
    scale: str = ""
    mask: str = ""
    causal: str = ""
    cap: str = ""
    keys: str = ""
    heads: str = ""
    rotary: str = ""
    loss: str = ""


RIGHT = Flaws()


def exponentials(x: Array, flaws: Flaws, total: Sum) -> tuple[Array, Array, Array]:
    """(x − max, its exponential, their sum) over the last axis."""
    peak = x.max(axis=-1, keepdims=True)
    t = x if flaws.unshifted else x - np.where(np.isfinite(peak), peak, 0)
    e = np.exp2(t) if flaws.base_two else np.exp(t)
    summed = e[..., :-1] if flaws.dropped and x.shape[-1] > 1 else e
    s = total(np.ascontiguousarray(summed))
    if flaws.without_largest:
        s = s - e.max(axis=-1, keepdims=True)
    if flaws.narrow_sum:
        s = NARROW[flaws.narrow_sum](s)
    if flaws.row_sum:
        s = np.roll(s.reshape(-1), 1).reshape(s.shape)
    return t, e, s


def softmax(x: Array, flaws: Flaws = RIGHT, total: Sum = tree) -> Array:
    """Over the last axis."""
    x = NARROW[flaws.narrow](x) if flaws.narrow else x
    _, e, s = exponentials(x, flaws, total)
    return e if flaws.undivided else e / s


def log_softmax(x: Array, flaws: Flaws = RIGHT, total: Sum = tree) -> Array:
    """Over the last axis."""
    x = NARROW[flaws.narrow](x) if flaws.narrow else x
    if flaws.log_of_softmax:
        return np.log(NARROW[flaws.log_of_softmax](softmax(x)))
    t, _, s = exponentials(x, flaws, total)
    return t if flaws.undivided else t - (s if flaws.raw_log else np.log(s))


def _rows(case: Case, flaws: Flaws, total: Sum, _multiply: Multiply) -> Array:
    x = np.asarray(case.inputs[0], F)
    axis = case.attributes.get("axis", -1) if flaws.axis is None else flaws.axis
    compute = softmax if case.op_type == "Softmax" else log_softmax
    return np.moveaxis(compute(np.moveaxis(x, axis, -1), flaws, total), -1, axis)


def attend(case: Case, flaws: Flaws, total: Sum, multiply: Multiply) -> Array | None:
    """Four-dimensional inputs, with grouped heads, a mask, causality and a soft cap."""
    q, k, v, *rest = case.inputs
    q, k, v = (np.asarray(t, F) for t in (q, k, v))
    mask, given = (rest[0] if rest else None), case.attributes
    k, v = _heads(q, k, v, flaws)
    if flaws.narrow:
        q, k, v = (NARROW[flaws.narrow](t) for t in (q, k, v))
    k, v = _keys(k, v, flaws)
    d = q.shape[-1]
    factor = {"d": 1 / d, "1": 1.0, "twice": 1 / d}.get(flaws.scale, given.get("scale", 1 / np.sqrt(d)))
    scores = _by_head(q, k.swapaxes(-1, -2), multiply) * F(factor)
    cap = F(given.get("softcap", 0.0)) if flaws.cap != "ignored" else F(0)
    if cap and not flaws.cap:
        scores = cap * np.tanh(scores / cap)
    if flaws.cap == "unscaled":
        scores = np.tanh(scores)
    allowed, bias = _masks(scores.shape, mask, given.get("is_causal", 0), flaws)
    if allowed is None:
        return None
    scores = np.where(allowed, scores + bias, F(-np.inf))
    if flaws.cap == "late" and cap:
        scores = cap * np.tanh(scores / cap)
    p = np.nan_to_num(softmax(scores, _inner(flaws), total))
    if flaws.mask == "late" and mask is not None:
        p = np.where(_mask_bools(mask, p.shape), p, 0)
    return _by_head(p, v, multiply)


def _inner(flaws: Flaws) -> Flaws:
    return Flaws(**{**flaws.__dict__, "narrow": "", "axis": None})


def _by_head(a: Array, b: Array, multiply: Multiply) -> Array:
    if multiply is blas:
        return np.matmul(a, b)
    heads = a.shape[:2]
    y = [multiply(a[h], np.ascontiguousarray(b[h])) for h in np.ndindex(heads)]
    return np.stack(y).reshape(*heads, *y[0].shape)


def _heads(q: Array, k: Array, v: Array, flaws: Flaws) -> tuple[Array, Array]:
    group = q.shape[1] // k.shape[1]
    if flaws.heads == "tiled":  # h mod Hkv in place of h // group
        return np.tile(k, (1, group, 1, 1)), np.tile(v, (1, group, 1, 1))
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    if flaws.heads == "values swapped":
        v = np.roll(v, 1, axis=1)
    if flaws.heads == "first for all":
        k, v = np.repeat(k[:, :1], q.shape[1], axis=1), np.repeat(v[:, :1], q.shape[1], axis=1)
    return k, v


def _keys(k: Array, v: Array, flaws: Flaws) -> tuple[Array, Array]:
    if flaws.keys == "last dropped":
        return k[..., :-1, :], v[..., :-1, :]
    if flaws.keys == "first twice":
        return (np.concatenate([t[..., :1, :], t], axis=-2) for t in (k, v))  # type: ignore[return-value]
    if flaws.keys == "shifted values":
        return k, np.roll(v, 1, axis=-2)
    if flaws.keys == "half":
        half = max(k.shape[-2] // 2, 1)
        return k[..., :half, :], v[..., :half, :]
    return k, v


def _mask_bools(mask: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(mask if mask.dtype == bool else mask > -1, shape)


def _masks(shape: tuple[int, ...], mask: Array | None, causal: int, flaws: Flaws) -> tuple[Array | None, Any]:
    rows, keys = shape[-2:]
    allowed, bias = np.ones((rows, keys), bool), F(0)
    if flaws.keys and (mask is not None or causal):
        return None, bias
    causal = {"ignored": 0, "added": 1}.get(flaws.causal, causal)
    if causal:
        offset = {"corner": keys - rows, "strict": -1}.get(flaws.causal, 0)
        allowed = np.tri(rows, keys, offset, bool)
        allowed = allowed[:, ::-1] if flaws.causal == "reversed" else allowed
    if mask is None or flaws.mask in ("ignored", "late"):
        return (None if flaws.mask and mask is None else np.broadcast_to(allowed, shape)), bias
    if flaws.mask == "transposed":
        if rows != keys:
            return None, bias
        mask = mask.T
    if mask.dtype == bool:
        if flaws.mask == "as numbers":
            return np.broadcast_to(allowed, shape), mask.astype(F)
        mask = ~mask if flaws.mask == "inverted" else mask
        return np.broadcast_to(allowed & mask, shape), bias
    bias = -mask if flaws.mask == "inverted" else mask
    bias = NARROW["BF16"](bias) if flaws.mask == "narrow" else bias
    return np.broadcast_to(allowed, shape), bias.astype(F)


def rotate(case: Case, flaws: Flaws, _total: Sum, _multiply: Multiply) -> Array | None:
    """(B, heads, T, D) with caches (B, T, D / 2)."""
    x, cos, sin = (np.asarray(t, F) for t in case.inputs[:3])
    interleaved = bool(case.attributes.get("interleaved", 0)) != (flaws.rotary == "layout")
    cos, sin = cos[:, None], sin[:, None]
    if flaws.rotary == "exchanged":
        cos, sin = sin, cos
    if flaws.rotary == "late":
        cos, sin = np.roll(cos, 1, axis=2), np.roll(sin, 1, axis=2)
    sin = -sin if flaws.rotary == "backwards" else sin
    if flaws.rotary == "narrow":
        cos, sin = NARROW["BF16"](cos), NARROW["BF16"](sin)
    half = cos.shape[-1]
    a, b = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    pair = a * cos - b * sin, (a * sin + b * cos if flaws.rotary != "one half" else b * cos)
    return np.stack(pair, axis=-1).reshape(x.shape) if interleaved else np.concatenate(pair, axis=-1)


def lose(case: Case, flaws: Flaws, total: Sum, _multiply: Multiply) -> Array:
    """SoftmaxCrossEntropyLoss of (N, C) scores, the mean over weights."""
    scores, labels, weights = (*case.inputs, None)[:3]
    p = log_softmax(np.asarray(scores, F), _inner(flaws), total)
    labels = np.asarray(labels)
    if flaws.loss == "next class":
        labels = (labels + 1) % p.shape[1]
    picked = -p[np.arange(len(labels)), labels]
    w = np.ones(p.shape[1], F) if weights is None or flaws.loss == "unweighted" else np.asarray(weights)
    chosen = w[labels]
    ignored = case.attributes.get("ignore_index")
    if ignored is not None and flaws.loss != "nothing ignored":
        chosen = np.where(labels == ignored, F(0), chosen)
    loss = total((picked * chosen)[None])[0, 0]
    divisor = F(len(labels)) if flaws.loss == "divided by the number" else total(chosen[None])[0, 0]
    return np.asarray(loss if flaws.loss == "sum" else loss / divisor)


WAYS: dict[str, Callable[[Case, Flaws, Sum, Multiply], Array | None]] = {
    "Softmax": _rows,
    "LogSoftmax": _rows,
    "Attention": attend,
    "RotaryEmbedding": rotate,
    "SoftmaxCrossEntropyLoss": lose,
}


def compute(case: Case, flaws: Flaws = RIGHT, total: Sum = tree, multiply: Multiply = blas) -> Outputs | None:
    """Any of these operators in float32."""
    y = WAYS[case.op_type](case, flaws, total, multiply)
    return None if y is None else (stored(np.asarray(y, F), np.asarray(case.inputs[0])),)


def _with_products(multiply: Multiply) -> Callable[[Case], Outputs | None]:
    return lambda case: compute(case, RIGHT, SUMS["sequential"], multiply) if case.op_type == "Attention" else None


def faulty(case: Case, **flaws: Any) -> Outputs | None:
    """One of these operators with one flaw."""
    return compute(case, Flaws(**flaws))


ROWS, A, R, L = ("Softmax", "LogSoftmax"), "Attention", "RotaryEmbedding", "SoftmaxCrossEntropyLoss"

FAULTS: tuple[tuple[Any, ...], ...] = (
    ("softmax along the other axis", ROWS, {"axis": 0}),
    ("softmax without its shift", ("Softmax",), {"unshifted": True}),
    ("not divided by the sum", (*ROWS, A), {"undivided": True}),
    ("last element not in the sum", (*ROWS, A, L), {"dropped": True}),
    ("largest element not in the sum", (*ROWS, A, L), {"without_largest": True}),
    ("powers of two in place of e", (*ROWS, A, L), {"base_two": True}),
    ("inputs in float16", (*ROWS, A), {"narrow": "FP16"}),
    ("inputs in bfloat16", (*ROWS, A), {"narrow": "BF16"}),
    ("inputs in TF32", A, {"narrow": "TF32"}),
    ("sum in float16", (*ROWS, A), {"narrow_sum": "FP16"}),
    ("sum in bfloat16", (*ROWS, A, L), {"narrow_sum": "BF16"}),
    ("sum of the row before", (*ROWS, A, L), {"row_sum": True}),
    ("logarithm of a float16 softmax", "LogSoftmax", {"log_of_softmax": "FP16"}),
    ("logarithm of a bfloat16 softmax", "LogSoftmax", {"log_of_softmax": "BF16"}),
    ("less the sum and not its logarithm", "LogSoftmax", {"raw_log": True}),
    ("scale 1 / d", A, {"scale": "d"}),
    ("no scale", A, {"scale": "1"}),
    ("mask ignored", A, {"mask": "ignored"}),
    ("mask inverted", A, {"mask": "inverted"}),
    ("mask transposed", A, {"mask": "transposed"}),
    ("boolean mask added as numbers", A, {"mask": "as numbers"}),
    ("mask after the softmax", A, {"mask": "late"}),
    ("mask in bfloat16", A, {"mask": "narrow"}),
    ("causal mask ignored", A, {"causal": "ignored"}),
    ("causal mask added", A, {"causal": "added"}),
    ("causal mask from the other corner", A, {"causal": "corner"}),
    ("causal mask without the diagonal", A, {"causal": "strict"}),
    ("causal mask reversed", A, {"causal": "reversed"}),
    ("softcap ignored", A, {"cap": "ignored"}),
    ("softcap after the mask", A, {"cap": "late"}),
    ("softcap without its factor", A, {"cap": "unscaled"}),
    ("last key dropped", A, {"keys": "last dropped"}),
    ("first key twice", A, {"keys": "first twice"}),
    ("half of the keys", A, {"keys": "half"}),
    ("values shifted by one key", A, {"keys": "shifted values"}),
    ("heads tiled and not repeated", A, {"heads": "tiled"}),
    ("values of the next head", A, {"heads": "values swapped"}),
    ("first head for all", A, {"heads": "first for all"}),
    ("halves in place of neighbours or the other way", R, {"rotary": "layout"}),
    ("sine and cosine exchanged", R, {"rotary": "exchanged"}),
    ("rotated the other way", R, {"rotary": "backwards"}),
    ("position off by one", R, {"rotary": "late"}),
    ("caches in bfloat16", R, {"rotary": "narrow"}),
    ("second half without its sine", R, {"rotary": "one half"}),
    ("loss of the next class", L, {"loss": "next class"}),
    ("weights ignored", L, {"loss": "unweighted"}),
    ("ignore_index ignored", L, {"loss": "nothing ignored"}),
    ("divided by the number and not by the weights", L, {"loss": "divided by the number"}),
    ("sum in place of the mean", L, {"loss": "sum"}),
)


def cases(quick: bool) -> Iterator[Case]:
    """Rows and attentions of every length on every kind of data but products beyond float32's exponential."""
    for kind in KINDS:
        for number, length in enumerate(lengths(quick)):
            yield from _of_length(kind, length, 0 if quick else number % 2)
        for number, keys in enumerate(lengths(quick, most=256 if quick else 4608, least=9)):
            yield from _attentions(kind, keys, 0 if quick else number % 2)


def _of_length(kind: str, length: int, seed: int) -> Iterator[Case]:
    rng = np.random.default_rng([seed, length])
    x = tensor(kind, (6, length), seed)
    yield Case("Softmax", (x,), {"axis": -1}, kind, length)
    yield Case("LogSoftmax", (x,), {"axis": -1}, kind, length)
    if kind != "wide" and seed == 0:
        yield Case("Softmax", (x.astype(np.float16),), {"axis": -1}, kind, length)
        yield Case("Softmax", (np.ascontiguousarray(x.T),), {"axis": 0}, kind, length)
    if length > 1:
        labels, weights = rng.integers(0, length, 6), rng.uniform(0.5, 2, length).astype(F)
        labels[-1] = (labels[0] + 1) % length
        yield Case(L, (x, labels, weights), {"ignore_index": int(labels[0])} if seed % 2 else {}, kind, length)


def _attentions(kind: str, keys: int, seed: int) -> Iterator[Case]:
    rng = np.random.default_rng([seed, keys])
    q = tensor(kind, (1, 4, 7, 16), seed)
    k, v = (tensor(kind, (1, 2, keys, 16), seed, i) for i in (1, 2))
    yield Case(A, (q, k, v), {}, kind, keys)
    yield Case(A, (q, k, v), {"is_causal": 1, "softcap": 2.0}, kind, keys)
    mask = rng.random((7, keys)) < 0.8
    mask[:, 0] = True
    yield Case(A, (q, k, v, mask), {"scale": 0.2}, kind, keys)
    yield Case(A, (q, k, v, (2 * rng.standard_normal((7, keys))).astype(F)), {"softcap": 5.0}, kind, keys)
    if keys <= 64:
        square = tensor(kind, (1, 2, keys, 16), seed, 3)
        mask = rng.random((keys, keys)) < 0.7
        mask[:, 0] = True
        yield Case(A, (square, k, v, mask), {"is_causal": seed % 2}, kind, keys)
        angle = rng.uniform(0, 6.3, (1, keys, 8))
        caches = np.cos(angle).astype(F), np.sin(angle).astype(F)
        yield Case(R, (square, *caches), {"interleaved": seed % 2}, kind, 2)


FAMILY = Family(
    "softmax and attention",
    cases,
    compute,
    (
        *(
            Variant(f"{name} sums", lambda case, total=total: compute(case, RIGHT, total))
            for name, total in SUMS.items()
            if total is not tree
        ),
        Variant("blocked products", _with_products(blocked)),
        Variant("sequential products", _with_products(sequential)),
    ),
    (*faults(faulty, *FAULTS), *tampered(compute)),
)
