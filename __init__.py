"""Build, export, check operator by operator and benchmark neural networks in ONNX.

The public functions are imported when they are first asked for: `import onnx_arch` itself imports nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance.check import check_model as check_model
    from .errors import OnnxArchError as OnnxArchError
    from .exporters.export import export_architecture as export_architecture
    from .exporters.export import export_module as export_module
    from .graphs.loading import load_model as load_model
    from .operators.evaluation import evaluate as evaluate

__version__ = "0.1.0"

_PLACES = {
    "OnnxArchError": "errors",
    "check_model": "conformance.check",
    "evaluate": "operators.evaluation",
    "export_architecture": "exporters.export",
    "export_module": "exporters.export",
    "load_model": "graphs.loading",
}
"""In which module each public name is defined."""

__all__ = [
    "OnnxArchError",
    "__version__",
    "check_model",
    "evaluate",
    "export_architecture",
    "export_module",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
