"""Frames: what goes in comes out, whatever its dtype, shape and layout."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import onnx_arch.runtimes
from onnx_arch.runtimes._wire import NUMPY_DTYPES, RAW_DTYPES, Channel, Encoder, RawTensor, TruncatedFrameError

ROOM = Path(onnx_arch.runtimes.__file__).parent
ANY_SHAPE = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def _through(*values: Any, chunk: int | None = None) -> list[Any]:
    pipe = io.BytesIO() if chunk is None else Dripping(chunk)
    encoder = Encoder()
    specs = [encoder.describe(value) for value in values]
    Channel(pipe, pipe, RawTensor).send({"specs": specs}, encoder)
    pipe.seek(0)
    reader = Channel(pipe, pipe, RawTensor)
    header = reader.receive()
    read = [reader.value(spec) for spec in header["specs"]]
    assert pipe.read() == b""
    return read


class Dripping(io.BytesIO):
    """Reads and writes at most `chunk` bytes at a time, as pipes do."""

    def __init__(self, chunk: int) -> None:
        super().__init__()
        self._chunk = chunk

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[: self._chunk])

    def write(self, data: Any) -> int:
        return super().write(bytes(memoryview(data)[: self._chunk]))


@given(dtype=st.sampled_from(sorted(NUMPY_DTYPES)), shape=ANY_SHAPE, seed=st.integers(0, 2**32 - 1))
def test_numpy_tensor_comes_back_bit_for_bit(dtype, shape, seed) -> None:
    random = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    array = np.frombuffer(random, dtype).reshape(shape) if dtype != "bool" else np.ones(shape, bool)
    (read,) = _through(array)
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", sorted(RAW_DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_tensor_that_numpy_lacks_comes_back_as_bits(dtype, shape) -> None:
    array = np.ones(shape).astype(getattr(ml_dtypes, dtype))
    (read,) = _through(array)
    assert isinstance(read, RawTensor)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read.bits.view(array.dtype), array)
    (again,) = _through(read)
    assert again.bits.tobytes() == read.bits.tobytes()


def test_layout_and_byte_order_do_not_matter() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for array in (values.T, values[:, ::2, ::-1], values.astype(">f4"), np.broadcast_to(values[:1], (5, 3, 4))):
        (read,) = _through(array)
        np.testing.assert_array_equal(read, array)
        assert read.dtype == np.float32


@given(hnp.arrays(object, ANY_SHAPE, elements=st.text()))
def test_strings_come_back(array) -> None:
    (read,) = _through(array)
    assert read.dtype == object
    np.testing.assert_array_equal(read, array)


def test_unusual_strings_come_back_as_text() -> None:
    read = _through(np.array(["é", "\U0001f600"]), np.array([b"ab", b""]), np.array(["\ud800", "\0"], object))
    assert [r.tolist() for r in read] == [["é", "\U0001f600"], ["ab", ""], ["\ud800", "\0"]]


def test_nested_values_come_back_in_order() -> None:
    value = [np.float32([1, 2]), [], None, [np.array("s", object)], {1: np.float64(2), "k": [3]}]
    ((first, empty, absent, strings, mapping),) = _through(value)
    assert first.tolist() == [1, 2]
    assert empty == []
    assert absent is None
    assert strings[0].shape == ()
    assert strings[0].item() == "s"
    assert mapping[1] == 2
    assert mapping["k"][0] == 3


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_partial_reads_and_writes_are_continued(chunk) -> None:
    big = np.random.default_rng(1).standard_normal(30_000)
    read = _through(np.float32(1), big, np.array(["x"], object), chunk=chunk * 16)
    np.testing.assert_array_equal(read[1], big)


@pytest.mark.parametrize("value", [np.array(["2020"], "M8[D]"), np.array([object()], object), np.zeros(2, "V3")])
def test_value_that_onnx_does_not_have_is_refused(value) -> None:
    with pytest.raises(TypeError, match=r"travel|not one that ONNX has"):
        Encoder().describe(value)


def test_drained_frame_leaves_the_next_one_readable() -> None:
    pipe = io.BytesIO()
    for number in (1, 2):
        encoder = Encoder()
        specs = [encoder.describe(np.full(300_000, number)), encoder.describe(np.full(3, number))]
        Channel(pipe, pipe).send({"specs": specs}, encoder)
    pipe.seek(0)
    reader = Channel(pipe, pipe)
    reader.receive()
    reader.drain()
    assert reader.value(reader.receive()["specs"][0])[0] == 2


def test_closed_pipe_is_told_apart_from_an_empty_frame() -> None:
    pipe = io.BytesIO()
    Channel(pipe, pipe).send({})
    pipe.seek(0)
    assert Channel(pipe, pipe).receive() == {}
    with pytest.raises(TruncatedFrameError):
        Channel(pipe, pipe).receive()


@pytest.mark.parametrize("name", ["worker.py", "_wire.py", "onnxruntime_adapter.py", "onnx_reference_adapter.py"])
def test_files_of_the_worker_are_python_3_8(name) -> None:
    ast.parse((ROOM / name).read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("name", ["worker.py", "_wire.py", "onnxruntime_adapter.py"])
def test_files_of_the_worker_import_only_numpy_and_the_runtime(name) -> None:
    tree = ast.parse((ROOM / name).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(not (isinstance(node, ast.ImportFrom) and node.level) for node in imports)
    modules = {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    foreign = {str(m).partition(".")[0] for m in modules} & {"onnx", "onnx_arch", "ml_dtypes", "scipy", "torch"}
    assert foreign <= ({"ml_dtypes"} if name == "worker.py" else set())  # there, only where an adapter asks for it
