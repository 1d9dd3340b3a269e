"""One valid call of every operator of ONNX Runtime's own domains that its optimiser makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .contrib_nodes import MICROSOFT, NCHWC
from .element_types import retyped
from .samples import Sample, normal, sample

F = np.float32
INT = np.int32


def number(value: float) -> np.ndarray:
    return np.array(value, F)


def zero(value: int) -> np.ndarray:
    return np.array(value, np.uint8)


def integers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 64, shape).astype(np.uint8)


HEADS: Mapping[str, Any] = {"num_heads": 2}
MATRICES = (normal(0, 3, 4), normal(1, 4, 5))
IMAGE, FILTERS = normal(2, 1, 4, 6, 6), normal(3, 2, 4, 3, 3)
BLOCKED = normal(4, 1, 16, 6, 6)
WINDOW: Mapping[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
BYTES = (integers(5, 1, 4, 6, 6), number(0.04), zero(30))
BYTES_OUT = (number(0.03), zero(44))
PRODUCT = (integers(6, 3, 8), integers(7, 8, 5))
TOKENS = np.array([[1, 2, 0]], INT)
HIDDEN = (normal(8, 1, 3, 8), normal(9, 1, 3, 8), normal(10, 8))
ANGLES = (np.cos(normal(11, 8, 2)), np.sin(normal(11, 8, 2)))

_PRODUCTS = {
    "FusedConv": sample(IMAGE, FILTERS, normal(12, 2), activation="Relu"),
    "NhwcFusedConv": sample(np.moveaxis(IMAGE, 1, -1).copy(), FILTERS, normal(12, 2), activation="Relu"),
    "FusedGemm": sample(*MATRICES, normal(13, 5), activation="Tanh"),
    "FusedMatMul": sample(*MATRICES, alpha=0.5),
    "TransposeMatMul": sample(MATRICES[0].T.copy(), MATRICES[1], transA=1),
    "MatMulNBits": sample(
        *(normal(14, 3, 32), integers(15, 4, 2, 8), np.abs(normal(16, 4, 2)), integers(17, 4, 1)),
        **{"K": 32, "N": 4, "bits": 4, "block_size": 16},
    ),
    "GatherBlockQuantized": sample(
        *(integers(40, 5, 32), np.array([[1, -5], [4, 9]]), np.abs(normal(41, 5, 2))), bits=8, block_size=16
    ),
    "MatMulIntegerToFloat": sample(*PRODUCT, number(0.02), number(0.013), zero(5), zero(3), normal(18, 5)),
    "DynamicQuantizeMatMul": sample(normal(19, 3, 8), PRODUCT[1], number(0.013), zero(3), normal(18, 5)),
    "QGemm": sample(
        *(PRODUCT[0], number(0.02), zero(5), PRODUCT[1], number(0.013), zero(3)),
        *(np.arange(5, dtype=INT), number(0.5), zero(7)),
    ),
}
_ACTIVATIONS = {
    "Gelu": sample(MATRICES[0]),
    "BiasGelu": sample(*(MATRICES[0], normal(20, 4))),
    "FastGelu": sample(*(MATRICES[0], normal(20, 4))),
    "QuickGelu": sample(MATRICES[0], alpha=1.5),
}
_NORMALIZATIONS = {
    "SkipLayerNormalization": sample(*HIDDEN, normal(21, 8), normal(22, 8), outputs=4),
    "SkipSimplifiedLayerNormalization": sample(*HIDDEN, normal(22, 8), outputs=4),
    "EmbedLayerNormalization": sample(
        *(TOKENS, TOKENS * 0, normal(23, 4, 8), normal(24, 3, 8), normal(25, 2, 8), HIDDEN[2], normal(21, 8)),
        outputs=2,
    ),
}
_ATTENTION = {
    "Attention": sample(normal(26, 1, 3, 5), normal(27, 5, 24), normal(28, 24), np.array([[1, 1, 0]], INT), **HEADS),
    "QAttention": sample(
        *(integers(42, 1, 3, 8), integers(43, 8, 24), normal(28, 24), number(0.02), number(0.013)),
        *(np.array([2], INT), zero(30), zero(31)),
        **HEADS,
        outputs=2,
    ),
    "MultiHeadAttention": sample(
        *(normal(seed, 1, 3, 8) for seed in (29, 30, 31)), None, np.array([[1, 1, 0]], INT), **HEADS, outputs=4
    ),
    "GroupQueryAttention": sample(
        *(normal(32, 1, 3, 16), normal(33, 1, 3, 8), normal(34, 1, 3, 8), None, None),
        *(np.array([2], INT), np.array(3, INT)),
        **{"num_heads": 4, "kv_num_heads": 2, "outputs": 3},
    ),
    "RotaryEmbedding": sample(normal(35, 1, 3, 8), np.arange(3)[None], *ANGLES, num_heads=2),
}
_QUANTIZED = {
    **{name: sample(*BYTES, *BYTES, *BYTES_OUT) for name in ("QLinearAdd", "QLinearMul")},
    "QLinearSigmoid": sample(*BYTES, number(1 / 256), zero(0)),
    "QLinearLeakyRelu": sample(*BYTES, *BYTES_OUT, alpha=0.25),
    "QLinearSoftmax": sample(*BYTES, number(1 / 256), zero(0), axis=1, opset=13),
    "QLinearConcat": sample(*BYTES_OUT, *BYTES, *BYTES, axis=1),
    "QLinearAveragePool": sample(*BYTES, *BYTES_OUT, **WINDOW),
    "QLinearGlobalAveragePool": sample(*BYTES, *BYTES_OUT),
    "NhwcMaxPool": sample(BYTES[0], **WINDOW),
    "QuantizeLinear": sample(IMAGE, number(0.04), zero(30)),
    "DequantizeLinear": sample(*BYTES),
    "QLinearConv": sample(
        *(np.moveaxis(BYTES[0], 1, -1).copy(), *BYTES[1:], integers(39, 3, 4, 2, 2), number(0.02), zero(31)),
        *(number(0.3), zero(100), np.arange(3, dtype=INT)),
        channels_last=1,
    ),
    "QLinearWhere": sample(IMAGE > 0, *BYTES, *BYTES, *BYTES_OUT),
}
_NCHWC = {
    "Conv": sample(BLOCKED, normal(36, 16, 16, 3, 3), normal(37, 16), activation="Relu"),
    "AveragePool": sample(BLOCKED, **WINDOW),
    "MaxPool": sample(BLOCKED, **WINDOW),
    "GlobalAveragePool": sample(BLOCKED),
    "GlobalMaxPool": sample(BLOCKED),
    "ReorderInput": sample(normal(38, 1, 16, 3, 3)),
    "ReorderOutput": sample(BLOCKED, channels=14),
    "Upsample": sample(BLOCKED, scales=[1, 1, 2, 3]),
}

FURTHER: Mapping[str, tuple[Sample, ...]] = {
    "QGemm": (sample(*_PRODUCTS["QGemm"].inputs[:7]),),
    "MatMulNBits": tuple(
        sample(
            *(retyped(x, type_str) if x.dtype == F else x for x in _PRODUCTS["MatMulNBits"].inputs[:3]),
            retyped(normal(17, 4, 2), type_str),
            **_PRODUCTS["MatMulNBits"].attributes,
        )
        for type_str in ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")
    ),
}
"""Calls with other outputs or inputs, of operators that one call does not show in every type."""

CONTRIB: Mapping[tuple[str, str], Sample] = {
    ("", "SimplifiedLayerNormalization"): sample(HIDDEN[0], HIDDEN[2], outputs=2),
    **{
        (MICROSOFT, name): call
        for family in (_PRODUCTS, _ACTIVATIONS, _NORMALIZATIONS, _ATTENTION, _QUANTIZED)
        for name, call in family.items()
    },
    **{(NCHWC, name): call for name, call in _NCHWC.items()},
}
"""(domain, op_type) -> a call."""
