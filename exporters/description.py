"""What a bundle's manifest says, from an export and its proof; pure functions."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from .. import __version__
from ..architectures.specification import GraphSpec
from ..graphs.loading import BUNDLE_MODEL
from .bundle import TEST_DATA, Bundle
from .proof import LARGEST_RMS_Z, GraphProof, Standing, Trial
from .provenance import COMPUTED, Origin, unused_parameters
from .proving import Exported
from .serialization import WrittenFile
from .sweep import classify_dims, dims_text

PACKAGES = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy", "ml_dtypes")


def versions() -> dict[str, str]:
    """Versions of everything that makes an export what it is."""
    return {"onnx-arch": __version__, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def describe_files(files: Iterable[WrittenFile]) -> dict[str, Any]:
    """SHA-256 and size of every file, by its path in the bundle."""
    return {file.name: {"sha256": file.sha256, "size_bytes": file.size_bytes} for file in files}


def describe_graph(exported: Exported, proof: GraphProof, folder: str) -> dict[str, Any]:
    """One graph: its ports, dims, parameters and verdict.

    Args:
        exported: the graph.
        proof: its proof.
        folder: "" or the path of its folder in the bundle, ending in "/".
    """
    spec, trace = exported.spec, exported.trace
    first = exported.cases[0]
    tested = [shape.sizes for shape in proof.shapes if shape.graph.standing is Standing.PASSED]
    entry: dict[str, Any] = {
        "name": spec.name,
        "model": folder + BUNDLE_MODEL,
        "test_data": folder + TEST_DATA,
        "inputs": [_port(name, array, trace.dims[name]) for name, array in first.feeds.items()],
        "outputs": [_port(name, array, trace.dims[name]) for name, array in first.stored.items()],
        "dims": classify_dims(spec, trace.dims, tested),
        "refused": [{"sizes": dict(sizes), "reason": reason} for sizes, reason in proof.refused],
        "initializers": {
            name: _origin(origin, name in trace.recipes) for name, origin in trace.origins.items() if origin.parameters
        },
        "optimized": not trace.remark,
        "remark": trace.remark,
        "unused_parameters": unused_parameters(trace.parameters, trace.origins),
        "vanished_parameters": list(trace.vanished),
        "proof": {"translation": proof.translation, "onnxruntime": proof.runtime, "shapes": len(proof.shapes)},
    }
    return entry


def _origin(origin: Origin, has_recipe: bool) -> dict[str, Any]:
    """An initializer's origin; of a computed one also whether `recipes.onnx` computes it."""
    return asdict(origin) | ({"recipe": has_recipe} if origin.transform == COMPUTED else {})


def _port(name: str, array: Any, dims: Any) -> dict[str, Any]:
    return {"name": name, "dtype": array.dtype.name, "shape": list(dims)}


def describe_image(graphs: Iterable[GraphSpec]) -> dict[str, Any]:
    """How a photograph becomes the input, where one does."""
    found = [spec.image_preprocessing for spec in graphs if spec.image_preprocessing is not None]
    return {"image_preprocessing": asdict(found[0])} if found else {}


def describe_proof(proof: GraphProof) -> dict[str, Any]:
    """The figures of a proof, for the record."""
    shapes = [
        {"sizes": dict(shape.sizes), "translation": _trial(shape.graph), "onnxruntime": _trial(shape.runtime)}
        for shape in proof.shapes
    ]
    divergence = None if proof.divergence is None else asdict(proof.divergence)
    return {"graph": proof.graph, "shapes": shapes, "divergence": divergence}


def _trial(trial: Trial) -> dict[str, Any]:
    outputs = [{key: _finite(value) for key, value in asdict(item).items()} for item in trial.comparisons]
    return {"standing": trial.standing, "outputs": outputs, "message": trial.message}


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def problems(proof: GraphProof) -> list[str]:
    """One line per thing that is not green: which output, where, by how much, and why it was not judged.

    An output that is wrong at several shapes is told at the first of them.
    """
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for shape in proof.shapes:
        for who, trial in (("graph", shape.graph), ("runtime", shape.runtime)):
            place, message = _sizes(shape.sizes), f"{trial.standing}: {trial.message}"
            if trial.message:
                found.setdefault(("", message), []).append((place, message))
            for item in trial.comparisons:
                if item.standing is not Standing.PASSED:
                    told = (place, f"output {item.output}: {item.message}")
                    found.setdefault((who, item.output), []).append(told)
    lines = [_placed(told, len(proof.shapes)) for told in found.values()]
    return lines + ([proof.divergence.message] if proof.divergence is not None else [])


def _placed(told: Sequence[tuple[str, str]], shapes: int) -> str:
    """What is wrong, with the shapes at which it is so, unless it is the same at all."""
    place, text = told[0]
    if len({words for _, words in told}) > 1:
        others = f"{text} (wrong at {len(told) - 1} more)"
        return f"at {place}: {others}" if place else others
    shown = "; ".join(dict.fromkeys(place for place, _ in told if place))
    return f"at {shown}: {text}" if shown and len(told) < shapes else text


def result_lines(bundle: Bundle) -> Iterator[str]:
    """An export for a person: where it is, what is free, tied and frozen, how it was proved, what is not green."""
    yield _head(bundle)
    for entry, proof in zip(bundle.manifest["graphs"], bundle.proofs, strict=True):
        name = f"{proof.graph}: " if len(bundle.proofs) > 1 else ""
        yield from (f"  {name}{line}" for line in dims_text(entry["dims"]))
        where = "shape" if len({_sizes(shape.sizes) for shape in proof.shapes}) == len(proof.shapes) else "input"
        yield f"  {name}graph in float64 against the module: {_figures([shape.graph for shape in proof.shapes], where)}"
        yield f"  {name}ONNX Runtime against the module: {_figures([shape.runtime for shape in proof.shapes], where)}"
        yield from [f"  {name}not optimised: {entry['remark']}"] if entry["remark"] else []
        yield from (f"  {name}not tried at {_sizes(sizes)}: the module says {why}" for sizes, why in proof.refused)
        yield from (f"  {name}{line}" for line in problems(proof))


def _head(bundle: Bundle) -> str:
    content = bundle.manifest
    made = f"opset {content['opset']}, {content['dtype']}, {content['parameters']:,} parameters"
    if not bundle.written:
        return f"{bundle.name}: WRONG, nothing was written ({made})"
    size = sum(file["size_bytes"] for file in content["files"].values())
    return f"{bundle.name}: {bundle.path} ({made}, {size:,} bytes)"


def _figures(trials: Sequence[Trial], where: str) -> str:
    """`passed at 3 shapes, rms z at most 0.17 (allowed 8)`; every standing is counted and named.

    Args:
        trials: what is counted.
        where: "shape", or "input" where several inputs of one shape were tried.
    """
    if not trials:
        return "not tried"
    counts = Counter(trial.standing for trial in trials)
    text = ", ".join(f"{standing} at {count} {where}{'s' * (count > 1)}" for standing, count in counts.items())
    figures = [item.rms_z for trial in trials for item in trial.comparisons if item.rms_z is not None]
    return f"{text}; rms z at most {max(figures):.2g} (allowed {LARGEST_RMS_Z:g})" if figures else text


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())
