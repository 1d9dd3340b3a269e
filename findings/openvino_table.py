"""Findings in OpenVINO's CPU plug-in, float32 kept as float32 (INFERENCE_PRECISION_HINT f32)."""

from __future__ import annotations

import math

import numpy as np
from record import OPENVINO, Finding, f32, f64, i64

PAIRS = np.arange(1, 17, dtype=np.float32).reshape(2, 2, 2, 2)
RECURRENT = f32([[[1], [2]], [[3], [4]]])
ONE = f32([[[1]]])
GATES = f32([[[1]] * 4])
SIGMOID_0, SIGMOID_9 = 0.5, 1 / (1 + math.exp(-9))


def _peephole_cell() -> tuple[float, float]:
    """(Y, Y_c) by hand: x = h = 0, c = 1, P = 9: i = f = σ(9), C = f·1 + i·tanh(0) = σ(9), o = σ(9·C)."""
    cell = SIGMOID_9
    return 1 / (1 + math.exp(-9 * cell)) * math.tanh(cell), cell


SHOWN, CELL = _peephole_cell()


FINDINGS = (
    Finding(
        "openvino-tile-buffer",
        "Tile along four axes at once returns memory that nobody wrote",
        OPENVINO,
        "Tile",
        13,
        (PAIRS, i64([2, 2, 2, 2])),
        (np.tile(PAIRS, (2, 2, 2, 2)),),
        "Constructs a tensor by tiling a given tensor. This is the same as function `tile` in Numpy",
        "Every element is one of 1 to 16. What comes back is not: zeros, denormals, numbers of 10^33, other ones from run "
        "to run. With one axis of repeats 1 the result is right.",
    ),
    Finding(
        "openvino-int64",
        "Integers of 64 bits are computed in 32",
        OPENVINO,
        "Add",
        14,
        (i64([2**33, 2**31]), i64([1, 0])),
        (i64([2**33 + 1, 2**31]),),
        "Performs element-wise binary addition (...) Constrain input and output types to all numeric tensors.",
        "2^33 + 1 fits into the type of the tensor thirty bits over. 1 comes back: the upper half of every number is cut "
        "off, without a word.",
        also="Mul, Abs, ReduceSum of int64.",
    ),
    Finding(
        "openvino-double",
        "Numbers of 64 bits are computed in 32: large ones become the largest float32",
        OPENVINO,
        "Add",
        14,
        (f64([1e300, 1.0]), f64([0, 2.0**-40])),
        (f64([1e300, 1 + 2.0**-40]),),
        "Performs element-wise binary addition (...) Constrain input and output types to all numeric tensors.",
        "Both sums are exact in float64. 1e300 becomes 3.4028234663852886e+38, and the second summand of the other is "
        "lost.",
        precise=0,
        also="Mul, Exp, Sqrt, Mod, CumSum, Einsum, ReduceLogSumExp; Sign of 1e-300 is 0; 1 + 2^-40 equals 1.",
    ),
    Finding(
        "openvino-cast-infinity",
        "Cast of infinity to float64 gives the largest float32",
        OPENVINO,
        "Cast",
        13,
        (f32([np.inf, -np.inf, 1]),),
        (f64([np.inf, -np.inf, 1]),),
        "Conversion from a numerical type to any numerical type is always allowed",
        "Both types have infinities. 3.4028234663852886e+38 is returned.",
        {"to": 11},
        precise=0,
    ),
    Finding(
        "openvino-cast-out-of-range",
        "Cast of a float64 beyond float32 gives the largest float32 instead of infinity",
        OPENVINO,
        "Cast",
        19,
        (f64([1e300, -1e300, 1]),),
        (f32([np.inf, -np.inf, 1]),),
        "* Casting from floating point to: * floating point: +/- infinity if OOR (out of range).",
        "1e300 is out of range of float32. 3.4028234663852886e+38 is returned.",
        {"to": 1},
        precise=0,
    ),
    Finding(
        "openvino-topk-ties",
        "TopK returns equal elements in another order than that of their indices",
        OPENVINO,
        "TopK",
        11,
        (f32([1, 1, 1, 1]), i64([3])),
        (f32([1, 1, 1]), i64([0, 1, 2])),
        "Given two equivalent values, this operator uses the indices along the axis as a tiebreaker. That is, the element "
        "with the lower index will appear first.",
        "All four are equal, so indices 0, 1, 2 are chosen in this order. 1, 2, 0 come back.",
    ),
    Finding(
        "openvino-rnn-layout",
        "RNN ignores layout 1: batch and time change places",
        OPENVINO,
        "RNN",
        14,
        (RECURRENT, ONE, ONE),
        (f32([[[[1]], [[3]]], [[[3]], [[7]]]]), f32([[[3]], [[7]]])),
        "layout: (...) If 1, the following shapes are expected: X.shape = [batch_size, seq_length, input_size], Y.shape = "
        "[batch_size, seq_length, num_directions, hidden_size], initial_h.shape = Y_h.shape = [batch_size, "
        "num_directions, hidden_size].",
        "H = relu(x + H): the first sequence 1, 2 gives 1, 3; the second 3, 4 gives 3, 7. It is computed, and shaped, as "
        "if the sequences were 1, 3 and 2, 4.",
        {"hidden_size": 1, "layout": 1, "activations": ["Relu"]},
        also="GRU and LSTM.",
    ),
    Finding(
        "openvino-lstm-peepholes",
        "LSTM ignores its peepholes",
        OPENVINO,
        "LSTM",
        14,
        (f32([[[0]]]), GATES, GATES, None, None, f32([[[0]]]), f32([[[1]]]), f32([[9, 9, 9]])),
        (f32([[[[SHOWN]]]]), f32([[[SHOWN]]]), f32([[[CELL]]])),
        "* it = f(Xt*(Wi^T) + Ht-1*(Ri^T) + Pi (.) Ct-1 + Wbi + Rbi) * ft = f(Xt*(Wf^T) + Ht-1*(Rf^T) + Pf (.) Ct-1 + "
        "Wbf + Rbf)",
        "With X and H 0, C 1 and P 9 the forget gate is sigmoid(9) = 0.99988, and so is C. 0.5 is returned, sigmoid(0): P "
        "is not read.",
        {"hidden_size": 1},
    ),
    Finding(
        "openvino-bitshift-signed",
        "BitShift to the right takes odd negative numbers toward zero",
        OPENVINO,
        "BitShift",
        28,
        (np.array([-1, -2, -3, 4], np.int8), np.array([1, 1, 1, 1], np.int8)),
        (np.array([-1, -1, -2, 2], np.int8),),
        "For a signed T the right shift is an arithmetic shift (sign-extending). (...) a negative X stays negative.",
        "-1 shifted by one stays -1. 0 is returned, a division by two.",
        {"direction": "RIGHT"},
    ),
    Finding(
        "openvino-reducemax-empty",
        "ReduceMax over nothing is the lowest finite number instead of minus infinity",
        OPENVINO,
        "ReduceMax",
        20,
        (f32(np.zeros((2, 0))), i64([1])),
        (f32([-np.inf, -np.inf]),),
        "Reduction over an empty set of values yields minus infinity (if supported by the datatype) or the minimum value "
        "of the data type otherwise.",
        "float32 has minus infinity. -3.4028235e+38 is returned.",
        {"keepdims": 0},
        constants=(1,),
        precise=0,
        also="ReduceMin, with the largest finite number.",
    ),
    Finding(
        "openvino-spacetodepth-mode",
        "SpaceToDepth ignores mode CRD",
        OPENVINO,
        "SpaceToDepth",
        28,
        (f32(np.arange(8).reshape(1, 2, 2, 2)),),
        (f32(np.arange(8).reshape(1, 8, 1, 1)),),
        "`mode` determines whether blocks are ordered depth-column-row (`DCR`, the default) or column-row-depth (`CRD`).",
        "With CRD the channel comes first in the order of the new channels: those of the first one, 0 1 2 3, then those of "
        "the second. 0 4 1 5 2 6 3 7 is returned, the order of DCR.",
        {"blocksize": 2, "mode": "CRD"},
    ),
    Finding(
        "openvino-maxpool-ceil",
        "MaxPool with ceil_mode returns windows that begin behind the input",
        OPENVINO,
        "MaxPool",
        22,
        (f32(np.arange(4).reshape(1, 1, 2, 2)),),
        (f32([[[[0]]]]),),
        "Sliding windows that would start in the right padded region are ignored.",
        "A second window of one pixel would start at 2, behind the two pixels that there are. Three such windows are "
        "returned, each -3.4028235e+38. AveragePool leaves them out.",
        {"kernel_shape": [1, 1], "strides": [2, 2], "ceil_mode": 1},
    ),
    Finding(
        "openvino-erf-small",
        "Erf loses its digits near zero",
        OPENVINO,
        "Erf",
        13,
        (f32([1e-4, 1e-3]),),
        (f32([math.erf(1e-4), math.erf(1e-3)]),),
        "Computes the error function of the given input tensor element-wise.",
        "erf(1e-4) = 1.1283792e-4. 1.1288857e-4 is returned, wrong in the fourth digit, where float32 has seven.",
        absolute=0,
    ),
    Finding(
        "openvino-softplus-negative",
        "Softplus returns negative numbers",
        OPENVINO,
        "Softplus",
        1,
        (f32([-20, -10]),),
        (f32([math.log1p(math.exp(-20)), math.log1p(math.exp(-10))]),),
        "y = ln(exp(x) + 1)",
        "The logarithm of a number above one is positive: 2.0611536e-9. -1.9073486e-6 is returned.",
        absolute=0,
    ),
    Finding(
        "openvino-nms-threshold",
        "NonMaxSuppression drops a box whose overlap equals the threshold",
        OPENVINO,
        "NonMaxSuppression",
        11,
        (f32([[[0, 0, 1, 1], [0, 0, 1, 2]]]), f32([[[0.9, 0.8]]]), i64([2]), f32([0.5]), f32([0])),
        (i64([[0, 0, 0], [0, 0, 1]]),),
        "Boxes are suppressed if their IOU with a previously selected box is strictly greater than iou_threshold (i.e., "
        "boxes with IOU exactly equal to the threshold are kept).",
        "The overlap is 1, the union 2, their quotient 0.5 exactly. The second box is missing.",
    ),
    Finding(
        "openvino-dft-shape",
        "DFT of a real signal keeps the axis of length one, before that of the complex parts",
        OPENVINO,
        "DFT",
        17,
        (f32(np.arange(4).reshape(1, 4, 1)),),
        (f32([[[6, 0], [-2, 2], [-2, 0]]]),),
        "For RFFT (onesided=1, inverse=0), the output shape is: [batch_idx][signal_dim1][signal_dim2]...[signal_dimN][2]",
        "The last axis of the input, of length one, becomes that of real and imaginary part: (1, 3, 2). (1, 3, 1, 2) is "
        "returned.",
        {"axis": 1, "onesided": 1},
    ),
)
