"""Inputs of a model: random ones of every type and role, those of a file, and what does not fit."""

from __future__ import annotations

import random
import zipfile

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.errors import InvalidInputError, InvalidModelError
from onnx_arch.graphs.feeds import load_npz, random_feeds, required_inputs, validate_feeds
from onnx_arch.graphs.loading import load_model

from .small_models import make_model, matmul_model, value


@pytest.fixture
def model_of(write):
    """A loaded model that returns its inputs, declared as (name, shape, element type)."""

    def load(*inputs, **weights):
        declared = [value(*each) for each in inputs]
        nodes = [helper.make_node("Identity", [each.name], [f"{each.name}_out"]) for each in declared]
        outputs = [value(f"{each.name}_out", None, each.type.tensor_type.elem_type) for each in declared]
        return load_model(write(make_model(nodes, declared, outputs, weights=weights, opset=23, ir_version=11)))

    return load


def embedding_model(write, nodes, weights, shape=(2, 50)):
    """ids -> nodes -> y."""
    ids = value("ids", shape, TensorProto.INT64)
    return load_model(write(make_model(nodes, [ids], [value("y", None)], weights=weights)))


def test_random_floats_are_standard_normal(model_of):
    x = random_feeds(model_of(("x", [100, 100])))["x"]
    assert x.dtype == np.float32
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05


@pytest.mark.parametrize(
    ("code", "dtype"),
    [
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        (TensorProto.COMPLEX64, np.complex64),
        (TensorProto.INT64, np.int64),
        (TensorProto.UINT8, np.uint8),
        (TensorProto.INT8, np.int8),
        (TensorProto.INT4, ml_dtypes.int4),
        (TensorProto.BOOL, np.bool_),
    ],
)
def test_random_values_have_the_declared_type_and_vary(model_of, code, dtype):
    x = random_feeds(model_of(("x", [4, 50], code)))["x"]
    assert x.dtype == np.dtype(dtype)
    assert x.shape == (4, 50)
    numbers = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    assert np.isfinite(numbers).all()
    assert len(np.unique(numbers)) > 1
    if "int" in x.dtype.name:
        assert numbers.min() >= 0
        assert numbers.max() < 128


def test_random_doubles_use_their_whole_fraction(model_of):
    x = random_feeds(model_of(("x", [10], TensorProto.DOUBLE)))["x"]
    assert (x != x.astype(np.float32)).any()


def test_random_strings_are_words(model_of):
    x = random_feeds(model_of(("x", [3], TensorProto.STRING), ("s", [], TensorProto.STRING)))
    assert x["x"].dtype == object
    assert all(isinstance(word, str) and word for word in x["x"])
    assert x["s"].shape == ()


def test_random_feeds_repeat_with_their_seed_and_change_with_another(model_of):
    model = model_of(("x", [5]), ("y", [5]))
    first, again, other = random_feeds(model, seed=1), random_feeds(model, seed=1), random_feeds(model, seed=2)
    np.testing.assert_array_equal(first["x"], again["x"])
    assert (first["x"] != other["x"]).any()
    assert (first["x"] != first["y"]).any()


@pytest.mark.parametrize("shape", [[], [0], [0, 3], [1], [2, 0, 2]])
def test_random_feeds_of_rank_0_and_of_no_elements(model_of, shape):
    feeds = random_feeds(model_of(("x", shape), ("attention_mask", shape, TensorProto.INT64)))
    assert feeds["x"].shape == tuple(shape)
    assert feeds["attention_mask"].shape == tuple(shape)
    assert isinstance(feeds["x"], np.ndarray)


def test_random_feeds_leave_out_inputs_with_a_default(model_of):
    model = model_of(("x", [2]), ("w", [2]), w=np.ones(2, np.float32))
    assert [spec.name for spec in required_inputs(model)] == ["x"]
    assert list(random_feeds(model)) == ["x"]


def test_random_mask_is_ones_with_zeros_behind(model_of):
    mask = random_feeds(model_of(("attention_mask", [30, 9], TensorProto.INT64)))["attention_mask"]
    assert set(np.unique(mask)) == {0, 1}
    assert (mask[:, 0] == 1).all()
    assert (np.diff(mask, axis=1) <= 0).all()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_random_ids_stay_below_the_rows_they_index(write, axis):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], axis=axis)]
    table = np.zeros((3, 5), np.float32)
    ids = random_feeds(embedding_model(write, nodes, {"table": table}))["ids"]
    assert set(np.unique(ids)) == set(range(table.shape[axis]))


def test_random_ids_stay_below_the_smallest_of_their_tables_behind_casts_and_reshapes(write):
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["a"]),
        helper.make_node("Unsqueeze", ["ids", "axes"], ["u"]),
        helper.make_node("Cast", ["u"], ["c"], to=TensorProto.INT32),
        helper.make_node("Constant", [], ["types"], value=numpy_helper.from_array(np.zeros((2, 4), np.float32))),
        helper.make_node("Gather", ["types", "c"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    weights = {"words": np.zeros((30, 4), np.float32), "axes": np.array([0], np.int64)}
    assert set(np.unique(random_feeds(embedding_model(write, nodes, weights))["ids"])) == {0, 1}


def test_random_ids_of_a_large_vocabulary_use_it(write):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    ids = random_feeds(embedding_model(write, nodes, {"table": np.zeros((50257, 1), np.float16)}))["ids"]
    assert ids.max() > 1000
    assert ids.max() < 50257


@pytest.mark.parametrize(
    ("op_type", "limit"),
    [("GatherElements", 3), ("GatherND", 3), ("ScatterElements", 3), ("ScatterND", 3), ("Gather", 3)],
)
def test_random_indices_stay_inside_a_tensor_that_is_computed(write, op_type, limit):
    """The table is no weight: its shape is inferred from those of the inputs."""
    shape = [4, 1, 2] if op_type.endswith("ND") else [9] if op_type == "Gather" else [7, 3]
    attributes = {} if op_type.endswith("ND") else {"axis": 1}
    more = {"ScatterElements": ["u"], "ScatterND": ["u"]}.get(op_type, [])
    nodes = [
        helper.make_node("Transpose", ["x"], ["table"]),
        helper.make_node(op_type, ["table", "i", *more], ["y"], **attributes),
    ]
    updates = [value("u", [4, 1] if op_type == "ScatterND" else shape)] if more else []
    inputs = [value("x", [limit, "rows"]), value("i", shape, TensorProto.INT64), *updates]
    model = load_model(write(make_model(nodes, inputs, [value("y", None)])))
    indices = random_feeds(model, dims={"rows": 7})["i"]
    assert indices.max() == limit - 1


def test_random_ids_read_in_a_subgraph_stay_below_its_table(write):
    then = helper.make_graph([helper.make_node("Gather", ["table", "ids"], ["t"])], "t", [], [value("t", None)])
    other = helper.make_graph([helper.make_node("Identity", ["table"], ["e"])], "e", [], [value("e", None)])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    weights = {"c": np.array(True), "table": np.zeros((3, 4), np.float32)}
    assert random_feeds(embedding_model(write, nodes, weights))["ids"].max() == 2


def test_random_feeds_of_given_dims(model_of):
    model = model_of(("x", ["batch", 3, None]), ("y", ["batch", "past + 2*new"]))
    feeds = random_feeds(model, dims={"batch": 2, "x:2": 5, "past": 3, "new": 4})
    assert feeds["x"].shape == (2, 3, 5)
    assert feeds["y"].shape == (2, 11)


def test_random_feeds_of_a_batch_of_none(model_of):
    assert random_feeds(model_of(("x", ["batch", 3])), dims={"batch": 0})["x"].shape == (0, 3)


@pytest.mark.parametrize(
    ("shape", "dims", "says"),
    [
        (["batch", 3], {}, "input 'x' has the symbolic dim 'batch': give it with --dim batch=N"),
        ([3, None], {}, "input 'x' has a dim without a size or name at position 1: give it with --dim x:1=N"),
        (["a + b"], {"a": 1}, "input 'x' has the symbolic dim 'a + b': give it with --dim \"a + b\"=N"),
        (["batch"], {"batch": -1}, "dim 'batch' is given as -1; allowed are sizes from 0 on"),
        (["batch"], {"batch": 1, "seq": 2}, "dim 'seq' is given; the model's free dims are batch"),
        ([3], {"x:0": 3}, "dim 'x:0' is given; the model's free dims are none"),
        (["a - 5"], {"a": 2}, "input 'x': dim 'a - 5' comes to -3"),
        (None, {}, "input 'x' declares no rank: give it with --inputs"),
    ],
)
def test_random_feeds_ask_for_what_is_missing(model_of, shape, dims, says):
    with pytest.raises(InvalidInputError) as caught:
        random_feeds(model_of(("x", shape)), dims=dims)
    assert says in str(caught.value)


def test_random_feeds_of_a_sequence_ask_for_a_file(write):
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    nodes = [helper.make_node("SequenceLength", ["s"], ["n"])]
    model = load_model(write(make_model(nodes, [sequence], [value("n", [], TensorProto.INT64)])))
    with pytest.raises(InvalidInputError, match="'s' is of type sequence: give it with --test-data"):
        random_feeds(model)


def test_random_feeds_of_a_shape_ask_for_a_file(write):
    nodes = [helper.make_node("Reshape", ["x", "target"], ["y"], name="fold")]
    inputs = [value("x", [2, 3]), value("target", [2], TensorProto.INT64)]
    model = load_model(write(make_model(nodes, inputs, [value("y", None)])))
    with pytest.raises(InvalidInputError, match=r"'target' decides shapes \(node 'fold', Reshape\)"):
        random_feeds(model)


def test_random_feeds_of_an_absurd_size_are_refused_before_they_are_allocated(model_of):
    # 12e15 bytes in and as many out, times 4
    with pytest.raises(InvalidModelError, match=r"needs about 96000000\.0 GB of memory.*GB are available"):
        random_feeds(model_of(("x", [1, 3, 10**8, 10**7])))


FLOATS = np.ones((2, 4), np.float32)


def check(model, **feeds):
    with pytest.raises(InvalidInputError) as caught:
        validate_feeds(model, feeds)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def pair(model_of):
    """Inputs x (batch, 4) float32, ids (batch, None) int64."""
    return model_of(("x", ["batch", 4]), ("ids", ["batch", None], TensorProto.INT64))


def ids(*shape):
    return np.zeros(shape, np.int64)


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_validate_feeds_that_fit(pair, batch):
    validate_feeds(pair, {"x": np.ones((batch, 4), np.float32), "ids": ids(batch, 3)})


def test_validate_names_the_inputs_and_the_nearest_one(pair):
    message = check(pair, idx=ids(2, 1), x=FLOATS)
    assert message == "the model has no input 'idx'; its inputs are 'x', 'ids'; did you mean 'ids'?"


def test_validate_missing_input(pair):
    assert check(pair, x=FLOATS) == "input 'ids' is missing; given are 'x'"


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, ">f4"])
def test_validate_dtype_is_not_cast(pair, dtype):
    message = check(pair, x=FLOATS.astype(dtype), ids=ids(2, 1))
    assert message.startswith("input 'x' has dtype")
    assert "the model takes float32, nothing is cast" in message


def test_validate_rank(pair):
    message = check(pair, x=FLOATS[0], ids=ids(2, 1))
    assert message == "input 'x' has rank 1 (shape [4]); the model takes rank 2 [batch, 4]"


def test_validate_fixed_dim(pair):
    message = check(pair, x=np.ones((2, 5), np.float32), ids=ids(2, 1))
    assert message == "input 'x' has shape [2, 5]; the model takes [batch, 4]: dim 1 is 4"


def test_validate_batch_of_none_where_the_batch_is_fixed(model_of):
    assert "the model takes [1, 4]: dim 0 is 1" in check(model_of(("x", [1, 4])), x=np.ones((0, 4), np.float32))


def test_validate_one_symbol_of_two_sizes(pair):
    message = check(pair, x=FLOATS, ids=ids(3, 1))
    assert message == "dim 'batch' is 2 in x:0 and 3 in ids:0; it must be the same in both"


def test_validate_expression_of_symbols(model_of):
    model = model_of(("x", ["past"]), ("y", ["new"]), ("z", ["past + new"]))
    feeds = {"x": np.ones(2, np.float32), "y": np.ones(3, np.float32)}
    validate_feeds(model, {**feeds, "z": np.ones(5, np.float32)})
    assert check(model, **feeds, z=np.ones(6, np.float32)) == "z:0 is 6; the model takes past + new = 5 there"


@pytest.mark.parametrize("value_given", [[1.0, 2.0], None, 3.0, "text"])
def test_validate_what_is_no_array(model_of, value_given):
    assert "the model takes a tensor" in check(model_of(("x", [2])), x=value_given)


def test_validate_objects_that_are_no_strings(model_of):
    model = model_of(("x", [2], TensorProto.STRING))
    validate_feeds(model, {"x": np.array(["a", "b"], object)})
    assert "not strings" in check(model, x=np.array(["a", 1], object))


def test_validate_default_may_be_fed_and_must_fit(model_of):
    model = model_of(("x", [2]), ("w", [2]), w=np.ones(2, np.float32))
    two = np.ones(2, np.float32)
    validate_feeds(model, {"x": two, "w": two})
    assert "rank 2" in check(model, x=two, w=np.ones((2, 2), np.float32))


def test_load_npz_by_name(pair, tmp_path):
    np.savez(tmp_path / "f.npz", x=FLOATS, ids=ids(2, 3))
    feeds = load_npz(pair, tmp_path / "f.npz")
    np.testing.assert_array_equal(feeds["x"], FLOATS)
    assert feeds["ids"].dtype == np.int64


def test_load_npz_of_names_with_slashes(write, tmp_path):
    nodes = [helper.make_node("Relu", ["gpu_0/x"], ["y"])]
    model = load_model(write(make_model(nodes, [value("gpu_0/x", [2])], [value("y", [2])])))
    np.savez(tmp_path / "f.npz", **{"gpu_0/x": np.ones(2, np.float32)})
    assert list(load_npz(model, tmp_path / "f.npz")) == ["gpu_0/x"]


def test_load_npy_of_a_model_with_one_input(write, tmp_path):
    np.save(tmp_path / "x.npy", FLOATS)
    np.testing.assert_array_equal(load_npz(load_model(write(matmul_model())), tmp_path / "x.npy")["x"], FLOATS)


def test_load_npy_of_a_model_with_two_inputs_is_refused(pair, tmp_path):
    np.save(tmp_path / "x.npy", FLOATS)
    with pytest.raises(InvalidInputError, match="one array, the model takes 2 inputs"):
        load_npz(pair, tmp_path / "x.npy")


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4], ids=str)
def test_load_npz_recognises_types_that_numpy_stores_as_bytes(model_of, tmp_path, dtype):
    model = model_of(("x", [3], helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))
    np.savez(tmp_path / "f.npz", x=np.array([1, 2, 3], dtype))
    loaded = load_npz(model, tmp_path / "f.npz")["x"]
    assert loaded.dtype == np.dtype(dtype)
    assert loaded.astype(np.float32).tolist() == [1, 2, 3]


def test_load_npz_of_strings(model_of, tmp_path):
    np.savez(tmp_path / "f.npz", x=np.array(["a", "bü"]))
    assert load_npz(model_of(("x", [2], TensorProto.STRING)), tmp_path / "f.npz")["x"].tolist() == ["a", "bü"]


def test_load_npz_of_the_other_byte_order(write, tmp_path):
    np.savez(tmp_path / "f.npz", x=FLOATS.astype(">f4"))
    assert load_npz(load_model(write(matmul_model())), tmp_path / "f.npz")["x"].dtype == np.dtype("=f4")


def refusal(model, path):
    with pytest.raises(InvalidInputError) as caught:
        load_npz(model, path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x04\x00{1:"])
def test_load_npz_of_garbage(pair, tmp_path, content):
    (tmp_path / "f.npz").write_bytes(content)
    refusal(pair, tmp_path / "f.npz")


def test_load_npz_missing_a_folder_or_incomplete(pair, tmp_path):
    assert "No such file" in refusal(pair, tmp_path / "f.npz")
    assert "directory" in refusal(pair, tmp_path)
    np.savez(tmp_path / "f.npz", x=FLOATS)
    assert "input 'ids' is missing" in refusal(pair, tmp_path / "f.npz")


def test_load_npz_does_not_unpickle(model_of, tmp_path):
    np.savez(tmp_path / "f.npz", x=np.array([{"a": 1}], object))
    assert "allow_pickle=False" in refusal(model_of(("x", [1])), tmp_path / "f.npz")


def test_load_npz_that_unpacks_to_more_than_memory(pair, tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "f.npz", x=np.zeros((1000, 1000), np.float32))
    monkeypatch.setattr("onnx_arch.graphs.feeds.available_memory", lambda: 10**6)
    assert "bytes unpacked; 1000000 are available" in refusal(pair, tmp_path / "f.npz")


def test_load_npz_whose_header_claims_more_than_there_is(pair, tmp_path):
    header = str({"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**7)}).encode()
    header += b" " * (118 - len(header) - 1) + b"\n"
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 16)
    refusal(pair, tmp_path / "f.npz")


def outcome(model, path):
    try:
        load_npz(model, path)
    except InvalidInputError as error:
        return str(error)
    return "loaded"


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "compressed"])
def test_load_npz_of_random_damage_loads_or_gives_one_line(pair, tmp_path, compressed):
    file = tmp_path / "f.npz"
    (np.savez_compressed if compressed else np.savez)(file, x=FLOATS, ids=ids(2, 3))
    content, rng = file.read_bytes(), random.Random(7)  # noqa: S311 (damage, not secrets)
    for _ in range(300):
        damage = bytearray(content)
        for _ in range(rng.choice([1, 4])):
            damage[rng.randrange(len(damage))] = rng.randrange(256)
        file.write_bytes(damage)
        assert "\n" not in outcome(pair, file)


@pytest.mark.parametrize("name", ["bvlc_alexnet", "densenet121", "resnet50", "zfnet512"])
def test_random_feeds_of_a_light_model_are_its_picture(name):
    folder = f"{onnx.__path__[0]}/backend/test/data/light"
    feeds = random_feeds(load_model(f"{folder}/light_{name}.onnx"))
    assert [array.shape for array in feeds.values()] == [(1, 3, 224, 224)]
