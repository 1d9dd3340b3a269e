"""What the oracle does not judge although a schema allows it, each with its reason.

A node in one of these types, or of one of these operators, ends as UNJUDGED, never as a pass.
"""

from __future__ import annotations

from collections.abc import Mapping

UNJUDGED: Mapping[tuple[str, str], tuple[frozenset[str] | None, str]] = {
    ("", "Col2Im"): (
        frozenset({"tensor(string)"}),
        "overlapping blocks are added, and the specification does not say what the sum of two strings is",
    ),
    ("", "GridSample"): (
        frozenset({"tensor(string)"}),
        "samples are weighted means of neighbours, and strings have none",
    ),
    ("ai.onnx.preview.training", "Gradient"): (
        None,
        "it differentiates a part of the graph around it, which a node on its own does not know",
    ),
    ("com.microsoft", "FusedGemm"): (
        frozenset({"tensor(int32)", "tensor(int64)", "tensor(uint32)", "tensor(uint64)"}),
        "activations are functions of floating-point numbers; no text says what they are on integers",
    ),
    ("com.microsoft", "GroupQueryAttention"): (
        frozenset({"tensor(uint8)", "tensor(int8)", "tensor(float8e4m3fn)"}),
        "a quantized cache and its scales are not modelled",
    ),
}
"""(domain, op_type) -> the types that are not judged (None: the operator as a whole), and why."""


def unjudged_reason(domain: str, op_type: str, type_str: str | None = None) -> str:
    """Why an operator, or an operator in one type of its schema, is not judged; "" where it is."""
    types, reason = UNJUDGED.get((domain, op_type), (frozenset(), ""))
    return reason if types is None or (type_str is not None and type_str in types) else ""
