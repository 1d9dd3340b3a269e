"""Kernels against mpmath at fifty digits, on points where implementations go wrong.

The bound is the operator's own, at the precision of float64: what a float64 runtime is held to, less the doubling by
which the verdict allows for the reference's own errors. A kernel that keeps it may judge narrower types, and float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.rounding import growth, half_unit
from onnx_arch.operators.scale import Array, Rule, Scale
from onnx_arch.operators.storage import float_format

DIGITS = 50
OPSET = 28
FORMAT = float_format(np.dtype(np.float64))
mp = mpmath.mpf

TINY = (0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-310, 2.2250738585072014e-308, 1e-200, -1e-30, 2.0**-53, -(2.0**-27))
NEAR_ONE = (1.0, -1.0, 1 - 2.0**-53, 1 + 2.0**-52, -1 + 2.0**-53, 0.5, -0.5, 0.5 + 2.0**-53, 2.0, -2.0, 3.0, 0.7)
LARGE = (5.9, -9.5, 20.0, -36.7, 88.7, -88.8, 103.9, 709.7, -708.5, -745.1, 1e4, -1e4, 1e15, 1e22, -1e300, 1.7e308)
ANGLES = (math.pi / 2, math.pi, 1.5 * math.pi, 22.0, 355.0, 710.0, 1e5 * math.pi, 2.0**60)
POINTS = (*TINY, *NEAR_ONE, *LARGE, *ANGLES)
SPECIAL = (math.inf, -math.inf, math.nan)
"""Compared with IEEE's answers in the tests of each operator; here they must not disturb the others."""


FAR = 1e4
"""Beyond it the error function is 1 to more than fifty digits."""


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def _softplus(x: Any) -> Any:
    return mpmath.log1p(mpmath.exp(x))


def _gelu_tanh(x: Any) -> Any:
    return x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mp("0.044715") * x**3)))


def _gelu(x: Any) -> Any:
    if abs(x) > FAR:
        return max(x, mp(0))
    return x / 2 * mpmath.erfc(-x / mpmath.sqrt(2))


def _clip(x: Any) -> Any:
    return max(mp(0), min(mp(1), x))


ELEMENTWISE: Mapping[str, tuple[Callable[[Any], Any], Mapping[str, Any]]] = {
    "Exp": (mpmath.exp, {}),
    "Log": (mpmath.log, {}),
    "Sqrt": (mpmath.sqrt, {}),
    "Reciprocal": (lambda x: 1 / x, {}),
    "Sin": (mpmath.sin, {}),
    "Cos": (mpmath.cos, {}),
    "Tan": (mpmath.tan, {}),
    "Asin": (mpmath.asin, {}),
    "Acos": (mpmath.acos, {}),
    "Atan": (mpmath.atan, {}),
    "Sinh": (mpmath.sinh, {}),
    "Cosh": (mpmath.cosh, {}),
    "Tanh": (mpmath.tanh, {}),
    "Asinh": (mpmath.asinh, {}),
    "Acosh": (mpmath.acosh, {}),
    "Atanh": (mpmath.atanh, {}),
    "Erf": (mpmath.erf, {}),
    "Sigmoid": (_sigmoid, {}),
    "Softplus": (_softplus, {}),
    "Softsign": (lambda x: x / (1 + abs(x)), {}),
    "Mish": (lambda x: x * mpmath.tanh(_softplus(x)), {}),
    "Swish": (lambda x: x * _sigmoid(x * mp(1.5)), {"alpha": 1.5}),
    "Elu": (lambda x: x if x >= 0 else 2 * mpmath.expm1(x), {"alpha": 2.0}),
    "Celu": (lambda x: x if x >= 0 else 2 * mpmath.expm1(x / 2), {"alpha": 2.0}),
    "Selu": (lambda x: 3 * x if x > 0 else 6 * mpmath.expm1(x), {"alpha": 2.0, "gamma": 3.0}),
    "Gelu": (_gelu, {}),
    "Gelu tanh": (_gelu_tanh, {"approximate": "tanh"}),
    "HardSigmoid": (lambda x: _clip(mp(0.25) * x + mp(0.5)), {"alpha": 0.25, "beta": 0.5}),
    "HardSwish": (lambda x: x * _clip(x / 6 + mp(0.5)), {}),
    "LeakyRelu": (lambda x: x if x >= 0 else x * mp(0.25), {"alpha": 0.25}),
    "ThresholdedRelu": (lambda x: x if x > mp(0.5) else mp(0), {"alpha": 0.5}),
}

PAIRS = tuple((x, y) for x in (*TINY[2:6], *NEAR_ONE, *LARGE) for y in (0.5, -0.5, 2.0, -3.0, 1 / 3, 1e-3, 7.5, 300.25))
BINARY: Mapping[str, tuple[Callable[[Any, Any], Any], Mapping[str, Any]]] = {
    "Add": (lambda x, y: x + y, {}),
    "Sub": (lambda x, y: x - y, {}),
    "Mul": (lambda x, y: x * y, {}),
    "Div": (lambda x, y: x / y, {}),
    "Pow": (mpmath.power, {}),
    "Mod": (lambda x, y: mpmath.sign(x) * (abs(x) % abs(y)), {"fmod": 1}),
    "PRelu": (lambda x, y: x if x >= 0 else x * y, {}),
}

ROWS: Mapping[str, Sequence[float]] = {
    "plain": (0.5, -1.25, 3.0, 0.125, -2.0, 1.0),
    "cancelling": (1e16, 1.0, -1e16, 3.0, 2.0**-30, -3.0),
    "one sign": (1e8, 1e-8, 3.0, 7e7, 1.0, 0.1),
    "far from zero": (1e6 + 1, 1e6 + 2, 1e6 + 4, 1e6, 1e6 + 3, 1e6 + 5),
    "equal": (3.3, 3.3, 3.3, 3.3, 3.3, 3.3),
    "ties": (7.0, 7.0, -7.0, 7.0, -7.0, 0.0),
    "wide": (-3e38, 1e38, 1e-38, 2.0**-149, 88.0, -88.0),
    "large scores": (1e4, 9.99e3, -1e4, 1e4, 0.0, 709.0),
    "subnormals": (1e-310, 5e-324, -1e-310, 2e-308, 0.0, -0.0),
}


def _softmax(x: Sequence[Any]) -> list[Any]:
    peak = max(x)
    powers = [mpmath.exp(v - peak) for v in x]
    return [p / sum(powers) for p in powers]


def _log_sum_exp(x: Sequence[Any]) -> Any:
    peak = max(x)
    return peak + mpmath.log(mpmath.fsum(mpmath.exp(v - peak) for v in x))


def _standardized(x: Sequence[Any], epsilon: Any) -> list[Any]:
    mean = mpmath.fsum(x) / len(x)
    variance = mpmath.fsum((v - mean) ** 2 for v in x) / len(x)
    return [(v - mean) / mpmath.sqrt(variance + epsilon) for v in x]


def _over_root_mean_square(x: Sequence[Any], epsilon: Any) -> list[Any]:
    root = mpmath.sqrt(mpmath.fsum(v * v for v in x) / len(x) + epsilon)
    return [v / root for v in x]


def _running(x: Sequence[Any]) -> list[Any]:
    return [mpmath.fsum(x[: i + 1]) for i in range(len(x))]


EPSILON = float(np.float32(1e-5))
ONES = np.ones(6)
LAST = np.array([-1])


def _one(value: Any) -> list[Any]:
    return [value]


REDUCTIONS: Mapping[str, tuple[Callable[[Sequence[Any]], list[Any]], tuple[Any, ...], Mapping[str, Any]]] = {
    "ReduceSum": (lambda x: _one(mpmath.fsum(x)), (LAST,), {}),
    "ReduceMean": (lambda x: _one(mpmath.fsum(x) / len(x)), (LAST,), {}),
    "ReduceL1": (lambda x: _one(mpmath.fsum(abs(v) for v in x)), (LAST,), {}),
    "ReduceL2": (lambda x: _one(mpmath.sqrt(mpmath.fsum(v * v for v in x))), (LAST,), {}),
    "ReduceSumSquare": (lambda x: _one(mpmath.fsum(v * v for v in x)), (LAST,), {}),
    "ReduceProd": (lambda x: _one(mpmath.fprod(x)), (LAST,), {}),
    "ReduceLogSumExp": (lambda x: _one(_log_sum_exp(x)), (LAST,), {}),
    "CumSum": (_running, (np.array(-1),), {}),
    "Softmax": (_softmax, (), {}),
    "LogSoftmax": (lambda x: [v - _log_sum_exp(x) for v in x], (), {}),
    "LayerNormalization": (lambda x: _standardized(x, mp(EPSILON)), (ONES,), {}),
    "RMSNormalization": (lambda x: _over_root_mean_square(x, mp(EPSILON)), (ONES,), {}),
    "LpNormalization": (lambda x: [v / mpmath.sqrt(mpmath.fsum(w * w for w in x)) for v in x], (), {}),
}


@dataclass(frozen=True)
class Digits:
    """One operator on its points.

    Attributes:
        name: the operator, with a variant.
        points: how many elements were compared.
        worst: the largest error as a share of the bound.
        where: the inputs there.
    """

    name: str
    points: int
    worst: float
    where: str


def allowed(scale: Scale, shape: tuple[int, ...]) -> Array:
    """The certain bound of every element at the precision of float64."""
    terms = np.asarray(scale.terms, np.float64)
    factor = terms if scale.rule in (Rule.ULP, Rule.EXACT) else 2.0 * np.vectorize(lambda t: growth(t, FORMAT))(terms)
    with np.errstate(all="ignore"):
        bound = factor * scale.magnitude * half_unit(FORMAT) + FORMAT.smallest_normal * 2.0**-52
    return np.broadcast_to(np.where(np.isnan(bound), np.inf, bound), shape)


def _compare(name: str, op_type: str, inputs: Sequence[Array], attributes: Any, exact: Sequence[Any]) -> Digits:
    call = prepare(op_type, inputs, attributes, opset=OPSET)
    outputs, scales = call.judged()
    y, scale = outputs[0], (scales or ())[0]
    bounds, flat = allowed(scale, y.shape).reshape(-1), y.reshape(-1)
    worst, where = 0.0, ""
    for index, value in enumerate(exact):
        share = _share(float(flat[index]), value, float(bounds[index]))
        if share > worst:
            worst, where = share, f"[{index}] {flat[index]!r}, exactly {mpmath.nstr(value, 20)}"
    return Digits(name, len(exact), worst, where)


def _share(value: float, exact: Any, bound: float) -> float:
    """|value − exact| over the bound; overflow and what the specification leaves open count as kept."""
    if math.isinf(bound):
        return 0.0
    if isinstance(exact, mpmath.mpc) or mpmath.isnan(exact):
        return 0.0 if math.isnan(value) else math.inf
    if math.isinf(value):
        return 0.0 if abs(exact) > FORMAT.largest else math.inf
    return math.inf if math.isnan(value) else float(abs(mp(value) - exact) / mp(bound))


def _at(function: Callable[..., Any], *points: float) -> Any:
    try:
        return function(*(mp(p) for p in points))
    except (ZeroDivisionError, ValueError):
        return mpmath.nan if points[0] < 0 else mpmath.inf


def elementwise() -> Iterator[Digits]:
    """Every function of one and of two numbers."""
    x = np.array([*POINTS, *SPECIAL])
    for name, (function, attributes) in ELEMENTWISE.items():
        with mpmath.workdps(DIGITS):
            exact = [_at(function, point) for point in POINTS]
            yield _compare(
                name, name.split()[0], (x,), attributes, [_pole(name, p, e) for p, e in zip(POINTS, exact, strict=True)]
            )
    a, b = (np.array(side) for side in zip(*PAIRS, strict=True))
    for name, (function, attributes) in BINARY.items():
        with mpmath.workdps(DIGITS + 320 if name == "Mod" else DIGITS):
            yield _compare(name, name, (a, b), attributes, [_at(function, *pair) for pair in PAIRS])


def _pole(name: str, point: float, exact: Any) -> Any:
    """The limit at a zero of either sign, where mathematics has none."""
    if name == "Reciprocal" and point == 0:
        return mpmath.inf * math.copysign(1, point)
    if name == "Log" and point == 0:
        return -mpmath.inf
    return exact


def rows() -> Iterator[Digits]:
    """Every reduction, normalisation and softmax on every kind of row."""
    for name, (function, inputs, attributes) in REDUCTIONS.items():
        found = []
        for kind, row in ROWS.items():
            with mpmath.workdps(DIGITS + 700):
                exact = function([mp(v) for v in row])
                one = _compare(name, name, (np.array([row]), *inputs), attributes, exact)
            found.append(Digits(f"{name}, {kind}", one.points, one.worst, one.where))
        worst = max(found, key=lambda d: d.worst)
        yield Digits(name, sum(d.points for d in found), worst.worst, f"{worst.name}: {worst.where}")


def attention() -> Iterator[Digits]:
    """One head on every pair of rows: scores that overflow an exponential, tie, cancel."""
    for causal in (0, 1):
        found = [_attention(kind, row, causal) for kind, row in ROWS.items() if kind not in ("wide", "subnormals")]
        worst = max(found, key=lambda d: d.worst)
        yield Digits(
            f"Attention, is_causal={causal}", sum(d.points for d in found), worst.worst, f"{worst.name}: {worst.where}"
        )


def _attention(kind: str, row: Sequence[float], causal: int) -> Digits:
    q, k = np.array(row).reshape(1, 1, 3, 2), np.array(row[::-1]).reshape(1, 1, 3, 2)
    v = np.array(ROWS["plain"]).reshape(1, 1, 3, 2)
    with mpmath.workdps(DIGITS):
        exact = []
        for i in range(3):
            keys = range(i + 1 if causal else 3)
            scores = [sum(mp(q[0, 0, i, d]) * mp(k[0, 0, j, d]) for d in range(2)) * mp(0.5) for j in keys]
            weights = _softmax(scores)
            exact += [mpmath.fsum(w * mp(v[0, 0, j, d]) for w, j in zip(weights, keys, strict=True)) for d in range(2)]
        return _compare(f"Attention, {kind}", "Attention", (q, k, v), {"is_causal": causal, "scale": 0.5}, exact)


def all_digits() -> list[Digits]:
    """The whole table."""
    return [*elementwise(), *rows(), *attention()]
