"""Seeded random parameters in which every number matters.

Frameworks start biases at zero and normalisations at the identity; a graph that forgot one of them would then still be
right. Here every parameter and every running statistic is generic, and activations keep their size through depth.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def randomize(module: nn.Module, seed: int) -> None:
    """Overwrite every floating-point parameter and buffer of `module`, in the order of its state dict.

    Matrices and filters: normal with variance 2 / fan-in (He et al., arXiv 1502.01852, eq. 10). Gains and running
    variances of normalisations: uniform in [0.5, 1.5]. Biases and running means: normal with deviation 0.1.

    Args:
        module: on the CPU.
        seed: of NumPy's generator, whose bits do not depend on the processor or the number of threads.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(_values(name, tensor, rng)))


def _values(name: str, tensor: Tensor, rng: np.random.Generator) -> np.ndarray:
    shape = tuple(tensor.shape)
    if tensor.ndim > 1:
        fan_in = tensor[0].numel()
        return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan_in))
    if name.endswith(("weight", "running_var")):
        return np.asarray(rng.uniform(0.5, 1.5, shape))
    return np.asarray(rng.normal(0.0, 0.1, shape))
