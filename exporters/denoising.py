"""One step of DDIM with classifier-free guidance, as ONNX operators.

Both forms of the pipeline use these: the one-file graph holds them in its loop, and the loop driven from Python runs
them as a model of its own. So both make the same picture.

Papers: Song et al., https://arxiv.org/abs/2010.02502, equation 12 with σ = 0; Ho, Salimans,
https://arxiv.org/abs/2207.12598, equation 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..architectures._schedule import NoiseSchedule
from .sampling import IR_VERSION, parse_nodes, port

SIGNAL = "signal"
"""The initializer with ᾱ of every step, float32 whatever the type of the latents."""

GUIDED_STEP = """
    unconditional, conditional = Split <axis = 0, num_outputs = 2> (estimate)
    guidance = CastLike (guidance_scale, estimate)
    difference = Sub (conditional, unconditional)
    pull = Mul (difference, guidance)
    noise = Add (unconditional, pull)
    signal_now = Gather (signal, step)
    signal_before = Gather (signal, step_before)
    all = Constant <value_float = 1.0> ()
    rest_now = Sub (all, signal_now)
    rest_before = Sub (all, signal_before)
    root_now = Sqrt (signal_now)
    root_before = Sqrt (signal_before)
    noise_root_now = Sqrt (rest_now)
    noise_root_before = Sqrt (rest_before)
    clean_now = CastLike (root_now, noisy_latent)
    clean_before = CastLike (root_before, noisy_latent)
    noisy_now = CastLike (noise_root_now, noisy_latent)
    noisy_before = CastLike (noise_root_before, noisy_latent)
    noise_in = Mul (noisy_now, noise)
    less = Sub (noisy_latent, noise_in)
    clean = Div (less, clean_now)
    clean_part = Mul (clean_before, clean)
    noise_part = Mul (noisy_before, noise)
    next_latent = Add (clean_part, noise_part)
"""


def schedule_of(stated: Mapping[str, Any]) -> NoiseSchedule:
    """The schedule of a `PictureGeneration`, or of a manifest."""
    return NoiseSchedule(**stated)


def signal_tensor(schedule: NoiseSchedule) -> TensorProto:
    """ᾱ of every step, as an initializer."""
    return numpy_helper.from_array(schedule.signal().astype(np.float32), SIGNAL)


def guided_step_nodes() -> list[onnx.NodeProto]:
    """From `noisy_latent`, `estimate` (2 B, …), `step`, `step_before`, `guidance_scale`, `signal` to `next_latent`."""
    return parse_nodes(GUIDED_STEP, "denoise")


def guided_step_model(schedule: NoiseSchedule, elem_type: int, opset: int) -> onnx.ModelProto:
    """A model of one step: `next_latent`, and `both`, twice the same for the next estimate.

    Args:
        schedule: of the noise.
        elem_type: of the latents.
        opset: of the U-Net's graph.
    """
    picture, scalar = ("batch", "channels", "height", "width"), ()
    inputs = [port("noisy_latent", elem_type, picture), port("estimate", elem_type, ("both", *picture[1:]))]
    inputs += [port(name, TensorProto.INT64, scalar) for name in ("step", "step_before")]
    inputs += [port("guidance_scale", TensorProto.FLOAT, scalar)]
    outputs = [port("next_latent", elem_type, picture), port("both", elem_type, ("both", *picture[1:]))]
    nodes = [*guided_step_nodes(), *parse_nodes("both = Concat <axis = 0> (next_latent, next_latent)", "double")]
    graph = helper.make_graph(nodes, "denoise", inputs, outputs, [signal_tensor(schedule)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
