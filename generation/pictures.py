"""Step after step of noise subtracted until a picture is left: diffusion, driven from Python.

Per step, the U-Net's graph estimates the noise; its estimate stays in the runtime's memory and goes to the graph that
takes the step (`exporters.denoising`, or the bundle's own `backward_step`), whose result is bound as the next sample.
The one-file graph does the same inside, with the same operators, and makes the same picture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..architectures._schedule import NoiseSchedule
from ..architectures.specification import PictureGeneration
from ..errors import InvalidArgumentError, InvalidModelError
from ..exporters.denoising import guided_step_model, schedule_of
from ..exporters.looping import GENERATE
from .request import Generated, Request, Watcher
from .sessions import BoundSession
from .texts import find_words, prompt_ids
from .tokenizing import Words

Array = np.ndarray[Any, np.dtype[Any]]

MODEL = "model.onnx"


@dataclass(frozen=True)
class Wanted:
    """What one run makes: so many pictures of `height` × `width` latent pixels in `steps` steps."""

    count: int
    height: int
    width: int
    steps: int
    guidance: float
    seed: int


def generate_picture(bundle: Path, manifest: Mapping[str, Any], request: Request, watcher: Watcher) -> Generated:
    """Draw what a prompt says, or, without prompts, what the network has learnt to draw.

    Raises:
        InvalidArgumentError: no prompt, no tokenizer for it, or options out of range.
        InvalidModelError: the bundle cannot generate, or has no one-file graph that was asked for.
    """
    plan, model = read_plan(manifest)
    schedule = schedule_of(plan.schedule)
    wanted = _wanted(plan, schedule, request)
    prompted = plan.sampler == "ddim"
    if not prompted:
        refuse_prompts(manifest, request)
    prompts = read_prompts(bundle, plan, request) if prompted else {}
    if request.one_file and not model:
        raise InvalidModelError(f"{bundle} has no {GENERATE}; export it with --loop")
    begin = time.perf_counter()
    watcher.begin(wanted.steps)
    if request.one_file:
        image = _one_file(BoundSession(bundle / model, request.provider, request.threads), plan, wanted, prompts)
        for _ in range(wanted.steps):
            watcher.step()
    else:
        loop = _Denoising(bundle, manifest, request, watcher)
        image = loop.prompted(plan, schedule, wanted, prompts) if prompted else loop.unprompted(plan, schedule, wanted)
    return Generated(pictures=as_pictures(image), steps=wanted.steps, duration_s=time.perf_counter() - begin)


def read_plan(manifest: Mapping[str, Any]) -> tuple[PictureGeneration, str]:
    """How a bundle's pictures are made, and the file of its one-file graph ("" if it has none).

    Raises:
        InvalidModelError: the bundle does not say.
    """
    stated = manifest.get("generation")
    if stated is None:
        raise InvalidModelError(f"{manifest.get('name')}: its manifest does not say how pictures are made")
    fields = {name: stated[name] for name in PictureGeneration.__dataclass_fields__ if name in stated}
    return PictureGeneration(**fields), stated.get("model", "")


def _wanted(plan: PictureGeneration, schedule: NoiseSchedule, request: Request) -> Wanted:
    sides = []
    for name, pixels in (("--height", request.height), ("--width", request.width)):
        if pixels is not None and pixels % plan.factor:
            raise InvalidArgumentError(f"{name} {pixels}; allowed are multiples of {plan.factor}")
        sides.append(plan.size if pixels is None else pixels // plan.factor)
    steps = plan.num_steps if request.steps is None else request.steps
    schedule.stride(steps)
    guidance = plan.guidance_scale if request.guidance is None else request.guidance
    if not math.isfinite(guidance):
        raise InvalidArgumentError(f"--guidance {guidance}; allowed are finite numbers")
    height, width = sides
    return Wanted(request.count, height, width, steps, guidance, request.seed)


def refuse_prompts(manifest: Mapping[str, Any], request: Request) -> None:
    """Refuse what only a network with prompts understands.

    Raises:
        InvalidArgumentError: names the option.
    """
    for name in ("prompt", "tokens", "negative_prompt", "guidance", "tokenizer"):
        if getattr(request, name) is not None:
            raise InvalidArgumentError(f"--{name.replace('_', '-')} means nothing to {manifest.get('name')}")


def read_prompts(bundle: Path, plan: PictureGeneration, request: Request) -> dict[str, Array]:
    """The prompt and what to stay away from, as the graphs take them: (count, positions) int64 each.

    Raises:
        InvalidArgumentError: no prompt, or no tokenizer for a text.
    """
    words = find_words(bundle, request)
    ids = prompt_ids(request, words, plan.vocab_size)
    rows = {"input_ids": ids, "negative_input_ids": _negative(words, request)}
    frame = None if words is None else words.frame
    return {name: np.tile(framed(row, plan, frame), (request.count, 1)) for name, row in rows.items()}


def _negative(words: Words | None, request: Request) -> list[int]:
    if request.negative_prompt is None:
        return []
    if words is None:
        raise InvalidArgumentError("--negative-prompt needs a tokenizer: give --tokenizer")
    return words.encode(request.negative_prompt)


def framed(ids: Sequence[int], plan: PictureGeneration, frame: tuple[int, int, int] | None = None) -> Array:
    """A prompt between start and end, cut or padded to the length that the text encoder was trained with.

    Args:
        ids: with or without the words around it.
        plan: of the bundle.
        frame: start, end and padding of the tokenizer that gave the ids; None takes the plan's.
    """
    start, end, padding = frame or (plan.start_token_id, plan.end_token_id, plan.pad_token_id)
    inner = [token for token in ids if token not in (start, end)]
    row = [start, *inner[: plan.num_positions - 2], end]
    return np.asarray(row + [padding] * (plan.num_positions - len(row)), np.int64)


class Noise:
    """Normal numbers per picture, the same whatever the number of pictures and however many are asked for at once."""

    def __init__(self, plan: PictureGeneration, wanted: Wanted, dtype: np.dtype[Any]) -> None:
        self._generators = [np.random.default_rng([wanted.seed, index]) for index in range(wanted.count)]
        self._shape = (plan.channels, wanted.height, wanted.width)
        self._dtype = dtype

    def draw(self) -> Array:
        """The next (B, C, h, w)."""
        rows = [generator.standard_normal(self._shape, np.float32) for generator in self._generators]
        return np.stack(rows).astype(self._dtype)


def _one_file(session: BoundSession, plan: PictureGeneration, wanted: Wanted, prompts: Mapping[str, Array]) -> Array:
    """The picture of the one-file graph, (B, 3, H, W)."""
    if plan.sampler == "ddim":
        noise = Noise(plan, wanted, session.dtypes["latent"])
        steps, guidance = np.asarray(wanted.steps, np.int64), np.asarray(wanted.guidance, np.float32)
        feeds = {**prompts, "latent": noise.draw(), "num_steps": steps, "guidance_scale": guidance}
    else:
        noise = Noise(plan, wanted, session.dtypes["sample"])
        feeds = {"sample": noise.draw(), "noise": np.stack([noise.draw() for _ in range(wanted.steps)])}
    return session.run(feeds)["image"].numpy()


class _Denoising:
    """The loop over the graphs of a bundle."""

    def __init__(self, bundle: Path, manifest: Mapping[str, Any], request: Request, watcher: Watcher) -> None:
        self.bundle, self.opset, self.watcher = bundle, int(manifest["opset"]), watcher
        self.settings = (request.provider, request.threads)

    def session(self, graph: str) -> BoundSession:
        """One of the bundle's graphs."""
        return BoundSession(self.bundle / graph / MODEL, *self.settings)

    def prompted(
        self, plan: PictureGeneration, schedule: NoiseSchedule, wanted: Wanted, prompts: Mapping[str, Array]
    ) -> Array:
        """DDIM with guidance, then the decoder: (B, 3, H, W) in [0, 1]."""
        both_prompts = np.concatenate([prompts["negative_input_ids"], prompts["input_ids"]])
        words = self.session("text_encoder").run({"input_ids": both_prompts})["last_hidden_state"]
        unet = self.session("unet")
        model = guided_step_model(schedule, _elem_type(unet.dtypes["sample"]), self.opset)
        step = BoundSession(model.SerializeToString(), *self.settings)
        guidance = np.asarray(wanted.guidance, np.float32)
        drawn = Noise(plan, wanted, unet.dtypes["sample"]).draw()
        latent, both = step.value(drawn), unet.value(np.concatenate([drawn, drawn]))
        for now, before in schedule.timesteps(wanted.steps):
            feeds = {"sample": both, "timestep": np.full(2 * wanted.count, now), "encoder_hidden_states": words}
            estimate = unet.run(feeds)["out_sample"]
            places = {"step": np.asarray(now), "step_before": np.asarray(max(before, 0)), "guidance_scale": guidance}
            taken = step.run({"noisy_latent": latent, "estimate": estimate, **places})
            latent, both = taken["next_latent"], taken["both"]
            self.watcher.step()
        del unet, step
        denoised = latent.numpy()
        scaled = denoised / denoised.dtype.type(plan.latent_scale)
        return shown(self.session("vae_decoder").run({"latent_sample": scaled})["sample"].numpy())

    def unprompted(self, plan: PictureGeneration, schedule: NoiseSchedule, wanted: Wanted) -> Array:
        """DDPM: (B, 3, H, W) in [0, 1]."""
        unet, step = self.session("unet"), self.session("backward_step")
        noise = Noise(plan, wanted, unet.dtypes["sample"])
        sample = unet.value(noise.draw())
        stride = np.full(wanted.count, schedule.stride(wanted.steps))
        for now, _ in schedule.timesteps(wanted.steps):
            timestep = np.full(wanted.count, now)
            estimate = unet.run({"sample": sample, "timestep": timestep})["out_sample"]
            feeds = {"sample": sample, "estimated_noise": estimate, "noise": noise.draw()}
            sample = step.run({**feeds, "timestep": timestep, "stride": stride})["out_sample"]
            self.watcher.step()
        return shown(sample.numpy())


def _elem_type(dtype: np.dtype[Any]) -> int:
    from onnx import helper  # noqa: PLC0415 - heavy

    return helper.np_dtype_to_tensor_dtype(dtype)


def shown(decoded: Array) -> Array:
    """From [−1, 1] to [0, 1], what is beyond cut off; in the type of the picture, as the one-file graph does it."""
    half = decoded.dtype.type(0.5)
    return np.clip(decoded * half + half, decoded.dtype.type(0), decoded.dtype.type(1))


def as_pictures(image: Array) -> tuple[Array, ...]:
    """Pictures (H, W, 3) uint8 of one image (B, 3, H, W) in [0, 1]."""
    pixels = np.rint(image.astype(np.float32) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return tuple(pixels)
