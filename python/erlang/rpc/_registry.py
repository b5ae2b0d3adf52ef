"""The names that this interpreter serves."""

_handlers: dict = {}


def add(handler):
    """Serve a name, in the place of what served it before."""
    _handlers[handler.name] = handler


def remove(name):
    """Serve it no longer. Whether it was served."""
    return _handlers.pop(name, None) is not None


def find(name):
    """The handler of a name, or None."""
    return _handlers.get(name)


def names():
    """The names, with their modes."""
    return [(handler.name, handler.mode) for handler in _handlers.values()]
