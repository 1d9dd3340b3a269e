"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and the integer products."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...operators.scale import Array
from .case import Case, Family, Outputs, Variant, faults
from .data import KINDS, tensor
from .tampering import tampered

F = np.float32


@dataclass(frozen=True)
class Flaws:
    """What a faulty quantisation does differently.

    Attributes:
        rounding: "away", "floor", "truncated" for half to even.
        wraps: values beyond the range wrap round.
        narrow_range: the lowest value is not used.
        zero_point: "ignored", "subtracted", "in the scale".
        inverse: multiplied by a float32 reciprocal in float16.
        axis: scales along the other axis.
        first_scale: the first scale for all.
        other_signedness: limits of the other signedness.
        dropped: the last product is missing.
        accumulator: "int16", "float32", "saturating int16" (pairs of products).
        zero_of: the operand whose zero point is left out.
        late: the zero point is added before the saturation, or after it.
        without_zero: the range of a dynamic quantisation need not hold zero.
        steps: 256 or 254 for 255.
    """

    rounding: str = ""
    wraps: bool = False
    narrow_range: bool = False
    zero_point: str = ""
    inverse: bool = False
    axis: bool = False
    first_scale: bool = False
    other_signedness: bool = False
    dropped: bool = False
    accumulator: str = ""
    zero_of: int | None = None
    late: bool = False
    without_zero: bool = False
    steps: int = 255
    transposed: bool = False
    scale_of: int | None = None


RIGHT = Flaws()

ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "": np.rint,
    "away": lambda x: np.sign(x) * np.floor(np.abs(x) + F(0.5)),
    "floor": np.floor,
    "truncated": np.trunc,
}


def _saturate(q: Array, dtype: np.dtype[Any], flaws: Flaws) -> Array:
    limits = np.iinfo(dtype)
    low, high = limits.min + flaws.narrow_range, limits.max
    if flaws.other_signedness:
        low, high = (low + 128, high) if limits.min else (low, 127)
    return (q.astype(np.int64) if flaws.wraps else np.clip(q, low, high)).astype(dtype)


def _along(scale: Array, x: Array, flaws: Flaws) -> Array:
    """Per-channel scales along axis 0, a single one for all."""
    if scale.ndim == 0:
        return scale
    scale = np.broadcast_to(scale[:1], scale.shape) if flaws.first_scale else scale
    return scale[None, :] if flaws.axis else scale[:, None]


def quantize(case: Case, flaws: Flaws) -> Outputs | None:
    x, scale, zero = (np.asarray(t) for t in case.inputs)
    if flaws.axis and (scale.ndim == 0 or x.shape[0] != x.shape[1]):
        return None
    s, z = _along(scale, x, flaws), _along(zero, x, flaws).astype(F)
    inverse = (F(1) / s).astype(np.float16).astype(F) if flaws.inverse else None
    q = x / s if inverse is None else x * inverse
    q = ROUNDINGS[flaws.rounding](q + z) - z if flaws.late else ROUNDINGS[flaws.rounding](q)
    q = q if flaws.zero_point == "ignored" else q - z if flaws.zero_point == "subtracted" else q + z
    return (_saturate(q, zero.dtype, flaws),)


def dequantize(case: Case, flaws: Flaws) -> Outputs | None:
    x, scale, zero = (np.asarray(t) for t in case.inputs)
    if flaws.axis and (scale.ndim == 0 or x.shape[0] != x.shape[1]):
        return None
    s, z = _along(scale, x, flaws), _along(zero, x, flaws)
    wide = x.astype(np.int32)
    if flaws.wraps:
        return (((x - z).astype(x.dtype)).astype(F) * s,)
    if flaws.other_signedness:
        wide = x.view(np.int8 if x.dtype == np.uint8 else np.uint8).astype(np.int32)
    shifted = wide if flaws.zero_point == "ignored" else wide + z if flaws.zero_point == "subtracted" else wide - z
    s = s.astype(np.float16).astype(F) if flaws.inverse else s
    return (shifted.astype(F) * s,)


def dynamic(case: Case, flaws: Flaws) -> Outputs:
    x = np.asarray(case.inputs[0])
    low, high = x.min(), x.max()
    if not flaws.without_zero:
        low, high = min(low, F(0)), max(high, F(0))
    scale = F((high - low) / F(flaws.steps)) or F(1)
    zero = np.clip(ROUNDINGS[flaws.rounding](-low / scale), 0, 255).astype(np.uint8)
    q = ROUNDINGS[flaws.rounding](x / scale) + F(zero)
    return np.clip(q, 0, 255).astype(np.uint8), np.asarray(scale, F), np.asarray(zero)


def _accumulated(a: Array, b: Array, flaws: Flaws) -> Array | None:
    """(M, K) · (K, N) of centred int32."""
    if flaws.transposed:
        if b.shape[0] != b.shape[1]:
            return None
        b = b.T
    if flaws.dropped and a.shape[1] > 1:
        a, b = a[:, :-1], b[:-1]
    if flaws.accumulator == "int16":
        return (a.astype(np.int64) @ b).astype(np.int16).astype(np.int32)
    if flaws.accumulator == "saturating int16":  # as the pairs of an 8-bit multiply-add instruction
        if a.shape[1] % 2:
            return None
        products = a[:, :, None].astype(np.int64) * b
        pairs = np.clip(products[:, ::2] + products[:, 1::2], -32768, 32767)
        return pairs.sum(axis=1).astype(np.int32)
    if flaws.accumulator == "float16":
        return (
            (a.astype(np.float16).astype(F) @ b.astype(F))
            .astype(np.float16)
            .astype(F)
            .astype(np.int64)
            .astype(np.int32)
        )
    return (a.astype(np.int64) @ b).astype(np.int32)


def _centred(x: Array, zero: Array, position: int, flaws: Flaws) -> Array:
    return x.astype(np.int32) - (0 if flaws.zero_of == position else zero.astype(np.int32))


def matmul_integer(case: Case, flaws: Flaws) -> Outputs | None:
    a, b, za, zb = (np.asarray(t) for t in case.inputs)
    y = _accumulated(_centred(a, za, 0, flaws), _centred(b, zb, 1, flaws), flaws)
    return None if y is None else (y,)


def qlinear_matmul(case: Case, flaws: Flaws) -> Outputs | None:
    a, sa, za, b, sb, zb, sy, zy = (np.asarray(t) for t in case.inputs)
    total = _accumulated(_centred(a, za, 0, flaws), _centred(b, zb, 1, flaws), flaws)
    if total is None:
        return None
    scales = [F(1) if flaws.scale_of == i else s for i, s in enumerate((sa, sb))]
    factor = F(scales[0] * scales[1]) / sy
    if flaws.inverse:
        factor = np.float16(factor).astype(F)
    q = ROUNDINGS[flaws.rounding](total.astype(F) * factor)
    q = q if flaws.zero_point == "ignored" else q - zy if flaws.zero_point == "subtracted" else q + zy
    return (_saturate(q, zy.dtype, flaws),)


WAYS: dict[str, Callable[[Case, Flaws], Outputs | None]] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic,
    "MatMulInteger": matmul_integer,
    "QLinearMatMul": qlinear_matmul,
}


def compute(case: Case, flaws: Flaws = RIGHT) -> Outputs | None:
    """Any of these operators, integers exactly and quotients in float32."""
    return WAYS[case.op_type](case, flaws)


def faulty(case: Case, **flaws: Any) -> Outputs | None:
    """One of these operators with one flaw."""
    return compute(case, Flaws(**flaws))


def _float_accumulator(case: Case) -> Outputs | None:
    """Integer products in float32 where they fit into its 24 bits."""
    if case.op_type != "MatMulInteger" or case.size > MOST_EXACT:
        return None
    a, b, za, zb = (np.asarray(t) for t in case.inputs)
    y = (a.astype(F) - za.astype(F)) @ (b.astype(F) - zb.astype(F))
    return (y.astype(np.int32),)


MOST_EXACT = 256
"""Products of two 8-bit numbers of which the sum stays below 2^24."""

Q, D, DQ, MI, QM = "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul"

FAULTS: tuple[tuple[Any, ...], ...] = (
    ("half away from zero", (Q, QM), {"rounding": "away"}),
    ("rounded down", (Q, DQ, QM), {"rounding": "floor"}),
    ("truncated", (Q, DQ, QM), {"rounding": "truncated"}),
    ("saturation missing", (Q, QM), {"wraps": True}),
    ("lowest value not used", Q, {"narrow_range": True}),
    ("limits of the other signedness", (Q, QM), {"other_signedness": True}),
    ("read with the other signedness", D, {"other_signedness": True}),
    ("zero point ignored", (Q, D, QM), {"zero_point": "ignored"}),
    ("zero point with the other sign", (Q, D, QM), {"zero_point": "subtracted"}),
    ("difference in eight bits", D, {"wraps": True}),
    ("scale in float16", (D,), {"inverse": True}),
    ("reciprocal of the scale in float16", (Q, QM), {"inverse": True}),
    ("scales along the other axis", (Q, D), {"axis": True}),
    ("first scale for all channels", (Q, D), {"first_scale": True}),
    ("range without zero", DQ, {"without_zero": True}),
    ("256 steps", DQ, {"steps": 256}),
    ("254 steps", DQ, {"steps": 254}),
    ("last product dropped", (MI, QM), {"dropped": True}),
    ("accumulated in int16", (MI, QM), {"accumulator": "int16"}),
    ("pairs of products saturate in int16", (MI, QM), {"accumulator": "saturating int16"}),
    ("accumulated in float16", (MI, QM), {"accumulator": "float16"}),
    ("left zero point ignored", (MI, QM), {"zero_of": 0}),
    ("right zero point ignored", (MI, QM), {"zero_of": 1}),
    ("right operand transposed", (MI, QM), {"transposed": True}),
    ("left scale ignored", QM, {"scale_of": 0}),
    ("right scale ignored", QM, {"scale_of": 1}),
)


def cases(quick: bool) -> Iterator[Case]:
    """Values of every kind, per tensor and per channel, in int8 and uint8."""
    for kind, seed in itertools.product(KINDS, range(1 if quick else 2)):
        for dtype in (np.uint8, np.int8):
            yield from _linear(kind, seed, np.dtype(dtype))
        for shape in ((7, 9), (1, 1000)):
            yield Case(DQ, (tensor(kind, shape, seed),), {}, kind, 1)
        for length in (1, 16, 64, 256) if quick else (1, 2, 9, 16, 64, 256, 1024, 4608):
            yield from _products(kind, seed, length)


def _linear(kind: str, seed: int, dtype: np.dtype[Any]) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    x = tensor(kind, (16, 16), seed)
    middle = np.iinfo(dtype).min + 128
    one = F(np.abs(x).max() / 100)
    x[0, :6] = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1000], F) * one
    channels = (rng.uniform(0.5, 1.5, 16) * one).astype(F)
    for scale in (np.asarray(one), channels):
        zero = rng.integers(middle - 20, middle + 20, scale.shape).astype(dtype)
        axis = {"axis": 0} if scale.ndim else {}
        yield Case(Q, (x, scale, zero), axis, kind, 1)
        limits = np.iinfo(dtype)
        q = np.clip(np.rint(x / one), limits.min, limits.max).astype(dtype)
        yield Case(D, (q, scale, zero), axis, kind, 1)


def _eight_bits(x: Array, dtype: Any) -> tuple[Array, Array, Array]:
    limits = np.iinfo(dtype)
    scale = F(max(np.abs(x).max(), 1e-6) / 120)
    zero = np.asarray((limits.min + limits.max + 1) // 2 + 3, dtype)
    return np.clip(np.rint(x / scale) + float(zero), limits.min, limits.max).astype(dtype), np.asarray(scale), zero


def _products(kind: str, seed: int, length: int) -> Iterator[Case]:
    a, sa, za = _eight_bits(tensor(kind, (16, length), seed), np.uint8)
    b, sb, zb = _eight_bits(tensor(kind, (16, length), seed, 1, right=True).T, np.int8)
    yield Case(MI, (a, b, za, zb), {}, kind, length)
    steep = np.where(b > zb, np.int8(127), np.int8(-127))
    yield Case(MI, (np.maximum(a, np.uint8(200)), steep, np.uint8(0) * za, np.int8(0) * zb), {}, kind, length)
    total = (a.astype(np.int64) - za.astype(np.int64)) @ (b.astype(np.int64) - zb.astype(np.int64))
    sy = np.asarray(F(max(np.abs(total).max(), 1) * float(sa) * float(sb) / 140), F)  # the largest saturate
    yield Case(QM, (a, sa, za, b, sb, zb, sy, np.asarray(127, np.uint8)), {}, kind, length)


FAMILY = Family(
    "quantisation",
    cases,
    compute,
    (Variant("products in float32", _float_accumulator),),
    (*faults(faulty, *FAULTS), *tampered(compute)),
)
