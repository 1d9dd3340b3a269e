"""A case: one small model, what it is fed with, and the operator that it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from ..generated import GeneratedCase

Feeds = Mapping[str, Any]
"""Stored inputs by name: arrays, lists for sequences, None for an optional that holds nothing."""


@dataclass(frozen=True)
class Subject:
    """What a case runs.

    Attributes:
        model: a file, or a model that is still to be written.
        data_sets: what it is fed with, one run after the other.
    """

    model: Path | onnx.ModelProto
    data_sets: tuple[Feeds, ...]

    def write(self, folder: Path) -> Path:
        """The model as a file: its own, or a new one in `folder`."""
        if isinstance(self.model, Path):
            return self.model
        file = folder / "case.onnx"
        file.write_bytes(self.model.SerializeToString(deterministic=True))
        return file


@dataclass(frozen=True)
class Case:
    """One case of a suite.

    Attributes:
        name: unique in its suite; finds it again.
        op_type: the operator that it is about, "" where it is about a whole graph.
        domain: of the operator, "" for ai.onnx.
        opset: the model's version of that domain.
        subject: reads or makes its model and inputs; called where it is judged.
        occurrences: how many nodes of the models that it was cut from are like it; None where it was not cut from any.
        generated: how it was drawn, if it was; what fails is then made smaller.
        skip: why it is not run, "" if it is.
        origin: the model and the node that it was cut from, "" where it was not.
    """

    name: str
    op_type: str
    domain: str
    opset: int
    subject: Callable[[], Subject] = field(compare=False)
    occurrences: int | None = None
    generated: GeneratedCase | None = field(default=None, compare=False)
    skip: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Suite:
    """Cases, and what says where they are from.

    Attributes:
        name: as the user named it ("onnx", "generated", "mined:models").
        cases: in order.
        options: what they were chosen by; two runs with the same have the same cases.
        whole: whether no case was left out by choice.
    """

    name: str
    cases: Sequence[Case]
    options: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = True
