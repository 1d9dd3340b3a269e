"""Findings in graphs of several nodes, each of which is right alone: what a runtime's graph optimisations make of them."""

from __future__ import annotations

import math

import numpy as np
from record import ORT, Finding, Step, f32, f64, i8, i64, u8

THERE, BACK = {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 1, 2]}
PICTURE = f32(np.arange(1, 7).reshape(1, 1, 2, 3))
ANY_GRAPH = "is right with ORT_DISABLE_ALL, and every node is right alone"


def layer_normalization(deviation: str, quotient: str) -> tuple[Step, ...]:
    """(x − mean) / √(mean |x − mean|^x1 + ε) · x3 + x4, or with the operands of Sub and Div as given."""
    return (
        Step("ReduceMean", "x0", "mean", {"axes": [-1]}),
        Step("Sub", deviation, "d"),
        Step("Pow", "d x1", "power"),
        Step("ReduceMean", "power", "variance", {"axes": [-1]}),
        Step("Add", "variance x2", "sum"),
        Step("Sqrt", "sum", "root"),
        Step("Div", quotient, "n"),
        Step("Mul", "n x3", "scaled"),
        Step("Add", "scaled x4", "y0"),
    )


FLOAT, DOUBLE = 1, 11
"""Element types, as Cast names them."""

INTEGER_PRODUCT = "the product of MatMulInteger"


def scaled_product(to: int = FLOAT) -> tuple[Step, ...]:
    """(x0 · x1 in integers) · (x2 · x3)."""
    return (
        Step("MatMulInteger", "x0 x1", "p"),
        Step("Cast", "p", "c", {"to": to}),
        Step("Mul", "x2 x3", "s"),
        Step("Mul", "c s", "y0"),
    )


ONES, ZEROS, SMALL = f32([1, 1]), f32([0, 0]), f32(1e-12)
ROWS = f32([[1, 2, 6]])

FINDINGS = (
    Finding(
        "ort-layernorm-fusion-exponent",
        "Deviations from the mean to any power are fused as if they were squared: LayerNormalization",
        ORT,
        "Pow",
        13,
        [ROWS, f32(3), SMALL, f32([1, 1, 1]), f32([0, 0, 0])],
        [f32([[-2 / math.sqrt(6), -1 / math.sqrt(6), 3 / math.sqrt(6)]])],
        "Pow takes input data (Tensor<T>) and exponent Tensor, and produces one output data (Tensor<T>) where the function "
        "`f(x) = x^exponent`, is applied to the data tensor elementwise.",
        "The deviations are -2, -1 and 3, their cubes -8, -1 and 27 with mean 6. They are divided by the root of 14/3, the "
        f"mean of the squares. It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        steps=layer_normalization("x0 mean", "d root"),
        also="A tensor of several exponents.",
    ),
    Finding(
        "ort-layernorm-fusion-operands",
        "The mean minus x is fused as if it were x minus the mean: LayerNormalization with the wrong sign",
        ORT,
        "Sub",
        13,
        [f32([[1, 3]]), f32(2), SMALL, ONES, ZEROS],
        [f32([[1, -1]])],
        "Performs element-wise binary subtraction",
        "The mean is 2, its distances are 1 and -1, their root mean square is 1. The result is returned with the opposite "
        f"sign. It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        steps=layer_normalization("mean x0", "d root"),
        also="The root divided by the deviation, where Div has its operands the other way round.",
    ),
    Finding(
        "ort-reciprocal-of-integers",
        "The quotient 1 / a of integers, times b, is fused to b / a",
        ORT,
        "Div",
        14,
        [i64([1]), i64([2, 3]), i64([10, 10])],
        [i64([0, 0])],
        "For integer inputs, the result is computed using truncating division (rounding toward zero).",
        f"1 / 2 is 0, and 0 · 10 is 0. Returned are 10 / 2 and 10 / 3. It {ANY_GRAPH}.",
        constants=(0,),
        precise=0,
        steps=(Step("Div", "x0 x1", "q"), Step("Mul", "q x2", "y0")),
    ),
    Finding(
        "ort-reciprocal-loses-rank",
        "The quotient 1 / a, times b, has the shape of b / a although the 1 is of a higher rank",
        ORT,
        "Div",
        14,
        [f32([[[1]]]), f32([2, 4]), f32([1, 1])],
        [f32([[[0.5, 0.25]]])],
        "This operator supports **multidirectional (i.e., Numpy-style) broadcasting**",
        f"(1, 1, 1) and (2) give (1, 1, 2). A tensor of shape (2) is returned. It {ANY_GRAPH}.",
        constants=(0,),
        steps=(Step("Div", "x0 x1", "q"), Step("Mul", "q x2", "y0")),
    ),
    Finding(
        "ort-two-quantizations-become-one",
        "Two quantizations in a row are replaced by one with a step of its own",
        ORT,
        "QuantizeLinear",
        13,
        [f32([-1, 0, 5]), f32(0.1), u8(10), f32(0.05), u8(100)],
        [f32([-1, 0, 5])],
        "y = saturate ((x / y_scale) + y_zero_point) (...) y = (x - x_zero_point) * x_scale",
        "-1, 0 and 5 are multiples of both steps and lie in both ranges (-1 to 24.5, -5 to 7.75). -0.995 and 5.01 come "
        f"back, multiples of a step that the model does not have. It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        steps=(
            Step("QuantizeLinear", "x0 x1 x2", "q"),
            Step("DequantizeLinear", "q x1 x2", "x"),
            Step("QuantizeLinear", "x x3 x4", "p"),
            Step("DequantizeLinear", "p x3 x4", "y0"),
        ),
    ),
    Finding(
        "ort-transposed-pad-axes",
        "A Pad with axes between two Transpose cannot be run",
        ORT,
        "Pad",
        18,
        [PICTURE, i64([1, 1]), i64([3])],
        [np.pad(PICTURE, ((0, 0), (1, 1), (0, 0), (0, 0)))],
        "axes: 1-D tensor of axes that `pads` apply to. Negative value means counting dimensions from the back.",
        "Axis 3 of the transposed picture are its channels, which get a zero on each side. The optimiser drops the "
        "transpositions and reorders the pads as if there were two for each axis: indices element out of data bounds. It "
        f"{ANY_GRAPH}.",
        constants=(1, 2),
        precise=0,
        steps=(Step("Transpose", "x0", "t", THERE), Step("Pad", "t x1  x2", "p"), Step("Transpose", "p", "y0", BACK)),
    ),
    Finding(
        "ort-transposed-resize-axes",
        "A Resize with axes between two Transpose cannot be run",
        ORT,
        "Resize",
        18,
        [PICTURE, f32([2])],
        [np.repeat(PICTURE, 2, axis=2)],
        "If provided, it specifies a subset of axes that 'roi', 'scales' and 'sizes' refer to.",
        "Axis 1 of the transposed picture is its height, and every row is repeated. The optimiser reorders the scales as if "
        f"there were one for each axis: indices element out of data bounds. It {ANY_GRAPH}.",
        constants=(1,),
        precise=0,
        steps=(
            Step("Transpose", "x0", "t", THERE),
            Step("Resize", "t  x1", "r", {"axes": [1], "mode": "nearest"}),
            Step("Transpose", "r", "y0", BACK),
        ),
    ),
    Finding(
        "ort-transposed-vector-product",
        "The product of a transposed matrix with a vector leaves the transposition out",
        ORT,
        "MatMul",
        13,
        [f32([[1, 2], [3, 4]]), f32([1, 0])],
        [f32([1, 2])],
        "Matrix product that behaves like [numpy.matmul]",
        f"The first column of [[1, 3], [2, 4]] is [1, 2]. [1, 3] is returned. It {ANY_GRAPH}.",
        steps=(Step("Transpose", "x0", "t", {"perm": [1, 0]}), Step("MatMul", "t x1", "y0")),
    ),
    Finding(
        "ort-slice-steps-without-axes",
        "A Slice to the end is left out although it has steps, where it names no axes",
        ORT,
        "Slice",
        13,
        [f32([1, 2, 3, 4]), i64([0]), i64([np.iinfo(np.int64).max]), i64([2])],
        [f32([1, 3])],
        "If `axes` are omitted, they are set to `[0, ..., r-1]`. (...) steps: 1-D tensor of slice step of corresponding "
        "axis in `axes`.",
        f"Every second element is negated twice. All four are returned. It {ANY_GRAPH}.",
        constants=(1, 2, 3),
        precise=0,
        steps=(Step("Neg", "x0", "n"), Step("Slice", "n x1 x2  x3", "s"), Step("Neg", "s", "y0")),
    ),
    Finding(
        "ort-range-gather-backward",
        "A Gather at the indices of a Range that counts down to 0 returns nothing",
        ORT,
        "Gather",
        13,
        [f32([10, 20, 30]), i64(2), i64(-1), i64(-1)],
        [f32([30, 20, 10])],
        "output[i] = start + (i * delta); (...) All index values are expected to be within bounds [-s, s-1] along axis of size s.",
        "The indices are 2, 1 and 0. Both are fused to a Slice, to which the end -1 means the last element: an empty tensor "
        f"is returned. It {ANY_GRAPH}.",
        precise=0,
        steps=(Step("Range", "x1 x2 x3", "r"), Step("Gather", "x0 r", "y0")),
        also="Indices from -2 up to 0, which count from the end.",
    ),
    Finding(
        "ort-integer-product-loses-rank",
        f"A scale of a higher rank does not lend it to {INTEGER_PRODUCT}",
        ORT,
        "MatMulInteger",
        14,
        [u8([[1, 2]]), u8([[3], [4]]), f32([[[2]]]), f32(1)],
        [f32([[[22]]])],
        "This operator supports **multidirectional (i.e., Numpy-style) broadcasting**",
        "1 · 3 + 2 · 4 is 11, times 2 is 22. (1, 1) and (1, 1, 1) give (1, 1, 1). A tensor of shape (1, 1) is returned. It "
        f"{ANY_GRAPH}.",
        constants=(1,),
        steps=scaled_product(),
        also="A bias of a higher rank, and both behind DynamicQuantizeLinear.",
    ),
    Finding(
        "ort-integer-product-is-not-broadcast",
        f"A scale for each of two rows does not repeat the one row of {INTEGER_PRODUCT}",
        ORT,
        "MatMulInteger",
        14,
        [u8([[1, 2]]), u8([[3, 1], [4, 1]]), f32([[1], [2]]), f32(1)],
        [f32([[11, 3], [22, 6]])],
        "This operator supports **multidirectional (i.e., Numpy-style) broadcasting**",
        "(1, 2) and (2, 1) give (2, 2): [11, 3] times 1 and times 2. The first of these rows is returned alone. "
        f"It {ANY_GRAPH}.",
        constants=(1,),
        steps=scaled_product(),
        also="A bias of more columns than the product, which is refused.",
    ),
    Finding(
        "ort-integer-product-of-one-column-crashes",
        f"Two scales for the one column of {INTEGER_PRODUCT} end the process",
        ORT,
        "MatMulInteger",
        14,
        [u8([[1, 2]]), u8([[3], [4]]), f32([1, 2]), f32(1)],
        [f32([[11, 22]])],
        "This operator supports **multidirectional (i.e., Numpy-style) broadcasting**",
        "(1, 1) and (2) give (1, 2): 11 · 1 and 11 · 2. The fused operator does not ask whether there is a scale for each "
        f"column, and breaks off with a segmentation fault. It {ANY_GRAPH}.",
        constants=(1,),
        steps=scaled_product(),
    ),
    Finding(
        "ort-integer-product-in-double",
        f"A model that scales {INTEGER_PRODUCT} in double cannot be loaded",
        ORT,
        "Cast",
        14,
        [u8([[1, 2]]), u8([[3], [4]]), f64(2), f64(1)],
        [f64([[22]])],
        "Conversion from a numerical type to any numerical type is always allowed.",
        f"11 · 2 · 1 is 22. The nodes are fused to an operator that has no double: the model is called invalid. It {ANY_GRAPH}.",
        constants=(1,),
        steps=scaled_product(DOUBLE),
    ),
    Finding(
        "ort-integer-product-signed-by-unsigned",
        "The scaled product of int8 and uint8 matrices cannot be loaded",
        ORT,
        "MatMulInteger",
        14,
        [i8([[1, -2]]), u8([[3], [4]]), f32(2), f32(1)],
        [f32([[-10]])],
        "T1: tensor(int8), tensor(uint8) (...) T2: tensor(int8), tensor(uint8)",
        "1 · 3 - 2 · 4 is -5, times 2 is -10. MatMulInteger itself runs with these types; the nodes are fused to "
        f"MatMulIntegerToFloat, which has no kernel for them. It {ANY_GRAPH}.",
        constants=(1,),
        steps=scaled_product(),
    ),
    Finding(
        "ort-scales-behind-product-overflow",
        "Scales that keep a product from overflowing are moved behind it",
        ORT,
        "MatMul",
        13,
        [f32([[2.0**100]]), f32([[2.0**100]]), f32(2.0**-100)],
        [f32([[1]])],
        "Matrix product that behaves like [numpy.matmul]",
        "Each factor is 1 once it is scaled. The factors are multiplied first, which is infinite, and then by 2^-200, which "
        f"is 0 in float32: NaN. It {ANY_GRAPH}.",
        constants=(2,),
        steps=(Step("Mul", "x0 x2", "a"), Step("Mul", "x1 x2", "b"), Step("MatMul", "a b", "y0")),
        also="A product divided by a subnormal number, whose reciprocal is infinite.",
    ),
    Finding(
        "ort-transposed-block-scales",
        "A Transpose is moved behind a blocked DequantizeLinear, whose scales stay as they are",
        ORT,
        "DequantizeLinear",
        21,
        [i8([[1, 2], [3, 4]]), f32([[1, 10], [100, 1000]])],
        [f32([[1, 200], [30, 4000]])],
        "for blocked dequantization it has the same shape as the input, except for one dimension in which blocking is "
        "performed.",
        "The transposed numbers [[1, 3], [2, 4]] times their scales are [[1, 30], [200, 4000]], transposed again. 2 and 3 "
        f"are returned times one another's scale. Blocks of more than one number are refused. It {ANY_GRAPH}.",
        constants=(1,),
        steps=(
            Step("Transpose", "x0", "t", {"perm": [1, 0]}),
            Step("DequantizeLinear", "t x1", "d", {"axis": 0, "block_size": 1}),
            Step("Transpose", "d", "y0", {"perm": [1, 0]}),
        ),
        also="QuantizeLinear.",
    ),
    Finding(
        "ort-quantized-softmax-axis",
        "A Softmax that is quantized with a scale per column takes the first scale for all",
        ORT,
        "QuantizeLinear",
        13,
        [u8([[7, 7]]), f32(1), u8(0), f32([0.5, 0.125]), u8([0, 0])],
        [u8([[1, 4]])],
        "y_scale: Scale for doing quantization to get 'y'. It can be a scalar, which means per-tensor/layer quantization, or "
        "a 1-D Tensor for per-axis quantization.",
        f"Both results are 0.5, which is 1 step of 0.5 and 4 of 0.125. [1, 1] is returned. It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        precise=0,
        steps=(
            Step("DequantizeLinear", "x0 x1 x2", "d"),
            Step("Softmax", "d", "s"),
            Step("QuantizeLinear", "s x3 x4", "y0", {"axis": 1}),
        ),
    ),
    Finding(
        "ort-quantized-where-axis",
        "A Where that is quantized with a scale per column takes the first scale for all",
        ORT,
        "QuantizeLinear",
        13,
        [u8([[4, 4]]), f32(1), u8(0), f32([1, 0.5]), u8([0, 0]), np.array([[True, True]])],
        [u8([[4, 8]])],
        "y_scale: Scale for doing quantization to get 'y'. It can be a scalar, which means per-tensor/layer quantization, or "
        "a 1-D Tensor for per-axis quantization.",
        f"4 is 4 steps of 1 and 8 of 0.5. [4, 4] is returned. It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        precise=0,
        steps=(
            Step("DequantizeLinear", "x0 x1 x2", "d"),
            Step("Where", "x5 d d", "w"),
            Step("QuantizeLinear", "w x3 x4", "y0", {"axis": 1}),
        ),
    ),
    Finding(
        "ort-quantized-sigmoid-axis",
        "A Sigmoid between numbers that are quantized with a scale per column cannot be loaded",
        ORT,
        "DequantizeLinear",
        13,
        [u8([[0, 0]]), f32([1, 2]), u8([0, 0]), f32(0.5), u8(0)],
        [u8([[1, 1]])],
        "x_scale: Scale for input 'x'. It can be a scalar, which means a per-tensor/layer dequantization, or a 1-D tensor for "
        "per-axis dequantization.",
        f"The sigmoid of 0 is 0.5, one step. The fused operator asks for a single scale. It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        precise=0,
        steps=(
            Step("DequantizeLinear", "x0 x1 x2", "d", {"axis": 1}),
            Step("Sigmoid", "d", "s"),
            Step("QuantizeLinear", "s x3 x4", "y0"),
        ),
        also="LeakyRelu, Where, GlobalAveragePool and Conv; scales per column behind them too.",
    ),
    Finding(
        "ort-quantized-average-of-one-channel",
        "An AveragePool between numbers that are quantized with the scale of their one channel cannot be loaded",
        ORT,
        "DequantizeLinear",
        13,
        [u8([[[[1, 3]]]]), f32([1]), u8([0]), f32(0.5), u8(0)],
        [u8([[[[4]]]])],
        "x_scale: Scale for input 'x'. It can be a scalar, which means a per-tensor/layer dequantization, or a 1-D tensor for "
        "per-axis dequantization.",
        "The average of 1 and 3 is 2, which is 4 steps of 0.5. The fused operator asks for scalars, and the model is refused. "
        f"It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        precise=0,
        steps=(
            Step("DequantizeLinear", "x0 x1 x2", "d", {"axis": 1}),
            Step("AveragePool", "d", "a", {"kernel_shape": [1, 2]}),
            Step("QuantizeLinear", "a x3 x4", "y0"),
        ),
        also="A scale of one element behind the AveragePool.",
    ),
    Finding(
        "ort-reshape-of-nothing",
        "A Reshape to sizes that are computed from its own input fails where that is empty",
        ORT,
        "Reshape",
        14,
        [f32(np.zeros((0, 2, 3))), i64(0), i64(1), i64(2), i64([0])],
        [f32(np.zeros((0, 6)))],
        "The input tensor's shape and the output tensor's shape are required to have the same number of elements.",
        "The shape is [0, 2 · 3]. The optimiser writes [0, -1], and of no elements the number of columns cannot be told. It "
        f"{ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        unsized=(0,),
        precise=0,
        steps=(
            Step("Neg", "x0", "n0"),
            Step("Shape", "n0", "s"),
            Step("Gather", "s x1", "k"),
            Step("Gather", "s x2", "m"),
            Step("Gather", "s x3", "n"),
            Step("Mul", "m n", "mn"),
            Step("Unsqueeze", "k x4", "rows"),
            Step("Unsqueeze", "mn x4", "columns"),
            Step("Concat", "rows columns", "shape", {"axis": 0}),
            Step("Reshape", "n0 shape", "y0"),
        ),
    ),
    Finding(
        "ort-quickgelu-loses-rank",
        "x times the sigmoid of a x has the shape of x although a is of a higher rank",
        ORT,
        "Mul",
        14,
        [f32(0), f32([2])],
        [f32([0])],
        "This operator supports **multidirectional (i.e., Numpy-style) broadcasting**",
        f"() and (1) give (1). A scalar is returned. It {ANY_GRAPH}.",
        constants=(1,),
        steps=(Step("Mul", "x0 x1", "ax"), Step("Sigmoid", "ax", "s"), Step("Mul", "x0 s", "y0")),
    ),
    Finding(
        "ort-layernorm-fusion-wide-scale",
        "A row of one number that is normalized and then scaled to several cannot be run",
        ORT,
        "ReduceMean",
        13,
        [f32([[5]]), f32(2), f32(1), ONES, f32([1, 2])],
        [f32([[1, 2]])],
        "This operator supports **multidirectional (i.e., Numpy-style) broadcasting**",
        "The deviation from the mean is 0, which leaves the bias: (1, 1) and (2) give (1, 2). LayerNormalization, to which it "
        f"is fused, takes no scale that is wider than its input. It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4),
        steps=layer_normalization("x0 mean", "d root"),
        also="RMS normalization; a bias that widens a MatMul in front of Add and LayerNormalization.",
    ),
    Finding(
        "ort-skip-layernorm-axis",
        "A sum that is normalized over its last two axes is fused as if it were over the last one",
        ORT,
        "LayerNormalization",
        17,
        [f32([[[0, 0], [2, 2]]]), f32([[[1, 1], [1, 1]]]), ONES, ZEROS],
        [f32([[[-1, -1], [1, 1]]])],
        "where `normalized_axes` is `[axis, ..., rank of X - 1]`.",
        "The sum is [[1, 1], [3, 3]], its mean 2 and its deviations -1 and 1. Zeros are returned, the deviations from the "
        f"mean of each row. It {ANY_GRAPH}.",
        constants=(2, 3),
        steps=(
            Step("Add", "x0 x1", "s"),
            Step("LayerNormalization", "s x2 x3", "y0", {"axis": 1, "epsilon": 1e-12}),
        ),
    ),
    Finding(
        "ort-relu-clip-double",
        "A model with Relu and then Clip of doubles cannot be loaded",
        ORT,
        "Clip",
        13,
        [f64([-2, 3]), f64(1)],
        [f64([1, 3])],
        "Minimum value, under which element is replaced by min.",
        "Relu gives 0 and 3, of which 0 is below 1. The optimiser that joins them knows no minimum but float and float16, and "
        f"fails. It {ANY_GRAPH}.",
        constants=(1,),
        precise=0,
        steps=(Step("Relu", "x0", "r"), Step("Clip", "r x1", "y0")),
        also="int32.",
    ),
    Finding(
        "ort-dequantized-weights-round-the-other-factor",
        "A product with dequantized weights rounds its other factor to 8 bits",
        ORT,
        "MatMul",
        21,
        [f32([[127, 0.25, *[0] * 14]]), i8([[0], [4], *[[0]] * 14]), f32([[1]])],
        [f32([[1]])],
        "Matrix product that behaves like [numpy.matmul]",
        "0.25 · 4 is 1; the 127 beside it is multiplied by 0. It makes the steps 1 to which the optimised product rounds the "
        f"factor, and 0.25 to 0: 0 is returned. It {ANY_GRAPH}.",
        constants=(1, 2),
        steps=(
            Step("DequantizeLinear", "x1 x2", "w", {"axis": 0, "block_size": 16}),
            Step("MatMul", "x0 w", "y0"),
        ),
        also="4 bits, a scale for the whole matrix or for each column; the session's option "
        "session.qdq_matmulnbits_accuracy_level = 0 cures it.",
    ),
    Finding(
        "ort-two-draws-become-one",
        "Two Bernoulli of the same probabilities draw the same numbers",
        ORT,
        "Bernoulli",
        15,
        [f32(np.full(64, 0.5))],
        [f32(1)],
        "Draws binary random numbers (0 or 1) from a Bernoulli distribution. (...) Seed to the random generator, if not "
        "specified we will auto generate one.",
        "64 pairs of independent draws are all equal once in 2^64 runs; the largest distance is 1. The second node is taken "
        f"for a common subexpression, and 0 is returned. It {ANY_GRAPH}.",
        precise=0,
        steps=(
            Step("Bernoulli", "x0", "a"),
            Step("Bernoulli", "x0", "b"),
            Step("Sub", "a b", "d"),
            Step("Abs", "d", "distance"),
            Step("ReduceMax", "distance", "y0", {"keepdims": 0}),
        ),
    ),
    Finding(
        "ort-quantized-gemm-bias",
        "A quantized Gemm takes its bias in steps of the product, whatever its own scale is",
        ORT,
        "Gemm",
        13,
        [u8([[2]]), f32(1), u8(0), i8([[3]]), i8(0), np.array([4], np.int32), f32(0.5)],
        [u8([[8]])],
        "Compute Y = alpha * A' * B' + beta * C (...) The dequantization formula is `y = (x - x_zero_point) * x_scale`.",
        f"2 · 3 + 4 · 0.5 is 8. 10 is returned, as if the scale of the bias were 1 · 1. It {ANY_GRAPH}.",
        constants=(1, 2, 3, 4, 5, 6),
        precise=0,
        steps=(
            Step("DequantizeLinear", "x0 x1 x2", "a"),
            Step("DequantizeLinear", "x3 x1 x4", "b"),
            Step("DequantizeLinear", "x5 x6", "c"),
            Step("Gemm", "a b c", "y"),
            Step("QuantizeLinear", "y x1 x2", "y0"),
        ),
    ),
    Finding(
        "ort-dequantized-rows",
        "The product with a matrix that is quantized with a scale per row cannot be run",
        ORT,
        "DequantizeLinear",
        13,
        [u8([[1, 1]]), f32(1), u8(0), i8([[1], [1]]), f32([1, 2]), i8([0, 0])],
        [f32([[3]])],
        "x_scale: Scale for input 'x'. It can be a scalar, which means a per-tensor/layer dequantization, or a 1-D tensor for "
        "per-axis dequantization.",
        "1 · 1 + 1 · 2 is 3. The fused operator knows scales per column alone, and refuses the zero points. It "
        f"{ANY_GRAPH}.",
        constants=(1, 2, 3, 4, 5),
        steps=(
            Step("DequantizeLinear", "x0 x1 x2", "a"),
            Step("DequantizeLinear", "x3 x4 x5", "b", {"axis": 0}),
            Step("MatMul", "a b", "y0"),
        ),
        also="A first factor with a scale per row or column; the weights of a Conv with a scale per input channel.",
    ),
)
