"""The host's end of a worker: one request, one answer, or the reason why there is none."""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from ..errors import (
    CrashedError,
    HungError,
    InvalidArgumentError,
    InvalidInputError,
    OnnxArchError,
    RaisedByRuntimeError,
    RuntimeFailure,
    RuntimeUnavailableError,
    UnsupportedByRuntimeError,
)
from ._launch import describe_exit, launch
from ._wire import Channel, Encoder, TruncatedFrameError

_FAILURES: dict[str, type[OnnxArchError]] = {
    "unavailable": RuntimeUnavailableError,
    "unsupported": UnsupportedByRuntimeError,
    "refused": InvalidArgumentError,
    "raised": RaisedByRuntimeError,
}
_CLOSE_LIMIT_S = 5.0
_LONGEST_MESSAGE = 2000
_FOREIGN = (
    # ONNX Runtime: the C++ function that threw, before what it says
    (re.compile(r"(?:[^\s'\"(]*/)?onnxruntime/\S+\.(?:cc|cpp|cu|cuh|h):\d+ [^)]*\)(?: const)?:? (?=\S)"), ""),
    (re.compile(r"[^\s'\"(]*/(onnxruntime/\S+\.(?:cc|cpp|cu|cuh|h)\b)"), r"\1"),  # where it was compiled
    (re.compile(r"[^\s'\"(]*/(?:site|dist)-packages/"), ""),
)
"""What is left out of messages, besides the folders of this machine."""

Answer = tuple[dict[str, Any], dict[str, Any]]


class Connection:
    """A started worker process.

    Args:
        python: an interpreter's executable.
        threads: for the environment variables of BLAS and OpenMP; None leaves them.

    Raises:
        RuntimeUnavailableError: the interpreter cannot be started.
    """

    def __init__(self, python: str, threads: int | None) -> None:
        self.process = launch(python, threads)
        self.peak_bytes = 0
        self._lock = threading.RLock()
        self._failure: RuntimeFailure | None = None
        self._hung_after_s: float | None = None
        self._hidden = {f"{self.process.scratch}{os.sep}": "", str(Path.home()): "~"}
        self._channel = Channel(self.process.replies, self.process.requests, _from_bits)
        self._end = weakref.finalize(self, self.process.kill)

    @property
    def alive(self) -> bool:
        """Whether the process can still answer."""
        return self._failure is None and not self.process.ended()

    def hide(self, folder: Path) -> None:
        """Leave `folder` out of every message."""
        self._hidden[f"{folder}{os.sep}"] = ""

    def greeting(self, time_limit_s: float) -> dict[str, Any]:
        """What the worker says of itself once it has started.

        Raises:
            RuntimeFailure: it did not start.
            RuntimeUnavailableError: it is some other program.
        """
        try:
            return self._checked(self._exchange(None, time_limit_s))[0]
        except (MemoryError, OverflowError, ValueError) as error:  # another program's words, read as a length
            raise RuntimeUnavailableError("it answers, but not as Python does with a worker's script") from error

    def call(self, request: Mapping[str, Any], time_limit_s: float, feeds: Mapping[str, Any] | None = None) -> Answer:
        """Send one request of `worker.py` and wait for its answer.

        Returns:
            The answer's header, and the values in it by name.

        Raises:
            InvalidInputError: a feed that is no tensor, sequence, map or None.
            InvalidArgumentError, RuntimeFailure: what the answer says, or that there was none.
        """
        encoder = Encoder()
        described = [[name, _describe(encoder, name, value)] for name, value in (feeds or {}).items()]
        return self._checked(self._exchange({**request, "feeds": described}, time_limit_s, encoder))

    def _checked(self, answer: Answer) -> Answer:
        error = answer[0].get("error")
        if error is not None:
            raise _FAILURES[error["kind"]](self._shorten(error["message"]))
        return answer

    def _exchange(self, request: dict[str, Any] | None, limit_s: float, encoder: Encoder | None = None) -> Answer:
        with self._lock:
            if self._failure is not None:
                raise type(self._failure)(f"the worker is gone: {self._failure}")
            try:
                if request is not None:
                    with self._watched(limit_s):
                        self._channel.send(request, encoder)
                return self._receive(limit_s)
            except (OSError, TruncatedFrameError):
                self._bury()
            except BaseException:  # Ctrl-C, or no memory for an output: the rest of the frame would be misread
                self._failure = CrashedError("given up in the middle of an answer")
                self._end()
                raise

    def _receive(self, limit_s: float) -> Answer:
        while True:
            with self._watched(limit_s):
                reply = self._channel.receive()
                values = {name: self._channel.value(spec) for name, spec in reply.get("outputs", ())}
            self.peak_bytes = max(self.peak_bytes, reply.pop("peak", 0))
            if "progress" not in reply:
                return reply, values

    @contextlib.contextmanager
    def _watched(self, limit_s: float) -> Iterator[None]:
        """Kill the worker if this takes longer than `limit_s`: whoever reads or writes then finds the pipe closed."""
        if math.isinf(limit_s):
            yield
            return
        watchdog = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), self._give_up, (limit_s,))
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
        if self._hung_after_s is not None:
            raise TruncatedFrameError("the worker was killed while it answered")

    def _give_up(self, limit_s: float) -> None:
        self._hung_after_s = limit_s
        self.process.signal()

    def _bury(self) -> NoReturn:
        """Say why the worker does not answer any more."""
        gone = self.process.wait(_CLOSE_LIMIT_S)
        self._end()
        if self._failure is not None:  # closed by another thread
            raise CrashedError(str(self._failure))
        if self._hung_after_s is not None:
            self._failure = HungError(f"no answer within {self._hung_after_s:g} s")
        else:
            how = describe_exit(self.process) if gone else "it closed its pipe and did not end"
            self._failure = CrashedError(self._shorten(how))
        raise self._failure

    def _shorten(self, message: str) -> str:
        """The first line of a message, without paths of this machine."""
        line = next((line for line in message.splitlines() if line.strip()), "").strip()
        for path in sorted(self._hidden, key=len, reverse=True):
            line = line.replace(path, self._hidden[path])
        for pattern, replacement in _FOREIGN:
            line = pattern.sub(replacement, line)
        return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + " …"

    def close(self) -> None:
        """End the process; safe to call twice, and from another thread than the one that waits for an answer."""
        if self._lock.acquire(blocking=False):
            try:
                self._ask_to_end()
            finally:
                self._lock.release()
        self._failure = self._failure or CrashedError("closed")
        self._end()

    def _ask_to_end(self) -> None:
        if not self.alive:
            return
        with contextlib.suppress(OSError, TruncatedFrameError), self._watched(_CLOSE_LIMIT_S):
            self._channel.send({"op": "end", "feeds": []})
            self._channel.receive()


def _describe(encoder: Encoder, name: str, value: Any) -> dict[str, Any]:
    try:
        return encoder.describe(value)
    except TypeError as error:
        raise InvalidInputError(f"input {name!r}: {error}") from error


def _from_bits(dtype: str, bits: np.ndarray) -> np.ndarray:
    return bits.view(np.dtype(getattr(ml_dtypes, dtype)))
