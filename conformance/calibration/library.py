"""The families of the calibration, and running them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from threadpoolctl import threadpool_limits

from ...runtimes.session import OPTIMIZATIONS
from . import (
    attention,
    casts,
    contractions,
    elementwise,
    normalization,
    pooling,
    quantization,
    recurrence,
    reductions,
    resizing,
    selection,
)
from .case import Family
from .sessions import runtimes
from .trials import Trial, trials_of

MODULES = (
    contractions,
    pooling,
    normalization,
    attention,
    elementwise,
    reductions,
    quantization,
    casts,
    selection,
    recurrence,
    resizing,
)
FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in MODULES}

PARTS = 8
"""Pieces of a family in a full run, for several processes and for the progress to be seen."""


@dataclass(frozen=True)
class Piece:
    """Every `count`th case of a family, from `index` on.

    Attributes:
        family: its name.
        index: of the first case.
        count: how many pieces there are.
        quick: a few cases instead of all.
        kinds: only these kinds of data; all if empty.
        with_runtimes: ask the runtimes too.
    """

    family: str
    index: int = 0
    count: int = 1
    quick: bool = False
    kinds: tuple[str, ...] = ()
    with_runtimes: bool = True


def pieces(quick: bool, kinds: Sequence[str] = (), *, with_runtimes: bool = True) -> list[Piece]:
    """All work of a run."""
    count = 1 if quick else PARTS
    return [Piece(name, i, count, quick, tuple(kinds), with_runtimes) for i in range(count) for name in FAMILIES]


def run_piece(piece: Piece) -> list[Trial]:
    """Its trials; their messages are kept where the verdict is wrong."""
    family, found = FAMILIES[piece.family], []
    others = runtimes(OPTIMIZATIONS[:: 3 if piece.quick else 1]) if piece.with_runtimes else {}
    with threadpool_limits(1):
        for number, case in enumerate(family.cases(piece.quick)):
            if number % piece.count == piece.index and (not piece.kinds or case.kind in piece.kinds):
                found += [_light(trial) for trial in trials_of(family, case, others)]
    return found


def _light(trial: Trial) -> Trial:
    return trial if trial.failed != trial.faulty else replace(trial, message="")


def run(
    work: Sequence[Piece],
    jobs: int | None = None,
    done: Callable[[Piece], None] = lambda _: None,
    folder: Path | None = None,
) -> Iterator[list[Trial]]:
    """The trials of every piece, as they come.

    Args:
        work: the pieces.
        jobs: processes; one does the work here, None takes one per core.
        done: told of every piece that is done.
        folder: keeps the trials of every piece, so that a run that was cut off goes on where it was.
    """
    left = []
    for piece in work:
        known = kept(folder, piece)
        if known is None:
            left.append(piece)
        else:
            yield known
            done(piece)
    for piece, found in _computed(left, min(jobs or os.cpu_count() or 1, len(left))):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            _file(folder, piece).write_bytes(pickle.dumps((piece, found)))
        yield found
        done(piece)


def _computed(work: Sequence[Piece], jobs: int) -> Iterator[tuple[Piece, list[Trial]]]:
    if jobs <= 1:
        yield from ((piece, run_piece(piece)) for piece in work)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run_piece, piece): piece for piece in work}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _file(folder: Path, piece: Piece) -> Path:
    return folder / f"{piece.family.replace(' ', '-')}-{piece.index}-of-{piece.count}.trials"


def kept(folder: Path | None, piece: Piece) -> list[Trial] | None:
    """What an earlier run found in the same piece; None where there was none."""
    if folder is None or not _file(folder, piece).exists():
        return None
    asked, found = pickle.loads(_file(folder, piece).read_bytes())  # noqa: S301 (an earlier run wrote it)
    return found if asked == piece else None
