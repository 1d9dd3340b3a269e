"""How people's own modules are called, what they return, and the state that they start from."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from onnx_arch.exporters.proof import Standing


def port_names(bundle):
    graph = bundle.manifest["graphs"][0]
    return [port["name"] for port in graph["inputs"]], [port["name"] for port in graph["outputs"]]


def test_arguments_without_a_parameter_of_their_own_may_be_dynamic(zoo):
    bundle = zoo("gathering", dynamic=("terms.0.0=rows", "terms.1.0=rows"))
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    assert (
        bundle.manifest["graphs"][0]["inputs"][1] | {"shape": ["rows", 3]} == bundle.manifest["graphs"][0]["inputs"][1]
    )
    assert port_names(bundle)[0] == ["terms.0", "terms.1", "factors.last"]


def test_dataclasses_are_nests_like_others(zoo):
    bundle = zoo("finding", dynamic=("batch",))
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    assert port_names(bundle) == (["seen.pixels"], ["seen.pixels_out", "score"])


@pytest.mark.parametrize("dynamic", [(), ("batch",)])
def test_only_the_tensors_of_a_result_are_outputs(zoo, dynamic):
    bundle = zoo("measuring", dynamic=dynamic)
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    assert port_names(bundle)[1] == ["doubled", "total"]


def test_module_that_updates_its_buffers_is_exported_in_the_state_that_it_was_made_in(zoo, read_set):
    bundle = zoo("counting", dynamic=("batch",))
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    feeds, outputs = read_set(bundle)
    np.testing.assert_allclose(outputs["output"], feeds["x"] - feeds["x"].mean(0) / 4, rtol=1e-6, atol=1e-7)
    session = onnxruntime.InferenceSession(bundle.path / "model.onnx")
    np.testing.assert_allclose(session.run(None, feeds)[0], outputs["output"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_complex_buffer_keeps_its_imaginary_part_in_every_type(zoo, read_set, dtype):
    bundle = zoo("turning", dtype=dtype, dynamic=("x.1=sequence",))
    assert (bundle.translation, bundle.runtime) == (Standing.PASSED, Standing.PASSED)
    feeds, outputs = read_set(bundle)
    pairs = feeds["x"].astype(np.float64).reshape(2, 6, 4, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * np.outer(np.arange(6), 0.1 ** np.arange(4)))
    expected = np.stack([turned.real, turned.imag], axis=-1).reshape(2, 6, 8)
    np.testing.assert_allclose(outputs["output"].astype(np.float64), expected, atol=4 * np.finfo(dtype).eps)
