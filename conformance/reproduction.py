"""A failing case as a folder that shows it alone: the model, its inputs, what is expected, and a script.

model.onnx  test_data_set_0/    the case, in ONNX's own format
inputs.npz  expected.npz        the inputs; what is expected, its float64 reference, scale and bound per element
verdict.json                    the row of the results, and what it was found with
repro.py  ISSUE.md              runs with NumPy and the runtime alone; a text to begin an issue with
adapter.py                      how the runtime is called, where repro.py does not say it itself
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import InvalidArgumentError, InvalidAttributeError, InvalidInputError, MissingKernelError
from ..graphs.evaluation import evaluate_model, propagated_spread
from ..graphs.model import Model
from ..graphs.surgery import save_proto
from ..graphs.test_data import write_test_data
from ..operators.rounding import growth, half_unit
from ..operators.scale import Array, Rule, Scale
from ..operators.storage import encode, float_format, is_float
from ..runtimes._wire import RAW_DTYPES
from ..runtimes.environment import describe
from ..runtimes.registry import find_script
from ..runtimes.session import RuntimeOptions
from ._reproduction_script import BY_ADAPTER, LEVELS, PLAIN_RUNTIMES, PROVIDERS, Text, issue_text, script_text
from .json_lines import to_plain
from .model_outputs import SPREAD_FACTOR, WATCHED_FACTOR
from .oracle import Oracle
from .results import NodeResult
from .rounded import OUTLIER_FLOOR

_UNCOMPUTED = (MissingKernelError, InvalidInputError, InvalidAttributeError)


@dataclass(frozen=True)
class Expected:
    """What an output must be.

    Attributes:
        stored: in its own type.
        reference: float64 where floating-point.
        scale: at which size rounding happens; None where that is not known.
        bound: how far an element may be off.
    """

    stored: Array
    reference: Array
    scale: Array | None
    bound: Array


@dataclass(frozen=True)
class Failure:
    """A failing case, ready to be written.

    Attributes:
        name: of the case; of the folder, too.
        model: its model.
        feeds: the inputs that it fails with.
        row: what became of it.
        options: how the runtime was called.
        versions: of the runtime's packages.
    """

    name: str
    model: Model
    feeds: Mapping[str, Any]
    row: NodeResult
    options: RuntimeOptions
    versions: Mapping[str, str]


def write_reproduction(folder: Path, failure: Failure) -> Path:
    """Write the folder of a failure inside `folder`; one of that name is replaced.

    Raises:
        InvalidArgumentError: it cannot be written.
    """
    target = folder / safe_name(failure.name)
    try:
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        _write(target, failure)
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {error.filename or target}: {error.strerror or error}") from error
    return target


def safe_name(name: str) -> str:
    """The name of a case as that of a folder."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._") or "case"


def _write(target: Path, failure: Failure) -> None:
    expected = dict(expected_outputs(failure.model, failure.feeds, failure.row))
    save_proto(failure.model.proto, failure.model.path, target / "model.onnx", standalone=True)
    stored = {name: item.stored for name, item in expected.items()}
    write_test_data(failure.model, target / "test_data_set_0", failure.feeds, stored)
    _save(target / "inputs.npz", dict(_arrays(failure.feeds)))
    _save(target / "expected.npz", _expected_arrays(expected))
    found_with = {"options": _options(failure), "environment": {**describe(), "runtime_versions": failure.versions}}
    verdict = json.dumps(to_plain({"row": failure.row, **found_with}), indent=2, allow_nan=False)
    (target / "verdict.json").write_text(verdict + "\n", encoding="utf-8")
    text, load = _text(failure), _load(failure)
    if load is None:
        shutil.copyfile(find_script(failure.options.runtime), target / "adapter.py")
        load = BY_ADAPTER.format(options={**_adapter_options(failure.options)})
    outputs = {name: _type_name(item.stored) for name, item in expected.items()}
    (target / "repro.py").write_text(script_text(text, load, failure.feeds, outputs), encoding="utf-8")
    (target / "ISSUE.md").write_text(issue_text(text), encoding="utf-8")


def _save(file: Path, arrays: Mapping[str, Array]) -> None:
    """What numpy.savez writes, for arrays of any name."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def expected_outputs(model: Model, feeds: Mapping[str, Any], row: NodeResult) -> Iterator[tuple[str, Expected]]:
    """What every output that is a tensor must be; nothing where the oracle cannot compute it."""
    try:
        if len(model.graph.nodes) == 1:
            yield from _of_node(model, feeds, row)
        else:
            yield from _of_graph(model, feeds)
    except _UNCOMPUTED:
        return


def _of_node(model: Model, feeds: Mapping[str, Any], row: NodeResult) -> Iterator[tuple[str, Expected]]:
    node = model.graph.nodes[0]
    local = Oracle(model, feeds).local(node)
    returned = {spec.name for spec in model.graph.outputs}
    for index, (name, value) in enumerate(zip(node.outputs, local.outputs, strict=False)):
        scale = None if local.scales is None or index >= len(local.scales) else local.scales[index]
        comparable = scale is not None and scale.rule is not Rule.DISTRIBUTION and isinstance(value.data, np.ndarray)
        if name in returned and comparable and scale is not None:
            stored = _stored(value.data, value.dtype)
            size = np.broadcast_to(scale.magnitude, value.data.shape)
            yield name, Expected(stored, value.data, size, _bound(scale, stored, row))


def _of_graph(model: Model, feeds: Mapping[str, Any]) -> Iterator[tuple[str, Expected]]:
    clean = evaluate_model(model, feeds)
    spread = propagated_spread(model, feeds)
    for spec in model.graph.outputs:
        value = clean[spec.name]
        if isinstance(value, np.ndarray):
            stored = _stored(value, spec.dtype)
            reach = WATCHED_FACTOR * spread[spec.name]
            if is_float(stored.dtype):
                reach = 2 * SPREAD_FACTOR * (spread[spec.name] + np.abs(value) * half_unit(float_format(stored.dtype)))
            yield spec.name, Expected(stored, value, None, reach)


def _stored(value: Array, dtype: np.dtype[Any] | None) -> Array:
    if value.dtype.kind not in "fc":
        return value
    return encode(value, np.dtype(np.float32) if dtype is None else dtype)


def _bound(scale: Scale, stored: Array, row: NodeResult) -> Array:
    """The certain bound per element; where the failure lies within it, how far sums in their natural order go."""
    terms = np.broadcast_to(np.asarray(scale.terms, np.float64), stored.shape)
    if scale.rule is Rule.EXACT or not is_float(stored.dtype):
        return np.where(np.isinf(terms), np.inf, terms if stored.dtype.kind in "iu" else 0.0)
    form = float_format(stored.dtype)
    unit = np.maximum(np.broadcast_to(scale.magnitude, stored.shape) * half_unit(form), form.smallest_normal)
    if scale.rule is Rule.ULP:
        return terms * unit
    k = growth(float(terms[np.isfinite(terms)].max(initial=0.0)), form)
    proved = row.max_z is not None and row.max_z > 2 * k
    return np.where(np.isinf(terms), np.inf, (2 * k if proved else min(2 * k, OUTLIER_FLOOR * k**0.5)) * unit)


def _arrays(values: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    """Every array by the key under which repro.py reads it: items of sequences apart, strings as unicode."""
    for key, value in values.items():
        if isinstance(value, list):
            yield from _arrays({f"{key}[{index}]": item for index, item in enumerate(value)})
        elif value is not None:
            yield key, _plain(np.asarray(value))


def _plain(array: Array) -> Array:
    """As NumPy's own files hold it: bits of the types that NumPy lacks."""
    if array.dtype.kind in "OUS":
        return array.astype(str)
    return array.view(RAW_DTYPES[array.dtype.name]) if array.dtype.name in RAW_DTYPES else array


def _type_name(stored: Array) -> str:
    return "string" if stored.dtype.kind in "OUS" else stored.dtype.name


def _expected_arrays(expected: Mapping[str, Expected]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name, item in expected.items():
        raw = item.stored.dtype.name in RAW_DTYPES
        if raw:
            found[f"values of {item.stored.dtype.name}"] = all_values(item.stored.dtype)
        found[name] = item.stored.astype(np.float64) if raw else _plain(item.stored)
        found[f"{name}.reference"] = _plain(item.reference) if not raw else item.reference.astype(np.float64)
        found[f"{name}.bound"] = np.broadcast_to(item.bound, item.stored.shape)
        if item.scale is not None:
            found[f"{name}.scale"] = item.scale
    return found


def all_values(dtype: np.dtype[Any]) -> Array:
    """The number of every bit pattern; of narrow integers the upper bits count as their sign is extended."""
    bits = np.arange(1 << (8 * dtype.itemsize), dtype=RAW_DTYPES[dtype.name])
    if np.dtype(RAW_DTYPES[dtype.name]).itemsize == 1 and dtype.name in ("int4", "uint4", "int2", "uint2"):
        width = int(ml_dtypes.iinfo(dtype).bits)
        bits = bits & np.uint8((1 << width) - 1)
    with np.errstate(all="ignore"):
        return bits.view(dtype).astype(np.float64)


def _load(failure: Failure) -> str | None:
    """How repro.py calls the runtime; None where it needs the adapter."""
    known = PLAIN_RUNTIMES.get(failure.options.runtime)
    values = [*dict(_arrays(failure.feeds))]
    tensors = [spec.dtype for spec in (*failure.model.graph.inputs, *failure.model.graph.outputs)]
    raw = any(dtype is not None and dtype.name in RAW_DTYPES for dtype in tensors)
    if known is None or raw or failure.options.extra or len(values) < len(failure.feeds):
        return None
    options = failure.options
    return known[1].format(level=LEVELS[options.optimization], provider=PROVIDERS[options.provider])


def _adapter_options(options: RuntimeOptions) -> dict[str, Any]:
    return {
        "provider": options.provider,
        "optimization": options.optimization,
        "threads": options.threads,
        "deterministic": options.deterministic,
        "disabled_optimizers": list(options.disabled_optimizers),
        "profile": False,
        "optimized_model_path": None,
        "extra": dict(options.extra),
        "scratch": ".",
    }


def _options(failure: Failure) -> dict[str, Any]:
    options = failure.options
    chosen = {name: getattr(options, name) for name in ("provider", "optimization", "threads")}
    return {"runtime": Path(options.runtime).name, **chosen}


def _text(failure: Failure) -> Text:
    row, runtime = failure.row, Path(failure.options.runtime).stem
    package = PLAIN_RUNTIMES.get(runtime, (runtime, ""))[0]
    operator = f"{row.domain}::{row.op_type}" if row.domain else row.op_type or "a graph"
    versions = ", ".join(f"{name} {version}" for name, version in failure.versions.items())
    page = f"onnx__{row.op_type}" if not row.domain else f"onnx_{row.domain.replace('.', '')}_{row.op_type}"
    return Text(
        title=f"{operator}: {row.outcome.value}: {row.message.partition(';')[0][:160]}",
        subject=f"{operator}, opset {row.opset}",
        runtime=runtime,
        version=failure.versions.get(package, "of unknown version"),
        package=package,
        message=row.said,
        environment=versions,
        link=f"https://onnx.ai/onnx/operators/{page}.html" if row.op_type else "https://onnx.ai/onnx/operators/",
    )
