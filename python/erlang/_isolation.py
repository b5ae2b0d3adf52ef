"""What is common to all contexts that use an interpreter other than the main one, one after the other.

An interpreter is kept when its context ends, since CPython leaks megabytes at the end of each, and a later
context gets it as if it were new: without the modules, the paths and the names of the one before.
"""

import _thread
import builtins
import gc
import sys
import threading
import time
import warnings
from types import ModuleType

from erlang import _log

_modules: dict[str, ModuleType] = {}
_namespaces: dict[str, dict[str, object]] = {}
_builtins: dict[str, object] = {}
_lists: list[tuple[list, list]] = []
_recursion_limit = sys.getrecursionlimit()
#: For how many seconds threads are waited for that may be about to end.
_PATIENCE = 0.2


def remember():
    """Take the interpreter as it is for what :func:`reset` goes back to."""
    _modules.update((name, module) for name, module in sys.modules.items() if module is not None)
    # `typing.io` of Python 3.11 and 3.12 is a class.
    _namespaces.update(
        (name, dict(vars(module))) for name, module in _modules.items() if isinstance(module, ModuleType)
    )
    _builtins.update(vars(builtins))
    changing = [sys.path, sys.meta_path, sys.path_hooks, sys.argv, sys.warnoptions, warnings.filters]
    _lists.extend((one, one[:]) for one in changing)


def reset():
    """Make the interpreter as it was, and return whether another context may have it.

    Not where a thread still runs that a context has started. What is written in C stays in memory with the
    packages that use it, and so does the standard library: neither can be loaded a second time.
    """
    vars(builtins).update(_builtins)
    if (packets := sys.modules.get("erlang.packetstream._connection")) and not packets.abort_all():
        return False
    if _thread._count() and not _threads_end():
        return False
    if venv := sys.modules.get("erlang._venv"):
        venv.deactivate()
    vars(sys).update(_namespaces["sys"])
    sys.modules.update(_modules)
    for name in _strangers():
        sys.modules.pop(name, None)
    for name, content in _namespaces.items():
        _restore(name, vars(_modules[name]), content)
    for one, content in _lists:
        one[:] = content
    if hasattr(warnings, "_filters_mutated"):
        warnings._filters_mutated()
    sys.path_importer_cache.clear()
    sys.setrecursionlimit(_recursion_limit)
    if logging := sys.modules.get("logging"):
        _log.reset(logging)
    threading._active.pop(_thread.get_ident(), None)
    gc.enable()
    gc.collect()
    # What was collected may have started one.
    return not _thread._count()


def _threads_end():
    """Whether the threads that a context has started end now.

    Those of executors do when nobody has these any more, as of event loops that are closed.
    """
    # Also where one stays: nobody collects garbage in this interpreter later.
    gc.collect()
    end = time.monotonic() + _PATIENCE
    own = (threading.main_thread(), threading.current_thread())
    for thread in threading.enumerate():
        # Others than `threading` has started are not known to it.
        if thread not in own and not isinstance(thread, threading._DummyThread):
            thread.join(max(0, end - time.monotonic()))
    return not _thread._count()


def _restore(module, namespace, content):
    # A submodule that stays is an attribute of its package.
    for name in [name for name in namespace.keys() - content.keys() if f"{module}.{name}" not in sys.modules]:
        del namespace[name]
    namespace.update(content)


def _strangers():
    """The modules that contexts have loaded and that can be loaded anew."""
    loaded = {name: module for name, module in sys.modules.items() if name not in _modules}
    kept = {_package(name) for name, module in loaded.items() if _is_native(module)} | sys.stdlib_module_names
    return [
        name
        for name, module in loaded.items()
        if module is not None and (_package(name) not in kept or _spec(module) is None)
    ]


def _package(name):
    return name.partition(".")[0]


def _is_native(module):
    return type(getattr(_spec(module), "loader", None)).__name__ == "ExtensionFileLoader"


def _spec(module):
    return getattr(module, "__spec__", None)
