"""A whole diffusion pipeline as one graph: the U-Net's graph becomes the body of a `Loop` that subtracts noise.

    input_ids, negative_input_ids, latent, num_steps, guidance_scale  ->  image        (DDIM, with a prompt)
    sample, noise  ->  image                                                         (DDPM, noise for every step)

The graph is made of the graphs of a bundle as they were written, and shares their weights. It runs in ONNX Runtime
alone. Pictures are (B, 3, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ..architectures.specification import PictureGeneration
from .denoising import guided_step_nodes, schedule_of, signal_tensor
from .looping import Part, Weights, read_part, renamed_nodes
from .sampling import IR_VERSION, parse_nodes, port

IMAGE = ("batch", 3, "image_height", "image_width")

PROMPTED = """
    train_steps = Constant <value_int = {train_steps}> ()
    one = Constant <value_int = 1> ()
    zero = Constant <value_int = 0> ()
    offset = Constant <value_int = {offset}> ()
    highest = Sub (train_steps, one)
    divisor = Max (num_steps, one)
    stride = Div (train_steps, divisor)
    last_rank = Sub (num_steps, one)
    goes_on = Constant <value = bool {{1}}> ()
    prompts = Concat <axis = 0> (negative_input_ids, input_ids)
"""

VISITED = """
    rank = Sub (last_rank, iteration)
    begun = Mul (rank, stride)
    unlimited = Add (begun, offset)
    step = Min (unlimited, highest)
    earlier = Sub (unlimited, stride)
    step_before = Max (earlier, zero)
    both = Concat <axis = 0> (noisy_latent, noisy_latent)
    rows = Shape <start = 0, end = 1> (both)
    timesteps = Expand (step, rows)
"""

UNPROMPTED = """
    train_steps = Constant <value_int = {train_steps}> ()
    one = Constant <value_int = 1> ()
    axis0 = Constant <value = int64[1] {{0}}> ()
    offset = Constant <value_int = {offset}> ()
    steps_shape = Shape <start = 0, end = 1> (noise)
    num_steps = Squeeze (steps_shape, axis0)
    divisor = Max (num_steps, one)
    stride = Div (train_steps, divisor)
    last_rank = Sub (num_steps, one)
    goes_on = Constant <value = bool {{1}}> ()
    rows = Shape <start = 0, end = 1> (sample)
    strides = Expand (stride, rows)
"""

NOISY_VISITED = """
    rank = Sub (last_rank, iteration)
    begun = Mul (rank, stride)
    step = Add (begun, offset)
    timesteps = Expand (step, rows)
    added = Gather <axis = 0> (noise, iteration)
"""

SCALED = """
    scale = Constant <value_float = {scale}> ()
    latent_scale = CastLike (scale, denoised)
    scaled = Div (denoised, latent_scale)
"""

SHOWN = """
    half = Constant <value_float = 0.5> ()
    half_like = CastLike (half, decoded)
    black = Constant <value_float = 0.0> ()
    black_like = CastLike (black, decoded)
    white = Constant <value_float = 1.0> ()
    white_like = CastLike (white, decoded)
    contrast = Mul (decoded, half_like)
    shifted = Add (contrast, half_like)
    image = Clip (shifted, black_like, white_like)
"""


@dataclass
class Assembly:
    """Graphs of a bundle on their way into one.

    Attributes:
        bundle: its folder.
        weights: of all of them.
        names: by the name of a graph, the names of its initializers in the whole.
    """

    bundle: Path
    weights: Weights
    names: dict[str, dict[str, str]] = field(default_factory=dict)

    def part(self, name: str) -> Part:
        """A graph, with its weights taken over."""
        part = read_part(self.bundle, f"{name}/model.onnx", f"{name}/")
        self.names[name] = self.weights.add(part)
        return part

    def nodes(self, part: Part, name: str, **ports: str) -> list[onnx.NodeProto]:
        """A graph's nodes between values of the whole: its inputs and outputs by the values' names."""
        return renamed_nodes(part, self.names[name] | ports)


def picture_model(bundle: Path, generation: PictureGeneration) -> tuple[onnx.ModelProto, dict[str, dict[str, str]]]:
    """The one-file graph of a bundle.

    Args:
        bundle: its folder, with all graphs written.
        generation: how noise becomes pictures.

    Returns:
        The model; and by the name of a graph, the names that its initializers have in the model.
    """
    assembly = Assembly(bundle, Weights(bundle))
    build = _prompted if generation.sampler == "ddim" else _unprompted
    unet = assembly.part("unet")
    inputs, nodes = build(assembly, unet, generation)
    elem_type = unet.elem_type("sample")
    nodes += parse_nodes(SHOWN, "show")
    initializers = list(assembly.weights.tensors.values())
    if generation.sampler == "ddim":
        initializers.append(signal_tensor(schedule_of(generation.schedule)))
    graph = helper.make_graph(nodes, "generate", inputs, [port("image", elem_type, IMAGE)], initializers)
    imports = unet.model.opset_import
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION), assembly.names


Built = tuple[list[onnx.ValueInfoProto], list[onnx.NodeProto]]


def _prompted(assembly: Assembly, unet: Part, plan: PictureGeneration) -> Built:
    """Text encoder, loop of DDIM, decoder."""
    elem_type = unet.elem_type("sample")
    numbers = {"train_steps": plan.schedule["num_train_steps"], "offset": plan.schedule["steps_offset"]}
    text, decoder = assembly.part("text_encoder"), assembly.part("vae_decoder")
    nodes = parse_nodes(PROMPTED.format(**numbers), "prepare")
    nodes += assembly.nodes(text, "text_encoder", input_ids="prompts", last_hidden_state="words")
    steps = parse_nodes(VISITED, "visit")
    ports = {"sample": "both", "timestep": "timesteps", "encoder_hidden_states": "words", "out_sample": "estimate"}
    steps += [*assembly.nodes(unet, "unet", **ports), *guided_step_nodes()]
    nodes.append(_loop(_Repeated("latent", "noisy_latent", "next_latent", "denoised"), steps, elem_type))
    nodes += parse_nodes(SCALED.format(scale=plan.latent_scale), "scale")
    nodes += assembly.nodes(decoder, "vae_decoder", latent_sample="scaled", sample="decoded")
    tokens = [port(name, TensorProto.INT64, ("batch", "sequence")) for name in ("input_ids", "negative_input_ids")]
    latent = port("latent", elem_type, ("batch", plan.channels, "height", "width"))
    scalars = [port("num_steps", TensorProto.INT64, ()), port("guidance_scale", TensorProto.FLOAT, ())]
    return [*tokens, latent, *scalars], nodes


def _unprompted(assembly: Assembly, unet: Part, plan: PictureGeneration) -> Built:
    """Loop of DDPM."""
    elem_type = unet.elem_type("sample")
    numbers = {"train_steps": plan.schedule["num_train_steps"], "offset": plan.schedule["steps_offset"]}
    step = assembly.part("backward_step")
    nodes = parse_nodes(UNPROMPTED.format(**numbers), "prepare")
    steps = parse_nodes(NOISY_VISITED, "visit")
    steps += assembly.nodes(unet, "unet", sample="noisy", timestep="timesteps", out_sample="estimate")
    ports = {"estimated_noise": "estimate", "noise": "added", "timestep": "timesteps", "stride": "strides"}
    steps += assembly.nodes(step, "backward_step", sample="noisy", out_sample="less_noisy", **ports)
    nodes.append(_loop(_Repeated("sample", "noisy", "less_noisy", "decoded"), steps, elem_type))
    picture = ("batch", plan.channels, "height", "width")
    return [port("sample", elem_type, picture), port("noise", elem_type, ("steps", *picture))], nodes


@dataclass(frozen=True)
class _Repeated:
    """A loop's state: what it begins with, its names inside before and after a step, and what is left of it."""

    begin: str
    inside: str
    following: str
    result: str


def _loop(state: _Repeated, nodes: Sequence[onnx.NodeProto], elem_type: int) -> onnx.NodeProto:
    body = onnx.GraphProto(name="subtract_noise")
    body.input.extend([port("iteration", TensorProto.INT64, ()), port("continues", TensorProto.BOOL, ())])
    body.input.append(port(state.inside, elem_type, None))
    body.node.extend([*nodes, *parse_nodes("still_goes_on = Identity (continues)", "go_on")])
    body.output.extend([port("still_goes_on", TensorProto.BOOL, ()), port(state.following, elem_type, None)])
    inputs = ["num_steps", "goes_on", state.begin]
    return helper.make_node("Loop", inputs, [state.result], name="subtract_noise", body=body)
