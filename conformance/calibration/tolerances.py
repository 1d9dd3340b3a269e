"""What the fixed tolerances in use would have said of the same tensors.

- ONNX: the backend tests, |a − r| <= 1e-7 + 1e-3·|r|, whatever the type.
- ONNX Runtime: its operator tests, 1e-5 + 1e-4·|r| for float32 (float64 1e-5 and 1e-5, float16 2.5e-3 and 1e-3,
  bfloat16 2e-2 and 1e-2); integers equal.
- Polygraphy: |a − r| <= 1e-5 or |a − r| <= 1e-5·|r|.
- OpenVINO: its layer tests, |a − r| <= 1e-2 or |a − r| <= 1e-2·max(|a|, |r|).

NaN is accepted where NaN is expected and infinity where the same infinity is, by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...operators.scale import Array
from ...operators.storage import encode, is_float

ORT = {"float64": (1e-5, 1e-5), "float32": (1e-5, 1e-4), "float16": (2.5e-3, 1e-3), "bfloat16": (2e-2, 1e-2)}


def _onnx(a: Array, r: Array, _name: str) -> Array:
    return np.abs(a - r) <= 1e-7 + 1e-3 * np.abs(r)


def _onnxruntime(a: Array, r: Array, name: str) -> Array:
    absolute, relative = ORT.get(name, (0.0, 0.0))
    return np.abs(a - r) <= absolute + relative * np.abs(r)


def _polygraphy(a: Array, r: Array, _name: str) -> Array:
    gap = np.abs(a - r)
    return (gap <= 1e-5) | (gap <= 1e-5 * np.abs(r))


def _openvino(a: Array, r: Array, _name: str) -> Array:
    gap = np.abs(a - r)
    return (gap <= 1e-2) | (gap <= 1e-2 * np.maximum(np.abs(a), np.abs(r)))


FIXED: Mapping[str, Callable[[Array, Array, str], Array]] = {
    "ONNX": _onnx,
    "ORT": _onnxruntime,
    "Polygraphy": _polygraphy,
    "OpenVINO": _openvino,
}


def accepted(
    actual: Sequence[Any], references: Sequence[Any], dtypes: Sequence[np.dtype[Any] | None]
) -> frozenset[str]:
    """The fixed tolerances that accept these outputs.

    Args:
        actual: stored outputs of a runtime.
        references: float64 where floating-point, else exact.
        dtypes: in which the references are stored before they are compared.
    """
    alike = [
        isinstance(a, np.ndarray) and a.shape == np.shape(r) and (d is None or a.dtype == d)
        for a, r, d in zip(actual, references, dtypes, strict=True)
    ]
    if not all(alike):
        return frozenset()
    pairs = [_pair(a, r) for a, r in zip(actual, references, strict=True)]
    return frozenset(name for name, rule in FIXED.items() if all(_all_within(rule, *pair) for pair in pairs))


def _pair(actual: Array, reference: Array) -> tuple[Array, Array, str]:
    stored = encode(reference, actual.dtype) if is_float(actual.dtype) else reference
    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    return actual.astype(wide), np.asarray(stored).astype(wide), actual.dtype.name


def _all_within(rule: Callable[[Array, Array, str], Array], a: Array, r: Array, name: str) -> bool:
    with np.errstate(all="ignore"):
        same = (a == r) | (np.isnan(a) & np.isnan(r))
        return bool((same | (np.isfinite(a) & np.isfinite(r) & rule(a, r, name))).all())
