"""The generators by architecture: which loop makes words or pictures of its graphs.

A generator is a function like `generation.request.Generator` in a module of this room; it is imported when it is asked
for. To add one, write it and add a row here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError, UnknownEntryError

if TYPE_CHECKING:
    from .request import Generator, Request

TEXT = "text"
PICTURE = "picture"

SAMPLING = frozenset({"max_length", "temperature", "top_k", "top_p"})
WORDS = frozenset({"tokens", "tokenizer"})
DENOISING = frozenset({"negative_prompt", "steps", "guidance", "height", "width"})


@dataclass(frozen=True)
class GeneratorEntry:
    """One generator.

    Attributes:
        module: of this room.
        function: its name there.
        gives: "text" or "picture".
        takes: the optional fields of a `Request` that it understands.
    """

    module: str
    function: str
    gives: str
    takes: frozenset[str]

    def check(self, name: str, request: Request) -> None:
        """Refuse options that mean nothing here.

        Raises:
            InvalidArgumentError: names the option.
        """
        unknown = [field for field in request.given() if field not in self.takes]
        if unknown:
            option = "--" + unknown[0].replace("_", "-")
            raise InvalidArgumentError(f"{option} means nothing to {name}, which makes a {self.gives}")

    def load(self) -> Generator:
        """Import the generator."""
        return getattr(importlib.import_module(f".{self.module}", __package__), self.function)


_TEXTS = GeneratorEntry("texts", "generate_text", TEXT, WORDS | SAMPLING)

_PICTURES = GeneratorEntry("pictures", "generate_picture", PICTURE, WORDS | DENOISING)

_TOKEN_PICTURES = GeneratorEntry("token_pictures", "generate_token_picture", PICTURE, WORDS | SAMPLING - {"max_length"})

GENERATORS: dict[str, GeneratorEntry] = {
    "dalle": _TOKEN_PICTURES,
    "ddpm": _PICTURES,
    "gpt2": _TEXTS,
    "latent-diffusion": _PICTURES,
    "stable-diffusion": _PICTURES,
    "t5": _TEXTS,
    "transformer": _TEXTS,
}


def find_generator(architecture: str) -> GeneratorEntry:
    """The generator of an architecture.

    Raises:
        UnknownEntryError: it has none.
    """
    if architecture not in GENERATORS:
        raise UnknownEntryError(f"{architecture or 'this bundle'} generates nothing; {', '.join(GENERATORS)} do")
    return GENERATORS[architecture]
