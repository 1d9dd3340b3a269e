"""Results as one HTML page that needs nothing else: no server, no network, no script to be read.

Everything is in the markup, so the page reads, prints and can be searched without scripts (as viewers of CI artifacts
show it); the script adds sorting, filtering and pointing. Three walls stand between a hostile name and the reader:
Jinja escapes every value, names have their control characters spelled out, and the page's content security policy
runs no script but the page's own, known by its hash, and loads nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from .combine import Results
from .document import FileView, page

_TEMPLATE = "report.html.j2"


def html(results: Results) -> str:
    """The page that shows `results`; the same results give the same bytes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only where a page is made
    from markupsafe import Markup  # noqa: PLC0415 - as above

    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, sheet = _source("report.js"), _source("report.css")
    return environment.get_template(_TEMPLATE).render(
        page=page(results),
        policy=content_security_policy(script, sheet),
        script=Markup(script),  # noqa: S704 - the package's own file
        sheet=Markup(sheet),  # noqa: S704 - the package's own file
        embedded=lambda file: Markup(embedded(file)),  # noqa: S704 - escaped for where it stands
    )


def content_security_policy(script: str, sheet: str) -> str:
    """Nothing is loaded; only this script runs and only this style sheet applies."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(sheet)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def embedded(file: FileView) -> str:
    """A file's JSON lines as a JSON list that can stand in a script element: without ``<``, ``>`` and ``&``."""
    lines = ",\n".join(file.lines)
    for character in "<>&":
        lines = lines.replace(character, f"\\u{ord(character):04x}")
    return f"[\n{lines}\n]"


def _source(name: str) -> str:
    return files(__package__ or "").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
