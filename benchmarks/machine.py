"""The machine as far as speed depends on it: how many cores, how fast they may run, how busy they were."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..runtimes import environment

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe() -> dict[str, Any]:
    """What `runtimes.environment.describe` says, and the state of the machine when asked.

    Returns:
        In addition: `load_1min` (above 0 others were at work), `governor` (of the cores' frequency), `physical_cores`
        (that this process may use); None where the system does not say.
    """
    return {
        **environment.describe(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "governor": _governor(),
        "physical_cores": usable_cores(),
    }


def usable_cores() -> int:
    """Physical cores that this process may use: what both sides get as threads when none are asked for."""
    import psutil  # noqa: PLC0415 - only where a machine is described

    allowed = environment.cores()
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def _governor() -> str | None:
    try:
        return _GOVERNOR.read_text(encoding="utf-8").strip()
    except OSError:
        return None
