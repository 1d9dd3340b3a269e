"""Token after token of a picture appended to a prompt, then decoded: DALL-E, driven from Python.

Per token, the transformer's graph runs on the last one and the cache; its scores stay in the runtime's memory and go to
the graph that chooses (`exporters.token_picture_looping`). The one-file graph does the same inside.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..architectures.specification import TokenPictureGeneration
from ..errors import InvalidArgumentError, InvalidModelError
from ..exporters.looping import GENERATE
from ..exporters.token_picture_looping import code_choosing_model
from .pictures import MODEL, as_pictures
from .request import Generated, Request, Watcher, positive
from .sessions import BoundSession
from .texts import CachedDecoder, Chooser, find_words, prompt_ids, scalars

Array = np.ndarray[Any, np.dtype[Any]]


def generate_token_picture(bundle: Path, manifest: Mapping[str, Any], request: Request, watcher: Watcher) -> Generated:
    """Draw what a prompt says; see `generation.request.Generator`.

    Raises:
        InvalidArgumentError: no prompt, no tokenizer for it, or options out of range.
        InvalidModelError: the bundle cannot generate, or has no one-file graph that was asked for.
    """
    plan, model = read_plan(manifest)
    positive("--temperature", request.temperature, zero=True)
    positive("--top-p", request.top_p)
    ids = prompt_ids(request, find_words(bundle, request), plan.text_vocab_size)
    words = np.tile(padded(ids, plan), (request.count, 1))
    if request.one_file and not model:
        raise InvalidModelError(f"{bundle} has no {GENERATE}; export it with --loop")
    begin, count = time.perf_counter(), plan.grid_size**2
    watcher.begin(count)
    if request.one_file:
        session = BoundSession(bundle / model, request.provider, request.threads)
        seed = np.asarray(request.seed, np.int64)
        image = session.run({"input_ids": words, "seed": seed, **scalars(request)})["image"].numpy()
        for _ in range(count):
            watcher.step()
    else:
        codes = write_codes(bundle, int(manifest["opset"]), plan, words, request, watcher)
        decoder = BoundSession(bundle / "decoder" / MODEL, request.provider, request.threads)
        image = decoder.run({"codes": codes})["sample"].numpy()
    return Generated(pictures=as_pictures(image), steps=count, duration_s=time.perf_counter() - begin)


def read_plan(manifest: Mapping[str, Any]) -> tuple[TokenPictureGeneration, str]:
    """How a bundle's pictures are written, and the file of its one-file graph ("" if it has none).

    Raises:
        InvalidModelError: the bundle does not say.
    """
    stated = manifest.get("generation")
    if stated is None:
        raise InvalidModelError(f"{manifest.get('name')}: its manifest does not say how pictures are made")
    fields = {name: stated[name] for name in TokenPictureGeneration.__dataclass_fields__}
    return TokenPictureGeneration(**fields), stated.get("model", "")


def padded(ids: Sequence[int], plan: TokenPictureGeneration) -> Array:
    """A prompt with the padding words of the positions behind it: (text_length,) int64.

    Raises:
        InvalidArgumentError: longer than the network can hold.
    """
    if len(ids) > plan.text_length:
        raise InvalidArgumentError(f"{len(ids)} words; the network holds at most {plan.text_length}")
    padding = plan.text_vocab_size + np.arange(len(ids), plan.text_length)
    return np.concatenate([np.asarray(ids, np.int64), padding.astype(np.int64)])


def write_codes(  # noqa: PLR0913, PLR0917 - graphs, prompts, and how to go on
    bundle: Path, opset: int, plan: TokenPictureGeneration, words: Array, request: Request, watcher: Watcher
) -> Array:
    """The picture's tokens, (B, grid, grid)."""
    settings = request.provider, request.threads
    first = np.concatenate([np.full((len(words), 1), plan.start_token_id), words], axis=1)
    transformer = CachedDecoder(bundle / "transformer" / MODEL, settings, first)
    choose = Chooser(opset, settings, request, code_choosing_model(plan, opset))
    codes = []
    for uniform in choose.uniforms(plan.grid_size**2, len(words)):
        codes.append(choose(transformer.score(), uniform))
        transformer.append(codes[-1] + plan.image_start)
        watcher.step()
    return np.stack(codes, axis=1).reshape(-1, plan.grid_size, plan.grid_size)
