"""Diffusion: parts of the published sizes, hand-computed steps, checkpoint keys, configs of diffusers folders."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from onnx_arch.architectures._noise_unet import NoiseUNet
from onnx_arch.architectures._schedule import LATENT_SCHEDULE, NoiseSchedule
from onnx_arch.architectures._text_to_image import ddim_step
from onnx_arch.architectures._timestep_encoding import SinusoidalEncoding
from onnx_arch.architectures.ddpm import BackwardStep, ForwardDiffusion, ForwardStep
from onnx_arch.architectures.registry import find_architecture
from onnx_arch.errors import InvalidArgumentError

PRESETS = [
    (name, preset)
    for name in ("ddpm", "latent-diffusion", "stable-diffusion")
    for preset in find_architecture(name).presets
]


def on_meta(name, preset):
    entry = find_architecture(name)
    with torch.device("meta"):
        return entry.build(entry.config(preset))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parts_of_latent_diffusion_have_the_published_parameters():
    model = on_meta("latent-diffusion", "published")
    assert count(model.text_encoder) == 581_994_042
    assert count(model.text_encoder) - count(model.text_encoder.to_logits) == 542_895_360
    assert count(model.unet) == 872_300_484
    assert (count(model.vae), count(model.vae.encoder), count(model.vae.decoder)) == (
        83_653_863,
        34_163_592,
        49_490_179,
    )


def test_parts_of_stable_diffusion_have_the_published_parameters():
    model = on_meta("stable-diffusion", "published")
    assert count(model.text_encoder) == 123_060_480
    assert count(model.unet) == 859_520_964
    assert count(model.vae) == 83_653_863


def resblock(a, b, time=512):
    """Parameters of a ResBlock, by hand: two normalisations, two filters, the timestep's layer, the skip."""
    shortcut = a * b + b if a != b else 0
    return 2 * a + (9 * a * b + b) + (time * b + b) + 2 * b + (9 * b * b + b) + shortcut


def test_ddpm_has_the_parameters_that_its_paper_implies():
    conv, attention = (lambda c: 9 * c * c + c), (lambda c: 2 * c + 4 * (c * c + c))
    time = (128 * 512 + 512) + (512 * 512 + 512)
    ends = (9 * 3 * 128 + 128) + 2 * 128 + (9 * 128 * 3 + 3)
    down = 2 * resblock(128, 128) + conv(128)
    down += resblock(128, 256) + resblock(256, 256) + 2 * attention(256) + conv(256)
    down += 2 * resblock(256, 256) + conv(256) + 2 * resblock(256, 256)
    middle = 2 * resblock(256, 256) + attention(256)
    up = 3 * resblock(512, 256) + conv(256)
    up += 3 * resblock(512, 256) + conv(256)
    up += 2 * resblock(512, 256) + resblock(256 + 128, 256) + 3 * attention(256) + conv(256)
    up += resblock(256 + 128, 128) + 2 * resblock(256, 128)
    assert time + ends + down + middle + up == 35_746_307 == count(on_meta("ddpm", "published"))


def test_tiny_words_encoder_has_hand_computed_parameters():
    # words and positions; per layer two norms, q k v without bias and out, 12→24→12; last norm; logits
    layer = 2 * 24 + 3 * 12 * 8 + (8 * 12 + 12) + (12 * 24 + 24) + (24 * 12 + 12)
    expected = 31 * 12 + 12 * 12 + 2 * layer + 24 + (12 * 31 + 31)
    assert count(on_meta("latent-diffusion", "tiny").text_encoder) == expected


def test_text2img256_attends_with_32_channels_a_head_at_three_levels():
    config = find_architecture("latent-diffusion").config("text2img256").unet
    attending = [(c, h) for c, h, on in zip(config.channels, config.num_heads, config.attention, strict=True) if on]
    assert [channels // heads for channels, heads in attending] == [32, 32, 32]
    model = on_meta("latent-diffusion", "text2img256")
    assert tuple(model.vae.quantize.embedding.weight.shape) == (8192, 3)
    assert sum(".attentions." in key and key.endswith("proj_in.weight") for key in model.unet.state_dict()) == 16


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_key_goes_to_a_checkpoint_and_back(name, preset):
    entry, own = find_architecture(name), on_meta(name, preset).state_dict()
    fitting = []
    for layout in entry.checkpoints:
        stored = [layout.restore(key) for key in own]
        if len(set(stored)) == len(own) and [layout.rename(key) for key in stored] == list(own):
            fitting.append(layout.name)
    assert {"diffusers", "onnx-arch"} <= set(fitting)
    assert name == "ddpm" or any(layout.startswith("compvis") for layout in fitting)


def compvis_keys(name, preset):
    layouts = {layout.name: layout for layout in find_architecture(name).checkpoints}
    layout = layouts["compvis" if preset == "published" else f"compvis ({preset})"]
    return {layout.restore(key) for key in on_meta(name, preset).state_dict()}


ATTENDING_INPUTS, ATTENDING_OUTPUTS = (1, 2, 4, 5, 7, 8), (3, 4, 5, 6, 7, 8, 9, 10, 11)


@pytest.mark.parametrize("name", ["latent-diffusion", "stable-diffusion"])
def test_compvis_keys_are_those_of_the_published_files(name):
    keys = compvis_keys(name, "published")
    unet = {key.removeprefix("model.diffusion_model.") for key in keys if key.startswith("model.")}
    assert {f"time_embed.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")} <= unet
    assert {"input_blocks.0.0.weight", "out.0.weight", "out.2.bias", "middle_block.1.proj_in.weight"} <= unet
    transformers = {key.split(".transformer_blocks")[0] for key in unet if ".transformer_blocks" in key}
    expected = {f"input_blocks.{i}.1" for i in ATTENDING_INPUTS} | {f"output_blocks.{i}.1" for i in ATTENDING_OUTPUTS}
    assert transformers == expected | {"middle_block.1"}
    assert {f"input_blocks.{i}.0.op.weight" for i in (3, 6, 9)} <= unet
    assert {"output_blocks.2.1.conv.weight", "output_blocks.5.2.conv.weight", "output_blocks.8.2.conv.bias"} <= unet
    skips = {key for key in unet if key.endswith("skip_connection.weight")}
    expected = {f"input_blocks.{i}.0" for i in (4, 7)} | {f"output_blocks.{i}.0" for i in range(12)}
    assert skips == {f"{block}.skip_connection.weight" for block in expected}
    vae = {key.removeprefix("first_stage_model.") for key in keys if key.startswith("first_stage_model.")}
    assert {"encoder.down.0.downsample.conv.weight", "decoder.up.3.upsample.conv.weight", "quant_conv.weight"} <= vae
    assert {"encoder.mid.attn_1.q.weight", "decoder.mid.attn_1.proj_out.bias", "encoder.norm_out.weight"} <= vae
    assert {key for key in vae if "nin_shortcut.w" in key} == {
        *(f"encoder.down.{i}.block.0.nin_shortcut.weight" for i in (1, 2)),
        *(f"decoder.up.{i}.block.0.nin_shortcut.weight" for i in (0, 1)),
    }
    assert len(vae) == 248


def test_compvis_keys_of_the_word_encoder_alternate_attention_and_feed_forward():
    start = "cond_stage_model.transformer."
    keys = {key.removeprefix(start) for key in compvis_keys("latent-diffusion", "published") if key.startswith(start)}
    expected = {"token_emb.weight", "pos_emb.emb.weight"}
    expected |= {f"{key}.{kind}" for key in ("attn_layers.norm", "to_logits") for kind in ("weight", "bias")}
    for i in range(0, 64, 2):
        layer, following = f"attn_layers.layers.{i}", f"attn_layers.layers.{i + 1}"
        expected |= {f"{layer}.1.to_{name}.weight" for name in ("q", "k", "v", "out")} | {f"{layer}.1.to_out.bias"}
        expected |= {f"{place}.0.{kind}" for place in (layer, following) for kind in ("weight", "bias")}
        expected |= {f"{following}.1.net.{n}.{kind}" for n in ("0.0", "2") for kind in ("weight", "bias")}
    assert keys == expected


def test_schedules_are_those_of_the_papers():
    linear = NoiseSchedule().betas()
    assert (linear[0], linear[-1]) == pytest.approx((1e-4, 0.02))
    assert linear[500] - linear[499] == pytest.approx(linear[1] - linear[0])
    scaled = LATENT_SCHEDULE.betas()
    assert (scaled[0], scaled[-1]) == pytest.approx((0.00085, 0.012))
    roots = np.sqrt(scaled)
    assert roots[500] - roots[499] == pytest.approx(roots[1] - roots[0])
    assert LATENT_SCHEDULE.timesteps(4) == [(751, 501), (501, 251), (251, 1), (1, -249)]
    assert NoiseSchedule().timesteps(1000)[-1] == (0, -1)
    with pytest.raises(InvalidArgumentError, match="0 steps; allowed are 1 to 1000"):
        LATENT_SCHEDULE.timesteps(0)
    with pytest.raises(InvalidArgumentError, match="allowed are linear, scaled_linear"):
        NoiseSchedule(kind="cosine")


def test_timestep_encoding_is_hand_computed():
    # frequencies 1 and 1/100 (shift 0), 1 and 1/10000 (shift 1)
    first = SinusoidalEncoding(4, cosine_first=True, frequency_shift=0)(torch.tensor([7]))
    expected = [math.cos(7), math.cos(0.07), math.sin(7), math.sin(0.07)]
    torch.testing.assert_close(first, torch.tensor([expected]))
    second = SinusoidalEncoding(4, cosine_first=False, frequency_shift=1)(torch.tensor([7]))
    expected = [math.sin(7), math.sin(0.0007), math.cos(7), math.cos(0.0007)]
    torch.testing.assert_close(second, torch.tensor([expected]))


def test_forward_steps_one_by_one_have_the_variance_of_all_at_once():
    schedule = NoiseSchedule(num_train_steps=5)
    step, whole = ForwardStep(schedule), ForwardDiffusion(schedule)
    zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    signal, variance = one, zero
    for t in range(5):
        index = torch.tensor([t])
        signal = step(signal, zero, index)
        variance = step(torch.zeros_like(one), one, index) ** 2 + step(variance.sqrt(), zero, index) ** 2
    torch.testing.assert_close(signal, whole(one, zero, torch.tensor([4])))
    torch.testing.assert_close(variance, whole(zero, one, torch.tensor([4])) ** 2)


def test_backward_step_equals_algorithm_2_where_nothing_is_clipped():
    schedule = NoiseSchedule()
    beta, signal = schedule.betas()[40], schedule.signal()[40]
    x, estimate = torch.full((1, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1), -0.2)
    step = BackwardStep(schedule)
    found = step(x, estimate, torch.zeros_like(x), torch.tensor([40]), torch.tensor([1])).item()
    expected = (0.3 + 0.2 * beta / math.sqrt(1 - signal)) / math.sqrt(1 - beta)
    assert found == pytest.approx(expected, rel=1e-5)
    noisy = step(x, estimate, torch.ones_like(x), torch.tensor([40]), torch.tensor([1])).item()
    assert noisy - found == pytest.approx(math.sqrt(beta), rel=1e-4)


def test_last_backward_step_adds_no_noise_and_clips():
    step = BackwardStep(NoiseSchedule())
    x = torch.full((1, 1, 1, 1), 3.0)
    found = step(x, torch.zeros_like(x), torch.full_like(x, 9.0), torch.tensor([0]), torch.tensor([1]))
    assert found.item() == 1.0


def test_ddim_with_the_true_noise_returns_the_clean_sample():
    clean, noise, now = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor(0.3)
    sample = now.sqrt() * clean + (1 - now).sqrt() * noise
    torch.testing.assert_close(ddim_step(sample, noise, now, torch.tensor(1.0)), clean)


def test_unet_without_a_context_ignores_one_and_with_one_looks_at_every_word():
    config = find_architecture("stable-diffusion").config("tiny").unet
    torch.manual_seed(0)
    unet, sample, step = NoiseUNet(config).eval(), torch.randn(1, 4, 8, 8), torch.tensor([3])
    words = torch.randn(1, 5, 12)
    with torch.no_grad():
        found = unet(sample, step, words)
        for index in range(5):
            other = words.clone()
            other[:, index] += 1
            assert not torch.allclose(unet(sample, step, other), found, atol=1e-6)
        torch.testing.assert_close(unet(sample, step, words.flip(1)), found)  # attention has no order


def test_quantizer_gives_the_nearest_code():
    entry = find_architecture("latent-diffusion")
    quantize = entry.build(entry.config("tiny256")).vae.quantize
    latent = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        found = quantize(latent)
    pixels, codes = latent.permute(0, 2, 3, 1).reshape(-1, 3), quantize.embedding.weight
    nearest = codes[torch.cdist(pixels, codes).argmin(dim=1)].reshape(2, 4, 4, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, nearest)


SD_FOLDER = json.loads("""{
  "unet": {"_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
    "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]},
  "vae": {"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]},
  "text_encoder": {"model_type": "clip_text_model", "hidden_act": "quick_gelu", "hidden_size": 768,
    "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "vocab_size": 49408},
  "scheduler": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "num_train_timesteps": 1000}}""")


def test_stable_diffusion_folder_gives_the_published_config():
    entry = find_architecture("stable-diffusion")
    assert entry.from_pretrained_config(SD_FOLDER) == entry.config("published")


def test_clip_of_another_vocabulary_ends_with_its_start_and_end():
    """As the published one does; what its config.json says of them is not what its tokenizer has."""
    content = {**SD_FOLDER, "text_encoder": {**SD_FOLDER["text_encoder"], "vocab_size": 500, "eos_token_id": 2}}
    text = find_architecture("stable-diffusion").from_pretrained_config(content).text
    assert (text.start_token_id, text.end_token_id, text.pad_token_id) == (498, 499, 499)


def test_latent_diffusion_folder_gives_the_published_config():
    bert = {"model_type": "ldmbert", "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 8,
            "encoder_ffn_dim": 5120, "head_dim": 64, "vocab_size": 30522, "activation_function": "gelu"}  # fmt: skip
    folder = {
        "bert": bert,
        "unet": {**SD_FOLDER["unet"], "cross_attention_dim": 1280, "sample_size": 32},
        "vqvae": SD_FOLDER["vae"],
    }
    entry = find_architecture("latent-diffusion")
    assert entry.from_pretrained_config(folder) == entry.config("published")


def test_ddpm_config_json_gives_the_published_config():
    content = {
        "_class_name": "UNet2DModel", "act_fn": "silu", "attention_head_dim": None, "flip_sin_to_cos": False,
        "block_out_channels": [128, 256, 256, 256], "downsample_padding": 0, "freq_shift": 1, "in_channels": 3,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"], "norm_eps": 1e-06,
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"], "out_channels": 3,
        "sample_size": 32, "time_embedding_type": "positional",
    }  # fmt: skip
    entry = find_architecture("ddpm")
    assert entry.from_pretrained_config(content) == entry.config("published")


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"act_fn": "gelu"}, "unet/config.json: act_fn is 'gelu'; built is 'silu'"),
        ("unet", {"use_linear_projection": True}, "use_linear_projection is True; built is False"),
        ("unet", {"timestep_post_act": "silu"}, "timestep_post_act is 'silu'; built is None"),
        ("unet", {"time_embedding_act_fn": "silu"}, "time_embedding_act_fn is 'silu'; built is None"),
        ("unet", {"cross_attention_dim": [768, 1024]}, r"cross_attention_dim is \[768, 1024\]; built is one number"),
        ("unet", {"attention_head_dim": 7}, r"attention_head_dim 7 does not divide \(320, 640"),
        ("unet", {"down_block_types": ["Odd"] * 4}, "block 'Odd'; built are CrossAttnDownBlock2D"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "'AutoencoderTiny'; built are AutoencoderKL, VQModel"),
        ("scheduler", {"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction'; built is 'epsilon'"),
        ("scheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True; built is False"),
        ("text_encoder", {"hidden_act": "wave"}, "no activation 'wave'"),
    ],
)
def test_setting_that_is_not_built_is_named(part, changes, message):
    entry = find_architecture("stable-diffusion")
    with pytest.raises(InvalidArgumentError, match=message):
        entry.from_pretrained_config({**SD_FOLDER, part: {**SD_FOLDER[part], **changes}})


def test_folder_without_a_part_is_refused():
    entry = find_architecture("stable-diffusion")
    with pytest.raises(InvalidArgumentError, match=r"no vae/config\.json; found are unet, text_encoder, scheduler"):
        entry.from_pretrained_config({key: SD_FOLDER[key] for key in ("unet", "text_encoder", "scheduler")})


def test_pipeline_stays_with_the_prompt_at_scale_one():
    entry = find_architecture("stable-diffusion")
    torch.manual_seed(0)
    model = entry.build(replace(entry.config("tiny"))).eval()
    prompt, first, second = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6]]), torch.tensor([[7, 8, 9]])
    latent = torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(model(prompt, first, latent, 2, 1.0), model(prompt, second, latent, 2, 1.0))
        assert not torch.allclose(model(prompt, first, latent, 2, 3.0), model(prompt, second, latent, 2, 3.0))
