"""What is judged: every operator with the versions of its specification, the rule, and the types.

Types and versions are those of the schemas that the installed `onnx` knows, less what `unjudged` names; for the domains
of ONNX Runtime they are listed here, since no schema of theirs comes with `onnx`. A test runs and judges every one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx

from .registry import entries
from .scale import exact
from .unjudged import unjudged_reason

MICROSOFT, NCHWC = "com.microsoft", "com.microsoft.nchwc"
BYTES, FLOATS = ("int8", "uint8"), ("bfloat16", "double", "float", "float16")
HALF_OR_FLOAT = ("bfloat16", "float", "float16")

RUNTIME_TYPES: Mapping[tuple[str, str], tuple[str, ...]] = {
    **{(MICROSOFT, name): BYTES for name in ("NhwcMaxPool", "QLinearAdd", "QLinearMul", "QLinearSigmoid")},
    **{(MICROSOFT, name): BYTES for name in ("QLinearLeakyRelu", "QLinearSoftmax", "QLinearConcat")},
    **{(MICROSOFT, name): BYTES for name in ("QLinearAveragePool", "QLinearGlobalAveragePool")},
    **{(MICROSOFT, name): BYTES for name in ("QLinearConv", "QLinearWhere")},
    (MICROSOFT, "QuantizeLinear"): ("int16", "int4", "int8", "uint16", "uint4", "uint8"),
    (MICROSOFT, "DequantizeLinear"): ("float", "float16"),
    **{(MICROSOFT, name): FLOATS for name in ("BiasGelu", "FastGelu", "FusedMatMul", "Gelu", "QuickGelu")},
    (MICROSOFT, "TransposeMatMul"): FLOATS,
    ("", "SimplifiedLayerNormalization"): FLOATS,
    **{(MICROSOFT, name): ("double", "float", "float16") for name in ("FusedConv", "FusedGemm")},
    **{(MICROSOFT, name): HALF_OR_FLOAT for name in ("Attention", "GroupQueryAttention", "MultiHeadAttention")},
    **{(MICROSOFT, name): HALF_OR_FLOAT for name in ("MatMulNBits", "RotaryEmbedding", "SkipLayerNormalization")},
    **{(MICROSOFT, name): HALF_OR_FLOAT for name in ("GatherBlockQuantized", "SkipSimplifiedLayerNormalization")},
    **{(MICROSOFT, name): ("float", "float16") for name in ("EmbedLayerNormalization", "NhwcFusedConv")},
    **{(MICROSOFT, name): ("float", "float16") for name in ("MatMulIntegerToFloat", "QAttention")},
    (MICROSOFT, "DynamicQuantizeMatMul"): ("float",),
    (MICROSOFT, "QGemm"): ("float", *BYTES),
    **{(NCHWC, name): ("float",) for name in ("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")},
    **{(NCHWC, name): ("float",) for name in ("ReorderInput", "ReorderOutput", "Upsample")},
}
"""Element types of results in the domains of ONNX Runtime, and of the operator that it adds to the default one."""

WITH_SUBGRAPHS = ("If", "Loop", "Scan", "SequenceMap")
"""Operators without a kernel of their own: the graph runs their subgraphs."""

BY_SAMPLES = (
    "COMPOSED: the subgraphs run again with every rounding moved (Monte-Carlo arithmetic); exact where none moves"
)


@dataclass(frozen=True)
class Listing:
    """One operator.

    Attributes:
        domain: "" for the default domain.
        op_type: the operator.
        versions: of its specification, each judged.
        rule: "exact", "ulp", "dot", "composed" or "distribution"; where the type or an attribute decides, the widest.
        types: element types that are judged in, at the newest version.
        bound: how the error is bounded, in a line.
    """

    domain: str
    op_type: str
    versions: tuple[int, ...]
    rule: str
    types: tuple[str, ...]
    bound: str


def catalogue() -> Iterator[Listing]:
    """Everything that is judged, by domain and name."""
    known = {(domain, op_type) for domain, op_type, _ in entries()} | {("", name) for name in WITH_SUBGRAPHS}
    for domain, op_type in sorted(known):
        schemas = _history().get((domain, op_type), ())
        bound = _bound(domain, op_type)
        yield Listing(
            domain,
            op_type,
            tuple(schema.since_version for schema in schemas) or (1,),
            rule_of(bound),
            judged_types(schemas[-1]) if schemas else RUNTIME_TYPES[domain, op_type],
            bound,
        )


@cache
def _history() -> Mapping[tuple[str, str], Sequence[onnx.defs.OpSchema]]:
    """Every schema of an operator, oldest first; withdrawn versions left out."""
    found: dict[tuple[str, str], list[onnx.defs.OpSchema]] = {}
    for schema in sorted(onnx.defs.get_all_schemas_with_history(), key=lambda schema: schema.since_version):
        if not schema.deprecated:
            found.setdefault((schema.domain, schema.name), []).append(schema)
    return found


def judged_types(schema: onnx.defs.OpSchema) -> tuple[str, ...]:
    """The element types that an operator's inputs and outputs may have by its schema, and that are judged."""
    formals = {formal.type_str for formal in (*schema.inputs, *schema.outputs)}
    constrained = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    types = {t for formal in formals for t in constrained.get(formal, (formal,))}
    kept = (t for t in types if not unjudged_reason(schema.domain, schema.name, t))
    return tuple(sorted({_element(t) for t in kept}))


_INNERMOST = re.compile(r"(\w+)\)*$")


def _element(type_str: str) -> str:
    """The innermost type: "seq(tensor(float))" -> "float"."""
    found = _INNERMOST.search(type_str)
    return found[1] if found else type_str


def _bound(domain: str, op_type: str) -> str:
    if op_type in WITH_SUBGRAPHS and not domain:
        return BY_SAMPLES
    newest = max(entry.since for entry in entries().values() if (entry.domain, entry.op_type) == (domain, op_type))
    return bound_of(entries()[domain, op_type, newest].scale)


def bound_of(scale: Callable[..., Any] | None) -> str:
    """How an operator's error is bounded, in a word or a line: the first paragraph of what its scale function says."""
    if scale is None:
        return "none: its outputs are unjudged"
    if scale is exact:
        return "exact"
    first_paragraph = (scale.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(first_paragraph.split()).rstrip(".") or "bounded"


_RULES = (
    ("composed", r"\bCOMPOSED\b"),
    ("dot", r"\bDOT\b"),
    ("distribution", r"^Judged by support|\ba distribution\b"),
    ("exact", r"^[Ee]xact"),
)


def rule_of(bound: str) -> str:
    """The rule that a bound's line names; errors in units of the last place where it names none."""
    return next((rule for rule, pattern in _RULES if re.search(pattern, bound)), "ulp")
