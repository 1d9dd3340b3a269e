"""A pytest plug-in: every case of a suite as a test.

    pytest --onnx-arch-runtime onnxruntime --onnx-arch-suite onnx --onnx-arch-op Conv

The tests are added to those that pytest finds; `-k onnx-arch` runs them alone. Without `--onnx-arch-runtime` nothing is
imported and nothing changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import OnnxArchError

if TYPE_CHECKING:
    from ..conformance.case_runner import CaseRunner
    from ..conformance.expectations import Expectations
    from ..conformance.results import NodeResult
    from ..conformance.suites.case import Case, Suite

SWITCH = "onnx_arch_runtime"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; all but the first do nothing without it."""
    group = parser.getgroup("onnx-arch", "onnx-arch: a test for every case of a suite of ONNX operators")
    group.addoption("--onnx-arch-runtime", metavar="NAME", help="runtime to judge: onnxruntime, …, or an adapter's .py")
    group.addoption("--onnx-arch-python", metavar="INTERPRETER", help="judge the runtime of another Python")
    group.addoption("--onnx-arch-provider", default="cpu", help="execution provider (default: cpu)")
    group.addoption("--onnx-arch-optimization", default="all", help="graph optimisation level (default: all)")
    group.addoption("--onnx-arch-suite", default="onnx", help="onnx, generated, or mined:DIR (default: onnx)")
    group.addoption("--onnx-arch-op", action="append", metavar="TYPE", help="only cases of this operator; repeatable")
    group.addoption("--onnx-arch-opset", metavar="A..B", help="only cases of these opset versions")
    group.addoption("--onnx-arch-seed", type=int, default=0, help="seed of generated cases (default: 0)")
    group.addoption("--onnx-arch-examples", type=int, default=25, help="generated cases per operator (default: 25)")
    group.addoption("--onnx-arch-expect", metavar="FILE", help="known failures, TOML")
    group.addoption("--onnx-arch-time-limit", type=float, default=60.0, metavar="S", help="seconds (default: 60)")


def pytest_configure(config: pytest.Config) -> None:
    """Register the hooks that add tests, if a runtime was named."""
    if config.getoption(SWITCH) is not None:
        config.pluginmanager.register(Conformance(config), "onnx-arch-conformance")


class Conformance:
    """The hooks of a run that judges a runtime."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runner: CaseRunner | None = None

    def _option(self, name: str) -> Any:
        return self._config.getoption(f"onnx_arch_{name}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add a test per case, before `-k` chooses among them."""
        try:
            suite, _ = self._suite, self._expectations
        except OnnxArchError as error:
            raise pytest.UsageError(f"onnx-arch: {error}") from error
        parent = SuiteOfCases.from_parent(
            session, name="onnx-arch", nodeid=f"onnx-arch:{suite.name}", cases=suite.cases, run=self
        )
        report = parent.ihook.pytest_make_collect_report(collector=parent)
        parent.ihook.pytest_collectreport(report=report)  # so that they are counted with the others
        items.extend(report.result)

    def pytest_sessionfinish(self) -> None:
        """End the runtime's process."""
        if self._runner is not None:
            self._runner.close()

    @cached_property
    def _suite(self) -> Suite:
        from ..conformance.suites.finding import Choice, find_suite, parse_opsets  # noqa: PLC0415 - heavy: ONNX

        opset = self._option("opset")
        opsets = None if opset is None else parse_opsets(opset)
        choice = Choice(tuple(self._option("op") or ()), opsets, (), self._option("seed"), self._option("examples"))
        return find_suite(self._option("suite"), choice)

    @cached_property
    def _expectations(self) -> Expectations:
        from ..conformance.expectations import Expectations, read_expectations  # noqa: PLC0415 - heavy: pydantic

        file = self._option("expect")
        return Expectations() if file is None else read_expectations(Path(file))

    @cached_property
    def runner(self) -> CaseRunner:
        """The process that judges, started with the first test."""
        from ..conformance.case_runner import CaseRunner  # noqa: PLC0415 - heavy: ONNX
        from ..runtimes.session import RuntimeOptions  # noqa: PLC0415 - as above

        self._runner = CaseRunner(
            RuntimeOptions(
                runtime=self._option("runtime"),
                python=self._option("python"),
                provider=self._option("provider"),
                optimization=self._option("optimization"),
                threads=1,
                time_limit_s=self._option("time_limit"),
            )
        )
        return self._runner

    @cached_property
    def known(self) -> Expectations:
        """The known failures of this runtime, version and provider."""
        from ..conformance.expectations import Subject  # noqa: PLC0415 - heavy: pydantic

        subject = Subject(self.runner.options.runtime, self.runner.probe(), self.runner.options.provider)
        return self._expectations.holding(subject)

    def judge(self, case: Case) -> NodeResult:
        """The row of a case; a generated one that fails is made smaller."""
        from ..conformance.aftermath import Aftermath  # noqa: PLC0415 - heavy: ONNX

        try:
            row = self.known.annotate(self.runner.judge(case))
        except OnnxArchError as error:  # the runtime cannot be had, or not with these options: no other test can run
            pytest.exit(f"onnx-arch: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
        return Aftermath(True, None, threading.Event())(self.runner, case, row) if row.red else row


class SuiteOfCases(pytest.Collector):
    """What the tests of a suite belong to."""

    def __init__(self, *, cases: Sequence[Case], run: Conformance, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._cases = cases
        self._run = run

    def collect(self) -> Sequence[pytest.Item]:
        """A test per case."""
        return [CaseTest.from_parent(self, name=case.name, case=case, run=self._run) for case in self._cases]


class CaseFailedError(Exception):
    """A case that failed; its message is the report."""


class CaseTest(pytest.Item):
    """One case as a test."""

    def __init__(self, *, case: Case, run: Conformance, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._case = case
        self._run = run

    def runtest(self) -> None:
        """Judge the case.

        Raises:
            CaseFailedError: it failed, or a strict row of the file of known failures says that it does, and it passed.
        """
        row = self._run.judge(self._case)
        if row.known:
            pytest.xfail(row.known)
        if row.red:
            raise CaseFailedError(_described(row))
        if row.outcome != "passed":
            pytest.skip(f"{row.outcome.value}: {row.message}")
        strict = [item.title for item in self._run.known.contradicted(row)]
        if strict:
            raise CaseFailedError(f"{row.node} passes, though {', '.join(strict)} of the known failures says it fails")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The verdict alone: a traceback through the judge says nothing of the runtime."""
        if isinstance(excinfo.value, CaseFailedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where pytest says that the test is."""
        return Path("onnx-arch"), None, f"{self._case.op_type or 'graph'} {self.name}"


def _described(row: NodeResult) -> str:
    figures = {
        "rule": row.rule,
        "largest |z|": row.max_z,
        "allowed": row.allowed_max_z,
        "explained by": row.fingerprint,
        "first met in": row.origin,
        "smallest": row.smallest,
    }
    lines = [f"{row.op_type or 'graph'}, opset {row.opset}: {row.outcome.value}: {row.message}"]
    return "\n".join([*lines, *(f"  {name}: {value}" for name, value in figures.items() if value not in (None, ""))])
