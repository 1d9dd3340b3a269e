"""How much noise diffusion has added after each step, and which steps a sampler visits; NumPy only.

Papers: Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", https://arxiv.org/abs/2006.11239, section 2; Song,
Meng, Ermon, "Denoising diffusion implicit models", https://arxiv.org/abs/2010.02502, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class NoiseSchedule:
    """Variances of the noise that the forward process adds.

    Attributes:
        num_train_steps: T; step t is counted from 0.
        beta_start: variance of the first step.
        beta_end: of the last.
        kind: "linear" in β (Ho et al., section 4), or "scaled_linear": linear in √β (latent diffusion).
        steps_offset: added to every step that a sampler visits: 1 in latent diffusion, 0 in Ho et al.
    """

    num_train_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    kind: str = "linear"
    steps_offset: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "scaled_linear"):
            raise InvalidArgumentError(f"noise schedule {self.kind!r}; allowed are linear, scaled_linear")

    def betas(self) -> Array:
        """Variance added by each step: (T,), float64."""
        if self.kind == "linear":
            return np.linspace(self.beta_start, self.beta_end, self.num_train_steps)
        return np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_train_steps) ** 2

    def signal(self) -> Array:
        """Share of the clean sample's variance that is left after each step, ᾱ: (T,), float64."""
        return np.cumprod(1.0 - self.betas())

    def stride(self, num_steps: int) -> int:
        """How far apart the visited steps are.

        Raises:
            InvalidArgumentError: fewer than one step, or more than there are.
        """
        if not 1 <= num_steps <= self.num_train_steps:
            raise InvalidArgumentError(f"{num_steps} steps; allowed are 1 to {self.num_train_steps}")
        return self.num_train_steps // num_steps

    def timesteps(self, num_steps: int) -> list[tuple[int, int]]:
        """Pairs (step, step before it) from the noisiest on; the last goes to a step below 0: the clean sample."""
        stride = self.stride(num_steps)
        steps = [index * stride + self.steps_offset for index in reversed(range(num_steps))]
        return [(min(step, self.num_train_steps - 1), step - stride) for step in steps]


LATENT_SCHEDULE = NoiseSchedule(beta_start=0.00085, beta_end=0.012, kind="scaled_linear", steps_offset=1)
"""Of LDM text2img-large and Stable Diffusion 1.x."""
