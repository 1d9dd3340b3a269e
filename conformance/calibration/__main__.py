"""`python -m onnx_arch.conformance.calibration`: run the library and print its tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .data import KINDS
from .library import FAMILIES, Piece, kept, pieces, run
from .table import document
from .trials import Trial


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m onnx_arch.conformance.calibration", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases of each kind: about a minute")
    parser.add_argument("--kind", action="append", choices=list(KINDS), default=[], help="only this kind of data")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), default=[], help="only these operators")
    parser.add_argument("--jobs", type=int, default=None, help="processes; one per core by default")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="keep what is done in DIR, and go on from there")
    parser.add_argument("--kept", action="store_true", help="only what is in the folder of --resume; compute nothing")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables to FILE and not to the terminal")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run, with progress on a terminal, and print or write the tables."""
    args = parse(words)
    work = [piece for piece in pieces(args.quick, args.kind) if not args.family or piece.family in args.family]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    trials: list[Trial] = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("calibrating", total=len(work))

        def done(piece: Piece) -> None:
            progress.update(bar, description=piece.family, advance=1)

        due = work if not args.kept else [piece for piece in work if kept(args.resume, piece) is not None]
        for found in run(due, args.jobs, done, args.resume):
            trials += found
    text = document(trials, f"{len(due)} of {len(work)}")
    if args.write is None:
        sys.stdout.write(text)
    else:
        args.write.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
