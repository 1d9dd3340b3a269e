"""Diffusion against `diffusers` and `transformers` on the same random weights: at most 2e-5 of the largest value."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from onnx_arch.architectures._autoencoder import Autoencoder
from onnx_arch.architectures._noise_unet import NoiseUNet
from onnx_arch.architectures._schedule import LATENT_SCHEDULE, NoiseSchedule
from onnx_arch.architectures._text_encoders import ClipTextEncoder, WordEncoder
from onnx_arch.architectures._text_to_image import ddim_step
from onnx_arch.architectures.ddpm import BackwardStep, ForwardDiffusion
from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what other people's packages say of their own future
    import diffusers
    import transformers
    from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion

BOUND = 2e-5


def deviation(ours, theirs):
    """The largest difference over the largest value, computed in float64."""
    ours, theirs = ours.double(), theirs.double()
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def same_weights(own, other, prefix=""):
    """Random parameters in both; the keys are the same."""
    randomize(own, 0)
    other.load_state_dict({prefix + key: tensor for key, tensor in own.state_dict().items()})
    return own.eval(), other.eval()


def reference_unet(config, sample_size=8):
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in config.attention]
    return diffusers.UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        down_block_types=down,
        up_block_types=[kind.replace("Down", "Up") for kind in reversed(down)],
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.context_channels,
        attention_head_dim=list(config.num_heads),
        norm_num_groups=config.num_groups,
        norm_eps=config.eps,
    )


def reference_ddpm(config, sample_size):
    down = ["AttnDownBlock2D" if attends else "DownBlock2D" for attends in config.attention]
    return diffusers.UNet2DModel(
        sample_size=sample_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        down_block_types=down,
        up_block_types=[kind.replace("Down", "Up") for kind in reversed(down)],
        layers_per_block=config.layers_per_block,
        attention_head_dim=None,
        norm_num_groups=config.num_groups,
        norm_eps=config.eps,
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
    )


def reference_vae(config):
    levels = len(config.channels)
    shared = {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": config.channels,
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.num_groups,
    }
    if config.num_codes is None:
        return diffusers.AutoencoderKL(**shared)
    return diffusers.VQModel(**shared, num_vq_embeddings=config.num_codes)


def reference_words(config):
    return pipeline_latent_diffusion.LDMBertModel(
        pipeline_latent_diffusion.LDMBertConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.num_positions,
            encoder_layers=config.num_layers,
            encoder_ffn_dim=config.hidden_dim,
            encoder_attention_heads=config.num_heads,
            head_dim=config.head_dim,
            d_model=config.embed_dim,
        )
    )


def reference_clip(config):
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.embed_dim,
            intermediate_size=config.hidden_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            max_position_embeddings=config.num_positions,
            hidden_act=config.activation,
            layer_norm_eps=config.epsilon,
        )
    )


def compare_unet(config, size, words, batch=2):
    ours, theirs = same_weights(NoiseUNet(config), reference_unet(config))
    torch.manual_seed(1)
    sample, context = (
        torch.randn(batch, config.in_channels, size, size),
        torch.randn(batch, words, config.context_channels),
    )
    timestep = torch.tensor([3, 981][:batch])
    with torch.no_grad():
        return deviation(ours(sample, timestep, context), theirs(sample, timestep, context).sample)


def compare_vae(config, size, batch=2):
    ours, theirs = same_weights(Autoencoder(config), reference_vae(config))
    torch.manual_seed(1)
    picture, latent = (
        torch.randn(batch, 3, size, size),
        torch.randn(batch, config.latent_channels, size // 2, size // 2),
    )
    with torch.no_grad():
        encoded = theirs.quant_conv(theirs.encoder(picture))
        return max(
            deviation(ours.encode(picture), encoded), deviation(ours.decode(latent), theirs.decode(latent).sample)
        )


@pytest.mark.parametrize("size", [8, 7, 1])
@pytest.mark.parametrize(("name", "preset"), [("stable-diffusion", "tiny"), ("latent-diffusion", "tiny256")])
def test_unet_equals_diffusers(name, preset, size):
    assert compare_unet(find_architecture(name).config(preset).unet, size, 5) <= BOUND


def compare_ddpm(config, size):
    ours, theirs = same_weights(NoiseUNet(config), reference_ddpm(config, size))
    sample, timestep = torch.randn(2, 3, size, size, generator=torch.manual_seed(1)), torch.tensor([0, 999])
    with torch.no_grad():
        return deviation(ours(sample, timestep), theirs(sample, timestep).sample)


def test_ddpm_equals_diffusers():
    assert compare_ddpm(find_architecture("ddpm").config("tiny").unet, 16) <= BOUND


@pytest.mark.parametrize(("name", "preset"), [("stable-diffusion", "tiny"), ("latent-diffusion", "tiny256")])
def test_autoencoder_equals_diffusers(name, preset):
    assert compare_vae(find_architecture(name).config(preset).vae, 16) <= BOUND


def compare_clip(config):
    ours, theirs = same_weights(ClipTextEncoder(config), reference_clip(config))
    tokens = torch.randint(0, config.vocab_size, (2, config.num_positions), generator=torch.manual_seed(1))
    with torch.no_grad():
        return deviation(ours(tokens), theirs(tokens).last_hidden_state)


def compare_words(config):
    theirs = reference_words(config)
    ours = WordEncoder(config)
    randomize(ours, 0)
    state = {("" if key.startswith("to_logits") else "model.") + key: t for key, t in ours.state_dict().items()}
    theirs.load_state_dict(state)
    tokens = torch.randint(0, config.vocab_size, (2, config.num_positions), generator=torch.manual_seed(1))
    with torch.no_grad():
        return deviation(ours.eval()(tokens), theirs.eval()(tokens).last_hidden_state)


def test_clip_text_encoder_equals_transformers():
    assert compare_clip(find_architecture("stable-diffusion").config("tiny").text) <= BOUND


def test_word_encoder_equals_diffusers_ldmbert():
    assert compare_words(find_architecture("latent-diffusion").config("tiny").text) <= BOUND


def test_different_weights_are_seen():
    config = find_architecture("stable-diffusion").config("tiny").unet
    ours, theirs = same_weights(NoiseUNet(config), reference_unet(config))
    with torch.no_grad():
        ours.mid_block.resnets[0].norm1.bias[0] += 1e-3
        arguments = torch.ones(1, 4, 8, 8), torch.tensor([3]), torch.ones(1, 5, 12)
        assert deviation(ours(*arguments), theirs(*arguments).sample) > BOUND


def scheduler(kind, schedule, **options):
    return kind(
        num_train_timesteps=schedule.num_train_steps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule=schedule.kind,
        steps_offset=schedule.steps_offset,
        timestep_spacing="leading",
        **options,
    )


@pytest.mark.parametrize("num_steps", [1, 7, 50])
def test_ddim_steps_equal_diffusers(num_steps):
    theirs = scheduler(diffusers.DDIMScheduler, LATENT_SCHEDULE, clip_sample=False, set_alpha_to_one=False)
    theirs.set_timesteps(num_steps)
    steps, signal = LATENT_SCHEDULE.timesteps(num_steps), torch.from_numpy(LATENT_SCHEDULE.signal()).float()
    assert [step for step, _ in steps] == theirs.timesteps.tolist()
    torch.manual_seed(0)
    sample = other = torch.randn(1, 4, 4, 4)
    for step, before in steps:
        noise = torch.randn(1, 4, 4, 4)
        other = theirs.step(noise, step, other).prev_sample
        sample = ddim_step(sample, noise, signal[step], signal[max(before, 0)])
        assert deviation(sample, other) <= BOUND


@pytest.mark.parametrize("num_steps", [4, 100, 1000])
def test_ddpm_steps_equal_diffusers(num_steps, monkeypatch):
    schedule = NoiseSchedule()
    theirs = scheduler(diffusers.DDPMScheduler, schedule, variance_type="fixed_large", clip_sample=True)
    theirs.set_timesteps(num_steps)
    drawn = torch.randn(1, 3, 4, 4, generator=torch.manual_seed(1))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: drawn)
    ours, stride = BackwardStep(schedule), schedule.stride(num_steps)
    assert [step for step, _ in schedule.timesteps(num_steps)] == theirs.timesteps.tolist()
    for step, _ in schedule.timesteps(num_steps)[:: -max(num_steps // 20, 1)]:  # from the last one on
        torch.manual_seed(step)
        sample, estimate = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
        expected = theirs.step(estimate, step, sample).prev_sample
        found = ours(sample, estimate, drawn, torch.tensor([step]), torch.tensor([stride]))
        assert deviation(found, expected) <= BOUND


def test_forward_diffusion_equals_diffusers():
    schedule = NoiseSchedule()
    sample, noise, steps = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4), torch.tensor([0, 500, 999])
    expected = scheduler(diffusers.DDPMScheduler, schedule).add_noise(sample, noise, steps)
    assert deviation(ForwardDiffusion(schedule)(sample, noise, steps), expected) <= BOUND


def test_signal_equals_diffusers_in_every_step():
    theirs = scheduler(diffusers.DDIMScheduler, LATENT_SCHEDULE).alphas_cumprod.numpy()
    np.testing.assert_allclose(LATENT_SCHEDULE.signal(), theirs, rtol=BOUND)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("stable-diffusion", 16), ("latent-diffusion", 16)])
def test_published_unet_equals_diffusers(name, size):
    assert compare_unet(find_architecture(name).config("published").unet, size, 77, batch=1) <= BOUND


@pytest.mark.slow
def test_published_autoencoder_equals_diffusers():
    assert compare_vae(find_architecture("stable-diffusion").config("published").vae, 64, batch=1) <= BOUND


@pytest.mark.slow
def test_published_text_encoders_equal_transformers_and_diffusers():
    assert compare_clip(find_architecture("stable-diffusion").config("published").text) <= BOUND
    assert compare_words(find_architecture("latent-diffusion").config("published").text) <= BOUND


@pytest.mark.slow
def test_published_ddpm_equals_diffusers():
    assert compare_ddpm(find_architecture("ddpm").config("published").unet, 32) <= BOUND
