"""Findings that came after the first two tables, whose numbers stay; `build.py` runs each of them."""

from __future__ import annotations

import numpy as np
from record import ORT, Finding, f32, i8, i32, i64, u8

ONE_PAST = f32([[[[0]]]]), f32([[[[5]]]])
TWO_KEYS = f32([[[[0], [0]]]]), f32([[[[1], [30]]]])
LARGE = 2**53 + 1

FINDINGS = (
    Finding(
        "ort-attention-causal-one-query",
        "Attention ignores is_causal where one query follows a cache",
        ORT,
        "Attention",
        24,
        [f32([[[[1]]]]), *TWO_KEYS, None, *ONE_PAST],
        [f32([[[[3]]]]), None, None],
        "query in-block index `i` attends key `j` iff `j <= i + offset`, where `offset` is the count of valid keys preceding "
        "the query block (`past_sequence_length` for an internal `past_key` cache",
        "One key lies in the cache, so that query 0 sees keys 0 and 1, whose values are 5 and 1. All three are averaged: 12.",
        {"is_causal": 1},
        also="Opset 23. With two queries, without a cache, and at opset 25 the mask is right.",
    ),
    Finding(
        "ort-attention-short-mask",
        "Attention refuses a mask that is shorter than the keys",
        ORT,
        "Attention",
        24,
        [f32([[[[1]]]]), f32([[[[0], [0], [0]]]]), f32([[[[1], [3], [9]]]]), np.asarray([[True, True]])],
        [f32([[[[2]]]])],
        "The last dimension can also be shorter than `total_sequence_length` and will be padded to `total_sequence_length` "
        "with negative infinity.",
        "The third key is hidden; (1 + 3) / 2 is left.",
    ),
    Finding(
        "ort-reduce-int64-digits",
        "Reductions of int64 lose the digits beyond 2^53",
        ORT,
        "ReduceSum",
        13,
        [i64([LARGE, 2])],
        [np.asarray(LARGE + 2, np.int64)],
        "Computes the sum of the input tensor's elements along the provided axes. (...) T: tensor(uint32), tensor(uint64), "
        "tensor(int32), tensor(int64), ...",
        "9007199254740993 + 2 is 9007199254740995, which int64 holds. 9007199254740994 is returned: the sum passes through "
        "float64. Version 1.24 is right.",
        {"keepdims": 0},
        precise=0,
        also="ReduceProd, ReduceL1, ReduceSumSquare; ReduceMax and CumSum are right.",
    ),
    Finding(
        "ort-pow-int64-digits",
        "Pow of int64 loses the digits beyond 2^53",
        ORT,
        "Pow",
        15,
        [i64([3, -7]), i64([37, 21])],
        [i64([3**37, -(7**21)])],
        "the function `f(x) = x^exponent`, is applied to the data tensor elementwise",
        "3^37 = 450283905890997363 fits into int64. 450283905890997376 is returned, the nearest float64.",
        precise=0,
    ),
    Finding(
        "onnx-bernoulli-inverted",
        "Bernoulli draws 1 with probability 1 - p",
        ORT,
        "Bernoulli",
        15,
        [f32([0, 1] * 8)],
        [f32([0, 1] * 8)],
        "an output of 1 is produced with probability p and an output of 0 is produced with probability (1-p)",
        "With probability 0 it is never 1 and with probability 1 always. The function body, which ONNX Runtime runs, is "
        "Greater(RandomUniformLike(x), x): the complement is drawn.",
        {"seed": 1.0},
        precise=0,
    ),
    Finding(
        "ort-swish-25",
        "Swish runs at opset 24 and not at opset 25, where it is the same operator",
        ORT,
        "Swish",
        25,
        [f32([1])],
        [f32([0.7310586])],
        "where $Swish(x) = x * sigmoid(alpha * x)$",
        "The operator is of version 24, at opset 25 too. Neither its kernel nor its function body, Mul(X, Sigmoid(Mul(X, alpha))), is "
        "taken: no implementation for Swish(24), it says.",
        also="SwiGLU, whose function body needs Swish.",
    ),
    Finding(
        "ort-convinteger-channel-zero-points",
        "ConvInteger refuses a zero point per output channel",
        ORT,
        "ConvInteger",
        10,
        [u8([[[[3]]]]), u8([[[[2]]], [[[2]]]]), None, u8([1, 2])],
        [np.asarray([[[[3]], [[0]]]], np.int32)],
        "It could be a scalar or a 1-D tensor, which means a per-tensor/layer or per output channel quantization.",
        "3 · (2 - 1) and 3 · (2 - 2).",
        precise=0,
    ),
    Finding(
        "ort-rnn-layout",
        "Recurrent operators refuse layout = 1",
        ORT,
        "RNN",
        22,
        [f32([[[1], [1]]]), f32([[[1]]]), f32([[[0]]])],
        [f32([[[[0.7615942]], [[0.7615942]]]]), f32([[[0.7615942]]])],
        "If 1, the following shapes are expected: X.shape = [batch_size, seq_length, input_size], "
        "Y.shape = [batch_size, seq_length, num_directions, hidden_size]",
        "One sequence of two steps, each tanh(1).",
        {"hidden_size": 1, "layout": 1},
        also="GRU and LSTM.",
    ),
    Finding(
        "ort-resize-crop-size",
        "Resize with tf_crop_and_resize leaves the region out of the output's size",
        ORT,
        "Resize",
        19,
        [f32([[0, 1, 2, 3]]), f32([0, 0.25, 1, 0.75]), f32([1, 2])],
        [f32([[0.75, 1.25, 1.75, 2.25]])],
        "output_dimension = floor(input_dimension * (roi_end - roi_start) * scale)",
        "floor(4 · 0.5 · 2) = 4 pixels, from 0.25 · 3 to 0.75 · 3. Eight are returned.",
        {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"},
    ),
    Finding(
        "ort-reducemax-empty-bool",
        "ReduceMax over no element is refused for bool",
        ORT,
        "ReduceMax",
        20,
        [np.zeros((0, 2), np.bool_), i64([0])],
        [np.asarray([False, False])],
        "Reduction over an empty set of values yields minus infinity (if supported by the datatype) or the minimum value of "
        "the data type otherwise. If the input data type is Boolean, the comparison should consider `False < True`.",
        "The minimum of bool is False. Other types return theirs.",
        {"keepdims": 0},
        precise=0,
        also="ReduceMin, which should give True.",
    ),
    Finding(
        "ort-matmulinteger-saturates",
        "Products of uint8 and int8 saturate at 16 bits on x86 processors without VNNI",
        ORT,
        "MatMulInteger",
        10,
        [u8([[255, 255]]), i8([[127], [127]])],
        [i32([[64770]])],
        "The production MUST never overflow. The accumulation may overflow if and only if in 32 bits.",
        "2 · 255 · 127 is 64770. Two neighbouring products are added by vpmaddubsw, whose sums end at 32767.",
        precise=0,
        also="QLinearMatMul and QLinearConv. ONNX Runtime's documentation of quantization knows it and advises weights of "
        "seven bits. Products of uint8 and uint8 or of int8 and int8 are right, and so are all on a processor with VNNI.",
        without_vnni=True,
    ),
)
