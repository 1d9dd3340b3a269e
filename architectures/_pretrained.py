"""Reading `config.json` of Hugging Face folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidArgumentError


def check_settings(content: Mapping[str, Any], model_type: str, *others: str, **required: Any) -> None:
    """Refuse the config of another model, or a setting that is not built.

    Args:
        content: of `config.json`.
        model_type: what it must be; a file that does not say is taken at its word.
        others: what it may be, too: models of the same shape.
        required: the only value a setting may have where it is given.

    Raises:
        InvalidArgumentError: names the setting, what it is and what it may be.
    """
    given = content.get("model_type", model_type)
    if given not in (model_type, *others):
        allowed = ", ".join(map(repr, (model_type, *others)))
        raise InvalidArgumentError(f"config.json: model_type {given!r}; this architecture reads {allowed}")
    for name, value in required.items():
        if content.get(name, value) != value:
            raise InvalidArgumentError(f"config.json: {name} is {content[name]!r}; built is {value!r}")


def token_id(content: Mapping[str, Any], name: str, default: int | None) -> int | None:
    """A token of `config.json`; of several that may end a text, the first."""
    given = content.get(name, default)
    return (given[0] if given else default) if isinstance(given, (list, tuple)) else given
