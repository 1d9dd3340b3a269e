"""The whole loop as one graph: the decoder's graph becomes the body of a `Loop` that appends word after word.

    input_ids, attention_mask, max_length, temperature, top_k, top_p, seed  ->  sequences

A temperature of 0 takes the best word; a `top_k` of 0 and a `top_p` of 1 leave all words in question.

The graph is made of the graphs of a bundle as they were written, and shares their weights: large ones are read from the
same files, so the bundle hardly grows. It runs in ONNX Runtime alone. One body serves prompt and words: the first
iteration reads the whole prompt with an empty cache, the others one word each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ..architectures.specification import TextGeneration
from ..errors import ExportError
from .sampling import choosing_nodes, parse_nodes, port, random_nodes

GENERATE = "generate.onnx"
PAST = "past_key_values."
PRESENT = "present."

SCALARS = {
    "max_length": TensorProto.INT64,
    "temperature": TensorProto.FLOAT,
    "top_k": TensorProto.INT64,
    "top_p": TensorProto.FLOAT,
    "seed": TensorProto.INT64,
}

PREPARED = """
    axis0 = Constant <value = int64[1] {{0}}> ()
    zero = Constant <value_int = 0> ()
    batch1 = Shape <start = 0, end = 1> (input_ids)
    rows = Squeeze (batch1, axis0)
    {start}
    room = Sub ({limit}, length)
    count = Max (room, zero)
    always = Constant <value = bool {{1}}> ()
    unfinished = ConstantOfShape <value = bool[1] {{0}}> (batch1)
"""

CONTINUED = """
    one = Constant <value_int = 1> ()
    first_ids = Identity (input_ids)
    prompt_length = Shape <start = 1, end = 2> (input_ids)
    length = Squeeze (prompt_length, axis0)
    seen = CumSum (attention_mask, one)
    positions = Sub (seen, one)
    first_positions = Max (positions, zero)
"""

STARTED = """
    length = Constant <value_int = 1> ()
    axis1 = Constant <value = int64[1] {{1}}> ()
    start_token = Constant <value = int64[1] {{{start_token_id}}}> ()
    start_shape = Concat <axis = 0> (batch1, axis1)
    first_ids = Expand (start_token, start_shape)
"""

APPENDED = """
    pad = Constant <value_int = {pad}> ()
    axis1_1 = Constant <value = int64[1] {{1}}> ()
    written = Where (finished, pad, token)
    {ended}
    next_ids = Unsqueeze (written, axis1_1)
    longer = Concat <axis = 1> (sequence, next_ids)
    ended_number = Cast <to = 7> (ended)
    all_ended = ReduceMin <keepdims = 0> (ended_number)
    is_over = Cast <to = 9> (all_ended)
    goes_on = Not (is_over)
"""

MASK_GROWS = """
    new_shape = Shape (next_ids)
    seen_too = ConstantOfShape <value = int64[1] {1}> (new_shape)
    longer_mask = Concat <axis = 1> (mask, seen_too)
    last_place = Constant <value_int = -1> ()
    last_position = Gather <axis = 1> (position_ids, last_place)
    next_position = Add (last_position, one)
    next_positions = Unsqueeze (next_position, axis1_1)
"""


@dataclass(frozen=True)
class Part:
    """One graph of the bundle, on its way into the whole.

    Attributes:
        model: as it was written; large weights stay in their file.
        folder: where it lies in the bundle, "" or ending in "/".
        prefix: before the names of its nodes and values.
    """

    model: onnx.ModelProto
    folder: str
    prefix: str

    @property
    def graph(self) -> onnx.GraphProto:
        """Its graph."""
        return self.model.graph

    def elem_type(self, name: str) -> int:
        """The type of an input or output."""
        found = next(value for value in (*self.graph.input, *self.graph.output) if value.name == name)
        return found.type.tensor_type.elem_type


class Weights:
    """The initializers of all parts, each content once."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._names: dict[tuple[int, tuple[int, ...], str], str] = {}
        self.tensors: dict[str, TensorProto] = {}

    def add(self, part: Part) -> dict[str, str]:
        """Take over a part's; returns their names in the whole by those in the part."""
        names = {}
        for tensor in part.graph.initializer:
            placed = self._placed(tensor, part.folder)
            key = (tensor.data_type, tuple(tensor.dims), self._digest(placed))
            if key not in self._names:
                taken = tensor.name in self.tensors
                placed.name = f"{part.prefix}{tensor.name}" if taken else tensor.name
                self._names[key] = placed.name
                self.tensors[placed.name] = placed
            names[tensor.name] = self._names[key]
        return names

    @staticmethod
    def _placed(tensor: TensorProto, folder: str) -> TensorProto:
        """The tensor with its file named from the bundle's folder."""
        placed = TensorProto()
        placed.CopyFrom(tensor)
        for entry in placed.external_data:
            if entry.key == "location":
                entry.value = folder + entry.value
        return placed

    def _digest(self, tensor: TensorProto) -> str:
        if tensor.data_location != TensorProto.EXTERNAL:
            nameless = TensorProto()
            nameless.CopyFrom(tensor)
            nameless.ClearField("name")
            return hashlib.sha256(nameless.SerializeToString(deterministic=True)).hexdigest()
        place = {entry.key: entry.value for entry in tensor.external_data}
        with (self._bundle / place["location"]).open("rb") as file:
            file.seek(int(place.get("offset", 0)))
            digest, left = hashlib.sha256(), int(place["length"])
            while left and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
        return digest.hexdigest()


def generation_model(
    bundle: Path, generation: TextGeneration, files: Mapping[str, str]
) -> tuple[onnx.ModelProto, dict[str, dict[str, str]]]:
    """The one-file graph of a bundle.

    Args:
        bundle: its folder, with all graphs written.
        generation: how words are appended.
        files: by the name of a graph, its file in the folder.

    Returns:
        The model; and by the name of a graph, the names that its initializers have in the model.

    Raises:
        ExportError: the decoder's graph has no cache, or an input that the loop cannot give.
    """
    decoder = read_part(bundle, files[generation.decoder], "decoder/")
    weights = Weights(bundle)
    nodes: list[onnx.NodeProto] = []
    states: dict[str, str] = {"encoder_attention_mask": "attention_mask"}
    names: dict[str, dict[str, str]] = {}
    if generation.encoder:
        encoder = read_part(bundle, files[generation.encoder], "encoder/")
        names[generation.encoder] = weights.add(encoder)
        own = {value.name: value.name for value in encoder.graph.input}
        nodes += renamed_nodes(encoder, names[generation.encoder] | own)
        states |= {_as_past(v.name): f"encoder/{v.name}" for v in encoder.graph.output if v.name.startswith(PRESENT)}
    start = STARTED.format(start_token_id=generation.start_token_id) if generation.encoder else CONTINUED
    limited = generation.longest is not None
    limit = f"longest = Constant <value_int = {generation.longest}> ()\n limit = Min (max_length, longest)"
    prepared = PREPARED.format(start=start + limit * limited, limit="limit" if limited else "max_length")
    nodes += parse_nodes(prepared, "prepare") + own_names(random_nodes(), {"seed", "count", "rows", "uniforms"})
    loop = _Loop(decoder, generation, states)
    names[generation.decoder] = weights.add(decoder)
    nodes += [*loop.empty_caches(), loop.node(names[generation.decoder])]
    return _model(decoder.model, nodes, weights.tensors.values()), names


def read_part(bundle: Path, file: str, prefix: str) -> Part:
    """One graph of a bundle, with a prefix for its names in the whole."""
    model = onnx.load(bundle / file, load_external_data=False)
    folder = file.rpartition("/")[0]
    return Part(model, f"{folder}/" if folder else "", prefix)


def _as_past(name: str) -> str:
    return PAST + name.removeprefix(PRESENT)


def renamed_nodes(part: Part, known: Mapping[str, str]) -> list[onnx.NodeProto]:
    """The part's nodes with its prefix before their names and values, but for those that are known outside."""
    nodes = []
    for node in part.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        _rename(copy, part.prefix, known)
        nodes.append(copy)
    return nodes


def _rename(node: onnx.NodeProto, prefix: str, known: Mapping[str, str]) -> None:
    node.name = f"{prefix}{node.name}"
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            if name:
                names[index] = known.get(name, f"{prefix}{name}")
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
                value.name = known.get(value.name, f"{prefix}{value.name}")
            for inner in graph.node:
                _rename(inner, prefix, known)


def own_names(nodes: Iterable[onnx.NodeProto], shared: set[str]) -> list[onnx.NodeProto]:
    """Nodes with a prefix before every name but the shared ones."""
    renamed = list(nodes)
    for node in renamed:
        name = node.name
        _rename(node, "random/", {name: name for name in shared})
        node.name = name
    return renamed


class _Loop:
    """The loop: its state, its body, and the node."""

    def __init__(self, decoder: Part, generation: TextGeneration, states: Mapping[str, str]) -> None:
        self.decoder, self.generation, self.states = decoder, generation, states
        inputs = [value.name for value in decoder.graph.input]
        self.caches = [name for name in inputs if name.startswith(PAST) and name not in states]
        self.grows = not generation.encoder
        given = {"input_ids", *states, *self.caches, *(("attention_mask", "position_ids") if self.grows else ())}
        foreign = [name for name in inputs if name not in given]
        if foreign or not self.caches:
            what = f"input {foreign[0]}" if foreign else "no cache"
            raise ExportError(f"{generation.decoder}: its graph has {what}; a loop cannot be made of it")
        kinds = {name: (decoder.elem_type(name), self._shape(name)) for name in self.caches}
        self.empties = {kind: f"no_words_{index}" for index, kind in enumerate(dict.fromkeys(kinds.values()))}
        self.starts = [self.empties[kinds[name]] for name in self.caches]

    def _shape(self, name: str) -> tuple[int, ...]:
        """Of an empty cache, behind the batch: heads, no words, channels."""
        value = next(value for value in self.decoder.graph.input if value.name == name)
        _, heads, _, head_dim = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
        return heads, 0, head_dim

    def empty_caches(self) -> list[onnx.NodeProto]:
        """What every cache is before the first word."""
        return [node for key, name in self.empties.items() for node in empty_cache(name, *key)]

    def node(self, weights: Mapping[str, str]) -> onnx.NodeProto:
        """The Loop node; its first result is the sequences."""
        known = {**weights, **self.states}
        body = onnx.GraphProto(name="append_word")
        body.input.extend([port("iteration", TensorProto.INT64, ()), port("continues", TensorProto.BOOL, ())])
        for name, elem_type in self._carried():
            body.input.append(port(name, elem_type, None))
        mine = {"input_ids": "ids", "attention_mask": "mask", "position_ids": "position_ids"}
        known = {**mine, **known} | {name: name for name in self.caches} | {"logits": "logits"}
        known |= {value.name: value.name for value in self.decoder.graph.output}
        body.node.extend(parse_nodes("uniform = Gather <axis = 0> (uniforms, iteration)", "random/row"))
        body.node.extend([*renamed_nodes(self.decoder, known), *choosing_nodes(), *self._appended()])
        presents = [name.replace(PAST, PRESENT, 1) for name in self.caches]
        grown = ["longer_mask", "next_positions"] if self.grows else []
        results = ["longer", "next_ids", "ended", *grown, *presents]
        body.output.append(port("goes_on", TensorProto.BOOL, ()))
        for result, (_, elem_type) in zip(results, self._carried(), strict=True):
            body.output.append(port(result, elem_type, None))
        begun = ["attention_mask", "first_positions"] if self.grows else []
        inputs = ["count", "always", "first_ids", "first_ids", "unfinished", *begun, *self.starts]
        finals = ["sequences", *(f"final_{name}" for name in results[1:])]
        return helper.make_node("Loop", inputs, finals, name="append_words", body=body)

    def _carried(self) -> list[tuple[str, int]]:
        """The loop's state: the body's inputs with their types."""
        grown = [("mask", TensorProto.INT64), ("position_ids", TensorProto.INT64)] if self.grows else []
        caches = [(name, self.decoder.elem_type(name)) for name in self.caches]
        return [
            ("sequence", TensorProto.INT64), ("ids", TensorProto.INT64), ("finished", TensorProto.BOOL), *grown, *caches
        ]  # fmt: skip

    def _appended(self) -> list[onnx.NodeProto]:
        eos = self.generation.eos_token_id
        ends = f"eos = Constant <value_int = {eos}> ()\n ends = Equal (written, eos)\n ended = Or (finished, ends)"
        ended = "ended = Identity (finished)" if eos is None else ends
        text = APPENDED.format(pad=self.generation.pad_token_id, ended=ended)
        return parse_nodes(text + (MASK_GROWS if self.grows else ""), "append")


def empty_cache(name: str, elem_type: int, shape: tuple[int, ...]) -> list[onnx.NodeProto]:
    """A cache without words, of `batch1` texts; `shape` is what stands behind the batch."""
    inner = ", ".join(map(str, shape))
    text = f"{name}_rest = Constant <value = int64[3] {{{inner}}}> ()\n"
    text += f"{name}_shape = Concat <axis = 0> (batch1, {name}_rest)"
    zero = helper.make_tensor("zero", elem_type, [1], [0])
    fill = helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], name=f"prepare/{name}", value=zero)
    nodes = parse_nodes(text, f"prepare/{name}")
    return [*nodes, fill]


def _model(step: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], weights: Iterable[TensorProto]) -> onnx.ModelProto:
    shape = ("batch", "sequence")
    inputs = [port(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    inputs += [port(name, elem_type, ()) for name, elem_type in SCALARS.items()]
    outputs = [port("sequences", TensorProto.INT64, ("batch", "length"))]
    graph = helper.make_graph(list(nodes), "generate", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)
    model.functions.extend(step.functions)
    model.producer_name = step.producer_name
    return model
