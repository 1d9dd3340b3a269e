"""Export an architecture or a user's module: build, translate, write, prove, and keep the bundle if it is right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..architectures.specification import GraphSpec
from ..errors import ExportError
from ..graphs.test_data import tensor_proto
from .arrays import torch_dtype
from .bundle import (
    FORMAT,
    FORMAT_VERSION,
    MODEL,
    TEST_DATA,
    Bundle,
    Staged,
    check_target_folder,
    staged_folder,
    write_manifest,
)
from .calling import arguments, result_arrays, with_outputs
from .description import describe_files, describe_graph, describe_image, describe_proof, versions
from .factories import module_subject
from .loop_export import extended, finish_loop, write_loop
from .proving import Case, Exported, prove
from .serialization import WrittenFile, weight_bytes, write_bytes, write_model
from .subject import Subject, architecture_subject, parameter_count, seeded
from .sweep import check_dynamic, swept_sizes, traced_sizes
from .targets import bundle_name, check_target, default_opset
from .translation import Translations, translate

Say = Callable[[str], None]


def export_architecture(  # noqa: PLR0913 - what a user may ask for
    name: str,
    output_dir: Path,
    *,
    preset: str = "published",
    opset: int | None = None,
    dtype: str = "float32",
    weights: Path | None = None,
    seed: int = 0,
    dynamic: Sequence[str] = (),
    inputs: Sequence[str] = (),
    external_data: bool = False,
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
        weights: checkpoint; None fills parameters with seeded random numbers.
        seed: of parameters and inputs.
        dynamic: axes to leave symbolic beside the architecture's own; "none" freezes all.
        inputs: "NAME=SHAPE:DTYPE"; a size freezes its axis there.
        external_data: put the weights beside the model whatever their size.
        loop: also write the one-file graph that appends word after word.
        say: told what is done next.

    Returns:
        The bundle with its proof; nothing is written if it is wrong.

    Raises:
        InvalidArgumentError, WeightsError, ExportError
    """
    check_target(dtype, opset)
    request = Request(output_dir, opset or default_opset(dtype), seed, external_data or loop, loop=loop, say=say)
    asked: dict[str, Any] = {"dtype": dtype, "seed": seed, "weights": weights, "dynamic": dynamic, "inputs": inputs}
    build = partial(architecture_subject, name, preset=preset, **asked)
    return _export(request, bundle_name(name), build, command_words(name, request, {"preset": preset, **asked}))


def export_module(  # noqa: PLR0913 - what a user may ask for
    spec: str,
    output_dir: Path,
    *,
    opset: int | None = None,
    dtype: str | None = None,
    weights: Path | None = None,
    seed: int = 0,
    dynamic: Sequence[str] = (),
    inputs: Sequence[str] = (),
    external_data: bool = False,
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
        seed: of torch's generator while the factory runs, and of inputs.
        dynamic: "INPUT.DIM=SYMBOL", "batch" for the first dim of every input, or "none".
        inputs: "NAME=SHAPE:DTYPE[:HIGH]"; symbols in the shape are dynamic.
        external_data: put the weights beside the model whatever their size.
        translations: onnxscript functions by PyTorch operator, in place of torch.onnx's own.
        say: told what is done next.

    Returns:
        The bundle with its proof; nothing is written if it is wrong.

    Raises:
        InvalidArgumentError, WeightsError, ExportError
    """
    check_target(dtype, opset)
    request = Request(output_dir, opset or default_opset(dtype), seed, external_data, translations, say)
    asked: dict[str, Any] = {"dtype": dtype, "seed": seed, "weights": weights, "dynamic": dynamic, "inputs": inputs}
    words = command_words(Path(spec).name, request, asked)
    return _export(request, bundle_name(spec), partial(module_subject, spec, **asked), words)


@dataclass(frozen=True)
class Request:
    """What holds for every kind of export."""

    output_dir: Path
    opset: int
    seed: int
    external_data: bool
    translations: Translations | None = None
    say: Say = lambda _: None
    loop: bool = False


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


def _export(request: Request, name: str, build: Callable[[], Subject], command: Sequence[str]) -> Bundle:
    target = request.output_dir / name
    check_target_folder(target)
    clock = Clock()
    request.say(f"building {name}")
    with clock.stage("build"):
        subject = build()
    with seeded(request.seed), staged_folder(target) as staged:
        pairs = [_write_graph(subject, spec, request, staged, clock) for spec in subject.graphs]
        loop = write_loop(staged.folder, subject.graphs, subject.generation) if request.loop else None
        with clock.stage("prove"):
            subject.module.double()
            proofs = tuple(prove(exported, request.say) for exported, _ in pairs)
            stated, proved = finish_loop(subject, loop, [exported for exported, _ in pairs], request.say)
            proofs += proved
        bundle = Bundle(name, target, {}, proofs, written=False, durations_s=clock.durations_s)
        content = extended(_content(subject, request, bundle, pairs), stated)
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
        spec, cases, refused = run_cases(subject, spec, module, request.seed)
    request.say(f"tracing and translating {spec.name}")
    with clock.stage("trace and translate"):
        feeds = subject.draw_feeds(spec, traced_sizes(spec), request.seed)
        translation = translate(module, spec, feeds, opset=request.opset, translations=request.translations)
    check_dynamic(spec, translation.trace.dims)
    request.say(f"writing {spec.name}")
    with clock.stage("write"):
        staged.check_space(weight_bytes(translation.model))
        files = write_model(translation.model, folder / MODEL, external=request.external_data)
        files += write_test_data(folder / TEST_DATA, cases[0])
    prefix = "" if folder == staged.folder else f"{spec.name}/"
    exported = Exported(spec, module, torch_dtype(subject.dtype), translation.trace, folder / MODEL, cases, refused)
    return exported, tuple(replace(file, name=prefix + file.name) for file in files)


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
            with torch.no_grad():
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
        "seed": request.seed,
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
    for name, value in asked.items():
        option = f"--{name.removesuffix('s') if name == 'inputs' else name}"
        values = value if isinstance(value, (list, tuple)) else [value]
        words += [word for item in values if item is not None for word in (option, _without_folder(item))]
    words += ["--external-data"] if request.external_data and not request.loop else []
    return [*words, "--loop"] if request.loop else words


def _without_folder(value: Any) -> str:
    return value.name if isinstance(value, Path) else str(value)
