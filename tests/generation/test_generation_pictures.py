"""Diffusion pipelines: driven from Python and as one file, equal to each other and to PyTorch's own loop."""

from __future__ import annotations

import functools
import math
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnxscript._framework_apis import torch_2_11 as onnxscript_apis
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from onnx_arch.architectures._schedule import LATENT_SCHEDULE
from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture
from onnx_arch.architectures.specification import PictureGeneration
from onnx_arch.errors import InvalidArgumentError, InvalidModelError
from onnx_arch.exporters import export
from onnx_arch.exporters.denoising import guided_step_model
from onnx_arch.exporters.proof import Standing
from onnx_arch.generation.pictures import Noise, Wanted, as_pictures, framed, shown
from onnx_arch.generation.registry import find_generator
from onnx_arch.generation.request import Request, Silent
from onnx_arch.generation.token_pictures import padded

NAMES = ("dalle", "ddpm", "latent-diffusion", "stable-diffusion")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Tiny pipelines with their one-file graphs, each graph proved at its own shape only."""
    made = {}
    parse = functools.cache(onnxscript_apis.get_torchlib_ops)  # torch.onnx parses its translations at every export

    def exported(name):
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(onnxscript_apis, "get_torchlib_ops", parse)
                patch.setattr(export, "swept_sizes", lambda spec: [spec.sizes()])
                folder = tmp_path_factory.mktemp("pictures")
                made[name] = export.export_architecture(name, folder, preset="tiny", loop=True)
        return made[name]

    return exported


WORDS = {
    "dalle": {"tokens": (1, 2, 3), "temperature": 1.0, "top_k": 5},
    "ddpm": {"steps": 4},
    "latent-diffusion": {"tokens": (1, 2, 3), "guidance": 3.0, "steps": 4},
    "stable-diffusion": {"tokens": (1, 2, 3), "guidance": 3.0, "steps": 4},
}


def asked(name, **options):
    return Request(**{"seed": 3, "count": 2, **WORDS[name], **options})


def drawn(made, request):
    entry = find_generator(made.name)
    entry.check(made.name, request)
    return np.stack(entry.load()(made.path, made.manifest, request, Silent()).pictures)


@pytest.mark.parametrize("name", NAMES)
def test_one_file_graph_is_proved_and_valid(bundle, name):
    made = bundle(name)
    assert made.written
    assert made.proofs[-1].graph == "generate"
    assert (made.proofs[-1].translation, made.proofs[-1].runtime) == (Standing.PASSED, Standing.PASSED)
    onnx.checker.check_model(made.path / "generate.onnx", full_check=True)
    stated = {graph["name"]: graph for graph in made.manifest["graphs"]}["generate"]
    assert stated["outputs"][0]["name"] == "image"
    assert made.manifest["generation"]["model"] == "generate.onnx"
    assert len(stated["outputs"]) == 1
    assert any(origin["transform"] == "identity" for origin in stated["initializers"].values())


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_make_the_same_pictures(bundle, name):
    parts, whole = drawn(bundle(name), asked(name)), drawn(bundle(name), asked(name, one_file=True))
    assert parts.dtype == np.uint8
    assert parts.std() > 20
    assert np.abs(parts.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_test_data_of_the_one_file_graph_hold_in_onnxruntime_alone(bundle, name):
    path = bundle(name).path
    session = onnxruntime.InferenceSession(path / "generate.onnx", providers=["CPUExecutionProvider"])
    values = {}
    for file in (path / "generate_data_set_0").iterdir():
        tensor = onnx.TensorProto.FromString(file.read_bytes())
        values[tensor.name] = numpy_helper.to_array(tensor)
    expected = values.pop("image")
    np.testing.assert_allclose(session.run(["image"], values)[0], expected, rtol=0, atol=1e-4)


def test_no_step_shows_the_noise_itself(bundle):
    session = onnxruntime.InferenceSession(bundle("ddpm").path / "generate.onnx", providers=["CPUExecutionProvider"])
    sample = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    (image,) = session.run(["image"], {"sample": sample, "noise": np.empty((0, *sample.shape), np.float32)})
    np.testing.assert_allclose(image, np.clip(sample / 2 + 0.5, 0, 1), rtol=0, atol=1e-6)


def test_no_step_decodes_the_noise_itself(bundle):
    path = bundle("stable-diffusion").path
    session, decoder = (
        onnxruntime.InferenceSession(path / file, providers=["CPUExecutionProvider"])
        for file in ("generate.onnx", "vae_decoder/model.onnx")
    )
    shapes = {port.name: port.shape for port in session.get_inputs()}
    latent = np.random.default_rng(0).standard_normal((1, shapes["latent"][1], 4, 4)).astype(np.float32)
    words = dict.fromkeys(("input_ids", "negative_input_ids"), np.zeros((1, 5), np.int64))
    numbers = {"num_steps": np.array(0), "guidance_scale": np.array(3, np.float32)}
    (image,) = session.run(["image"], {"latent": latent, **words, **numbers})
    (sample,) = decoder.run(None, {"latent_sample": latent / np.float32(0.18215)})
    np.testing.assert_allclose(image, np.clip(sample / 2 + 0.5, 0, 1), rtol=0, atol=1e-5)


def test_pictures_are_those_of_pytorchs_own_loop(bundle):
    entry = find_architecture("stable-diffusion")
    model = entry.build(entry.config("tiny")).eval()
    randomize(model, 0)
    plan = entry.generation(entry.config("tiny"))
    prompt, nothing = (torch.from_numpy(np.tile(framed(ids, plan), (2, 1))) for ids in ((1, 2, 3), ()))
    noise = Noise(plan, Wanted(2, 8, 8, 4, 3.0, 3), np.dtype(np.float32)).draw()
    with torch.no_grad():
        image = model(prompt, nothing, torch.from_numpy(noise), 4, 3.0).numpy()
    own = np.stack(as_pictures(image)).astype(int)
    assert np.abs(own - drawn(bundle("stable-diffusion"), asked("stable-diffusion"))).max() <= 1


def test_best_tokens_are_those_of_pytorchs_own_loop(bundle):
    entry = find_architecture("dalle")
    model = entry.build(entry.config("tiny")).eval()
    randomize(model, 0)
    words = torch.from_numpy(padded([1, 2, 3], entry.generation(entry.config("tiny"))))[None]
    with torch.no_grad():
        own = np.stack(as_pictures(model(words).numpy())).astype(int)
    for one_file in (False, True):
        found = drawn(bundle("dalle"), Request(tokens=(1, 2, 3), one_file=one_file))
        assert np.abs(own - found).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_seed_and_count_decide_the_pictures(bundle, name):
    two, three = drawn(bundle(name), asked(name)), drawn(bundle(name), asked(name, count=3))
    assert np.abs(two.astype(int) - three[:2]).max() <= 1
    assert not np.array_equal(two[0], two[1])
    assert not np.array_equal(two, drawn(bundle(name), asked(name, seed=4)))


def test_sizes_steps_and_guidance_are_as_asked(bundle):
    made = bundle("stable-diffusion")
    assert drawn(made, asked("stable-diffusion", height=24, width=8)).shape == (2, 24, 8, 3)
    plain = drawn(made, asked("stable-diffusion"))
    assert not np.array_equal(plain, drawn(made, asked("stable-diffusion", guidance=1.0)))
    assert not np.array_equal(plain, drawn(made, asked("stable-diffusion", steps=5)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stable-diffusion", {"height": 9}, "--height 9; allowed are multiples of 2"),
        ("stable-diffusion", {"steps": 1001}, "1001 steps; allowed are 1 to 1000"),
        ("stable-diffusion", {"guidance": math.nan}, "--guidance nan; allowed are finite numbers"),
        ("stable-diffusion", {"tokens": None}, "give either --prompt TEXT or --tokens"),
        ("stable-diffusion", {"tokens": (99,)}, "--tokens 99; the network knows 0 to 30"),
        ("stable-diffusion", {"negative_prompt": "dull"}, "--negative-prompt needs a tokenizer"),
        ("dalle", {"tokens": range(7)}, "7 words; the network holds at most 6"),
        ("dalle", {"tokens": (11,)}, "--tokens 11; the network knows 0 to 10"),
        ("dalle", {"steps": 3}, "--steps means nothing to dalle, which makes a picture"),
        ("ddpm", {"prompt": "a cat"}, "--prompt means nothing to ddpm"),
        ("ddpm", {"guidance": 2.0}, "--guidance means nothing to ddpm"),
    ],
)
def test_request_that_makes_no_sense_is_refused(bundle, name, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        drawn(bundle(name), asked(name, **options))


@pytest.mark.parametrize("name", ["dalle", "ddpm"])
def test_bundle_that_does_not_say_how_or_has_no_one_file_graph_is_refused(bundle, name):
    made, generate = bundle(name), find_generator(name).load()
    with pytest.raises(InvalidModelError, match="does not say how pictures are made"):
        generate(made.path, {"name": "x"}, asked(name), Silent())
    stated = {**made.manifest, "generation": {**made.manifest["generation"], "model": ""}}
    with pytest.raises(InvalidModelError, match=r"has no generate\.onnx; export it with --loop"):
        generate(made.path, stated, asked(name, one_file=True), Silent())


def test_short_prompt_has_the_padding_words_of_its_positions():
    plan = find_architecture("dalle").generation(find_architecture("dalle").config("published"))
    row = padded([5, 7], plan)
    assert row[:4].tolist() == [5, 7, 16384 + 2, 16384 + 3]
    assert (len(row), row[-1]) == (256, 16384 + 255)


PLAN = PictureGeneration(
    "ddim", 50, 4, 64, 8, {}, num_positions=6, vocab_size=110, start_token_id=101, end_token_id=102
)


@pytest.mark.parametrize(
    ("ids", "row"),
    [
        ((), [101, 102, 0, 0, 0, 0]),
        ((7, 8), [101, 7, 8, 102, 0, 0]),
        ((101, 7, 8, 102), [101, 7, 8, 102, 0, 0]),
        (range(1, 10), [101, 1, 2, 3, 4, 102]),
    ],
)
def test_prompts_are_framed_cut_and_padded(ids, row):
    assert framed(list(ids), PLAN).tolist() == row


def test_a_tokenizer_of_its_own_frame_goes_before_the_plan():
    assert framed([5, 1, 2, 6], PLAN, (5, 6, 9)).tolist() == [5, 1, 2, 6, 9, 9]


def test_guided_step_is_hand_computed():
    model = guided_step_model(LATENT_SCHEDULE, onnx.TensorProto.FLOAT, 20)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x, unconditional, conditional = 0.5, 0.1, 0.3
    shape = (1, 1, 1, 1)
    feeds = {
        "noisy_latent": np.full(shape, x, np.float32),
        "estimate": np.asarray([unconditional, conditional], np.float32).reshape(2, 1, 1, 1),
        "step": np.asarray(501),
        "step_before": np.asarray(251),
        "guidance_scale": np.asarray(5, np.float32),
    }
    found, both = session.run(["next_latent", "both"], feeds)
    signal, noise = LATENT_SCHEDULE.signal(), unconditional + 5 * (conditional - unconditional)
    clean = (x - np.sqrt(1 - signal[501]) * noise) / np.sqrt(signal[501])
    expected = np.sqrt(signal[251]) * clean + np.sqrt(1 - signal[251]) * noise
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert both.shape == (2, 1, 1, 1)


def test_black_grey_and_white_are_shown_as_such():
    decoded = np.asarray([-2, -1, 0, 1, 3], np.float32)
    assert shown(decoded).tolist() == [0, 0, 0.5, 1, 1]
    picture = as_pictures(np.full((1, 3, 1, 1), 0.2, np.float32))[0]
    assert picture.tolist() == [[[51, 51, 51]]]


def test_command_writes_a_picture_of_a_text(bundle, onnx_arch, tmp_path):
    words = {"[PAD]": 0, "logo": 1, "for": 2, "prague": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[PAD]"))  # noqa: S106 - a word
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = bundle("stable-diffusion").path
    options = ("--tokenizer", tmp_path, "--steps", 2, "--guidance", 3, "--seed", 1)
    done = onnx_arch("generate", made, "--prompt", "logo for prague", *options, "-o", tmp_path / "logo.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "logo.png") as drawn:
        assert drawn.size == (16, 16)


def test_generating_needs_no_torch(bundle, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from onnx_arch.exporters.bundle import read_manifest\n"
        "from onnx_arch.generation.pictures import generate_picture\n"
        "from onnx_arch.generation.request import Request, Silent\n"
        "bundle = Path(sys.argv[1])\n"
        "made = generate_picture(bundle, read_manifest(bundle), Request(steps=1), Silent())\n"
        "print(made.pictures[0].shape)\n"
    )
    path = bundle("ddpm").path
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(16, 16, 3)", done.stderr
