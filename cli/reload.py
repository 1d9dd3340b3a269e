"""`onnx-arch reload`: put another checkpoint into a bundle and prove the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .export import show, told
from .options import Quiet
from .terminal import ExitStatus

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `onnx-arch export` wrote.")]
Weights = Annotated[
    Path,
    typer.Option(
        "--weights",
        metavar="FILE|DIR",
        help="Checkpoint: .safetensors, .pt, .pth, .bin, .ckpt, an index of shards, or a folder of Hugging Face.",
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write DIR/NAME.  [default: replace the bundle]")
]
Module = Annotated[
    str | None,
    typer.Option("--module", metavar="SPEC", help="Where the module of yours is now: path/to/file.py:factory."),
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Draw what the checkpoint does not have from the bundle's seed.")
]


def reload(
    bundle: BundleArgument,
    weights: Weights,
    output: Output = None,
    module: Module = None,
    allow_missing: AllowMissing = False,
    quiet: Quiet = False,
) -> ExitStatus:
    """Put another checkpoint into a bundle's graphs, and prove that they compute what the module does with it.

    The graphs keep their nodes. Every initializer is made again from the checkpoint: as it is, transposed, or by the
    recipe that the export recorded. The status is 0 if the result is right, 1 if it is wrong (nothing is written then),
    2 if an initializer cannot be made, or the checkpoint does not fit.
    """
    from ..exporters.reload import reload_bundle  # noqa: PLC0415 - imports torch

    with told(quiet, "reload") as say:
        made = reload_bundle(bundle, weights, output_dir=output, module=module, allow_missing=allow_missing, say=say)
    show(made, quiet)
    return ExitStatus.FAILED if made.is_wrong else ExitStatus.OK
