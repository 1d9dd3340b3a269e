"""Put another checkpoint into a bundle: every initializer is made again from the parameters, and the result proved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from ..architectures.specification import GraphSpec
from ..errors import ExportError, InvalidArgumentError, InvalidModelError
from ..graphs.external import ExternalData, uses_external_data
from ..graphs.loading import read_proto
from ..graphs.tensors import tensor_array
from .arrays import numpy_view, to_torch
from .bundle import Bundle, read_manifest
from .export import Request, Say, Source, export_subject
from .factories import module_subject
from .looping import GENERATE
from .paging import Shelf
from .provenance import COMPUTED, IDENTITY, TRANSPOSED, Origin
from .recipes import RECIPES, Recipes
from .subject import Parameters, Subject, architecture_subject, module_state
from .targets import NATIVE
from .translation import Trace, Translation


def reload_bundle(  # noqa: PLR0913 - what a user may ask for
    bundle: Path,
    weights: Path,
    *,
    output_dir: Path | None = None,
    module: str | None = None,
    allow_missing: bool = False,
    say: Say = lambda _: None,
) -> Bundle:
    """Put a checkpoint into the graphs of a bundle, which stay what they are, and prove them against the module.

    Args:
        bundle: its folder.
        weights: the checkpoint's file or folder.
        output_dir: the result becomes `output_dir`/name; None replaces the bundle.
        module: "path/to/file.py:factory" of a bundle that was made from a factory; None looks in the working folder.
        allow_missing: draw what the checkpoint does not have from the bundle's seed.
        say: told what is done next.

    Returns:
        The bundle with its proof; nothing is written if it is wrong.

    Raises:
        InvalidModelError: no bundle, or its files are not what its manifest says.
        InvalidArgumentError: where its module comes from is not known.
        WeightsError: the checkpoint does not fit.
        ExportError: an initializer cannot be computed from parameters; all are named.
    """
    manifest = read_manifest(bundle)
    _check_files(bundle, manifest)
    _check_recipes(manifest)
    files = manifest["files"]
    reloading = Reloading(bundle, {entry["name"]: entry for entry in manifest["graphs"]})
    request = Request(
        bundle.resolve().parent if output_dir is None else output_dir,
        manifest["opset"],
        Source(manifest["seed"], weights, allow_missing),
        any(name.endswith(".onnx.data") for name in files),
        manifest.get("unpool", NATIVE),
        say=say,
        loop=GENERATE in files,
        asked=manifest["asked"],
        translate=reloading.translate,
    )
    name = bundle.resolve().name if output_dir is None else manifest["name"]
    command = ["onnx-arch", "reload", name, "--weights", weights.name]
    return export_subject(request, name, _builder(manifest, module), command)


def _check_files(bundle: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a bundle that was changed: its manifest no longer says what its graphs are."""
    for name, entry in manifest["files"].items():
        if name.endswith((".onnx", ".onnx.data")):
            try:
                with (bundle / name).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise InvalidModelError(f"{bundle / name}: cannot be read: {error.strerror}") from error
            if digest != entry["sha256"]:
                raise InvalidModelError(f"{bundle / name}: changed since it was exported; export it anew")


def _check_recipes(manifest: Mapping[str, Any]) -> None:
    """Refuse a bundle with initializers that cannot be computed from parameters."""
    if "asked" not in manifest:
        raise InvalidModelError(f"bundle {manifest['name']}: an older onnx-arch made it; export it anew")
    problems = [problem for entry in manifest["graphs"] for problem in _lacking(entry)]
    if problems:
        raise ExportError(f"bundle {manifest['name']} takes no other weights: {'; '.join(problems)}; export it anew")


def _lacking(entry: Mapping[str, Any]) -> Iterator[str]:
    for name, origin in entry.get("initializers", {}).items():
        if origin["transform"] == COMPUTED and not origin.get("recipe"):
            made = f"from {', '.join(origin['parameters'])} by {', '.join(origin['operators']) or 'no known operator'}"
            yield f"{name} was computed {made}, and how is not recorded"
    for name in entry.get("vanished_parameters", ()):
        yield f"parameter {name} was optimised away for the value that it had"


def _builder(manifest: Mapping[str, Any], module: str | None) -> Callable[[Parameters], Subject]:
    """What builds the module of a bundle again."""
    source, asked = manifest["source"], manifest["asked"]
    if "architecture" in source:
        options = {**asked, "preset": source.get("preset", asked["preset"]), "stated": source.get("config")}
        return partial(architecture_subject, source["architecture"], **options)
    spec = module or source["factory"]
    file = Path(spec.rpartition(":")[0])
    if module is None and file.suffix == ".py" and not file.is_file():
        raise InvalidArgumentError(f"the module of this bundle is {spec}; give --module path/to/{spec}")
    return partial(module_subject, spec, **asked)


@dataclass(frozen=True)
class Reloading:
    """The graphs of a bundle with other parameters.

    Attributes:
        bundle: its folder.
        entries: what its manifest says of each graph, by name.
    """

    bundle: Path
    entries: Mapping[str, Mapping[str, Any]]

    def translate(self, module: nn.Module, spec: GraphSpec, shelf: Shelf) -> Translation:
        """The graph of `spec` with the parameters of `module`.

        Raises:
            ExportError: the bundle has no such graph, or an initializer that does not fit.
        """
        entry = self.entries.get(spec.name)
        if entry is None:
            raise ExportError(f"the bundle has no graph {spec.name}; it has {', '.join(self.entries)}")
        file = self.bundle / entry["model"]
        model, constants = _read(file)
        origins = {name: _origin(entry["initializers"].get(name)) for name in model.graph.initializers}
        path = file.with_name(RECIPES)
        following = _Following(module_state(module), Recipes(path) if path.is_file() else None, shelf)
        for name, value in model.graph.initializers.items():
            if origins[name].parameters:
                value.const_value = _fitting(name, following.tensor(name, origins[name], value), value)
            elif name in constants:
                value.const_value = constants[name]
        dims = {port["name"]: tuple(port["shape"]) for port in (*entry["inputs"], *entry["outputs"])}
        named = dict.fromkeys(name for name, origin in entry["initializers"].items() if origin.get("recipe"))
        trace = Trace(None, {}, {}, origins, tuple(following.state), dims, entry["remark"], named)
        return Translation(model, trace, path.read_bytes() if path.is_file() else None)


def _read(file: Path) -> tuple[ir.Model, Mapping[str, ir.TensorProtocol]]:
    """A graph, and those of its initializers that lie outside the message, mapped."""
    proto = read_proto(file)
    external = ExternalData(file.parent, file)
    outside = {
        tensor.name: ir.Tensor(tensor_array(tensor, external), dtype=ir.DataType(tensor.data_type), name=tensor.name)
        for tensor in proto.graph.initializer
        if uses_external_data(tensor)
    }
    return ir.serde.deserialize_model(proto), outside


def _origin(stated: Mapping[str, Any] | None) -> Origin:
    if stated is None:
        return Origin(COMPUTED, ())
    return Origin(stated["transform"], tuple(stated["parameters"]), tuple(stated["operators"]))


@dataclass(frozen=True)
class _Following:
    """Makes initializers from parameters."""

    state: Mapping[str, torch.Tensor]
    recipes: Recipes | None
    shelf: Shelf

    def tensor(self, name: str, origin: Origin, value: ir.Value) -> np.ndarray:
        """The initializer; a view where it is the parameter, transposed or not."""
        if origin.transform == IDENTITY:
            return self.parameter(origin.parameters[0])
        if origin.transform == TRANSPOSED:
            return self.parameter(origin.parameters[0]).T
        if self.recipes is None or name not in self.recipes.names:
            raise ExportError(f"initializer {name}: {RECIPES} does not have it")
        if value.dtype is None:
            raise ExportError(f"initializer {name}: it has no type")
        made = to_torch(self.recipes.compute(name, self.parameter, value.dtype.numpy()))
        place = self.shelf.empty(made.shape, made.dtype)
        self.shelf.write(place, made)
        return numpy_view(place)

    def parameter(self, name: str) -> np.ndarray:
        """The stored values of a parameter or buffer."""
        if name not in self.state:
            raise ExportError(f"the module has no parameter {name}, which the bundle was made from")
        return numpy_view(self.state[name])


def _fitting(name: str, array: np.ndarray, value: ir.Value) -> ir.TensorProtocol:
    """An array as the value of an initializer of that type and shape."""
    shape = None if value.shape is None else tuple(value.shape)
    if value.dtype is None or array.dtype != value.dtype.numpy() or tuple(array.shape) != shape:
        made = f"{array.dtype} {array.shape}"
        raise ExportError(f"initializer {name} is {value.dtype} {shape}; from the module comes {made}")
    return ir.Tensor(array, dtype=value.dtype, name=name)
