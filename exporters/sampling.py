"""Choosing the next word, and the random numbers for it, as ONNX operators.

Both forms of generation use these graphs: the one-file graph holds them in its loop, and the loop driven from Python
runs them as models of their own. So both choose the same words.

**Random numbers.** A generator with a hidden state has no place in a graph. Threefry-2x32 (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011, section 4.2) maps a counter (step, row) and a key (the seed) to 32 random
bits by additions, rotations and exclusive ors: 20 rounds, here one `Scan` over all counters at once. A number is the
highest 24 bits, as a fraction in [0, 1) that float32 holds exactly.

**Choosing.** The scores' best `top_k`, divided by the temperature, become probabilities; of those the best are kept
until they have `top_p` together; and the number falls into one of the intervals that they divide [0, 1) into. A
temperature of 0 takes the best word.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import parser

IR_VERSION = 10

Ports = dict[str, tuple[int, tuple[str, ...]]]
"""Element type and shape by name."""

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
ROUNDS = 20
PARITY = 0x1BD11BDA
WORD = 0xFFFFFFFF

CHOOSE = """
    int_one = Constant <value = int64[1] {1}> ()
    int_zero = Constant <value = int64[1] {0}> ()
    minus_one = Constant <value_int = -1> ()
    last = Gather <axis = 1> (logits, minus_one)
    scores = Cast <to = 1> (last)
    real_zero = Constant <value_float = 0.0> ()
    is_random = Greater (temperature, real_zero)
    token = If (is_random) <
        then_branch = drawing () => (int64[batch] drawn) {
            vocabulary = Shape <start = 1, end = 2> (scores)
            limited = Greater (top_k, int_zero)
            smaller = Min (top_k, vocabulary)
            k = Where (limited, smaller, vocabulary)
            scaled = Div (scores, temperature)
            best, words = TopK <axis = 1> (scaled, k)
            probabilities = Softmax <axis = 1> (best)
            reached = CumSum (probabilities, int_one_scalar)
            before = Sub (reached, probabilities)
            is_kept = Less (before, top_p)
            kept = Cast <to = 1> (is_kept)
            weights = Mul (probabilities, kept)
            total = ReduceSum <keepdims = 1> (weights, int_one)
            column = Unsqueeze (uniform, int_one)
            target = Mul (column, total)
            is_passed = LessOrEqual (reached, target)
            passed = Cast <to = 7> (is_passed)
            place = ReduceSum <keepdims = 1> (passed, int_one)
            kept_number = Cast <to = 7> (is_kept)
            number = ReduceSum <keepdims = 1> (kept_number, int_one)
            highest = Sub (number, int_one)
            highest_place = Max (highest, int_zero)
            chosen_place = Min (place, highest_place)
            chosen = GatherElements <axis = 1> (words, chosen_place)
            drawn = Squeeze (chosen, int_one)
        },
        else_branch = taking () => (int64[batch] taken) {
            taken = ArgMax <axis = 1, keepdims = 0> (scores)
        }
    >
"""
"""From `logits` (B, T, vocab), `temperature`, `top_k`, `top_p` and `uniform` (B) to `token` (B)."""


def choosing_nodes() -> list[onnx.NodeProto]:
    """The operators from logits to the next word; see `CHOOSE`."""
    scalar = "    int_one_scalar = Constant <value_int = 1> ()\n"
    return parse_nodes(scalar + CHOOSE, "choose")


def random_nodes() -> list[onnx.NodeProto]:
    """The operators from `seed`, `count` and `rows` (scalars) to `uniforms`, (count, rows) numbers in [0, 1)."""
    factors = ", ".join(str(2 ** ROTATIONS[number % 8]) for number in range(ROUNDS))
    text = f"""
    word = Constant <value_int = {WORD}> ()
    radix = Constant <value_int = {WORD + 1}> ()
    parity = Constant <value_int = {PARITY}> ()
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    axis0 = Constant <value = int64[1] {{0}}> ()
    axis1 = Constant <value = int64[1] {{1}}> ()
    factors = Constant <value = int64[{ROUNDS}] {{{factors}}}> ()
    key0 = BitwiseAnd (seed, word)
    seed_high = Div (seed, radix)
    key1 = BitwiseAnd (seed_high, word)
    keys01 = BitwiseXor (key0, key1)
    key2 = BitwiseXor (keys01, parity)
    steps = Range (zero, count, one)
    steps_column = Unsqueeze (steps, axis1)
    numbers = Range (zero, rows, one)
    numbers_row = Unsqueeze (numbers, axis0)
    nothing_column = Sub (steps_column, steps_column)
    nothing_row = Sub (numbers_row, numbers_row)
    counter0 = Add (steps_column, nothing_row)
    counter1 = Add (numbers_row, nothing_column)
    begun0 = Add (counter0, key0)
    begun1 = Add (counter1, key1)
    start0 = BitwiseAnd (begun0, word)
    start1 = BitwiseAnd (begun1, word)
    {_injections()}
    bits0, bits1 = Scan <num_scan_inputs = 3, body = round
        (int64[s, r] x0, int64[s, r] x1, int64 factor, int64 injected0, int64 injected1)
        => (int64[s, r] y0, int64[s, r] y1)
    {{
        sum0 = Add (x0, x1)
        mixed0 = BitwiseAnd (sum0, word)
        shifted = Mul (x1, factor)
        high = Div (shifted, radix)
        low = BitwiseAnd (shifted, word)
        rotated = Add (high, low)
        mixed1 = BitwiseXor (rotated, mixed0)
        more0 = Add (mixed0, injected0)
        more1 = Add (mixed1, injected1)
        y0 = BitwiseAnd (more0, word)
        y1 = BitwiseAnd (more1, word)
    }}> (start0, start1, factors, injections0, injections1)
    dropped = Constant <value_int = 256> ()
    top = Div (bits0, dropped)
    fraction = Cast <to = 1> (top)
    unit = Constant <value_float = 5.9604644775390625e-08> ()
    uniforms = Mul (fraction, unit)
    """
    return parse_nodes(text, "random")


def _injections() -> str:
    """The key's words that are added after every fourth round, as one column of `ROUNDS` numbers for each half."""
    lines, columns = [], ([], [])
    for number in range(ROUNDS):
        group, last = divmod(number, 4)
        for half, column in enumerate(columns):
            if last != 3:
                column.append("axis0")
                continue
            name = f"injected{half}_{group}"
            lines.append(f"{name}_key = Unsqueeze (key{(group + 1 + half) % 3}, axis0)")
            lines.append(f"{name}_number = Constant <value = int64[1] {{{(group + 1) * half}}}> ()")
            lines.append(f"{name} = Add ({name}_key, {name}_number)")
            column.append(name)
    for half, column in enumerate(columns):
        lines.append(f"injections{half} = Concat <axis = 0> ({', '.join(column)})")
    return "\n    ".join(lines)


def parse_nodes(text: str, place: str) -> list[onnx.NodeProto]:
    """Nodes from ONNX's textual form, named after their place: `choose/TopK`."""
    graph = parser.parse_graph(f"g () => () {{ {text} }}")
    name_nodes(graph.node, place)
    return list(graph.node)


def name_nodes(nodes: Sequence[onnx.NodeProto], place: str) -> None:
    """Name nodes that have no name, and those of their subgraphs, after their operator."""
    counts: dict[str, int] = {}
    for node in nodes:
        stem = f"{place}/{node.op_type}"
        number = counts[stem] = counts.get(stem, -1) + 1
        node.name = f"{stem}_{number}" if number else stem
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                name_nodes(attribute.g.node, f"{node.name}/{attribute.name}")


def choosing_model(opset: int) -> onnx.ModelProto:
    """A model that chooses the next word of `logits`, of whatever floating-point type they are."""
    outputs: Ports = {"token": (onnx.TensorProto.INT64, ("batch",))}
    return _model("choose", choosing_nodes(), CHOOSING_PORTS, outputs, opset)


CHOOSING_PORTS: Ports = {
    "logits": (onnx.TensorProto.FLOAT, ("batch", "sequence", "vocab")),
    "temperature": (onnx.TensorProto.FLOAT, ()),
    "top_k": (onnx.TensorProto.INT64, ()),
    "top_p": (onnx.TensorProto.FLOAT, ()),
    "uniform": (onnx.TensorProto.FLOAT, ("batch",)),
}


def random_model(opset: int) -> onnx.ModelProto:
    """A model that gives `uniforms` (count, rows) of a `seed`."""
    scalar: tuple[int, tuple[str, ...]] = (onnx.TensorProto.INT64, ())
    outputs: Ports = {"uniforms": (onnx.TensorProto.FLOAT, ("count", "rows"))}
    return _model("random", random_nodes(), dict.fromkeys(("seed", "count", "rows"), scalar), outputs, opset)


def _model(name: str, nodes: Sequence[onnx.NodeProto], inputs: Ports, outputs: Ports, opset: int) -> onnx.ModelProto:
    given, made = ([port(key, *value) for key, value in ports.items()] for ports in (inputs, outputs))
    graph = onnx.helper.make_graph(nodes, name, given, made)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def port(name: str, elem_type: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    """An input or output; without a shape where it changes from step to step."""
    return onnx.helper.make_tensor_value_info(name, elem_type, shape)
