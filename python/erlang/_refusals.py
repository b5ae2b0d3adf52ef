"""Extension modules of Python 3.12 that must be in the main interpreter before there are others.

There they are refused with an ImportError, and most have a substitute in Python that is taken instead.
"""

import contextlib
import importlib

_NAMES = [
    "_ctypes",
    "_curses",
    "_curses_panel",
    "_datetime",
    "_decimal",
    "_elementtree",
    "_lsprof",
    "pyexpat",
]


def load():
    """Load those that this Python has. Any time after the first it does nothing."""
    for name in _NAMES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
