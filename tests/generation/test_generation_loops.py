"""Both forms of the loop, driven from Python and as one file, give the words of the network without a cache."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from onnx_arch.errors import ExportError, InvalidArgumentError, InvalidModelError
from onnx_arch.exporters.bundle import read_manifest
from onnx_arch.exporters.loop_export import Loop, prove_loop
from onnx_arch.exporters.looping import generation_model
from onnx_arch.exporters.proof import Standing
from onnx_arch.generation.request import Request, Silent
from onnx_arch.generation.sessions import BoundSession
from onnx_arch.generation.texts import generate_text, padded, read_plan, run_loop, run_one_file

from .uncached import END, NAMES, PAD, best_words, network, prompts

LENGTH = 24


def one_file(bundle, ids, mask, length=LENGTH, **options):
    """The one-file graph in plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(bundle / "generate.onnx", providers=["CPUExecutionProvider"])
    given = {"max_length": length, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0, **options}
    real = ("temperature", "top_p")
    scalars = {name: np.array(value, np.float32 if name in real else np.int64) for name, value in given.items()}
    feeds = {"input_ids": ids, "attention_mask": mask, **scalars}
    return session.run(None, feeds)[0]


def batch(bundle, count=5):
    manifest = read_manifest(bundle)
    plan, _ = read_plan(manifest)
    texts = prompts(count)
    return manifest, texts, padded(texts, plan)


def without_padding(name, row, prompt, width):
    """A row without the padding before its prompt and behind its end."""
    row = row[width - len(prompt) :] if name == "gpt2" else row
    begin = len(prompt) if name == "gpt2" else 1
    ends = [place for place in range(begin, len(row)) if row[place] == END[name]]
    return row[: ends[0] + 1] if ends else row


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["python", "one file"])
def test_best_words_are_those_of_the_network_without_cache(loops, name, form):
    bundle = loops(name).path
    manifest, texts, given = batch(bundle)
    if form == "python":
        words = run_loop(bundle, manifest, given, LENGTH, Request())
    else:
        words = one_file(bundle, given.ids, given.mask)
    width = given.ids.shape[1]
    for prompt, row in zip(texts, words.tolist(), strict=True):
        expected = best_words(name, prompt, len(row) - (width - len(prompt) if name == "gpt2" else 0))
        assert without_padding(name, row, prompt, width) == expected


SETTINGS = [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.5, 0, 0.8), (1.0, 12, 0.6)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 3])
def test_sampled_words_are_the_same_in_both_forms_and_follow_the_seed(loops, name, seed):
    bundle = loops(name).path
    manifest, _, given = batch(bundle)
    for temperature, top_k, top_p in SETTINGS:
        request = Request(seed=seed, temperature=temperature, top_k=top_k, top_p=top_p)
        driven = run_loop(bundle, manifest, given, LENGTH, request)
        whole = one_file(bundle, given.ids, given.mask, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        assert np.array_equal(driven, whole)
        assert np.array_equal(driven, run_loop(bundle, manifest, given, LENGTH, request))
        other = run_loop(
            bundle, manifest, given, LENGTH, Request(seed=seed + 1, temperature=temperature, top_k=top_k, top_p=top_p)
        )
        assert driven.shape != other.shape or not np.array_equal(driven, other)


@pytest.mark.parametrize("name", NAMES)
def test_texts_end_with_their_end_token_and_are_padded_behind_it(loops, name):
    bundle = loops(name).path
    manifest, _, given = batch(bundle, count=40)
    words = one_file(bundle, given.ids, given.mask, 60, temperature=3.0, seed=1)
    begin = given.ids.shape[1] if name == "gpt2" else 1
    ended = 0
    for row in words[:, begin:].tolist():
        if END[name] in row:
            ended += 1
            assert set(row[row.index(END[name]) + 1 :]) <= {PAD[name]}
    assert ended > 0
    assert np.array_equal(words, run_loop(bundle, manifest, given, 60, Request(temperature=3.0, seed=1)))


def test_the_loop_is_over_when_every_text_is(loops):
    bundle = loops("t5").path
    ids = np.array([[5, 6]])
    lengths = {one_file(bundle, ids, np.ones_like(ids), 1000, temperature=5.0, seed=seed).shape[1] for seed in range(4)}
    assert max(lengths) < 1000
    assert len(lengths) > 1


@pytest.mark.parametrize("name", NAMES)
def test_no_room_for_a_word_gives_none(loops, name):
    bundle = loops(name).path
    ids = np.array([[5, 6, 7]])
    expected = [[5, 6, 7]] if name == "gpt2" else [[0]]
    for length in (0, 1, len(expected[0])):
        assert one_file(bundle, ids, np.ones_like(ids), length).tolist() == expected


def test_a_text_is_never_longer_than_the_network_holds(loops):
    ids = np.array([[5, 6, 7]])
    words = one_file(loops("gpt2").path, ids, np.ones_like(ids), 1000, temperature=0.0)
    assert words.shape[1] <= 64


@pytest.mark.parametrize("name", NAMES)
def test_one_file_graph_is_valid_and_its_large_weights_are_those_of_the_others(loops, name):
    bundle = loops(name).path
    onnx.checker.check_model(str(bundle / "generate.onnx"), full_check=True)
    model = onnx.load(bundle / "generate.onnx", load_external_data=False)
    assert [value.name for value in model.graph.input] == [
        "input_ids", "attention_mask", "max_length", "temperature", "top_k", "top_p", "seed"
    ]  # fmt: skip
    assert [value.name for value in model.graph.output] == ["sequences"]
    external = [tensor for tensor in model.graph.initializer if tensor.external_data]
    places = {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}
    folders = [""] if name == "gpt2" else ["encoder/", "decoder/"]
    assert places == {f"{folder}model.onnx.data" for folder in folders}
    assert len({tensor.name for tensor in model.graph.initializer}) == len(model.graph.initializer)
    stated = read_manifest(bundle)["graphs"][-1]
    assert (stated["name"], stated["model"]) == ("generate", "generate.onnx")
    assert stated["proof"] == {"translation": "passed", "onnxruntime": "passed", "shapes": 1}
    assert {tensor.name for tensor in external} <= set(stated["initializers"])


def test_a_weight_of_both_graphs_is_stored_once_in_the_whole(loops):
    model = onnx.load(loops("t5").path / "generate.onnx", load_external_data=False)
    shared = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [71, 32]]
    assert [tensor.name for tensor in shared] == ["shared.weight"]


def read_case(bundle):
    found = {"input": {}, "output": {}}
    for file in sorted((bundle / "generate_data_set_0").iterdir()):
        tensor = onnx.TensorProto.FromString(file.read_bytes())
        found[file.name.partition("_")[0]][tensor.name] = onnx.numpy_helper.to_array(tensor)
    return found["input"], found["output"]


@pytest.mark.parametrize("name", NAMES)
def test_test_data_of_the_one_file_graph_agree_with_plain_onnxruntime(loops, name):
    feeds, expected = read_case(loops(name).path)
    session = onnxruntime.InferenceSession(loops(name).path / "generate.onnx", providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, feeds)[0], expected["sequences"])


def drop_position(body):
    """Every word stands where the first did."""
    node = next(node for node in body.node if node.output[0] == "next_position")
    node.op_type = "Sub"


def forget_cache(body):
    """The cache is not handed on."""
    for output in body.output:
        if output.name == "present.0.value":
            body.node.append(onnx.helper.make_node("Mul", ["present.0.value", "nothing"], ["forgotten"]))
            output.name = "forgotten"


def swap_key_and_value(body):
    """Layer 0 gets keys for values."""
    names = [output.name for output in body.output]
    key, value = names.index("present.0.key"), names.index("present.0.value")
    body.output[key].name, body.output[value].name = names[value], names[key]


def take_the_worst(body):
    """The worst word is chosen."""
    chosen = next(node for node in body.node if node.op_type == "If")
    branch = next(attribute.g for attribute in chosen.attribute if attribute.name == "else_branch")
    branch.node[0].op_type = "ArgMin"


@pytest.mark.parametrize("fault", [drop_position, forget_cache, swap_key_and_value, take_the_worst])
def test_a_wrong_loop_is_caught_by_its_proof(loops, tmp_path, fault):
    bundle = loops("gpt2").path
    plan, _ = read_plan(read_manifest(bundle))
    model = onnx.load(bundle / "generate.onnx")
    feeds, _ = read_case(bundle)

    def proof(name):
        onnx.save(model, tmp_path / name)
        loop = Loop(tmp_path / name, plan, feeds, None, {})
        return prove_loop(network("gpt2"), loop, torch.float32, lambda _: None)[0]

    assert proof("right.onnx").runtime is Standing.PASSED
    nothing = onnx.helper.make_tensor("nothing", onnx.TensorProto.FLOAT, (), [0.0])
    model.graph.initializer.append(nothing)
    fault(next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g)
    wrong = proof("wrong.onnx")
    assert (wrong.translation, wrong.runtime) == (Standing.FAILED, Standing.FAILED)
    assert "writes" in wrong.shapes[0].runtime.comparisons[0].message


def test_a_decoder_without_cache_or_with_a_foreign_input_makes_no_loop(loops, tmp_path):
    bundle = loops("gpt2").path
    plan, _ = read_plan(read_manifest(bundle))
    model = onnx.load(bundle / "model.onnx")
    model.graph.input[2].name = "speed"
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ExportError, match="gpt2: its graph has input speed; a loop cannot be made of it"):
        generation_model(tmp_path, plan, {"gpt2": "foreign.onnx"})


class Recorder(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.texts, self.steps = [], 0

    def begin(self, steps):
        self.steps = steps

    def step(self, text=""):
        self.texts.append(text)


@pytest.mark.parametrize("form", [False, True], ids=["python", "one file"])
def test_words_are_told_as_they_come(loops, form):
    bundle, watcher = loops("gpt2").path, Recorder()
    request = Request(tokens=(5, 6, 7), max_length=12, one_file=form)
    result = generate_text(bundle, read_manifest(bundle), request, watcher)
    assert "".join(watcher.texts) == ",".join(map(str, result.tokens[0]))
    assert result.tokens[0][:3] == (5, 6, 7)
    assert (watcher.steps, result.steps, len(watcher.texts)) == (9, 9, 10)


def test_several_texts_of_one_prompt_differ_by_their_random_numbers(loops):
    bundle = loops("gpt2").path
    request = Request(tokens=(5, 6), count=4, temperature=1.0, max_length=20)
    result = generate_text(bundle, read_manifest(bundle), request, Silent())
    assert len(set(result.tokens)) == 4
    alone = generate_text(
        bundle, read_manifest(bundle), Request(tokens=(5, 6), temperature=1.0, max_length=20), Silent()
    )
    assert alone.tokens[0] == result.tokens[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give either --prompt TEXT or --tokens 1,2,3"),
        ({"prompt": "a", "tokens": (1,)}, "give either"),
        ({"prompt": "a"}, "--prompt needs a tokenizer"),
        ({"tokens": (1,), "max_length": 65}, "65 words; the network holds at most 64"),
        ({"tokens": (1,) * 65}, "65 words; the network holds at most 64"),
        ({"tokens": (1,), "temperature": -1.0}, "--temperature -1.0; allowed are numbers of at least 0"),
        ({"tokens": (1,), "top_p": 0.0}, "--top-p 0.0; allowed are numbers above 0"),
        ({"tokens": (67,)}, "--tokens 67; the network knows 0 to 66"),
    ],
)
def test_bad_request_is_refused(loops, options, told):
    bundle = loops("gpt2").path
    with pytest.raises(InvalidArgumentError, match=told):
        generate_text(bundle, read_manifest(bundle), Request(**options), Silent())


def test_a_bundle_without_what_is_asked_for_says_so(loops):
    bundle = loops("gpt2").path
    manifest = read_manifest(bundle)
    plain = {**manifest, "generation": {**manifest["generation"], "model": ""}}
    with pytest.raises(InvalidModelError, match=r"has no generate\.onnx; export it with --loop"):
        generate_text(bundle, plain, Request(tokens=(1,), one_file=True), Silent())
    with pytest.raises(InvalidModelError, match="does not say how words are appended"):
        read_plan({"name": "mlp"})


def test_outputs_of_a_session_are_its_next_inputs_without_a_copy(loops):
    session = BoundSession(loops("gpt2").path / "model.onnx")
    empty = np.zeros((1, 4, 0, 8), np.float32)
    caches = {name: empty for name in session.inputs if name.startswith("past_key_values")}
    ids = np.array([[3, 4, 5]])
    results = session.run({"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": ids, **caches})
    kept = results["present.0.key"]
    assert session.value(kept) is kept
    assert kept.numpy().shape == (1, 4, 3, 8)


def test_failures_of_the_runtime_are_one_line(loops, tmp_path):
    session = BoundSession(loops("gpt2").path / "model.onnx")
    with pytest.raises(Exception, match="ONNX Runtime: ") as caught:
        session.run({"input_ids": np.zeros((1, 1, 1), np.int64)})
    assert "\n" not in str(caught.value)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InvalidModelError, match=r"broken\.onnx: ONNX Runtime does not load it"):
        BoundSession(tmp_path / "broken.onnx")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["onnxscript"] = sys.modules["onnx_ir"] = None
from onnx_arch.cli.main import main
main()
"""


@pytest.mark.parametrize("form", [[], ["--one-file"]], ids=["python", "one file"])
def test_generate_needs_no_torch(loops, tmp_path, form):
    words = ["generate", str(loops("t5").path), "--tokens", "5,6,7", "--max-length", "9", "--json", "-", *form]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    row = json.loads(done.stdout)
    assert row["tokens"] == [best_words("t5", [5, 6, 7], 9)]
    assert (row["kind"], row["name"], row["texts"]) == ("generation", "t5", [])


def test_one_file_words_of_a_request_are_its_sequences(loops):
    bundle = loops("t5").path
    _, _, given = batch(bundle)
    assert np.array_equal(
        run_one_file(bundle, "generate.onnx", given, LENGTH, Request()), one_file(bundle, given.ids, given.mask)
    )
