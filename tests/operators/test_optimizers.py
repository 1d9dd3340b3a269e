"""Adagrad, Adam, Momentum: official cases, torch.optim, float32 arithmetic, faults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError, MissingKernelError
from onnx_arch.operators.registry import find_kernel
from onnx_arch.operators.scale import Array

from .ml_nodes import call, check_signature_in, outcomes, versions_in
from .node_cases import Case, cases, check_case

TRAINING = "ai.onnx.preview.training"
OPERATORS = {"Adagrad", "Adam", "Momentum"}

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("case", cases(OPERATORS, domain=TRAINING), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions_in(TRAINING, OPERATORS))
def test_kernel_has_the_attributes_of_the_schema(op_type: str, version: int) -> None:
    check_signature_in(TRAINING, op_type, version)


def test_gradient_has_no_kernel() -> None:
    with pytest.raises(MissingKernelError, match="Gradient"):
        find_kernel("Gradient", opset=1, domain=TRAINING)


def f32(value: float) -> float:
    return float(np.float32(value))


def optimized(make: Any, steps: int, gradients: Array, start: Array) -> list[tuple[Array, dict[str, Array]]]:
    """The variable and the optimizer's state after every step of torch, in float64."""
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = make([x])
    found = []
    for step in range(steps):
        x.grad = torch.tensor(gradients[step])
        optimizer.step()
        state = {k: v.detach().numpy().copy() for k, v in optimizer.state[x].items() if hasattr(v, "detach")}
        found.append((x.detach().numpy().copy(), state))
    return found


def drawn(seed: int, steps: int = 5) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((steps, 4, 3)), rng.standard_normal((4, 3))


R = np.array(0.125)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("decay", [0.0, 0.0625])
def test_adam_is_that_of_torch(seed: int, decay: float) -> None:
    """torch adds epsilon behind the correction of the root: epsilon is 0 in both."""
    gradients, x = drawn(seed)
    betas = (f32(0.9), f32(0.999))

    def make(parameters: Any) -> Any:
        return torch.optim.Adam(parameters, lr=0.125, betas=betas, eps=0.0, weight_decay=decay)

    v, h = np.zeros_like(x), np.zeros_like(x)
    for step, (expected, state) in enumerate(optimized(make, 5, gradients, x)):
        x, v, h = call(
            "Adam",
            R,
            np.array(step + 1),
            x,
            gradients[step],
            v,
            h,
            domain=TRAINING,
            epsilon=0.0,
            norm_coefficient=decay,
        )
        np.testing.assert_allclose(x, expected, rtol=1e-12)
        np.testing.assert_allclose(v, state["exp_avg"], rtol=1e-12)
        np.testing.assert_allclose(h, state["exp_avg_sq"], rtol=1e-12)


@pytest.mark.parametrize("seed", [1, 2])
def test_adagrad_is_that_of_torch(seed: int) -> None:
    gradients, x = drawn(seed)

    def make(parameters: Any) -> Any:
        return torch.optim.Adagrad(parameters, lr=0.125, lr_decay=f32(0.1), eps=f32(1e-6), weight_decay=0.0625)

    h = np.zeros_like(x)
    for step, (expected, state) in enumerate(optimized(make, 5, gradients, x)):
        x, h = call(
            "Adagrad",
            R,
            np.array(step),
            x,
            gradients[step],
            h,
            domain=TRAINING,
            decay_factor=0.1,
            norm_coefficient=0.0625,
        )
        np.testing.assert_allclose(x, expected, rtol=1e-12)
        np.testing.assert_allclose(h, state["sum"], rtol=1e-12)


@pytest.mark.parametrize("mode", ["standard", "nesterov"])
@pytest.mark.parametrize("beta", [1.0, 0.75])
def test_momentum_is_that_of_torch(mode: str, beta: float) -> None:
    if mode == "nesterov" and beta != 1:
        beta = 1.0  # torch allows no dampening there
    gradients, x = drawn(3)

    def make(parameters: Any) -> Any:
        nesterov = mode == "nesterov"
        return torch.optim.SGD(
            parameters, lr=0.125, momentum=f32(0.9), dampening=1 - beta, weight_decay=0.0625, nesterov=nesterov
        )

    v = np.zeros_like(x)
    for step, (expected, state) in enumerate(optimized(make, 5, gradients, x)):
        attributes = {"alpha": 0.9, "beta": beta, "mode": mode, "norm_coefficient": 0.0625}
        x, v = call("Momentum", R, np.array(step), x, gradients[step], v, domain=TRAINING, **attributes)
        np.testing.assert_allclose(x, expected, rtol=1e-12)
        np.testing.assert_allclose(v, state["momentum_buffer"], rtol=1e-12)


def plain_adam(inputs: list[Array], fault: str, dtype: Any) -> list[Array]:
    """Adam's formula for one variable in the given precision; with one of the faults if named."""
    r, t, x, g, v, h = (np.asarray(a).astype(dtype) for a in inputs)
    alpha, beta, eps, one = (dtype(a) for a in (0.9, 0.999, 1e-6, 1))
    g = g if fault == "regularisation ignored" else dtype(0.01) * x + g
    v_new = alpha * v + (one if fault == "alpha not completed" else one - alpha) * g
    h_new = beta * h + (one - beta) * (np.abs(g) if fault == "gradient not squared" else g * g)
    step = r if fault == "no correction" else r * np.sqrt(one - beta**t) / (one - alpha**t)
    old = h if fault == "stale root" else h_new
    root = np.sqrt(old + eps) if fault == "epsilon in the root" else np.sqrt(old) + eps
    x_new = x - step * v_new / root
    return [x_new if fault == "no decay after" else (one - dtype(0.02)) * x_new, v_new, h_new]


ADAM = {"norm_coefficient": 0.01, "norm_coefficient_post": 0.02, "domain": TRAINING}


def adam_inputs(seed: int, time: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    x, g, v = (rng.standard_normal((20, 30)).astype(np.float32) for _ in range(3))
    h = (rng.random((20, 30)) * 1e-3).astype(np.float32)
    return [np.array(0.1, np.float32), np.array(time), x, g, v, h]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("time", [1, 7, 1000])
def test_float32_arithmetic_of_adam_passes(seed: int, time: int) -> None:
    inputs = adam_inputs(seed, time)
    ran = plain_adam(inputs, "", np.float32)
    assert [a.dtype for a in ran] == [np.float32] * 3
    assert outcomes(ran, "Adam", *inputs, **ADAM) == [PASSED] * 3


@pytest.mark.parametrize(
    "fault",
    [
        "regularisation ignored",
        "alpha not completed",
        "gradient not squared",
        "no correction",
        "stale root",
        "epsilon in the root",
        "no decay after",
    ],
)
def test_fault_in_adam_is_caught(fault: str) -> None:
    inputs = adam_inputs(1, 7)
    wrong = [a.astype(np.float32) for a in plain_adam(inputs, fault, np.float64)]
    assert outcomes(wrong, "Adam", *inputs, **ADAM)[0] is FAILED


def plain_momentum(inputs: list[Array], fault: str = "") -> list[Array]:
    r, t, x, g, v = inputs
    alpha, beta = np.float32(0.9), np.float32(0.75)
    g = np.float32(0.01) * x + g
    v_new = alpha * v + (g if t == 0 and fault != "first step" else beta * g)
    move = v_new if fault == "standard" else g + (v if fault == "stale" else v_new) * alpha
    return [x - r * move, v_new]


@pytest.mark.parametrize("time", [0, 3])
@pytest.mark.parametrize("fault", ["", "standard", "stale", "first step"])
def test_float32_arithmetic_of_momentum_passes_and_faults_do_not(time: int, fault: str) -> None:
    inputs = adam_inputs(4, time)[:5]
    attributes = {"alpha": 0.9, "beta": 0.75, "mode": "nesterov", "norm_coefficient": 0.01, "domain": TRAINING}
    wrong = fault in ("standard", "stale") or (fault == "first step" and time == 0)
    expected = FAILED if wrong else PASSED
    assert outcomes(plain_momentum(inputs, fault), "Momentum", *inputs, **attributes)[0] is expected


def plain_adagrad(inputs: list[Array], fault: str = "") -> list[Array]:
    r, t, x, g, h = inputs
    one = np.float32(1)
    r = r / (one + (t + (fault == "time off by one")).astype(np.float32) * np.float32(0.1))
    g = np.float32(0.01) * x + g
    h_new = h + g * g
    divisor = np.sqrt(h_new + np.float32(1e-2)) if fault == "epsilon in the root" else np.sqrt(h_new) + np.float32(1e-2)
    return [x - r * g / divisor, g * g if fault == "not accumulated" else h_new]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", [PASSED, PASSED]),
        ("time off by one", [FAILED, PASSED]),
        ("epsilon in the root", [FAILED, PASSED]),
        ("not accumulated", [PASSED, FAILED]),
    ],
)
def test_float32_arithmetic_of_adagrad_passes_and_faults_do_not(fault: str, expected: list[Outcome]) -> None:
    inputs = adam_inputs(5, 3)
    inputs = [*inputs[:4], inputs[5]]
    attributes = {"decay_factor": 0.1, "epsilon": 1e-2, "norm_coefficient": 0.01, "domain": TRAINING}
    assert outcomes(plain_adagrad(inputs, fault), "Adagrad", *inputs, **attributes) == expected


@pytest.mark.parametrize(("op_type", "tensors"), [("Adagrad", 3), ("Adam", 4), ("Momentum", 3)])
def test_variables_are_listed_kind_by_kind(op_type: str, tensors: int) -> None:
    rng = np.random.default_rng(6)
    attributes: dict[str, Any] = {"domain": TRAINING}
    if op_type == "Momentum":
        attributes.update(alpha=0.9, beta=0.75, mode="standard", norm_coefficient=0.5)
    groups = [[rng.random(shape) for _ in range(tensors)] for shape in ((2,), (3, 2), ())]
    listed = [group[kind] for kind in range(tensors) for group in groups]
    together = call(op_type, R, np.array(2), *listed, **attributes)
    apart = [call(op_type, R, np.array(2), *group, **attributes) for group in groups]
    assert len(together) == 3 * (tensors - 1)
    for index, tensor in enumerate(together):
        np.testing.assert_array_equal(tensor, apart[index % 3][index // 3])


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "error", "message"),
    [
        ("Adam", [R, np.array(1), R], {}, InvalidInputError, "4 tensors"),
        ("Adagrad", [R], {}, InvalidInputError, "1 inputs"),
        ("Adagrad", [np.ones(2), np.array(1), R, R, R], {}, InvalidInputError, "R, T"),
        (
            "Momentum",
            [R, np.array(1), R, R, R],
            {"alpha": 1.0, "beta": 1.0, "norm_coefficient": 0.0, "mode": "heavy"},
            InvalidAttributeError,
            "heavy",
        ),
    ],
)
def test_impossible_step_is_named(
    op_type: str, inputs: list[Array], attributes: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        call(op_type, *inputs, domain=TRAINING, **attributes)


def test_learning_rate_is_that_of_the_paper() -> None:
    """alpha_t = alpha sqrt(1 - beta2^t) / (1 - beta1^t), the end of the paper's section 2."""
    one, zero = np.ones(()), np.zeros(())
    x, v, h = call("Adam", one, np.array(3), zero, one, zero, zero, domain=TRAINING, alpha=0.5, beta=0.75, epsilon=0.0)
    assert (v, h) == (0.5, 0.25)
    assert x == pytest.approx(-math.sqrt(1 - 0.75**3) / (1 - 0.5**3))
