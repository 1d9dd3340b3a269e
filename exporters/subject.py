"""What is exported: a module in inference mode, its graphs as data, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..architectures.initialization import randomize
from ..architectures.registry import Architecture, find_architecture
from ..architectures.specification import FLOAT, PLAIN, GraphSpec, TextGeneration
from .arrays import torch_dtype
from .requests import choose_axes, fit_inputs, parse_input
from .targets import numpy_dtype
from .weights import load_weights


@dataclass(frozen=True)
class Subject:
    """A module ready to be exported.

    Attributes:
        name: of the bundle.
        module: in inference mode, on the CPU, in the dtype of the export.
        graphs: what becomes of it.
        source: for the manifest: the architecture and preset, or the factory.
        dtype: its floating-point type; ports of dtype "float" follow it.
        examples: tensors by input name that the factory gave; drawn ones follow their values.
        weights: for the manifest: where the parameters came from.
        generation: how it appends words to its output; None if it does not.
    """

    name: str
    module: nn.Module
    graphs: tuple[GraphSpec, ...]
    source: Mapping[str, Any]
    dtype: str
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    generation: TextGeneration | None = None

    def example_feeds(self, spec: GraphSpec, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        """The factory's own examples in the dtype of the export; inputs without one are drawn."""
        drawn = self.draw_feeds(spec, sizes, seed)
        own = {name: array for name, array in self.examples.items() if array.shape == drawn[name].shape}
        return drawn | {name: array.astype(drawn[name].dtype) for name, array in own.items()}

    def draw_feeds(self, spec: GraphSpec, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        """Seeded stored inputs of one graph at the given axis sizes."""
        rng, dtype = np.random.default_rng([seed, *sizes.values()]), numpy_dtype(self.dtype)
        feeds: dict[str, np.ndarray] = {}
        for port in spec.inputs:
            shape, example = port.sizes(sizes), self.examples.get(port.name)
            feeds[port.name] = (
                port.draw(rng, shape, dtype)
                if example is None
                else _alike(example, rng, shape, dtype if port.dtype == FLOAT else example.dtype)
            )
        return feeds


def _alike(example: np.ndarray, rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Values within the example's range: its own integers, floating-point ones between two of its own.

    A constant floating-point example (zeros, ones) says nothing, so normal values are drawn.
    """
    values = example.reshape(-1)
    if example.dtype.kind in "biu":
        return rng.choice(values, shape).astype(dtype) if values.size else np.zeros(shape, dtype)
    if not values.size or np.all(values == values[0]):
        return rng.standard_normal(shape).astype(dtype)
    share, numbers = rng.random(shape), values.astype(np.float64)
    return (share * rng.choice(numbers, shape) + (1 - share) * rng.choice(numbers, shape)).astype(dtype)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's generator starts from `seed`; afterwards it goes on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def architecture_subject(  # noqa: PLR0913 - what a user may ask for
    name: str,
    *,
    preset: str,
    dtype: str,
    seed: int,
    weights: Path | None,
    dynamic: Sequence[str],
    inputs: Sequence[str],
) -> Subject:
    """An architecture at a preset, with a checkpoint or seeded random parameters.

    Raises:
        UnknownEntryError: no such architecture or preset.
        InvalidArgumentError: an axis or input that it does not have.
        WeightsError: the checkpoint does not fit.
    """
    entry = find_architecture(name)
    config = entry.config(preset)
    requests = [parse_input(text) for text in inputs]
    graphs = tuple(fit_inputs(choose_axes(spec, dynamic), requests) for spec in entry.graphs(config))
    with seeded(seed):
        module = entry.build(config)
    origin = fill_parameters(module, weights, seed, entry)
    source = {"architecture": name, "preset": preset, "paper": entry.paper}
    generation = None if entry.generation is None else entry.generation(config)
    module = module.eval().to(torch_dtype(dtype))
    return Subject(name, module, graphs, source, dtype, weights=origin, generation=generation)


def fill_parameters(module: nn.Module, weights: Path | None, seed: int, entry: Architecture | None) -> dict[str, Any]:
    """Give `module` a checkpoint's parameters; else an architecture gets random ones and a user's module keeps its own.

    Returns:
        Where the parameters came from, for the manifest.
    """
    if weights is not None:
        layout = load_weights(module, weights, (PLAIN,) if entry is None else entry.checkpoints)
        return {"file": weights.name, "layout": layout}
    if entry is not None:
        randomize(module, seed)
    return {"seed": seed}


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def on_cpu(value: Any) -> Any:
    """A tensor on the CPU, without gradient; anything else as it is."""
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value
