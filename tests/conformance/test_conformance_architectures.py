"""Right runtimes on the exported architectures, at every optimisation level and opset: nothing is flagged."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_arch.conformance.check import CheckRequest, check_model
from onnx_arch.conformance.inputs import InputSource, load_feeds
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.exporters.export import export_architecture
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model
from onnx_arch.runtimes.session import OPTIMIZATIONS, RuntimeOptions

NODE_BY_NODE = str(Path(__file__).parents[1] / "faulty" / "node_by_node.py")
EXPORTS = [("mlp", 18), ("vgg16", 20), ("resnet18", 21), ("attention", 18), ("attention", 23)]


@pytest.fixture(scope="module", params=EXPORTS, ids=lambda each: f"{each[0]}-opset{each[1]}")
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    name, opset = request.param
    folder = tmp_path_factory.mktemp(f"{name}{opset}")
    return load_model(export_architecture(name, folder, preset="tiny", opset=opset).path)


def flagged(model: Model, options: RuntimeOptions, seed: int) -> list[tuple[str, str, str]]:
    free = {dim for spec in model.graph.inputs for dim in spec.shape or () if isinstance(dim, str)}
    feeds, _ = load_feeds(model, InputSource(dims=dict.fromkeys(free, 3), seed=seed))
    rows = [row for row in check_model(model, feeds, CheckRequest(options)) if isinstance(row, NodeResult)]
    assert len(rows) == len(model.graph.nodes) + len(model.graph.outputs)
    return [(row.node, row.outcome, row.message) for row in rows if row.outcome is not Outcome.PASSED]


@pytest.mark.parametrize("optimization", OPTIMIZATIONS)
def test_onnxruntime_is_all_green(network: Model, optimization: str) -> None:
    assert flagged(network, RuntimeOptions(optimization=optimization), seed=0) == []


@pytest.mark.parametrize("arithmetic", ["blocked", "reversed"])
def test_sums_in_another_order_are_all_green(network: Model, arithmetic: str) -> None:
    options = RuntimeOptions(runtime=NODE_BY_NODE, extra={"arithmetic": arithmetic})
    assert flagged(network, options, seed=1) == []


@pytest.mark.slow
@pytest.mark.parametrize("optimization", OPTIMIZATIONS)
@pytest.mark.parametrize("name", ["mlp", "vgg16", "resnet18", "attention"])
def test_onnxruntime_is_all_green_at_published_size(name: str, optimization: str, tmp_path: Path) -> None:
    model = load_model(export_architecture(name, tmp_path).path)
    assert flagged(model, RuntimeOptions(optimization=optimization), seed=2) == []
