"""What is exported: a module in inference mode, its graphs as data, and where it came from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..architectures.initialization import randomize
from ..architectures.registry import Architecture, find_architecture
from ..architectures.specification import FLOAT, PLAIN, CheckpointLayout, Generation, GraphSpec
from ..errors import WeightsError
from .arrays import torch_dtype
from .checkpoint_folder import Checkpoint, read_checkpoint
from .paging import Shelf, built_on
from .requests import choose_axes, fit_inputs, parse_input
from .saving import save_weights
from .targets import numpy_dtype
from .weights import has_own_head, load_weights


@dataclass(frozen=True)
class Subject:
    """A module ready to be exported.

    Attributes:
        name: of the bundle.
        module: in inference mode, on the CPU, in the dtype of the export.
        graphs: what becomes of it.
        source: for the manifest: the architecture and preset, or the factory.
        dtype: its floating-point type; ports of dtype "float" follow it.
        shelf: where its large parameters lie.
        examples: tensors by input name that the factory gave; drawn ones follow their values.
        weights: for the manifest: where the parameters came from.
        layouts: in which they can be written as a checkpoint.
        generation: how it appends words to its output or makes pictures; None if it does neither.
    """

    name: str
    module: nn.Module
    graphs: tuple[GraphSpec, ...]
    source: Mapping[str, Any]
    dtype: str
    shelf: Shelf
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    layouts: tuple[CheckpointLayout, ...] = (PLAIN,)
    generation: Generation | None = None

    def save_weights(self, path: Path, layout: str | None) -> list[Path]:
        """Write the parameters as a checkpoint; see `saving.save_weights`."""
        config = self.source.get("config")
        return save_weights(self.module, path, self.layouts, self.shelf, name=layout, config=config)

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

    Integers keep to their rows and columns, drawn along each axis, without repetition where it does not grow: indices
    that differ (the switches of a pool, the places of a scatter) must go on differing.
    A constant floating-point example (zeros, ones) says nothing, so normal values are drawn.
    """
    values = example.reshape(-1)
    if example.dtype.kind in "biu":
        if not values.size:
            return np.zeros(shape, dtype)
        drawn = [rng.choice(own, size, replace=size > own) for own, size in zip(example.shape, shape, strict=True)]
        return example[np.ix_(*drawn)].astype(dtype) if drawn else example.astype(dtype)
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


@dataclass(frozen=True)
class Parameters:
    """Where a module's parameters are to come from.

    Attributes:
        shelf: keeps the large ones.
        seed: of random ones.
        weights: a checkpoint's path; None for random parameters, or a user's module's own.
        allow_missing: draw what the checkpoint does not have.
    """

    shelf: Shelf
    seed: int
    weights: Path | None = None
    allow_missing: bool = False


def architecture_subject(  # noqa: PLR0913 - what a user may ask for
    name: str,
    parameters: Parameters,
    *,
    preset: str,
    dtype: str,
    dynamic: Sequence[str],
    inputs: Sequence[str],
    stated: Mapping[str, Any] | None = None,
) -> Subject:
    """An architecture at a preset, or at the sizes of a checkpoint folder, with its or seeded random parameters.

    `stated` is the content of a `config.json` that goes before the preset where the checkpoint has none itself.

    Raises:
        UnknownEntryError: no such architecture or preset.
        InvalidArgumentError: an axis or input that it does not have, or a folder of something else.
        WeightsError: the checkpoint does not fit.
    """
    entry = find_architecture(name)
    requests = [parse_input(text) for text in inputs]
    checkpoint = checkpoint_of(parameters, entry)
    stated = _stated(entry, checkpoint, stated, parameters.shelf)
    config = _config(entry, preset, stated)
    graphs = tuple(fit_inputs(choose_axes(spec, dynamic), requests) for spec in entry.graphs(config))
    with seeded(parameters.seed), built_on(parameters.shelf, torch_dtype(dtype)):
        module = entry.build(config)
    module = module.eval().to(torch_dtype(dtype))
    origin = fill_parameters(module, checkpoint, parameters, entry)
    source = {"architecture": name, "preset": preset, "paper": entry.paper}
    if stated is not None and entry.from_pretrained_config is not None:
        source = {"architecture": name, "config": dict(stated), "paper": entry.paper}
    words = None if entry.generation is None else entry.generation(config)
    known: dict[str, Any] = {"weights": origin, "layouts": entry.checkpoints, "generation": words}
    return Subject(name, module, graphs, source, dtype, parameters.shelf, **known)


def checkpoint_of(parameters: Parameters, entry: Architecture | None) -> Checkpoint | None:
    """The checkpoint that was asked for, mapped; of a folder the parts that an architecture's layouts name."""
    if parameters.weights is None:
        return None
    layouts = (PLAIN,) if entry is None else entry.checkpoints
    parts = dict.fromkeys(file.partition("/")[0] for layout in layouts for file in layout.files.values())
    return read_checkpoint(parameters.weights, parameters.shelf, tuple(parts))


def _stated(
    entry: Architecture, checkpoint: Checkpoint | None, stated: Mapping[str, Any] | None, shelf: Shelf
) -> Mapping[str, Any] | None:
    """The `config.json` that counts, for what was stored; untied where its head differs from its embedding.

    What it says of the head is no fact of a fine-tuned checkpoint: transformers 5 writes that T5's is tied always.
    """
    if checkpoint is not None and checkpoint.config is not None:
        own = checkpoint.config
        stated = own if entry.as_stored is None else entry.as_stored(own, checkpoint.tensors.keys())
    if checkpoint is None or stated is None or entry.untied is None or stated.get("tie_word_embeddings") is False:
        return stated
    return entry.untied(stated) if has_own_head(checkpoint, entry.checkpoints[0], shelf) else stated


def _config(entry: Architecture, preset: str, stated: Mapping[str, Any] | None) -> Any:
    """The config that a `config.json` states; else the preset's."""
    if stated is None or entry.from_pretrained_config is None:
        return entry.config(preset)
    try:
        return entry.from_pretrained_config(stated)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise WeightsError(f"config.json is not one of {entry.name}: {type(error).__name__}: {error}") from error


def fill_parameters(
    module: nn.Module, checkpoint: Checkpoint | None, parameters: Parameters, entry: Architecture | None
) -> dict[str, Any]:
    """Give `module` a checkpoint's parameters; else an architecture gets random ones and a user's module keeps its own.

    Returns:
        Where the parameters came from, for the manifest.
    """
    shelf = parameters.shelf
    if checkpoint is None:
        if entry is not None:
            _draw(module, parameters, None)
        return {"seed": parameters.seed}
    layouts = (PLAIN,) if entry is None else entry.checkpoints
    fit = load_weights(module, checkpoint, layouts, shelf, allow_missing=parameters.allow_missing)
    origin = {"file": checkpoint.path.name, "layout": fit.layout.name, "sha256": checkpoint.sha256()}
    if not fit.missing:
        return origin
    if entry is not None:
        _draw(module, parameters, fit.missing)
    return {**origin, "missing": list(fit.missing), "seed": parameters.seed}


def _draw(module: nn.Module, parameters: Parameters, only: Collection[str] | None) -> None:
    shelf = parameters.shelf
    for name, tensor in module.state_dict().items():
        if only is None or name in only:
            shelf.reserve(tensor)
    randomize(module, parameters.seed, only=only, drawn=lambda part: shelf.release([part]))


def module_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by every name that they have, also those that no checkpoint holds."""
    buffers = dict(module.named_buffers(remove_duplicate=False))
    return {**dict(module.named_parameters(remove_duplicate=False)), **buffers}


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Inside, the module may run and update its buffers; afterwards they are what they were.

    A graph computes what the module does in the state that it was made in: every run of it starts there.
    """
    owned = [(owner, name, buffer) for owner in module.modules() for name, buffer in owner.named_buffers(recurse=False)]
    before = [buffer.clone() for _, _, buffer in owned]
    try:
        yield
    finally:
        for (owner, name, buffer), value in zip(owned, before, strict=True):
            if owner._buffers[name] is not buffer:  # `self.steps = self.steps + 1`
                owner._buffers[name] = buffer
            if not torch.equal(buffer, value):
                buffer.copy_(value)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def on_cpu(value: Any) -> Any:
    """A tensor on the CPU, without gradient; anything else as it is."""
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value
