"""Fourier transforms, windows and the mel filterbank: official cases, sums as written, torch, ONNX Runtime, faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mpmath
import numpy as np
import onnx
import pytest
import torch

from onnx_arch.conformance.results import Outcome, Verdict
from onnx_arch.conformance.verdict import judge
from onnx_arch.conformance.witness import witness_for
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import output_dtypes, prepare
from onnx_arch.operators.scale import Array

from .judging import beyond, call, run_onnxruntime
from .node_cases import Case, cases, check_case, check_signature, versions

WINDOWS = {
    "HannWindow": torch.hann_window,
    "HammingWindow": torch.hamming_window,
    "BlackmanWindow": torch.blackman_window,
}
OPERATORS = {"DFT", "STFT", "MelWeightMatrix", *WINDOWS}


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


def verdict(
    op_type: str, inputs: Sequence[Any], actual: Array, attributes: Mapping[str, Any], opset: int = 20
) -> Verdict:
    """The verdict on an output."""
    node = prepare(op_type, inputs, attributes, opset=opset)
    (y,) = node.outputs()
    (scale,) = node.scales((y,)) or ()
    return judge(actual, y, actual.dtype, scale, witness_for(node, 0, y, scale))


def signal(*shape: int, seed: int = 0) -> Array:
    """A random signal, the last dimension its parts."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_written(x: Array, n: int, sign: int) -> Array:
    """Σ_j x_j e^(sign·2πi·jk / n) along the second of three axes, in as many digits as float64 has; (…, 2)."""
    z = (x[..., 0] + (1j * x[..., 1] if x.shape[-1] == 2 else 0)).astype(np.complex128)
    z = np.pad(z, [(0, 0), (0, max(0, n - z.shape[1]))])[:, :n]
    roots = np.exp(sign * 2j * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n)
    y = z @ roots
    return np.stack([y.real, y.imag], axis=-1)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("length", [None, 5, 12, 9])
@pytest.mark.parametrize("opset", [17, 20])
def test_transform_is_the_sum_of_the_specification(opset: int, length: int | None, parts: int) -> None:
    x = signal(2, 9, parts)
    n = 9 if length is None else length
    size = None if length is None else np.array(length)
    place: tuple[Any, dict[str, Any]] = ((np.array(1),), {}) if opset == 20 else ((), {"axis": 1})
    y = call("DFT", x, size, *place[0], opset=opset, **place[1])
    np.testing.assert_allclose(y, as_written(x, n, -1), atol=1e-12)
    half = call("DFT", x, size, *place[0], opset=opset, onesided=1, **place[1])
    np.testing.assert_allclose(half, as_written(x, n, -1)[:, : n // 2 + 1], atol=1e-12)
    back = call("DFT", x, size, *place[0], opset=opset, inverse=1, **place[1])
    np.testing.assert_allclose(back, as_written(x, n, 1) / n, atol=1e-12)


@pytest.mark.parametrize("n", [2, 7, 8, 15])
def test_one_sided_inverse_returns_the_signal(n: int) -> None:
    x = signal(3, n, 1)
    spectrum = call("DFT", x, None, np.array(1), opset=20, onesided=1)
    back = call("DFT", spectrum, np.array(n), np.array(1), opset=20, onesided=1, inverse=1)
    np.testing.assert_allclose(back, x, atol=1e-12)
    if n % 2 == 0:
        default = call("DFT", spectrum, None, np.array(1), opset=20, onesided=1, inverse=1)
        np.testing.assert_array_equal(default, back)


@pytest.mark.parametrize("axis", [0, 1, 2, -2, -4])
def test_axis_counts_from_either_end(axis: int) -> None:
    x = signal(3, 4, 5, 2)
    moved = np.moveaxis(x, axis, 0)
    y = call("DFT", x, None, np.array(axis), opset=20)
    z = np.fft.fft(moved[..., 0] + 1j * moved[..., 1], axis=0)
    np.testing.assert_allclose(np.moveaxis(y, axis, 0), np.stack([z.real, z.imag], axis=-1), atol=1e-12)
    np.testing.assert_array_equal(call("DFT", x, opset=20), call("DFT", x, None, np.array(2), opset=20))
    np.testing.assert_array_equal(call("DFT", x, opset=17), call("DFT", x, None, np.array(1), opset=20))


@pytest.mark.parametrize("n", [16, 128, 1024])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
def test_onnxruntime_passes_at_powers_of_two_and_faults_fail(n: int, parts: int, inverse: int) -> None:
    inputs, attributes = (signal(2, n, parts), None, np.array(1)), {"inverse": inverse}
    (actual,) = run_onnxruntime("DFT", inputs, attributes, opset=20)
    found = verdict("DFT", inputs, actual, attributes)
    assert found.outcome is Outcome.PASSED, found.message
    other = call("DFT", *inputs, opset=20, inverse=1 - inverse).astype(np.float32)
    assert verdict("DFT", inputs, other, attributes).outcome is Outcome.FAILED
    shorter = inputs[0].copy()
    shorter[:, -1] = 0
    dropped = call("DFT", shorter, *inputs[1:], opset=20, **attributes).astype(np.float32)
    assert verdict("DFT", inputs, dropped, attributes).outcome is Outcome.FAILED


@pytest.mark.parametrize("n", [3, 12, 15, 101, 1000])
def test_onnxruntime_at_other_lengths_passes_as_the_text_in_float32_does_and_faults_fail(n: int) -> None:
    inputs = (signal(2, n, 1), None, np.array(1))
    (actual,) = run_onnxruntime("DFT", inputs, {}, opset=20)
    assert beyond(actual, "DFT", *inputs, opset=20) == 0
    found = verdict("DFT", inputs, actual, {})
    assert found.outcome is Outcome.PASSED, found.message
    accurate = np.fft.fft(inputs[0][..., 0], axis=1).astype(np.complex64)
    assert verdict("DFT", inputs, np.stack([accurate.real, accurate.imag], axis=-1), {}).outcome is Outcome.PASSED
    shorter = inputs[0].copy()
    shorter[:, -1] = 0
    dropped = call("DFT", shorter, *inputs[1:], opset=20).astype(np.float32)
    assert verdict("DFT", inputs, dropped, {}).outcome is Outcome.FAILED
    tf32 = (inputs[0].view(np.int32) & -8192).view(np.float32)
    narrow = call("DFT", tf32, *inputs[1:], opset=20).astype(np.float32)
    assert verdict("DFT", inputs, narrow, {}).outcome is Outcome.FAILED


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("windowed", [False, True])
def test_frames_agree_with_torch(windowed: bool, onesided: int) -> None:
    x, window = signal(2, 100, 1), signal(16, seed=1)
    inputs = (x, np.array(5), window if windowed else None, None if windowed else np.array(16))
    y = call("STFT", *inputs, opset=17, onesided=onesided)
    weights = torch.from_numpy(window if windowed else np.ones(16)).double()
    expected = torch.stft(
        torch.from_numpy(x[..., 0]).double(),
        16,
        5,
        window=weights,
        center=False,
        onesided=bool(onesided),
        return_complex=True,
    )
    np.testing.assert_allclose(y, torch.view_as_real(expected).swapaxes(1, 2).numpy(), atol=1e-12)
    (actual,) = run_onnxruntime("STFT", inputs, {"onesided": onesided}, opset=17)
    found = verdict("STFT", inputs, actual, {"onesided": onesided}, opset=17)
    assert found.outcome is Outcome.PASSED, found.message
    late = call("STFT", np.roll(x, -1, axis=1), *inputs[1:], opset=17, onesided=onesided).astype(np.float32)
    assert verdict("STFT", inputs, late, {"onesided": onesided}, opset=17).outcome is Outcome.FAILED


def test_frames_of_a_complex_signal_and_of_the_whole_one() -> None:
    x = signal(2, 20, 2)
    y = call("STFT", x, np.array(3), None, np.array(8), opset=17, onesided=0)
    assert y.shape == (2, 5, 8, 2)
    np.testing.assert_allclose(y[:, 2], as_written(x[:, 6:14], 8, -1), atol=1e-12)
    np.testing.assert_allclose(
        call("STFT", x, np.array(3), opset=17, onesided=0)[:, 0], as_written(x, 20, -1), atol=1e-12
    )


@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("size", [0, 2, 3, 10, 257])
@pytest.mark.parametrize("op_type", WINDOWS)
def test_window_agrees_with_torch(op_type: str, size: int, periodic: int) -> None:
    y = call(op_type, np.array(size), opset=17, periodic=periodic, output_datatype=onnx.TensorProto.DOUBLE)
    assert y.dtype == np.float64
    options = {"alpha": 25 / 46, "beta": 21 / 46} if op_type == "HammingWindow" else {}
    expected = WINDOWS[op_type](size, periodic=bool(periodic), dtype=torch.float64, **options)
    np.testing.assert_allclose(y, expected.numpy(), atol=1e-15)
    (actual,) = run_onnxruntime(op_type, (np.array(size),), {"periodic": periodic}, opset=17)
    assert verdict(op_type, (np.array(size),), actual, {"periodic": periodic}).outcome is Outcome.PASSED


@pytest.mark.parametrize("op_type", WINDOWS)
def test_window_fault_fails_and_one_symmetric_element_is_open(op_type: str) -> None:
    size = np.array(50)
    wrong = call(op_type, size, opset=17, periodic=0)
    assert verdict(op_type, (size,), wrong, {}).outcome is Outcome.FAILED
    for value in (0.0, 1.0, np.nan):
        actual = np.array([value], np.float32)
        assert verdict(op_type, (np.array(1),), actual, {"periodic": 0}).outcome is Outcome.UNJUDGED


@pytest.mark.parametrize("code", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT32])
def test_window_has_the_type_asked_for(code: int) -> None:
    node = prepare("HannWindow", (np.array(6),), {"output_datatype": code}, opset=17)
    (y,) = node.outputs()
    assert output_dtypes(node, (y,)) == (onnx.helper.tensor_dtype_to_np_dtype(code),)


def mel_edges(bands: int, length: int, rate: int, low: float, high: float) -> list[int]:
    """The bins of the triangles' edges at fifty digits."""
    with mpmath.workdps(50):
        bottom, top = (2595 * mpmath.log10(1 + mpmath.mpf(v) / 700) for v in (low, high))
        steps = [bottom + i * (top - bottom) / (bands + 2) for i in range(bands + 2)]
        return [int(mpmath.floor((length + 1) * 700 * (10 ** (v / 2595) - 1) / rate)) for v in steps]


@pytest.mark.parametrize(
    ("bands", "length", "rate", "low", "high"),
    [
        (8, 16, 8192, 0.0, 4096.0),
        (80, 400, 16000, 0.0, 8000.0),
        (40, 512, 16000, 125.5, 7600.25),
        (128, 2048, 44100, 20.0, 16e3),
    ],
)
def test_mel_triangles_rise_and_fall_between_their_edges(
    bands: int, length: int, rate: int, low: float, high: float
) -> None:
    inputs = [np.array(v) for v in (bands, length, rate)] + [np.array(v, np.float32) for v in (low, high)]
    y = call("MelWeightMatrix", *inputs, opset=17, output_datatype=onnx.TensorProto.DOUBLE)
    edges = mel_edges(bands, length, rate, low, high)
    expected = np.zeros((length // 2 + 1, bands))
    for band, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        expected[centre, band] = 1
        for j in range(left, centre):
            expected[j, band] = (j - left) / (centre - left)
        for j in range(centre + 1, right):
            expected[j, band] = (right - j) / (right - centre)
    np.testing.assert_allclose(y, expected, rtol=1e-15)
    (actual,) = run_onnxruntime("MelWeightMatrix", inputs, {}, opset=17)
    found = verdict("MelWeightMatrix", inputs, actual, {}, opset=17)
    assert found.outcome is Outcome.PASSED, found.message
    assert verdict("MelWeightMatrix", inputs, np.roll(actual, 1, axis=0), {}, opset=17).outcome is Outcome.FAILED


def test_band_whose_edge_is_within_rounding_of_a_bin_is_open() -> None:
    high = 700 * (10 ** (6 * np.log10(1 + 1000 / 700) / 4) - 1)  # four of six steps lead to 1000 Hz, bin 33 of 32 kHz
    inputs = [np.array(v) for v in (4, 1055, 32000)] + [np.array(0, np.float32), np.array(high, np.float64)]
    node = prepare("MelWeightMatrix", inputs, {}, opset=17)
    (scale,) = node.scales(node.outputs()) or ()
    assert np.isinf(scale.terms).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "error", "message"),
    [
        ("DFT", [signal(2, 8, 3)], {}, InvalidInputError, "real"),
        ("DFT", [signal(2, 8, 1), None, np.array(2)], {}, InvalidAttributeError, "axis=2"),
        ("DFT", [signal(2, 8, 1), np.array(0)], {}, InvalidInputError, "length 0"),
        ("STFT", [signal(2, 8, 1), np.array(0), None, np.array(4)], {}, InvalidInputError, "every 0"),
        ("STFT", [signal(2, 8, 1), np.array(1), signal(3), np.array(4)], {}, InvalidInputError, "window of 3"),
        ("STFT", [signal(2, 8, 1), np.array(1), None, np.array(9)], {}, InvalidInputError, "frames of 9"),
        ("HannWindow", [np.array(-1)], {}, InvalidInputError, "size -1"),
        (
            "MelWeightMatrix",
            [np.array(8), np.array(16), np.array(8192), np.float32([0]), np.float32([9000])],
            {},
            InvalidInputError,
            "triangles over bins",
        ),
    ],
)
def test_impossible_input_is_named(
    op_type: str, inputs: list[Any], attributes: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        call(op_type, *inputs, opset=20, **attributes)
