"""Worker processes: what they return, how they die, and that nothing of them stays or leaks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

from onnx_arch.errors import (
    CrashedError,
    HungError,
    InvalidArgumentError,
    InvalidInputError,
    RaisedByRuntimeError,
    RuntimeUnavailableError,
    UnsupportedByRuntimeError,
)
from onnx_arch.runtimes.process import Worker, open_session
from onnx_arch.runtimes.session import RuntimeOptions

X = {"x": np.array([-1, 2], np.float32)}


def _mine(adapter: str, **options) -> RuntimeOptions:
    return RuntimeOptions(runtime=adapter, **options)


def _is_gone(process_id: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


# -- what a session gives


def test_session_describes_itself_and_runs(relu) -> None:
    with open_session(relu) as session:
        assert session.info.input_names == ("x",)
        assert session.info.output_names == ("y",)
        assert session.info.providers == ("CPUExecutionProvider",)
        assert {"python", "numpy", "onnxruntime"} <= set(session.info.versions)
        assert session.info.versions["numpy"] == np.__version__
        assert session.info.load_s > 0
        assert session.run(X)["y"].tolist() == [0, 2]


def test_reference_evaluator_runs(relu) -> None:
    with open_session(relu, RuntimeOptions(runtime="onnx-reference")) as session:
        assert session.run(X)["y"].tolist() == [0, 2]
        assert "onnx" in session.info.versions


def test_named_outputs_alone_are_returned(save_model) -> None:
    path = save_model(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])], ("x",), ("y", "z")
    )
    with open_session(path) as session:
        assert list(session.run(X, ["z"])) == ["z"]
        assert list(session.run(X)) == ["y", "z"]
        with pytest.raises(InvalidArgumentError, match="no output w, only y, z"):
            session.run(X, ["w"])
        assert session.alive


def test_worker_holds_several_models_and_survives_a_bad_one(relu, save_model) -> None:
    negate = save_model([helper.make_node("Neg", ["x"], ["y"])])
    unknown = save_model([helper.make_node("NoSuchOperator", ["x"], ["y"])])
    with Worker() as worker:
        first, second = worker.load(relu), worker.load(negate)
        with pytest.raises(UnsupportedByRuntimeError):
            worker.load(unknown)
        assert first.run(X)["y"].tolist() == [0, 2]
        first.close()
        assert second.run(X)["y"].tolist() == [1, -2]
        assert not first.alive
        with pytest.raises(InvalidArgumentError, match="closed"):
            first.run(X)


def test_worker_refuses_options_of_another_process(relu) -> None:
    with Worker() as worker, pytest.raises(InvalidArgumentError, match="memory_limit_bytes=None, not 1"):
        worker.load(relu, RuntimeOptions(memory_limit_bytes=1))


def test_adapter_of_ones_own_is_loaded_by_its_path(relu, write_adapter) -> None:
    adapter = write_adapter("return {'y': feeds['x'] * 3}")
    with open_session(relu, _mine(adapter)) as session:
        assert session.run(X)["y"].tolist() == [-3, 6]
        assert session.info.versions["mine"] == "7"
        assert session.info.extra == {"remark": "own"}


def test_every_option_reaches_the_adapter(relu, write_adapter, tmp_path) -> None:
    head = "HONOURS = ('disabled_optimizers', 'profile', 'optimized_model_path', 'threads', 'optimization', 'extra')"
    adapter = write_adapter("return {'y': np.array([str(sorted(self.options.items()))])}", head)
    options = _mine(
        adapter,
        disabled_optimizers=["A"],
        threads=1,
        optimization="basic",
        optimized_model_path=tmp_path / "o.onnx",
        extra={"a": [1, {"b": None}]},
    )
    with open_session(relu, options) as session:
        seen = session.run(X)["y"].item()
    for part in ("('disabled_optimizers', ['A'])", "('threads', 1)", "'basic'", "o.onnx", "{'a': [1, {'b': None}]}"):
        assert part in seen


# -- values


@pytest.mark.slow
def test_tensor_of_300_megabytes_goes_there_and_back(relu) -> None:
    x = np.random.default_rng(3).standard_normal((75, 1_000_000), np.float32)
    with open_session(relu) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], np.maximum(x, 0))


def test_tensor_of_many_pipes_goes_there_and_back(relu) -> None:
    x = np.random.default_rng(3).standard_normal((5, 1_000_000), np.float32)
    with open_session(relu) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], np.maximum(x, 0))


def test_feed_that_is_no_tensor_is_refused_here(relu) -> None:
    with open_session(relu) as session:
        with pytest.raises(InvalidInputError, match=r"input 'x': .*datetime64"):
            session.run({"x": np.array(["2020"], "M8[D]")})
        assert session.run(X)["y"].tolist() == [0, 2]


# -- how a runtime fails


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("os.kill(os.getpid(), 11)", CrashedError, r"^killed by signal 11 \(SIGSEGV\)$"),
        ("os.abort()", CrashedError, r"killed by signal 6 \(SIGABRT\)"),
        ("os.kill(os.getpid(), 9)", CrashedError, r"killed by signal 9 \(SIGKILL\), probably out of memory"),
        ("print('last words', flush=True); os._exit(3)", CrashedError, "exited with status 3: last words"),
        ("sys.exit(4)", RaisedByRuntimeError, "SystemExit: 4"),
        ("os.closerange(3, 99); time.sleep(99)", CrashedError, "exited with status 0"),
        ("raise KeyError('two\\nlines')", RaisedByRuntimeError, "^KeyError: "),
        ("raise NotImplementedError('no such thing')", UnsupportedByRuntimeError, "^no such thing$"),
        ("raise ImportError('no such device')", RuntimeUnavailableError, "^no such device$"),
        ("np.empty(1 << 60, np.uint8)", RaisedByRuntimeError, "^out of memory: Unable to allocate"),
        ("return {'y': object()}", RaisedByRuntimeError, "TypeError: .* travel"),
        ("return 7", RaisedByRuntimeError, "AttributeError"),
    ],
)
def test_failure_in_a_run_is_named(body, error, message, relu, write_adapter) -> None:
    with open_session(relu, _mine(write_adapter(body))) as session:
        with pytest.raises(error, match=message):
            session.run(X)
        assert session.alive == (error is not CrashedError)


def test_worker_that_closes_its_pipe_is_ended(relu, write_adapter, monkeypatch) -> None:
    monkeypatch.setattr("onnx_arch.runtimes._connection._CLOSE_LIMIT_S", 0.2)
    adapter = write_adapter("""
        import stat
        for fd in range(3, 20):  # the replies' pipe is the one that can be written
            try:
                if stat.S_ISFIFO(os.fstat(fd).st_mode) and os.get_blocking(fd):
                    os.write(fd, b"")
                    os.close(fd)
            except OSError:
                pass
        time.sleep(60)
        """)
    with open_session(relu, _mine(adapter)) as session, pytest.raises(CrashedError, match="it closed its pipe"):
        session.run(X)


def test_hang_is_ended_after_the_time_limit(relu, write_adapter) -> None:
    with Worker(_mine(write_adapter("while True: pass"))) as worker:
        session = worker.load(relu, _mine(worker.options.runtime, time_limit_s=1.0))
        start = time.monotonic()
        with pytest.raises(HungError, match=r"^no answer within 1 s$"):
            session.run(X)
        assert time.monotonic() - start < 8
        assert not session.alive
        with pytest.raises(HungError, match="the worker is gone: no answer within 1 s"):
            session.run(X)
        assert _is_gone(worker.process_id)


def test_worker_that_does_not_read_is_ended_too(relu, write_adapter) -> None:
    adapter = write_adapter("return {'y': feeds['x']}")
    with Worker(_mine(adapter)) as worker:
        session = worker.load(relu, _mine(adapter, time_limit_s=1.0))
        os.kill(worker.process_id, signal.SIGSTOP)
        with pytest.raises(HungError):
            session.run({"x": np.zeros(10_000_000, np.float32)})


def test_timed_runs_may_together_take_longer_than_the_limit(relu, write_adapter) -> None:
    adapter = write_adapter("time.sleep(0.7)")
    with Worker(_mine(adapter)) as worker:
        session = worker.load(relu, _mine(adapter, time_limit_s=2.5))
        durations = session.time_runs(X, 5)
    assert len(durations) == 5
    assert min(durations) >= 0.69


def test_crash_while_loading_is_a_crash(relu, write_adapter) -> None:
    adapter = write_adapter("", head="import os\n").removesuffix(".py") + ".py"
    Path(adapter).write_text("import os\ndef load(path, options): os.kill(os.getpid(), 8)\n", encoding="utf-8")
    with pytest.raises(CrashedError, match="SIGFPE"):
        open_session(relu, _mine(adapter))


def test_what_a_runtime_prints_neither_leaks_nor_disturbs(relu, write_adapter, capfd) -> None:
    adapter = write_adapter("""
        print("garbage" * 1000)
        os.write(1, bytes(range(256)) * 5000)
        os.write(2, b"e" * 3_000_000)
        os.system("echo from a child")
        print(sys.stdin.read() == "", flush=True)
        return {"y": feeds["x"] + 1}
        """)
    with open_session(relu, _mine(adapter)) as session:
        assert session.run(X)["y"].tolist() == [0, 3]
        assert session.run(X)["y"].tolist() == [0, 3]
        assert "from a child" in session.log()
        assert len(session.log()) <= 2 << 20
    assert capfd.readouterr() == ("", "")


def test_message_is_one_line_without_paths_of_this_machine(relu, write_adapter) -> None:
    adapter = write_adapter('raise ValueError(f\'{self.options["scratch"]}/a {os.path.expanduser("~")}/b\\nmore\')')
    with open_session(relu, _mine(adapter)) as session, pytest.raises(RaisedByRuntimeError) as caught:
        session.run(X)
    assert str(caught.value) == "ValueError: a ~/b"


def test_missing_model_is_named_without_its_folder(tmp_path) -> None:
    with pytest.raises(RaisedByRuntimeError, match=r"missing\.onnx") as caught:
        open_session(tmp_path / "missing.onnx")
    assert str(tmp_path) not in str(caught.value)


def test_memory_limit_makes_a_large_model_fail_alone(save_model) -> None:
    shape = helper.make_tensor_value_info("x", TensorProto.INT64, [1])
    path = save_model([helper.make_node("ConstantOfShape", ["x"], ["y"])], [shape])
    with open_session(path, RuntimeOptions(memory_limit_bytes=2 << 30)) as session:
        assert session.run({"x": np.array([5], np.int64)})["y"].tolist() == [0] * 5
        with pytest.raises(RaisedByRuntimeError, match=r"^out of memory: "):
            session.run({"x": np.array([1_000_000_000], np.int64)})


def test_feed_beyond_the_memory_limit_leaves_the_session_usable(relu) -> None:
    with open_session(relu, RuntimeOptions(memory_limit_bytes=1 << 30, threads=1)) as session:
        with pytest.raises(RaisedByRuntimeError, match=r"^out of memory: "):
            session.run({"x": np.zeros(300_000_000, np.float32)})
        assert session.run(X)["y"].tolist() == [0, 2]


def test_peak_memory_counts_the_worker_and_not_this_process(relu) -> None:
    ours = np.ones(100_000_000, np.float32)  # 400 MB that the worker does not hold
    with open_session(relu) as session:
        before = session.peak_memory_bytes()
        session.run({"x": ours[:25_000_000]})
        after = session.peak_memory_bytes()
    assert 10 << 20 < before < 300 << 20
    assert after - before > 150 << 20  # the feed and the output
    assert session.peak_memory_bytes() == after


# -- options that cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "tpu"}, "provider='tpu': give one of cpu, cuda"),
        ({"optimization": "O3"}, "optimization='O3': give one of disabled"),
        ({"time_limit_s": 0.0}, "time_limit_s=0"),
        ({"time_limit_s": float("nan")}, "time_limit_s=nan"),
        ({"threads": 0}, "threads=0"),
        ({"provider": "cuda", "memory_limit_bytes": 1}, "cpu only"),
        ({"extra": {"no_such": 1}}, "knows no extra option no_such"),
        ({"extra": {"session_config": object()}}, "not made of JSON values"),
        ({"runtime": "onnx-reference", "disabled_optimizers": ("A",)}, "cannot honour disabled_optimizers"),
        ({"runtime": "onnx-reference", "profile": True}, "cannot honour profile"),
    ],
)
def test_option_that_cannot_be_honoured_is_refused(options, message, relu) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        open_session(relu, RuntimeOptions(**options))


def test_provider_that_is_not_there_is_unavailable(relu) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(RuntimeUnavailableError, match="has no CUDAExecutionProvider, only"):
        open_session(relu, RuntimeOptions(provider="cuda"))
    with pytest.raises(RuntimeUnavailableError, match="no provider 'cuda'"):
        open_session(relu, RuntimeOptions(provider="cuda", runtime="onnx-reference"))


# -- interpreters


@pytest.mark.parametrize("python", ["no/such/python", "no-such-python-on-path", __file__])
def test_interpreter_that_is_none_is_unavailable(python, relu) -> None:
    with pytest.raises(RuntimeUnavailableError, match="no Python interpreter at"):
        open_session(relu, RuntimeOptions(python=python))


def test_program_that_is_no_interpreter_is_unavailable(relu) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"onnxruntime cannot run in /bin/false: exited with status 1"):
        open_session(relu, RuntimeOptions(python="/bin/false"))


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
    with open_session(relu, _mine(adapter)) as session:
        assert session.run(X)["y"].tolist() == []


# -- nothing stays


def test_close_ends_the_process_and_removes_its_folder(relu, write_adapter) -> None:
    adapter = write_adapter("return {'y': np.array(self.options['scratch'])}")
    session = open_session(relu, _mine(adapter))
    scratch = Path(session.run(X)["y"].item())
    assert scratch.is_dir()
    session.close()
    session.close()
    assert not session.alive
    assert _is_gone(session.worker.process_id)
    assert not scratch.exists()


def test_adapter_is_closed_before_its_process_ends(relu, tmp_path) -> None:
    adapter, note = tmp_path / "closing.py", tmp_path / "closed.txt"
    adapter.write_text(
        f"def load(path, options): return Mine()\nclass Mine:\n    def info(self): return {{}}\n"
        f"    def close(self): open({str(note)!r}, 'w').write('closed')\n",
        encoding="utf-8",
    )
    open_session(relu, _mine(str(adapter))).close()
    assert note.read_text(encoding="utf-8") == "closed"


def test_session_that_is_forgotten_ends_its_process(relu) -> None:
    session = open_session(relu)
    process_id = session.worker.process_id
    del session
    gc.collect()
    assert _is_gone(process_id)


def test_what_a_worker_started_ends_with_it(relu, write_adapter) -> None:
    adapter = write_adapter("""
        import subprocess
        child = subprocess.Popen(["sleep", "600"])
        if feeds["x"][0] < 0:
            os.kill(os.getpid(), 11)
        return {"y": np.array(child.pid)}
        """)
    with open_session(relu, _mine(adapter)) as session:
        child = int(session.run({"x": np.ones(1, np.float32)})["y"])
        with pytest.raises(CrashedError):
            session.run(X)
    assert _is_gone(child)


def test_close_from_another_thread_ends_a_run(relu, write_adapter) -> None:
    session = open_session(relu, _mine(write_adapter("time.sleep(60)")))
    closer = threading.Timer(0.5, session.worker.close)
    closer.start()
    with pytest.raises(CrashedError, match=r"^closed$"):
        session.run(X)
    closer.join()
    session.close()


SCRIPT = """
import sys
import numpy as np
from pathlib import Path
from onnx_arch.runtimes.process import open_session
from onnx_arch.runtimes.session import RuntimeOptions

session = open_session(Path(sys.argv[1]), RuntimeOptions(runtime=sys.argv[2]))
print(session.worker.process_id, flush=True)
session.run({"x": np.ones(1, np.float32)})
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_worker_does_not_outlive_its_parent(how, relu, write_adapter, tmp_path) -> None:
    adapter = write_adapter("print('running', flush=True); time.sleep(600)")
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(relu), adapter],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    assert parent.stdout is not None
    worker_id = int(parent.stdout.readline())
    time.sleep(0.5)
    os.killpg(parent.pid, how)  # as a terminal's Ctrl-C does: the whole group of the parent
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode != 0
    assert _is_gone(worker_id)
    assert list(scratch.iterdir()) == []
    assert "worker.py" not in errors
    assert errors.count("Traceback") == (1 if how == signal.SIGINT else 0)


def test_crash_leaves_no_core_file(relu, write_adapter, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path))
    adapter = write_adapter("""
        import resource
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        os.abort()
        """)
    with open_session(relu, _mine(adapter)) as session, pytest.raises(CrashedError, match="SIGABRT"):
        session.run(X)
    assert set(os.listdir(tmp_path)) - before == {"my_adapter.py"}
