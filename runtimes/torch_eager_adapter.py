"""PyTorch, eager: runs the module that a bundle was exported from; see `worker.py` for the contract of an adapter.

The bundle's manifest.json names the module: an architecture and a preset, or the user's own factory. Its parameters
are those of the seed, of the checkpoint in extra["weights"], or of the model itself where the manifest says
that its initializers are the module's parameters. onnx_arch is the copy that this file lies in, whatever interpreter
runs it: unlike other adapters, this one needs what onnx_arch needs.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

HONOURS = ("provider", "threads", "profile", "extra")
EXTRA = ("weights",)
ML_DTYPES = True

PACKAGE = "onnx_arch"
MANIFEST = "manifest.json"
RUN = "model_run"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""What a profile calls them, in ONNX Runtime's words."""


def load(model_path, options):
    """The module behind one graph of a bundle, in inference mode, on the device asked for."""
    if options["provider"] == "cuda" and not torch.cuda.is_available():
        raise ImportError(f"torch {torch.__version__} finds no CUDA device")
    if options["threads"] is not None:
        torch.set_num_threads(int(options["threads"]))
    model_path = Path(model_path)
    bundle, manifest = find_manifest(model_path)
    described = graph_of(manifest, bundle, model_path)
    weights = find_weights(manifest, options["extra"].get("weights"), bundle)
    subject = make_subject(manifest, bundle, weights)
    if weights is None and "file" in manifest["weights"]:
        restore_parameters(subject.module, described, model_path, manifest["weights"])
    spec = next(spec for spec in subject.graphs if spec.name == described["name"])
    module = subject.module if spec.part is None else spec.part(subject.module)
    return EagerSession(module.to(options["provider"]), spec, described, options)


def find_manifest(model_path):
    """The bundle's folder and its manifest: beside the model, or one folder up where there are several graphs."""
    for folder in (model_path.parent, model_path.parent.parent):
        if (folder / MANIFEST).is_file():
            return folder, house("exporters.bundle").read_manifest(folder)
    raise ImportError(f"{model_path.name}: no {MANIFEST} names the PyTorch module")


def graph_of(manifest, bundle, model_path):
    """What the manifest says of the graph in this file."""
    relative = model_path.relative_to(bundle).as_posix()
    for described in manifest["graphs"]:
        if described["model"] == relative:
            return described
    raise ImportError(f"{MANIFEST} does not name {relative}")


def find_weights(manifest, given, bundle):
    """The checkpoint: the one given, or one of the name in the manifest, here or beside the bundle; None without."""
    if given is not None:
        return Path(given)
    name = manifest["weights"].get("file")
    places = [] if name is None else [Path.cwd() / name, bundle / name, bundle.parent / name]
    return next((place for place in places if place.exists()), None)


def make_subject(manifest, bundle, weights):
    """The module as the export built it, its parameters in memory."""
    source, subject = manifest["source"], house("exporters.subject")
    drawn = bool(manifest["weights"].get("missing"))
    parameters = subject.Parameters(house("exporters.paging").Shelf(), manifest["seed"], weights, drawn)
    asked = {**manifest["asked"], "dtype": manifest["dtype"]}
    if "architecture" in source:
        options = {**asked, "stated": source.get("config")}
        made = subject.architecture_subject(source["architecture"], parameters, **options)
    else:
        made = house("exporters.factories").module_subject(find_factory(source, bundle), parameters, **asked)
    for parameter in made.module.parameters():
        parameter.data = parameter.data.clone()
    return made


def find_factory(source, bundle):
    """The factory as `onnx-arch export` takes it: its file here or beside the bundle, unchanged; or a module's name."""
    place, _, attribute = source["factory"].rpartition(":")
    if not place.endswith(".py"):
        return source["factory"]
    for folder in (Path.cwd(), bundle, bundle.parent):
        file = folder / place
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == source["sha256"]:
            return f"{file}:{attribute}"
    raise ImportError(f"{place} as it was exported is neither here nor beside the bundle; run from its folder")


def restore_parameters(module, described, model_path, weights):
    """Take the parameters from the model: only where its initializers are the module's own, straight or transposed."""
    initializers = house("graphs.loading").load_model(model_path).graph.initializers
    to_torch = house("exporters.arrays").to_torch
    state, found = module.state_dict(), {}
    for name, origin in described["initializers"].items():
        if origin["transform"] in ("identity", "transposed"):
            tensor = to_torch(initializers[name])
            found[origin["parameters"][0]] = tensor.T if origin["transform"] == "transposed" else tensor
    missing = sorted(set(state) - set(found) - set(described["unused_parameters"]))
    if missing:
        checkpoint = weights.get("file", "that it was exported from")
        raise ImportError(f"the model holds {missing[0]} only folded: give the checkpoint {checkpoint} with --weights")
    with torch.no_grad():
        for name, tensor in found.items():
            state[name].copy_(tensor)


def house(name):
    """A module of the onnx_arch that this file belongs to."""
    if PACKAGE not in sys.modules:
        folder = Path(__file__).resolve().parent.parent
        spec = importlib.util.spec_from_file_location(
            PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{PACKAGE} cannot be imported")
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[PACKAGE])
    return importlib.import_module(f"{PACKAGE}.{name}")


class EagerSession:
    """One module; feeds by the graph's input names, outputs by its output names."""

    def __init__(self, module, spec, described, options):
        self._module = module
        self._spec = spec
        self._described = described
        self._provider = options["provider"]
        self._calling = house("exporters.calling")
        self._profiler = start_profiler(self._provider) if options["profile"] else None

    def info(self):
        """Versions, provider, names; there are no optimisation levels."""
        return {
            "versions": {"torch": torch.__version__},
            "providers": [PROVIDERS[self._provider]],
            "input_names": [port["name"] for port in self._described["inputs"]],
            "output_names": [port["name"] for port in self._described["outputs"]],
            "optimization": "",
        }

    def run(self, feeds, outputs):
        """Outputs by name."""
        result = self.prepare(feeds, outputs)()
        arrays = self._calling.result_arrays(self._calling.with_outputs(self._spec, result), result)
        return arrays if outputs is None else {name: arrays[name] for name in outputs}

    def prepare(self, feeds, _outputs):
        """A call without arguments: feeds in place, on the device; it ends when the device has finished."""
        args, kwargs = self._calling.arguments(self._spec, feeds)
        args, kwargs = pytree.tree_map(self._on_device, args), pytree.tree_map(self._on_device, kwargs)

        def call():
            with torch.inference_mode():
                result = self._module(*args, **kwargs)
            if self._provider == "cuda":
                torch.cuda.synchronize()
            return result

        return call if self._profiler is None else recorded(call)

    def _on_device(self, leaf):
        return leaf.to(self._provider) if isinstance(leaf, torch.Tensor) else leaf

    def finish_profile(self):
        """The operators that the module called, as events in ONNX Runtime's form."""
        if self._profiler is None:
            raise RuntimeError("the session was not opened with profile=True")
        self._profiler.stop()
        events = self._profiler.events() or ()
        return [trace_event(event, self._provider) for event in events if is_run(event) or is_run(event.cpu_parent)]


def start_profiler(provider):
    """A running profiler."""
    kinds = torch.profiler.ProfilerActivity
    profiler = torch.profiler.profile(activities=[kinds.CPU] + ([kinds.CUDA] if provider == "cuda" else []))
    profiler.start()
    return profiler


def recorded(call):
    """The call, marked as one run in the profile."""

    def run():
        with torch.profiler.record_function(RUN):
            return call()

    return run


def is_run(event):
    """Whether a profiler's event is one run of the model."""
    return event is not None and event.name == RUN


def trace_event(event, provider):
    """One run, or one operator that the module called; on a GPU with the time of its kernels."""
    start, end = event.time_range.start, event.time_range.end
    base = {"ts": start, "tid": event.thread, "pid": os.getpid(), "ph": "X"}
    if is_run(event):
        return dict(base, cat="Session", name=RUN, dur=end - start, args={})
    duration = event.device_time_total if provider == "cuda" else end - start
    arguments = {"op_name": event.name, "provider": PROVIDERS[provider]}
    return dict(base, cat="Node", name=event.name + "_kernel_time", dur=duration, args=arguments)
