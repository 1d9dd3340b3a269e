"""MatMul, Gemm, Einsum, Conv, ConvTranspose: ONNX's node tests, torch in float64, the summands, the magnitudes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators._contraction import BLOCK_ELEMENTS, magnitude, product, products_in_passes
from onnx_arch.operators.evaluation import Call, prepare
from onnx_arch.operators.scale import Array, Rule

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case

WITH_CASES = {"MatMul", "Gemm", "Einsum", "Conv", "ConvTranspose"}

CONVOLUTIONS: list[dict[str, Any]] = [
    {"c": 6, "m": 8, "g": 1, "k": (3, 3), "s": (1, 1), "p": (1, 1), "d": (1, 1)},
    {"c": 6, "m": 8, "g": 2, "k": (3, 2), "s": (2, 1), "p": (2, 1), "d": (2, 1)},
    {"c": 8, "m": 8, "g": 8, "k": (3, 3), "s": (1, 1), "p": (1, 1), "d": (1, 1)},
    {"c": 4, "m": 8, "g": 4, "k": (1, 1), "s": (2, 2), "p": (0, 0), "d": (1, 1)},
    {"c": 5, "m": 7, "g": 1, "k": (1, 1), "s": (1, 1), "p": (0, 0), "d": (1, 1)},
    {"c": 4, "m": 6, "g": 2, "k": (5,), "s": (2,), "p": (1,), "d": (2,)},
    {"c": 4, "m": 4, "g": 1, "k": (2, 3, 2), "s": (1, 2, 1), "p": (1, 0, 1), "d": (1, 1, 2)},
    {"c": 128, "m": 950, "g": 1, "k": (3, 3), "s": (4, 5), "p": (1, 0), "d": (1, 2)},  # few windows, a large weight
]


def _named(setting: dict[str, Any]) -> str:
    return "-".join(f"{key}{value}" for key, value in setting.items()).replace(" ", "")


def _data(setting: dict[str, Any], *, transposed: bool, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    shape = (2, setting["c"], *(11, 13, 9)[: len(setting["k"])])
    per_group = (setting["m"] if transposed else setting["c"]) // setting["g"]
    first = setting["c"] if transposed else setting["m"]
    x = rng.standard_normal(shape).astype(np.float32)
    w = rng.standard_normal((first, per_group, *setting["k"])).astype(np.float32)
    return x, w, rng.standard_normal(setting["m"]).astype(np.float32)


def _attributes(setting: dict[str, Any]) -> dict[str, Any]:
    pads = [*setting["p"], *setting["p"]]
    return {"strides": list(setting["s"]), "pads": pads, "dilations": list(setting["d"]), "group": setting["g"]}


def _torch_conv(setting: dict[str, Any], x: Array, w: Array, b: Array) -> Array:
    function = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[
        len(setting["k"]) - 1
    ]
    tensors = [torch.from_numpy(t).double() for t in (x, w, b)]
    y = function(*tensors, stride=setting["s"], padding=setting["p"], dilation=setting["d"], groups=setting["g"])
    return y.numpy()


@pytest.mark.parametrize("case", cases(WITH_CASES), ids=str)
def test_onnx_node_case_gives_the_expected_output(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize("setting", CONVOLUTIONS, ids=_named)
def test_conv_in_float64_agrees_with_torch(setting: dict[str, Any]) -> None:
    x, w, b = _data(setting, transposed=False)
    y = call("Conv", x, w, b, opset=18, **_attributes(setting))
    np.testing.assert_allclose(y, _torch_conv(setting, x, w, b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("setting", CONVOLUTIONS, ids=_named)
def test_conv_transpose_in_float64_agrees_with_torch(setting: dict[str, Any]) -> None:
    x, w, b = _data(setting, transposed=True)
    function = getattr(torch.nn.functional, f"conv_transpose{len(setting['k'])}d")
    extra = [min(1, s - 1) for s in setting["s"]]
    expected = function(
        *(torch.from_numpy(t).double() for t in (x, w, b)),
        stride=setting["s"],
        padding=setting["p"],
        dilation=setting["d"],
        groups=setting["g"],
        output_padding=extra,
    ).numpy()
    y = call("ConvTranspose", x, w, b, opset=18, **_attributes(setting), output_padding=extra)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_auto_pad_agrees_with_onnxruntime(op_type: str, auto_pad: str) -> None:
    setting = {"c": 3, "m": 4, "g": 1, "k": (3, 4), "s": (2, 3), "p": (0, 0), "d": (1, 1)}
    x, w, b = _data(setting, transposed=op_type == "ConvTranspose")
    attributes = {"auto_pad": auto_pad, "strides": [2, 3]}
    (stored,) = run_onnxruntime(op_type, [x, w, b], attributes, opset=18)
    assert beyond(stored, op_type, x, w, b, opset=18, **attributes) == 0


@pytest.mark.parametrize("setting", CONVOLUTIONS, ids=_named)
def test_conv_products_add_up_to_the_output(setting: dict[str, Any]) -> None:
    x, w, b = _data(setting, transposed=False)
    node = prepare("Conv", [x, w, b], _attributes(setting), opset=18)
    y = node.outputs()[0]
    indices = np.random.default_rng(1).integers(0, y.size, 60)
    listed = node.entry.products
    assert listed is not None
    summands = listed(indices, *node.inputs, **node.keywords_of(listed))
    assert summands.shape == (60, setting["c"] // setting["g"] * math.prod(setting["k"]) + 1)
    np.testing.assert_allclose([math.fsum(row) for row in summands], y.reshape(-1)[indices], rtol=0, atol=1e-12)


@pytest.mark.parametrize("setting", CONVOLUTIONS, ids=_named)
def test_conv_magnitude_is_the_convolution_of_absolute_values(setting: dict[str, Any]) -> None:
    x, w, b = _data(setting, transposed=False)
    node = prepare("Conv", [x, w, b], _attributes(setting), opset=18)
    (scale,) = _scales(node)
    expected = _torch_conv(setting, abs(x), abs(w), abs(b))
    assert scale.rule is Rule.DOT
    assert scale.terms == setting["c"] // setting["g"] * math.prod(setting["k"]) + 1
    assert np.all(scale.magnitude >= expected * (1 - 1e-6))
    np.testing.assert_allclose(scale.magnitude, expected, rtol=2e-3)


def _scales(node: Call) -> tuple[Any, ...]:
    scales = node.scales(node.outputs())
    assert scales is not None
    return scales


def _product_magnitude(a: Array, b: Array) -> Array:
    return magnitude(lambda single: products_in_passes(a, b, (single,))[0], (a, b))


def test_magnitude_of_products_below_float32_is_computed_in_float64() -> None:
    a, b = np.full((1, 3), 1e-30), np.full((3, 1), 1e-25)
    size = _product_magnitude(a, b)
    np.testing.assert_allclose(size, 3e-55, rtol=2e-3)


def test_magnitude_beyond_float32_is_computed_in_float64() -> None:
    a = np.full((1, 2), 1e30)
    size = _product_magnitude(a, a.T)
    np.testing.assert_allclose(size, 2e60, rtol=2e-3)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 3000, 700), (3, 1, 1), (2, 0, 3), (0, 4, 3)])
@pytest.mark.parametrize("transposed", [False, True])
def test_blockwise_product_of_stored_weights_agrees_with_longdouble(m: int, k: int, n: int, transposed: bool) -> None:
    rng = np.random.default_rng(m + k + n)
    a = rng.standard_normal((m, k))
    stored = rng.standard_normal((n, k) if transposed else (k, n)).astype(np.float32)
    b = stored.T if transposed else stored
    y = product(a, b)
    assert y.dtype == np.float64
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    np.testing.assert_allclose(y, exact.astype(np.float64), rtol=0, atol=1e-11)


def test_block_size_is_crossed_by_the_blockwise_test() -> None:
    assert BLOCK_ELEMENTS < 3000 * 700


@pytest.mark.parametrize(("trans_a", "trans_b"), list(itertools.product((0, 1), repeat=2)))
@pytest.mark.parametrize("bias_shape", [None, (), (1,), (5,), (4, 1), (4, 5)])
def test_gemm_with_every_transposition_and_bias_is_the_written_formula(
    trans_a: int, trans_b: int, bias_shape: tuple[int, ...] | None
) -> None:
    rng = np.random.default_rng(trans_a * 2 + trans_b)
    a = rng.standard_normal((3, 4) if trans_a else (4, 3))
    b = rng.standard_normal((5, 3) if trans_b else (3, 5))
    c = None if bias_shape is None else rng.standard_normal(bias_shape)
    expected = 0.5 * (a.T if trans_a else a) @ (b.T if trans_b else b) + (0 if c is None else 0.25 * c)
    attributes = {"alpha": 0.5, "beta": 0.25, "transA": trans_a, "transB": trans_b}
    node = prepare("Gemm", [a, b, c], attributes, opset=13)
    np.testing.assert_allclose(node.outputs()[0], expected, rtol=0, atol=1e-14)
    listed = node.entry.products
    assert listed is not None
    summands = listed(np.arange(20), *node.inputs, **node.keywords_of(listed))
    np.testing.assert_allclose(summands.sum(axis=1).reshape(4, 5), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 3), (3, 5)), ((3,), (3, 5)), ((4, 3), (3,)), ((3,), (3,)), ((2, 1, 4, 3), (6, 3, 5)), ((6, 4, 3), (3,))],
)
def test_matmul_products_add_up_to_the_output_whatever_the_ranks(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal(left), rng.standard_normal(right)
    node = prepare("MatMul", [a, b], {}, opset=13)
    y = node.outputs()[0]
    assert node.entry.products is not None
    summands = node.entry.products(np.arange(np.size(y)), a, b)
    np.testing.assert_allclose(summands.sum(axis=1), np.reshape(y, -1), rtol=0, atol=1e-14)


def test_integer_matmul_wraps_and_is_exact() -> None:
    a = np.array([[2**31 - 1, 1]], np.int32)
    y = call("MatMul", a, a.T, opset=13)
    assert y.dtype == np.int32
    assert y[0, 0] == ((2**31 - 1) ** 2 + 1 + 2**31) % 2**32 - 2**31


@pytest.mark.parametrize(
    ("equation", "shapes", "terms"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)], 4),
        ("bij, bjk -> bik", [(2, 3, 4), (2, 4, 5)], 4),
        ("...ij,...jk", [(2, 3, 4), (2, 4, 5)], 4),
        ("i,i", [(6,), (6,)], 6),
        ("ij->ji", [(3, 4)], 1),
        ("ij,jk,kl->il", [(3, 4), (4, 5), (5, 2)], 21),
    ],
)
def test_einsum_counts_the_summed_indices(equation: str, shapes: list[tuple[int, ...]], terms: int) -> None:
    rng = np.random.default_rng(3)
    xs = [rng.standard_normal(shape) for shape in shapes]
    node = prepare("Einsum", xs, {"equation": equation}, opset=12)
    np.testing.assert_allclose(node.outputs()[0], torch.einsum(equation, *map(torch.from_numpy, xs)), atol=1e-13)
    assert _scales(node)[0].terms == terms


@pytest.mark.parametrize(
    ("op_type", "shapes", "attributes", "error"),
    [
        ("Conv", [(1, 4, 5, 5), (2, 3, 3, 3)], {}, InvalidInputError),
        ("Conv", [(1, 4, 5, 5), (3, 2, 3, 3)], {"group": 2}, InvalidInputError),
        ("Conv", [(1, 4, 5, 5), (2, 4, 3)], {}, InvalidInputError),
        ("Conv", [(1, 4, 5, 5), (2, 4, 3, 3)], {"kernel_shape": [5, 5]}, InvalidAttributeError),
        ("Conv", [(1, 4, 5, 5), (2, 4, 3, 3)], {"strides": [1]}, InvalidAttributeError),
        ("MatMul", [(2, 3), (4, 5)], {}, InvalidInputError),
        ("MatMul", [(), (4, 5)], {}, InvalidInputError),
        ("Gemm", [(2, 3, 4), (4, 5)], {}, InvalidInputError),
    ],
)
def test_operands_that_do_not_go_together_are_refused(
    op_type: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=op_type if error is InvalidInputError else "kernel_shape|strides"):
        call(op_type, *(np.ones(shape) for shape in shapes), opset=18, **attributes)


@pytest.mark.parametrize("pads", [[-1, 0, 0, -1], [-1, -1, -1, -1], [2, -1, 0, 1]])
def test_conv_with_negative_pads_crops(pads: list[int]) -> None:
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((1, 2, 7, 8)), rng.standard_normal((3, 2, 3, 3))
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    expected = torch.nn.functional.conv2d(padded, torch.from_numpy(w)).numpy()
    np.testing.assert_allclose(call("Conv", x, w, opset=18, pads=pads), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (1, 3, 2, 5)])
def test_conv_of_an_empty_batch_or_too_small_image_is_empty(shape: tuple[int, ...]) -> None:
    y = call("Conv", np.ones(shape), np.ones((4, 3, 3, 3)), opset=18)
    assert y.size == 0
    assert y.shape[1] == 4
