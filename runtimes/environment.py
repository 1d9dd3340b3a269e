"""What a result was made with and on: versions and the machine; no host name, no user name, no path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

PACKAGES = ("onnx-arch", "numpy", "ml_dtypes", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "torch")
"""Distributions whose versions are recorded where they are installed."""

_CPU_INFO = Path("/proc/cpuinfo")
_CPU_NAME = re.compile(r"^(?:model name|Model|Hardware|cpu model)\s*:\s*(.+)$", re.MULTILINE)


def describe() -> dict[str, Any]:
    """The environment as JSON values.

    Returns:
        `python` and `system` (name, release, machine), `packages` by name, `cpu` (model name), `cores` (that this
        process may use), `memory_bytes`, `blas` (what NumPy multiplies with, with its number of threads). What the
        system does not say is None.
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {kernel_version()} {platform.machine()}",
        "packages": package_versions(),
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "blas": blas_name(),
    }


def kernel_version() -> str:
    """Numbers of the kernel's release; what follows them may name a machine."""
    release = platform.release()
    numbers = re.match(r"\d+(?:\.\d+)*", release)
    return numbers.group() if numbers is not None else release


def package_versions() -> dict[str, str]:
    """Versions of the installed ones of `PACKAGES`, from their metadata; none of them is imported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str | None:
    """The processor's model name."""
    try:
        match = _CPU_NAME.search(_CPU_INFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        match = None
    return match.group(1).strip() if match is not None else (platform.processor() or None)


def cores() -> int:
    """Logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Physical memory."""
    import psutil  # noqa: PLC0415 - only where it is asked for

    return int(psutil.virtual_memory().total)


def blas_name() -> str | None:
    """The BLAS that NumPy has loaded, its version and its threads: "openblas 0.3.30, 2 threads"."""
    import numpy as np  # noqa: PLC0415, F401 - loads the library that is asked about
    from threadpoolctl import threadpool_info  # noqa: PLC0415 - only where it is asked for

    libraries = [library for library in threadpool_info() if library.get("user_api") == "blas"]
    libraries.sort(key=lambda library: "numpy" not in library["filepath"])  # torch may bring another
    if not libraries:
        return None
    return f"{libraries[0]['internal_api']} {libraries[0]['version']}, {libraries[0]['num_threads']} threads"
