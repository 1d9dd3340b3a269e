"""The official ONNX node tests of the installed `onnx`, as single calls of a kernel.

    CASES = cases({"Add", "Sub"})

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_node_case(case: Case) -> None:
        check_case(case)

Only models of one node are taken: the others are expansions of function bodies. The expected outputs are ONNX's own.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from hypothesis import settings
from onnx import numpy_helper

from onnx_arch.operators.evaluation import output_dtypes, prepare
from onnx_arch.operators.registry import SEAM_PARAMETERS, find_kernel
from onnx_arch.operators.scale import Array, Rule, Scale
from onnx_arch.operators.storage import encode, float_format, is_float

examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)
"""Settings of property tests: the same examples in every run, and no time limit on a loaded machine."""

UNSCALED_UNITS = 8.0
"""Half-units of |expected| that a float output may differ by where its operator has no scale."""


@dataclass(frozen=True)
class Case:
    """One node with stored inputs and the outputs that ONNX expects.

    Attributes:
        name: of the ONNX test.
        op_type: the node's operator.
        domain: "" for ai.onnx.
        opset: the model's version of `domain`.
        attributes: by ONNX name: int, float, str, lists of these, arrays (tensors), GraphProto (subgraphs).
        inputs: stored arrays, lists for sequences, None where absent.
        outputs: as `inputs`, None where the node names no output.
    """

    name: str
    op_type: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    def __str__(self) -> str:
        return self.name


def cases(op_types: set[str], *, domain: str = "") -> list[Case]:
    """The single-node tests of these operators, in ONNX's order.

    Raises:
        LookupError: there is no test at all for one of them (a misspelt name would test nothing).
    """
    found = [case for case in all_cases() if case.op_type in op_types and case.domain == domain]
    missing = op_types - {case.op_type for case in found}
    if missing:
        raise LookupError(f"onnx {onnx.__version__} has no single-node test of {', '.join(sorted(missing))}")
    return found


@cache
def all_cases() -> tuple[Case, ...]:
    with warnings.catch_warnings():
        # ONNX computes its expected values of log(0), 1/0 and the like while collecting, and NumPy warns of them.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415 (takes seconds: only when asked for)

        tests = load_model_tests(kind="node")
    return tuple(_case(test) for test in tests if len(test.model.graph.node) == 1)


def _case(test: Any) -> Case:
    node = test.model.graph.node[0]
    (inputs, outputs) = test.data_sets[0]
    versions = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in test.model.opset_import}
    return Case(
        name=test.name,
        op_type=node.op_type,
        domain=node.domain,
        opset=versions[node.domain],
        attributes={attribute.name: _attribute(attribute) for attribute in node.attribute},
        inputs=_by_name(node.input, inputs),
        outputs=_by_name(node.output, outputs),
    )


def _by_name(names: Sequence[str], present: Sequence[Any]) -> tuple[Any, ...]:
    values = iter(present)
    return tuple(_stored(next(values)) if name else None for name in names)


def _stored(value: Any) -> Any:
    if isinstance(value, list):
        return [_stored(item) for item in value]
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return None if value is None else np.asarray(value)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list):
        return [item.decode() if isinstance(item, bytes) else item for item in value]
    return value if isinstance(value, int | float | onnx.GraphProto) else list(value)


def check_case(case: Case) -> None:
    """Evaluate the kernel on the case's inputs and compare dtype, shape and values with what ONNX expects.

    Raises:
        AssertionError: with the case, the output and the numbers.
    """
    call = prepare(
        case.op_type,
        case.inputs,
        case.attributes,
        opset=case.opset,
        domain=case.domain,
        output_count=len(case.outputs),
    )
    outputs = call.outputs()
    dtypes = output_dtypes(call, outputs)
    scales = call.scales(outputs) or (None,) * len(outputs)
    assert len(outputs) >= len(case.outputs), f"{case}: {len(outputs)} outputs, ONNX expects {len(case.outputs)}"
    rows = zip(case.outputs, outputs, dtypes, scales, strict=False)
    for index, (expected, actual, dtype, scale) in enumerate(rows):
        if expected is not None:
            check_output(f"{case} output {index}", expected, actual, dtype, scale)


def check_output(where: str, expected: Any, actual: Any, dtype: np.dtype[Any] | None, scale: Scale | None) -> None:
    """Compare one output: dtype, then shape, then values; a list of tensors item by item."""
    if isinstance(expected, list):
        assert isinstance(actual, list), f"{where}: {type(actual)}, expected a sequence"
        assert len(actual) == len(expected), f"{where}: {len(actual)} items, expected {len(expected)}"
        for index, (item, got) in enumerate(zip(expected, actual, strict=True)):
            check_output(f"{where}[{index}]", item, got, None, None)
        return
    if dtype is not None:
        same = dtype == expected.dtype or {dtype.kind, expected.dtype.kind} <= set("OUST")
        assert same, f"{where}: dtype {dtype}, expected {expected.dtype}"
    assert np.shape(actual) == expected.shape, f"{where}: shape {np.shape(actual)}, expected {expected.shape}"
    if scale is not None and scale.rule is Rule.DISTRIBUTION:
        return
    judged = np.broadcast_to(np.isfinite(scale.terms) if scale is not None else np.True_, expected.shape)
    exact = scale is not None and scale.rule is Rule.EXACT
    if is_float(expected.dtype) and not exact:
        _check_floats(where, expected, actual, scale, judged)
    else:
        _check_equal(where, expected, actual, judged)


def _check_equal(where: str, expected: Array, actual: Array, judged: Array) -> None:
    actual = np.asarray(actual)
    stored = encode(actual, expected.dtype) if actual.dtype.kind in "fc" else actual
    same = (stored == expected) | ~judged
    if is_float(expected.dtype) or expected.dtype.kind == "c":
        same = same | (np.isnan(stored) & np.isnan(expected))
    wrong = np.flatnonzero(~np.asarray(same, bool))
    assert not wrong.size, (
        f"{where}: {wrong.size} of {expected.size} differ, first {stored.flat[wrong[0]]!r}, "
        f"expected {expected.flat[wrong[0]]!r}"
    )


def _check_floats(where: str, expected: Array, actual: Array, scale: Scale | None, judged: Array) -> None:
    magnitude = np.abs(actual) if scale is None else scale.magnitude
    z = deviations(expected, actual, magnitude)
    allowed = np.broadcast_to(_allowed(scale), expected.shape)
    wrong = np.flatnonzero(~(z <= allowed) & judged)
    assert not wrong.size, (
        f"{where}: {wrong.size} of {expected.size} differ, first {actual.flat[wrong[0]]!r}, expected "
        f"{expected.flat[wrong[0]]!r}: z = {z.flat[wrong[0]]:.3g}, allowed {allowed.flat[wrong[0]]:.3g}"
    )


def _allowed(scale: Scale | None) -> Any:
    """|z| for one element: the bound of ULP, the certain bound 2·k of sums, with a unit for the expected value."""
    if scale is None:
        return UNSCALED_UNITS
    return np.asarray(scale.terms) + 1 if scale.rule is Rule.ULP else 2 * np.asarray(scale.terms) + 2


def deviations(stored: Array, reference: Array, magnitude: Any) -> Array:
    """|z| of stored values: the error in half-units of the last place at `magnitude`; 0 where both are the same.

    Equal infinities and NaN on both sides count as 0, as does a finite reference that the stored type rounds to the
    same infinity; anything else that is not finite counts as infinite.
    """
    form = float_format(stored.dtype)
    values = stored.astype(np.float64)
    with np.errstate(all="ignore"):
        unit = np.maximum(np.asarray(magnitude) * 2.0 ** (-1 - form.fraction_bits), form.smallest_normal)
        z = np.abs(values - reference) / unit
        rounded = encode(np.asarray(reference, np.float64), stored.dtype).astype(np.float64)
    same = (rounded == values) & ~np.isfinite(values)
    same |= np.isnan(values) & np.isnan(reference)
    z = np.where(same, 0.0, z)
    return np.where(np.isnan(z), np.inf, z)


def versions(op_types: set[str]) -> list[tuple[str, int]]:
    """Every (op_type, since_version) of these operators that the installed onnx knows, oldest first."""
    schemas = onnx.defs.get_all_schemas_with_history()
    found = {(s.name, s.since_version) for s in schemas if not s.domain and s.name in op_types}
    return sorted(found)


def check_signature(op_type: str, version: int) -> None:
    """Compare a kernel's parameters with the schema: the attributes with their defaults, and the inputs.

    Raises:
        AssertionError: what differs.
    """
    schema = onnx.defs.get_schema(op_type, version, "")
    entry = find_kernel(op_type, opset=version)
    signature = inspect.signature(entry.function).parameters.values()
    attributes = {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}
    extra = {name for name in attributes if name not in schema.attributes} - SEAM_PARAMETERS
    assert not extra, f"{op_type} {version}: {extra} are no attributes"
    for name, attribute in schema.attributes.items():
        assert name in attributes, f"{op_type} {version}: the kernel has no {name}"
        assert attributes[name] == _default(attribute), f"{op_type} {version}: {name} defaults to {attributes[name]!r}"
    positional = [p for p in signature if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    is_variadic = any(p.kind is p.VAR_POSITIONAL for p in signature)
    optional = [str(formal.option).endswith("Optional") for formal in schema.inputs]
    assert is_variadic or [p.default is None for p in positional] == optional, f"{op_type} {version}: inputs"
    assert entry.scale is not None, f"{op_type} {version} has no scale"


def _default(attribute: Any) -> Any:
    if attribute.required:
        return inspect.Parameter.empty
    value = onnx.helper.get_attribute_value(attribute.default_value) if attribute.default_value.type else None
    return value.decode() if isinstance(value, bytes) else value
