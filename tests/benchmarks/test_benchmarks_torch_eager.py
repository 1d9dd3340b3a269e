"""PyTorch eager as the other side: the module behind a bundle, with its own parameters, in a worker process."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnx_arch.benchmarks.planning import TORCH_ADAPTER
from onnx_arch.benchmarks.profiles import times_by_op_type
from onnx_arch.cli.main import guarded, run
from onnx_arch.errors import RuntimeUnavailableError
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.test_data import read_test_data
from onnx_arch.runtimes.process import open_session
from onnx_arch.runtimes.session import RuntimeOptions

torch = pytest.importorskip("torch")

FACTORY = """
import torch


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x, *, scale):
        return {"logits": self.dropout(self.linear(x)) * scale, "scale": scale + 1}


def scaled():
    return Scaled(), (torch.ones(2, 4),), {"scale": torch.full((1,), 3.0)}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The tiny MLP, exported once."""
    from onnx_arch.exporters.export import export_architecture  # noqa: PLC0415 - skipped where torch is not

    folder = tmp_path_factory.mktemp("exported")
    export_architecture("mlp", folder, preset="tiny", seed=5)
    return folder / "mlp"


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(exported, tmp_path / "mlp")


def amend(bundle: Path, **fields: object) -> dict:
    """Change the manifest."""
    file = bundle / "manifest.json"
    manifest = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps(manifest))
    return manifest


def eager(**options) -> RuntimeOptions:
    return RuntimeOptions(runtime=str(TORCH_ADAPTER), threads=1, **options)


def outputs(bundle: Path, **options) -> tuple[dict, dict]:
    """What the eager side computes on the bundle's test data, and what the export kept."""
    model = load_model(bundle)
    feeds, expected = read_test_data(model, bundle / "test_data_set_0")
    with open_session(model.path, eager(**options)) as session:
        return session.run(feeds), expected


def assert_same(actual: dict, expected: dict) -> None:
    """The module computes what it computed when it was exported."""
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-6)


def test_module_of_the_seed_gives_the_outputs_of_the_export(bundle) -> None:
    assert_same(*outputs(bundle))


def test_session_says_what_it_is(bundle) -> None:
    with open_session(bundle / "model.onnx", eager()) as session:
        assert session.info.versions["torch"] == torch.__version__
        assert session.info.providers == ("CPUExecutionProvider",)
        manifest = json.loads((bundle / "manifest.json").read_text())
        assert list(session.info.input_names) == [port["name"] for port in manifest["graphs"][0]["inputs"]]
        assert session.info.extra["optimization"] == ""


def test_checkpoint_that_is_gone_is_replaced_by_the_model_s_own_initializers(bundle) -> None:
    amend(bundle, seed=6, weights={"file": "gone.safetensors", "layout": "onnx-arch"})
    assert_same(*outputs(bundle))


def test_other_seed_without_a_checkpoint_computes_something_else(bundle) -> None:
    """Proves that the test above restores parameters: with another seed they are others."""
    amend(bundle, seed=6)
    actual, expected = outputs(bundle)
    assert not np.allclose(actual["logits"], expected["logits"], rtol=1e-2)


def test_parameter_that_the_model_holds_only_folded_is_asked_for(bundle) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    for origin in manifest["graphs"][0]["initializers"].values():
        origin["transform"] = "computed"
    amend(bundle, graphs=manifest["graphs"], weights={"file": "gone.safetensors", "layout": "onnx-arch"})
    with pytest.raises(RuntimeUnavailableError, match=r"folded: give the checkpoint gone\.safetensors with --weights"):
        outputs(bundle)


def test_checkpoint_beside_the_bundle_or_given_is_taken(bundle, tmp_path) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415 - needs torch

    from onnx_arch.architectures.registry import find_architecture  # noqa: PLC0415 - needs torch

    entry = find_architecture("mlp")
    module = entry.build(entry.config("tiny")).eval()
    torch.manual_seed(9)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    save_file(module.state_dict(), tmp_path / "mine.safetensors")
    feeds, _ = read_test_data(load_model(bundle), bundle / "test_data_set_0")
    with torch.no_grad():
        expected = {"logits": module(torch.from_numpy(feeds["features"].copy())).numpy()}
    amend(bundle, weights={"file": "mine.safetensors", "layout": "onnx-arch"})
    assert_same(outputs(bundle)[0], expected)
    moved = (tmp_path / "mine.safetensors").rename(tmp_path / "other.safetensors")
    assert_same(outputs(bundle, extra={"weights": str(moved)})[0], expected)


def test_profile_names_the_operators_of_each_run(bundle) -> None:
    model = load_model(bundle)
    feeds, _ = read_test_data(model, bundle / "test_data_set_0")
    with open_session(model.path, eager(profile=True)) as session:
        session.time_runs(feeds, 4)
        events = session.finish_profile()
    assert sum(event["name"] == "model_run" for event in events) == 4
    counts = {row.op_type: row.count for row in times_by_op_type(events, skip_runs=1)}
    linears = sum(isinstance(part, torch.nn.Linear) for part in _module().modules())
    assert counts["aten::linear"] == linears


def _module():
    from onnx_arch.architectures.registry import find_architecture  # noqa: PLC0415 - needs torch

    entry = find_architecture("mlp")
    return entry.build(entry.config("tiny"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda bundle: (bundle / "manifest.json").unlink(), "no manifest.json names the PyTorch module"),
        (lambda bundle: amend(bundle, graphs=[]), "does not name model.onnx"),
        (
            lambda bundle: amend(bundle, source={"factory": "net.py:scaled", "sha256": "0" * 64}),
            "net.py as it was exported is neither here nor beside the bundle",
        ),
    ],
    ids=["no-manifest", "other-graph", "factory-gone"],
)
def test_module_that_cannot_be_had_is_refused_with_the_reason(bundle, damage, said: str) -> None:
    damage(bundle)
    with pytest.raises(RuntimeUnavailableError, match=said), open_session(bundle / "model.onnx", eager()):
        pass


def test_bench_compares_the_model_with_its_module(bundle, tmp_path) -> None:
    file = tmp_path / "bench.jsonl"
    words = ["bench", str(bundle), "--against", "torch", "--threads", "1", "--duration", "0", "--json", str(file)]
    assert guarded(lambda: run(words)) == 0
    row = json.loads(file.read_text().splitlines()[1])
    assert row["model"] == "mlp"
    assert row["batch"] == 1
    assert (row["against"]["runtime"], row["against"]["optimization"]) == ("torch-eager", "")
    assert 0 <= row["disagreement"] < 1e-5
    assert row["ratio"] > 0
    assert {entry["op_type"] for entry in row["against"]["op_types"]} >= {"aten::linear"}


def test_bench_refuses_to_compare_with_another_module(bundle, tmp_path) -> None:
    amend(bundle, seed=6)
    file = tmp_path / "bench.jsonl"
    words = ["bench", str(bundle), "--against", "torch", "--duration", "0", "--json", str(file), "--quiet"]
    assert guarded(lambda: run(words)) == 1
    assert json.loads(file.read_text().splitlines()[1])["outcome"] == "disagreed"


def test_module_of_a_user_with_keywords_and_two_outputs_is_rebuilt_from_its_file(tmp_path, monkeypatch) -> None:
    from onnx_arch.exporters.export import export_module  # noqa: PLC0415 - skipped where torch is not

    file = tmp_path / "net.py"
    file.write_text(FACTORY)
    export_module(f"{file}:scaled", tmp_path / "bundles", seed=1)
    bundle = tmp_path / "bundles" / "scaled"
    source = json.loads((bundle / "manifest.json").read_text())["source"]
    assert source["sha256"] == hashlib.sha256(FACTORY.encode()).hexdigest()
    monkeypatch.chdir(tmp_path)
    assert_same(*outputs(bundle))
    file.write_text(FACTORY.replace("* scale", "* scale * 2"))
    with pytest.raises(RuntimeUnavailableError, match="as it was exported"):
        outputs(bundle)
