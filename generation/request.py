"""What a generator is asked for, and what it gives: frozen data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InvalidArgumentError

ALWAYS = frozenset({"prompt", "seed", "count", "provider", "threads", "one_file"})
"""What every generator takes."""


@dataclass(frozen=True)
class Request:
    """What is to be generated; None is "not said", and the generator's own default.

    Attributes:
        prompt: a text, for the tokenizer.
        seed: of everything random.
        count: how many texts or pictures.
        provider: "cpu" or "cuda".
        threads: intra-op threads of ONNX Runtime; None is its own choice.
        one_file: run the bundle's one-file graph, which holds the loop itself, instead of driving its parts.
        tokens: the prompt as token ids, where there is no tokenizer.
        tokenizer: `tokenizer.json`, or the folder that holds it.
        max_length: words at most, the prompt's included where it is continued.
        temperature: divides the scores; 0 takes the best word.
        top_k: only the k best words.
        top_p: only the best words that have this probability together.
        negative_prompt: what a picture shall not show.
        steps: of denoising.
        guidance: how strongly a picture follows its prompt.
        height: of a picture, in pixels.
        width: likewise.
    """

    prompt: str | None = None
    seed: int = 0
    count: int = 1
    provider: str = "cpu"
    threads: int | None = None
    one_file: bool = False
    tokens: tuple[int, ...] | None = None
    tokenizer: Path | None = None
    max_length: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    negative_prompt: str | None = None
    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None

    def given(self) -> Iterator[str]:
        """Names of the optional fields that were said."""
        for field in fields(self):
            if field.name not in ALWAYS and getattr(self, field.name) is not None:
                yield field.name


class Watcher(Protocol):
    """Is told how a generation goes on."""

    def begin(self, steps: int) -> None:
        """So many steps will be taken at most."""
        ...

    def step(self, text: str = "") -> None:
        """One step was taken; it added this text."""
        ...


class Silent:
    """A watcher that says nothing."""

    def begin(self, steps: int) -> None:
        """Nothing."""

    def step(self, text: str = "") -> None:
        """Nothing."""


@dataclass(frozen=True)
class Generated:
    """What a generator gave.

    Attributes:
        tokens: per text, its token ids, the prompt's included where it is continued.
        texts: the same as texts; none without a tokenizer.
        pictures: (H, W, 3) uint8 each.
        steps: words or denoising steps that were taken.
        duration_s: of the loop.
    """

    tokens: tuple[tuple[int, ...], ...] = ()
    texts: tuple[str, ...] = ()
    pictures: tuple[np.ndarray, ...] = ()
    steps: int = 0
    duration_s: float = 0.0


class Generator(Protocol):
    """A loop over a bundle's graphs."""

    def __call__(self, bundle: Path, manifest: Mapping[str, Any], request: Request, watcher: Watcher) -> Generated:
        """Generate what `request` asks for from the graphs in the folder `bundle`."""
        ...


def positive(name: str, value: float | None, *, zero: bool = False) -> None:
    """Refuse a number that is not above zero (or zero, where that is allowed).

    Raises:
        InvalidArgumentError: names the option.
    """
    if value is not None and not (value > 0 or (zero and value == 0)):
        raise InvalidArgumentError(f"{name} {value}; allowed are numbers {'of at least' if zero else 'above'} 0")
