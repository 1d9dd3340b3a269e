"""The verdict on single tensors: correct arithmetic in any order passes, faults fail, special values have rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from onnx_arch.conformance.calibration.data import KINDS, matrices
from onnx_arch.conformance.calibration.summing import ORDERS, blas
from onnx_arch.conformance.fingerprint import round_to_bits
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.conformance.verdict import judge as judge_tensor
from onnx_arch.operators.scale import Rule, Scale

from .judged_nodes import judge

Array = np.ndarray

LENGTHS = (16, 1024, 25088)
VARIED = [kind for kind in KINDS if kind not in ("equal", "dominated")]
"""Without sums of identical products, where a plain loop's own error is as large as a lost product, and without those
of one large product that comes first, where it is as large as that of TF32 (docs/calibration.md counts both)."""


def _outcome(row: NodeResult) -> tuple[Outcome, str]:
    return row.outcome, row.message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("seed", [0])
def test_correct_sums_in_every_order_pass(length: int, kind: str, seed: int) -> None:
    a, b = matrices(kind, 3, length, 24, seed)
    for name, order in ORDERS.items():
        row = judge("MatMul", [a, b], order(a, b))  # a false alarm here is the worst that the tool can do
        assert row.outcome is Outcome.PASSED, f"{name}: {row.message}"


@pytest.mark.parametrize("kind", ["signed", "positive", "constant"])
@pytest.mark.parametrize("length", LENGTHS)
def test_torch_and_a_large_blas_product_pass(length: int, kind: str) -> None:
    a, b = matrices(kind, 16, length, 200, 5)
    for y in (blas(a, b), (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()):
        assert _outcome(judge("MatMul", [a, b], y)) == (Outcome.PASSED, "")


def _rounded(bits: int) -> Callable[[Array, Array], Array]:
    return lambda a, b: blas(round_to_bits(a, bits).astype(np.float32), round_to_bits(b, bits).astype(np.float32))


def _half(a: Array, b: Array) -> Array:
    return blas(a.astype(np.float16).astype(np.float32), b.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("kind", VARIED)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("name", "compute"), [("TF32", _rounded(10)), ("BF16", _rounded(7)), ("FP16", _half)])
def test_narrow_inputs_fail_at_every_length(name: str, compute: Callable[..., Array], length: int, kind: str) -> None:
    if name == "FP16" and kind == "wide":
        pytest.skip("2^20 and its products lie beyond float16: infinity, which another test has")
    a, b = matrices(kind, 8, length, 128, 0)
    assert judge("MatMul", [a, b], compute(a, b)).outcome is Outcome.FAILED


@pytest.mark.parametrize(("name", "bits"), [("TF32", 10), ("BF16", 7)])
@pytest.mark.parametrize("kind", ["signed", "positive", "rectified"])
@pytest.mark.parametrize("length", LENGTHS)
def test_narrow_inputs_are_named(length: int, kind: str, name: str, bits: int) -> None:
    a, b = matrices(kind, 8, length, 128, 1)
    assert name in judge("MatMul", [a, b], _rounded(bits)(a, b)).fingerprint


def _dropped(a: Array, b: Array) -> Array:
    return blas(a[:, :-1], b[:-1])


def _duplicated(a: Array, b: Array) -> Array:
    return blas(a, b) + a[:, -1:] * b[-1:]


def _one_element(a: Array, b: Array) -> Array:
    y = blas(a, b)
    y.reshape(-1)[y.size // 2] *= np.float32(1.001)
    return y


def _one_row(a: Array, b: Array) -> Array:
    y = blas(a, b)
    y[0] = y[-1]
    return y


@pytest.mark.parametrize("fault", [_dropped, _duplicated, _one_element, _one_row], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", VARIED)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", [(2, 5), (8, 128)], ids=str)
def test_fault_that_moves_an_element_by_eight_root_k_fails(
    shape: tuple[int, int], length: int, kind: str, fault: Callable[..., Array]
) -> None:
    a, b = matrices(kind, shape[0], length, shape[1], 0)
    y = fault(a, b)
    moved = np.abs(y - a.astype(np.float64) @ b) / ((np.abs(a).astype(np.float64) @ np.abs(b)) * 2.0**-24)
    row = judge("MatMul", [a, b], y)
    if moved.max() > 8 * np.sqrt(length):
        assert row.outcome is Outcome.FAILED
    else:
        assert row.outcome in (Outcome.PASSED, Outcome.FAILED)  # below what the verdict promises to see


@pytest.mark.parametrize("kind", ["signed", "positive", "rectified"])
@pytest.mark.parametrize("length", LENGTHS)
def test_fault_on_ordinary_data_is_above_the_promise(length: int, kind: str) -> None:
    """The test before asserts something on ordinary data: a lost product of 1,024 outputs is beyond the bound."""
    a, b = matrices(kind, 8, length, 128, 0)
    moved = np.abs(_dropped(a, b) - a.astype(np.float64) @ b)
    assert (moved / ((np.abs(a).astype(np.float64) @ np.abs(b)) * 2.0**-24)).max() > 8 * np.sqrt(length)


def _image(seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 16, 14, 14)).astype(np.float32)
    return x, (rng.standard_normal((24, 16, 3, 3)) / 12).astype(np.float32), rng.standard_normal(24).astype(np.float32)


def _conv(x: Array, w: Array, b: Array | None, **options: Any) -> Array:
    tensors = [None if t is None else torch.from_numpy(t) for t in (x, w, b)]
    return torch.nn.functional.conv2d(*tensors, **{"padding": 1, **options}).numpy()  # type: ignore[arg-type]


PADS = {"pads": [1, 1, 1, 1]}


def test_convolution_by_torch_passes() -> None:
    x, w, b = _image()
    assert _outcome(judge("Conv", [x, w, b], _conv(x, w, b), PADS)) == (Outcome.PASSED, "")


CONV_FAULTS: dict[str, tuple[Callable[[Array, Array, Array], Array], str]] = {
    "one element off by 1e-3": (lambda x, w, b: _off(_conv(x, w, b)), ""),
    "bias added twice": (lambda x, w, b: _conv(x, w, 2 * b), "bias added twice"),
    "bias left out": (lambda x, w, b: _conv(x, w, None), "bias left out"),
    "TF32": (lambda x, w, b: _conv(*(round_to_bits(t, 10).astype(np.float32) for t in (x, w)), b), "TF32"),
    "shifted": (lambda x, w, b: np.roll(_conv(x, w, b), 1, axis=3), ""),
    "weights flipped": (lambda x, w, b: _conv(x, w[..., ::-1, ::-1].copy(), b), ""),
}


def _off(y: Array) -> Array:
    y = y.copy()
    y[0, 7, 3, 3] *= np.float32(1.001)
    return y


@pytest.mark.parametrize(("fault", "name"), CONV_FAULTS.values(), ids=CONV_FAULTS.keys())
@pytest.mark.parametrize("seed", [0, 1])
def test_faulty_convolution_fails(fault: Callable[..., Array], name: str, seed: int) -> None:
    x, w, b = _image(seed)
    row = judge("Conv", [x, w, b], fault(x, w, b), PADS)
    assert row.outcome is Outcome.FAILED
    assert name in row.fingerprint


def test_padded_border_of_a_zero_image_must_be_exactly_zero() -> None:
    x, w, _ = _image()
    x[...] = 0
    y = _conv(x, w, None)
    assert judge("Conv", [x, w], y, PADS).outcome is Outcome.PASSED
    y[0, 0, 0, 0] = np.float32(1e-30)
    row = judge("Conv", [x, w], y, PADS)
    assert row.outcome is Outcome.FAILED
    assert "exactly 0" in row.message


@pytest.mark.parametrize("fault", [{"axis": 0}, {"scaled": 1 + 1e-4}, {"narrow": np.float16}], ids=str)
def test_faulty_softmax_fails(fault: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    right = torch.softmax(torch.from_numpy(x), 1).numpy()
    assert judge("Softmax", [x], right, {"axis": 1}).outcome is Outcome.PASSED
    wrong = torch.softmax(torch.from_numpy(x), fault.get("axis", 1)).numpy() * np.float32(fault.get("scaled", 1))
    wrong = wrong.astype(fault.get("narrow", np.float32)).astype(np.float32)
    row = judge("Softmax", [x], wrong, {"axis": 1})
    assert row.outcome is Outcome.FAILED
    assert ("axis 0" in row.fingerprint) == ("axis" in fault)


@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 1e-3])
def test_layer_normalization_with_another_epsilon_fails_and_is_named(mean: float, epsilon: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((64, 200)) + mean).astype(np.float32)
    w, b = rng.standard_normal(200).astype(np.float32), rng.standard_normal(200).astype(np.float32)
    tensors = [torch.from_numpy(t) for t in (x, w, b)]
    right, wrong = (
        torch.nn.functional.layer_norm(tensors[0], (200,), tensors[1], tensors[2], e).numpy() for e in (1e-5, epsilon)
    )
    assert _outcome(judge("LayerNormalization", [x, w, b], right)) == (Outcome.PASSED, "")
    row = judge("LayerNormalization", [x, w, b], wrong)
    assert row.outcome is Outcome.FAILED
    assert "epsilon" in row.fingerprint


def test_tanh_gelu_in_place_of_erf_gelu_fails_and_is_named() -> None:
    x = np.linspace(-5, 5, 2001, dtype=np.float32)
    right, wrong = (torch.nn.functional.gelu(torch.from_numpy(x), approximate=a).numpy() for a in ("none", "tanh"))
    assert judge("Gelu", [x], right).outcome is Outcome.PASSED
    row = judge("Gelu", [x], wrong)
    assert row.outcome is Outcome.FAILED
    assert "tanh" in row.fingerprint


def test_attention_without_its_causal_mask_fails_and_is_named() -> None:
    q, k, v = (np.random.default_rng(i).standard_normal((1, 2, 12, 8)).astype(np.float32) for i in range(3))
    tensors = [torch.from_numpy(t) for t in (q, k, v)]
    right, wrong = (
        torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=c).numpy() for c in (True, False)
    )
    assert judge("Attention", [q, k, v], right, {"is_causal": 1}).outcome is Outcome.PASSED
    row = judge("Attention", [q, k, v], wrong, {"is_causal": 1})
    assert row.outcome is Outcome.FAILED
    assert row.fingerprint == "causal mask ignored"


def test_max_pool_shifted_by_one_fails_and_is_named() -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)
    attributes = {"kernel_shape": [2, 2], "strides": [1, 1]}
    pool = torch.nn.MaxPool2d(2, 1)
    assert judge("MaxPool", [x], pool(torch.from_numpy(x)).numpy(), attributes).outcome is Outcome.PASSED
    moved = np.roll(x, -1, axis=3)
    moved[..., -1] = -np.inf
    row = judge("MaxPool", [x], pool(torch.from_numpy(moved)).numpy(), attributes)
    assert row.outcome is Outcome.FAILED
    assert "window shifted" in row.fingerprint


SPECIAL: list[tuple[str, float, float, float, Outcome]] = [
    ("NaN kept", np.nan, 1.0, np.nan, Outcome.PASSED),
    ("NaN turned to zero", np.nan, 1.0, 0.0, Outcome.FAILED),
    ("infinity kept", np.inf, 1.0, np.inf, Outcome.PASSED),
    ("infinity turned to the largest", np.inf, 1.0, float(np.finfo(np.float32).max), Outcome.FAILED),
    ("infinity of the other sign", np.inf, 1.0, -np.inf, Outcome.FAILED),
    ("NaN for one infinity", np.inf, 1.0, np.nan, Outcome.FAILED),
    ("NaN for a number", 2.0, 1.0, np.nan, Outcome.FAILED),
    ("overflow to infinity", 3e38, 2.0, np.inf, Outcome.PASSED),
    ("overflow to the wrong infinity", 3e38, 2.0, -np.inf, Outcome.FAILED),
    ("NaN for an overflow of one sign", 3e38, 2.0, np.nan, Outcome.FAILED),
    ("flushed subnormal", 1e-40, 1.0, 0.0, Outcome.PASSED),
    ("a normal number flushed", 1e-37, 1.0, 0.0, Outcome.FAILED),
]


@pytest.mark.parametrize(("name", "left", "right", "stored", "outcome"), SPECIAL, ids=[row[0] for row in SPECIAL])
def test_special_values_in_a_product(name: str, left: float, right: float, stored: float, outcome: Outcome) -> None:
    a, b = np.full((2, 1), left, np.float32), np.full((1, 2), right, np.float32)
    assert judge("MatMul", [a, b], np.full((2, 2), stored, np.float32)).outcome is outcome


@pytest.mark.parametrize(
    ("stored", "outcome"),
    [
        ([2.0**-16, 2.0**-17, 1.0], Outcome.PASSED),
        ([0.0, 0.0, 1.0], Outcome.PASSED),
        ([2.0**-16, 0.0, 1.0], Outcome.FAILED),
    ],
    ids=["kept", "all flushed", "one lost among others that are kept"],
)
def test_subnormal_float16_is_flushed_everywhere_or_nowhere(stored: list[float], outcome: Outcome) -> None:
    a, b = np.array([[2.0**-16], [2.0**-17], [1.0]], np.float16), np.ones((1, 1), np.float16)
    assert judge("MatMul", [a, b], np.array(stored, np.float16)[:, None]).outcome is outcome


def test_deviation_where_none_is_allowed_is_the_worst_of_all() -> None:
    """An element that admits no error at all is named before one that is only far beyond its bound."""
    scale = Scale(np.array([1.0, 1e-30]), np.array([1.0, 0.0]), Rule.ULP)
    actual = np.array([2.0, 1.0], np.float32)
    verdict = judge_tensor(actual, np.array([1.0, 0.5]), np.dtype(np.float32), scale)
    assert verdict.outcome is Outcome.FAILED
    assert "[1]" in verdict.message


@pytest.mark.parametrize("op_type", ["ReduceL1", "ReduceSumSquare", "ReduceProd"])
@pytest.mark.parametrize("length", [1024, 25088])
def test_reduction_by_a_loop_passes_and_off_by_a_thousandth_fails(op_type: str, length: int) -> None:
    x = (1 + 1e-3 * np.random.default_rng(length).standard_normal((6, length))).astype(np.float32)
    steps = {"ReduceL1": np.abs(x), "ReduceSumSquare": x * x, "ReduceProd": x}[op_type]
    way = np.multiply if op_type == "ReduceProd" else np.add
    y = way.accumulate(steps, axis=1)[:, -1:]
    row = judge(op_type, [x, np.array([1])], y, opset=18)
    assert row.outcome is Outcome.PASSED, row.message
    y[3] *= np.float32(1.001)
    assert judge(op_type, [x, np.array([1])], y, opset=18).outcome is Outcome.FAILED


@pytest.mark.parametrize("p", [1, 2])
def test_long_norm_by_a_loop_passes(p: int) -> None:
    """The witness adds as the kernel does: equal values are where a loop is farthest off."""
    x = np.full((2, 9216), 0.1234, np.float32)
    total = np.add.accumulate(np.abs(x) ** p, axis=1, dtype=np.float32)[:, -1:]
    row = judge("LpNormalization", [x], x / total ** np.float32(1 / p), {"p": p}, opset=22)
    assert row.outcome is Outcome.PASSED, row.message


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", ["signed", "positive"])
@pytest.mark.parametrize("length", [16, 1024, 25088])
def test_narrow_storage_accumulated_in_float32_passes_and_in_itself_fails(kind: str, length: int, dtype: Any) -> None:
    a, b = (x.astype(dtype) for x in matrices(kind, 4, length, 40, 0))
    right = blas(a.astype(np.float32), b.astype(np.float32)).astype(dtype)
    assert _outcome(judge("MatMul", [a, b], right)) == (Outcome.PASSED, "")
    total = np.zeros((4, 40), dtype)
    for k in range(length):
        total = (total + a[:, k, None] * b[k]).astype(dtype)
    if kind == "positive" and length > 16:  # sums that cancel hide it: their partial sums stay small
        assert judge("MatMul", [a, b], total).outcome is Outcome.FAILED


def test_float64_products_pass_and_a_lost_one_fails() -> None:
    a, b = (x.astype(np.float64) for x in matrices("signed", 8, 500, 30, 0))
    assert judge("MatMul", [a, b], a[:, ::-1] @ b[::-1]).outcome is Outcome.PASSED
    assert judge("MatMul", [a, b], a[:, 1:] @ b[1:]).outcome is Outcome.FAILED


@pytest.mark.parametrize("op_type", ["Relu", "Neg", "Abs", "Identity"])
def test_exact_operator_one_ulp_off_fails_and_names_the_element(op_type: str) -> None:
    x = np.array([[1.0, -2.0, 3.0]], np.float32)
    right = {"Relu": np.maximum(x, 0), "Neg": -x, "Abs": np.abs(x), "Identity": x}[op_type]
    assert judge(op_type, [x], right).outcome is Outcome.PASSED
    wrong = right.copy()
    wrong[0, 2] = np.nextafter(wrong[0, 2], np.float32(9))
    row = judge(op_type, [x], wrong)
    assert row.outcome is Outcome.FAILED
    assert "[0, 2]" in row.message


def test_zeros_of_the_other_sign_pass_and_are_reported() -> None:
    x = np.array([0.0, 1.0], np.float32)
    row = judge("Identity", [x], np.array([-0.0, 1.0], np.float32))
    assert row.outcome is Outcome.PASSED
    assert "other sign" in row.message


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (np.ones((2, 2), np.float64), "dtype float64, expected float32"),
        (np.ones((2, 2), np.float16), "dtype float16, expected float32"),
        (np.ones((1, 2, 2), np.float32), "shape [1, 2, 2], expected [2, 2]"),
        (np.ones(4, np.float32), "shape [4], expected [2, 2]"),
        (None, "nothing returned"),
        ([np.ones((2, 2), np.float32)], "list returned"),
    ],
)
def test_wrong_kind_of_output_fails_before_its_values(actual: Any, words: str) -> None:
    x = np.ones((2, 2), np.float32)
    row = judge("Identity", [x], actual)
    assert row.outcome is Outcome.FAILED
    assert words in row.message


@pytest.mark.parametrize("shape", [(0, 3), (), (1,)])
def test_empty_and_rank_zero_tensors_are_judged(shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float32)
    assert judge("Add", [x, x], x + x).outcome is Outcome.PASSED
    assert judge("Add", [x, x], (x + x).astype(np.float64)).outcome is Outcome.FAILED


def test_several_outputs_have_the_worst_verdict_of_them() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    right = (x[:, :1], x[:, 1:])
    attributes = {"axis": 1}
    inputs = [x, np.array([1, 2], np.int64)]
    assert judge("Split", inputs, right, attributes, opset=13).outcome is Outcome.PASSED
    row = judge("Split", inputs, (right[0], right[1] + 1), attributes, opset=13)
    assert row.outcome is Outcome.FAILED
    assert "output 1" in row.message


def test_without_a_scale_values_are_unjudged_but_shape_and_dtype_are_not() -> None:
    reference = np.ones(3)
    verdict = judge_tensor(np.ones(3, np.float32), reference, np.dtype(np.float32), None)
    assert verdict.outcome is Outcome.UNJUDGED
    assert judge_tensor(np.ones(4, np.float32), reference, np.dtype(np.float32), None).outcome is Outcome.FAILED


def test_elements_that_the_specification_leaves_open_are_not_judged() -> None:
    scale = Scale(np.zeros(()), np.array([0.0, np.inf]), Rule.EXACT)
    actual = np.array([1.0, 99.0], np.float32)
    assert judge_tensor(actual, np.array([1.0, 2.0]), np.dtype(np.float32), scale).outcome is Outcome.PASSED
    assert judge_tensor(actual[::-1], np.array([1.0, 2.0]), np.dtype(np.float32), scale).outcome is Outcome.FAILED


def test_string_outputs_are_compared() -> None:
    x = np.array(["a", "b"], object)
    assert judge("Identity", [x], x.copy()).outcome is Outcome.PASSED
    assert judge("Identity", [x], np.array(["a", "c"], object)).outcome is Outcome.FAILED
