"""The architectures by name.

    @architecture("resnet18", paper="https://…", presets={…}, graphs=resnet_graphs, parameters=11_689_512)
    def build_resnet18(config: ResNetConfig) -> ResNet: ...

An architecture is one file of this package. What there is (`listings`) is read from the decorators' own words without
importing the file, because importing it imports torch; `find_architecture` imports it.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import DuplicateEntryError, InvalidArgumentError, UnknownEntryError
from .specification import PLAIN, CheckpointLayout, Generation, GraphSpec

PUBLISHED = "published"
TINY = "tiny"

PretrainedConfig = Callable[[Mapping[str, Any]], Any]
GenerationOf = Callable[[Any], Generation]
Untied = Callable[[Mapping[str, Any]], Mapping[str, Any]]
AsStored = Callable[[Mapping[str, Any], Collection[str]], Mapping[str, Any]]


@dataclass(frozen=True)
class Listing:
    """What is known of an architecture without importing it.

    Attributes:
        name: its key.
        paper: link.
        title: first line of its file's docstring.
        module: name of its file in this package.
    """

    name: str
    paper: str
    title: str
    module: str


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: its key.
        paper: link.
        build: from a frozen config to a `torch.nn.Module`.
        presets: configs by name; "published" and "tiny" at least.
        graphs: from a config to its ONNX graphs, one or several.
        parameters: number of parameters at published size.
        checkpoints: layouts of checkpoints that can be loaded.
        from_pretrained_config: from the content of a checkpoint folder's `config.json` (Hugging Face, diffusers) to
            this architecture's config; None where no such folders are published. It raises `InvalidArgumentError` for
            a folder of something else (another `model_type`) and for a setting that the architecture does not build,
            naming it; keys that do not change inference are ignored, absent ones take the ecosystem's own defaults.
            Of a diffusers folder it is given the configs by sub-folder, {"unet": {…}, "vae": {…}, "text_encoder": {…},
            "scheduler": {…}}: `config.json`, for the scheduler `scheduler_config.json`; and "model_index" where there
            is a `model_index.json`.
        generation: from a config to how the architecture appends words to its output or makes pictures of noise; None
            where it does neither.
        untied: from the content of a `config.json` that ties the head to the embedding to the one of a head of its own;
            it is asked where the checkpoint has both and they differ. None where there is no such head.
        as_stored: from the content of a `config.json` and the keys of the checkpoint beside it to a content that says
            which parts of the network were stored; None where that is always the same.
    """

    name: str
    paper: str
    build: Callable[[Any], Any]
    presets: Mapping[str, Any]
    graphs: Callable[[Any], tuple[GraphSpec, ...]]
    parameters: int
    checkpoints: tuple[CheckpointLayout, ...] = (PLAIN,)
    from_pretrained_config: PretrainedConfig | None = None
    generation: GenerationOf | None = None
    untied: Untied | None = None
    as_stored: AsStored | None = None

    def config(self, preset: str) -> Any:
        """The config of a preset.

        Raises:
            UnknownEntryError: no such preset.
        """
        if preset not in self.presets:
            raise UnknownEntryError(f"{self.name}: no preset {preset!r}; there are {', '.join(self.presets)}")
        return self.presets[preset]


_entries: dict[str, Architecture] = {}


def architecture(  # noqa: PLR0913 - an entry states six facts
    name: str,
    *,
    paper: str,
    presets: Mapping[str, Any],
    graphs: Callable[[Any], tuple[GraphSpec, ...]],
    parameters: int,
    checkpoints: tuple[CheckpointLayout, ...] = (PLAIN,),
    from_pretrained_config: PretrainedConfig | None = None,
    generation: GenerationOf | None = None,
    untied: Untied | None = None,
    as_stored: AsStored | None = None,
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Register the decorated function, which builds the module of a config.

    Args:
        name: the key; a literal, as is `paper` (`listings` reads them from the source).
        paper: link.
        presets: configs by name, "published" and "tiny" among them.
        graphs: from a config to its ONNX graphs.
        parameters: number of parameters at published size.
        checkpoints: layouts of checkpoints that can be loaded.
        from_pretrained_config: from the content of a `config.json` to a config; see `Architecture`.
        generation: from a config to how words are appended to the output, or pictures made of noise.
        untied: from a `config.json` that ties the head to the embedding to one that does not; see `Architecture`.
        as_stored: from a `config.json` and a checkpoint's keys to one that says what was stored; see `Architecture`.

    Raises:
        DuplicateEntryError: the name is registered already.
        InvalidArgumentError: a preset is missing.
    """

    def register(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
        if name in _entries:
            there = _entries[name].build
            raise DuplicateEntryError(f"{name} is already registered by {there.__module__}.{there.__qualname__}")
        missing = [preset for preset in (PUBLISHED, TINY) if preset not in presets]
        if missing:
            raise InvalidArgumentError(
                f"{name}: preset {' and '.join(missing)} missing; given are {', '.join(presets)}"
            )
        frozen = MappingProxyType(dict(presets))
        _entries[name] = Architecture(
            name,
            paper,
            build,
            frozen,
            graphs,
            parameters,
            checkpoints,
            from_pretrained_config,
            generation,
            untied,
            as_stored,
        )
        return build

    return register


@cache
def listings() -> Mapping[str, Listing]:
    """What architectures there are, by name and in alphabetical order; nothing of them is imported.

    Raises:
        DuplicateEntryError: two files register one name.
    """
    found: dict[str, Listing] = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        for listing in _listings_of(file):
            if listing.name in found:
                raise DuplicateEntryError(
                    f"{listing.name} is registered by {found[listing.name].module} and {file.stem}"
                )
            found[listing.name] = listing
    return MappingProxyType(dict(sorted(found.items())))


_ENTRY = re.compile(rf"^@{architecture.__name__}\(.*?^def ", re.MULTILINE | re.DOTALL)
"""A decorator, to the function that it stands on: only this much of a file is parsed."""


def _listings_of(file: Path) -> list[Listing]:
    source = file.read_text(encoding="utf-8")
    entries = [] if file.name.startswith("_") else _ENTRY.findall(source)
    title = source.partition("\n")[0].strip('".')
    functions = [ast.parse(f"{entry}_(): ...").body[0] for entry in entries]
    calls = [
        call for function in functions if isinstance(function, ast.FunctionDef) for call in function.decorator_list
    ]
    return [_listing_of(call, title, file.stem) for call in calls if isinstance(call, ast.Call)]


def _listing_of(call: ast.Call, title: str, module: str) -> Listing:
    paper = next(keyword.value for keyword in call.keywords if keyword.arg == "paper")
    return Listing(ast.literal_eval(call.args[0]), ast.literal_eval(paper), title, module)


def find_architecture(name: str) -> Architecture:
    """The entry of an architecture; imports its file, and so torch.

    Raises:
        UnknownEntryError: no architecture of that name.
    """
    if name in _entries:
        return _entries[name]
    known = listings()
    if name not in known:
        raise UnknownEntryError(f"no architecture {name!r}; there are {', '.join(known)}")
    importlib.import_module(f".{known[name].module}", __package__)
    return _entries[name]
