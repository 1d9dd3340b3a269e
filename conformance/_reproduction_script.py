"""The texts of a reproduction: a script that needs NumPy and the runtime alone, and an issue to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtimes._wire import RAW_DTYPES

PLAIN_RUNTIMES: Mapping[str, tuple[str, str]] = {
    "onnxruntime": (
        "onnxruntime",
        """\
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_{level}
    session = onnxruntime.InferenceSession(MODEL, options, providers=["{provider}"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, feeds)))
""",
    ),
    "onnx-reference": (
        "onnx",
        """\
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(MODEL)
    return lambda feeds: dict(zip(evaluator.output_names, evaluator.run(None, feeds)))
""",
    ),
}
"""By runtime, the package that it needs and how it is called; any other is called through its adapter."""

BY_ADAPTER = """\
    import importlib.util

    spec = importlib.util.spec_from_file_location("adapter", HERE / "adapter.py")
    adapter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adapter)
    session = adapter.load(MODEL, {options})
    if not getattr(adapter, "ML_DTYPES", False):
        return lambda feeds: session.run(feeds, None)
    import ml_dtypes

    def plain(value):
        return value.bits.view(getattr(ml_dtypes, value.dtype)) if isinstance(value, Raw) else value

    return lambda feeds: session.run({{name: plain(value) for name, value in feeds.items()}}, None)
"""

LEVELS = {"disabled": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

SCRIPT = '''"""{title}

{subject}, with {runtime} {version}. Needs numpy and {package} alone: python repro.py
The exit status is 0 once the runtime is right.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
MODEL = str(HERE / "model.onnx")
INPUTS = np.load(HERE / "inputs.npz")
EXPECTED = np.load(HERE / "expected.npz")
OUTPUTS = {outputs}


class Raw:
    """A tensor of a type that NumPy lacks, as its bits."""

    def __init__(self, dtype, bits):
        self.dtype, self.bits, self.shape = dtype, bits, bits.shape


FEEDS = {feeds}


def load():
{load}

def numbers(value):
    """A tensor as numbers; types that NumPy lacks by the table of all their values."""
    table = "values of " + str(getattr(value, "dtype", ""))
    if table not in EXPECTED:
        return np.asarray(value)
    bits = getattr(value, "bits", None)
    return EXPECTED[table][value.view(f"u{{value.dtype.itemsize}}") if bits is None else bits]


def wrong(name, dtype, actual):
    """What is wrong with an output, or nothing."""
    stored, reference, bound = (EXPECTED[name + part] for part in ("", ".reference", ".bound"))
    given = str(getattr(actual, "dtype", type(actual).__name__))
    if given != dtype and not (dtype == "string" and np.asarray(actual).dtype.kind in "OUS"):
        return f"dtype {{given}}, expected {{dtype}}"
    found = numbers(actual)
    if found.shape != reference.shape:
        return f"shape {{list(found.shape)}}, expected {{list(reference.shape)}}"
    if dtype == "string":
        same = found.astype(str) == stored.astype(str)
    else:
        same = (found == stored) | ((found != found) & (stored != stored))
        with np.errstate(all="ignore"):
            same = same | (np.abs(found - reference) <= bound)
    if np.all(same):
        return ""
    first = tuple(int(i) for i in np.argwhere(~same)[0])
    return (
        f"{{np.count_nonzero(~same)}} of {{found.size}} elements are wrong; first at {{list(first)}}: "
        f"{{found[first]}}, expected {{reference[first]}}"
        + (f" +- {{bound[first]:.3g}}" if 0 < bound[first] and np.isfinite(reference[first]) else "")
    )


def main():
    try:
        outputs = load()(FEEDS)
    except Exception as error:  # whatever it is: the call is valid
        print("raised:", " ".join(str(error).split())[:500])
        return 1
    found = {{name: wrong(name, dtype, outputs.get(name)) for name, dtype in OUTPUTS.items()}}
    for name, text in found.items():
        print(f"{{name}}: {{text or 'right'}}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
'''

ISSUE = """# {title}

{subject}, with {runtime} {version} ({environment}).

{message}

`python repro.py` shows it; it needs numpy and {package} alone. `model.onnx` and `test_data_set_0` are the case in
ONNX's own format, `expected.npz` holds the float64 reference of every output (`NAME.reference`) and how far a correct
implementation may be off per element (`NAME.bound`), `verdict.json` the whole result.

What the operator's specification says: {link}
"""


@dataclass(frozen=True)
class Text:
    """What both texts say.

    Attributes:
        title: one line.
        subject: "Pad, opset 25".
        runtime: its name.
        version: of it.
        package: what has to be installed.
        message: the verdict.
        environment: of what it was found with, in a line.
        link: of the specification.
    """

    title: str
    subject: str
    runtime: str
    version: str
    package: str
    message: str
    environment: str
    link: str


def issue_text(text: Text) -> str:
    """ISSUE.md."""
    return ISSUE.format(**vars(text))


def script_text(text: Text, load: str, feeds: Mapping[str, Any], outputs: Mapping[str, str]) -> str:
    """repro.py.

    Args:
        text: what it says of itself.
        load: body of the function that returns how the runtime is called.
        feeds: stored inputs by name; arrays lie in inputs.npz.
        outputs: dtype by name of each output that is compared.
    """
    lines = [f"    {name!r}: {expression(name, value)},\n" for name, value in feeds.items()]
    named = "".join(f"    {name!r}: {dtype!r},\n" for name, dtype in outputs.items())
    fed = "{\n" + "".join(lines) + "}" if lines else "{}"
    plain = {name: value.replace('"""', "'''").replace("\\", "\\\\") for name, value in vars(text).items()}
    return SCRIPT.format(**plain, load=load, feeds=fed, outputs="{\n" + named + "}" if named else "{}")


def expression(key: str, value: Any) -> str:
    """Python that reads a stored value from INPUTS."""
    if value is None:
        return "None"
    if isinstance(value, list):
        return "[" + ", ".join(expression(f"{key}[{index}]", item) for index, item in enumerate(value)) + "]"
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return f"INPUTS[{key!r}].astype(object)"
    if array.dtype.name in RAW_DTYPES:
        return f"Raw({array.dtype.name!r}, INPUTS[{key!r}])"
    return f"INPUTS[{key!r}]"
