"""Hypothesis as a library: cases by seed, and the smallest failing case from a failing one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from .drawing import Draw, NodeCall, call_feeds, call_model
from .registry import strategies


def calls(op_type: str, opsets: tuple[int, ...]) -> st.SearchStrategy[NodeCall]:
    """Valid calls of an operator at one of these versions."""

    @st.composite
    def build(draw: Any) -> NodeCall:
        return strategies()[op_type](Draw(draw, op_type, draw(st.sampled_from(opsets))))

    return build()


_CHECKS = (
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.too_slow,
    HealthCheck.large_base_example,
)
"""What Hypothesis says of the speed of a test; nobody waits for these cases one by one."""


def _settings(count: int, *phases: Phase) -> settings:
    return settings(
        max_examples=count,
        phases=phases,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=_CHECKS,
        verbosity=hypothesis.Verbosity.quiet,
    )


def generate(op_type: str, opsets: tuple[int, ...], seed: int, count: int) -> list[NodeCall]:
    """Up to `count` different calls, the same ones for the same arguments."""
    found: dict[str, NodeCall] = {}

    @hypothesis.seed(seed)
    @_settings(count, Phase.generate)
    @hypothesis.given(calls(op_type, opsets))
    def collect(call: NodeCall) -> None:
        found.setdefault(digest(call), call)

    collect()
    return list(found.values())


class _StillFailsError(Exception):
    """What a failing call raises inside Hypothesis."""


def shrink_call(
    wanted: NodeCall, opsets: tuple[int, ...], seed: int, count: int, fails: Callable[[NodeCall], bool]
) -> NodeCall:
    """The smallest failing call that Hypothesis finds on the way down from `wanted`.

    The generation that gave `wanted` is repeated, up to it nothing is asked, then every simpler call is. Where a
    runtime fails now and then (it returns memory that nobody wrote), the smallest call that has failed is kept.
    """
    target, smallest, met = digest(wanted), [wanted], [False]

    @hypothesis.seed(seed)
    @_settings(count, Phase.generate, Phase.shrink)
    @hypothesis.given(calls(wanted.op_type, opsets))
    def again(call: NodeCall) -> None:
        if not met[0]:
            if digest(call) != target:
                return
            met[0] = True
        elif digest(call) != target and not fails(call):
            return
        smallest[0] = call
        raise _StillFailsError

    with contextlib.suppress(_StillFailsError, Flaky):
        again()
    return smallest[0]


def digest(call: NodeCall) -> str:
    """Of the model and what it is fed with."""
    parts = [call_model(call).SerializeToString(deterministic=True)]
    for name, value in sorted(call_feeds(call).items()):
        content = repr(value.tolist()).encode() if value.dtype.kind in "OUS" else value.tobytes()
        parts += [name.encode(), str((value.dtype, value.shape)).encode(), content]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
