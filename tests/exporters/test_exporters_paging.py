"""Parameters on the shelf are what they would be in memory, and take none when they are not read."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from onnx_arch.architectures.initialization import randomize
from onnx_arch.exporters import paging, wide_products
from onnx_arch.exporters.export import export_module
from onnx_arch.exporters.float64 import run_float64, widen_small
from onnx_arch.exporters.paging import Shelf, built_on, shelve
from onnx_arch.operators.mapped import give_back_array


def values(shape, seed=0, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


@pytest.fixture
def shelves_everything(monkeypatch):
    monkeypatch.setattr(paging, "SMALLEST_SHELVED_BYTES", 1)
    monkeypatch.setattr(wide_products, "BLOCK_ELEMENTS", 16)


def test_shelf_keeps_values_when_pages_are_given_back(tmp_path):
    shelf, wanted = Shelf(tmp_path), values((700, 1000))
    place = shelf.empty(wanted.shape, wanted.dtype)
    shelf.write(place, wanted)
    shelf.release([place])
    shelf.release_all()
    assert torch.equal(place, wanted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_shelf_converts_as_torch_does(tmp_path, dtype):
    shelf, wanted = Shelf(tmp_path), values((600, 1000))
    place = shelf.empty(wanted.shape, dtype)
    shelf.write(place, wanted)
    assert torch.equal(place, wanted.to(dtype))


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4)])
def test_small_and_empty_tensors_are_written(tmp_path, shape):
    shelf = Shelf(tmp_path)
    place = shelf.empty(shape, torch.float32)
    shelf.write(place, values(shape))
    assert torch.equal(place, values(shape))
    assert not shelf.holds(place)


def test_tensor_in_memory_is_not_zeroed_by_release(tmp_path):
    shelf, own = Shelf(tmp_path), values((700, 1000))
    shelf.empty(own.shape, own.dtype)
    copy = own.clone()
    shelf.release([own])
    assert torch.equal(own, copy)


def test_array_in_memory_is_not_zeroed_when_it_is_given_back():
    own = np.random.default_rng(0).standard_normal(100_000)
    own.flags.writeable = False
    copy = own.copy()
    give_back_array(own)
    assert np.array_equal(own, copy)


def test_writeable_mapping_is_not_given_back(tmp_path):
    """A private mapping that was written to would lose what was written."""
    (tmp_path / "file").write_bytes(bytes(100_000))
    mapped = np.memmap(tmp_path / "file", np.uint8, "c")
    mapped[:] = 7
    give_back_array(mapped.view(np.ndarray))
    assert mapped.min() == 7


class Net(nn.Module):
    """One large layer of each kind, a tied weight and a buffer."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(40, 12, padding_idx=0)
        self.conv = nn.Conv1d(12, 10, 3, padding=1)
        self.wide = nn.Conv2d(1, 6, (5, 3), stride=(2, 1), padding=(2, 1), dilation=(1, 1))
        self.up = nn.ConvTranspose2d(6, 8, 3, stride=2)
        self.linear = nn.Linear(10, 12)
        self.head = nn.Linear(12, 40, bias=False)
        self.head.weight = self.words.weight
        self.expert = nn.Parameter(torch.zeros(2, 12, 9))
        self.register_buffer("shift", torch.ones(12))

    def forward(self, tokens):  # (2, T) -> …
        x = self.linear(self.conv(self.words(tokens).transpose(1, 2)).transpose(1, 2).relu()) + self.shift
        picture = self.up(self.wide(x[:, None]))
        return self.head(x), torch.bmm(x, self.expert), picture, self.head.weight.T @ self.head.weight


def test_module_built_on_a_shelf_has_the_values_it_has_in_memory(tmp_path, shelves_everything):
    shelf, plain = Shelf(tmp_path), Net()
    with built_on(shelf, torch.float32):
        shelved = Net()
    assert all(shelf.holds(parameter) == (parameter.ndim > 1) for parameter in shelved.parameters())
    assert shelved.head.weight is shelved.words.weight
    randomize(plain, 5)
    randomize(shelved, 5, drawn=lambda part: shelf.release([part]))
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), shelved.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_blockwise_float64_is_float64(tmp_path, shelves_everything, dtype):
    module = Net()
    randomize(module, 6)
    module, tokens = module.to(dtype), torch.tensor([[1, 5, 0, 7, 39], [2, 2, 3, 1, 4]])
    with torch.no_grad():
        wanted = Net()
        wanted.load_state_dict(module.state_dict())
        reference = wanted.double()(tokens)
    shelf = Shelf(tmp_path)
    shelve(module, shelf)
    widen_small(module, shelf)
    assert module.conv.bias.dtype == torch.float64
    assert module.conv.weight.dtype == dtype
    with shelf.releasing(module):
        given = run_float64(module, (tokens,), {}, dtype, lambda block: shelf.release([block]))
    for a, b in zip(given, reference, strict=True):
        assert a.dtype == torch.float64
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolution_in_tiles_is_the_convolution(shelves_everything, groups, stride, padding, dilation):
    x, w = values((2, 4, 11, 9)), values((6, 4 // groups, 3, 2), seed=1)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    bias = values((6,), seed=2, dtype=torch.float64)
    wanted = functional.conv2d(x.double(), w.double(), bias, **options)
    given = run_float64(lambda a: functional.conv2d(a, w, bias, **options), (x,), {})
    torch.testing.assert_close(given, wanted, rtol=1e-12, atol=1e-12)


MEASURED = """
import json, sys, types
from pathlib import Path
import torch, onnxscript, torch.onnx
from onnx_arch.exporters.export import export_module
from onnx_arch.architectures.registry import find_architecture


def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


folder = Path(sys.argv[1])
small = export_module(f"{folder}/nets.py:small", folder, say=lambda _: None)  # what everything needs once
before = resident("VmRSS")
bundle = export_module(f"{folder}/nets.py:large", folder, weights=folder / "c.safetensors")
weights = sum(file["size_bytes"] for file in bundle.manifest["files"].values())
print(json.dumps([resident("VmHWM") - before, weights, str(bundle.translation), str(bundle.runtime)]))
"""

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, size, depth):
        super().__init__()
        with torch.device("meta" if size > 100 else "cpu"):
            self.layers = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(depth)))
        self.size = size

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return x


def small():
    return Net(8, 2), (torch.randn(2, 8),)


def large():
    net = Net(2048, 24)
    return net.to_empty(device="cpu"), (torch.randn(2, 2048),)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_export_with_its_proof_takes_less_memory_than_the_weights(tmp_path):
    """24 matrices of 16.8 MB, 403 MB in all; half of that would be held by one copy in half precision."""
    from onnx_arch.exporters.safetensors_file import write_safetensors  # noqa: PLC0415

    (tmp_path / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    matrix = torch.from_numpy(rng.standard_normal((2048, 2048), np.float32) * np.float32(0.03))
    state = {f"layers.{index}.weight": matrix.roll(index, 0) for index in range(24)}
    write_safetensors(tmp_path / "c.safetensors", state, Shelf())
    del state
    script = [sys.executable, "-c", MEASURED, str(tmp_path)]
    result = subprocess.run(script, capture_output=True, text=True, check=True, timeout=600)
    peak, weights, translation, runtime = json.loads(result.stdout.splitlines()[-1])
    assert (translation, runtime) == ("passed", "passed")
    assert weights > 400e6
    assert peak < 0.9 * weights


def test_module_of_a_user_that_is_large_is_exported_from_the_shelf(tmp_path, shelves_everything):
    (tmp_path / "nets.py").write_text(NETS)
    assert not export_module(f"{tmp_path}/nets.py:small", tmp_path).is_wrong
