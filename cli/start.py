"""The entry point of `onnx-arch`: Ctrl-C while the command frame itself is imported is one line as well."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command frame and run it (`main.main`)."""
    try:
        from .main import main as run  # noqa: PLC0415 - to be inside
    except KeyboardInterrupt:
        sys.stderr.write("onnx-arch: interrupted before anything was done\n")
        sys.exit(2)  # ExitStatus.COULD_NOT_RUN, which is not imported yet
    run()
