"""What a context does before its first call or connection, besides the code that it is given."""

import importlib
import sys
from operator import attrgetter

import _causeway


def find(module, name):
    """Return what a dotted name in a module refers to; the module is imported."""
    return attrgetter(name)(importlib.import_module(module))


def use_factory(module, name):
    """Make the protocols of this context by what that name refers to."""
    _causeway.set_protocol_factory(find(module, name))


def load_app(module, name):
    """Import an application as ``_reactor_app`` of ``__main__``, and return it."""
    app = find(module, name)
    sys.modules["__main__"]._reactor_app = app
    return app
