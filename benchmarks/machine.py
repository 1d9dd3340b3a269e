"""The machine and the versions that a measurement was taken with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("onnx", "onnxruntime", "numpy", "torch", "onnxscript")
_CPU_INFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe() -> dict[str, Any]:
    """Machine, system and versions; nothing that names a person, a host or a folder.

    Returns:
        `cpu` (model name), `cores` (that this process may use), `governor` (frequency governor, "" if unknown),
        `memory_bytes`, `load_1min` (of the machine when asked: above 0 others were at work), `system`, `python`,
        `versions` (of the packages installed beside this one).
    """
    import psutil  # noqa: PLC0415 - only where a machine is described

    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "governor": _read(_GOVERNOR),
        "memory_bytes": psutil.virtual_memory().total,
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions(),
    }


def usable_cores() -> int:
    """Physical cores that this process may use: what both sides get as threads when none are asked for."""
    import psutil  # noqa: PLC0415 - only where a machine is described

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def cpu_model() -> str:
    """The processor's model name, or its architecture where the system does not say."""
    for line in _read(_CPU_INFO).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed_versions() -> dict[str, str]:
    """Version by package, of those of `PACKAGES` that are installed; read from metadata, nothing is imported."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
