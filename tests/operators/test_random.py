"""Random operators and Dropout: shape, type, mean, and that no element is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_arch.operators.evaluation import output_dtypes, prepare
from onnx_arch.operators.scale import Array, Rule, Scale
from onnx_arch.operators.storage import BFLOAT16

from .node_cases import Case, cases, check_case, check_signature, versions

WITH_CASES = {"Bernoulli", "Dropout"}
OPERATORS = {
    *("Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
}
FLOAT16 = onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("case", cases(WITH_CASES), ids=str)
def test_node_case_of_onnx_gives_shape_and_type(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def run(op_type: str, *inputs: Any, opset: int = 22, **attributes: Any) -> tuple[list[Array], list[Any], list[Scale]]:
    """Outputs, the dtypes that a runtime must store, and scales."""
    node = prepare(op_type, inputs, attributes, opset=opset)
    outputs = node.outputs()
    return list(outputs), list(output_dtypes(node, outputs)), list(node.scales(outputs) or ())


@pytest.mark.parametrize(("dtype", "expected"), [(1, np.float32), (FLOAT16, np.float16), (16, BFLOAT16)])
def test_random_tensor_has_the_mean_shape_and_type_asked_for(dtype: int, expected: Any) -> None:
    (normal,), (stored,), (scale,) = run("RandomNormal", shape=[2, 0, 3], dtype=dtype, mean=2.0, seed=1.0)
    assert (normal.shape, stored, scale.rule) == ((2, 0, 3), np.dtype(expected), Rule.DISTRIBUTION)
    (uniform,), (stored,), _ = run("RandomUniform", shape=[4], dtype=dtype, low=-1.0, high=3.0)
    assert (uniform.astype(float).tolist(), stored) == ([1.0] * 4, np.dtype(expected))


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "RandomUniformLike"])
def test_random_like_takes_type_from_input_unless_asked(op_type: str) -> None:
    x = np.zeros((2, 3), np.float64)
    assert run(op_type, x)[1] == [np.dtype(np.float64)]
    assert run(op_type, x, dtype=FLOAT16)[1] == [np.dtype(np.float16)]
    (y,), dtypes, _ = run(op_type, x.astype(np.int64))
    assert (y.shape, dtypes) == ((2, 3), [np.dtype(np.float32)])


def test_bernoulli_and_multinomial_keep_type_and_shape() -> None:
    p = np.array([[0.25, 0.75]], np.float32)
    assert run("Bernoulli", p)[0][0].tolist() == p.tolist()
    assert run("Bernoulli", p, dtype=onnx.TensorProto.BOOL)[1] == [np.dtype(bool)]
    (y,), dtypes, (scale,) = run("Multinomial", p, sample_size=5, dtype=onnx.TensorProto.INT64)
    assert (y.shape, dtypes, scale.rule) == ((1, 5), [np.dtype(np.int64)], Rule.DISTRIBUTION)


DATA = np.array([[1.5, -2.0], [np.nan, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("opset", "inputs", "attributes", "mask"),
    [
        (1, (), {"is_test": 1, "consumed_inputs": [0]}, np.float32),
        (6, (), {"is_test": 1, "ratio": 0.9}, np.float32),
        (7, (), {"ratio": 0.9}, np.float32),
        (10, (), {}, np.bool_),
        (12, (), {"seed": 3}, np.bool_),
        (13, (np.array(0.9, np.float32),), {}, np.bool_),
        (22, (np.array(0.9, np.float32), np.array(False)), {}, np.bool_),
        (22, (np.array(0.0, np.float32), np.array(True)), {}, np.bool_),
    ],
)
def test_dropout_in_inference_is_the_input_and_exact(
    opset: int, inputs: Sequence[Array], attributes: dict[str, Any], mask: Any
) -> None:
    outputs, dtypes, scales = run("Dropout", DATA, *inputs, opset=opset, **attributes)
    assert np.array_equal(outputs[0], DATA, equal_nan=True)
    assert (outputs[1] == 1).all()
    assert dtypes == [np.dtype(np.float32), np.dtype(mask)]
    assert [scale.rule for scale in scales] == [Rule.EXACT, Rule.EXACT]
    assert np.isinf(scales[1].terms).all() == (opset < 12), "what the mask holds is specified since opset 12"


@pytest.mark.parametrize(
    ("opset", "inputs"),
    [(1, ()), (6, ()), (12, (None, np.array(True))), (22, (np.array(0.5, np.float32), np.array(True)))],
)
def test_dropout_in_training_is_a_distribution(opset: int, inputs: Sequence[Array | None]) -> None:
    _, _, scales = run("Dropout", DATA, *inputs, opset=opset)
    assert [scale.rule for scale in scales] == [Rule.DISTRIBUTION, Rule.DISTRIBUTION]
