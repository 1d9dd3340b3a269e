"""Fused normalisations: ONNX Runtime passes, and plausible faults fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome

from .contrib_nodes import fails, judge, passes, run

F = np.float32
N = 48

SKIPS = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
KINDS = ("signed", "mean 10", "opposite", "small", "wide")


def data(kind: str, seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    x = rng.standard_normal(shape)
    return {
        "signed": x,
        "mean 10": x + 10,
        "opposite": x,
        "small": 1e-4 * x,
        "wide": x * 10.0 ** rng.uniform(-3, 3, shape),
    }[kind].astype(F)


def skip_inputs(op_type: str, kind: str, *, affine: bool, dtype: Any = F) -> list[Any]:
    x, skip = data(kind, 0, 2, 5, N), data(kind, 1, 2, 5, N)
    if kind == "opposite":  # the sum cancels to a thousandth of its summands
        skip = (-x * F(1.001)).astype(F)
    gamma, beta, bias = 1 + 0.1 * data("signed", 2, N), data("signed", 3, N), data("signed", 4, N)
    rest = [beta if affine else None, bias if affine else None]
    inputs = [x, skip, gamma.astype(F), *(rest if op_type == SKIPS[0] else rest[1:])]
    return [None if x is None else x.astype(dtype) for x in inputs]


@pytest.mark.parametrize("op_type", SKIPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_skip_normalization_by_onnxruntime_passes(op_type: str, kind: str, affine: bool, dtype: Any) -> None:
    inputs = skip_inputs(op_type, kind, affine=affine, dtype=dtype)
    passes(op_type, inputs)
    passes(op_type, inputs, outputs=4, epsilon=1e-5)


@pytest.mark.parametrize("op_type", SKIPS)
@pytest.mark.parametrize("shape", [(5, N), (1, 5, N)])
def test_skip_normalization_with_broadcast_skip_passes(op_type: str, shape: tuple[int, ...]) -> None:
    passes(op_type, [data("signed", 0, 2, 5, N), data("signed", 1, *shape), data("signed", 2, N)], outputs=4)


@pytest.mark.parametrize("op_type", SKIPS)
def test_skip_normalization_of_rows_passes(op_type: str) -> None:
    passes(op_type, [data("signed", 0, 5, N), data("signed", 1, 5, N), data("signed", 2, N)])


@pytest.mark.parametrize("op_type", SKIPS)
def test_skip_normalization_with_bias_twice_fails(op_type: str) -> None:
    inputs = skip_inputs(op_type, "signed", affine=True)
    fails(op_type, inputs, run(op_type, [*inputs[:-1], 2 * inputs[-1]]))


@pytest.mark.parametrize("op_type", SKIPS)
def test_skip_normalization_with_another_epsilon_fails(op_type: str) -> None:
    inputs = skip_inputs(op_type, "signed", affine=True)
    fails(op_type, inputs, run(op_type, inputs, epsilon=1e-3), epsilon=1e-5)


def test_skip_normalization_with_sum_stored_before_bias_fails() -> None:
    inputs = skip_inputs(SKIPS[0], "signed", affine=True)
    outputs = run(SKIPS[0], inputs, outputs=4)
    outputs[3] = inputs[0] + inputs[1]
    fails(SKIPS[0], inputs, outputs)


def test_skip_normalization_with_a_biased_deviation_fails() -> None:
    inputs = skip_inputs(SKIPS[0], "signed", affine=False)
    total = inputs[0].astype(np.float64) + inputs[1]
    wrong = (total - total.mean(-1, keepdims=True)) / total.std(-1, ddof=1, keepdims=True) * inputs[2]
    fails(SKIPS[0], inputs, [wrong.astype(F)])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "opposite"])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_simplified_layer_normalization_by_onnxruntime_passes(kind: str, axis: int, dtype: Any) -> None:
    x = data(kind, 0, 2, 5, N)
    weight = 1 + 0.1 * data("signed", 1, *x.shape[axis:])
    inputs = [x.astype(dtype), weight.astype(dtype)]
    outputs = 1 if dtype == np.float64 else 2  # the schema's second output is float32, less than the float64 reference
    passes("SimplifiedLayerNormalization", inputs, domain="", axis=axis, outputs=outputs)


def test_simplified_layer_normalization_of_mixed_types_has_the_type_of_its_scale() -> None:
    inputs = [data("signed", 0, 2, 5, N), data("signed", 1, N).astype(np.float16)]
    y = passes("SimplifiedLayerNormalization", inputs, domain="")[0]
    assert y.dtype == np.float16
    fails("SimplifiedLayerNormalization", inputs, [y.astype(F)], domain="")


def test_simplified_layer_normalization_with_epsilon_outside_the_root_fails() -> None:
    inputs = [data("signed", 0, 2, 5, N), data("signed", 1, N)]
    x = inputs[0].astype(np.float64)
    wrong = x / (np.sqrt((x**2).mean(-1, keepdims=True)) + 1e-3) * inputs[1]
    fails("SimplifiedLayerNormalization", inputs, [wrong.astype(F)], domain="", epsilon=1e-3)


def embed_inputs(*, segments: bool = True, mask: Any = None, positions: Any = None) -> list[Any]:
    rng = np.random.default_rng(5)
    ids, kinds = (rng.integers(0, most, (2, 7)).astype(np.int32) for most in (30, 2))
    tables = [data("signed", seed, rows, N) for seed, rows in ((0, 30), (1, 9), (2, 2))]
    head = [ids, kinds, *tables] if segments else [ids, None, *tables[:2], None]
    return [*head, 1 + data("signed", 3, N) / 10, data("signed", 4, N), mask, positions]


PADDED = np.array([[1] * 4 + [0] * 3, [1] * 7], np.int32)
POSITIONS = np.array([[2, 3, 4, 5, 6, 7, 8]], np.int32)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [None, PADDED], ids=["no mask", "mask"])
@pytest.mark.parametrize("positions", [None, POSITIONS, POSITIONS[:, ::-1].repeat(2, 0)], ids=["0…", "one", "two"])
def test_embed_layer_normalization_by_onnxruntime_passes(segments: bool, mask: Any, positions: Any) -> None:
    inputs = embed_inputs(segments=segments, mask=mask, positions=positions)
    passes("EmbedLayerNormalization", inputs, outputs=3, epsilon=1e-5)


def test_embed_layer_normalization_without_positions_fails() -> None:
    inputs = embed_inputs(positions=POSITIONS)
    fails("EmbedLayerNormalization", inputs, run("EmbedLayerNormalization", [*inputs[:8], None], outputs=2))


def test_embed_layer_normalization_with_another_mask_index_fails() -> None:
    inputs = embed_inputs(mask=PADDED)
    outputs = run("EmbedLayerNormalization", inputs, outputs=2)
    fails("EmbedLayerNormalization", inputs, [outputs[0], outputs[1] + np.int32(1)])


def test_embed_layer_normalization_with_a_hole_in_the_mask_leaves_its_index_open() -> None:
    inputs = embed_inputs(mask=np.array([[1, 0, 1, 1, 0, 0, 0], [1] * 7], np.int32))
    outputs = run("EmbedLayerNormalization", inputs, outputs=2)
    for first in (1, 3):  # the position of the first 0, the number of words
        outputs[1][0] = first
        assert judge("EmbedLayerNormalization", inputs, outputs).outcome is Outcome.PASSED
    fails("EmbedLayerNormalization", inputs, [outputs[0], outputs[1] - np.array([0, 1], np.int32)])


def test_embed_layer_normalization_with_other_numbers_in_the_mask_leaves_their_index_open() -> None:
    inputs = embed_inputs(mask=np.array([[2, 1, 1, 0, 0, 0, 0], [1] * 7], np.int32))
    outputs = passes("EmbedLayerNormalization", inputs, outputs=2)
    fails("EmbedLayerNormalization", inputs, [outputs[0], outputs[1] - np.array([0, 1], np.int32)])
