"""Nothing of a worker stays: no process, no child of it, no folder, whichever way the end comes."""

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
import pytest

from onnx_arch.errors import CrashedError
from onnx_arch.runtimes.process import open_session
from onnx_arch.runtimes.session import RuntimeOptions

X = {"x": np.array([-1, 2], np.float32)}


def _mine(adapter: str, **options) -> RuntimeOptions:
    return RuntimeOptions(runtime=adapter, **options)


def test_close_ends_the_process_and_removes_its_folder(relu, write_adapter, is_gone) -> None:
    adapter = write_adapter("return {'y': np.array(self.options['scratch'])}")
    session = open_session(relu, _mine(adapter))
    scratch = Path(session.run(X)["y"].item())
    assert scratch.is_dir()
    session.close()
    session.close()
    assert not session.alive
    assert is_gone(session.worker.process_id)
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


def test_session_that_is_forgotten_ends_its_process(relu, is_gone) -> None:
    session = open_session(relu)
    process_id = session.worker.process_id
    del session
    gc.collect()
    assert is_gone(process_id)


def test_what_a_worker_started_ends_with_it(relu, write_adapter, is_gone) -> None:
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
    assert is_gone(child)


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
def test_worker_does_not_outlive_its_parent(how, relu, write_adapter, tmp_path, is_gone) -> None:
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
    assert is_gone(worker_id)
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
