"""Seeded random parameters in which every number matters.

Frameworks start biases at zero and normalisations at the identity; a graph that forgot one of them would then still be
right. Here every parameter and every running statistic is generic, and activations keep their size through depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch
from torch import Tensor, nn

BLOCK_ELEMENTS = 1 << 22
"""Numbers that are drawn at a time, so that a parameter is not in memory twice."""


def randomize(
    module: nn.Module,
    seed: int,
    *,
    only: Collection[str] | None = None,
    drawn: Callable[[Tensor], None] = lambda _: None,
) -> None:
    """Overwrite every floating-point parameter and buffer of `module`, in the order of its state dict.

    Matrices and filters: normal with variance 2 / fan-in (He et al., arXiv 1502.01852, eq. 10). Gains and running
    variances of normalisations: uniform in [0.5, 1.5]. Biases and running means: normal with deviation 0.1. The matrix
    of a layer that has an `initial_gain` is multiplied by it.

    Args:
        module: on the CPU.
        seed: of NumPy's generator, whose bits do not depend on the processor or the number of threads.
        only: names of what to draw; None is all.
        drawn: told of every part of a tensor that has its values.
    """
    rng = np.random.default_rng(seed)
    gains = {f"{name}.weight": getattr(layer, "initial_gain", 1.0) for name, layer in module.named_modules()}
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and (only is None or name in only):
                gain = np.float32(gains.get(name, 1.0))
                for part, values in _values(name, tensor, rng):
                    part.copy_(torch.from_numpy(values * gain))  # rounds float32, whatever the type
                    drawn(part)


def _values(name: str, tensor: Tensor, rng: np.random.Generator) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Parts of a tensor with their values; of a large one, some numbers at a time."""
    if tensor.ndim > 1:
        factor = np.float32(math.sqrt(2 / tensor[0].numel())) if tensor.numel() else np.float32(1)
        flat = tensor.view(-1) if tensor.is_contiguous() else tensor
        step = BLOCK_ELEMENTS if flat.ndim == 1 else len(flat)
        for start in range(0, len(flat), step):
            part = flat[start : start + step]
            yield part, rng.standard_normal(tuple(part.shape), np.float32) * factor
    elif name.endswith(("weight", "running_var")):
        yield tensor, np.asarray(rng.uniform(0.5, 1.5, tuple(tensor.shape)), np.float32)
    else:
        yield tensor, np.asarray(rng.normal(0.0, 0.1, tuple(tensor.shape)), np.float32)
