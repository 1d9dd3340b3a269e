"""The adapters that come with onnx-arch, by the name that `--runtime` takes; importing this imports no runtime.

Add a runtime (recipe):

1. Write one .py file that defines `load(model_path, options)`; `worker.py` documents the contract.
2. Try it at once, unregistered: `onnx-arch check model.onnx --runtime path/to/my_adapter.py`.
3. To ship it, put the file in this folder as `<name>_adapter.py` and add an `AdapterEntry` below.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from ..errors import DuplicateEntryError, UnknownEntryError

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class AdapterEntry:
    """One registered adapter.

    Attributes:
        name: what `RuntimeOptions.runtime` calls it.
        script: its .py file.
        title: one line for a reader.
        distributions: packages that install the runtime, the first one installed gives its version.
    """

    name: str
    script: Path
    title: str
    distributions: tuple[str, ...] = ()

    @property
    def version(self) -> str | None:
        """Version of the runtime in this interpreter, from its package's metadata; None where it is not installed."""
        for distribution in self.distributions:
            try:
                return importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None


_entries: dict[str, AdapterEntry] = {}


def register(entry: AdapterEntry) -> AdapterEntry:
    """Add an adapter.

    Raises:
        DuplicateEntryError: its name is taken.
    """
    if entry.name in _entries:
        taken = _entries[entry.name].script.name
        raise DuplicateEntryError(f"runtime {entry.name!r} is already registered with {taken}")
    _entries[entry.name] = entry
    return entry


def listings() -> tuple[AdapterEntry, ...]:
    """All registered adapters in order of their names."""
    return tuple(_entries[name] for name in sorted(_entries))


def find_script(runtime: str) -> Path:
    """The adapter file of a runtime: of a registered name, or the path of a .py file.

    Raises:
        UnknownEntryError: neither.
    """
    if runtime in _entries:
        return _entries[runtime].script
    path = Path(runtime)
    if path.suffix == ".py" and path.is_file():
        return path.resolve()
    known = ", ".join(sorted(_entries))
    what = "no such file" if path.suffix == ".py" else "no such name"
    raise UnknownEntryError(f"runtime {runtime!r}: {what}; give one of {known}, or the path of an adapter's .py file")


register(
    AdapterEntry(
        "onnxruntime",
        _HERE / "onnxruntime_adapter.py",
        "ONNX Runtime, on CPU or CUDA",
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-silicon"),
    )
)
register(
    AdapterEntry(
        "onnx-reference",
        _HERE / "onnx_reference_adapter.py",
        "the reference evaluator of the onnx package, in NumPy",
        ("onnx",),
    )
)
register(
    AdapterEntry(
        "openvino",
        _HERE / "openvino_adapter.py",
        "OpenVINO, on the CPU",
        ("openvino",),
    )
)
