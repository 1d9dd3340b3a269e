"""The one-file graph of a bundle, written and proved: its best words against the module's own, without a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..architectures.specification import Generation, GraphSpec, TextGeneration
from ..errors import ExportError, InvalidArgumentError, InvalidInputError, MissingKernelError, RuntimeFailure
from ..graphs.evaluation import evaluate_model
from ..graphs.loading import load_model
from ..graphs.test_data import tensor_proto
from ..runtimes.process import open_session
from ..runtimes.session import RuntimeOptions
from .arrays import to_numpy, to_torch, torch_dtype
from .description import describe_files
from .float64 import run_float64
from .looping import GENERATE, generation_model
from .picture_loop_export import PictureLoop, finish_picture_loop, write_picture_loop
from .proof import Comparison, GraphProof, ShapeProof, Standing, Trial
from .provenance import Origin
from .proving import Exported
from .serialization import WrittenFile, write_bytes
from .subject import Subject

Array = np.ndarray[Any, np.dtype[Any]]

TEST_DATA = "generate_data_set_0"
BATCH, PROMPT, NEW = 2, 5, 8
"""Size of the proof: texts, words of each prompt, words that are added."""


@dataclass(frozen=True)
class Loop:
    """A one-file graph that was written.

    Attributes:
        path: the .onnx file.
        generation: how words are appended.
        feeds: a prompt, and how to choose: the best words.
        file: what was written.
        names: by the name of a graph, the names that its initializers have here.
    """

    path: Path
    generation: TextGeneration
    feeds: Mapping[str, Array]
    file: WrittenFile
    names: Mapping[str, Mapping[str, str]]

    @property
    def sizes(self) -> dict[str, int]:
        """Of the proof, by axis."""
        batch, sequence = self.feeds["input_ids"].shape
        return {"batch": batch, "sequence": sequence}


def write_loop(
    folder: Path, graphs: Sequence[GraphSpec], generation: Generation | None, seed: int = 0
) -> Loop | PictureLoop:
    """Write the one-file graph of the graphs in `folder`.

    Args:
        folder: with a model for every graph, in folders of their names where there are several.
        graphs: of the architecture.
        generation: how it appends words, or makes pictures.
        seed: of the prompt.

    Raises:
        InvalidArgumentError: it does neither.
    """
    if generation is None:
        raise InvalidArgumentError(f"--loop means nothing to {graphs[0].name}: it makes neither texts nor pictures")
    if not isinstance(generation, TextGeneration):
        return write_picture_loop(folder, generation)
    alone = len(graphs) == 1
    names = {spec.name: "model.onnx" if alone else f"{spec.name}/model.onnx" for spec in graphs}
    model, initializers = generation_model(folder, generation, names)
    written = write_bytes(model.SerializeToString(deterministic=True), folder / GENERATE)
    first = next(spec for spec in graphs if spec.name == (generation.encoder or generation.decoder))
    return Loop(folder / GENERATE, generation, _feeds(first, generation, seed), written, initializers)


def _feeds(spec: GraphSpec, generation: TextGeneration, seed: int) -> dict[str, Array]:
    vocabulary = next(port.high for port in spec.inputs if port.name == "input_ids")
    ids = np.random.default_rng(seed).integers(0, vocabulary, (BATCH, PROMPT))
    begun = 1 if generation.encoder else PROMPT
    whole = {"max_length": begun + NEW, "top_k": 0, "seed": seed}
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        **{name: np.asarray(value, np.int64) for name, value in whole.items()},
        "temperature": np.asarray(0, np.float32),
        "top_p": np.asarray(1, np.float32),
    }


def finish_loop(
    subject: Subject, loop: Loop | PictureLoop | None, exported: Sequence[Exported], say: Callable[[str], None]
) -> tuple[dict[str, Any], tuple[GraphProof, ...]]:
    """Prove the one-file graph and write its test data, where there is one.

    Args:
        subject: what was exported; its module may have been widened to float64.
        loop: of `write_loop`, or None.
        exported: the graphs that it was made of.
        say: told what is done next.

    Returns:
        What the manifest says of it, for `extended`, and its proof.
    """
    if subject.generation is None:
        return {}, ()
    if not isinstance(subject.generation, TextGeneration) or isinstance(loop, PictureLoop):
        return finish_picture_loop(subject, loop if isinstance(loop, PictureLoop) else None, exported, say)
    stated: dict[str, Any] = {"generation": describe_generation(subject.generation, loop)}
    if loop is None:
        return stated, ()
    proof, wanted = prove_loop(subject.module, loop, torch_dtype(subject.dtype), say)
    origins = {item.spec.name: item.trace.origins for item in exported}
    files = describe_files((loop.file, *write_loop_data(loop, wanted)))
    return {**stated, "graphs": [describe_loop(loop, proof, wanted, origins)], "files": files}, (proof,)


def extended(content: Mapping[str, Any], stated: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's content with what `finish_loop` stated, and more files."""
    graphs = [*content["graphs"], *stated.get("graphs", ())]
    return {**content, **stated, "graphs": graphs, "files": {**content["files"], **stated.get("files", {}), **files}}


def greedy(module: nn.Module, loop: Loop, stored: torch.dtype) -> Array:
    """The best words by the module itself in float64, every one computed from the whole text before it."""
    prompt, mask = (to_torch(loop.feeds[name]) for name in ("input_ids", "attention_mask"))
    plan, length = loop.generation, int(loop.feeds["max_length"])
    score: Any = module.score
    words = torch.full((len(prompt), 1), plan.start_token_id) if plan.encoder else prompt
    finished = torch.zeros(len(prompt), dtype=torch.bool)
    while words.shape[1] < length and not finished.all():
        scores = run_float64(score, (prompt, mask, words), {}, stored)
        best = torch.where(finished, plan.pad_token_id, scores[:, -1].argmax(dim=1))
        finished = finished if plan.eos_token_id is None else finished | (best == plan.eos_token_id)
        words = torch.cat((words, best[:, None]), dim=1)
    return to_numpy(words)


def prove_loop(
    module: nn.Module, loop: Loop, stored: torch.dtype, say: Callable[[str], None]
) -> tuple[GraphProof, Array]:
    """The graph in float64 and ONNX Runtime against the module's own words, which are returned too.

    Raises:
        ExportError: the module does not say what it would write.
    """
    if not hasattr(module, "score"):
        raise ExportError(f"{type(module).__name__} has no `score`: nothing to hold the loop against")
    say("proving the one-file graph")
    wanted = greedy(module, loop, stored)
    trials = _trial("the graph", _in_float64, loop, wanted), _trial("ONNX Runtime", _in_runtime, loop, wanted)
    return GraphProof("generate", (ShapeProof(loop.sizes, *trials),)), wanted


def _in_float64(loop: Loop) -> Array:
    return evaluate_model(load_model(loop.path), loop.feeds)["sequences"]


def _in_runtime(loop: Loop) -> Array:
    with open_session(loop.path, RuntimeOptions()) as session:
        return session.run(loop.feeds)["sequences"]


def _trial(who: str, run: Callable[[Loop], Array], loop: Loop, wanted: Array) -> Trial:
    try:
        given = run(loop)
    except MissingKernelError as error:
        return Trial(Standing.UNJUDGED, message=f"the oracle cannot evaluate the graph: {error}")
    except (InvalidInputError, RuntimeFailure) as error:
        return Trial(Standing.ERRORED, message=f"{who}: {error}")
    if given.shape != wanted.shape:
        return _failed(f"{who} gives {given.shape} words, the module {wanted.shape}")
    if np.array_equal(given, wanted):
        return Trial(Standing.PASSED, (Comparison("sequences", Standing.PASSED),))
    place = tuple(int(index) for index in np.argwhere(given != wanted)[0])
    return _failed(f"{who} writes {given[place]} at {list(place)}, the module {wanted[place]}")


def _failed(message: str) -> Trial:
    return Trial(Standing.FAILED, (Comparison("sequences", Standing.FAILED, message=message),))


def write_loop_data(loop: Loop, wanted: Array) -> tuple[WrittenFile, ...]:
    """Write the prompt and the words that belong to it as ONNX's own test data."""
    folder = loop.path.parent / TEST_DATA
    folder.mkdir()
    written = []
    for kind, arrays in (("input", loop.feeds), ("output", {"sequences": wanted})):
        for index, (name, array) in enumerate(arrays.items()):
            content = tensor_proto(array, name).SerializeToString(deterministic=True)
            file = write_bytes(content, folder / f"{kind}_{index}.pb")
            written.append(WrittenFile(f"{TEST_DATA}/{file.name}", file.sha256, file.size_bytes))
    return tuple(written)


def describe_generation(generation: TextGeneration, loop: Loop | None) -> dict[str, Any]:
    """For the manifest: how words are appended, and the one-file graph if there is one."""
    return {**asdict(generation), "model": "" if loop is None else loop.path.name}


def describe_loop(
    loop: Loop, proof: GraphProof, wanted: Array, origins: Mapping[str, Mapping[str, Origin]]
) -> dict[str, Any]:
    """For the manifest: the one-file graph, as the others are described.

    Args:
        loop: the graph.
        proof: its proof.
        wanted: the words that it must write.
        origins: by the name of a graph, the origins of its initializers.
    """
    shapes = {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]}
    stated = {
        whole: asdict(origins[graph][name])
        for graph, names in loop.names.items()
        for name, whole in names.items()
        if name in origins[graph] and origins[graph][name].parameters
    }
    axes = [
        {"name": axis, "status": "tied", "dims": [f"{name}.{dim}" for name in shapes], "tested": [size]}
        for dim, (axis, size) in enumerate(loop.sizes.items())
    ]
    return {
        "name": proof.graph,
        "model": loop.path.name,
        "test_data": TEST_DATA,
        "inputs": [_port(name, array, shapes.get(name, [])) for name, array in loop.feeds.items()],
        "outputs": [_port("sequences", wanted, ["batch", "length"])],
        "dims": {"axes": axes, "frozen": {}},
        "refused": [],
        "initializers": stated,
        "optimized": True,
        "remark": "",
        "unused_parameters": [],
        "proof": {"translation": proof.translation, "onnxruntime": proof.runtime, "shapes": len(proof.shapes)},
    }


def _port(name: str, array: Array, shape: Sequence[int | str]) -> dict[str, Any]:
    return {"name": name, "dtype": array.dtype.name, "shape": list(shape)}
