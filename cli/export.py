"""`onnx-arch export`: build a network, translate it to ONNX and prove the translation."""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..errors import InvalidArgumentError
from .options import LARGEST_SEED, Json, Quiet
from .terminal import (
    STANDARD_OUTPUT,
    ExitStatus,
    check_targets,
    command_words,
    get_console,
    get_output,
    json_lines,
    progress,
)

if TYPE_CHECKING:
    from ..exporters.bundle import Bundle

FORMAT_VERSION = 1


class Dtype(enum.StrEnum):
    """Floating-point types of an export."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Unpool(enum.StrEnum):
    """What unpooling becomes."""

    NATIVE = "native"
    SCATTER = "scatter"


Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME…", help="Architectures, or modules of yours: path/to/file.py:factory, package.module:factory."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Each bundle becomes DIR/NAME.")]
Preset = Annotated[
    str, typer.Option("--preset", help="Size of an architecture: published, tiny, or another that it has, as large.")
]
Opset = Annotated[
    int | None, typer.Option("--opset", metavar="N", help="ai.onnx version, 18 to 28.  [default: 20; 22 for bfloat16]")
]
DtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", help="Floating-point type.  [default: float32; a module's own]")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE|DIR",
        help="Checkpoint: .safetensors, .pt, .pth, .bin, .ckpt, an index of shards, or a folder of Hugging Face or "
        "diffusers, whose config.json states the sizes.",
    ),
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Draw what the checkpoint does not have from the seed.")
]
SaveWeights = Annotated[
    Path | None,
    typer.Option(
        "--save-weights", metavar="FILE|DIR", help="Write the parameters too: a .safetensors file, or a folder of it."
    ),
]
Layout = Annotated[
    str | None,
    typer.Option("--layout", metavar="NAME", help="Whose keys --save-weights writes.  [default: the first there is]"),
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, max=LARGEST_SEED, metavar="N", help="Seed of random parameters and inputs."),
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        "--dynamic",
        metavar="AXIS",
        help="Leave an axis symbolic, beside an architecture's own (batch, height, …); of a module of yours "
        "INPUT.DIM=SYMBOL, or batch for the first dim of every input; none freezes all. Can be repeated.",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=SHAPE:DTYPE",
        help="An input, as in x=batch,3,224,224:float32 or tokens=batch,16:int64:30522 (integers below 30522); names "
        "in the shape are dynamic. Can be repeated.",
    ),
]
External = Annotated[bool, typer.Option("--external-data", help="Put weights beside the model whatever their size.")]
UnpoolOption = Annotated[
    Unpool,
    typer.Option(
        "--unpool", help="Unpooling as MaxUnpool, or as scatters for runtimes that have none (ONNX Runtime on CUDA)."
    ),
]
LoopOption = Annotated[
    bool,
    typer.Option("--loop", help="Also write generate.onnx: the whole loop, tokens in, tokens or a picture out."),
]


def export(
    names: Names,
    output: Output = Path(),
    preset: Preset = "published",
    opset: Opset = None,
    dtype: DtypeOption = None,
    weights: Weights = None,
    allow_missing: AllowMissing = False,
    save_weights: SaveWeights = None,
    layout: Layout = None,
    seed: Seed = 0,
    dynamic: Dynamic = None,
    inputs: Inputs = None,
    external_data: External = False,
    unpool: UnpoolOption = Unpool.NATIVE,
    loop: LoopOption = False,
    json: Json = None,
    quiet: Quiet = False,
) -> ExitStatus:
    """Build networks, translate them to ONNX, and prove at every swept shape that the graph computes what they do.

    The graph is evaluated in float64 and compared with the module run in float64 by PyTorch, and ONNX Runtime's outputs
    are compared too. The status is 0 if every export is right, 1 if one is wrong (it is not written, and the first
    wrong node is named), 2 if one could not be made.
    """
    for option, value in (("--weights", weights), ("--save-weights", save_weights)):
        if value is not None and len(names) > 1:
            raise InvalidArgumentError(f"{option} is one checkpoint; {len(names)} names are given: {', '.join(names)}")
    if layout is not None and save_weights is None:
        raise InvalidArgumentError(f"--layout {layout} says whose keys --save-weights writes; give --save-weights too")
    from ..exporters.targets import check_names  # noqa: PLC0415 - imports NumPy

    check_names(names)
    check_targets(
        {"--json": json, "--save-weights": save_weights},
        [weights, *(name.rpartition(":")[0] or None for name in names)],
    )
    options = {
        "opset": opset,
        "weights": weights,
        "allow_missing": allow_missing,
        "save_weights": save_weights,
        "layout": layout,
        "seed": seed,
        "dynamic": dynamic or (),
        "inputs": inputs or (),
        "external_data": external_data,
        "unpool": unpool.value,
    }
    if loop:
        check_loop(names)
    own = {"dtype": None if dtype is None else dtype.value}
    begin = time.monotonic()
    bundles: list[Bundle] = []
    with ExitStack() as stack:
        write = stack.enter_context(json_lines(json)) if json is not None else lambda _: None
        say = stack.enter_context(told(quiet))
        write(_header())
        for name in names:
            bundle = _export_one(name, output, preset, say, {**options, **own}, loop)
            bundles.append(bundle)
            write(_row(bundle))
            show(bundle, quiet or json == STANDARD_OUTPUT)
        write(_footer(bundles, time.monotonic() - begin))
    return ExitStatus.FAILED if any(bundle.is_wrong for bundle in bundles) else ExitStatus.OK


def _export_one(
    name: str, output: Path, preset: str, say: Callable[[str], None], options: Mapping[str, Any], loop: bool
) -> Bundle:
    from ..exporters.export import export_architecture, export_module  # noqa: PLC0415 - imports torch

    if ":" in name:
        return export_module(name, output, say=say, **options)
    dtype = options["dtype"] or Dtype.FLOAT32.value
    return export_architecture(name, output, preset=preset, loop=loop, say=say, **{**options, "dtype": dtype})


def check_loop(names: list[str]) -> None:
    """Refuse `--loop` for what makes neither texts nor pictures.

    Raises:
        InvalidArgumentError: names the first, and what does.
    """
    from ..generation.registry import GENERATORS  # noqa: PLC0415 - only what is asked for

    foreign = [name for name in names if name not in GENERATORS]
    if foreign:
        raise InvalidArgumentError(f"--loop means nothing to {foreign[0]}; it does to {', '.join(GENERATORS)}")


@contextmanager
def told(quiet: bool, doing: str = "export") -> Iterator[Callable[[str], None]]:
    """Where what is done next is said: on the progress line."""
    with progress(get_console(quiet), doing) as bar:
        task = bar.add_task("", total=None)
        yield lambda text: bar.update(task, description=text)


def _header() -> dict[str, Any]:
    words = command_words()
    return {"kind": "header", "format_version": FORMAT_VERSION, "command": words, "onnx_arch": __version__}


def _row(bundle: Bundle) -> dict[str, Any]:
    from ..exporters.description import problems  # noqa: PLC0415 - imports NumPy

    return {
        "kind": "export",
        "name": bundle.name,
        "path": str(bundle.path) if bundle.written else None,
        "outcome": "failed" if bundle.is_wrong else str(bundle.translation),
        "translation": bundle.translation,
        "onnxruntime": bundle.runtime,
        "problems": [line for proof in bundle.proofs for line in problems(proof)],
        "manifest": bundle.manifest,
    }


def _footer(bundles: list[Bundle], duration_s: float) -> dict[str, Any]:
    counts = Counter("failed" if bundle.is_wrong else str(bundle.translation) for bundle in bundles)
    return {"kind": "footer", "counts": dict(counts), "duration_s": duration_s, "complete": True}


def show(bundle: Bundle, quiet: bool) -> None:
    """The result of one export, for a person; what is wrong also where only standard error is read."""
    from ..exporters.description import result_lines  # noqa: PLC0415 - imports NumPy

    console = get_output(quiet)
    for line in result_lines(bundle):
        console.print(line, markup=False, soft_wrap=True)
