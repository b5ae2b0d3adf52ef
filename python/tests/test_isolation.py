"""Interpreters that go from one context to the next."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["typing.io"] = type("typing.io", (), {})
from erlang import _isolation
_isolation.remember()
import erlang.packetstream
assert _isolation.reset()
assert "erlang.packetstream" not in sys.modules
assert "typing.io" in sys.modules
"""


def test_a_class_among_the_modules():
    """Python 3.11 and 3.12 have `typing.io`."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=30)
