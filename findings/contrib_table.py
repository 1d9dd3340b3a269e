"""Findings in operators of ONNX Runtime's own domain, com.microsoft, by the text of their schemas."""

from __future__ import annotations

import numpy as np
from record import ORT, Finding, f32, u8

DOMAIN = "com.microsoft"
FIVES = np.full((1, 1, 16), 0x55, np.uint8)
"""32 weights of 4 bits, all 5, two in a byte."""

FINDINGS = (
    Finding(
        "ort-matmulnbits-zero-points-fed",
        "MatMulNBits in int8 ignores zero points that are no constant",
        ORT,
        "MatMulNBits",
        17,
        [f32(np.ones((1, 32))), FIVES, f32([1]), u8([[3]])],
        [f32([[64]])],
        "dequantized_weight = (quantized_weight - zero_point) * scale (...) 4 means input A can be quantized with the same "
        "block_size to int8 internally",
        "32 products of 1 and (5 - 3) · 1 are 64. -96 is returned, as for the zero point 8, which holds where none is given. "
        "With the zero point as an initializer it is 64.",
        {"K": 32, "N": 1, "bits": 4, "block_size": 32, "accuracy_level": 4},
        constants=(1, 2),
        domain=DOMAIN,
        also="2 and 8 bits.",
    ),
    Finding(
        "ort-matmulnbits-scales-fed",
        "MatMulNBits in int8 ignores scales that are no constant",
        ORT,
        "MatMulNBits",
        17,
        [f32(np.ones((1, 32))), FIVES, f32([1]), u8([[3]])],
        [f32([[64]])],
        "dequantized_weight = (quantized_weight - zero_point) * scale (...) 4 means input A can be quantized with the same "
        "block_size to int8 internally",
        "32 products of 1 and (5 - 3) · 1 are 64. 0 is returned: weights that were packed without scales are multiplied.",
        {"K": 32, "N": 1, "bits": 4, "block_size": 32, "accuracy_level": 4},
        constants=(1, 3),
        domain=DOMAIN,
        also="2 and 8 bits.",
    ),
    Finding(
        "ort-qlinearsigmoid-without-zero-point",
        "QLinearSigmoid without the last, optional zero point aborts the process",
        ORT,
        "QLinearSigmoid",
        17,
        [u8([[128]]), f32(0.1), u8(128), f32(1 / 128)],
        [u8([[64]])],
        "Output Y's zero point. Default value is 0 if it's not specified.",
        "The sigmoid of 0 is 0.5, which is 64 steps of 1 / 128. The session reads an input that the node does not have.",
        constants=(1, 2, 3),
        precise=0,
        domain=DOMAIN,
        also="QLinearLeakyRelu.",
    ),
    Finding(
        "ort-qlinearadd-without-zero-points",
        "QLinearAdd refuses to do without its optional zero points",
        ORT,
        "QLinearAdd",
        17,
        [u8([[1, 2]]), f32(1), None, u8([[3, 4]]), f32(1), None, f32(1)],
        [u8([[4, 6]])],
        "Input A zero point. Default value is 0 if it's not specified.",
        "With scales of 1 and zero points of 0 the bytes are added. Input data type does not match the expected data type: "
        "the inference of types takes an absent zero point for one of another type.",
        constants=(1, 4, 6),
        precise=0,
        domain=DOMAIN,
        also="QLinearMul.",
    ),
)
