"""Start a worker process, keep what it prints, end it with everything it started, and say how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO

from ..errors import RuntimeUnavailableError

_WORKER = Path(__file__).with_name("worker.py")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_OWN_INTERPRETER_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")
_PIPE_BYTES = 1 << 20
_LOG_BYTES = 1 << 20
_READ_BYTES = 1 << 16
_JOIN_LIMIT_S = 2.0
_POLL_S = 0.002


def interpreter(python: str | None) -> str:
    """The executable of a Python interpreter: a path, or a name on PATH; None is this one.

    Raises:
        RuntimeUnavailableError: there is none.
    """
    if python is None:
        return sys.executable
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise RuntimeUnavailableError(f"no Python interpreter at {python!r}: no such file, or it is not executable")
    return os.path.abspath(found)  # not resolved: the link of a virtual environment says which environment it is


class Log:
    """The last megabyte of what a process writes to a pipe, collected by a thread."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._collect, daemon=True, name="onnx-arch worker log")
        self._thread.start()

    def _collect(self) -> None:
        with self._pipe, contextlib.suppress(OSError, ValueError):
            while self._has_more(None) and self._take():
                pass

    def _has_more(self, limit_ms: int | None) -> bool:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        return bool(poll.poll(limit_ms))

    def _take(self) -> bool:
        """Move what is in the pipe to the log; False at the end of the pipe."""
        with self._lock:
            if not self._has_more(0):  # another thread was faster
                return True
            chunk = os.read(self._pipe.fileno(), _READ_BYTES)
            self._chunks.append(chunk)
            self._size += len(chunk)
            while self._size - len(self._chunks[0]) >= _LOG_BYTES:
                self._size -= len(self._chunks.popleft())
            return bool(chunk)

    def text(self) -> str:
        """What was written so far, from at most a megabyte back."""
        with contextlib.suppress(OSError, ValueError):  # the pipe is closed
            for _ in range(_LOG_BYTES // _READ_BYTES):
                if not (self._has_more(0) and self._take()):
                    break
        return b"".join(list(self._chunks)).decode("utf-8", "replace")

    def finish(self) -> None:
        """Wait for the end of the pipe, but not for a stranger who holds it open."""
        self._thread.join(_JOIN_LIMIT_S)


class Launched:
    """A started process: its pipes, its log, and a scratch folder that goes with it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="onnx-arch-worker-"))
        try:
            self.popen = subprocess.Popen(  # noqa: S603 - the interpreter that the user named, and our own script
                [*command, str(self.scratch)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise RuntimeUnavailableError(f"{command[0]} does not start: {error.strerror}") from error
        if self.popen.stdin is None or self.popen.stdout is None or self.popen.stderr is None:
            raise RuntimeUnavailableError(f"{command[0]} was started without pipes")
        self.requests, self.replies = self.popen.stdin, self.popen.stdout
        for pipe in (self.requests, self.replies):
            _enlarge(pipe)
        self.log = Log(self.popen.stderr)

    def ended(self) -> bool:
        """Whether the process has ended; it is left to be reaped by `kill`, so that its group stays addressable."""
        if self.popen.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self.popen.poll() is not None
        try:
            return os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # another thread has just reaped it
            return True

    def wait(self, limit_s: float) -> bool:
        """Wait until the process has ended, but not longer than `limit_s`; whether it has."""
        deadline = time.monotonic() + limit_s
        while not self.ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def kill(self) -> None:
        """End the process and whatever it started, close the pipes, remove the scratch folder; safe to call twice."""
        self.signal()
        self.popen.wait()
        self.log.finish()
        for pipe in (self.requests, self.replies):
            with contextlib.suppress(OSError):
                pipe.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def signal(self) -> None:
        """Kill the process group; from any thread, while another waits for an answer."""
        if self.popen.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.popen.pid, signal.SIGKILL)
            else:
                self.popen.kill()


def launch(python: str, threads: int | None) -> Launched:
    """Start the worker with an interpreter.

    Raises:
        RuntimeUnavailableError: the interpreter cannot be started.
    """
    environment = dict(os.environ)
    if python != sys.executable:
        for name in _OWN_INTERPRETER_VARIABLES:
            environment.pop(name, None)
    if threads is not None:
        environment.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    return Launched([python, str(_WORKER)], environment)


def _enlarge(pipe: IO[bytes]) -> None:
    """A megabyte of pipe instead of 64 kB, where the system can; large tensors then take fewer turns."""
    try:
        import fcntl  # noqa: PLC0415 - Unix only

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        return


def describe_exit(launched: Launched, lines: int = 3) -> str:
    """How an ended process ended, and the last lines that it wrote."""
    code = launched.popen.returncode
    if code is None:
        how = "closed its pipe"
    elif code >= 0:
        how = f"exited with status {code}"
    else:
        how = f"killed by signal {-code} ({_signal_name(-code)})"
    if code == -signal.SIGKILL:
        how += ", probably out of memory"
    last = [line.strip() for line in launched.log.text().splitlines() if line.strip()][-lines:]
    return how + (f": {' / '.join(last)}" if last else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
