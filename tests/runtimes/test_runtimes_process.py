"""Worker processes: what they return, how they die, and that nothing of them stays or leaks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
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


def test_hang_is_ended_after_the_time_limit(relu, write_adapter, is_gone) -> None:
    with Worker(_mine(write_adapter("while True: pass"))) as worker:
        session = worker.load(relu, _mine(worker.options.runtime, time_limit_s=1.0))
        start = time.monotonic()
        with pytest.raises(HungError, match=r"^no answer within 1 s$"):
            session.run(X)
        assert time.monotonic() - start < 8
        assert not session.alive
        with pytest.raises(HungError, match="the worker is gone: no answer within 1 s"):
            session.run(X)
        assert is_gone(worker.process_id)


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
        ({"threads": 100_000}, "give 1 to 1024"),
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
