"""Greedy words by a network itself, in PyTorch, every one computed from the whole text before it."""

from __future__ import annotations

import numpy as np
import torch

from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture

NAMES = ("gpt2", "t5", "transformer")
END, PAD = {"gpt2": 66, "t5": 1, "transformer": 1}, {"gpt2": 66, "t5": 0, "transformer": 0}


def network(name):
    """The network of the `loops` fixture."""
    entry = find_architecture(name)
    module = entry.build(entry.config("tiny")).eval()
    randomize(module, 0)
    return module.double()


def best_words(name, prompt, length):
    """One text: the prompt gone on with (gpt2), or its answer (the others); float64, without cache or batch."""
    module, ids = network(name), torch.tensor([prompt])
    words = ids if name == "gpt2" else torch.zeros((1, 1), dtype=torch.int64)
    with torch.no_grad():
        while words.shape[1] < length:
            best = module.score(ids, torch.ones_like(ids), words)[:, -1].argmax(dim=1)
            words = torch.cat((words, best[:, None]), dim=1)
            if int(best) == END[name]:
                break
    return words[0].tolist()


def prompts(count, seed=0):
    """Token ids of different lengths, from 1 on."""
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 50, int(rng.integers(1, 8))).tolist() for _ in range(count)]
