"""Forward and backward diffusion: add noise step by step; estimate the noise and subtract it, step by step.

Paper: Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", https://arxiv.org/abs/2006.11239; "published" is
the CIFAR-10 network of appendix B (35.7 million parameters). Keys are those of diffusers' `UNet2DModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ._compvis import OLD_ATTENTION
from ._diffusers_config import noise_schedule, part, unet_config
from ._noise_unet import NoiseUNet, UNetConfig
from ._schedule import NoiseSchedule
from .registry import architecture
from .specification import PLAIN, Axis, CheckpointLayout, GraphSpec, PictureGeneration, Port

CIFAR10_UNET = UNetConfig(
    in_channels=3,
    out_channels=3,
    channels=(128, 256, 256, 256),
    attention=(False, True, False, False),
    num_heads=(1, 1, 1, 1),
    context_channels=None,
    eps=1e-6,
    cosine_first=False,
    frequency_shift=1,
    one_sided=True,
)
"""Attention at 16×16 with one head; a timestep encoding of 128 sines and cosines."""


@dataclass(frozen=True)
class DDPMConfig:
    """Sizes of the U-Net and of the picture; the schedule."""

    unet: UNetConfig = CIFAR10_UNET
    image_size: int = 32
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)


class Coefficients(nn.Module):
    """What the schedule says at a step, in float32 whatever the type of the pictures."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.signal = torch.from_numpy(schedule.signal()).float()  # ᾱ: (T,)

    def at(self, timestep: Tensor) -> Tensor:  # (B,) -> (B, 1, 1, 1)
        """ᾱ after a step; 1 before the first, which is counted below 0."""
        found = self.signal[timestep.clamp(min=0)]
        return torch.where(timestep < 0, torch.ones_like(found), found)[:, None, None, None]


class ForwardStep(Coefficients):
    """q(x_t | x_{t−1}), equation 2: shrink the picture a little and add a little noise."""

    def forward(self, sample: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        # (B, C, H, W), (B, C, H, W), (B,) -> (B, C, H, W)
        kept = self.at(timestep) / self.at(timestep - 1)  # 1 − β_t
        return kept.sqrt().to(sample.dtype) * sample + (1 - kept).sqrt().to(sample.dtype) * noise


class ForwardDiffusion(Coefficients):
    """q(x_t | x_0), equation 4: all steps up to t at once."""

    def forward(self, sample: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        # (B, C, H, W), (B, C, H, W), (B,) -> (B, C, H, W)
        signal = self.at(timestep)
        return signal.sqrt().to(sample.dtype) * sample + (1 - signal).sqrt().to(sample.dtype) * noise


class BackwardStep(Coefficients):
    """p(x_s | x_t), algorithm 2 for any number of steps at once: subtract the estimated noise, add a little of its own.

    The clean picture that the estimate implies is clipped to [−1, 1]; the variance is the larger of the paper's two,
    β_t (section 3.2). Nothing is added by the step that ends at the clean picture.
    """

    def forward(
        self, sample: Tensor, estimated_noise: Tensor, noise: Tensor, timestep: Tensor, stride: Tensor
    ) -> Tensor:
        # (B, C, H, W) ×3, (B,) ×2: the step, and how many steps to go back -> (B, C, H, W)
        now, before = self.at(timestep), self.at(timestep - stride)
        kept = now / before  # Π (1 − β) of the steps between
        added = 1 - kept
        clean = (sample - (1 - now).sqrt().to(sample.dtype) * estimated_noise) / now.sqrt().to(sample.dtype)
        from_clean = (before.sqrt() * added / (1 - now)).to(sample.dtype)
        from_sample = (kept.sqrt() * (1 - before) / (1 - now)).to(sample.dtype)
        last = (timestep < stride)[:, None, None, None]
        deviation = torch.where(last, torch.zeros_like(added), added.sqrt()).to(sample.dtype)
        return from_clean * clean.clamp(-1, 1) + from_sample * sample + deviation * noise


class DDPM(nn.Module):
    """The U-Net, the steps in both directions, and the whole loop."""

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__()
        self.schedule = config.schedule
        self.unet = NoiseUNet(config.unet)
        self.forward_step = ForwardStep(config.schedule)
        self.forward_diffusion = ForwardDiffusion(config.schedule)
        self.backward_step = BackwardStep(config.schedule)

    def forward(self, sample: Tensor, noise: Tensor) -> Tensor:
        """From noise to pictures.

        Args:
            sample: (B, C, H, W), normal noise.
            noise: (N, B, C, H, W), what the N steps add; as many of the schedule's steps are visited.

        Returns:
            Pictures (B, C, H, W) in [0, 1].
        """
        stride = self.schedule.stride(len(noise))
        for (step, _), added in zip(self.schedule.timesteps(len(noise)), noise, strict=True):
            timestep = torch.full((len(sample),), step, device=sample.device)
            estimated = self.unet(sample, timestep)
            sample = self.backward_step(sample, estimated, added, timestep, torch.full_like(timestep, stride))
        return (sample / 2 + 0.5).clamp(0, 1)


def _picture(name: str, config: DDPMConfig) -> Port:
    return Port(name, ("batch", config.unet.in_channels, "height", "width"))


def _axes(size: int, *sweep: int) -> tuple[Axis, ...]:
    return Axis("batch", 2, sweep=(1,)), Axis("height", size, sweep=sweep), Axis("width", size, sweep=sweep[:1])


def _step(name: str, config: DDPMConfig) -> Port:
    return Port(name, ("batch",), "int64", "integers", config.schedule.num_train_steps)


def ddpm_graphs(config: DDPMConfig) -> tuple[GraphSpec, ...]:
    """The U-Net, and the steps: `forward_diffusion` is all forward steps at once."""
    sample, noise, timestep = _picture("sample", config), _picture("noise", config), _step("timestep", config)
    estimated, stride = _picture("estimated_noise", config), Port("stride", ("batch",), "int64", "integers", 50)
    small, result = _axes(4, 1, 7), _picture("out_sample", config)
    sides = _axes(config.image_size, config.image_size // 2, config.image_size - 5)
    return (
        GraphSpec("unet", (sample, timestep), (result,), sides, part=lambda model: model.unet),
        GraphSpec("forward_step", (sample, noise, timestep), (result,), small, part=lambda model: model.forward_step),
        GraphSpec(
            "forward_diffusion", (sample, noise, timestep), (result,), small, part=lambda model: model.forward_diffusion
        ),
        GraphSpec(
            "backward_step",
            (sample, estimated, noise, timestep, stride),
            (result,),
            small,
            part=lambda model: model.backward_step,
        ),
    )


def ddpm_generation(config: DDPMConfig) -> PictureGeneration:
    """Pictures of pure noise, by all steps."""
    schedule = config.schedule
    return PictureGeneration(
        "ddpm", schedule.num_train_steps, config.unet.in_channels, config.image_size, 1, asdict(schedule)
    )


def ddpm_config(content: Mapping[str, Any]) -> DDPMConfig:
    """The config of a diffusers folder, or of the `config.json` of a `UNet2DModel` alone.

    Raises:
        InvalidArgumentError: not such a network, or a setting that is not built.
    """
    unet = content if "block_out_channels" in content else part(content, "unet")
    schedule = noise_schedule(content.get("scheduler", {}), NoiseSchedule())
    config = unet_config({"_class_name": "UNet2DModel", "freq_shift": 0, **unet})
    return DDPMConfig(config, unet.get("sample_size") or 32, schedule)


TINY = DDPMConfig(
    UNetConfig(
        in_channels=3,
        out_channels=3,
        channels=(8, 16),
        attention=(False, True),
        num_heads=(1, 1),
        context_channels=None,
        layers_per_block=1,
        num_groups=4,
        eps=1e-6,
        cosine_first=False,
        frequency_shift=1,
        one_sided=True,
    ),
    image_size=16,
)

UNET_ALONE = CheckpointLayout("diffusers", ((r"^", "unet."), *OLD_ATTENTION), restores=((r"^unet\.", ""),))


@architecture(
    "ddpm",
    paper="https://arxiv.org/abs/2006.11239",
    presets={"published": DDPMConfig(), "tiny": TINY},
    graphs=ddpm_graphs,
    parameters=35_746_307,
    checkpoints=(UNET_ALONE, PLAIN),
    from_pretrained_config=ddpm_config,
    generation=ddpm_generation,
)
def build_ddpm(config: DDPMConfig) -> DDPM:
    """The module of a config."""
    return DDPM(config)
