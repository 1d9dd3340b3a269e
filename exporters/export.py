"""Export an architecture or a user's module: build, translate, write, prove, and keep the bundle if it is right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..architectures.specification import GraphSpec
from ..errors import ExportError
from ..graphs.loading import BUNDLE_MODEL
from ..graphs.test_data import tensor_proto
from ..operators.mapped import keep_heap_small
from .arrays import numpy_view, torch_dtype
from .bundle import (
    FORMAT,
    FORMAT_VERSION,
    TEST_DATA,
    Bundle,
    Staged,
    staged_folder,
    write_manifest,
)
from .calling import arguments, result_arrays, with_outputs
from .description import describe_files, describe_graph, describe_image, describe_proof, versions
from .factories import module_subject
from .float64 import widen_small
from .loop_export import extended, finish_loop, write_loop
from .paging import Shelf
from .proving import Case, Exported, prove
from .recipes import RECIPES, keep_tried
from .serialization import WrittenFile, weight_bytes, write_bytes, write_model
from .subject import (
    Parameters,
    Subject,
    architecture_subject,
    buffers_kept,
    module_state,
    parameter_count,
    seeded,
)
from .sweep import check_dynamic, swept_sizes, traced_sizes
from .targets import NATIVE, bundle_name, check_target, default_opset
from .tokenizers import copy_tokenizer
from .translation import Trace, Translation, Translations, translate

Say = Callable[[str], None]


def export_architecture(  # noqa: PLR0913 - what a user may ask for
    name: str,
    output_dir: Path,
    *,
    preset: str = "published",
    opset: int | None = None,
    dtype: str = "float32",
    weights: Path | None = None,
    allow_missing: bool = False,
    save_weights: Path | None = None,
    layout: str | None = None,
    seed: int = 0,
    dynamic: Sequence[str] = (),
    inputs: Sequence[str] = (),
    external_data: bool = False,
    unpool: str = NATIVE,
    loop: bool = False,
    say: Say = lambda _: None,
) -> Bundle:
    """Export a registered architecture to `output_dir`/`name`.

    Args:
        name: of the architecture.
        output_dir: the folder that the bundle's folder is made in.
        preset: "published" or "tiny".
        opset: version of ai.onnx; None is 20, and 22 for bfloat16.
        dtype: "float32", "float16", "bfloat16" or "float64": parameters are rounded to it.
        weights: checkpoint, file or folder; None fills parameters with seeded random numbers. The `config.json` of a
            folder goes before `preset`.
        allow_missing: draw what the checkpoint does not have from the seed.
        save_weights: a .safetensors file or a folder that the parameters are written to.
        layout: whose keys are written there; None is the architecture's first that can be.
        seed: of parameters and inputs.
        dynamic: axes to leave symbolic beside the architecture's own; "none" freezes all.
        inputs: "NAME=SHAPE:DTYPE"; a size freezes its axis there.
        external_data: put the weights beside the model whatever their size.
        unpool: "native" (`MaxUnpool`) or "scatter" (for runtimes that have none).
        loop: also write the one-file graph that appends word after word.
        say: told what is done next.

    Returns:
        The bundle with its proof; nothing is written if it is wrong.

    Raises:
        InvalidArgumentError, WeightsError, ExportError
    """
    check_target(dtype, opset, unpool)
    source = Source(seed, weights, allow_missing, save_weights, layout)
    external = external_data or loop  # the one-file graph shares the weights of the others
    version = opset or default_opset(dtype)
    asked = {"preset": preset, "dtype": dtype, "dynamic": list(dynamic), "inputs": list(inputs)}
    request = Request(output_dir, version, source, external, unpool, loop=loop, say=say, asked=asked)
    build = partial(architecture_subject, name, **asked)
    return export_subject(request, bundle_name(name), build, command_words(name, request, asked))


def export_module(  # noqa: PLR0913 - what a user may ask for
    spec: str,
    output_dir: Path,
    *,
    opset: int | None = None,
    dtype: str | None = None,
    weights: Path | None = None,
    allow_missing: bool = False,
    save_weights: Path | None = None,
    layout: str | None = None,
    seed: int = 0,
    dynamic: Sequence[str] = (),
    inputs: Sequence[str] = (),
    external_data: bool = False,
    unpool: str = NATIVE,
    translations: Translations | None = None,
    say: Say = lambda _: None,
) -> Bundle:
    """Export the module of a factory to `output_dir`/`factory`.

    Args:
        spec: "path/to/file.py:factory" or "package.module:factory"; the factory takes no argument and returns a
            module, (module, args) or (module, args, kwargs).
        output_dir: the folder that the bundle's folder is made in.
        opset: version of ai.onnx; None is 20, and 22 for bfloat16.
        dtype: floating-point type to convert to; None leaves the module's own.
        weights: checkpoint with the module's own keys.
        allow_missing: leave what the checkpoint does not have as the factory made it.
        save_weights: a .safetensors file or a folder that the parameters are written to.
        layout: whose keys are written there; a module of yours has its own only.
        seed: of torch's generator while the factory runs, and of inputs.
        dynamic: "INPUT.DIM=SYMBOL", "batch" for the first dim of every input, or "none".
        inputs: "NAME=SHAPE:DTYPE[:HIGH]"; symbols in the shape are dynamic.
        external_data: put the weights beside the model whatever their size.
        unpool: "native" (`MaxUnpool`) or "scatter" (for runtimes that have none).
        translations: onnxscript functions by PyTorch operator, in place of ours and torch.onnx's.
        say: told what is done next.

    Returns:
        The bundle with its proof; nothing is written if it is wrong.

    Raises:
        InvalidArgumentError, WeightsError, ExportError
    """
    check_target(dtype, opset, unpool)
    source, version = Source(seed, weights, allow_missing, save_weights, layout), opset or default_opset(dtype)
    asked = {"dtype": dtype, "dynamic": list(dynamic), "inputs": list(inputs)}
    request = Request(output_dir, version, source, external_data, unpool, translations, say, asked=asked)
    words = command_words(Path(spec).name, request, asked)
    return export_subject(request, bundle_name(spec), partial(module_subject, spec, **asked), words)


@dataclass(frozen=True)
class Source:
    """Where parameters come from, and where they are written as a checkpoint.

    Attributes:
        seed: of random parameters and of inputs.
        weights: a checkpoint's file or folder.
        allow_missing: draw what it does not have from the seed.
        save_weights: a .safetensors file or a folder that the parameters are written to.
        layout: whose keys are written; None is the architecture's first.
    """

    seed: int
    weights: Path | None = None
    allow_missing: bool = False
    save_weights: Path | None = None
    layout: str | None = None


@dataclass(frozen=True)
class Request:
    """What holds for every kind of export."""

    output_dir: Path
    opset: int
    source: Source
    external_data: bool
    unpool: str = NATIVE
    translations: Translations | None = None
    say: Say = lambda _: None
    loop: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)
    translate: Callable[[nn.Module, GraphSpec, Shelf], Translation] | None = None


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.durations_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What happens inside counts as this stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.durations_s[name] = self.durations_s.get(name, 0.0) + time.perf_counter() - start


def export_subject(
    request: Request, name: str, build: Callable[[Parameters], Subject], command: Sequence[str]
) -> Bundle:
    """Build, write and prove; the bundle is kept if it is right.

    Args:
        request: how.
        name: of the bundle's folder.
        build: the subject, with parameters from where it is told.
        command: the words that make this bundle again.
    """
    keep_heap_small()
    target, source, clock = request.output_dir / name, request.source, Clock()
    with seeded(source.seed), staged_folder(target) as staged:
        request.say(f"building {name}")
        with clock.stage("build"):
            shelf = Shelf(staged.folder)
            subject = build(Parameters(shelf, source.seed, source.weights, source.allow_missing))
            shelf.release_all()
        if source.save_weights is not None:
            request.say(f"writing {source.save_weights}")
            subject.save_weights(source.save_weights, source.layout)
        pairs = [_write_graph(subject, spec, request, staged, clock) for spec in subject.graphs]
        loop = write_loop(staged.folder, subject.graphs, subject.generation) if request.loop else None
        with clock.stage("prove"):
            widen_small(subject.module, shelf)
            proofs = tuple(prove(exported, request.say) for exported, _ in pairs)
            stated, proved = finish_loop(subject, loop, [exported for exported, _ in pairs], request.say)
            proofs += proved
        bundle = Bundle(name, target, {}, proofs, written=False, durations_s=clock.durations_s)
        words = () if subject.generation is None else copy_tokenizer(source.weights, staged.folder)
        content = extended(_content(subject, request, bundle, pairs), stated, describe_files(words))
        record = {"proof": [describe_proof(proof) for proof in proofs]}
        manifest = write_manifest(staged.folder, {**content, "command": command, "record": record})
        if not bundle.is_wrong:
            staged.keep()
        return replace(bundle, manifest=manifest, written=not bundle.is_wrong)


def _write_graph(
    subject: Subject, spec: GraphSpec, request: Request, staged: Staged, clock: Clock
) -> tuple[Exported, tuple[WrittenFile, ...]]:
    """Translate one graph and write it with its test data."""
    module = subject.module if spec.part is None else spec.part(subject.module)
    folder = staged.folder if len(subject.graphs) == 1 else staged.folder / spec.name
    folder.mkdir(exist_ok=True)
    request.say(f"running {spec.name} in {subject.dtype}")
    with clock.stage("run"):
        spec, cases, refused = run_cases(subject, spec, module, request.source.seed)
    request.say(f"tracing and translating {spec.name}")
    with clock.stage("trace and translate"):
        translation = _translation(subject, spec, module, request)
    check_dynamic(spec, translation.trace.dims)
    request.say(f"writing {spec.name}")
    with clock.stage("write"):
        staged.check_space(weight_bytes(translation.model))
        release = subject.shelf.release_array
        files = write_model(translation.model, folder / BUNDLE_MODEL, external=request.external_data, release=release)
        files += write_test_data(folder / TEST_DATA, cases[0])
        trace, written = _write_recipes(translation, module, request.opset, folder / RECIPES)
        files += written
    prefix = "" if folder == staged.folder else f"{spec.name}/"
    stored = torch_dtype(subject.dtype)
    exported = Exported(spec, module, stored, trace, folder / BUNDLE_MODEL, cases, refused, subject.shelf)
    return exported, tuple(replace(file, name=prefix + file.name) for file in files)


def _translation(subject: Subject, spec: GraphSpec, module: nn.Module, request: Request) -> Translation:
    """The graph: translated, or as the request has it already."""
    if request.translate is not None:
        return request.translate(module, spec, subject.shelf)
    feeds = subject.draw_feeds(spec, traced_sizes(spec), request.source.seed)
    options: Any = {"opset": request.opset, "translations": request.translations, "unpool": request.unpool}
    return translate(module, spec, feeds, **options)


def _write_recipes(
    translation: Translation, module: nn.Module, opset: int, path: Path
) -> tuple[Trace, tuple[WrittenFile, ...]]:
    """Write how computed initializers are computed, those recipes that give what the graph has."""
    if translation.recipes is not None:
        return translation.trace, (write_bytes(translation.recipes, path),)
    values = {name: value.const_value for name, value in translation.model.graph.initializers.items()}
    state = module_state(module)
    tried, written = keep_tried(translation.trace.recipes, values, lambda name: numpy_view(state[name]), opset, path)
    return replace(translation.trace, recipes=tried), written


REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, ArithmeticError)
"""What a module raises where it does not take a shape."""


def run_cases(
    subject: Subject, spec: GraphSpec, module: nn.Module, seed: int
) -> tuple[GraphSpec, list[Case], tuple[tuple[Mapping[str, int], str], ...]]:
    """Run the module in its stored type at every swept shape.

    Returns:
        The graph with its outputs named; a case for every shape that the module takes, its own first; and the sizes
        that it refuses, with its reason.

    Raises:
        ExportError: the module does not run on its own example inputs.
    """
    cases: list[Case] = []
    refused: list[tuple[Mapping[str, int], str]] = []
    for sizes, feeds in _swept_feeds(subject, spec, seed):
        args, kwargs = arguments(spec, feeds)
        try:
            with torch.no_grad(), subject.shelf.releasing(module), buffers_kept(module):
                result = module(*args, **kwargs)
        except REFUSALS as error:
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            if not cases:
                raise ExportError(f"{spec.name}: the module fails on its own inputs: {reason}") from error
            refused.append((sizes, reason))
            continue
        spec = with_outputs(spec, result)
        cases.append(Case(sizes, feeds, result_arrays(spec, result)))
    return spec, cases, tuple(refused)


def _swept_feeds(
    subject: Subject, spec: GraphSpec, seed: int
) -> Iterator[tuple[Mapping[str, int], dict[str, np.ndarray]]]:
    """Sizes and inputs: first the examples as they were given, then drawn ones."""
    shapes = swept_sizes(spec)
    if subject.examples:
        yield shapes[0], subject.example_feeds(spec, shapes[0], seed)
    for sizes in shapes:
        yield sizes, subject.draw_feeds(spec, sizes, seed)


def write_test_data(folder: Path, case: Case) -> tuple[WrittenFile, ...]:
    """Write `input_i.pb` and `output_i.pb` as ONNX's own test data are laid out."""
    folder.mkdir()
    written = []
    for kind, arrays in (("input", case.feeds), ("output", case.stored)):
        for index, (name, array) in enumerate(arrays.items()):
            content = tensor_proto(array, name).SerializeToString(deterministic=True)
            written.append(write_bytes(content, folder / f"{kind}_{index}.pb"))
    return tuple(replace(file, name=f"{folder.name}/{file.name}") for file in written)


def _content(
    subject: Subject, request: Request, bundle: Bundle, pairs: Sequence[tuple[Exported, tuple[WrittenFile, ...]]]
) -> dict[str, Any]:
    """The part of the manifest that depends only on what was asked for."""
    folders = [""] if len(pairs) == 1 else [f"{exported.spec.name}/" for exported, _ in pairs]
    graphs = [
        describe_graph(exported, proof, folder)
        for (exported, _), proof, folder in zip(pairs, bundle.proofs, folders, strict=False)
    ]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": subject.name,
        "source": dict(subject.source),
        "opset": request.opset,
        "dtype": subject.dtype,
        "unpool": request.unpool,
        "asked": dict(request.asked),
        "seed": request.source.seed,
        "weights": dict(subject.weights),
        "parameters": parameter_count(subject.module),
        "verdict": {"translation": bundle.translation, "onnxruntime": bundle.runtime},
        "graphs": graphs,
        **describe_image(subject.graphs),
        "files": describe_files(file for _, files in pairs for file in files),
        "versions": versions(),
    }


def command_words(subject: str, request: Request, asked: Mapping[str, Any]) -> list[str]:
    """The command line that makes this bundle again, without the folders in which things lie."""
    words = ["onnx-arch", "export", subject, "--opset", str(request.opset)]
    source = request.source
    for name, value in {**asked, "seed": source.seed, "weights": source.weights}.items():
        option = f"--{name.removesuffix('s') if name == 'inputs' else name}"
        values = value if isinstance(value, (list, tuple)) else [value]
        words += [word for item in values if item is not None for word in (option, _without_folder(item))]
    words += ["--allow-missing"] if source.allow_missing else []
    words += ["--unpool", request.unpool] if request.unpool != NATIVE else []
    words += ["--external-data"] if request.external_data and not request.loop else []
    return [*words, "--loop"] if request.loop else words


def _without_folder(value: Any) -> str:
    return value.name if isinstance(value, Path) else str(value)
