"""Write a folder per finding (model.onnx, repro.py) and docs/findings.md from the tables: python findings/build.py

Findings in OpenVINO are reproduced where it is installed: `--openvino PYTHON` names another interpreter that has it.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from contrib_table import FINDINGS as CONTRIB_FINDINGS
from graph_table import FINDINGS as GRAPH_FINDINGS
from later_table import FINDINGS as LATER_FINDINGS
from onnx import helper
from openvino_table import FINDINGS as OPENVINO_FINDINGS
from record import OPENVINO, ORT, REFERENCE, Finding
from table import FINDINGS as TABLE

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "findings.md"

RUN = {
    ORT: """import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feeds):
        return dict(zip(names, session.run(None, feeds)))
""",
    OPENVINO: """import openvino

    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(MODEL, "CPU", config)
    names = [min(output.get_names()) for output in compiled.outputs]

    def run(feeds):
        values = compiled(list(feeds.values()))
        return {name: np.array(values[i]) for i, name in enumerate(names)}
""",
    REFERENCE: """from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(MODEL)

    def run(feeds):
        return dict(zip(evaluator.output_names, evaluator.run(None, feeds)))
""",
}

SCRIPT = '''"""{title}.

{op_type}, opset {opset}, on {runtime} {version}. Needs numpy and {package} alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: {text}
{why}
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {feeds}
{before}EXPECTED = {expected}


def load():
    {load}
    return run


def same(actual, expected):
    actual = np.asarray(actual)
    text = expected.dtype.kind in "OU"
    if actual.shape != expected.shape or (not text and actual.dtype != expected.dtype):
        return False
    if text or expected.dtype.kind not in "f":
        return bool(np.all(actual.astype(str) == expected.astype(str)))
    return np.allclose(actual.astype(float), expected.astype(float), rtol={rtol}, atol={atol}, equal_nan=True)


def main():
    try:
        run = load()
{first}        outputs = run(FEEDS)
    except Exception as error:  # whatever it is: the call is valid
        print("raised:", " ".join(str(error).split())[:300])
        return 1
    wrong = 0
    for name, expected in EXPECTED.items():
        right = same(outputs[name], expected)
        wrong += not right
        print(name, "right" if right else "WRONG")
        print("  returned", np.asarray(outputs[name]).dtype, np.asarray(outputs[name]).tolist())
        print("  expected", expected.dtype, expected.tolist())
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
'''


def element_type(value: np.ndarray) -> int:
    if value.dtype.kind in "OU":
        return onnx.TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(value.dtype)


def model_of(finding: Finding) -> onnx.ModelProto:
    names = ["" if value is None else f"x{i}" for i, value in enumerate(finding.inputs)]
    results = ["" if value is None else f"y{i}" for i, value in enumerate(finding.expected)]
    fed, constant = [], []
    for i, value in enumerate(finding.inputs):
        if value is None:
            continue
        if i in finding.constants:
            constant.append(onnx.numpy_helper.from_array(value, f"x{i}"))
            continue
        shape = [None] * value.ndim if i in finding.unsized else value.shape
        fed.append(helper.make_tensor_value_info(f"x{i}", element_type(value), shape))
    declared = [
        helper.make_tensor_value_info(f"y{i}", element_type(value), [None] * value.ndim)
        for i, value in enumerate(finding.expected)
        if value is not None
    ]
    nodes = [
        helper.make_node(step.op_type, step.inputs.split(" "), step.outputs.split(), **step.attributes)
        for step in finding.steps
    ] or [
        helper.make_node(
            finding.op_type, names, results, name=finding.op_type, domain=finding.domain or None, **finding.attributes
        )
    ]
    opsets = [helper.make_opsetid("", finding.opset)]
    ir_version = helper.find_min_ir_version_for(opsets, True)
    opsets += [helper.make_opsetid(finding.domain, 1)] if finding.domain else []
    graph = helper.make_graph(nodes, finding.op_type, fed, declared, constant)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def literal(value: np.ndarray) -> str:
    if value.dtype.kind in "OU":
        return f"np.array({value.tolist()!r}, object).reshape({value.shape})"
    content = repr(value.tolist()).replace("inf", "np.inf").replace("nan", "np.nan")
    name = "bool_" if value.dtype == bool else value.dtype.name
    return f"np.array({content}, np.{name}).reshape({value.shape})"


def mapping(values: Any, prefix: str, left_out: Any = ()) -> str:
    lines = [
        f"    {f'{prefix}{i}'!r}: {literal(value)},\n"
        for i, value in enumerate(values)
        if value is not None and i not in left_out
    ]
    return "{\n" + "".join(lines) + "}"


def script_of(finding: Finding, version: str) -> str:
    first = ""
    before = ""
    if finding.before is not None:
        before = f"EARLIER = {mapping(finding.before, 'x')}\n"
        first = "        run(EARLIER)\n"
    return SCRIPT.format(
        title=finding.title,
        op_type=finding.operator,
        opset=finding.opset,
        runtime=finding.runtime,
        version=version,
        package="onnx" if finding.runtime == REFERENCE else finding.runtime,
        text=finding.text.replace("\\", "\\\\"),
        why=finding.why.replace("\\", "\\\\"),
        feeds=mapping(finding.inputs, "x", finding.constants),
        before=before,
        first=first,
        expected=mapping(finding.expected, "y"),
        load=RUN[finding.runtime].rstrip(),
        rtol=finding.precise,
        atol=finding.precise if finding.absolute is None else finding.absolute,
    )


def returned(folder: Path, python: str) -> tuple[bool, str]:
    """Whether a reproduction shows its finding, and what it says; one that breaks off itself shows nothing."""
    done = subprocess.run([python, folder / "repro.py"], capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return True, f"the process dies: {signal.Signals(-done.returncode).name}"
    said = done.stdout.strip() or done.stderr.strip()
    shown = done.returncode == 1 and (" WRONG\n" in done.stdout or done.stdout.startswith("raised: "))
    return shown, said.replace(f"{HERE.parent}/", "")


def has_vnni() -> bool:
    """Whether this processor multiplies bytes into 32 bits, or is none of x86."""
    known = Path("/proc/cpuinfo")
    return platform.machine() != "x86_64" or (known.exists() and "vnni" in known.read_text(encoding="utf-8"))


def recorded(finding: Finding) -> str:
    """What the page has a reproduction say, for one that this machine cannot show; empty if it has none."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(f". {finding.title}\n")
    return rest.partition("```text\n")[2].partition("\n```")[0]


def section(number: int, finding: Finding, folder: Path, version: str, output: str) -> str:
    lines = [
        f"## {number}. {finding.title}",
        "",
        f"{finding.operator}, opset {finding.opset}, {finding.runtime} {version}: "
        f"[repro.py](../findings/{folder.name}/repro.py), [model.onnx](../findings/{folder.name}/model.onnx)",
        "",
        f"> {finding.text}",
        "",
        finding.why,
        "",
    ]
    if finding.also:
        lines += [f"Also: {finding.also}", ""]
    return "\n".join([*lines, "```text", output, "```", ""])


DISTRIBUTIONS = {ORT: "onnxruntime", REFERENCE: "onnx", OPENVINO: "openvino"}


def version_in(python: str, distribution: str) -> str:
    """The version of a package as another interpreter has it."""
    words = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    return subprocess.run(
        [python, "-c", words, distribution], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openvino", metavar="PYTHON", default=sys.executable)
    pythons = {ORT: sys.executable, REFERENCE: sys.executable, OPENVINO: parser.parse_args().openvino}
    versions = {runtime: version_in(python, DISTRIBUTIONS[runtime]) for runtime, python in pythons.items()}
    for old in HERE.glob("[0-9]*-*"):
        shutil.rmtree(old)
    parts, gone, kept = [], [], []
    for number, finding in enumerate(
        (*TABLE, *OPENVINO_FINDINGS, *LATER_FINDINGS, *GRAPH_FINDINGS, *CONTRIB_FINDINGS), 1
    ):
        folder = HERE / f"{number:02d}-{finding.slug}"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(model_of(finding).SerializeToString(deterministic=True))
        version = versions[finding.runtime]
        (folder / "repro.py").write_text(script_of(finding, version), encoding="utf-8")
        if finding.without_vnni and has_vnni():
            shown, output = True, recorded(finding)
            kept.append(folder.name)
        else:
            shown, output = returned(folder, pythons[finding.runtime])
        if not shown:
            gone.append(f"{folder.name}: {output}")
        parts.append(section(number, finding, folder, version, output))
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", HERE], check=True)
    head = (
        "# Findings\n\nValid calls that released runtimes compute wrongly or refuse, found by the generated suite of "
        "`onnx-arch conform`,\nand graphs that their optimisations spoil, found by `onnx-arch check`. Every folder in "
        "`findings/` runs with\nNumPy and the runtime alone; its exit status is 0 once the runtime is right. "
        "`python findings/build.py` regenerates this\npage (`--openvino PYTHON` names an interpreter that has OpenVINO)."
        "\n\n"
        "What is refused with a message that says so counts as well where the text allows it; what a runtime merely has "
        "no kernel for\n(a type, a version) does not.\n"
    )
    PAGE.write_text(head + "\n" + "\n".join(parts), encoding="utf-8")
    elsewhere = f"; as recorded, as this processor has VNNI: {', '.join(kept)}" if kept else ""
    print("\n".join(gone) or f"{len(parts)} findings, {len(parts) - len(kept)} reproduced{elsewhere}")
    return int(bool(gone))


if __name__ == "__main__":
    sys.exit(main())
