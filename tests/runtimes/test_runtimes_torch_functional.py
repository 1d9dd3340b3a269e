"""PyTorch's functions as an adapter: right on what it knows, honest about the rest, and no runtime of the user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
from onnx import TensorProto, helper, numpy_helper, save

from onnx_arch.conformance.calibration.sessions import TORCH
from onnx_arch.errors import UnsupportedByRuntimeError
from onnx_arch.runtimes.process import Worker
from onnx_arch.runtimes.registry import listings
from onnx_arch.runtimes.session import RuntimeOptions

Array = np.ndarray
F = np.float32
OPTIONS = RuntimeOptions(str(TORCH), threads=1)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(OPTIONS)
    yield worker
    worker.close()


def _run(worker: Worker, folder: Path, op_type: str, inputs: list[Array], held: int = 0, **attributes: Any) -> Array:
    """The output of a model of one node; the last `held` inputs are its weights."""
    names = [f"x{i}" for i in range(len(inputs))]
    fed = len(inputs) - held
    feeds = dict(zip(names[:fed], inputs[:fed], strict=True))
    graph = helper.make_graph(
        [helper.make_node(op_type, names, ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n, x in feeds.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(x, n) for n, x in zip(names[fed:], inputs[fed:], strict=True)],
    )
    path = folder / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), path)
    with worker.load(path, OPTIONS) as session:
        return session.run(feeds)["y"]


@pytest.mark.parametrize("held", [0, 1], ids=["fed", "held by the model"])
def test_product_is_that_of_numpy(worker: Worker, tmp_path: Path, held: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 16)).astype(F), rng.standard_normal((16, 5)).astype(F)
    np.testing.assert_allclose(_run(worker, tmp_path, "MatMul", [a, b], held), a @ b, rtol=1e-5, atol=1e-6)


def test_erf_is_that_of_scipy(worker: Worker, tmp_path: Path) -> None:
    x = np.linspace(-3, 3, 31, dtype=F)
    np.testing.assert_allclose(_run(worker, tmp_path, "Erf", [x]), scipy.special.erf(x), rtol=1e-6, atol=1e-7)


def test_convolution_with_attributes_is_a_correlation(worker: Worker, tmp_path: Path) -> None:
    """By hand: [1 2 3 4 5] padded by one, taps 1 and 10 two apart, every second position."""
    x, w = np.arange(1, 6, dtype=F).reshape(1, 1, 5), np.array([[[1, 10]]], F)
    y = _run(worker, tmp_path, "Conv", [x, w], 1, pads=[1, 1], strides=[2], dilations=[2])
    np.testing.assert_array_equal(y, np.array([[[20, 42, 4]]], F))


@pytest.mark.parametrize(
    ("op_type", "shapes", "attributes"),
    [
        ("Hardmax", [(2, 3)], {}),
        ("Conv", [(1, 1, 5), (1, 1, 2)], {"pads": [1, 0]}),
        ("AveragePool", [(1, 1, 5)], {"kernel_shape": [2], "ceil_mode": 1}),
        ("Softmax", [(2, 3)], {"unknown": 1}),
    ],
    ids=["an operator", "uneven padding", "partial windows", "an attribute"],
)
def test_what_it_does_not_know_is_unsupported_and_not_guessed(
    worker: Worker, tmp_path: Path, op_type: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any]
) -> None:
    inputs = [np.ones(shape, F) for shape in shapes]
    with pytest.raises(UnsupportedByRuntimeError):
        _run(worker, tmp_path, op_type, inputs, **attributes)


def test_it_is_not_listed_as_a_runtime() -> None:
    assert listings() != ()
    assert not any("torch" in entry.name for entry in listings())
