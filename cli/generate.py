"""`onnx-arch generate`: words or pictures from a network, step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidArgumentError
from .options import LARGEST_SEED, Json, Preset, Provider, ProviderOption, Quiet, Weights
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
    from rich.progress import Progress

    from ..generation.registry import GeneratorEntry
    from ..generation.request import Generated, Request


Subject = Annotated[
    str,
    typer.Argument(metavar="NAME|BUNDLE", help="An architecture, exported once and kept; or the folder of an export."),
]
Prompt = Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="What to go on from.")]
Tokens = Annotated[
    str | None, typer.Option("--tokens", metavar="1,2,3", help="The prompt as token ids, where there is no tokenizer.")
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="PATH",
        help="tokenizer.json, or a folder with it, with vocab.json and merges.txt or with vocab.txt.",
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write; a picture's default is NAME.png.")
]
Count = Annotated[int, typer.Option("--count", "-n", min=1, metavar="N", help="How many texts or pictures.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, metavar="N", help="Of everything random.")]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=1, metavar="N", help="Words at most, the prompt's included.")
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", min=0.0, help="Divides the scores; 0 takes the best word.  [default: 0]"),
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, metavar="K", help="Only the K best words.")]
TopP = Annotated[
    float | None, typer.Option("--top-p", min=0.0, max=1.0, help="Only the best words that have this probability.")
]
NegativePrompt = Annotated[
    str | None, typer.Option("--negative-prompt", metavar="TEXT", help="What the picture shall not show.")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, metavar="N", help="Of denoising.")]
Guidance = Annotated[float | None, typer.Option("--guidance", help="How strongly the picture follows the prompt.")]
Height = Annotated[int | None, typer.Option("--height", min=1, metavar="PIXELS", help="Of the picture.")]
Width = Annotated[int | None, typer.Option("--width", min=1, metavar="PIXELS", help="Of the picture.")]
OneFile = Annotated[
    bool, typer.Option("--one-file", help="Run the bundle's one-file graph, which holds the loop itself.")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Intra-op threads of the runtime.")]


def generate(
    subject: Subject,
    prompt: Prompt = None,
    tokens: Tokens = None,
    tokenizer: Tokenizer = None,
    output: Output = None,
    count: Count = 1,
    seed: Seed = 0,
    max_length: MaxLength = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    negative_prompt: NegativePrompt = None,
    steps: Steps = None,
    guidance: Guidance = None,
    height: Height = None,
    width: Width = None,
    one_file: OneFile = False,
    preset: Preset = None,
    weights: Weights = None,
    provider: ProviderOption = Provider.CPU,
    threads: Threads = None,
    json: Json = None,
    quiet: Quiet = False,
) -> ExitStatus:
    """Generate from a network in ONNX Runtime: gpt2, t5 and transformer append word after word to a text; diffusion
    models subtract the noise that they see, step by step, until a picture is left.

    A text goes to standard output while it is written, a picture to a file. The same seed gives the same result.
    """
    from platformdirs import user_cache_path  # noqa: PLC0415 - only what is asked for

    from ..generation.bundles import find_bundle  # noqa: PLC0415 - imports NumPy
    from ..generation.registry import find_generator  # noqa: PLC0415 - as above
    from ..generation.request import Request  # noqa: PLC0415 - as above

    request = Request(
        prompt, seed, count, provider.value, threads, one_file, parse_tokens(tokens), _near(tokenizer, weights),
        max_length, temperature, top_k, top_p, negative_prompt, steps, guidance, height, width,
    )  # fmt: skip
    check_targets({"--json": json, "--output": output}, [tokenizer, weights])
    _check_early(subject, request, output)
    written_to_output = quiet or json == STANDARD_OUTPUT
    with progress(get_console(quiet), "export") as bar:
        task = bar.add_task("", total=None)
        cache = user_cache_path("onnx-arch") / "bundles"
        folder, manifest = find_bundle(
            subject, {"preset": preset, "weights": weights}, cache, lambda text: bar.update(task, description=text)
        )
    name = manifest.get("source", {}).get("architecture", "")
    entry = find_generator(name)
    _check(entry, name, request, output)
    with _watched(entry, written_to_output, quiet) as watcher:
        result = entry.load()(folder, manifest, request, watcher)
    _write(result, output, name, written_to_output or watcher.streamed)
    if json is not None:
        with json_lines(json) as write:
            write({"kind": "generation", "name": name, "seed": seed, **_row(result)})
    if "seed" in manifest.get("weights", {}):
        get_console(quiet).print(f"{name} has random parameters here: it has learned nothing", markup=False)
    return ExitStatus.OK


def _check_early(subject: str, request: Request, output: Path | None) -> None:
    """Refuse, before an architecture is exported, what it does not generate."""
    from ..architectures.registry import listings  # noqa: PLC0415 - reads every file
    from ..generation.registry import find_generator  # noqa: PLC0415 - only what is asked for

    if not Path(subject).is_dir() and subject in listings():
        _check(find_generator(subject), subject, request, output)


def _check(entry: GeneratorEntry, name: str, request: Request, output: Path | None) -> None:
    from ..generation.registry import PICTURE  # noqa: PLC0415 - only what is asked for

    entry.check(name, request)
    if entry.gives == PICTURE and output is not None:
        check_picture(output)


def parse_tokens(text: str | None) -> tuple[int, ...] | None:
    """`1,2,3` as numbers.

    Raises:
        InvalidArgumentError: not whole numbers between commas.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise InvalidArgumentError(f"--tokens {text}: must be whole numbers between commas, for example 1,2,3")
    return tuple(int(word) for word in words)


def _near(tokenizer: Path | None, weights: Path | None) -> Path | None:
    """The tokenizer that was named; else that of the checkpoint's folder, if there is one."""
    if tokenizer is not None or weights is None:
        return tokenizer
    folder = weights if weights.is_dir() else weights.parent
    known = ("tokenizer.json", "vocab.json", "vocab.txt")
    return (
        folder if any((folder / name).is_file() or (folder / "tokenizer" / name).is_file() for name in known) else None
    )


class _Shown:
    """Steps on a progress bar; the text of each on standard output as it comes."""

    def __init__(self, bar: Progress, streams: bool) -> None:
        self._bar, self._streams = bar, streams
        self._task = bar.add_task("", total=None)
        self.streamed = False

    def begin(self, steps: int) -> None:
        """Draw a bar of that length."""
        self._bar.update(self._task, total=steps)

    def step(self, text: str = "") -> None:
        """Advance; write what was added."""
        self._bar.advance(self._task)
        if self._streams and text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self.streamed = True


@contextmanager
def _watched(entry: GeneratorEntry, silent: bool, quiet: bool) -> Iterator[_Shown]:
    """A bar for pictures; for texts none where the words themselves are seen coming."""
    from ..generation.registry import TEXT  # noqa: PLC0415 - only what is asked for

    streams = entry.gives == TEXT and not silent
    with progress(get_console(quiet or (streams and sys.stdout.isatty())), "generating") as bar:
        shown = _Shown(bar, streams)
        yield shown
        if shown.streamed:
            sys.stdout.write("\n")


def _write(result: Generated, output: Path | None, name: str, silent: bool) -> None:
    """Pictures to files, numbered where there are several; texts to standard output and to a file if one is named."""
    if result.pictures:
        from PIL import Image  # noqa: PLC0415 - pictures only

        target = output or Path(f"{name}.png")
        for index, picture in enumerate(result.pictures):
            path = target if len(result.pictures) == 1 else target.with_stem(f"{target.stem}-{index}")
            Image.fromarray(picture).save(path)
            if not silent:
                print(f"{name}: {path}")
        return
    lines = result.texts or [",".join(map(str, tokens)) for tokens in result.tokens]
    if not silent:
        print("\n".join(lines))
    if output is not None:
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(result: Generated) -> dict[str, Any]:
    return {
        "tokens": [list(tokens) for tokens in result.tokens],
        "texts": list(result.texts),
        "pictures": len(result.pictures),
        "steps": result.steps,
        "duration_s": result.duration_s,
    }
