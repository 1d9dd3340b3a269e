"""External data: mapped where they are allowed to lie, refused everywhere else."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_arch.errors import InvalidModelError
from onnx_arch.graphs.loading import load_model

from .small_models import make_model, value

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def external_model(location: str | None, **entries: str) -> onnx.ModelProto:
    """y = Relu(w) with w (2, 3) in a file."""
    model = make_model([helper.make_node("Relu", ["w"], ["y"])], [], [value("y", [2, 3])])
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, entry in {**({} if location is None else {"location": location}), **entries}.items():
        tensor.external_data.add(key=key, value=entry)
    return model


def refusal(path: Path) -> str:
    with pytest.raises(InvalidModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{path}: tensor 'w': ")
    return message


@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "data/weights.bin", "a b ü.bin"])
def test_external_data_in_the_folder_are_mapped_read_only(write, tmp_path, location):
    file = tmp_path / location
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(WEIGHT.tobytes())
    model = load_model(write(external_model(location)))
    weight = model.graph.initializers["w"]
    np.testing.assert_array_equal(weight, WEIGHT)
    assert not weight.flags.writeable
    assert model.external_files == (file.resolve(),)


def test_external_data_at_an_offset_that_is_not_aligned(write, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"xyz" + WEIGHT.tobytes() + b"tail")
    model = load_model(write(external_model("weights.bin", offset="3", length="24")))
    np.testing.assert_array_equal(model.graph.initializers["w"], WEIGHT)


def test_external_data_of_an_empty_tensor(write, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    model = external_model("weights.bin", length="0")
    model.graph.initializer[0].dims[:] = [0, 3]
    assert load_model(write(model)).graph.initializers["w"].shape == (0, 3)


def test_external_link_that_stays_in_the_folder_is_followed(write, tmp_path):
    (tmp_path / "blob").write_bytes(WEIGHT.tobytes())
    (tmp_path / "weights.bin").symlink_to("blob")
    assert load_model(write(external_model("weights.bin"))).external_files == (tmp_path / "blob",)


def test_external_data_of_a_model_in_the_current_folder(write, tmp_path, monkeypatch):
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    write(external_model("weights.bin"))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_model(Path("model.onnx")).graph.initializers["w"], WEIGHT)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("../../etc/passwd", "lie outside the model's folder"),
        ("data/../../secret", "lie outside the model's folder"),
        ("data/../weights.bin", "lie outside the model's folder"),
        ("..\\secret", "lie outside the model's folder"),
        ("/etc/passwd", "lie outside the model's folder"),
        ("C:\\secret", "lie outside the model's folder"),
        ("\\\\server\\secret", "lie outside the model's folder"),
        ("", "allowed is a file in the model's folder"),
        ("weights\0.bin", "allowed is a file in the model's folder"),
        (None, "allowed is a file in the model's folder"),
        ("missing.bin", "are missing: no such file"),
        ("model.onnx/weights", "cannot be opened"),
        ("a" * 300, "cannot be opened"),
        (".", "are not a regular file"),
    ],
)
def test_external_location_that_is_not_allowed(write, location, says):
    assert says in refusal(write(external_model(location)))


def test_external_link_out_of_the_folder_is_refused(write, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    (inside / "weights.bin").symlink_to("../secret")
    assert "a link that leads outside" in refusal(write(external_model("weights.bin"), "inside/model.onnx"))


def test_external_folder_that_is_a_link_out_is_refused(write, tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/weights.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "inside/data").symlink_to("../outside")
    assert "a link that leads outside" in refusal(write(external_model("data/weights.bin"), "inside/model.onnx"))


def test_external_link_in_a_circle_is_refused(write, tmp_path):
    (tmp_path / "weights.bin").symlink_to("weights.bin")
    assert "cannot be opened" in refusal(write(external_model("weights.bin")))


def test_external_device_is_refused(write, tmp_path):
    (tmp_path / "weights.bin").symlink_to("/dev/zero")
    assert "a link that leads outside" in refusal(write(external_model("weights.bin")))


def test_external_fifo_is_refused_without_waiting_for_it(write, tmp_path):
    os.mkfifo(tmp_path / "weights.bin")
    assert "are not a regular file" in refusal(write(external_model("weights.bin")))


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"offset": "8"}, "end at byte 32, the file has 24"),
        ({"length": "20"}, "take 24 bytes, its external data are 20"),
        ({"length": "28"}, "take 24 bytes, its external data are 28"),
        ({"offset": "-4"}, "have the offset '-4'"),
        ({"offset": "1e3"}, "have the offset '1e3'"),
        ({"offset": "٣"}, "have the offset"),
        ({"offset": "9" * 5000}, "have the offset"),
        ({"offset": "9" * 18}, "the file has 24"),
    ],
)
def test_external_range_that_is_not_in_the_file(write, tmp_path, entries, says):
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    assert says in refusal(write(external_model("weights.bin", **entries)))


def test_external_data_shorter_than_the_tensor(write, tmp_path):
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes()[:-1])
    assert "end at byte 24, the file has 23" in refusal(write(external_model("weights.bin")))


def test_external_data_of_a_function_attribute_are_checked(write):
    model = external_model("../secret")
    tensor = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    with pytest.raises(InvalidModelError, match="lie outside the model's folder"):
        load_model(write(model))


def test_many_tensors_of_one_file_take_one_map(write, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 300
    (tmp_path / "weights.bin").write_bytes(np.arange(count, dtype=np.float32).tobytes())
    model = make_model([helper.make_node("Sum", [f"w{i}" for i in range(count)], ["y"])], [], [value("y", [1])])
    for i in range(count):
        tensor = model.graph.initializer.add(name=f"w{i}", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        for key, entry in {"location": "weights.bin", "offset": str(4 * i), "length": "4"}.items():
            tensor.external_data.add(key=key, value=entry)
    open_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 40, hard))
    try:
        weights = load_model(write(model)).graph.initializers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [weights[f"w{i}"].item() for i in range(count)] == list(range(count))
