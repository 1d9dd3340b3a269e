"""The findings: calls that the spec's text allows, what it asks for, and what a released runtime does instead.

Expected values are derived by hand from the text that is quoted; every number is small enough to be checked in the head.
`build.py` writes the folders and docs/findings.md from this table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ORT, REFERENCE = "onnxruntime", "onnx.reference"


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        slug: name of its folder, behind the number.
        title: one line.
        runtime: ORT or REFERENCE.
        op_type: the operator.
        opset: version of the model.
        inputs: stored arrays, None where absent.
        expected: by the text, in the right dtypes.
        text: what the spec says, quoted from the operator's schema.
        why: how `expected` follows, and what goes wrong.
        attributes: of the node.
        constants: positions of inputs that are initializers.
        unsized: positions of inputs whose sizes the model leaves open.
        before: feeds of a run that comes first, for what depends on an earlier one.
        precise: relative tolerance; 0 compares exactly.
        also: where else the same was seen.
    """

    slug: str
    title: str
    runtime: str
    op_type: str
    opset: int
    inputs: Sequence[Any]
    expected: Sequence[Any]
    text: str
    why: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Sequence[int] = ()
    unsized: Sequence[int] = ()
    before: Sequence[Any] | None = None
    precise: float = 1e-5
    also: str = ""


def f32(values: Any) -> Any:
    return np.asarray(values, np.float32)


def f64(values: Any) -> Any:
    return np.asarray(values, np.float64)


def i64(values: Any) -> Any:
    return np.asarray(values, np.int64)


def u8(values: Any) -> Any:
    return np.asarray(values, np.uint8)


def text(values: Any) -> Any:
    return np.asarray(values, object)


INT_MAX = 2147483647
ROOTS = f32([[[math.sqrt(n) for n in (10, 20, 35, 20, 34)]]])
RAMP = f32([[[1, 2, 3, 4, 5]]])
QUERY, KEYS = f32(np.ones((1, 1, 2, 2))), f32(np.ones((1, 1, 3, 2)))
SCORE = math.sqrt(2)

SAME = "SAME_UPPER or SAME_LOWER mean pad the input so that `output_shape[i] = ceil(input_shape[i] / strides[i])`"
PARAMETERS = "type parameters of the schema"

FINDINGS = (
    Finding(
        "ort-col2im-dilated-channels",
        "Col2Im over one spatial axis puts the columns of all channels but the first in the wrong place",
        ORT, "Col2Im", 18,
        [f32([[[1], [2], [3], [4]]]), i64([3]), i64([2])],
        [f32([[[1, 0, 2], [3, 0, 4]]])],
        "The operator rearranges column blocks back into a multidimensional image.",
        "With a block of 2 and dilation 2 the single block covers pixels 0 and 2 of each of the two channels. The second "
        "channel gets its last value at pixel 0 and nothing at pixel 2.",
        {"dilations": [2]}, precise=0,
        also="Three spatial axes, with and without dilations; two spatial axes are right.",
    ),
    Finding(
        "ort-matmulinteger-empty-sum",
        "MatMulInteger of matrices without inner elements returns what the buffer held before",
        ORT, "MatMulInteger", 10,
        [np.zeros((2, 0), np.int8), np.zeros((0, 2), np.int8)],
        [np.zeros((2, 2), np.int32)],
        "Matrix product that behaves like [numpy.matmul]",
        "Sums over nothing are 0 (numpy.matmul: zeros). The output is not written: a run with other shapes that comes "
        "first leaves its values there.",
        unsized=(0, 1), precise=0,
        before=[np.full((2, 3), 7, np.int8), np.full((3, 2), 5, np.int8)],
    ),
    Finding(
        "ort-shrink-double-overflows",
        "Shrink of float64 computes in float32: finite values become infinite",
        ORT, "Shrink", 9,
        [f64([1e300, -1e300])],
        [f64([1e300, -1e300])],
        "If x < -lambd, y = x + bias; If x > lambd, y = x - bias; Otherwise, y = 0.",
        "With bias 0 the values pass unchanged. They come back as infinities, and others with eight right digits.",
        {"lambd": 0.5}, precise=1e-12,
    ),
    Finding(
        "ort-slice-int-max-backward",
        "Slice backward with end 2147483647 goes on to the beginning of the axis",
        ORT, "Slice", 13,
        [f32([1, 2, 3]), i64([0]), i64([INT_MAX]), i64([0]), i64([-1])],
        [f32([])],
        "for negative stepping it is clamped to `[-1, dims[axes[i]]-1]` (...) it is recommended to pass in `INT_MAX` when "
        "slicing forward and 'INT_MIN' when slicing backward",
        "The end is clamped to 2; from 0 backward to 2 there is nothing, as in x[0:2147483647:-1]. One element is "
        "returned: the largest int32 is taken for the beginning of the axis, in an int64 tensor too.",
        precise=0,
    ),
    Finding(
        "ort-pad-scalar",
        "Pad refuses a tensor of rank 0",
        ORT, "Pad", 13,
        [f32(5), i64([])],
        [f32(5)],
        "`pads` should be a 1D tensor of shape [2 * input_rank].",
        "Rank 0 takes no pads, and nothing is padded. The text excludes no rank.",
        precise=0,
    ),
    Finding(
        "onnx-pad-int32-axes",
        "Shape inference of Pad refuses constant int32 axes; ONNX Runtime cannot load the model",
        ORT, "Pad", 18,
        [f32([1, 2]), i64([1, 1]), None, np.asarray([0], np.int32)],
        [f32([0, 1, 2, 0])],
        "Tind: tensor(int32), tensor(int64): Constrain indices to integer types",
        "axes is of type Tind. ParseData type mismatch for tensor: the inference of ONNX reads int64 only.",
        constants=(1, 3), precise=0,
    ),
    Finding(
        "ort-attention-mask-broadcast-queries",
        "Attention refuses a mask that is one row for all queries",
        ORT, "Attention", 23,
        [QUERY, KEYS, KEYS, np.asarray([[True, True, False]])],
        [f32(np.ones((1, 1, 2, 2)))],
        "Shape must be broadcastable to 4D tensor with shape `(batch_size, q_num_heads, q_sequence_length, "
        "total_sequence_length)`",
        "(1, 3) broadcasts to (1, 1, 2, 3). The same holds for (1, 1, 1, 3) and for packed inputs of rank 3.",
    ),
    Finding(
        "ort-attention-masked-scores-finite",
        "Attention returns the lowest finite number for masked scores",
        ORT, "Attention", 24,
        [QUERY, KEYS, KEYS, np.asarray([[True, True, False]] * 2)],
        [f32(np.ones((1, 1, 2, 2))), None, None, f32([[[[SCORE, SCORE, -np.inf]] * 2]])],
        "a boolean `attn_mask` intersects the allowed set (its disallowed positions contribute `-inf` to the bias) (...) "
        "If set to `2`, qk_matmul_output includes the attention mask and softcap (if provided)",
        "A score plus -inf is -inf; -3.4028235e38 is returned.",
        {"qk_matmul_output_mode": 2},
    ),
    Finding(
        "ort-pooling-same-dilated",
        "MaxPool with SAME padding and dilations returns fewer elements than SAME promises",
        ORT, "MaxPool", 22,
        [RAMP],
        [f32([[[3, 4, 5, 4, 5]]])],
        SAME + " (...) pad_shape[i] = (output_spatial_shape[i] - 1) * strides_spatial_shape[i] + "
        "((kernel_spatial_shape[i] - 1) * dilations[i] + 1) - input_spatial_shape[i]",
        "Output 5, pads 4 + 5 - 5 = 4, two on each side. The padding is computed as if the dilation were 1, and three "
        "elements come back.",
        {"auto_pad": "SAME_UPPER", "dilations": [2], "kernel_shape": [3]}, precise=0,
        also="AveragePool and LpPool.",
    ),
    Finding(
        "ort-conv-same-dilated",
        "Conv refuses SAME padding together with dilations",
        ORT, "Conv", 22,
        [RAMP, f32([[[1, 1, 1]]])],
        [f32([[[4, 6, 9, 6, 8]]])],
        SAME,
        "Two zeros on each side give as many outputs as inputs; the text does not exclude dilations.",
        {"auto_pad": "SAME_UPPER", "dilations": [2]},
        also="QLinearConv, ConvInteger.",
    ),
    Finding(
        "ort-lrn-even-size",
        "LRN refuses an even size",
        ORT, "LRN", 13,
        [f32([[[[1]], [[2]]]])],
        [f32([[[[1 / 3.5]], [[2 / 3.0]]]])],
        "max(0, c - floor((size - 1) / 2)) <= i <= min(C - 1, c + ceil((size - 1) / 2))",
        "floor and ceil are there for even sizes: with 2 a region is the channel and the next one. Channel 0: "
        "1 / (1 + 5 / 2), channel 1: 2 / (1 + 4 / 2).",
        {"size": 2, "alpha": 1.0, "beta": 1.0, "bias": 1.0},
    ),
    Finding(
        "ort-lrn-rank-3",
        "LRN refuses tensors that are not images",
        ORT, "LRN", 13,
        [f32([[[1], [2]]])],
        [f32([[[0.375], [0.75]]])],
        "For non image case, the dimensions are in the form of (N x C x D1 x D2 ... Dn)",
        "Both channels see both: 1 / (1 + 5 / 3) and 2 / (1 + 5 / 3).",
        {"size": 3, "alpha": 1.0, "beta": 1.0, "bias": 1.0},
    ),
    Finding(
        "ort-stringsplit-empty-string",
        "StringSplit counts no substring in an empty string",
        ORT, "StringSplit", 20,
        [text(["a", "", ","])],
        [text([["a", ""], ["", ""], ["", ""]]), i64([1, 1, 2])],
        "Consecutive delimiters are not grouped together and are deemed to delimit empty strings, except if the "
        "`delimiter` is unspecified or is the empty string",
        'One delimiter makes two (empty) substrings of ",", so none makes one of "", as in Python\'s "".split(","). '
        "0 is returned for it.",
        {"delimiter": ","}, precise=0,
    ),
    Finding(
        "ort-rnn-softplus-overflows",
        "The activation Softplus of recurrent operators overflows from 89 on",
        ORT, "RNN", 22,
        [f32([[[100]]]), f32([[[1]]]), f32([[[0]]])],
        [None, f32([[[100]]])],
        "Softplus(x) - log(1 + e^x)",
        "log(1 + e^100) is 100 (to 44 digits). e^100 overflows float32, and infinity is returned; the operator Softplus "
        "of the same runtime returns 100.",
        {"hidden_size": 1, "activations": ["Softplus"]},
        also="GRU and LSTM.",
    ),
    Finding(
        "ort-affinegrid-float16",
        "AffineGrid of float16 cannot run",
        ORT, "AffineGrid", 20,
        [np.asarray([[[1, 0, 0], [0, 1, 0]]], np.float16), i64([1, 1, 2, 2])],
        [np.asarray([[[[-0.5, -0.5], [0.5, -0.5]], [[-0.5, 0.5], [0.5, 0.5]]]], np.float16)],
        "T1: tensor(bfloat16), tensor(float16), tensor(float), tensor(double)",
        "The unit matrix samples the centres of two pixels per axis: ±0.5. There is no kernel for float16, and the "
        "function body that is inlined instead fails in a Split with an axis out of range.",
        precise=1e-2,
    ),
    Finding(
        "onnx-resize-sizes-unknown-length",
        "Shape inference of Resize refuses sizes whose length the model does not say",
        ORT, "Resize", 19,
        [f32([1, 2, 3]), None, None, i64([6])],
        [f32([1, 1, 2, 2, 3, 3])],
        "The number of elements of 'sizes' should be the same as the rank of input 'X'",
        "An input of rank 1 with an open length may have 1 element. The open length is read as 0 elements, and the model "
        "is refused.",
        {"mode": "nearest"}, unsized=(3,), precise=0,
    ),
    Finding(
        "onnx-onehot-scalar-indices",
        "Shape inference of OneHot refuses a scalar index",
        ORT, "OneHot", 11,
        [i64(1), i64(3), f32([0, 1])],
        [f32([0, 1, 0])],
        "The rank of the output tensor will be one greater than the rank of the input tensor.",
        "A scalar gives a vector. [ShapeInferenceError] Indices tensor must have rank >= 1.",
        precise=0,
    ),
    Finding(
        "onnx-stringnormalizer-open-shape",
        "Shape inference of StringNormalizer refuses a shape of rank 2 that is open",
        ORT, "StringNormalizer", 10,
        [text([["a", "b"]])],
        [text([["a", "b"]])],
        "This operator only accepts [C]- and [1, C]-tensor.",
        "[?, ?] may be [1, C], and is at run time. The open size is read as another one than 1, and the model is refused.",
        unsized=(0,), precise=0,
    ),
    Finding(
        "onnx-centercroppad-int32-shape",
        "The function body of CenterCropPad is ill-typed for an int32 shape",
        ORT, "CenterCropPad", 18,
        [f32([1, 2]), np.asarray([4], np.int32)],
        [f32([0, 1, 2, 0])],
        "Tind: tensor(int32), tensor(int64)",
        "The body takes Max of the shape and an int64 constant. ONNX Runtime, which runs the body, cannot load the model.",
        precise=0,
    ),
    Finding(
        "onnx-mvn-float64",
        "The function body of MeanVarianceNormalization is ill-typed for every type but float32",
        ORT, "MeanVarianceNormalization", 13,
        [f64([1, 3])],
        [f64([-1, 1])],
        "T: tensor(float16), tensor(float), tensor(double), tensor(bfloat16)",
        "The body adds a float32 constant to a float64 tensor.",
        {"axes": [0]},
        also="onnx.reference, which runs the body as well; float16 and bfloat16.",
    ),
    Finding(
        "onnx-rmsnormalization-mixed",
        "The function body of RMSNormalization is ill-typed where X and scale have two types",
        ORT, "RMSNormalization", 23,
        [f32([3, 4]), f64([1, 1])],
        [f64([3 / math.sqrt(12.5), 4 / math.sqrt(12.5)])],
        "V: tensor(float16), tensor(float), tensor(double), tensor(bfloat16): Constrain output Y and scale type to float "
        "tensors.",
        "X is of type T, another parameter. The body multiplies a tensor of type T by one of type V.",
        {"epsilon": 0.0},
    ),
    Finding(
        "ort-dft-inverse-double",
        "The inverse DFT of float64 divides by N with the precision of float32",
        ORT, "DFT", 20,
        [f64([[[0], [1], [0]]])],
        [f64([[[1 / 3, 0], [-1 / 6, math.sqrt(0.75) / 3], [-1 / 6, -math.sqrt(0.75) / 3]]])],
        "x[m, n] = \\frac{1}{N} \\sum_{k=0}^{N-1} e^{2 \\pi j \\frac{k n}{N} } y[m, k] (...) Constrain input and output types to "
        "float tensors.",
        "The inverse transform of a single 1 is e^{2πjn/3} / 3. It comes back times 3 · float32(1/3): eight right digits. "
        "The forward transform of the same runtime has sixteen.",
        {"inverse": 1}, precise=1e-12,
    ),
    Finding(
        "ref-mvn-cancels",
        "MeanVarianceNormalization of values far from 0 is off by eight orders of magnitude",
        REFERENCE, "MeanVarianceNormalization", 13,
        [f32([4096, 4097])],
        [f32([-1, 1])],
        "(X-EX)/sqrt(E(X-EX)^2)",
        "±0.5 over 0.5. The function body computes the variance as E(X²) - (EX)² in float32, where nothing is left of it.",
        {"axes": [0]},
    ),
    Finding(
        "ref-affinegrid-double",
        "AffineGrid of float64 returns float32",
        REFERENCE, "AffineGrid", 20,
        [f64([[[1, 0, 0], [0, 1, 0]]]), i64([1, 1, 2, 2])],
        [f64([[[[-0.5, -0.5], [0.5, -0.5]], [[-0.5, 0.5], [0.5, 0.5]]]])],
        "Constrain grid types to float tensors.", "theta and grid share the type parameter T1: float64 gives float64.",
    ),
    Finding(
        "ref-pooling-same-dilated",
        "AveragePool with SAME padding ignores dilations when it pads",
        REFERENCE, "AveragePool", 22,
        [RAMP],
        [f32([[[2, 3, 3, 3, 4]]])],
        SAME,
        "Two pads on each side, which are not counted: the windows see {1, 3}, {2, 4}, {1, 3, 5}, {2, 4}, {3, 5}.",
        {"auto_pad": "SAME_UPPER", "dilations": [2], "kernel_shape": [3]},
    ),
    Finding(
        "ref-lppool-same-dilated",
        "LpPool with SAME padding ignores dilations when it pads",
        REFERENCE, "LpPool", 22,
        [RAMP],
        [ROOTS],
        SAME, "Square roots of 1 + 9, 4 + 16, 1 + 9 + 25, 4 + 16, 9 + 25; the last two come back as 0.",
        {"auto_pad": "SAME_UPPER", "dilations": [2], "kernel_shape": [3]},
    ),
    Finding(
        "ref-maxpool-same-lower",
        "MaxPool with SAME_LOWER pads at the end",
        REFERENCE, "MaxPool", 22,
        [f32([[[[3, 1, 0, 0]]]])],
        [f32([[[[3, 1]]]])],
        "In case the padding is an odd number, the extra padding is added at the end for SAME_UPPER and at the beginning "
        "for SAME_LOWER.",
        "One pad, at the beginning: the windows are {3, 1} and {1, 0, 0}.",
        {"auto_pad": "SAME_LOWER", "kernel_shape": [1, 3], "strides": [1, 2]}, precise=0,
    ),
    Finding(
        "ref-maxpool-3d-indices",
        "MaxPool over three axes returns indices beyond the tensor",
        REFERENCE, "MaxPool", 22,
        [f32(np.arange(27).reshape(1, 1, 3, 3, 3))],
        [f32([[[[[26]]]]]), i64([[[[[26]]]]])],
        "So the values in indices are in [0, N x C x D1 x ... x Dn).",
        "The largest element of 27 is the last one, index 26.",
        {"kernel_shape": [3, 3, 3]}, precise=0,
    ),
    Finding(
        "ref-batchnormalization-9",
        "BatchNormalization of opsets 9 to 13 normalises by the batch in inference",
        REFERENCE, "BatchNormalization", 13,
        [f32([[1], [3]]), f32([1]), f32([0]), f32([0]), f32([1])],
        [f32([[1], [3]])],
        "Output case #2: Y (test mode) (...) mean: running (training) or estimated (testing) mean tensor of shape (C).",
        "One output means test mode: (x - 0) / sqrt(1) is x.",
        {"epsilon": 0.0},
    ),
    Finding(
        "ref-batchnormalization-types",
        "BatchNormalization returns running statistics in the type of X",
        REFERENCE, "BatchNormalization", 15,
        [f32([[1], [3]]), f32([1]), f32([0]), f64([0]), f64([1])],
        [f32([[-1], [1]]), f64([1]), f64([1])],
        "T2: tensor(float16), tensor(float), tensor(double), tensor(bfloat16): Constrain mean and variance types to float "
        "tensors.",
        "They are float64 here. Mean 2 and variance 1 of the batch, half and half with 0 and 1.",
        {"epsilon": 0.0, "momentum": 0.5, "training_mode": 1},
    ),
    Finding(
        "ref-convinteger-zero-points",
        "ConvInteger fails with a zero point per channel where X is no image",
        REFERENCE, "ConvInteger", 10,
        [u8([[[1, 2]]]), u8([[[3]], [[5]]]), None, u8([1, 2])],
        [np.asarray([[[2, 4], [3, 6]]], np.int32)],
        "It could be a scalar or a 1-D tensor, which means a per-tensor/layer or per output channel quantization.",
        "(3 - 1) and (5 - 2) times 1 and 2.",
        precise=0,
    ),
    Finding(
        "ref-convtranspose-groups",
        "ConvTranspose with groups of several output channels fails",
        REFERENCE, "ConvTranspose", 22,
        [f32([[[[2]], [[3]]]]), f32([[[[1]], [[10]]], [[[100]], [[1000]]]])],
        [f32([[[[2]], [[20]], [[300]], [[3000]]]])],
        "The weight tensor (...) (C x M/group x kH x kW) (...) group: number of groups input channels and output channels "
        "are divided into.",
        "Two groups of one input and two output channels each.",
        {"group": 2},
    ),
    Finding(
        "ref-convtranspose-output-shape-3d",
        "ConvTranspose over three axes fails with output_shape",
        REFERENCE, "ConvTranspose", 22,
        [f32(np.full((1, 1, 1, 1, 1), 2)), f32(np.ones((1, 1, 2, 2, 2)))],
        [f32(np.full((1, 1, 2, 2, 1), 2))],
        "The shape of the output can be explicitly set which will cause pads values to be auto generated.",
        "One element times a kernel of ones, of which the last axis is cut to 1: it is 2 everywhere.",
        {"output_shape": [2, 2, 1]},
    ),
    Finding(
        "ref-deformconv-one-pixel",
        "DeformConv fails on an image of one pixel",
        REFERENCE, "DeformConv", 22,
        [f32([[[[5]]]]), f32([[[[1]]]]), f32(np.zeros((1, 2, 1, 1)))],
        [f32([[[[5]]]])],
        "Performs deformable convolution", "No offset and weight 1: the pixel itself.",
    ),
    Finding(
        "ref-det-float16",
        "Det of float16 fails",
        REFERENCE, "Det", 22,
        [np.asarray([[2]], np.float16)],
        [np.asarray(2, np.float16)],
        "T: tensor(bfloat16), tensor(float16), tensor(float), tensor(double)", "The determinant of [[2]] is 2.",
        precise=1e-2,
    ),
    Finding(
        "ref-erf-double",
        "Erf of float64 has the precision of float32",
        REFERENCE, "Erf", 13,
        [f64([0.5])],
        [f64([math.erf(0.5)])],
        "Computes the error function of the given input tensor element-wise.",
        "erf(0.5) = 0.52049987781304654 (Abramowitz and Stegun, table 7.1). Eight digits are right.",
        precise=1e-12,
        also="Gelu.",
    ),
    Finding(
        "ref-flatten-empty",
        "Flatten of an empty vector fails",
        REFERENCE, "Flatten", 25,
        [f32([])],
        [f32(np.zeros((0, 1)))],
        "If input tensor has shape (d_0, d_1, ... d_n) then the output will have shape (d_0 X d_1 ... d_(axis-1), d_axis "
        "X d_(axis+1) ... X dn).",
        "d_0 = 0 and an empty product, which is 1.",
        precise=0,
    ),
    Finding(
        "ref-rnn-sequence-lens",
        "RNN ignores sequence_lens",
        REFERENCE, "RNN", 22,
        [f32([[[0.5]], [[2]]]), f32([[[1]]]), f32([[[0]]]), None, np.asarray([1], np.int32)],
        [None, f32([[[math.tanh(0.5)]]])],
        "Optional tensor specifying lengths of the sequences in a batch.",
        "The sequence is one step long: Y_h is tanh(0.5), not tanh(2).",
        {"hidden_size": 1},
        also="GRU and LSTM.",
    ),
    Finding(
        "ref-rnn-relu",
        "RNN does not know the activation Relu",
        REFERENCE, "RNN", 22,
        [f32([[[3]]]), f32([[[2]]]), f32([[[0]]])],
        [None, f32([[[6]]])],
        "Activation functions: * Relu(x) - max(0, x) (...) NOTE: Below are optional",
        "Relu is one of the three that are not optional.",
        {"hidden_size": 1, "activations": ["Relu"]},
    ),
    Finding(
        "ref-gru-activations",
        "GRU ignores activations",
        REFERENCE, "GRU", 22,
        [f32([[[1]]]), f32([[[0], [0], [3]]]), f32([[[0], [0], [0]]])],
        [None, f32([[[1.5]]])],
        "activations: A list of 2 (or 4 if bidirectional) activation functions for update, reset, and hidden gates.",
        "The update gate is Sigmoid(0) = 0.5, the candidate Relu(3) = 3. What comes back is half of tanh(3).",
        {"hidden_size": 1, "activations": ["Sigmoid", "Relu"]},
        also="LSTM.",
    ),
    Finding(
        "ref-gatherelements-smaller-indices",
        "GatherElements refuses indices that are smaller than the data",
        REFERENCE, "GatherElements", 13,
        [f32([[1, 2], [3, 4]]), i64([[1]])],
        [f32([[3]])],
        "indices: Tensor of int32/int64 indices, with the same rank r as the input. (...) Its output shape is the same as "
        "the shape of `indices`",
        "out[0][0] = input[index[0][0]][0] = 3. Only the rank has to be the same.",
        {"axis": 0}, precise=0,
    ),
    Finding(
        "ref-globalmaxpool-rank",
        "GlobalMaxPool is right for images alone",
        REFERENCE, "GlobalMaxPool", 22,
        [f32([[[1, 3, 2]]])],
        [f32([[[3]]])],
        "(N x C x D1 x D2 ... Dn) (...) The output tensor has the same rank as the input. The first two dimensions of "
        "output shape are the same as the input (N x C), while the other dimensions are all 1.",
        "One spatial axis: shape (1, 1, 1). (1, 1) comes back; of three axes one is kept.",
        precise=0,
    ),
    Finding(
        "ref-gridsample-16",
        "GridSample of opset 16 does not know its own modes",
        REFERENCE, "GridSample", 16,
        [f32([[[[1, 3]]]]), f32([[[[0, 0]]]])],
        [f32([[[[2]]]])],
        "Three interpolation modes: bilinear (default), nearest and bicubic.",
        "The point between two pixels. bilinear was renamed to linear in opset 20 only.",
        {"mode": "bilinear", "align_corners": 1},
    ),
    Finding(
        "ref-lrn-channels",
        "LRN leaves channels as they are where the batch is smaller than their number",
        REFERENCE, "LRN", 13,
        [f32([[[[1]], [[2]]]])],
        [f32([[[[0.375]], [[0.75]]]])],
        "max(0, c - floor((size - 1) / 2)) <= i <= min(C - 1, c + ceil((size - 1) / 2))",
        "Both channels see both. The loop over channels ends at the number of samples.",
        {"size": 3, "alpha": 1.0, "beta": 1.0, "bias": 1.0},
    ),
    Finding(
        "ref-layernormalization-types",
        "LayerNormalization returns Mean and InvStdDev in the type of X",
        REFERENCE, "LayerNormalization", 17,
        [f64([1, 3]), f64([1, 1])],
        [f64([-1, 1]), f32([2]), f32([1])],
        "stash_type: Type of Mean and InvStdDev.", "The default is 1: float32.",
        {"epsilon": 0.0},
    ),
    Finding(
        "ref-mean-broadcast",
        "Mean fails where the first tensor is broadcast",
        REFERENCE, "Mean", 13,
        [f32(1), f32([3, 5])],
        [f32([2, 3])],
        "This operator supports **multidirectional (i.e., Numpy-style) broadcasting**",
        "(1 + 3) / 2 and (1 + 5) / 2.",
    ),
    Finding(
        "ref-nms-scalar-threshold",
        "NonMaxSuppression refuses a scalar threshold",
        REFERENCE, "NonMaxSuppression", 11,
        [f32([[[0, 0, 1, 1]]]), f32([[[0.5]]]), i64(1), f32(0.5)],
        [i64([[0, 0, 0]])],
        "iou_threshold: (...) It is scalar.", "One box, which is selected.",
        precise=0,
    ),
    Finding(
        "ref-onehot-infinite",
        "OneHot returns NaN where a value is infinite",
        REFERENCE, "OneHot", 11,
        [i64([1]), i64(3), f32([0, np.inf])],
        [f32([[0, np.inf, 0]])],
        "The locations represented by the index values (...) will have 'on_value' and the other locations will have "
        "'off_value'",
        "The values are put, not computed: off + onehot · (on - off) is 0 · inf.",
        precise=0,
    ),
    Finding(
        "ref-pad-negative",
        "Pad fails with negative pads",
        REFERENCE, "Pad", 13,
        [f32([1, 2, 3]), i64([0, -1])],
        [f32([1, 2])],
        "the number of padding elements to add or remove (if negative) at the beginning and end of each axis",
        "One element is removed at the end.",
        precise=0,
    ),
    Finding(
        "ref-qlinearconv-1d",
        "QLinearConv over one axis returns a tensor of rank 4",
        REFERENCE, "QLinearConv", 10,
        [u8([[[2, 4]]]), f32(1), u8(0), u8([[[1]], [[2]]]), f32([1, 1]), u8([0, 0]), f32(1), u8(0)],
        [u8([[[2, 4], [4, 8]]])],
        "Note that this is for the 2D image. Otherwise the size is (N x C x D1 x D2 ... x Dn).",
        "The image times 1 and times 2, in a tensor of rank 3. It is the scale per channel that adds an axis.",
        precise=0,
    ),
    Finding(
        "ref-reducesumsquare-int32",
        "ReduceSumSquare of int32 returns int64",
        REFERENCE, "ReduceSumSquare", 13,
        [np.asarray([2], np.int32)],
        [np.asarray([4], np.int32)],
        "Constrain input and output types to numeric tensors.", "data and reduced share the type parameter T. The type of the output is that of the input.",
        precise=0,
    ),
    Finding(
        "ref-regexfullmatch-unicode",
        "RegexFullMatch takes letters beyond ASCII for word characters",
        REFERENCE, "RegexFullMatch", 20,
        [text(["a", "ß"])],
        [np.asarray([True, False])],
        "[RE2](https://github.com/google/re2/wiki/Syntax) regex syntax is used.",
        "RE2's table: \\w is [0-9A-Za-z_], ASCII. Python's own re is used instead.",
        {"pattern": "\\w"}, precise=0,
    ),
    Finding(
        "ref-roialign-10",
        "RoiAlign of opsets 10 to 15 is shifted by half a pixel",
        REFERENCE, "RoiAlign", 13,
        [f32(np.arange(16).reshape(1, 1, 4, 4)), f32([[0, 0, 2, 2]]), i64([0])],
        [f32([[[[5]]]])],
        "Region of Interest (RoI) align operation described in the [Mask R-CNN paper]",
        "Version 16 introduced the shift; its 'output_half_pixel' is there \"to omit the pixel shift for the input (use this for "
        "a backward-compatible behavior)\". So before 16 there is none: the single sample of the region from 0 to 2 lies at (1, 1), element 5.",
        {"sampling_ratio": 1},
    ),
    Finding(
        "ref-slice-clamped-start",
        "Slice backward from before the axis is not clamped",
        REFERENCE, "Slice", 13,
        [f32([1, 2]), i64([-3]), i64([-INT_MAX]), i64([0]), i64([-1])],
        [f32([1])],
        "`starts[axes[i]]` is clamped to range (...) `[0, dims[axes[i]]-1]` for negative stepping",
        "-3 + 2 = -1 is clamped to 0, the end to -1: element 0. NumPy's own slicing clamps the start to -1.",
        precise=0,
    ),
    Finding(
        "ref-softsign-scalar",
        "Softsign of a scalar fails",
        REFERENCE, "Softsign", 22,
        [f32(1)],
        [f32(0.5)],
        "x/(1+|x|)", "1 / 2. The NumPy scalar that comes of rank 0 is taken for a wrong type.",
        also="ReduceLogSumExp, OneHot and Pad of rank 0.",
    ),
    Finding(
        "ref-stringnormalizer-drops-empty",
        "StringNormalizer drops empty strings",
        REFERENCE, "StringNormalizer", 10,
        [text(["a", "", "b"])],
        [text(["a", "", "b"])],
        "stopwords: List of stop words. If not set, no word would be removed from X.",
        "Nothing is set, nothing is removed.",
        precise=0,
    ),
    Finding(
        "ref-stringsplit-scalar",
        "StringSplit of a scalar fails",
        REFERENCE, "StringSplit", 20,
        [text("a b")],
        [text(["a", "b"]), i64(2)],
        "This tensor has one additional rank compared to the input tensor",
        "Rank 0 gives rank 1.",
        precise=0,
    ),
    Finding(
        "ref-tfidf-weights",
        "TfIdfVectorizer takes weights by output coordinate",
        REFERENCE, "TfIdfVectorizer", 9,
        [i64([7])],
        [f32([0, 2])],
        "The i-th element in weights is the weight of the i-th n-gram in pool.",
        "7 is n-gram 0 of the pool: weight 2, coordinate ngram_indexes[0] = 1.",
        {
            "mode": "IDF", "ngram_counts": [0], "ngram_indexes": [1, 0], "min_gram_length": 1, "max_gram_length": 1,
            "max_skip_count": 0, "weights": [2.0, 3.0], "pool_int64s": [7, 8],
        },
    ),
    Finding(
        "ref-tfidf-no-weights",
        "TfIdfVectorizer fails without weights",
        REFERENCE, "TfIdfVectorizer", 9,
        [i64([7])],
        [f32([0, 1])],
        "By default, weights is an all-one tensor.", "Weight 1, at coordinate 1.",
        {
            "mode": "IDF", "ngram_counts": [0], "ngram_indexes": [1, 0], "min_gram_length": 1, "max_gram_length": 1,
            "max_skip_count": 0, "pool_int64s": [7, 8],
        },
    ),
    Finding(
        "ref-unique-unsorted",
        "Unique fails unsorted on a matrix",
        REFERENCE, "Unique", 11,
        [f32([[2, 1], [0, 3]])],
        [f32([2, 1, 0, 3]), i64([0, 1, 2, 3])],
        "Otherwise the input tensor is flattened and unique values of the flattened tensor are returned. (...) or optionally "
        "in the order of the first occurrence of the values in the input.",
        "Four different elements, in the order in which they occur.",
        {"sorted": 0}, precise=0,
    ),
    Finding(
        "ref-dequantizelinear-13",
        "DequantizeLinear of opsets 10 to 18 is not implemented",
        REFERENCE, "DequantizeLinear", 13,
        [u8([3]), f32(2)],
        [f32([6])],
        "y = (x - x_zero_point) * x_scale", "3 · 2.",
    ),
)  # fmt: skip
