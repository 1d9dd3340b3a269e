"""`onnx-arch visualise`: what the features of a network see in a photograph, by its deconvnet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidArgumentError
from .options import Json, Preset, Quiet, Weights
from .terminal import (
    STANDARD_OUTPUT,
    ExitStatus,
    check_picture,
    check_targets,
    get_console,
    json_lines,
    progress,
)

if TYPE_CHECKING:
    from ..generation.features import Features

Subject = Annotated[
    str, typer.Argument(metavar="NAME|BUNDLE", help="zfnet, exported once and kept; or the folder of its export.")
]
Photograph = Annotated[Path, typer.Option("--image", metavar="FILE", help="A photograph.")]
LayerOption = Annotated[int, typer.Option("--layer", metavar="N", help="Layer whose features are shown, 1 to 5.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="The picture.  [default: NAME-layer-N.png]")
]
FeatureOption = Annotated[
    list[int] | None,
    typer.Option("--feature", metavar="N", help="Number of a feature map, counted from 0. Can be repeated."),
]
Top = Annotated[
    int | None, typer.Option("--top", min=1, metavar="K", help="The K maps that respond most.  [default: 9]")
]
Bundle = Annotated[Path | None, typer.Option("--bundle", metavar="DIR", help="The folder of an export of NAME.")]


def visualise(
    subject: Subject,
    image: Photograph,
    layer: LayerOption = 5,
    output: Output = None,
    feature: FeatureOption = None,
    top: Top = None,
    bundle: Bundle = None,
    weights: Weights = None,
    preset: Preset = None,
    json: Json = None,
    quiet: Quiet = False,
) -> ExitStatus:
    """Show what features of a layer see in a photograph: the strongest activation of each is projected back to pixels
    through unpooling with switches, rectification and transposed filters, by the exported graph in ONNX Runtime.

    Left in the picture are the projections, right the parts of the photograph that caused them, the strongest first.
    """
    if feature and top is not None:
        raise InvalidArgumentError("--feature names maps and --top chooses them: give one of the two")
    target = output or Path(f"{Path(subject).name}-layer-{layer}.png")
    check_picture(target)
    check_targets({"--json": json, "--output": target}, [image, weights])
    from ..generation.features import grid, project  # noqa: PLC0415 - imports NumPy

    folder, manifest = _bundle(subject, bundle, {"preset": preset, "weights": weights}, quiet)
    found = project(folder, manifest, image, layer, feature or (), top=top or 9)
    _write(grid(found), target)
    if not quiet and json != STANDARD_OUTPUT:
        shown = ", ".join(f"{item.feature} ({item.strength:.3g})" for item in found.projections)
        print(f"{target}: layer {layer}, feature maps {shown}")
    if json is not None:
        with json_lines(json) as write:
            write(_row(found, target))
    return ExitStatus.OK


def _bundle(subject: str, bundle: Path | None, options: dict[str, Any], quiet: bool) -> tuple[Path, dict[str, Any]]:
    """The folder to run, and its manifest; an architecture is exported unless its folder is given."""
    from platformdirs import user_cache_path  # noqa: PLC0415 - only what is asked for

    from ..exporters.bundle import read_manifest  # noqa: PLC0415 - imports NumPy
    from ..generation.bundles import find_bundle  # noqa: PLC0415 - as above

    if bundle is not None:
        manifest = read_manifest(bundle)
        name = manifest.get("source", {}).get("architecture")
        if name != subject:
            raise InvalidArgumentError(
                f"--bundle {bundle} is an export of {name or manifest.get('name')}, not {subject}"
            )
        subject = str(bundle)
    with progress(get_console(quiet), "export") as bar:
        task = bar.add_task("", total=None)
        cache = user_cache_path("onnx-arch") / "bundles"
        return find_bundle(subject, options, cache, lambda text: bar.update(task, description=text))


def _write(picture: Any, target: Path) -> None:
    from PIL import Image  # noqa: PLC0415 - only here

    Image.fromarray(picture).save(target)


def _row(found: Features, target: Path) -> dict[str, Any]:
    maps = [{"feature": item.feature, "strength": item.strength, "box": item.box} for item in found.projections]
    return {"kind": "visualisation", "path": str(target), "layer": found.layer, "features": maps}
