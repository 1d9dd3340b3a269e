"""A picture written token by token as one graph: the transformer's graph becomes the body of a `Loop`.

    input_ids, temperature, top_k, top_p, seed  ->  image

A temperature of 0 takes the best token; a `top_k` of 0 and a `top_p` of 1 leave all in question. The first iteration
reads the start token and the whole prompt with an empty cache, the others one token each; the tokens of all iterations
are what the loop collects, and the decoder makes a picture (B, 3, H, W) in [0, 1] of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ..architectures.specification import TokenPictureGeneration
from .looping import PAST, PRESENT, SCALARS, Part, Weights, empty_cache, own_names
from .picture_looping import Assembly
from .sampling import CHOOSING_PORTS, IR_VERSION, choosing_nodes, parse_nodes, port, random_nodes

PREPARED = """
    axis0 = Constant <value = int64[1] {{0}}> ()
    one_long = Constant <value = int64[1] {{1}}> ()
    start = Constant <value = int64[1] {{{start_token_id}}}> ()
    batch1 = Shape <start = 0, end = 1> (input_ids)
    rows = Squeeze (batch1, axis0)
    start_shape = Concat <axis = 0> (batch1, one_long)
    started = Expand (start, start_shape)
    first_ids = Concat <axis = 1> (started, input_ids)
    count = Constant <value_int = {count}> ()
    always = Constant <value = bool {{1}}> ()
"""

CODES = """
    first_code = Constant <value = int64[1] {{{first}}}> ()
    behind_codes = Constant <value = int64[1] {{{end}}}> ()
    vocabulary_axis = Constant <value = int64[1] {{2}}> ()
    code_logits = Slice (logits, first_code, behind_codes, vocabulary_axis)
"""

APPENDED = """
    shift = Constant <value_int = {image_start}> ()
    column_axis = Constant <value = int64[1] {{1}}> ()
    number = Add (token, shift)
    next_ids = Unsqueeze (number, column_axis)
    still_goes_on = Identity (continues)
"""

LAID_OUT = """
    grid = Constant <value = int64[3] {{0, {side}, {side}}}> ()
    by_picture = Transpose <perm = [1, 0]> (tokens)
    codes = Reshape (by_picture, grid)
"""


def code_nodes(generation: TokenPictureGeneration) -> list[onnx.NodeProto]:
    """From `logits` of all tokens to the next picture token, `token`, numbered from 0."""
    first = generation.image_start
    nodes = choosing_nodes()
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = "code_logits" if name == "logits" else name
    return [*parse_nodes(CODES.format(first=first, end=first + generation.num_codes), "codes"), *nodes]


def code_choosing_model(generation: TokenPictureGeneration, opset: int) -> onnx.ModelProto:
    """A model that chooses the next picture token; its ports are those of `sampling.choosing_model`."""
    inputs = [port(name, *value) for name, value in CHOOSING_PORTS.items()]
    graph = helper.make_graph(code_nodes(generation), "choose", inputs, [port("token", TensorProto.INT64, ("batch",))])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def token_picture_model(
    bundle: Path, generation: TokenPictureGeneration
) -> tuple[onnx.ModelProto, dict[str, dict[str, str]]]:
    """The one-file graph of a bundle.

    Args:
        bundle: its folder, with all graphs written.
        generation: how tokens become a picture.

    Returns:
        The model; and by the name of a graph, the names that its initializers have in the model.
    """
    assembly = Assembly(bundle, Weights(bundle))
    transformer, decoder = assembly.part("transformer"), assembly.part("decoder")
    caches = [value.name for value in transformer.graph.input if value.name.startswith(PAST)]
    numbers = {"start_token_id": generation.start_token_id, "count": generation.grid_size**2}
    nodes = parse_nodes(PREPARED.format(**numbers), "prepare")
    nodes += own_names(random_nodes(), {"seed", "count", "rows", "uniforms"})
    nodes += empty_cache("no_tokens", transformer.elem_type(caches[0]), _cache_shape(transformer, caches[0]))
    nodes.append(_loop(assembly, transformer, caches, generation))
    nodes += parse_nodes(LAID_OUT.format(side=generation.grid_size), "lay_out")
    nodes += assembly.nodes(decoder, "decoder", codes="codes", sample="image")
    inputs = [port("input_ids", TensorProto.INT64, ("batch", generation.text_length))]
    inputs += [port(name, kind, ()) for name, kind in SCALARS.items() if name != "max_length"]
    image = port("image", decoder.elem_type("sample"), ("batch", 3, "height", "width"))
    graph = helper.make_graph(nodes, "generate", inputs, [image], list(assembly.weights.tensors.values()))
    imports = transformer.model.opset_import
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION), assembly.names


def _cache_shape(part: Part, name: str) -> tuple[int, ...]:
    """Of an empty cache, behind the batch: heads, no tokens, channels."""
    value = next(value for value in part.graph.input if value.name == name)
    _, heads, _, head_dim = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return heads, 0, head_dim


def _loop(
    assembly: Assembly, transformer: Part, caches: Sequence[str], generation: TokenPictureGeneration
) -> onnx.NodeProto:
    elem_type = transformer.elem_type(caches[0])
    presents = [name.replace(PAST, PRESENT, 1) for name in caches]
    kept = {name: name for name in (*caches, *presents)}
    body = onnx.GraphProto(name="append_token")
    body.input.extend([port("iteration", TensorProto.INT64, ()), port("continues", TensorProto.BOOL, ())])
    body.input.extend([port("ids", TensorProto.INT64, None), *(port(name, elem_type, None) for name in caches)])
    body.node.extend(parse_nodes("uniform = Gather <axis = 0> (uniforms, iteration)", "random/row"))
    body.node.extend(assembly.nodes(transformer, "transformer", input_ids="ids", logits="logits", **kept))
    body.node.extend(code_nodes(generation))
    body.node.extend(parse_nodes(APPENDED.format(image_start=generation.image_start), "append"))
    body.output.extend([port("still_goes_on", TensorProto.BOOL, ()), port("next_ids", TensorProto.INT64, None)])
    body.output.extend([port(name, elem_type, None) for name in presents])
    body.output.append(port("token", TensorProto.INT64, ("batch",)))
    inputs = ["count", "always", "first_ids", *["no_tokens"] * len(caches)]
    finals = ["final_ids", *(f"final_{name}" for name in presents), "tokens"]
    return helper.make_node("Loop", inputs, finals, name="append_tokens", body=body)
