"""What can be exported to: element types and opsets; known without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import InvalidArgumentError

DTYPES = ("float32", "float16", "bfloat16", "float64")
"""Floating-point types that a module can be exported in."""

OLDEST_OPSET = 18
NEWEST_OPSET = 28
"""ONNX Runtime 1.32 loads up to this one; torch.onnx makes up to 25, from which `opsets.raise_opset` goes on."""

DEFAULT_OPSET = 20
"""The first opset with `Gelu`, and read by every ONNX Runtime since 1.17. From 23 on attention becomes one `Attention`
node, which on ONNX Runtime's CPU was measured slower than the decomposed form: nobody gets it without asking."""

NATIVE = "native"
SCATTER = "scatter"
UNPOOLS = (NATIVE, SCATTER)
"""What unpooling becomes: `MaxUnpool`, or a scatter for runtimes that have none (ONNX Runtime on CUDA)."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy (or `ml_dtypes`) dtype of that name.

    Raises:
        InvalidArgumentError: no such dtype.
    """
    try:
        return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)
    except TypeError:
        raise InvalidArgumentError(f"no dtype {name!r}; known are float32, float16, bfloat16, int64, bool, …") from None


BFLOAT16_OPSET = 22
"""The default for bfloat16: the first opset in which Conv, the pools and the normalisations take it."""


def default_opset(dtype: str | None) -> int:
    """The opset of an export in `dtype` that asks for none."""
    return BFLOAT16_OPSET if dtype == "bfloat16" else DEFAULT_OPSET


def bundle_name(subject: str) -> str:
    """The name of a subject's bundle: the architecture's, or that of the factory in `path/to/file.py:factory`.

    Raises:
        InvalidArgumentError: a file without a factory, or no name.
    """
    name = subject.rpartition(":")[2]
    if not name or name.endswith(".py") or "/" in name or name in (".", ".."):
        raise InvalidArgumentError(
            f"{subject!r}; allowed are an architecture, path/to/file.py:factory and package.module:factory"
        )
    return name


def check_names(subjects: Sequence[str]) -> None:
    """Refuse to write two bundles to one place.

    Raises:
        InvalidArgumentError: two subjects have the same bundle name, or one has none.
    """
    names = [bundle_name(subject) for subject in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidArgumentError(f"{' and '.join(subjects)} would both be written to {twice[0]}; export them apart")


def check_target(dtype: str | None, opset: int | None, unpool: str = NATIVE) -> None:
    """Refuse a type, opset or form that a module cannot be exported to; None leaves the choice open.

    Raises:
        InvalidArgumentError: not one of `DTYPES` or `UNPOOLS`, or an opset out of range.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InvalidArgumentError(f"dtype {dtype!r}; allowed are {', '.join(DTYPES)}")
    if opset is not None and not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise InvalidArgumentError(f"opset {opset}; allowed are {OLDEST_OPSET} to {NEWEST_OPSET}")
    if unpool not in UNPOOLS:
        raise InvalidArgumentError(f"unpool {unpool!r}; allowed are {', '.join(UNPOOLS)}")
