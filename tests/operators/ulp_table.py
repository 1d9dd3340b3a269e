"""Observed against allowed errors of element-wise operators: `python -m tests.operators.ulp_table > docs/ulp-table.md`.

Sweeps the whole float32 range (every binade, subnormals, the neighbourhood of zeros, poles and saturation) through
ONNX Runtime on CPU, torch and plain float32 NumPy, and compares with the float64 kernels at their scales.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.registry import find_kernel
from onnx_arch.operators.scale import Array
from onnx_arch.operators.storage import encode

from .judging import run_onnxruntime
from .node_cases import deviations

SEED = 20240229
PER_SECTION = 60_000
FLOAT32_MAX = float(np.finfo(np.float32).max)
Float32 = Callable[..., Array]


@dataclass(frozen=True)
class Row:
    """One operator as the table shows it.

    Attributes:
        op_type: the operator.
        opset: of the kernel and of ONNX Runtime's model.
        numpy: its definition in float32 NumPy, as the specification writes it.
        torch: the name of torch's function, dotted from `torch`; "" for none.
        attributes: of the node.
        inputs: 1, or 2 for pairs.
        torch_options: keywords of torch's function.
    """

    op_type: str
    opset: int
    numpy: Float32
    torch: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: int = 1
    torch_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The operator with its attributes."""
        options = ", ".join(f"{key}={value}" for key, value in self.attributes.items())
        return f"{self.op_type} ({options})" if options else self.op_type


@dataclass(frozen=True)
class Observation:
    """What one implementation reached.

    Attributes:
        max_z: largest |z| where finite.
        share: largest |z| / allowed |z|; above 1 is a finding.
        worst: the inputs, the result and the reference there.
        not_finite: how many results are infinite or NaN where the reference is not, or the other way.
        first: the inputs, the result and the reference of the first of those.
    """

    max_z: float
    share: float
    worst: str
    not_finite: int
    first: str


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gelu_tanh(x: Array) -> Array:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def _gelu_erf(x: Array) -> Array:
    from scipy.special import erf  # noqa: PLC0415 (only here)

    return np.float32(0.5) * x * (1 + erf(x / np.float32(math.sqrt(2))))


def _erf(x: Array) -> Array:
    from scipy.special import erf  # noqa: PLC0415 (only here)

    return erf(x)


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1)


def _selu(x: Array) -> Array:
    alpha, gamma = np.float32(1.6732631921768188), np.float32(1.0507010221481323)
    return gamma * np.where(x > 0, x, alpha * np.exp(x) - alpha)


ROWS = (
    Row("Add", 14, np.add, "add", inputs=2),
    Row("Sub", 14, np.subtract, "sub", inputs=2),
    Row("Mul", 14, np.multiply, "mul", inputs=2),
    Row("Div", 14, np.divide, "div", inputs=2),
    Row("Pow", 15, np.power, "pow", inputs=2),
    Row("Mod", 13, np.fmod, "fmod", {"fmod": 1}, inputs=2),
    Row("Sqrt", 13, np.sqrt, "sqrt"),
    Row("Reciprocal", 13, np.reciprocal, "reciprocal"),
    Row("Exp", 13, np.exp, "exp"),
    Row("Log", 13, np.log, "log"),
    Row("Sin", 22, np.sin, "sin"),
    Row("Cos", 22, np.cos, "cos"),
    Row("Tan", 22, np.tan, "tan"),
    Row("Asin", 22, np.arcsin, "asin"),
    Row("Acos", 22, np.arccos, "acos"),
    Row("Atan", 22, np.arctan, "atan"),
    Row("Sinh", 22, np.sinh, "sinh"),
    Row("Cosh", 22, np.cosh, "cosh"),
    Row("Asinh", 22, np.arcsinh, "asinh"),
    Row("Acosh", 22, np.arccosh, "acosh"),
    Row("Atanh", 22, np.arctanh, "atanh"),
    Row("Tanh", 13, np.tanh, "tanh"),
    Row("Erf", 13, _erf, "erf"),
    Row("Sigmoid", 13, _sigmoid, "sigmoid"),
    Row("HardSigmoid", 22, _hard_sigmoid),
    Row("HardSwish", 14, lambda x: x * np.clip(x / 6 + np.float32(0.5), 0, 1), "nn.functional.hardswish"),
    Row("Softplus", 22, lambda x: np.log(np.exp(x) + 1), "nn.functional.softplus"),
    Row("Softsign", 22, lambda x: x / (1 + np.abs(x)), "nn.functional.softsign"),
    Row("LeakyRelu", 16, lambda x: np.where(x < 0, np.float32(0.01) * x, x), "nn.functional.leaky_relu"),
    Row("Elu", 22, lambda x: np.where(x < 0, np.exp(x) - 1, x), "nn.functional.elu"),
    Row("Selu", 22, _selu, "nn.functional.selu"),
    Row("Celu", 12, lambda x: np.maximum(x, 0) + np.minimum(0, np.exp(x) - 1), "nn.functional.celu"),
    Row("Mish", 22, lambda x: x * np.tanh(np.log(1 + np.exp(x))), "nn.functional.mish"),
    Row("Swish", 24, lambda x: x * _sigmoid(x), "nn.functional.silu"),
    Row("Gelu", 20, _gelu_erf, "nn.functional.gelu"),
    Row(
        "Gelu",
        20,
        _gelu_tanh,
        "nn.functional.gelu",
        {"approximate": "tanh"},
        torch_options={"approximate": "tanh"},
    ),
)


def sweep(count: int = PER_SECTION) -> Array:
    """float32 of both signs: every binade down to the subnormals, [0, 110] evenly, and around 0, ½ and 1."""
    rng = np.random.default_rng(SEED)
    positive = np.concatenate(
        [
            np.exp2(np.linspace(-149, 128, 2 * count, endpoint=False)),
            np.linspace(0, 4, count),
            np.linspace(0, 20, count),
            np.linspace(0, 110, count),
            1 + np.linspace(-0.1, 0.1, count),
            0.5 + np.linspace(-0.05, 0.05, count),
            np.abs(rng.standard_normal(count)) * 3,
            np.arange(1, 1000) * (math.pi / 2),
            [0.0, 0.5, 1.0, 2.0, FLOAT32_MAX, np.inf],
        ]
    ).astype(np.float32)
    return np.concatenate([positive, -positive])


def pairs(op_type: str, count: int = PER_SECTION) -> tuple[Array, Array]:
    """float32 pairs of unlike and of like size; for Pow, exponents in [−20, 20], small integers and fractions."""
    rng = np.random.default_rng(SEED)
    x = sweep(count)
    if op_type == "Pow":
        special = rng.choice([0.5, -0.5, 1.0, 2.0, 3.0, -1.0, 1 / 3, 10.0, 0.0], x.size)
        y = np.where(rng.random(x.size) < 0.5, special, rng.uniform(-20, 20, x.size))
        return x, y.astype(np.float32)
    near = np.where(np.abs(x) < FLOAT32_MAX / 2, x * (1 + rng.uniform(-1e-3, 1e-3, x.size)), x)
    return x, np.where(rng.random(x.size) < 0.5, near, rng.permutation(x)).astype(np.float32)


def observe(row: Row, inputs: tuple[Array, ...], actual: Array) -> Observation:
    """Compare one implementation's stored result with the kernel at its scale."""
    call = prepare(row.op_type, inputs, row.attributes, opset=row.opset)
    (reference,) = call.outputs()
    scale = (call.scales((reference,)) or ())[0]
    z = deviations(actual, reference, scale.magnitude)
    terms = np.broadcast_to(np.asarray(scale.terms, np.float64), z.shape)
    judged = ~np.isinf(terms)
    overflows = ~np.isfinite(encode(reference, actual.dtype)) & np.isfinite(reference)
    special = ~np.isfinite(actual) | ~np.isfinite(reference)
    same = (actual == reference) | (np.isnan(actual) & np.isnan(reference))
    wrong = judged & special & ~same & ~overflows
    z = np.where(judged & ~wrong & ~overflows, z, 0.0)
    share = z / np.maximum(terms, 1e-300)
    worst, first = int(np.argmax(share)), int(np.argmax(wrong))

    def show(index: int) -> str:
        at = ", ".join(f"{x[index]:.9g}" for x in inputs)
        return f"f({at}) = {actual[index]:.9g}, reference {reference[index]:.9g}"

    shown = show(first) if wrong.any() else ""
    return Observation(float(z.max()), float(share[worst]), show(worst), int(wrong.sum()), shown)


def implementations(row: Row, inputs: tuple[Array, ...]) -> Iterator[tuple[str, Array]]:
    """(name, stored result) of every implementation that has the operator."""
    found = _onnxruntime(row, inputs)
    if found is not None:
        yield "ONNX Runtime", found
    if row.torch:
        yield "torch", _torch(row, inputs)
    with np.errstate(all="ignore"):
        result = row.numpy(*inputs)
    if result.dtype != np.float32:
        raise TypeError(f"{row.name}: the float32 definition returns {result.dtype}")
    yield "NumPy", result


def _onnxruntime(row: Row, inputs: tuple[Array, ...]) -> Array | None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, NotImplemented  # noqa: PLC0415, A004

    try:
        return run_onnxruntime(row.op_type, inputs, row.attributes, opset=row.opset)[0]
    except (NotImplemented, Fail, InvalidGraph):
        return None


def _torch(row: Row, inputs: tuple[Array, ...]) -> Array:
    import torch  # noqa: PLC0415 (only where it is compared)

    function: Any = torch
    for name in row.torch.split("."):
        function = getattr(function, name)
    return function(*(torch.from_numpy(x) for x in inputs), **row.torch_options).numpy()


def inputs_of(row: Row, count: int = PER_SECTION) -> tuple[Array, ...]:
    """The sweep of a row."""
    return (sweep(count),) if row.inputs == 1 else pairs(row.op_type, count)


def _reason(row: Row) -> str:
    text = getattr(find_kernel(row.op_type, opset=row.opset).scale, "__doc__", None) or ""
    return " ".join(text.split()).replace("|", "\\|")


def _versions() -> str:
    import onnxruntime  # noqa: PLC0415 (only here)
    import torch  # noqa: PLC0415 (only here)

    return (
        f"onnx {onnx.__version__}, ONNX Runtime {onnxruntime.__version__} (CPU), torch {torch.__version__}, "
        f"NumPy {np.__version__}; {platform.machine()}"
    )


def main() -> None:
    """Print the table as Markdown."""
    observed = [(row, dict(_observations(row))) for row in ROWS]
    print(_HEAD.format(versions=_versions(), count=sweep().size))
    for row, by_name in observed:
        cells = [_cell(by_name.get(name)) for name in ("ONNX Runtime", "torch", "NumPy")]
        print(f"| {row.name} | {' | '.join(cells)} | {_reason(row)} |")
    print("\n## Findings\n\nWhere an implementation exceeds its bound, or is infinite or NaN where it should not be.\n")
    for row, by_name in observed:
        for name, observation in by_name.items():
            for text in _findings(observation):
                print(f"- {name}, {row.name}: {text}")
    for text in _shrink_findings():
        print(f"- ONNX Runtime, {text}")


def _shrink_findings() -> Iterator[str]:
    """Where ONNX Runtime's Shrink of 64-bit types differs: it computes them in float32."""
    values = np.random.default_rng(SEED).uniform(1e5, 1e9, 1000)
    for dtype in (np.float64, np.int32, np.int64):
        x = values.astype(dtype)
        (actual,) = run_onnxruntime("Shrink", (x,), {}, opset=9)
        wrong = np.flatnonzero(actual != x)
        if wrong.size:
            first = int(wrong[0])
            yield (
                f"Shrink (bias=0) of {np.dtype(dtype)}: {wrong.size} of {x.size} results are not x; "
                f"f({x[first]}) = {actual[first]}"
            )


def _observations(row: Row) -> Iterator[tuple[str, Observation]]:
    inputs = inputs_of(row)
    for name, actual in implementations(row, inputs):
        yield name, observe(row, inputs, actual)


def _cell(observation: Observation | None) -> str:
    if observation is None:
        return "–"
    mark = " (!)" if observation.share > 1 or observation.not_finite else ""
    return f"{observation.max_z:.2f}, {observation.share:.0%}{mark}"


def _findings(observation: Observation) -> Iterator[str]:
    if observation.share > 1:
        yield f"|z| is {observation.share:.3g} times the bound at {observation.worst}"
    if observation.not_finite:
        yield f"{observation.not_finite} results are infinite or NaN against the reference; {observation.first}"


_HEAD = """# Errors of element-wise operators: observed and allowed

Made by `python -m tests.operators.ulp_table > docs/ulp-table.md` with {versions}.

z is the error in half-units in the last place at the size at which the operator rounds (its scale's magnitude). Each
cell says the largest |z| over {count:,} float32 inputs of both signs, and the largest share of the allowed |z|, which
may differ from element to element. NumPy computes the specification's formula in float32, operation by operation.
Results that overflow float32 in the reference too are left out; so are elements that the specification leaves open
(their allowed |z| is infinite). (!) marks a finding below. The same bounds hold for float16 and bfloat16, where they
are counted in those types' own units.

| operator | ONNX Runtime | torch | NumPy | allowed, and why |
|---|---|---|---|---|"""


if __name__ == "__main__":
    main()
