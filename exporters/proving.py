"""Prove a written graph: at every swept shape, graph in float64 and ONNX Runtime against the module in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..architectures.specification import GraphSpec
from ..errors import (
    CrashedError,
    HungError,
    InvalidInputError,
    MissingKernelError,
    RaisedByRuntimeError,
    RuntimeFailure,
    RuntimeUnavailableError,
    UnsupportedByRuntimeError,
)
from ..graphs.evaluation import evaluate_model
from ..graphs.loading import load_model
from ..graphs.model import Model
from ..runtimes.process import open_session
from ..runtimes.session import RuntimeOptions, Session
from .calling import arguments, result_arrays
from .copied import altered_initializer
from .divergence import find_divergence
from .float64 import run_float64
from .paging import Shelf
from .proof import LARGEST_RMS_Z, Comparison, Divergence, GraphProof, ShapeProof, Standing, Trial, compare, worst
from .rounding import MANY, SAMPLES, give_back_weights, rounding_spread, translation_spread
from .subject import buffers_kept
from .translation import Trace

Array = np.ndarray[Any, np.dtype[Any]]

RERUNS = 4
"""Of a module that seems to differ from its graph, before it is believed to give the same every time."""


@dataclass(frozen=True)
class Case:
    """One swept shape: axis sizes, stored inputs, and what the module gave for them in the stored type."""

    sizes: Mapping[str, int]
    feeds: Mapping[str, Array]
    stored: Mapping[str, Array]


@dataclass(frozen=True)
class Evaluation:
    """A graph's outputs in float64, and how far the translation may have moved them."""

    outputs: dict[str, Array]
    allowed: dict[str, Array]


@dataclass(frozen=True)
class Exported:
    """A graph that was written, with all that its proof needs.

    Attributes:
        spec: its ports and axes.
        module: whose `forward` it is.
        stored: its floating-point type.
        trace: what ties it to the module.
        path: the .onnx file.
        cases: what it is tried on.
        refused: swept sizes that the module itself refused, with its reason.
        shelf: where its large parameters lie.
    """

    spec: GraphSpec
    module: nn.Module
    stored: torch.dtype
    trace: Trace
    path: Path
    cases: Sequence[Case]
    refused: tuple[tuple[Mapping[str, int], str], ...]
    shelf: Shelf


def prove(exported: Exported, say: Callable[[str], None]) -> GraphProof:
    """Try a written graph on all its cases.

    Args:
        exported: what was written; its module's large parameters are as they are stored.
        say: told what is tried next.
    """
    model = load_model(exported.path)
    session, failure = _open(exported.path)
    shapes: list[ShapeProof] = []
    try:
        for case in exported.cases:
            say(f"proving {exported.spec.name} at {sizes_text(case.sizes)}")
            shapes.append(_prove_case(exported, model, case, session, failure))
    finally:
        if session is not None:
            session.close()
    divergence = _divergence(exported, model, shapes)
    altered = altered_initializer(model, exported.module, exported.trace.origins, exported.shelf)
    if altered:
        shapes = [replace(shape, graph=_failed_by(shape.graph, altered)) for shape in shapes]
    return GraphProof(exported.spec.name, tuple(shapes), exported.refused, divergence)


def _failed_by(trial: Trial, message: str) -> Trial:
    return replace(trial, standing=Standing.FAILED, message=message)


def sizes_text(sizes: Mapping[str, int]) -> str:
    """`batch=2, height=224`; "its only shape" without axes."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items()) or "its only shape"


def _prove_case(
    exported: Exported, model: Model, case: Case, session: Session | None, failure: Trial | None
) -> ShapeProof:
    reference = module_float64(exported, case)
    few = case is exported.cases[0] or any(value.size < MANY for value in reference.values())
    try:
        clean = evaluate_model(model, case.feeds, give_back_weights(model))
        rounding = rounding_spread(model, case.feeds, clean, SAMPLES if few else 1)
        allowed = translation_spread(model, case.feeds, clean, exported.trace.rounded, rounding)
        graph = _judge_graph(exported, model, case, reference, Evaluation(clean, allowed))
        rounding = {name: np.maximum(spread, allowed[name]) for name, spread in rounding.items()}
    except MissingKernelError as error:
        graph = Trial(Standing.UNJUDGED, message=f"the oracle cannot evaluate the graph: {error}")
        rounding = None
    except InvalidInputError as error:
        graph = Trial(Standing.ERRORED, message=f"the graph cannot be evaluated where the module can: {error}")
        rounding = {name: np.zeros(value.shape) for name, value in reference.items()}
    if rounding is None:
        runtime = failure or Trial(Standing.UNJUDGED, message="without the oracle there is no scale to judge by")
    else:
        runtime = failure if session is None else _judge_runtime(session, case, reference, rounding)
    if _doubtful(graph, runtime) and _is_random(exported, case, reference):
        graph = runtime = Trial(Standing.UNJUDGED, message="the module gives other values every time it runs")
    runtime = runtime or Trial(Standing.UNJUDGED, message="ONNX Runtime was not asked")
    if not any(np.isfinite(value).any() for value in reference.values()):
        graph, runtime = _of_nothing(graph), _of_nothing(runtime)
    return ShapeProof(case.sizes, graph, runtime)


def _of_nothing(trial: Trial) -> Trial:
    """What a comparison says where no output holds a number: nothing, if it passed."""
    if trial.standing is not Standing.PASSED:
        return trial
    return replace(trial, standing=Standing.UNJUDGED, message="every output is empty, NaN or infinite")


def module_float64(exported: Exported, case: Case) -> dict[str, Array]:
    """What the module gives in float64, by output name."""
    args, kwargs = arguments(exported.spec, case.feeds)
    shelf = exported.shelf
    with shelf.releasing(exported.module), torch.no_grad(), buffers_kept(exported.module):
        result = run_float64(exported.module, args, kwargs, exported.stored, lambda block: shelf.release([block]))
    return result_arrays(exported.spec, result)


def _doubtful(*trials: Trial | None) -> bool:
    """Whether something failed, or passed only because the module itself was as far off (it may change as it runs)."""
    return any(
        trial is not None
        and (
            trial.standing is Standing.FAILED
            or any((comparison.rms_z or 0.0) > LARGEST_RMS_Z for comparison in trial.comparisons)
        )
        for trial in trials
    )


def _is_random(exported: Exported, case: Case, reference: Mapping[str, Array]) -> bool:
    """Whether the module gives something else when it runs again, which threads that race show only now and then."""
    for _ in range(RERUNS):
        again = module_float64(exported, case)
        for name, value in reference.items():
            if not np.array_equal(again[name], value, equal_nan=value.dtype.kind == "f"):
                return True
    return False


def _judge_graph(
    exported: Exported, model: Model, case: Case, reference: Mapping[str, Array], evaluation: Evaluation
) -> Trial:
    comparisons = [_declared_dtype(model, case, name) for name in reference]
    for name, wanted in reference.items():
        control = case.stored[name] if exported.trace.folded else None
        comparisons.append(compare(name, evaluation.outputs[name], wanted, evaluation.allowed[name], control))
    return _trial([comparison for comparison in comparisons if comparison is not None])


def _declared_dtype(model: Model, case: Case, name: str) -> Comparison | None:
    """The output's declared type, if it is not what the module gives."""
    declared = next(spec.dtype for spec in model.graph.outputs if spec.name == name)
    given = case.stored[name].dtype
    if declared is None or declared == given:
        return None
    return Comparison(name, Standing.FAILED, message=f"the graph declares {declared}, the module gives {given}")


def _judge_runtime(
    session: Session, case: Case, reference: Mapping[str, Array], rounding: Mapping[str, Array]
) -> Trial:
    try:
        outputs = session.run(case.feeds)
    except RuntimeFailure as error:
        return _failed_trial(error)
    comparisons = []
    for name, wanted in reference.items():
        stored = case.stored[name]
        if outputs[name].dtype != stored.dtype:
            note = f"ONNX Runtime gives {outputs[name].dtype}, the module {stored.dtype}"
            comparisons.append(Comparison(name, Standing.FAILED, message=note))
        else:
            comparisons.append(compare(name, outputs[name], wanted, rounding[name], stored, what="ONNX Runtime"))
    return _trial(comparisons)


def _trial(comparisons: Sequence[Comparison]) -> Trial:
    return Trial(worst([comparison.standing for comparison in comparisons]), tuple(comparisons))


def _open(path: Path) -> tuple[Session | None, Trial | None]:
    """ONNX Runtime with the graph loaded, or how it failed to."""
    try:
        return open_session(path, RuntimeOptions()), None
    except RuntimeFailure as error:
        return None, _failed_trial(error)


_STANDINGS: tuple[tuple[type[RuntimeFailure], Standing], ...] = (
    (UnsupportedByRuntimeError, Standing.UNSUPPORTED),
    (RuntimeUnavailableError, Standing.UNJUDGED),
    (CrashedError, Standing.CRASHED),
    (HungError, Standing.HUNG),
    (RaisedByRuntimeError, Standing.ERRORED),
)


def _failed_trial(error: RuntimeFailure) -> Trial:
    standing = next((standing for kind, standing in _STANDINGS if isinstance(error, kind)), Standing.ERRORED)
    return Trial(standing, message=f"ONNX Runtime: {error}")


def _divergence(exported: Exported, model: Model, shapes: Sequence[ShapeProof]) -> Divergence | None:
    """Where a wrong graph goes wrong, looked for at the first shape that shows it."""
    failed = (
        case
        for case, shape in zip(exported.cases, shapes, strict=True)
        if shape.graph.standing is Standing.FAILED and shape.graph.comparisons
    )
    case = next(failed, None)
    return None if case is None else find_divergence(model, exported.trace, exported.spec, case.feeds, exported.stored)
