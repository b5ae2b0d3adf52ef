"""What an embedded interpreter does first. Never imported by a plain python3."""

import sys

# Imported on Python's main thread: threading takes whoever imports it for that.
import threading  # noqa: F401
import time

import _causeway
import erlang
import erlang.reactor  # noqa: F401
from erlang import _isolation, _log, _output, _safety

sys.argv = [""]
time.sleep = _causeway._sleep
_output.install()
_log.install()
_safety.install()
_isolation.remember()
