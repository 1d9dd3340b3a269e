"""Multi-layer perceptron: input, linear, linear.

Paper: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors" (1986),
https://doi.org/10.1038/323533a0. The published size is the 784-300-10 network on handwritten digits of LeCun, Bottou,
Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998), section III-C.4, with ReLU for tanh.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .registry import architecture
from .specification import Axis, GraphSpec, Port


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of the layers."""

    in_features: int = 784
    hidden_features: int = 300
    out_features: int = 10


class MLP(nn.Module):
    """Two linear layers with a rectifier between them."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.in_features, config.hidden_features)
        self.output = nn.Linear(config.hidden_features, config.out_features)

    def forward(self, features: Tensor) -> Tensor:  # (B, in) -> (B, out)
        return self.output(self.hidden(features).relu())


def mlp_graphs(config: MLPConfig) -> tuple[GraphSpec, ...]:
    """One graph: features (B, in) to logits (B, out)."""
    features = Port("features", ("batch", config.in_features))
    logits = Port("logits", ("batch", config.out_features))
    return (GraphSpec("mlp", (features,), (logits,), (Axis("batch", 2, sweep=(1, 2, 3, 64)),)),)


@architecture(
    "mlp",
    paper="https://doi.org/10.1038/323533a0",
    presets={"published": MLPConfig(), "tiny": MLPConfig(16, 12, 5)},
    graphs=mlp_graphs,
    parameters=238_510,
)
def build_mlp(config: MLPConfig) -> MLP:
    """The module of a config."""
    return MLP(config)
