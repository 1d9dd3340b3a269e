"""Name the cause of a deviation: try hypotheses in the reference and keep the one that makes the residual collapse."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import OnnxArchError
from ..operators.evaluation import Call
from ..operators.quantized import lost_by_saturation
from ..operators.rounding import half_unit
from ..operators.scale import Array
from ..operators.storage import encode, float_format, is_float

COLLAPSE = 0.25
"""A hypothesis explains a deviation when it leaves at most a quarter of its root mean square."""

EVIDENT = 0.01
"""One that leaves a hundredth is taken without looking for a better one."""

BINARY = 2
WITH_BIAS = 3

CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "Attention"})


@dataclass(frozen=True)
class Hypothesis:
    """A way in which an operator may have been computed: its name, and the call or value that it would give."""

    name: str
    outputs: Callable[[], tuple[Any, ...]]


def round_to_bits(x: Array, fraction_bits: int) -> Array:
    """Float values rounded to nearest even with `fraction_bits` fraction bits and float32's exponents (TF32: 10)."""
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    drop = 23 - fraction_bits
    bits = bits + ((1 << (drop - 1)) - 1) + ((bits >> np.uint64(drop)) & np.uint64(1))
    kept = (bits >> np.uint64(drop) << np.uint64(drop)).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(x), kept, x).astype(np.float64)


Narrow = Callable[[Array], Array]

_NARROW: Mapping[str, Narrow] = {
    "TF32": lambda x: round_to_bits(x, 10),
    "BF16": lambda x: encode(x, np.dtype(ml_dtypes.bfloat16)).astype(np.float64),
    "FP16": lambda x: encode(x, np.dtype(np.float16)).astype(np.float64),
}

EPSILONS = (0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-3)

_ATTRIBUTES: Mapping[str, tuple[tuple[str, Mapping[str, Any]], ...]] = {
    "Gelu": (("tanh approximation", {"approximate": "tanh"}), ("no tanh approximation", {"approximate": "none"})),
    "AveragePool": (
        ("padding counted in the average", {"count_include_pad": 1}),
        ("padding not counted in the average", {"count_include_pad": 0}),
        ("ceil_mode ignored", {"ceil_mode": 0}),
    ),
    "MaxPool": (("ceil_mode ignored", {"ceil_mode": 0}), ("dilations ignored", {"dilations": None})),
    "Conv": (("dilations ignored", {"dilations": None}),),
    "Attention": (
        ("causal mask ignored", {"is_causal": 0}),
        ("causal mask added", {"is_causal": 1}),
        ("softcap ignored", {"softcap": 0.0}),
        ("scale 1 / sqrt(d) in place of the given one", {"scale": None}),
    ),
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization"),
        tuple((f"epsilon {value:g} in place of the given one", {"epsilon": value}) for value in EPSILONS),
    ),
    "Gemm": (("alpha ignored", {"alpha": 1.0}), ("beta ignored", {"beta": 1.0})),
}


VARIED = 0.2
"""What a hypothesis adds must vary over the tensor by a fifth of its size where it is to condemn a value that lies
within the bounds: a single number, repeated, can be met by chance."""


ROUNDED = 3.0
"""Half-units in the last place of the values themselves up to which a deviation that is within the bounds is never laid
to a hypothesis: a correct result is off by about 0.6 in rms, and by chance one of many hypotheses is nearer."""


def explain(call: Call, actual: Any, reference: Any, *, varied: bool = False) -> str:
    """The hypothesis that explains the first output of a call best, or "".

    Args:
        call: the node's call on the runtime's own inputs.
        actual: the runtime's output, stored.
        reference: the oracle's, float64 where floating-point.
        varied: ask for a hypothesis whose effect varies over the tensor (see `VARIED`).
    """
    if not isinstance(actual, np.ndarray) or actual.shape != np.shape(reference) or actual.size == 0:
        return ""
    if not (is_float(actual.dtype) or actual.dtype.kind in "iu"):
        return ""
    return _best(_hypotheses(call), actual, reference, varied=varied)


def narrow_inputs(call: Call, actual: Array, reference: Array) -> str:
    """As `explain`, with reduced input precision as the only hypotheses: for values that lie within the bounds.

    Where the summands are listed, a sample of the outputs is enough, and two questions are asked of it: does a
    hypothesis leave at most a quarter of the deviation, and, where other roundings hide it, is its effect there all the
    same, in full and beyond chance (see `_contains`)?
    """
    if call.entry.products is None:
        return _best(_narrowed(call), actual, reference, varied=True)
    sample = _sampled(call, actual, reference) if call.stored[0] == np.float32 else None
    return "" if sample is None else _best_of_sample(call, sample)


@dataclass(frozen=True)
class Sample:
    """Some outputs of a contraction, each divided by the sum of its summands' absolute values.

    Attributes:
        at: flat indices, (n,).
        size: those sums.
        exact: the sums of the products.
        deviation: the runtime's deviation from them.
        rounding: rms of what storing the result does to it.
    """

    at: Array
    size: Array
    exact: Array
    deviation: Array
    rounding: float


MOST_SAMPLED, LEAST_SAMPLED = 4096, 256
MOST_SUMMANDS = 1 << 20
"""A sample has so many outputs; as few as the smaller number where they have many summands."""


def _sampled(call: Call, actual: Array, reference: Array) -> Sample | None:
    if actual.shape != np.shape(reference) or actual.size == 0:
        return None
    longest = _summands(call, np.zeros(1, np.int64), call.inputs).shape[1]
    most = int(min(max(MOST_SUMMANDS // max(longest, 1), LEAST_SAMPLED), MOST_SAMPLED))
    at = np.unique(np.linspace(0, actual.size - 1, min(actual.size, most)).astype(np.int64))
    observed, terms = actual.reshape(-1)[at].astype(np.float64), _summands(call, at, call.inputs)
    size = np.abs(terms).sum(axis=1)
    usable = np.isfinite(observed) & np.isfinite(size) & (size > 0)
    if not usable.any():
        return None
    at, size, observed, exact = at[usable], size[usable], observed[usable], terms.sum(axis=1)[usable]
    rounding = half_unit(float_format(actual.dtype)) * _rms(observed / size, 0.0)
    return Sample(at, size, exact, (observed - exact) / size, rounding)


def _summands(call: Call, at: Array, inputs: tuple[Any, ...]) -> Array:
    listed = call.entry.products
    if listed is None:
        raise NotImplementedError(f"{call.entry.op_type}: summands are not listed")
    with np.errstate(all="ignore"):
        return listed(at, *inputs, **call.keywords_of(listed))


def _best_of_sample(call: Call, sample: Sample) -> str:
    deviation = _rms(sample.deviation, 0.0)
    if deviation <= ROUNDED * sample.rounding:
        return ""
    least, name = math.inf, ""
    for label, inputs in _narrow_calls(call):
        with np.errstate(all="ignore"):
            effect = (_summands(call, sample.at, inputs).sum(axis=1) - sample.exact) / sample.size
        if not np.isfinite(effect).all() or not np.std(effect) > VARIED * _rms(effect, 0.0):
            continue
        left = _rms(sample.deviation, effect)
        if left < least and (left <= COLLAPSE * deviation or _contains(sample.deviation, effect)):
            least, name = left, label
        if name and least <= EVIDENT * deviation:
            break
    return name


LEAST_MATCHED = 32
MATCHED = 10.0
"""Standard errors by which an effect must be more than nothing; by chance that has probability 10^−10 at 32 outputs."""

MATCHED_SHARE = 0.25
"""By how much of itself an effect may be too large or too small to be the one that is looked for."""


def _contains(deviation: Array, effect: Array) -> bool:
    """Whether a deviation has an effect in it, once, beside whatever else it is made of.

    Least squares: deviation = β · effect + rest. Roundings of sums know nothing of how their inputs would have been
    rounded to fewer bits, so that β is 0 within its standard error in a correct result, and 1 in one with the effect.
    Either half of the outputs must show it too, or a single element that is large in both would be taken for it.
    """
    if deviation.size < LEAST_MATCHED:
        return False
    beta, error = _fit(deviation, effect)
    halves = (_fit(deviation[i::2], effect[i::2]) for i in range(2))
    return (
        abs(beta - 1) <= MATCHED_SHARE
        and beta >= MATCHED * error
        and all(share >= MATCHED / 2 * spread for share, spread in halves)
    )


def _fit(deviation: Array, effect: Array) -> tuple[float, float]:
    """(β, its standard error)."""
    d, e = deviation - deviation.mean(), effect - effect.mean()
    power = float(e @ e)
    if power <= 0:
        return 0.0, math.inf
    beta = float(d @ e) / power
    return beta, math.sqrt(float(np.sum((d - beta * e) ** 2)) / (d.size - 2) / power)


def _best(hypotheses: Iterator[Hypothesis], actual: Array, reference: Any, *, varied: bool) -> str:
    observed = actual.astype(np.float64)
    deviation = _rms(observed, reference)
    if (
        varied
        and is_float(actual.dtype)
        and deviation <= ROUNDED * half_unit(float_format(actual.dtype)) * _rms(observed, 0.0)
    ):
        return ""  # storing the result explains as much: on a few elements some hypothesis rounds the same way
    least, name = COLLAPSE * deviation, ""
    for hypothesis in hypotheses:
        left = _residual(hypothesis, observed, actual.dtype, reference, varied=varied)
        if left <= least and (left < least or not name):
            least, name = left, hypothesis.name
        if name and least <= EVIDENT * deviation:
            break
    return name


def _rms(a: Array, b: Any) -> float:
    with np.errstate(all="ignore"):
        gap = np.nan_to_num(a - np.asarray(b, np.float64), nan=0.0, posinf=1e300, neginf=-1e300)
        return float(np.sqrt(np.mean(np.square(gap)))) if gap.size else 0.0


def _residual(hypothesis: Hypothesis, observed: Array, dtype: np.dtype[Any], reference: Any, *, varied: bool) -> float:
    """Root mean square of what a hypothesis leaves of the deviation; infinite where it says nothing."""
    try:
        supposed = np.asarray(hypothesis.outputs()[0])
    except (OnnxArchError, ValueError, IndexError, TypeError):
        return math.inf  # the hypothesis does not go with these inputs
    if supposed.shape != observed.shape:
        return math.inf
    stored = encode(supposed, dtype).astype(np.float64) if supposed.dtype.kind == "f" else supposed.astype(np.float64)
    if not np.array_equal(np.isnan(stored), np.isnan(observed)):
        return math.inf
    with np.errstate(all="ignore"):
        effect = np.nan_to_num(stored - np.asarray(reference, np.float64), posinf=0.0, neginf=0.0)
    if varied and not np.std(effect) > VARIED * np.sqrt(np.mean(effect**2)):
        return math.inf
    if np.array_equal(stored, np.asarray(reference, np.float64), equal_nan=True):
        return math.inf
    return _rms(observed, stored)


def _call(call: Call, inputs: tuple[Any, ...] | None = None, **changes: Any) -> Callable[[], tuple[Any, ...]]:
    changed = dataclasses.replace(
        call, inputs=call.inputs if inputs is None else inputs, keywords={**call.keywords, **changes}
    )
    return changed.outputs


def _hypotheses(call: Call) -> Iterator[Hypothesis]:
    op_type, x = call.entry.op_type, call.inputs
    yield from _narrowed(call)
    yield from _wiring(call)
    for name, changes in _ATTRIBUTES.get(op_type, ()):
        if any(call.keywords.get(key) != value for key, value in changes.items()):
            yield Hypothesis(name, _call(call, **changes))
    if op_type in ("Softmax", "LogSoftmax", "Hardmax"):
        rank = np.ndim(x[0])
        axis = int(call.keywords.get("axis", -1)) % max(rank, 1)
        for other in (a for a in range(rank) if a != axis):
            yield Hypothesis(f"axis {other} in place of axis {axis}", _call(call, axis=other))
    if op_type in ("MaxPool", "AveragePool", "Conv"):
        yield from _shifted_windows(call)
    if op_type == "MatMulInteger" and call.stored[:2] == (np.uint8, np.int8) and min(map(np.ndim, x[:2])) >= BINARY:
        yield Hypothesis(SATURATED, lambda: (call.outputs()[0] + lost_by_saturation(x[0], x[1]),))
    yield from _rounded_results(call)
    yield from _copies(call)


SATURATED = "sums of two products saturated at 16 bits (x86 without VNNI; weights of seven bits fit)"


def _rounded_results(call: Call) -> Iterator[Hypothesis]:
    """The right result, stored in a narrower type on the way."""
    if call.stored and call.stored[0] == np.float32:
        y = call.outputs()[0]
        for name, narrow in _formats((y,)) if y.dtype.kind == "f" else ():
            yield Hypothesis(f"result rounded to {name}", lambda narrow=narrow: (narrow(y),))


def _narrowed(call: Call) -> Iterator[Hypothesis]:
    for name, inputs in _narrow_calls(call):
        yield Hypothesis(name, _call(call, inputs))


def _narrow_calls(call: Call) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(name, inputs) of a float32 contraction whose inputs are rounded to a narrower type."""
    if call.entry.op_type not in CONTRACTIONS or call.stored[0] != np.float32:
        return
    for count in (2, len(call.inputs)):  # the factors alone, or the bias (or mask) as well
        chosen = [i for i, x in enumerate(call.inputs[:count]) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
        for name, narrow in _formats([call.inputs[i] for i in chosen]):
            inputs = tuple(narrow(x) if i in chosen else x for i, x in enumerate(call.inputs))
            yield f"{name} inputs{TF32_ADVICE if 'TF32' in name else ''}", inputs


TF32_ADVICE = " (set use_tf32=0)"


def _formats(tensors: Iterable[Array]) -> Iterator[tuple[str, Narrow]]:
    """Narrower types to round these tensors to; TF32 and FP16 have as many fraction bits and differ in range alone."""
    tf32, half = _NARROW["TF32"], _NARROW["FP16"]
    alike = all(_rms(tf32(x), half(x)) <= ALIKE * _rms(tf32(x), x) for x in tensors)
    yield ("TF32 or FP16" if alike else "TF32"), tf32
    yield "BF16", _NARROW["BF16"]
    if not alike:
        yield "FP16", half


ALIKE = 2.0**-6
"""Two roundings that differ by less than this share of what they change are not told apart."""


def _wiring(call: Call) -> Iterator[Hypothesis]:
    x = list(call.inputs)
    if call.entry.op_type in ("Conv", "ConvTranspose", "Gemm") and len(x) == WITH_BIAS and x[2] is not None:
        yield Hypothesis("bias added twice", _call(call, (x[0], x[1], 2.0 * x[2])))
        yield Hypothesis("bias left out", _call(call, (x[0], x[1], None)))
    if call.entry.op_type == "MatMul" and len(x) == BINARY and np.ndim(x[1]) >= 2 and np.shape(x[1])[-2] > 1:
        yield Hypothesis("last product dropped", _call(call, (x[0][..., :-1], x[1][..., :-1, :])))
    if call.entry.op_type in ("Sub", "Div", "Pow", "MatMul") and len(x) == BINARY:
        yield Hypothesis("operands swapped", _call(call, (x[1], x[0])))


def _shifted_windows(call: Call) -> Iterator[Hypothesis]:
    rank = np.ndim(call.inputs[0]) - 2
    pads = list(call.keywords.get("pads") or [0] * 2 * rank)
    for axis in range(rank):
        for step in (1, -1):
            moved = list(pads)
            moved[axis] += step
            moved[rank + axis] -= step
            yield Hypothesis(f"window shifted by {-step} along axis {axis + 2}", _shift(call, moved))


def _shift(call: Call, pads: list[int]) -> Callable[[], tuple[Any, ...]]:
    """Pooling kernels take no negative pads: the input is shifted instead, filled as padding would be."""
    rank = len(pads) // 2
    given = list(call.keywords.get("pads") or [0] * 2 * rank)
    x = call.inputs[0]
    fill = -np.inf if call.entry.op_type == "MaxPool" and x.dtype.kind == "f" else 0
    moved = x
    for axis in range(rank):
        step = pads[axis] - given[axis]
        if step:
            moved = np.roll(moved, step, axis=axis + 2)
            edge = [slice(None)] * x.ndim
            edge[axis + 2] = slice(0, step) if step > 0 else slice(step, None)
            moved[tuple(edge)] = fill
    return _call(call, (moved, *call.inputs[1:]))


def _copies(call: Call) -> Iterator[Hypothesis]:
    x = call.inputs[0] if call.inputs else None
    if isinstance(x, np.ndarray):
        yield Hypothesis("returns its input", lambda: (x,))
        if x.dtype.kind == "f" and np.isnan(x).any():
            yield Hypothesis("NaN turned to zero", _call(call, (np.nan_to_num(x, nan=0.0), *call.inputs[1:])))
            yield Hypothesis("NaN turned to zero", lambda: tuple(np.nan_to_num(y, nan=0.0) for y in call.outputs()))
