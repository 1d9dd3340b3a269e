"""Other interpreters: absent, lacking something, bare but for NumPy and a runtime, of other versions."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest

from onnx_arch.errors import RuntimeUnavailableError
from onnx_arch.runtimes.process import open_session
from onnx_arch.runtimes.session import RuntimeOptions

X = {"x": np.array([-1, 2], np.float32)}


@pytest.mark.parametrize("python", ["no/such/python", "no-such-python-on-path", __file__])
def test_interpreter_that_is_none_is_unavailable(python, relu) -> None:
    with pytest.raises(RuntimeUnavailableError, match="no Python interpreter at"):
        open_session(relu, RuntimeOptions(python=python))


def test_program_that_is_no_interpreter_is_unavailable(relu) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"onnxruntime cannot run in /bin/false: exited with status 1"):
        open_session(relu, RuntimeOptions(python="/bin/false"))


@pytest.mark.parametrize("program", ["/bin/cat", "/bin/echo"])
def test_program_that_prints_something_else_is_unavailable(relu, program) -> None:
    with pytest.raises(RuntimeUnavailableError, match=f"cannot run in {program}: it answers, but not as Python does"):
        open_session(relu, RuntimeOptions(python=program))


def test_interpreter_without_numpy_is_unavailable(relu, make_interpreter) -> None:
    python = make_interpreter()
    with pytest.raises(RuntimeUnavailableError, match=r"cannot run in .*python: No module named 'numpy'$"):
        open_session(relu, RuntimeOptions(python=python))


def test_interpreter_without_the_runtime_is_unavailable(relu, make_interpreter) -> None:
    python = make_interpreter("numpy")
    with pytest.raises(RuntimeUnavailableError, match=r"No module named 'onnxruntime'$"):
        open_session(relu, RuntimeOptions(python=python))


def test_interpreter_with_nothing_but_numpy_and_the_runtime_is_enough(relu, make_interpreter, monkeypatch) -> None:
    python = make_interpreter("numpy", "onnxruntime")
    probe = "import importlib.util as u; print([n for n in ('onnx', 'onnx_arch', 'ml_dtypes') if u.find_spec(n)])"
    assert subprocess.check_output([python, "-c", probe], text=True, cwd="/").strip() == "[]"
    monkeypatch.setenv("PYTHONPATH", "/no/such/folder")
    monkeypatch.setenv("PYTHONHOME", "/no/such/folder")  # ours, not that of another interpreter
    with open_session(relu, RuntimeOptions(python=python)) as session:
        assert session.run(X)["y"].tolist() == [0, 2]


def test_other_interpreters_run_the_worker(relu) -> None:
    """Those named in ONNX_ARCH_TEST_PYTHONS, with any version of NumPy and ONNX Runtime."""
    named = [python for python in os.environ.get("ONNX_ARCH_TEST_PYTHONS", "").split(os.pathsep) if python]
    if not named:
        pytest.skip("ONNX_ARCH_TEST_PYTHONS names no interpreters")
    for python in named:
        options = RuntimeOptions(python=python, profile=True, threads=1, deterministic=True, optimization="extended")
        with open_session(relu, options) as session:
            assert session.run(X)["y"].tolist() == [0, 2]
            assert len(session.time_runs(X, 3)) == 3
            assert any(event.get("cat") == "Node" for event in session.finish_profile())


def test_files_beside_the_worker_and_in_the_folder_shadow_nothing(relu, write_adapter, tmp_path, monkeypatch) -> None:
    for name in ("numpy", "json", "select", "session", "registry"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    adapter = write_adapter("""
        import importlib.util
        found = [name for name in ("session", "registry", "process", "worker") if importlib.util.find_spec(name)]
        return {"y": np.array(found, object)}
        """)
    with open_session(relu, RuntimeOptions(runtime=adapter)) as session:
        assert session.run(X)["y"].tolist() == []
