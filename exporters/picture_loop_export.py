"""The one-file graph of a diffusion pipeline, written and proved: its picture against the module's own in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..architectures.specification import Axis, GraphSpec, PictureGeneration, Port, TokenPictureGeneration
from ..errors import InvalidInputError, MissingKernelError, RuntimeFailure
from ..graphs.evaluation import evaluate_model
from ..graphs.loading import load_model
from ..graphs.test_data import tensor_proto
from ..runtimes.process import open_session
from ..runtimes.session import RuntimeOptions
from .arrays import torch_dtype
from .description import describe_files
from .looping import GENERATE
from .picture_looping import picture_model
from .proof import GraphProof, ShapeProof, Standing, Trial, compare
from .proving import Case, Exported, module_float64
from .rounding import rounding_spread, translation_spread
from .serialization import WrittenFile, write_bytes
from .subject import Subject
from .targets import numpy_dtype
from .token_picture_looping import token_picture_model

Array = np.ndarray[Any, np.dtype[Any]]

TEST_DATA = "generate_data_set_0"
STEPS, LARGEST_SIDE, WORDS = 3, 8, 5
"""Size of the proof: steps, height and width of what is denoised, words of a prompt."""


@dataclass(frozen=True)
class PictureLoop:
    """A one-file graph that was written.

    Attributes:
        path: the .onnx file.
        spec: its ports.
        file: what was written.
        names: by the name of a graph, the names that its initializers have here.
    """

    path: Path
    spec: GraphSpec
    file: WrittenFile
    names: Mapping[str, Mapping[str, str]]


def loop_spec(generation: PictureGeneration | TokenPictureGeneration) -> GraphSpec:
    """The one-file graph as data, at the size of its proof."""
    return _token_spec(generation) if isinstance(generation, TokenPictureGeneration) else _noise_spec(generation)


def _token_spec(generation: TokenPictureGeneration) -> GraphSpec:
    """The best token each time; the module's own `forward` takes nothing but the words."""
    words = Port("input_ids", ("batch", generation.text_length), "int64", "integers", generation.text_vocab_size)
    numbers = (("temperature", "float32", 0), ("top_k", "int64", 0), ("top_p", "float32", 1), ("seed", "int64", 0))
    scalars = (Port(name, (), dtype, "constant", value) for name, dtype, value in numbers)
    image = Port("image", ("batch", 3, "height", "width"))
    return GraphSpec("generate", (words, *scalars), (image,), (Axis("batch", 2),), ("input_ids",))


def _noise_spec(generation: PictureGeneration) -> GraphSpec:
    side = min(generation.size, LARGEST_SIDE)
    picture = ("batch", generation.channels, "height", "width")
    image = Port("image", ("batch", 3, f"{generation.factor}*height", f"{generation.factor}*width"))
    axes = (Axis("batch", 1), Axis("height", side), Axis("width", side))
    if generation.sampler == "ddpm":
        ports = (Port("sample", picture), Port("noise", ("steps", *picture)))
        return GraphSpec("generate", ports, (image,), (*axes, Axis("steps", STEPS)))
    tokens = [
        Port(name, ("batch", "sequence"), "int64", "integers", generation.vocab_size)
        for name in ("input_ids", "negative_input_ids")
    ]
    steps = Port("num_steps", (), "int64", "constant", STEPS)
    guidance = Port("guidance_scale", (), "float32", "constant", round(generation.guidance_scale))
    axes = (*axes, Axis("sequence", min(generation.num_positions, WORDS)))
    return GraphSpec("generate", (*tokens, Port("latent", picture), steps, guidance), (image,), axes)


def write_picture_loop(folder: Path, generation: PictureGeneration | TokenPictureGeneration) -> PictureLoop:
    """Write the one-file graph of the graphs in `folder`."""
    if isinstance(generation, TokenPictureGeneration):
        model, names = token_picture_model(folder, generation)
    else:
        model, names = picture_model(folder, generation)
    written = write_bytes(model.SerializeToString(deterministic=True), folder / GENERATE)
    return PictureLoop(folder / GENERATE, loop_spec(generation), written, names)


def finish_picture_loop(
    subject: Subject, loop: PictureLoop | None, exported: Sequence[Exported], say: Callable[[str], None]
) -> tuple[dict[str, Any], tuple[GraphProof, ...]]:
    """Prove the one-file graph and write its test data, where there is one; see `loop_export.finish_loop`."""
    stated: dict[str, Any] = {"model": "" if loop is None else loop.path.name}
    if subject.generation is not None:
        stated = {**asdict(subject.generation), **stated}
    if loop is None:
        return {"generation": stated}, ()
    say("proving the one-file graph")
    feeds = subject.draw_feeds(loop.spec, loop.spec.sizes(), 0)
    wanted, proof = prove_picture_loop(subject, loop, exported, feeds)
    image = wanted.astype(numpy_dtype(subject.dtype))
    files = describe_files((loop.file, *_write_data(loop, feeds, image)))
    entry = describe_picture_loop(loop, proof, feeds, image, exported)
    return {"generation": stated, "graphs": [entry], "files": files}, (proof,)


def prove_picture_loop(
    subject: Subject, loop: PictureLoop, exported: Sequence[Exported], feeds: Mapping[str, Array]
) -> tuple[Array, GraphProof]:
    """The graph in float64 and ONNX Runtime against the module in float64.

    Returns:
        The module's picture in float64, and the proof.
    """
    spec = loop.spec
    wanted = _in_float64(subject, loop, exported, feeds)
    rounded = frozenset(
        whole
        for item in exported
        for name, whole in loop.names.get(item.spec.name, {}).items()
        if name in item.trace.rounded
    )
    try:
        model = load_model(loop.path)
        clean = evaluate_model(model, feeds)
        rounding = rounding_spread(model, feeds, clean)
        allowed = translation_spread(model, feeds, clean, rounded, rounding)
    except MissingKernelError as error:
        unjudged = Trial(Standing.UNJUDGED, message=f"the oracle cannot evaluate the graph: {error}")
        return wanted, _proof(spec, unjudged, unjudged)
    except InvalidInputError as error:
        wrong = Trial(Standing.ERRORED, message=f"the graph cannot be evaluated where the module can: {error}")
        return wanted, _proof(spec, wrong, wrong)
    image = compare("image", clean["image"], wanted, allowed["image"])
    graph = Trial(image.standing, (image,))
    spread = np.maximum(rounding["image"], allowed["image"])
    return wanted, _proof(spec, graph, _in_runtime(loop, feeds, wanted, spread))


def _proof(spec: GraphSpec, graph: Trial, runtime: Trial) -> GraphProof:
    return GraphProof(spec.name, (ShapeProof(spec.sizes(), graph, runtime),))


def _in_float64(subject: Subject, loop: PictureLoop, exported: Sequence[Exported], feeds: Mapping[str, Array]) -> Array:
    first = exported[0]
    whole = Exported(loop.spec, subject.module, torch_dtype(subject.dtype), first.trace, loop.path, (), (), first.shelf)
    return module_float64(whole, Case(loop.spec.sizes(), feeds, {}))["image"]


def _in_runtime(loop: PictureLoop, feeds: Mapping[str, Array], wanted: Array, spread: Array) -> Trial:
    try:
        with open_session(loop.path, RuntimeOptions()) as session:
            given = session.run(feeds)["image"]
    except RuntimeFailure as error:
        return Trial(Standing.ERRORED, message=f"ONNX Runtime: {error}")
    image = compare("image", given, wanted, spread, what="ONNX Runtime")
    return Trial(image.standing, (image,))


def _write_data(loop: PictureLoop, feeds: Mapping[str, Array], image: Array) -> tuple[WrittenFile, ...]:
    """Write noise, prompts and the picture that belongs to them as ONNX's own test data."""
    folder = loop.path.parent / TEST_DATA
    folder.mkdir()
    written = []
    for kind, arrays in (("input", feeds), ("output", {"image": image})):
        for index, (name, array) in enumerate(arrays.items()):
            content = tensor_proto(array, name).SerializeToString(deterministic=True)
            file = write_bytes(content, folder / f"{kind}_{index}.pb")
            written.append(WrittenFile(f"{TEST_DATA}/{file.name}", file.sha256, file.size_bytes))
    return tuple(written)


def describe_picture_loop(
    loop: PictureLoop,
    proof: GraphProof,
    feeds: Mapping[str, Array],
    image: Array,
    exported: Sequence[Exported],
) -> dict[str, Any]:
    """For the manifest: the one-file graph, as the others are described."""
    origins = {item.spec.name: item.trace.origins for item in exported}
    stated = {
        whole: asdict(origins[graph][name])
        for graph, names in loop.names.items()
        for name, whole in names.items()
        if name in origins[graph] and origins[graph][name].parameters
    }
    shapes = {port.name: list(port.shape) for port in (*loop.spec.inputs, *loop.spec.outputs)}
    axes = [
        {"name": axis.name, "status": "tied", "dims": _places(loop.spec, axis.name), "tested": [axis.size]}
        for axis in loop.spec.axes
    ]
    return {
        "name": loop.spec.name,
        "model": loop.path.name,
        "test_data": TEST_DATA,
        "inputs": [_port(name, array, shapes[name]) for name, array in feeds.items()],
        "outputs": [_port("image", image, shapes["image"])],
        "dims": {"axes": axes, "frozen": {}},
        "refused": [],
        "initializers": stated,
        "optimized": True,
        "remark": "",
        "unused_parameters": [],
        "proof": {"translation": proof.translation, "onnxruntime": proof.runtime, "shapes": len(proof.shapes)},
    }


def _places(spec: GraphSpec, axis: str) -> list[str]:
    return [f"{port.name}.{dim}" for port in spec.inputs for dim, name in enumerate(port.shape) if name == axis]


def _port(name: str, array: Array, shape: Sequence[int | str]) -> dict[str, Any]:
    return {"name": name, "dtype": array.dtype.name, "shape": list(shape)}
