"""What is common to all contexts that use an interpreter other than the main one, one after the other.

An interpreter is kept when its context ends, since CPython leaks megabytes at the end of each, and a later
context gets it as if it were new: without the modules, the paths and the names of the one before.
"""

import gc
import sys
import threading

_modules: set[str] = set()
_path: list[str] = []
_main: dict[str, object] = {}


def remember():
    """Take the interpreter as it is for what :func:`reset` goes back to."""
    _modules.update(sys.modules)
    _path[:] = sys.path
    _main.update(vars(sys.modules["__main__"]))


def reset():
    """Make the interpreter as it was, and return whether another context may have it.

    Not where a thread still runs that a context has started. What is written in C stays in memory with the
    packages that use it, and so does the standard library: neither can be loaded a second time.
    """
    if any(_is_alive(thread) for thread in threading.enumerate()):
        return False
    if venv := sys.modules.get("erlang._venv"):
        venv.deactivate()
    for name in _strangers():
        sys.modules.pop(name, None)
    sys.path[:] = _path
    sys.path_importer_cache.clear()
    main = vars(sys.modules["__main__"])
    main.clear()
    main.update(_main)
    gc.collect()
    return True


def _is_alive(thread):
    """Whether a thread is neither Python's main one nor the native one of a context."""
    return thread is not threading.main_thread() and not isinstance(thread, threading._DummyThread)


def _strangers():
    """The modules that contexts have loaded and that can be loaded anew."""
    loaded = {name: module for name, module in sys.modules.items() if name not in _modules}
    kept = {_package(name) for name, module in loaded.items() if _is_native(module)} | sys.stdlib_module_names
    return [name for name in loaded if _package(name) not in kept]


def _package(name):
    return name.partition(".")[0]


def _is_native(module):
    spec = getattr(module, "__spec__", None)
    loader = getattr(spec, "loader", None)
    return type(loader).__name__ == "ExtensionFileLoader"
