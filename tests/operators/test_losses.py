"""Losses: official cases, torch in float64 and float32, ONNX Runtime, faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from onnx_arch.conformance.results import Outcome, Verdict
from onnx_arch.conformance.verdict import judge
from onnx_arch.conformance.witness import witness_for
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array

from .judging import call, run_onnxruntime
from .node_cases import Case, cases, check_case, check_signature, versions

functional = torch.nn.functional
FUNCTIONS = {"NegativeLogLikelihoodLoss": functional.nll_loss, "SoftmaxCrossEntropyLoss": functional.cross_entropy}
OPERATORS = set(FUNCTIONS)
SHAPES = [(5, 4), (3, 4, 6), (2, 3, 4, 5), (2, 3, 2, 3, 4)]


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def sample(op_type: str, shape: Sequence[int], weighted: bool, seed: int = 0) -> list[Any]:
    """Scores (or log-probabilities), classes with some −1 among them, and weights."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 3).astype(np.float32)
    if op_type == "NegativeLogLikelihoodLoss":
        x = functional.log_softmax(torch.from_numpy(x), 1).numpy()
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    target[rng.random(target.shape) < 0.2] = -1
    target[(0,) * target.ndim] = 0
    return [x, target, rng.uniform(0.1, 3, shape[1]).astype(np.float32) if weighted else None]


def by_torch(op_type: str, inputs: Sequence[Any], reduction: str, dtype: torch.dtype = torch.float64) -> Array:
    """PyTorch's loss; −1 is ignored."""
    x, target, weight = (None if v is None else torch.from_numpy(v) for v in inputs)
    assert x is not None
    given = None if weight is None else weight.to(dtype)
    return FUNCTIONS[op_type](x.to(dtype), target, given, ignore_index=-1, reduction=reduction).numpy()


def verdict(
    op_type: str, inputs: Sequence[Any], actual: Array, attributes: Mapping[str, Any], output: int = 0
) -> Verdict:
    """The verdict on an output."""
    node = prepare(op_type, inputs, attributes, opset=13, output_count=output + 1)
    outputs = node.outputs()
    scales = node.scales(outputs)
    assert scales is not None
    witness = witness_for(node, output, outputs[output], scales[output])
    return judge(actual, outputs[output], actual.dtype, scales[output], witness)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_loss_agrees_with_torch_and_runtimes_pass(
    op_type: str, shape: tuple[int, ...], reduction: str, weighted: bool
) -> None:
    inputs, attributes = sample(op_type, shape, weighted), {"reduction": reduction, "ignore_index": -1}
    y = call(op_type, *inputs, opset=13, **attributes)
    np.testing.assert_allclose(y, by_torch(op_type, inputs, reduction), rtol=1e-12, atol=1e-14)
    (runtime,) = run_onnxruntime(op_type, inputs, attributes, opset=13)
    for actual in (runtime, by_torch(op_type, inputs, reduction, torch.float32)):
        found = verdict(op_type, inputs, actual, attributes)
        assert found.outcome is Outcome.PASSED, found.message


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_fault_fails(op_type: str, reduction: str) -> None:
    inputs, attributes = sample(op_type, (40, 10), True, 1), {"reduction": reduction, "ignore_index": -1}
    x, target, weight = inputs
    clean = np.where(target == -1, 9, target)
    wrong = {
        "weights ignored": call(op_type, x, target, opset=13, **attributes),
        "a class that is ignored counts": call(op_type, x, clean, weight, opset=13, **attributes),
        "classes off by one": call(
            op_type, x, np.where(target < 0, -1, (target + 1) % 10), weight, opset=13, **attributes
        ),
        "one sample dropped": call(op_type, x[1:], target[1:], weight, opset=13, **attributes),
        "off by a hundred-thousandth": call(op_type, *inputs, opset=13, **attributes) * (1 + 1e-4),
    }
    for name, actual in wrong.items():
        assert verdict(op_type, inputs, np.asarray(actual, np.float32), attributes).outcome is Outcome.FAILED, name


def test_log_probabilities_are_the_second_output() -> None:
    inputs = sample("SoftmaxCrossEntropyLoss", (6, 5, 3), True, 2)
    attributes = {"ignore_index": -1}
    loss, log_prob = call("SoftmaxCrossEntropyLoss", *inputs, opset=13, output_count=2, **attributes)
    expected = functional.log_softmax(torch.from_numpy(inputs[0]).double(), 1).numpy()
    np.testing.assert_allclose(log_prob, expected, rtol=1e-13)
    ran = run_onnxruntime("SoftmaxCrossEntropyLoss", inputs, attributes, opset=13, output_count=2)
    for index, actual in enumerate(ran):
        found = verdict("SoftmaxCrossEntropyLoss", inputs, actual, attributes, index)
        assert found.outcome is Outcome.PASSED, found.message
    assert loss.shape == ()


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_mean_of_nothing_is_not_a_number(op_type: str) -> None:
    inputs = sample(op_type, (3, 4), False)
    inputs[1][:] = -1
    assert np.isnan(call(op_type, *inputs, opset=13, ignore_index=-1))
    actual = np.array(np.nan, np.float32)
    assert verdict(op_type, inputs, actual, {"ignore_index": -1}).outcome is Outcome.PASSED
    assert call(op_type, *inputs, opset=13, ignore_index=-1, reduction="sum") == 0


def test_loss_of_each_sample_without_weights_is_an_element_of_the_input() -> None:
    inputs = sample("NegativeLogLikelihoodLoss", (6, 5), False, 3)
    attributes = {"reduction": "none", "ignore_index": -1}
    y = call("NegativeLogLikelihoodLoss", *inputs, opset=13, **attributes).astype(np.float32)
    assert verdict("NegativeLogLikelihoodLoss", inputs, y, attributes).rule == "exact"
    wrong = np.nextafter(y, np.float32(np.inf))
    assert verdict("NegativeLogLikelihoodLoss", inputs, wrong, attributes).outcome is Outcome.FAILED


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_impossible_input_is_named(op_type: str) -> None:
    x, target, _ = sample(op_type, (3, 4), False)
    with pytest.raises(InvalidInputError, match="classes -1 to"):
        call(op_type, x, np.array([0, 1, -1]), opset=13)
    with pytest.raises(InvalidInputError, match="does not go with"):
        call(op_type, x, target[:2], opset=13)
    with pytest.raises(InvalidAttributeError, match="reduction='max'"):
        call(op_type, x, np.abs(target), opset=13, reduction="max")
