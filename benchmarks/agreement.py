"""Whether two sides compute the same thing: only then are their speeds worth comparing.

This is a guard, not a verdict (`onnx-arch check` gives that): it catches another architecture, other weights, a missing
normalisation, dropout left on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np


def disagreement(outputs: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, str]:
    """How far apart two runs of one model are, and what is wrong if that is too far.

    Floating-point outputs agree if the largest |difference| is at most 2^(−p/2) of the largest |value|, p being the
    fraction bits of their type: two right evaluations of a network share at least half of the digits they store.
    Everything else must be equal.

    Args:
        outputs: of one side, by name.
        other: of the other side, by name.

    Returns:
        Largest |difference| over largest |value| of all floating-point outputs (inf where not comparable), and a
        message that is "" if they agree.
    """
    if set(outputs) != set(other):
        return float("inf"), f"outputs {sorted(outputs)} on one side, {sorted(other)} on the other"
    worst, complaints = 0.0, []
    for name, value in outputs.items():
        far, complaint = _compare(value, other[name])
        worst = max(worst, far)
        if complaint:
            complaints.append(f"output {name}: {complaint}")
    return worst, "; ".join(complaints)


def _compare(mine: Any, theirs: Any) -> tuple[float, str]:
    if not (isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray)):
        return float("inf"), "only tensors can be compared"
    if mine.dtype != theirs.dtype:
        return float("inf"), f"dtype {mine.dtype} on one side, {theirs.dtype} on the other"
    if mine.shape != theirs.shape:
        return float("inf"), f"shape {mine.shape} on one side, {theirs.shape} on the other"
    bits = fraction_bits(mine.dtype)
    if bits is None:
        unequal = int(np.count_nonzero(mine != theirs))
        return (float("inf"), f"{unequal} of {mine.size} elements differ") if unequal else (0.0, "")
    wide = np.complex128 if mine.dtype.kind == "c" else np.float64
    far = _relative_distance(mine.astype(wide), theirs.astype(wide))
    allowed = 2.0 ** (-bits / 2)
    return far, "" if far <= allowed else f"differs by {far:.2g} of the largest value; {allowed:.2g} is allowed"


def _relative_distance(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Largest |difference| over largest finite |value|; equal infinities, and NaN in the same place, count as equal."""
    differ = ~((mine == theirs) | (np.isnan(mine) & np.isnan(theirs)))
    if not differ.any():
        return 0.0
    if not (np.isfinite(mine[differ]).all() and np.isfinite(theirs[differ]).all()):
        return float("inf")
    both = np.abs(np.stack([mine, theirs]))
    return float(np.abs(mine[differ] - theirs[differ]).max() / both[np.isfinite(both)].max())


def fraction_bits(dtype: np.dtype[Any]) -> int | None:
    """Stored fraction bits of a floating-point type (float32: 23), None for any other type."""
    try:
        return int(ml_dtypes.finfo(dtype).nmant)
    except ValueError:
        return None
