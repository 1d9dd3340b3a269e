"""Every operator that the installed onnx knows, at every version, in every type that its schema allows: a kernel, an
error scale, outputs of an allowed type, and a verdict; what is not judged is listed here with its reason.

Schemas are enumerated, not operators that we have: a new version of onnx fails these tests until it is covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnx_arch.conformance.exactness import UNDETERMINED
from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.verdict import judge
from onnx_arch.conformance.witness import witness_for
from onnx_arch.operators.catalogue import bound_of, rule_of
from onnx_arch.operators.evaluation import output_dtypes, prepare
from onnx_arch.operators.laws import Classes, Continuous, Dropped, Flips, Law
from onnx_arch.operators.registry import find_kernel
from onnx_arch.operators.scale import Array, Rule, Scale
from onnx_arch.operators.storage import encode, float_format, is_float
from onnx_arch.operators.unjudged import unjudged_reason

from .contrib_nodes import MICROSOFT, NCHWC
from .contrib_samples import CONTRIB, FURTHER
from .element_types import CODES, ELEMENTS
from .samples import TYPED_BY_ATTRIBUTES, Sample, in_type, samples_of

Pair = tuple[str, str]
"""A type variable of a schema, or a type itself, and the type that it has."""

WITH_SUBGRAPHS = {"If", "Loop", "Scan", "SequenceMap"}
"""Operators that are run by the graph; `test_control_flow_*` cover them."""

NAMES: Mapping[Any, str] = {dtype: name for name, dtype in ELEMENTS.items()}


def schemas() -> list[Any]:
    found = [s for s in onnx.defs.get_all_schemas_with_history() if not s.deprecated and s.name not in WITH_SUBGRAPHS]
    return sorted(found, key=lambda s: (s.domain, s.name, s.since_version))


def label(schema: Any) -> str:
    return f"{schema.domain or 'ai.onnx'}::{schema.name}-{schema.since_version}"


def formal(formals: Any, index: int) -> str:
    """The type of an input or output; the last one stands for all further ones."""
    return formals[min(index, len(formals) - 1)].type_str


def wanted(schema: Any) -> set[Pair]:
    """All (type variable, type) that the signature uses."""
    used = {x.type_str for x in (*schema.inputs, *schema.outputs)}
    return {(c.type_param_str, t) for c in schema.type_constraints for t in c.allowed_type_strs} & {
        (variable, t) for variable in used for c in schema.type_constraints for t in c.allowed_type_strs
    }


def type_names(value: Any) -> set[str]:
    """What a value's type is called in signatures, on its own and as the content of an optional."""
    base = _type_name(value)
    return {base, f"optional({base})"} if base else set()


def _type_name(value: Any) -> str:
    if isinstance(value, list):
        return f"seq({_type_name(value[0])})" if value else ""
    if isinstance(value, dict):
        key, content = next(iter(value.items()))
        return f"map({_element(key)}, {_element(content)})"
    return "" if value is None else f"tensor({_element(value)})"


def _element(value: Any) -> str:
    dtype = np.asarray(value).dtype
    return "string" if dtype.kind in "OUST" else NAMES[dtype]


def stored(value: Any, dtype: Any, scale: Scale, rng: np.random.Generator) -> Any:
    """A reference output as a correct runtime stores it; draws in place of a distribution's mean."""
    if isinstance(value, list):
        return [stored(item, dtype, scale, rng) for item in value]
    if not isinstance(value, np.ndarray):
        return value
    if scale.law is not None and scale.rule is Rule.DISTRIBUTION:
        return drawn(scale.law, value.shape, rng).astype(dtype)
    wide = is_float(value.dtype) or value.dtype.kind == "c"
    return encode(value, dtype) if wide and dtype is not None else value


def drawn(law: Law, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A sample of a law by NumPy."""
    if isinstance(law, Continuous):
        unbounded = np.isinf(law.high)
        return rng.normal(law.mean, law.deviation, shape) if unbounded else rng.uniform(law.low, law.high, shape)
    if isinstance(law, Flips):
        return rng.random(shape) < law.probability
    if isinstance(law, Dropped):
        return np.where(rng.random(shape) < law.ratio, 0, law.data / (1 - law.ratio))
    assert isinstance(law, Classes)
    return np.stack([rng.choice(len(p), shape[1], p=p) for p in law.probability])


def observed(schema: Any, sample: Sample) -> Iterator[Pair]:
    """Run and judge one call; the types that it had, of inputs and of outputs that passed, and ("rule", its rule).

    Raises:
        AssertionError: an output is not judged, or judged wrong though it is the reference as stored.
    """
    call = prepare(
        schema.name,
        sample.inputs,
        sample.attributes,
        opset=schema.since_version,
        domain=schema.domain,
        output_count=sample.output_count,
    )
    outputs, scales = call.judged()
    assert scales is not None, f"{label(schema)} has no scale"
    rows = zip(outputs[: sample.output_count], output_dtypes(call, outputs), scales, strict=False)
    for index, (reference, dtype, scale) in enumerate(rows):
        actual = stored(reference, dtype, scale, np.random.default_rng(index))
        witness = witness_for(call, index, reference, scale) if isinstance(reference, np.ndarray) else None
        verdict = judge(actual, reference, dtype, scale, witness)
        is_open = verdict.message == UNDETERMINED  # masks of no dropout, linear Resize of booleans
        right = verdict.outcome is (Outcome.UNJUDGED if is_open else Outcome.PASSED)
        assert right, f"{label(schema)} output {index}: {verdict.outcome} {verdict.message}"
        if not is_open and scale.law is None and isinstance(reference, np.ndarray):
            assert_a_fault_fails(schema, actual, reference, dtype, scale)
        yield "rule", scale.rule.value
        yield from ((formal(schema.outputs, index), name) for name in type_names(actual))
    for index, value in enumerate(sample.inputs):
        yield from ((formal(schema.inputs, index), name) for name in type_names(value))
    if schema.name == "SequenceEmpty":  # an empty list has no type
        code = sample.attributes.get("dtype", 1)
        yield "S", next(f"seq(tensor({name}))" for name, number in CODES.items() if number == code)


def assert_a_fault_fails(schema: Any, actual: Array, reference: Array, dtype: Any, scale: Scale) -> None:
    """One element that is far off fails, wherever an element is judged at all."""
    closed = np.flatnonzero(~np.isinf(np.broadcast_to(np.asarray(scale.terms, np.float64), actual.shape)))
    if closed.size == 0:
        return
    wrong = np.array(actual)
    at = np.unravel_index(int(closed[-1]), actual.shape) if actual.ndim else ()
    wrong[at] = far_from(wrong[at])
    if scale.rule is not Rule.EXACT and np.isinf(np.broadcast_to(scale.magnitude, actual.shape)[at]):
        return
    verdict = judge(wrong, reference, dtype, scale, None)
    what = f"{label(schema)}: {wrong[at]!r} for {actual[at]!r}"
    assert verdict.outcome is Outcome.FAILED, f"{what} at {at} was {verdict.outcome}"


def far_from(value: Any) -> Any:
    """Another value of the same type, as far away as the type allows."""
    if isinstance(value, str):
        return value + "x"
    if value.dtype.kind in "bc":
        return not value if value.dtype.kind == "b" else value + 1e30
    if is_float(value.dtype):
        largest = float_format(value.dtype).largest
        return value.dtype.type(largest if np.isnan(value) or float(value) <= 0 else -largest)
    limits = ml_dtypes.iinfo(value.dtype)
    nearer_to_low = 2 * int(value) < int(limits.min) + int(limits.max)
    return value.dtype.type(limits.max if nearer_to_low else limits.min)


RULES = ("exact", "ulp", "dot", "composed", "distribution")
"""Each contains those before it: what an operator is listed with is the last that one of its outputs has."""


@pytest.mark.parametrize("schema", schemas(), ids=label)
def test_operator_at_this_version_is_judged_in_every_type_that_its_schema_allows(schema: Any) -> None:
    if unjudged_reason(schema.domain, schema.name):
        return
    samples = samples_of(schema)
    assert samples, f"{label(schema)}: no sample; add one to samples.py"
    seen: set[Pair] = set()
    for sample in [*samples, *retyped_samples(schema, samples)]:
        seen.update(observed(schema, sample))
    left = {(v, t) for v, t in wanted(schema) - seen if not unjudged_reason(schema.domain, schema.name, t)}
    assert not left, f"{label(schema)} is not judged in {sorted(left)}"
    scale = find_kernel(schema.name, opset=schema.since_version, domain=schema.domain).scale
    widest = max((rule for kind, rule in seen if kind == "rule"), key=RULES.index)
    assert RULES.index(rule_of(bound_of(scale))) >= RULES.index(widest), f"{bound_of(scale)}: {widest}"


def retyped_samples(schema: Any, samples: Iterable[Sample]) -> Iterator[Sample]:
    """For every type of every type variable, the first sample that can be brought into it."""
    if schema.name in TYPED_BY_ATTRIBUTES:
        return
    for variable, type_str in sorted(wanted(schema)):
        if unjudged_reason(schema.domain, schema.name, type_str) or (schema.name, variable) == ("MatMulNBits", "T3"):
            continue  # T3 is the type of zero points, whose packed and floating-point forms differ in shape
        changed = (in_type(sample, schema, variable, type_str) for sample in samples)
        found = next((sample for sample in changed if sample is not None), None)
        if found is not None:
            yield found


def test_what_is_unjudged_is_known_to_onnx_and_has_a_reason() -> None:
    from onnx_arch.operators.unjudged import UNJUDGED  # noqa: PLC0415 (the table itself)

    known = {(s.domain, s.name): s for s in [*schemas(), *runtime_schemas()]}
    for (domain, op_type), (types, reason) in UNJUDGED.items():
        assert len(reason) > 20
        assert types is None or types <= {t for _, t in wanted(known[domain, op_type])}


def test_every_operator_has_a_kernel_with_a_scale_or_a_reason() -> None:
    for schema in schemas():
        if not unjudged_reason(schema.domain, schema.name):
            entry = find_kernel(schema.name, opset=schema.since_version, domain=schema.domain)
            assert entry.scale is not None, label(schema)


@dataclass(frozen=True)
class Formal:
    type_str: str


@dataclass(frozen=True)
class Constraint:
    type_param_str: str
    allowed_type_strs: tuple[str, ...]


@dataclass(frozen=True)
class RuntimeSchema:
    """A schema of ONNX Runtime's own, with the names that onnx gives to its parts."""

    domain: str
    name: str
    since_version: int
    attributes: frozenset[str]
    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    type_constraints: tuple[Constraint, ...]


def runtime_schemas() -> list[RuntimeSchema]:
    """Those of the installed ONNX Runtime that we have kernels for."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema  # noqa: PLC0415 (only here)

    return [
        RuntimeSchema(
            x.domain,
            x.name,
            x.since_version,
            frozenset(x.attributes),
            tuple(Formal(formal.typeStr) for formal in x.inputs),
            tuple(Formal(formal.typeStr) for formal in x.outputs),
            tuple(Constraint(c.type_param_str, tuple(c.allowed_type_strs)) for c in x.type_constraints),
        )
        for x in get_all_operator_schema()
        if (x.domain, x.name) in CONTRIB
    ]


UNCOUNTED: Mapping[str, set[str]] = {
    "MatMulNBits": {"T4"},  # g_idx is deprecated, and not modelled: such a node is unjudged
    "SimplifiedLayerNormalization": {"U"},  # a float32 in ONNX Runtime, whatever the schema says
    "MultiHeadAttention": {"QK"},  # that of the query; the schema does not tie them
    "GroupQueryAttention": {"T_KV_SCALE"},  # of the quantized cache that `unjudged` names
}
"""Type variables of inputs that the kernels refuse."""


@pytest.mark.parametrize("schema", runtime_schemas(), ids=label)
def test_operator_of_onnxruntime_is_judged_in_every_type_that_its_schema_allows(schema: Any) -> None:
    samples = [CONTRIB[schema.domain, schema.name]]
    samples += FURTHER.get(schema.name, ()) if schema.domain == MICROSOFT else ()
    seen: set[Pair] = set()
    for sample in [*samples, *retyped_samples(schema, samples)]:
        seen.update(observed(schema, sample))
    left = {pair for pair in wanted(schema) - seen if not unjudged_reason(schema.domain, schema.name, pair[1])}
    left = {(v, t) for v, t in left if v not in UNCOUNTED.get(schema.name, ())}
    assert not left, f"{label(schema)} is not judged in {sorted(left)}"


NAMED = {
    *("FusedConv", "FusedMatMul", "FusedGemm", "TransposeMatMul", "Gelu", "BiasGelu", "FastGelu", "QuickGelu"),
    *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization"),
    *("Attention", "MultiHeadAttention", "GroupQueryAttention", "RotaryEmbedding"),
    *("MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
    *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearConcat"),
    *("QLinearAveragePool", "QLinearGlobalAveragePool", "QGemm", "NhwcMaxPool", "NhwcFusedConv"),
    *("QLinearConv", "QLinearWhere", "QuantizeLinear", "DequantizeLinear", "GatherBlockQuantized", "QAttention"),
}
"""What ONNX Runtime's optimiser makes on CPU and CUDA, one by one."""

BLOCKED = {
    *("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool"),
    *("MaxPool", "ReorderInput", "ReorderOutput", "Upsample"),
}
"""All operators of the domain of blocked channels."""


def test_every_fused_operator_that_is_named_is_covered() -> None:
    assert {(MICROSOFT, name) for name in NAMED} | {(NCHWC, name) for name in BLOCKED} <= set(CONTRIB)
    assert {(schema.domain, schema.name) for schema in runtime_schemas()} == set(CONTRIB)
    for domain, name in CONTRIB:
        assert find_kernel(name, opset=1, domain=domain).scale is not None
