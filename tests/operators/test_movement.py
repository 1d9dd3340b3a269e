"""Movement, indexing and sequences: ONNX's node tests, plain loops, torch, old versions, scales, refusals."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.registry import find_kernel, parameters
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case

WITH_CASES = {
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Pad", "Expand",
    "Tile", "Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND", "DepthToSpace",
    "SpaceToDepth", "ReverseSequence", "Trilu", "Compress", "SplitToSequence", "SequenceInsert", "OptionalGetElement",
    "OptionalHasElement", "TensorScatter", "CenterCropPad",
}  # fmt: skip
SEQUENCES = {
    "SequenceConstruct", "SequenceEmpty", "SequenceAt", "SequenceErase", "SequenceLength", "ConcatFromSequence",
    "Optional",
}  # fmt: skip
OTHER_FAMILIES = {
    "Shape", "Size", "Constant", "ConstantOfShape", "Range", "EyeLike", "OneHot", "NonZero", "ArgMax", "ArgMin", "TopK",
    "Unique", "Hardmax", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool",
    "GlobalMaxPool", "GlobalLpPool", "MaxUnpool", "Col2Im", "Upsample", "Resize",
}  # fmt: skip


@pytest.mark.parametrize("case", cases(WITH_CASES), ids=str)
def test_onnx_node_case_gives_the_expected_output(case: Case) -> None:
    check_case(case)


def _schemas() -> list[onnx.defs.OpSchema]:
    wanted = WITH_CASES | SEQUENCES | OTHER_FAMILIES
    found = [s for s in onnx.defs.get_all_schemas_with_history() if s.name in wanted and not s.domain]
    assert {s.name for s in found} == wanted
    return [s for s in found if not s.deprecated]


@pytest.mark.parametrize("schema", _schemas(), ids=lambda s: f"{s.name}-{s.since_version}")
def test_kernel_of_every_schema_version_takes_its_inputs_and_attributes(schema: onnx.defs.OpSchema) -> None:
    function = find_kernel(schema.name, opset=schema.since_version).function
    signature = inspect.signature(function).parameters
    positional = [p for p in signature.values() if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in positional)
    required = sum(i.option == onnx.defs.OpSchema.FormalParameterOption.Single for i in schema.inputs)
    assert set(schema.attributes) <= set(parameters(function))
    assert variadic or sum(p.default is p.empty for p in positional) <= required <= len(positional)
    assert variadic or len(positional) >= len(schema.inputs)
    for name, attribute in schema.attributes.items():
        if attribute.default_value.name:
            default = onnx.helper.get_attribute_value(attribute.default_value)
            assert signature[name].default == (default.decode() if isinstance(default, bytes) else default), name


X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    ("op_type", "opset", "inputs", "attributes", "expected"),
    [
        ("Reshape", 1, [X], {"shape": [0, 2, -1]}, X.reshape(3, 2, 2)),
        ("Reshape", 5, [X, np.array([-1, 0])], {}, X.reshape(3, 4)),
        ("Reshape", 14, [X[:0], np.array([5, 0])], {"allowzero": 1}, np.zeros((5, 0))),
        ("Reshape", 13, [X[:1, :1], np.array([], np.int64)], {}, np.array(0.0)),
        ("Squeeze", 1, [X[None]], {"axes": [0]}, X),
        ("Squeeze", 11, [X[:, None, :, None]], {"axes": [-1]}, X[:, None]),
        ("Squeeze", 13, [X[None, :, None]], {}, X),
        ("Unsqueeze", 1, [X], {"axes": [0, 3]}, X[None, :, :, None]),
        ("Unsqueeze", 13, [X, np.array([-1, 0])], {}, X[None, :, :, None]),
        ("Concat", 1, [X, X], {}, np.hstack([X, X])),
        ("Concat", 4, [X, X[:0]], {"axis": -2}, X),
        ("Slice", 1, [X], {"starts": [1, -3], "ends": [1000, -1]}, X[1:, 1:3]),
        ("Slice", 1, [X], {"starts": [0], "ends": [2], "axes": [1]}, X[:, :2]),
        ("Pad", 1, [X], {"paddings": [0, 1, 0, 0], "value": 7.0}, np.pad(X, ((0, 0), (1, 0)), constant_values=7)),
        ("Pad", 2, [X], {"pads": [1, 0, -1, 0], "mode": "edge"}, np.pad(X[:-1], ((1, 0), (0, 0)), mode="edge")),
        ("Pad", 18, [X, np.array([1, 2]), None, np.array([-1])], {}, np.pad(X, ((0, 0), (1, 2)))),
        ("Tile", 1, [X, np.float32([2]), np.float32([1])], {}, np.tile(X, (1, 2))),
        ("Tile", 6, [X, np.array([2, 0])], {}, np.zeros((6, 0))),
        ("Flatten", 1, [X[:, :, None]], {"axis": 0}, X.reshape(1, 12)),
        ("Flatten", 11, [X[:0]], {"axis": -1}, np.zeros((0, 4))),
        ("Gather", 1, [X, np.array(1)], {}, X[1]),
        ("Gather", 11, [X[0], np.array(-1)], {}, np.array(3.0)),
        ("GatherND", 11, [X, np.array([[0, 1], [-1, -1]])], {}, np.array([1.0, 11.0])),
        ("GatherElements", 11, [X, np.array([[2], [-3]])], {}, np.array([[8.0], [0.0]])),
        ("Scatter", 9, [X[0], np.array([2]), np.float32([9])], {}, np.array([0.0, 1, 9, 3])),
        ("DepthToSpace", 1, [np.arange(8.0).reshape(1, 8, 1, 1)], {"blocksize": 2},
         np.array([[[[0.0, 2], [4, 6]], [[1, 3], [5, 7]]]])),
        ("Trilu", 14, [X, np.array(-(2**63))], {}, X),
        ("Trilu", 14, [X, np.array(2**63 - 1)], {"upper": 0}, X),
        ("Expand", 8, [np.array(5.0), np.array([0, 2])], {}, np.zeros((0, 2))),
        ("Expand", 13, [X[:, :1], np.array([1, 4])], {}, np.repeat(X[:, :1], 4, 1)),
        ("Identity", 1, [np.array(3.0)], {}, np.array(3.0)),
        ("Transpose", 1, [np.array(3.0)], {}, np.array(3.0)),
        ("Compress", 9, [X, np.array([True])], {"axis": 1}, X[:, :1]),
        ("CenterCropPad", 18, [X, np.array([2, 7])], {}, np.pad(X[:2], ((0, 0), (1, 2)))),
        ("ReverseSequence", 10, [X[:, :0], np.array([], np.int64)], {}, X[:, :0]),
    ],
)  # fmt: skip
def test_form_of_an_old_version_or_an_edge_gives_the_written_result(
    op_type: str, opset: int, inputs: list[Any], attributes: dict[str, Any], expected: Array
) -> None:
    actual = call(op_type, *inputs, opset=opset, **attributes)
    assert isinstance(actual, np.ndarray)
    np.testing.assert_array_equal(actual, expected, strict=False)
    assert actual.shape == expected.shape


@pytest.mark.parametrize(
    ("opset", "inputs", "attributes", "count", "sizes"),
    [
        (1, [X], {"axis": 1}, 2, [2, 2]),
        (1, [X, np.float32([1, 3])], {"axis": 1}, 2, [1, 3]),
        (2, [X], {"axis": 1, "split": [3, 0, 1]}, 3, [3, 0, 1]),
        (11, [X], {"axis": -1}, 4, [1, 1, 1, 1]),
        (13, [X, np.array([4, 0])], {"axis": 1}, 2, [4, 0]),
        (13, [X], {"axis": 1}, 2, [2, 2]),
        (18, [X], {"axis": 1, "num_outputs": 3}, 3, [2, 2, 0]),
        (18, [X], {"axis": 1}, 4, [1, 1, 1, 1]),
    ],
)
def test_split_of_every_version_gives_these_sizes(
    opset: int, inputs: list[Array], attributes: dict[str, Any], count: int, sizes: list[int]
) -> None:
    parts = call("Split", *inputs, opset=opset, output_count=count, **attributes)
    assert [part.shape[1] for part in parts] == sizes
    np.testing.assert_array_equal(np.hstack(parts), X)


def test_split_into_one_gives_a_tuple_of_one() -> None:
    np.testing.assert_array_equal(call("Split", X, opset=13, output_count=1), X)


INT64 = st.sampled_from([-(2**63), 2**63 - 1]) | st.integers(-8, 8)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5), INT64, INT64, INT64.filter(bool))
def test_slice_follows_the_clamping_of_the_spec(size: int, start: int, end: int, step: int) -> None:
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first = min(max(start + size if start < 0 else start, 0), high)
    last = min(max(end + size if end < 0 else end, low), high)
    taken, at = [], first
    while 0 <= at < size and (at < last if step > 0 else at > last):
        taken.append(at)
        at += step
    bounds = [np.array([value], np.int64) for value in (start, end)]
    actual = call("Slice", np.arange(size), *bounds, np.array([-1]), np.array([step], np.int64), opset=13)
    assert actual.tolist() == taken


def _padded_at(values: list[int], at: int, mode: str, fill: int) -> int:
    size = len(values)
    if 0 <= at < size:
        return values[at]
    if mode == "constant":
        return fill
    if mode == "edge":
        return values[0] if at < 0 else values[-1]
    if mode == "wrap":
        return values[at % size]
    around = abs(at) % (2 * (size - 1)) if size > 1 else 0
    return values[min(around, 2 * (size - 1) - around)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=5),
    st.integers(-2, 6),
    st.integers(-2, 6),
    st.sampled_from(["constant", "reflect", "edge", "wrap"]),
)
def test_pad_follows_a_loop_over_positions(values: list[int], before: int, after: int, mode: str) -> None:
    kept = values[max(-before, 0) : max(len(values) + min(after, 0), 0)]
    if not kept and mode != "constant":
        return
    expected = [_padded_at(kept, at, mode, 5) for at in range(-max(before, 0), len(kept) + max(after, 0))]
    pads = np.array([0, before, 0, after])
    actual = call("Pad", np.array([values]), pads, np.array(5), opset=19, mode=mode)
    assert actual.tolist() == [expected]


@pytest.mark.parametrize(("mode", "torch_mode"), [("reflect", "reflect"), ("edge", "replicate"), ("wrap", "circular")])
def test_pad_mode_agrees_with_torch(mode: str, torch_mode: str) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 6))
    expected = torch.nn.functional.pad(torch.from_numpy(x), (2, 1, 3, 4), mode=torch_mode).numpy()
    actual = call("Pad", x, np.array([0, 0, 3, 2, 0, 0, 4, 1]), opset=19, mode=mode)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_elements_agrees_with_torch(axis: int, reduction: str) -> None:
    rng = np.random.default_rng(2)
    data, updates = rng.normal(size=(4, 5, 3)), rng.normal(size=(2, 3, 3))
    indices = np.argsort(rng.normal(size=(2, 3, 3)), axis=axis)  # distinct along the axis
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    target, at, new = map(torch.from_numpy, (data.copy(), indices, updates))
    if reduction == "none":
        expected = target.scatter(axis, at, new)
    else:
        expected = target.scatter_reduce(axis, at, new, names[reduction])
    actual = call("ScatterElements", data, indices, updates, opset=18, axis=axis, reduction=reduction)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements_of_a_smaller_index_agrees_with_torch(axis: int) -> None:
    rng = np.random.default_rng(3)
    data, indices = rng.normal(size=(4, 5, 6)), rng.integers(0, 4, size=(2, 3, 4))
    expected = torch.gather(torch.from_numpy(data), axis, torch.from_numpy(indices)).numpy()
    np.testing.assert_array_equal(call("GatherElements", data, indices, opset=13, axis=axis), expected)


def test_gather_nd_with_batch_dims_follows_a_loop() -> None:
    rng = np.random.default_rng(4)
    data, indices = rng.normal(size=(2, 3, 4, 5)), rng.integers(-4, 4, size=(2, 3, 2, 1))
    actual = call("GatherND", data, indices, opset=12, batch_dims=2)
    assert actual.shape == (2, 3, 2, 5)
    for i, j, k in itertools.product(range(2), range(3), range(2)):
        np.testing.assert_array_equal(actual[i, j, k], data[i, j, indices[i, j, k, 0]])


def test_depth_to_space_crd_agrees_with_torch_and_space_to_depth_undoes_both() -> None:
    x = np.random.default_rng(5).normal(size=(2, 18, 4, 5))
    crd = call("DepthToSpace", x, opset=13, blocksize=3, mode="CRD")
    np.testing.assert_array_equal(crd, torch.pixel_shuffle(torch.from_numpy(x), 3).numpy())
    np.testing.assert_array_equal(call("SpaceToDepth", crd, opset=28, blocksize=3, mode="CRD"), x)
    dcr = call("DepthToSpace", x, opset=13, blocksize=3)
    np.testing.assert_array_equal(call("SpaceToDepth", dcr, opset=1, blocksize=3), x)


@pytest.mark.parametrize("dtype", [np.int8, np.bool_, object])
def test_movement_keeps_other_dtypes(dtype: type) -> None:
    x = np.array([["a", "b"], ["c", ""]], object) if dtype is object else np.array([[1, 0], [1, 1]], dtype)
    assert call("Pad", x, np.array([0, 1, 0, 0]), opset=13).dtype == x.dtype
    assert call("Gather", x, np.array(0), opset=13).dtype == x.dtype
    assert call("Concat", x, x, opset=13, axis=0).dtype == x.dtype
    assert call("Pad", x, np.array([0, 1, 0, 0]), opset=13)[0, 0] == ("" if dtype is object else 0)


def test_sequences_hold_insert_erase_split_and_join() -> None:
    a, b = np.array([1.0]), np.array([2.0, 3.0])
    sequence = call("SequenceConstruct", a, b, opset=11)
    assert call("SequenceEmpty", opset=11, dtype=1) == []
    assert call("SequenceLength", sequence, opset=11) == 2
    np.testing.assert_array_equal(call("SequenceAt", sequence, np.array(-1), opset=11), b)
    np.testing.assert_array_equal(call("SequenceErase", sequence, np.array(-2), opset=11)[0], b)
    np.testing.assert_array_equal(call("SequenceErase", sequence, opset=11)[0], a)
    np.testing.assert_array_equal(call("SequenceInsert", sequence, X, np.array(-1), opset=11)[1], X)
    np.testing.assert_array_equal(call("ConcatFromSequence", sequence, opset=11, axis=0), [1, 2, 3])
    stacked = call("ConcatFromSequence", [a, a], opset=11, axis=-1, new_axis=1)
    np.testing.assert_array_equal(stacked, [[1, 1]])
    sizes = [part.shape for part in call("SplitToSequence", X, np.array(3), opset=11, axis=1)]
    assert sizes == [(3, 3), (3, 1)]
    assert [part.shape for part in call("SplitToSequence", X, opset=11, keepdims=0)] == [(4,)] * 3
    assert [part.shape for part in call("SplitToSequence", X, np.array([0, 3]), opset=11)] == [(0, 4), (3, 4)]


def test_optionals_hold_a_value_or_nothing() -> None:
    held = call("Optional", X, opset=15)
    assert held.dtype == np.float32
    assert call("OptionalHasElement", held, opset=15)
    assert not call("OptionalHasElement", call("Optional", opset=15), opset=18)
    with pytest.raises(InvalidInputError, match="empty"):
        call("OptionalGetElement", None, opset=18)


@pytest.mark.parametrize(
    ("error", "op_type", "inputs", "attributes"),
    [
        (InvalidInputError, "Reshape", [X, np.array([5, 2])], {}),
        (InvalidInputError, "Reshape", [X, np.array([-1, 5])], {}),
        (InvalidInputError, "Squeeze", [X, np.array([0])], {}),
        (InvalidAttributeError, "Squeeze", [X, np.array([2])], {}),
        (InvalidInputError, "Split", [X, np.array([1, 1])], {}),
        (InvalidInputError, "Slice", [X, np.array([0]), np.array([1]), None, np.array([0])], {}),
        (InvalidInputError, "Pad", [X, np.array([1, 1])], {}),
        (InvalidAttributeError, "Pad", [X, np.array([1, 1, 0, 0])], {"mode": "mirror"}),
        (InvalidAttributeError, "DepthToSpace", [np.zeros((1, 4, 1, 1))], {"blocksize": 2, "mode": "DRC"}),
        (InvalidAttributeError, "ScatterND", [X, np.array([[0]]), X[:1]], {"reduction": "mean"}),
        (InvalidInputError, "SequenceAt", [[X], np.array(1)], {}),
        (InvalidInputError, "SplitToSequence", [X, np.array([1, 1])], {}),
        (InvalidInputError, "SplitToSequence", [X, np.array(0)], {}),
        (InvalidInputError, "TensorScatter", [X[None], X[None], np.array([1])], {}),
    ],
)
def test_input_or_attribute_outside_the_spec_is_refused(
    error: type[Exception], op_type: str, inputs: list[Any], attributes: dict[str, Any]
) -> None:
    with pytest.raises(error):
        call(op_type, *inputs, opset=24, **attributes)


@pytest.mark.parametrize("reduction", ["add", "mul"])
def test_scatter_nd_scale_allows_float32_and_condemns_a_lost_update(reduction: str) -> None:
    rng = np.random.default_rng(6)
    data = rng.normal(size=(50, 8)).astype(np.float32)
    indices, updates = rng.integers(0, 50, size=(400, 1)), rng.normal(size=(400, 8)).astype(np.float32)
    inputs, attributes = (data, indices, updates), {"reduction": reduction}
    (actual,) = run_onnxruntime("ScatterND", inputs, attributes, opset=18)
    assert beyond(actual, "ScatterND", *inputs, opset=18, reduction=reduction) == 0
    (lost,) = run_onnxruntime("ScatterND", (data, indices[1:], updates[1:]), attributes, opset=18)
    assert beyond(lost, "ScatterND", *inputs, opset=18, reduction=reduction) == 8
    untouched = data.copy()
    spare = np.setdiff1d(np.arange(50), indices[:25])[0]
    result = call("ScatterND", data, indices[:25], updates[:25], opset=18, reduction=reduction).astype(np.float32)
    result[spare, 0] = np.nextafter(untouched[spare, 0], np.float32(9))
    assert beyond(result, "ScatterND", data, indices[:25], updates[:25], opset=18, reduction=reduction) == 1
