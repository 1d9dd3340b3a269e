"""Where watching makes an error vanish: find the optimisation level at which the untouched graph goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import RuntimeFailure
from ..graphs.model import Model
from ..runtimes.session import OPTIMIZATIONS, RuntimeOptions
from .model_outputs import OutputCase, judge_output
from .results import Outcome
from .watching import OpenSession


def guilty_level(
    model: Model,
    feeds: Mapping[str, Any],
    options: RuntimeOptions,
    open_session: OpenSession,
    case: OutputCase,
) -> str:
    """Run the untouched model at every lower optimisation level and say from which one on its output is wrong.

    Args:
        model: the model.
        feeds: its inputs.
        options: those under which the output is wrong.
        open_session: starts a session.
        case: the output that is wrong; judged anew with each level's value.

    Returns:
        A phrase for the row's message.
    """
    lower = OPTIMIZATIONS[: OPTIMIZATIONS.index(options.optimization)]
    right: list[str] = []
    for level in lower:
        if (
            _outcome(model, feeds, dataclasses.replace(options, optimization=level), open_session, case)
            is Outcome.PASSED
        ):
            right.append(level)
    if not right:
        return "the untouched graph is wrong at every optimisation level"
    first_wrong = OPTIMIZATIONS[OPTIMIZATIONS.index(right[-1]) + 1]
    return (
        f"right with --optimization {right[-1]}, wrong from {first_wrong!r} on, so a graph optimisation of that level"
    )


def _outcome(
    model: Model, feeds: Mapping[str, Any], options: RuntimeOptions, open_session: OpenSession, case: OutputCase
) -> Outcome:
    try:
        with open_session(model.path, options) as session:
            value = session.run(feeds, [case.name])[case.name]
    except RuntimeFailure:
        return Outcome.ERRORED
    return judge_output(dataclasses.replace(case, actual=value)).outcome
