"""Random operators and Dropout: shape, type, mean, the laws of their draws, ONNX Runtime, faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.verdict import judge
from onnx_arch.operators.evaluation import output_dtypes, prepare
from onnx_arch.operators.scale import Array, Rule, Scale
from onnx_arch.operators.storage import BFLOAT16

from .judging import run_onnxruntime
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


def outcomes(actual: Sequence[Array], op_type: str, *inputs: Any, opset: int = 22, **attributes: Any) -> list[Outcome]:
    """The outcome of each output."""
    node = prepare(op_type, inputs, attributes, opset=opset, output_count=len(actual))
    references = node.outputs()
    expected = zip(actual, references, output_dtypes(node, references), node.scales(references) or (), strict=True)
    return [judge(a, r, dtype, scale).outcome for a, r, dtype, scale in expected]


ROWS, COLUMNS = 60, 40
ZEROS = np.zeros((ROWS, COLUMNS), np.float32)
CHANCES = np.random.default_rng(31).random((ROWS, COLUMNS)).astype(np.float32)
LOGITS = np.random.default_rng(32).standard_normal((6, 5)).astype(np.float32)
FULL = np.random.default_rng(33).standard_normal((ROWS, COLUMNS)).astype(np.float32)
THIRD, TRAINING = np.array(0.3, np.float32), np.array(True)
CALLS: dict[str, tuple[str, tuple[Array, ...], dict[str, Any], int]] = {
    "normal": ("RandomNormal", (), {"shape": [ROWS, COLUMNS], "mean": 2.0, "scale": 0.5}, 1),
    "normal in float64": ("RandomNormal", (), {"shape": [ROWS, COLUMNS], "dtype": onnx.TensorProto.DOUBLE}, 1),
    "normal like": ("RandomNormalLike", (ZEROS,), {"mean": -1.0}, 1),
    "uniform": ("RandomUniform", (), {"shape": [ROWS, COLUMNS], "low": -1.0, "high": 3.0}, 1),
    "uniform in float64": ("RandomUniform", (), {"shape": [ROWS, COLUMNS], "dtype": onnx.TensorProto.DOUBLE}, 1),
    "uniform like": ("RandomUniformLike", (ZEROS.astype(np.float64),), {"high": 10.0}, 1),
    "Bernoulli": ("Bernoulli", (CHANCES,), {}, 1),
    "multinomial": ("Multinomial", (LOGITS,), {"sample_size": 200}, 1),
    "dropout": ("Dropout", (FULL, THIRD, TRAINING), {"seed": 3}, 2),
}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"Bernoulli"}))
def test_draws_of_onnxruntime_pass(name: str) -> None:
    op_type, inputs, attributes, count = CALLS[name]
    seed = {"seed": 5 if op_type == "Dropout" else 5.0}
    actual = run_onnxruntime(op_type, inputs, {**attributes, **seed}, opset=21, output_count=count)
    assert outcomes(actual, op_type, *inputs, opset=21, **attributes) == [Outcome.PASSED] * count


def test_bernoulli_of_onnxruntime_is_the_complement_and_fails() -> None:
    """It runs onnx's function body, which compares the wrong way round: 1 with probability 1 − p."""
    (actual,) = run_onnxruntime("Bernoulli", (CHANCES,), {"seed": 5.0}, opset=21)
    assert outcomes([actual], "Bernoulli", CHANCES) == [Outcome.FAILED]
    assert outcomes([1 - actual], "Bernoulli", CHANCES) == [Outcome.PASSED]


TYPES = [np.float64, np.float32, np.float16, BFLOAT16]
SIZES = [(50,), (7, 9), (100, 20), (3, 5, 200)]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("seed", range(8))
def test_draws_of_numpy_in_any_type_and_size_pass(seed: int, dtype: Any) -> None:
    rng, shape = np.random.default_rng([34, seed]), SIZES[seed % 4]
    mean, deviation = [(0.0, 1.0), (5.0, 0.125), (-3.0, 10.0), (100.0, 1.0)][seed // 2]
    like = np.zeros(shape, dtype)
    normal = rng.normal(mean, deviation, shape).astype(dtype)
    assert outcomes([normal], "RandomNormalLike", like, mean=mean, scale=deviation) == [Outcome.PASSED]
    low, high = mean - deviation, mean + deviation
    uniform = rng.uniform(low, high, shape).astype(dtype)
    assert outcomes([uniform], "RandomUniformLike", like, low=low, high=high) == [Outcome.PASSED]
    chances = rng.random(shape).astype(dtype)
    flips = (rng.random(shape) < chances.astype(np.float64)).astype(dtype)
    assert outcomes([flips], "Bernoulli", chances) == [Outcome.PASSED]


def _dropped(keep: float, factor: float) -> tuple[Array, Array]:
    mask = np.random.default_rng(35).random(FULL.shape) < keep
    return np.where(mask, FULL * np.float32(factor), np.float32(0)), mask


NORMAL = np.random.default_rng(36).standard_normal((ROWS, COLUMNS)).astype(np.float32)
UNIFORM = np.random.default_rng(37).random((ROWS, COLUMNS)).astype(np.float32)
FAULTS: dict[str, tuple[str, Any]] = {
    "the deviation taken for a variance": ("normal", 2 + NORMAL * np.float32(0.5**0.5)),
    "the mean left out": ("normal", NORMAL * np.float32(0.5)),
    "one row for all": ("normal", np.broadcast_to(2 + NORMAL[:1] / 2, NORMAL.shape).copy()),
    "sorted": ("normal", 2 + np.sort(NORMAL, axis=0) / 2),
    "uniform in place of normal": ("normal", 2 + (UNIFORM - np.float32(0.5)) * np.float32(3)),
    "never drawn": ("normal", np.full(NORMAL.shape, 2, np.float32)),
    "one NaN": ("normal", np.where(np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) == 7, np.nan, 2 + NORMAL / 2)),
    "low and high left out": ("uniform", UNIFORM),
    "beyond high": ("uniform", UNIFORM * np.float32(4.1) - 1),
    "the complement": ("Bernoulli", (UNIFORM > CHANCES).astype(np.float32)),
    "one half for all": ("Bernoulli", (np.float32(0.5) < UNIFORM).astype(np.float32)),
    "a threshold": ("Bernoulli", (np.float32(0.5) < CHANCES).astype(np.float32)),
    "twos": ("Bernoulli", 2 * (UNIFORM < CHANCES).astype(np.float32)),
    "all classes alike": ("multinomial", np.random.default_rng(38).integers(0, 5, (6, 200)).astype(np.int32)),
    "a class too many": ("multinomial", np.full((6, 200), 5, np.int32)),
    "the likeliest class": ("multinomial", np.repeat(LOGITS.argmax(1)[:, None], 200, axis=1).astype(np.int32)),
    "not divided by the share kept": ("dropout", _dropped(0.7, 1.0)),
    "the ratio kept": ("dropout", _dropped(0.3, 1 / 0.7)),
    "nothing dropped": ("dropout", _dropped(2.0, 1 / 0.7)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_draws_of_another_law_fail(fault: str) -> None:
    name, actual = FAULTS[fault]
    op_type, inputs, attributes, _ = CALLS[name]
    values = (
        actual if isinstance(actual, tuple) else (actual.astype(np.int32 if name == "multinomial" else np.float32),)
    )
    assert outcomes(values, op_type, *inputs, **attributes)[0] is Outcome.FAILED


def test_few_draws_are_unjudged_but_their_support_is_not() -> None:
    few = np.array([0.5, 0.25], np.float32)
    assert outcomes([few], "RandomUniform", shape=[2]) == [Outcome.UNJUDGED]
    assert outcomes([few * 5], "RandomUniform", shape=[2]) == [Outcome.FAILED]
    assert outcomes([few * 0], "Bernoulli", few) == [Outcome.UNJUDGED]
    assert outcomes([few * 0], "Bernoulli", few * 0 + 1) == [Outcome.FAILED]
    assert outcomes([few * 0 + 1], "Bernoulli", few * 0 + 1) == [Outcome.PASSED], "certain draws are no draws"


def test_degenerate_laws_admit_their_one_value() -> None:
    assert outcomes([np.full(50, 3, np.float32)], "RandomNormal", shape=[50], mean=3.0, scale=0.0) == [Outcome.PASSED]
    assert outcomes([NORMAL], "RandomNormal", shape=[ROWS, COLUMNS], scale=0.0) == [Outcome.FAILED]
    assert outcomes([np.full(50, 3, np.float32)], "RandomUniform", shape=[50], low=3.0, high=3.0) == [Outcome.PASSED]
