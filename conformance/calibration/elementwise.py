"""Arithmetic and elementary functions: float64 rounded once, NumPy's float32 and wrong formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from ...operators.scale import Array
from ...operators.storage import encode
from .case import Case, Family, Fault, Outputs, Variant
from .data import KINDS, tensor
from .narrow import NARROW
from .tampering import tampered

F = np.float32
Function = Callable[..., Any]
Formula = tuple[str, Any, Function | None]


def _erf(x: Array) -> Array:
    import scipy.special  # noqa: PLC0415 (heavy, and used here alone)

    return scipy.special.erf(x)


def _sigmoid(x: Array) -> Array:
    with np.errstate(all="ignore"):
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _gelu(x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875  # the defaults of the specification

WAYS: Mapping[str, Function] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Mod": lambda x, y, fmod=0: np.fmod(x, y) if fmod else np.mod(x, y),
    "Pow": lambda x, y: np.power(np.abs(x), y),
    "Neg": np.negative,
    "Abs": np.abs,
    "Relu": lambda x: np.maximum(x, 0),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x >= 0, x, x * alpha),
    "PRelu": lambda x, slope: np.where(x >= 0, x, x * slope),
    "Elu": _elu,
    "Celu": lambda x, alpha=1.0: np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "Selu": lambda x: SELU_GAMMA * _elu(x, SELU_ALPHA),
    "Exp": np.exp,
    "Log": lambda x: np.log(np.abs(x)),
    "Sqrt": lambda x: np.sqrt(np.abs(x)),
    "Reciprocal": np.reciprocal,
    "Tanh": np.tanh,
    "Sigmoid": _sigmoid,
    "Erf": _erf,
    "Gelu": _gelu,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "Sin": np.sin,
    "Cos": np.cos,
    "Tan": np.tan,
    "Atan": np.arctan,
    "Sinh": np.sinh,
    "Asinh": np.arcsinh,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Sign": np.sign,
    "Clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "Min": np.minimum,
    "Max": np.maximum,
    "Greater": np.greater,
    "LessOrEqual": np.less_equal,
    "Where": np.where,
}

POSITIVE = ("Pow", "Log", "Sqrt")
"""Functions whose first argument is taken as an absolute value by the case already."""


def _stored(y: Any, like: Array) -> Array:
    y = np.asarray(y)
    return y if y.dtype in (bool, like.dtype) or like.dtype.kind in "iu" else encode(y.astype(np.float64), like.dtype)


def rounded_once(case: Case, function: Function | None = None, **attributes: Any) -> Outputs:
    """The function in float64, rounded to the stored type."""
    function = WAYS[case.op_type] if function is None else function
    xs = [np.asarray(x) for x in case.inputs]
    wide = [x.astype(np.float64) if x.dtype.kind not in "biu" else x for x in xs]
    like = xs[1] if case.op_type == "Where" else xs[0]
    return (_stored(function(*wide, **{**case.attributes, **attributes}), like),)


def in_float32(case: Case) -> Outputs | None:
    """The same in NumPy's float32."""
    if any(x is not None and x.dtype not in (np.float32, bool) for x in case.inputs):
        return None
    y = WAYS[case.op_type](*case.inputs, **case.attributes)
    return (_stored(y, np.asarray(case.inputs[-1])),)


# (name, op_types, the wrong function of the float64 inputs)


def _away(x: Array) -> Array:
    """Ties away from zero."""
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def _erf_short(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26: right to 1.5e-7 absolutely."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.sign(x) * (1 - p * np.exp(-x * x))


def _tanh_rational(x: Array) -> Array:
    """A Padé approximant, clamped."""
    x = np.clip(x, -4.97, 4.97)
    return x * (135135 + x**2 * (17325 + x**2 * (378 + x**2))) / (135135 + x**2 * (62370 + x**2 * (3150 + 28 * x**2)))


def _truncated(x: Array) -> Array:
    return np.trunc(x)


FORMULAS: tuple[Formula, ...] = (
    (
        "tanh formula for erf or the other way",
        "Gelu",
        lambda x, approximate: _gelu(x, "none" if approximate == "tanh" else "tanh"),
    ),
    ("sigmoid of 1.702 x for erf", "Gelu", lambda x, **_: x * _sigmoid(1.702 * x)),
    ("without the factor of a half", "Gelu", lambda x, **_: 2 * _gelu(x)),
    ("erf of x and not of x over the root of 2", "Gelu", lambda x, **_: 0.5 * x * (1 + _erf(x))),
    ("a short polynomial for erf", "Erf", _erf_short),
    ("tanh for erf", "Erf", lambda x: np.tanh(x * 2 / math.sqrt(math.pi))),
    ("a rational approximation of tanh", "Tanh", _tanh_rational),
    ("a rational approximation of tanh", "Sigmoid", lambda x: 0.5 + 0.5 * _tanh_rational(x / 2)),
    ("hard sigmoid for sigmoid", "Sigmoid", lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    ("tanh for sigmoid", "Sigmoid", np.tanh),
    ("exponential of bfloat16 inputs", "Exp", lambda x: np.exp(NARROW["BF16"](x.astype(F)).astype(np.float64))),
    ("powers of two in place of e", "Exp", np.exp2),
    ("exponential less one", "Exp", np.expm1),
    ("logarithm to the base 2", "Log", np.log2),
    ("logarithm of one more", "Log", np.log1p),
    ("approximate square root", "Sqrt", lambda x: 1 / NARROW["FP16"]((1 / np.sqrt(x)).astype(F)).astype(np.float64)),
    ("inverse square root", "Sqrt", lambda x: 1 / np.sqrt(x)),
    ("approximate reciprocal", "Reciprocal", lambda x: NARROW["TF32"]((1 / x).astype(F))),
    ("product with an approximate reciprocal", "Div", lambda x, y: x * NARROW["TF32"]((1 / y).astype(F))),
    ("operands exchanged", ("Sub", "Div", "Pow", "Mod"), None),
    ("sign of the divisor", "Mod", lambda x, y, fmod: np.mod(x, y) if fmod else np.fmod(x, y)),
    ("quotient rounded to nearest", "Mod", lambda x, y, fmod: x - np.rint(x / y) * y),
    ("alpha ignored", "LeakyRelu", lambda x, alpha: np.where(x >= 0, x, 0.01 * x)),
    ("slope on the positive side", "LeakyRelu", lambda x, alpha: np.where(x < 0, x, alpha * x)),
    ("negative side zero", ("LeakyRelu", "Elu", "Celu", "Selu", "PRelu"), lambda x, *_, **__: np.maximum(x, 0)),
    ("first slope for all channels", "PRelu", lambda x, slope: np.where(x >= 0, x, x * slope.reshape(-1)[0])),
    ("alpha ignored", "Elu", lambda x, **_: _elu(x)),
    ("exponential without its minus one", "Elu", lambda x, alpha: np.where(x > 0, x, alpha * np.exp(x))),
    ("alpha ignored", "Celu", lambda x, **_: _elu(x)),
    ("alpha not in the exponent", "Celu", _elu),
    ("gamma left out", "Selu", lambda x: SELU_ALPHA * np.expm1(np.minimum(x, 0)) + np.maximum(x, 0)),
    ("cut at six", "Relu", lambda x: np.clip(x, 0, 6)),
    ("a small negative slope", "Relu", lambda x: np.where(x > 0, x, 0.001 * x)),
    ("alpha ignored", "HardSigmoid", lambda x, alpha, beta: np.clip(0.2 * x + beta, 0, 1)),
    ("beta ignored", "HardSigmoid", lambda x, alpha, beta: np.clip(alpha * x + 0.5, 0, 1)),
    ("not cut above", ("HardSigmoid",), lambda x, alpha, beta: np.maximum(alpha * x + beta, 0)),
    ("swish for hard swish", "HardSwish", lambda x: x * _sigmoid(x)),
    ("swish for mish", "Mish", lambda x: x * _sigmoid(x)),
    ("overflow for large arguments", "Softplus", lambda x: np.log1p(np.exp(x.astype(F)).astype(F)).astype(F)),
    ("without its logarithm", "Softplus", np.exp),
    ("the argument's absolute value missing", "Softsign", lambda x: x / (1 + x)),
    ("sine for cosine", "Cos", np.sin),
    ("argument reduced in float16", ("Sin",), lambda x: np.sin(NARROW["FP16"](np.remainder(x, 2 * np.pi).astype(F)))),
    (
        "seven terms of a series",
        "Atan",
        lambda x: sum((-1) ** i * np.clip(x, -1, 1) ** (2 * i + 1) / (2 * i + 1) for i in range(7)),
    ),
    ("ties away from zero", "Round", _away),
    ("half added and truncated", "Round", lambda x: np.floor(x + 0.5)),
    ("truncated", ("Round", "Floor", "Ceil"), _truncated),
    ("zero counted as positive", "Sign", lambda x: np.where(x >= 0, 1.0, -1.0)),
    ("upper limit ignored", "Clip", lambda x, low, high: np.maximum(x, low)),
    ("lower limit ignored", "Clip", lambda x, low, high: np.minimum(x, high)),
    ("limits exchanged", "Clip", lambda x, low, high: np.minimum(np.maximum(x, high), low)),
    ("minimum for maximum", "Max", np.minimum),
    ("NaN dropped", "Max", np.fmax),
    ("NaN dropped", "Min", np.fmin),
    ("equality included", "Greater", np.greater_equal),
    ("equality excluded", "LessOrEqual", np.less),
    ("branches exchanged", "Where", lambda c, x, y: np.where(c, y, x)),
    ("condition of the row before", "Where", lambda c, x, y: np.where(np.roll(c, 1, axis=0), x, y)),
    ("broadcast along the other axis", ("Add", "Mul", "Sub"), None),
    ("subtracted twice", "Sub", lambda x, y: x - 2 * y),
    ("sum in TF32", "Add", lambda x, y: NARROW["TF32"]((x + y).astype(F))),
    (
        "factors in TF32",
        "Mul",
        lambda x, y: np.multiply(*(NARROW["TF32"](t.astype(F)) for t in (x, y)), dtype=np.float64),
    ),
    ("negative zero and sign lost", "Neg", np.abs),
)


def _wrong(case: Case, name: str, function: Function | None) -> Outputs | None:
    right = WAYS[case.op_type]
    if name == "operands exchanged":
        x, y = case.inputs
        return rounded_once(Case(case.op_type, (y, x), case.attributes)) if y is not None and x is not None else None
    if name.startswith("broadcast"):
        x, y = (np.asarray(t) for t in case.inputs)
        if x.ndim != 2 or x.shape[0] != x.shape[1] or y.ndim != 1:
            return None
        return rounded_once(case, lambda a, b: right(a, b[:, None]))
    return rounded_once(case, function)


def cases(quick: bool) -> Iterator[Case]:
    """Every function on every kind of data, around the points where it bends, and for one size on many elements."""
    for kind, seed in itertools.product(KINDS, range(1 if quick else 2)):
        for op_type in WAYS:
            yield from _of(op_type, kind, seed, 16)
            if seed == 1:
                yield from _of(op_type, kind, seed, 1000)


OPTIONS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "Gelu": ({"approximate": "none"}, {"approximate": "tanh"}),
    "Mod": ({"fmod": 1},),
    "LeakyRelu": ({"alpha": 0.25},),
    "Elu": ({"alpha": 1.5},),
    "Celu": ({"alpha": 2.0},),
    "HardSigmoid": ({"alpha": 0.25, "beta": 0.75},),
}

POINTS = np.array([0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 1.0, -1.0, 6.0, 3.0, -3.0, 2.0, 88.0, -20.0], F)
"""Ties, knees and tails."""


def _of(op_type: str, kind: str, seed: int, rows: int) -> Iterator[Case]:
    x = tensor(kind, (rows, 16), seed)
    if kind == "wide":
        x = np.clip(x, -80, 80)
    if rows == 16 and op_type not in ("Div", "Reciprocal", "Mod", "Pow", "Log", "Tan"):
        x[0] = POINTS
    if op_type in POSITIVE:
        x = np.abs(x) + F(1e-3)
    for options in OPTIONS.get(op_type, ({},)):
        yield Case(op_type, _inputs(op_type, x, kind, seed), options, kind, 1)
    if seed == 0 and op_type not in ("Where", "PRelu"):
        for dtype in (np.float16, ml_dtypes.bfloat16):
            narrow = tuple(None if t is None else t.astype(dtype) for t in _inputs(op_type, x, kind, seed))
            yield Case(op_type, narrow, OPTIONS.get(op_type, ({},))[0], kind, 1)


def _inputs(  # noqa: PLR0911 (one return for each group of operators)
    op_type: str, x: Array, kind: str, seed: int
) -> tuple[Array, ...]:
    y = tensor(kind, x.shape, seed, 1, right=True)
    if kind == "wide":
        y = np.clip(y, -80, 80)
    if op_type in ("Add", "Sub", "Mul") and seed % 2 == 0:
        return x, y[0]
    if op_type in ("Div", "Mod"):
        return x, np.where(np.abs(y) < 1e-3, F(0.7), y)
    if op_type == "Pow":
        return x, np.clip(y, -3, 3)
    if op_type in ("Min", "Max"):
        poisoned = x.copy()
        poisoned[-1, -1] = np.nan
        return poisoned, y
    if op_type in ("Greater", "LessOrEqual"):
        return x, np.where(y > 0, x, y)
    if op_type == "Where":
        return x > 0, x, y
    if op_type == "PRelu":
        return x, np.abs(y[0])
    if op_type == "Clip":
        return x, np.array(-0.4, F), np.array(0.9, F)
    return (x, y) if op_type in ("Add", "Sub", "Mul") else (x,)


FAMILY = Family(
    "elementwise",
    cases,
    rounded_once,
    (Variant("NumPy's float32", in_float32),),
    (
        *(
            Fault(
                name,
                (op_types,) if isinstance(op_types, str) else tuple(op_types),
                lambda case, name=name, function=function: _wrong(case, name, function),
            )
            for name, op_types, function in FORMULAS
        ),
        *tampered(rounded_once),
    ),
)
