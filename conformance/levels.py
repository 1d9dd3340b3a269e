"""Where watching makes an error vanish: find the optimisation that makes the untouched graph go wrong."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgumentError, RuntimeFailure
from ..graphs.model import Model
from ..runtimes.session import OPTIMIZATIONS, RuntimeOptions
from .model_outputs import OutputCase, judge_output
from .results import Outcome
from .watching import OpenSession

_MODIFIED = re.compile(r"GraphTransformer (\w+) modified: 1\b")
"""ONNX Runtime's log at its most talkative: an optimiser that changed the graph."""

_APPLIED = re.compile(r"Applying graph transformer (\w+)")
"""The same log: an optimiser that begins; the last of a load that fails is the one that broke off."""

VERBOSE = 0

RULE_BASED = "_RuleBasedTransformer"
"""How ONNX Runtime names an optimiser that is a collection of rules, whose own names its log does not tell."""

RULES = (
    *("CastChainElimination", "CastElimination", "ClipQuantRewrite", "ConvAddFusion", "ConvBNFusion", "ConvMulFusion"),
    *("DivMulFusion", "EliminateDropout", "EliminateIdentity", "EliminateSlice", "ExpandElimination", "FuseReluClip"),
    *("GemmSumFusion", "GemmTransposeFusion", "LabelEncoderFusion", "MatMul_BatchNormalization_Fusion"),
    *("NoopElimination", "NotWhereFusion", "Pad_Fusion", "PreShapeNodeElimination", "ReluQuantRewrite"),
    "UnsqueezeElimination",
)
"""ONNX Runtime's rules by the names that `disabled_optimizers` takes; unknown ones are ignored."""


@dataclass(frozen=True)
class Untouched:
    """The untouched model, to be run again under other options.

    Attributes:
        model: the model.
        feeds: its inputs.
        options: those under which the output is wrong.
        open_session: starts a session.
        case: the output that is wrong; judged anew with every value.
    """

    model: Model
    feeds: Mapping[str, Any]
    options: RuntimeOptions
    open_session: OpenSession
    case: OutputCase

    def is_right(self, **changes: Any) -> bool:
        """Whether the output passes under changed options."""
        try:
            with self.open_session(self.model.path, dataclasses.replace(self.options, **changes)) as session:
                value = session.run(self.feeds, [self.case.name])[self.case.name]
        except RuntimeFailure:
            return False
        return judge_output(dataclasses.replace(self.case, actual=value)).outcome is Outcome.PASSED

    def optimizers(self, disabled: Sequence[str]) -> list[str]:
        """The optimisers that change the graph as it is loaded, in order; none where the runtime does not tell."""
        extra = {**self.options.extra, "log_severity": VERBOSE}
        options = dataclasses.replace(self.options, extra=extra, disabled_optimizers=tuple(disabled))
        try:
            with self.open_session(self.model.path, options) as session:
                log = getattr(session, "log", str)()
            last = []
        except RuntimeFailure as failure:
            log = failure.log
            last = _APPLIED.findall(log)[-1:]
        except InvalidArgumentError:
            return []
        return list(dict.fromkeys([*_MODIFIED.findall(log), *last]))


@dataclass(frozen=True)
class Blame:
    """What makes an untouched graph wrong: a phrase for the row's message, and the options under which it is right."""

    text: str
    cure: Mapping[str, Any]


def guilty_optimization(untouched: Untouched, known: Sequence[Blame] = ()) -> Blame:
    """Run the untouched model at lower optimisation levels, then without single optimisers, and say what is to blame.

    Args:
        untouched: the model and the output that is wrong.
        known: what was found for other outputs of the model; what cures this one too is not looked for again.
    """
    for blame in known:
        if blame.cure and untouched.is_right(**blame.cure):
            return blame
    lower = OPTIMIZATIONS[: OPTIMIZATIONS.index(untouched.options.optimization)]
    right = [level for level in lower if untouched.is_right(optimization=level)]
    if not right:
        return Blame("the untouched graph is wrong at every optimisation level", {})
    best = right[-1]
    guilty = _guilty_optimizers(untouched)
    if not guilty:
        wrong = OPTIMIZATIONS[OPTIMIZATIONS.index(best) + 1]
        text = f"right with --optimization {best}, wrong from {wrong!r} on: a graph optimisation of that level"
        return Blame(text, {"optimization": best})
    disabled = [*untouched.options.disabled_optimizers, *guilty]
    words = " ".join(f"--disable-optimizer {name}" for name in guilty)
    text = (
        f"{' with '.join(guilty)} makes it wrong; right with {words} (in ONNX Runtime's own words "
        f"InferenceSession(…, disabled_optimizers={disabled})), and with --optimization {best}"
    )
    return Blame(text, {"disabled_optimizers": disabled})


def _guilty_optimizers(untouched: Untouched) -> list[str]:
    """A smallest set of optimisers without which the output is right; none where that cannot be found."""
    before = list(untouched.options.disabled_optimizers)

    def right_without(names: Sequence[str]) -> bool:
        return untouched.is_right(disabled_optimizers=[*before, *names])

    guilty = _smallest(_suspects(untouched, before, right_without), right_without)
    named = [name for name in guilty if not name.endswith(RULE_BASED)]
    if len(named) < len(guilty) and right_without([*named, *RULES]):
        return _smallest([*named, *RULES], right_without)
    return guilty


def _suspects(untouched: Untouched, before: Sequence[str], right_without: Callable[[Sequence[str]], bool]) -> list[str]:
    """Optimisers without which the output is right: those at work, then those that work in their absence, and so on."""
    suspects: list[str] = []
    while True:
        known = [*before, *suspects]
        more = [name for name in untouched.optimizers(known) if name not in known]
        if not more:
            return []
        suspects += more
        if right_without(suspects):
            return suspects


def _smallest(suspects: list[str], right_without: Callable[[Sequence[str]], bool]) -> list[str]:
    """What is left of a list when what may be left out is, by halving."""
    while len(suspects) > 1:
        innocent = next(
            (part for part in _parts(suspects) if right_without([n for n in suspects if n not in part])), []
        )
        if not innocent:
            break
        suspects = [name for name in suspects if name not in innocent]
    return suspects


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The halves of a list, then its single elements: what may turn out to be innocent."""
    middle = len(names) // 2
    yield from (names[:middle], names[middle:])
    if len(names) > 2:
        yield from ([name] for name in names)
