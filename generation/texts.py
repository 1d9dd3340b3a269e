"""Word after word: the loop over a decoder's graph, with its cache, driven from Python.

Per word, the decoder's graph runs on the last word and the cache; its scores stay in the runtime's memory and go to the
graph that chooses (`exporters.sampling`); what it returns as `present` is bound as the next `past_key_values`. The
one-file graph does the same inside, with the same operators, and gives the same words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..architectures.specification import TextGeneration
from ..errors import InvalidArgumentError, InvalidModelError
from ..exporters.looping import GENERATE, PAST, PRESENT
from ..exporters.sampling import choosing_model, random_model
from .request import Generated, Request, Watcher, positive
from .sessions import BoundSession
from .tokenizing import Stream, Words

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, np.dtype[Any]]

MORE_WORDS = 100
"""How many words are added where nothing is said."""

TOKENIZER = "tokenizer"
"""The folder of a bundle that holds the checkpoint's tokenizer."""


@dataclass(frozen=True)
class Prompts:
    """Token ids of several texts, (B, T) int64, and 0 where one is padded."""

    ids: Array
    mask: Array


def generate_text(bundle: Path, manifest: Mapping[str, Any], request: Request, watcher: Watcher) -> Generated:
    """Go on with a prompt, or answer it; see `generation.request.Generator`.

    Raises:
        InvalidArgumentError: no prompt, no tokenizer for it, or options out of range.
        InvalidModelError: the bundle cannot generate, or has no one-file graph that was asked for.
    """
    plan, model = read_plan(manifest)
    words = find_words(bundle, request)
    prompt = prompt_ids(request, words, plan.vocab_size)
    length = choose_length(plan, len(prompt), request)
    prompts = repeated(prompt, request.count)
    begin, stream = time.perf_counter(), Stream(words)
    start = [plan.start_token_id] if plan.encoder else prompt
    watcher.begin(length - len(start))
    begun = stream.add(*start)
    watcher.step(begun if request.count == 1 else "")

    def told(row: Array) -> None:
        watcher.step(stream.add(int(row[0])) if request.count == 1 else "")

    if request.one_file:
        sequences = run_one_file(bundle, model, prompts, length, request)
        for column in sequences.T[len(start) :]:
            told(column)
    else:
        sequences = run_loop(bundle, manifest, prompts, length, request, told)
    tokens = tuple(tuple(_ended(row.tolist(), plan, len(start))) for row in sequences)
    texts = () if words is None else tuple(words.decode(list(row)) for row in tokens)
    return Generated(tokens, texts, steps=sequences.shape[1] - len(start), duration_s=time.perf_counter() - begin)


def _ended(ids: list[int], plan: TextGeneration, begin: int) -> list[int]:
    """A text up to its end token, without the padding behind it."""
    ends = [place for place in range(begin, len(ids)) if ids[place] == plan.eos_token_id]
    return ids[: ends[0] + 1] if ends else ids


def read_plan(manifest: Mapping[str, Any]) -> tuple[TextGeneration, str]:
    """How a bundle's words are appended, and the file of its one-file graph ("" if it has none).

    Raises:
        InvalidModelError: the bundle does not say.
    """
    stated = manifest.get("generation")
    if stated is None:
        raise InvalidModelError(f"{manifest.get('name')}: its manifest does not say how words are appended")
    fields = {name: stated[name] for name in TextGeneration.__dataclass_fields__ if name in stated}
    return TextGeneration(**fields), stated.get("model", "")


def find_words(bundle: Path, request: Request) -> Words | None:
    """The tokenizer that was named; else the bundle's own; None for a prompt of token ids without either."""
    if request.tokenizer is not None:
        return Words(request.tokenizer)
    return Words(bundle / TOKENIZER) if (bundle / TOKENIZER).is_dir() else None


def prompt_ids(request: Request, words: Words | None, vocab_size: int) -> list[int]:
    """The prompt's token ids.

    Raises:
        InvalidArgumentError: no prompt, two, a text without a tokenizer, or a token that the network does not know.
    """
    if (request.prompt is None) == (request.tokens is None):
        raise InvalidArgumentError("give either --prompt TEXT or --tokens 1,2,3")
    if request.tokens is None and words is None:
        raise InvalidArgumentError("--prompt needs a tokenizer: give --tokenizer, or the prompt as --tokens 1,2,3")
    ids = list(request.tokens or ()) if words is None or request.prompt is None else words.encode(request.prompt)
    foreign = [token for token in ids if not 0 <= token < vocab_size]
    if foreign:
        which = "--tokens" if request.prompt is None else "the tokenizer gives token"
        raise InvalidArgumentError(f"{which} {foreign[0]}; the network knows 0 to {vocab_size - 1}")
    return ids


def choose_length(plan: TextGeneration, prompt: int, request: Request) -> int:
    """Words at most.

    Raises:
        InvalidArgumentError: more than the network can hold, or an option out of range.
    """
    positive("--temperature", request.temperature, zero=True)
    positive("--top-p", request.top_p)
    begun = 1 if plan.encoder else prompt
    length = begun + MORE_WORDS if request.max_length is None else request.max_length
    if plan.longest is None:
        return length
    if max(length if request.max_length is not None else 0, begun) > plan.longest:
        raise InvalidArgumentError(f"{max(length, begun)} words; the network holds at most {plan.longest}")
    return min(length, plan.longest)


def repeated(prompt: Sequence[int], count: int) -> Prompts:
    """One prompt, `count` times."""
    ids = np.tile(np.asarray(prompt, np.int64), (count, 1))
    return Prompts(ids, np.ones_like(ids))


def padded(prompts: Sequence[Sequence[int]], plan: TextGeneration) -> Prompts:
    """Prompts of different lengths: padded before a text that goes on, behind one that is read by an encoder."""
    width = max(map(len, prompts))
    ids = np.full((len(prompts), width), plan.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(0, len(prompt)) if plan.encoder else slice(width - len(prompt), width)
        ids[row, place], mask[row, place] = prompt, 1
    return Prompts(ids, mask)


def scalars(request: Request) -> dict[str, Array]:
    """What the choosing operators are told."""
    return {
        "temperature": np.asarray(0.0 if request.temperature is None else request.temperature, np.float32),
        "top_k": np.asarray(0 if request.top_k is None else request.top_k, np.int64),
        "top_p": np.asarray(1.0 if request.top_p is None else request.top_p, np.float32),
    }


def run_one_file(bundle: Path, model: str, prompts: Prompts, length: int, request: Request) -> Array:
    """The sequences (B, ≤ length) that the one-file graph gives.

    Raises:
        InvalidModelError: the bundle has none.
    """
    if not model:
        raise InvalidModelError(f"{bundle} has no {GENERATE}; export it with --loop")
    session = BoundSession(bundle / model, request.provider, request.threads)
    feeds = {"input_ids": prompts.ids, "attention_mask": prompts.mask, **scalars(request)}
    feeds |= {"max_length": np.asarray(length, np.int64), "seed": np.asarray(request.seed, np.int64)}
    return session.run(feeds)["sequences"].numpy()


def run_loop(  # noqa: PLR0913, PLR0917 - graphs, prompts, and how to go on
    bundle: Path,
    manifest: Mapping[str, Any],
    prompts: Prompts,
    length: int,
    request: Request,
    told: Callable[[Array], None] = lambda _: None,
) -> Array:
    """The sequences (B, ≤ length) of the loop driven from here.

    Args:
        bundle: the folder.
        manifest: of it.
        prompts: to go on with, or to answer.
        length: words at most.
        request: provider, threads, seed and how words are chosen.
        told: is given every new word, (B) ids.
    """
    plan, _ = read_plan(manifest)
    files = {graph["name"]: bundle / graph["model"] for graph in manifest["graphs"]}
    settings = request.provider, request.threads
    state = _Asked(files, plan, settings, prompts) if plan.encoder else _GoneOn(files, plan, settings, prompts)
    choose = Chooser(int(manifest["opset"]), settings, request)
    begun = state.sequences.shape[1]
    uniforms = choose.uniforms(max(length - begun, 0), len(prompts.ids))
    finished = np.zeros(len(prompts.ids), bool)
    for uniform in uniforms:
        words = np.where(finished, plan.pad_token_id, choose(state.score(), uniform))
        finished |= words == plan.eos_token_id if plan.eos_token_id is not None else False
        state.append(words)
        told(words)
        if finished.all():
            break
    return state.sequences


class Chooser:
    """Chooses words from scores, in the runtime.

    Args:
        opset: of the graphs.
        settings: provider and threads.
        request: seed, and how words are chosen.
        model: that chooses, with the ports of `exporters.sampling.choosing_model`; None is that one.
    """

    def __init__(
        self, opset: int, settings: tuple[str, int | None], request: Request, model: onnx.ModelProto | None = None
    ) -> None:
        chosen_by = choosing_model(opset) if model is None else model
        self._choosing = BoundSession(chosen_by.SerializeToString(), *settings)
        self._random = BoundSession(random_model(opset).SerializeToString(), *settings)
        self._seed, self._scalars = request.seed, scalars(request)

    def uniforms(self, steps: int, rows: int) -> Array:
        """Numbers in [0, 1), (steps, rows), of the seed."""
        sizes = {"seed": self._seed, "count": steps, "rows": rows}
        feeds = {name: np.asarray(value, np.int64) for name, value in sizes.items()}
        return self._random.run(feeds)["uniforms"].numpy()

    def __call__(self, logits: Any, uniform: Array) -> Array:
        """The next word (B) of each text."""
        return self._choosing.run({"logits": logits, "uniform": uniform, **self._scalars})["token"].numpy()


class CachedDecoder:
    """A decoder's graph, its cache, and the words so far."""

    def __init__(self, file: Path, settings: tuple[str, int | None], first: Array) -> None:
        self._session = BoundSession(file, *settings)
        self.sequences = self.new = first
        self.fixed: dict[str, Any] = {}
        self._past = {name: self._empty(name, len(first)) for name in self._session.inputs if _is_own_cache(name)}

    def _empty(self, name: str, batch: int) -> Array:
        _, heads, _, head_dim = self._session.shapes[name]
        return np.zeros((batch, heads, 0, head_dim), self._session.dtypes[name])

    def more(self) -> dict[str, Any]:
        """Inputs beside the new words and the cache."""
        return self.fixed

    def score(self) -> Any:
        """Scores of the next word; the new words are in the cache then."""
        results = self._session.run({"input_ids": self.new, **self.more(), **self._past})
        self._past = {name: results[name.replace(PAST, PRESENT, 1)] for name in self._past}
        return results["logits"]

    def append(self, words: Array) -> None:
        """Take words (B) as the new ones."""
        self.new = words[:, None]
        self.sequences = np.concatenate((self.sequences, self.new), axis=1)


def _is_own_cache(name: str) -> bool:
    return name.startswith(PAST) and ".encoder." not in name


class _GoneOn(CachedDecoder):
    """A decoder that goes on with the prompt itself."""

    def __init__(
        self, files: Mapping[str, Path], plan: TextGeneration, settings: tuple[str, int | None], prompts: Prompts
    ) -> None:
        super().__init__(files[plan.decoder], settings, prompts.ids)
        self._mask = prompts.mask
        self._positions = np.maximum(np.cumsum(prompts.mask, axis=1) - 1, 0)

    def more(self) -> dict[str, Any]:
        return {"attention_mask": self._mask, "position_ids": self._positions}

    def append(self, words: Array) -> None:
        super().append(words)
        self._mask = np.concatenate((self._mask, np.ones_like(self.new)), axis=1)
        self._positions = self._positions[:, -1:] + 1


class _Asked(CachedDecoder):
    """A decoder that answers what an encoder has read, once."""

    def __init__(
        self, files: Mapping[str, Path], plan: TextGeneration, settings: tuple[str, int | None], prompts: Prompts
    ) -> None:
        first = np.full((len(prompts.ids), 1), plan.start_token_id, np.int64)
        super().__init__(files[plan.decoder], settings, first)
        encoder = BoundSession(files[plan.encoder], *settings)
        kept = [name for name in encoder.outputs if name.startswith(PRESENT)]
        read = encoder.run({"input_ids": prompts.ids, "attention_mask": prompts.mask}, kept)
        self.fixed = {name.replace(PRESENT, PAST, 1): value for name, value in read.items()}
        self.fixed["encoder_attention_mask"] = prompts.mask
