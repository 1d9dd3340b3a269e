"""Options that several commands have, each said once."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

LARGEST_SEED = 2**63 - 1
"""Of the 64 bits that a graph's random numbers start from."""


class Provider(enum.StrEnum):
    """Execution providers."""

    CPU = "cpu"
    CUDA = "cuda"


class Optimization(enum.StrEnum):
    """Graph optimisation levels."""

    DISABLED = "disabled"
    BASIC = "basic"
    EXTENDED = "extended"
    ALL = "all"


Runtime = Annotated[
    str, typer.Option("--runtime", help="A name of `onnx-arch list runtimes`, or the .py file of an adapter of yours.")
]
RuntimeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime-option",
        metavar="KEY=VALUE",
        help="What only this runtime knows: provider_options.use_tf32=0, config.INFERENCE_PRECISION_HINT=f32. "
        "Can be repeated.",
    ),
]
Python = Annotated[
    str | None,
    typer.Option("--python", metavar="INTERPRETER", help="Take the runtime of another Python."),
]
ProviderOption = Annotated[Provider, typer.Option("--provider", help="Execution provider that must run the graph.")]
OptimizationOption = Annotated[Optimization, typer.Option("--optimization", help="Graph optimisation level.")]
Dims = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=N", help="Size of a symbolic dim for random inputs.")
]
Preset = Annotated[str | None, typer.Option("--preset", help="Size of an architecture.  [default: published]")]
Weights = Annotated[
    Path | None, typer.Option("--weights", metavar="PATH", help="Checkpoint of an architecture: a file or its folder.")
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="Write JSON lines; - is standard output.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained page.")]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="FILE", help="Take over what an interrupted run has judged.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing; the exit status tells.")]
