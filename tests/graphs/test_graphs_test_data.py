"""ONNX test data: what onnx itself writes and reads, every kind of value, and what is damaged."""

from __future__ import annotations

import random
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.errors import InvalidInputError
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.test_data import find_test_data, read_test_data, write_test_data

from .small_models import make_model, matmul_model, value

DATA = Path(onnx.__file__).parent / "backend/test/data"
SHIPPED = sorted(DATA.glob("*/*/test_data_set_0"))
X = np.arange(8, dtype=np.float32).reshape(2, 4)
Y = np.arange(10, dtype=np.float32).reshape(2, 5)


@pytest.fixture
def model(write):
    return load_model(write(matmul_model()))


@pytest.fixture
def kinds_model(write):
    """Inputs t (tensor), s (sequence), o (optional); output t."""
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    optional = helper.make_value_info("o", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2])))
    nodes = [
        helper.make_node("SequenceLength", ["s"], ["n"]),
        helper.make_node("OptionalHasElement", ["o"], ["b"]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    return load_model(write(make_model(nodes, [value("t", [2]), sequence, optional], [value("y", [2])])))


def test_shipped_test_data_are_there():
    assert len(SHIPPED) > 20


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_read_shipped_test_data_as_onnx_does(folder):
    feeds, outputs = read_test_data(load_model(folder.parent), folder)
    for kind, values in (("input", feeds), ("output", outputs)):
        stored = sorted(folder.glob(f"{kind}_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
        assert len(values) == len(stored)
        for array, file in zip(values.values(), stored, strict=True):
            np.testing.assert_array_equal(array, numpy_helper.to_array(TensorProto.FromString(file.read_bytes())))


def test_write_then_read_gives_the_values(model, tmp_path):
    write_test_data(model, tmp_path / "test_data_set_0", {"x": X}, {"y": Y})
    assert sorted(file.name for file in (tmp_path / "test_data_set_0").iterdir()) == ["input_0.pb", "output_0.pb"]
    feeds, outputs = read_test_data(model, tmp_path / "test_data_set_0")
    np.testing.assert_array_equal(feeds["x"], X)
    np.testing.assert_array_equal(outputs["y"], Y)


def test_write_is_read_by_onnx(model, tmp_path):
    write_test_data(model, tmp_path, {"x": X})
    tensor = onnx.load_tensor(tmp_path / "input_0.pb")
    assert tensor.name == "x"
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), X)


def test_write_replaces_the_set_that_was_there(kinds_model, model, tmp_path):
    write_test_data(kinds_model, tmp_path, {"t": X[0, :2], "s": [], "o": None})
    (tmp_path / "notes.txt").write_text("mine")
    write_test_data(model, tmp_path, {"x": X})
    assert sorted(file.name for file in tmp_path.glob("*put_*")) == ["input_0.pb"]
    assert (tmp_path / "notes.txt").exists()


def test_write_same_values_gives_the_same_bytes_whatever_their_layout(model, tmp_path):
    write_test_data(model, tmp_path / "a", {"x": X})
    write_test_data(model, tmp_path / "b", {"x": np.asfortranarray(X)})
    assert (tmp_path / "a/input_0.pb").read_bytes() == (tmp_path / "b/input_0.pb").read_bytes()


@pytest.mark.parametrize(
    "array",
    [
        np.array(1.5, np.float32),
        np.zeros((0, 3), np.int64),
        np.array([1, 2, 3], ml_dtypes.bfloat16),
        np.array([1, -2, 3], ml_dtypes.int4),
        np.array([True, False]),
        np.array([["a", "ü\0"]], object),
        np.array([1 + 2j], np.complex64),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_write_then_read_any_type(write, tmp_path, array):
    code = TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = load_model(
        write(make_model(nodes, [value("x", array.shape, code)], [value("y", None, code)], ir_version=12))
    )
    write_test_data(model, tmp_path, {"x": array})
    loaded = read_test_data(model, tmp_path)[0]["x"]
    assert loaded.dtype == array.dtype
    assert loaded.shape == array.shape
    assert loaded.tolist() == array.tolist()


@pytest.mark.parametrize("optional", [None, X[0, :2], [X[0], X[1]]], ids=["absent", "tensor", "sequence"])
@pytest.mark.parametrize("sequence", [[], [X, Y]], ids=["empty", "two"])
def test_write_then_read_sequences_and_optionals(kinds_model, tmp_path, sequence, optional):
    write_test_data(kinds_model, tmp_path, {"t": X[0, :2], "s": sequence, "o": optional})
    feeds, _ = read_test_data(kinds_model, tmp_path)
    assert [array.tolist() for array in feeds["s"]] == [array.tolist() for array in sequence]
    if isinstance(optional, list):
        assert [array.tolist() for array in feeds["o"]] == [array.tolist() for array in optional]
    else:
        assert (feeds["o"] is None) == (optional is None)


def test_read_goes_by_name_where_the_files_have_the_names(write, tmp_path):
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"])]
    model = load_model(write(make_model(nodes, [value("a", [1]), value("b", [1])], [value("y", [1])])))
    for index, name in enumerate(["b", "a"]):
        content = numpy_helper.from_array(np.array([index], np.float32), name).SerializeToString()
        (tmp_path / f"input_{index}.pb").write_bytes(content)
    feeds, _ = read_test_data(model, tmp_path)
    assert (feeds["a"].item(), feeds["b"].item()) == (1, 0)


@pytest.mark.parametrize("name", ["", "something else"])
def test_read_goes_by_number_where_the_names_are_others(model, tmp_path, name):
    (tmp_path / "input_0.pb").write_bytes(numpy_helper.from_array(X, name).SerializeToString())
    np.testing.assert_array_equal(read_test_data(model, tmp_path)[0]["x"], X)


def test_read_numbers_only_the_inputs_without_default(write, tmp_path):
    proto = matmul_model()
    proto.graph.input.insert(0, value("w", [4, 5]))
    model = load_model(write(proto))
    (tmp_path / "input_0.pb").write_bytes(numpy_helper.from_array(X).SerializeToString())
    assert list(read_test_data(model, tmp_path)[0]) == ["x"]


def test_find_test_data_by_number(tmp_path):
    for name in ("test_data_set_10", "test_data_set_2", "test_data_set_x", "other"):
        (tmp_path / name).mkdir()
    assert [folder.name for folder in find_test_data(tmp_path)] == ["test_data_set_2", "test_data_set_10"]


def test_find_test_data_in_the_folder_itself(model, tmp_path):
    write_test_data(model, tmp_path / "data", {"x": X})
    assert find_test_data(tmp_path / "data") == (tmp_path / "data",)


def test_find_test_data_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInputError, match="no test data"):
        find_test_data(tmp_path)
    with pytest.raises(InvalidInputError, match="No such file"):
        find_test_data(tmp_path / "missing")


def refusal(model, folder):
    with pytest.raises(InvalidInputError) as caught:
        read_test_data(model, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message


def test_read_missing_input(model, tmp_path):
    assert "input 'x' is missing" in refusal(model, tmp_path)


def test_read_too_many_inputs(model, tmp_path):
    for index in range(2):
        (tmp_path / f"input_{index}.pb").write_bytes(numpy_helper.from_array(X).SerializeToString())
    assert "input_1.pb; the model has 1 inputs" in refusal(model, tmp_path)


def test_read_input_that_does_not_fit(model, tmp_path):
    (tmp_path / "input_0.pb").write_bytes(numpy_helper.from_array(X.astype(np.float64)).SerializeToString())
    assert "input 'x' has dtype float64" in refusal(model, tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xff", b"text", numpy_helper.from_array(X).SerializeToString()[:-3]])
def test_read_damaged_input(model, tmp_path, content):
    (tmp_path / "input_0.pb").write_bytes(content)
    assert "input_0.pb" in refusal(model, tmp_path)


def test_read_input_with_external_data_outside_its_folder(model, tmp_path):
    tensor = TensorProto(data_type=1, dims=[2, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    assert "lie outside the model's folder" in refusal(model, tmp_path)


def outcome(model, folder):
    try:
        read_test_data(model, folder)
    except InvalidInputError as error:
        return str(error)
    return "loaded"


@pytest.mark.parametrize("seed", range(3))
def test_read_randomly_damaged_data_loads_or_gives_one_line(kinds_model, tmp_path, seed):
    rng = random.Random(seed)  # noqa: S311 (damage, not secrets)
    write_test_data(kinds_model, tmp_path, {"t": X[0, :2], "s": [X, Y], "o": [X[0], X[1]]})
    originals = {file: file.read_bytes() for file in tmp_path.glob("input_*.pb")}
    for _ in range(200):
        for file, content in originals.items():
            damage = bytearray(content)
            damage[rng.randrange(len(damage))] = rng.randrange(256)
            file.write_bytes(damage)
        assert "\n" not in outcome(kinds_model, tmp_path)


def test_write_of_an_unknown_name_leaves_nothing_behind(model, tmp_path):
    with pytest.raises(InvalidInputError, match="no input 'z'"):
        write_test_data(model, tmp_path / "new", {"x": X, "z": X})
    with pytest.raises(InvalidInputError, match="no output 'z'"):
        write_test_data(model, tmp_path / "new", {"x": X}, {"z": X})
    assert not (tmp_path / "new").exists()


def test_write_of_a_type_that_onnx_lacks(model, tmp_path):
    with pytest.raises(InvalidInputError, match="which ONNX does not have"):
        write_test_data(model, tmp_path, {"x": X.astype(np.longdouble)})
