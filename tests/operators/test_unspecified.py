"""What the specification leaves open is not judged by one reading of it, and what stands beside it still is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.verdict import judge
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import prepare

from .judging import call, verdict_on

F = np.float32
NAN, INF = np.nan, np.inf


def outcomes(readings: Sequence[Any], op_type: str, *inputs: Any, opset: int, **attributes: Any) -> list[Outcome]:
    """The outcome of each of several outputs."""
    return [verdict_on(np.asarray(y), op_type, *inputs, opset=opset, **attributes).outcome for y in readings]


PASSED, FAILED, UNJUDGED = Outcome.PASSED, Outcome.FAILED, Outcome.UNJUDGED


@pytest.mark.parametrize("op_type", ["ScatterElements", "Scatter"])
def test_scatter_of_different_updates_to_one_place_leaves_it_open(op_type: str) -> None:
    inputs = (F([1, 2, 3]), np.array([0, 0, 2]), F([5, 6, 7]))
    readings = [F([5, 2, 7]), F([6, 2, 7]), F([5, 3, 7])]
    assert outcomes(readings, op_type, *inputs, opset=18 if op_type == "ScatterElements" else 9) == [
        PASSED,
        PASSED,
        FAILED,
    ]


def test_scatter_nd_of_equal_updates_to_one_place_is_judged() -> None:
    data, indices = F([[1, 1], [2, 2]]), np.array([[0], [0]])
    same, different = F([[5, 6], [5, 6]]), F([[5, 6], [5, 7]])
    readings = [F([[5, 6], [2, 2]]), F([[5, 7], [2, 2]]), F([[4, 6], [2, 2]])]
    assert outcomes(readings, "ScatterND", data, indices, same, opset=18) == [PASSED, FAILED, FAILED]
    assert outcomes(readings, "ScatterND", data, indices, different, opset=18) == [PASSED, PASSED, FAILED]


def test_scatter_of_the_larger_of_nan_and_a_number_is_open() -> None:
    inputs = (F([NAN, 2]), np.array([0, 1]), F([5, 6]))
    readings = [F([NAN, 6]), F([5, 6]), F([NAN, 2])]
    assert outcomes(readings, "ScatterElements", *inputs, opset=18, reduction="max") == [PASSED, PASSED, FAILED]


def test_max_unpool_is_open_where_indices_meet_and_where_the_output_shape_may_count() -> None:
    x, kernel = F([1, 2]).reshape(1, 1, 2), {"kernel_shape": [2], "strides": [2]}
    met = np.array([0, 0]).reshape(1, 1, 2)
    readings = [F([[[2, 0, 0, 0]]]), F([[[1, 0, 0, 0]]]), F([[[2, 1, 0, 0]]])]
    assert outcomes(readings, "MaxUnpool", x, met, opset=11, **kernel) == [PASSED, PASSED, FAILED]
    image = F([[1, 2]]).reshape(1, 1, 1, 2)
    at, shape = np.array([0, 3]).reshape(1, 1, 1, 2), np.array([1, 1, 2, 5])
    square = {"kernel_shape": [2, 2], "strides": [2, 2]}
    inner, outer, wrong = (np.zeros((1, 1, 2, 5), F) for _ in range(3))
    inner[0, 0, 0, [0, 3]], outer[0, 0, 0, [0, 3]] = (1, 2), (1, 2)
    wrong[0, 0, 1, 4] = 1
    at = np.array([0, 5]).reshape(1, 1, 1, 2)  # in 2 × 4: row 1, column 1; in 2 × 5: row 1, column 0
    inner[:], outer[:] = 0, 0
    inner[0, 0, 0, 0], inner[0, 0, 1, 1] = 1, 2
    outer[0, 0, 0, 0], outer[0, 0, 1, 0] = 1, 2
    assert outcomes([inner, outer, wrong], "MaxUnpool", image, at, shape, opset=11, **square) == [
        PASSED,
        PASSED,
        FAILED,
    ]


def test_max_unpool_with_indices_that_fit_the_output_shape_alone_places_them_there() -> None:
    x, at = F([1, 2]).reshape(1, 1, 1, 2), np.array([0, 9]).reshape(1, 1, 1, 2)
    square = {"kernel_shape": [2, 2], "strides": [2, 2]}
    y = call("MaxUnpool", x, at, np.array([1, 1, 2, 5]), opset=11, **square)
    assert np.flatnonzero(y).tolist() == [0, 9]
    with pytest.raises(InvalidInputError, match="indices 0 to 9"):
        call("MaxUnpool", x, at, opset=11, **square)


@pytest.mark.parametrize(("op_type", "value"), [("MaxPool", 3), ("AveragePool", 3)])
def test_window_without_an_element_is_open(op_type: str, value: float) -> None:
    x = F([3]).reshape(1, 1, 1)
    options = {"kernel_shape": [2], "dilations": [2], "pads": [1, 2]}  # taps at −1 and 1, then at 0 and 2
    readings = [F([[[0, value]]]), F([[[-INF, value]]]), F([[[NAN, value]]]), F([[[0, value + 1]]])]
    assert outcomes(readings, op_type, x, opset=19 if op_type == "AveragePool" else 12, **options) == [
        PASSED,
        PASSED,
        PASSED,
        FAILED,
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_mean_of_nothing_is_open(dtype: type[np.generic]) -> None:
    x, axes = np.zeros((2, 0), dtype), np.array([1])
    verdict = verdict_on(np.zeros(2, dtype), "ReduceMean", x, axes, opset=18, keepdims=0)
    assert verdict.outcome is UNJUDGED


def test_mean_of_integers_that_is_no_integer_may_be_either_neighbour() -> None:
    x = np.int32([[1, 2], [2, 2], [-1, -2]])
    readings = [np.int32([1, 2, -1]), np.int32([2, 2, -2]), np.int32([1, 3, -1]), np.int32([3, 2, -1])]
    assert outcomes(readings, "ReduceMean", x, np.array([1]), opset=18, keepdims=0) == [PASSED, PASSED, FAILED, FAILED]


def test_root_of_integers_beyond_float32_may_be_the_next_one() -> None:
    x = np.int64([[2**30, 2], [3, 4]])  # the first just above 2^30
    readings = np.int64([[2**30, 5], [2**30 - 1, 5], [2**30, 6], [2**30, 4]])
    assert outcomes(readings, "ReduceL2", x, np.array([1]), opset=18, keepdims=0) == [PASSED, PASSED, FAILED, FAILED]


@pytest.mark.parametrize("order", [[1e30, 1e30, 1e-30, 1e-30], [1e-30, 1e-30, 1e30, 1e30]])
def test_product_that_leaves_the_range_on_its_way_is_open(order: list[float]) -> None:
    x = F([order, [1, 2, 3, 4]])
    with np.errstate(over="ignore"):
        naive, running = np.multiply.reduce(x, axis=1), np.multiply.accumulate(x, axis=1)
    readings = [F([1, 24]), naive, F([1, 25])]
    assert outcomes(readings, "ReduceProd", x, np.array([1]), opset=18, keepdims=0) == [PASSED, PASSED, FAILED]
    lost = running.copy()
    lost[1, 3] = 25
    assert outcomes([running, lost], "CumProd", x, np.array(1), opset=26) == [PASSED, FAILED]


def test_logarithm_of_a_sum_that_cancels_to_rounding_is_open() -> None:
    x = F([[1, -1 + 2.0**-24], [1, 1]])
    readings = [F([-16.635532, 0.6931472]), F([-INF, 0.6931472]), F([NAN, 0.6931472]), F([-16.635532, 0.7])]
    found = outcomes(readings, "ReduceLogSum", x, np.array([1]), opset=18, keepdims=0)
    assert found == [PASSED, PASSED, PASSED, FAILED]


def test_exponentials_beyond_float64_may_be_infinite_and_nothing_else() -> None:
    x = F([[800, 800], [100, 100], [-800, -800]])
    right = F(call("ReduceLogSumExp", x.astype(float), np.array([1]), opset=18, keepdims=0))
    readings = [
        right,
        F([INF, right[1], -INF]),
        F([right[0], INF, right[2]]),
        F([-INF, *right[1:]]),
        right + F([1, 0, 0]),
    ]
    assert outcomes(readings, "ReduceLogSumExp", x, np.array([1]), opset=18, keepdims=0) == [
        PASSED,
        PASSED,
        FAILED,
        FAILED,
        FAILED,
    ]


def test_swish_of_infinity_with_a_negative_alpha_is_open() -> None:
    readings = [F([NAN, 0.26894143]), F([0, 0.26894143]), F([NAN, 0.3])]
    assert outcomes(readings, "Swish", F([INF, 1]), opset=24, alpha=-1.0) == [PASSED, PASSED, FAILED]


def test_celu_with_a_negative_alpha_is_bounded_at_its_exponential() -> None:
    x = np.linspace(-60, 3, 64, dtype=F)
    naive = np.maximum(x, 0) + np.minimum(F(0), F(-0.7) * (np.exp(x / F(-0.7)) - F(1)))
    assert outcomes([naive, naive * F(1.001)], "Celu", x, opset=12, alpha=float(F(-0.7))) == [PASSED, FAILED]


def test_softplus_that_overflows_in_its_function_body_may_be_infinite() -> None:
    readings = [F([100, 1.3132617]), F([INF, 1.3132617]), F([100, 1.4]), F([101, 1.3132617]), F([NAN, 1.3132617])]
    assert outcomes(readings, "Softplus", F([100, 1]), opset=22) == [PASSED, PASSED, FAILED, FAILED, FAILED]
    assert outcomes([F([INF, 1.3132617])], "Softplus", F([80, 1]), opset=22) == [FAILED]


def test_gemm_of_integers_with_a_fractional_factor_is_not_judged() -> None:
    a, c = np.int64([[2**53 + 1, 1]]), np.int64([[1]])
    b = np.int64([[1], [0]])
    assert outcomes([np.int64([[2**54 + 3]])], "Gemm", a, b, c, opset=13, alpha=2.0) == [PASSED]
    assert outcomes([np.int64([[2**54 + 4]])], "Gemm", a, b, c, opset=13, alpha=2.0) == [FAILED]
    assert outcomes([np.int64([[5]])], "Gemm", a, b, c, opset=13, alpha=0.5) == [UNJUDGED]


@pytest.mark.parametrize(
    ("numbers", "settled"), [((0.0, 0.3, 0.1), False), ((0.0, 1.0, 0.25), True), ((1.0, 0.0, 0.1), True)]
)
def test_range_whose_length_depends_on_rounding_is_not_determined(
    numbers: tuple[float, float, float], settled: bool
) -> None:
    node = prepare("Range", [F(x) for x in numbers], {}, opset=11)
    if settled:
        assert node.scales(node.outputs()) is not None
        return
    with pytest.raises(InvalidInputError, match="not determined"):
        node.scales(node.outputs())


def test_affine_grid_of_one_element_with_corners_is_open_along_it() -> None:
    theta, size = F([[[1, 0, 0], [0, 1, 0]]]), np.array([1, 1, 1, 1])
    for value in (-1.0, 0.0, NAN):
        y = np.full((1, 1, 1, 2), value, F)
        assert verdict_on(y, "AffineGrid", theta, size, opset=20, align_corners=1).outcome is UNJUDGED


def test_nearest_sample_at_a_tie_is_open_until_the_text_names_the_even_one() -> None:
    x = F([10, 20, 30]).reshape(1, 1, 1, 3)
    grid = F([[[[-1 / 2, 0], [0, 0]]]])  # columns 0.5 and 1
    readings = [F([[[[10, 20]]]]), F([[[[20, 20]]]]), F([[[[10, 30]]]])]
    attributes = {"mode": "nearest", "align_corners": 1}
    assert outcomes(readings, "GridSample", x, grid, opset=16, **attributes) == [PASSED, PASSED, FAILED]
    assert outcomes(readings, "GridSample", x, grid, opset=20, **attributes) == [PASSED, FAILED, FAILED]


def test_last_state_of_a_sequence_without_a_step_is_open() -> None:
    rng = np.random.default_rng(0)
    x, w, r = (rng.normal(size=shape).astype(F) for shape in ((2, 2, 3), (1, 4, 3), (1, 4, 4)))
    lengths, h = np.int32([0, 2]), rng.normal(size=(1, 2, 4)).astype(F)
    inputs = (x, w, r, None, lengths, h)
    state = F(call("RNN", *inputs, opset=14, output_count=2)[1])
    other, wrong = state.copy(), state.copy()
    other[0, 0], wrong[0, 1] = 0, 0
    found = [verdict_on(y, "RNN", *inputs, opset=14, output=1).outcome for y in (state, other, wrong)]
    assert found == [PASSED, PASSED, FAILED]


def test_mask_of_a_dropout_that_drops_nothing_does_not_hide_the_verdict_on_the_other_output() -> None:
    assert verdict_on(np.ones(2, bool), "Dropout", F([1, 2]), opset=10, output=1).outcome is UNJUDGED
    assert verdict_on(F([1, 3]), "Dropout", F([1, 2]), opset=10).outcome is FAILED


def test_dynamic_scale_of_an_empty_tensor_is_open() -> None:
    y = verdict_on(F(1), "DynamicQuantizeLinear", np.zeros(0, F), opset=11, output=1)
    assert y.outcome is UNJUDGED
    assert verdict_on(F(1), "DynamicQuantizeLinear", np.zeros(1, F), opset=11, output=1).outcome is FAILED


def test_open_elements_are_counted_in_the_row() -> None:
    x = np.float32([1e10, 1.5])
    verdict = verdict_on(np.int32([7, 1]), "Cast", x, opset=13, to=onnx.TensorProto.INT32)
    assert verdict.outcome is PASSED
    assert verdict.message == "1 of 2 elements are not determined by the specification"


def test_transposed_convolution_beyond_its_natural_size_is_open_where_padding_may_not_be_negative() -> None:
    x, w = F([[[1, 2, 3]]]), F([[[1, 1]]])
    attributes = {"strides": [2], "output_shape": [8]}
    readings = [F([[[0, 1, 1, 2, 2, 3, 3, 0]]]), F([[[1, 1, 2, 2, 3, 3, 0, 0]]]), F([[[0, 9, 1, 2, 2, 3, 3, 0]]])]
    assert outcomes(readings, "ConvTranspose", x, w, opset=11, **attributes) == [PASSED, PASSED, FAILED]
    one_more = [F([[[1, 1, 2, 2, 3, 3, 0]]]), F([[[0, 1, 1, 2, 2, 3, 3]]])]  # half of one is none at the beginning
    assert outcomes(one_more, "ConvTranspose", x, w, opset=11, strides=[2], output_shape=[7]) == [PASSED, FAILED]


SAMPLES: dict[str, tuple[int, list[Any], dict[str, Any]]] = {
    "Resize": (
        13,
        [F([[[[1, INF, 3, 4]]]]), None, None, np.array([1, 1, 1, 7])],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "GridSample": (20, [F([[[[1, 2, 3, INF, 5]]]]), F([[[[0, 0], [-1, 0]]]])], {"align_corners": 1}),
    "DeformConv": (19, [F([[[[1, INF, 3, 4]]]]), np.ones((1, 1, 1, 1), F), np.zeros((1, 2, 1, 4), F)], {}),
    "RoiAlign": (
        16,
        [F([[[[1, INF, 3, 4]] * 2]]), F([[0.5, 0, 4.5, 1]]), np.array([0])],
        {"output_width": 4, "sampling_ratio": 1},
    ),
}


@pytest.mark.parametrize("op_type", sorted(SAMPLES))
def test_infinity_with_a_weight_of_zero_is_open_and_the_other_samples_are_judged(op_type: str) -> None:
    opset, inputs, attributes = SAMPLES[op_type]
    y = F(call(op_type, *inputs, opset=opset, **attributes))
    lost = np.isnan(y)
    assert lost.any()
    assert not lost.all()
    finite, wrong = np.where(lost, F(7), y), np.where(lost | np.isinf(y), y, y + 1)
    found = outcomes([y, finite, wrong], op_type, *inputs, opset=opset, **attributes)
    assert found == [PASSED, PASSED, FAILED]


def test_float16_infinity_is_not_its_largest_number() -> None:
    x = np.float16([np.inf, 1])
    largest = np.float16([65504, 2])
    assert outcomes([np.float16([np.inf, 2]), largest], "Add", x, np.float16([1, 1]), opset=14) == [PASSED, FAILED]


def test_simplified_layer_normalization_is_open_where_squares_overflow() -> None:
    x, weight = F([[1e30, 2e30], [1, 2]]), F([1, 1])
    right = F(call("SimplifiedLayerNormalization", x, weight, opset=1))
    lost, wrong = right.copy(), right.copy()
    lost[0], wrong[1] = 0, 0
    found = outcomes([right, lost, wrong], "SimplifiedLayerNormalization", x, weight, opset=1)
    assert found == [PASSED, PASSED, FAILED]


def test_batch_normalization_of_one_dimension_is_that_of_one_channel() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=8).astype(F)
    inputs = [rng.uniform(0.5, 1, 1).astype(F) for _ in range(4)]
    options = {"opset": 15, "training_mode": 1, "output_count": 3}
    y, mean, variance = call("BatchNormalization", x, *inputs, **options)
    column = call("BatchNormalization", x[:, None], *inputs, **options)
    assert np.array_equal(y, column[0][:, 0])
    assert (mean.shape, variance.shape) == ((1,), (1,))
    assert np.array_equal([mean, variance], column[1:])
    node = prepare("BatchNormalization", [x, *inputs], {"training_mode": 1}, opset=15, output_count=3)
    outputs, scales = node.judged()
    assert scales is not None
    for reference, scale in zip(outputs, scales, strict=True):
        assert judge(F(reference), reference, np.dtype(F), scale).outcome is PASSED
        assert judge(F(reference) + F(0.1), reference, np.dtype(F), scale).outcome is FAILED


def test_mean_variance_normalization_refuses_an_axis_that_is_not_there() -> None:
    with pytest.raises(InvalidAttributeError, match="rank 3"):
        call("MeanVarianceNormalization", np.zeros((2, 3, 4)), opset=13)


def test_local_response_normalization_whose_base_cancels_is_bounded_at_its_summands() -> None:
    x = np.linspace(0.5, 31, 64, dtype=F).reshape(1, 1, 64)
    naive = x / (F(1) + F(-1e-3) * (x * x)) ** F(0.75)
    attributes = {"size": 1, "alpha": float(F(-1e-3)), "beta": 0.75}
    assert outcomes([naive, naive * F(1.01)], "LRN", x, opset=13, **attributes) == [PASSED, FAILED]
