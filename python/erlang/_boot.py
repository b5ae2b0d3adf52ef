"""What the embedded interpreter does first. Never imported by a plain python3."""

import sys

# Imported on Python's main thread: threading takes whoever imports it for that.
import threading  # noqa: F401
import time

import _causeway
import erlang
import erlang.reactor  # noqa: F401
from erlang import _isolation


def _flush_lines(stream):
    """Show what is printed when the line ends: nobody flushes at exit here, and logs are pipes."""
    if stream is not None and hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True)


sys.argv = [""]
time.sleep = _causeway._sleep
_flush_lines(sys.stdout)
_flush_lines(sys.stderr)
_isolation.remember()
