"""Findings in graphs of several nodes, each of which is right alone: what a runtime's graph optimisations make of them."""

from __future__ import annotations

import math

import numpy as np
from record import ORT, Finding, Step, f32, i64, u8

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
        "y = saturate((x / y_scale) + y_zero_point) (...) y = (x - x_zero_point) * x_scale",
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
)
