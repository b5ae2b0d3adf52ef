"""What Erlang asks about the memory and the modules of this interpreter. Imported by the first question."""

import gc
import importlib
import os
import sys

import _causeway


def memory_stats():
    """Return what is known of memory, as a dict whose keys become atoms.

    Sizes are in bytes. ``referenced_bytes`` is what ``sys.getsizeof`` says of the objects that Erlang
    refers to, each once and without what they refer to themselves. ``traced_memory_current`` and
    ``traced_memory_peak`` are there while tracemalloc traces.
    """
    references, objects, namespaces = _causeway._held()
    stats = {
        "gc_count": gc.get_count(),
        "gc_threshold": gc.get_threshold(),
        "gc_stats": [_with_atoms(generation) for generation in gc.get_stats()],
        "allocated_blocks": sys.getallocatedblocks(),
        "resident_bytes": _resident_bytes(),
        "references": references,
        "referenced_bytes": sum(map(_size, objects)),
        "namespaces": namespaces,
        "tracing": False,
    }
    tracemalloc = _tracemalloc()
    if tracemalloc is not None and tracemalloc.is_tracing():
        stats["tracing"] = True
        stats["traced_memory_current"], stats["traced_memory_peak"] = tracemalloc.get_traced_memory()
    return _with_atoms(stats)


def _tracemalloc():
    """The module, or None in an interpreter with a lock of its own, for which it is not made."""
    try:
        import tracemalloc
    except ImportError:
        return None
    return tracemalloc


def tracemalloc_top(number):
    """Return the lines whose memory is largest, the largest first, as dicts with ``file``, ``line``, ``size``
    in bytes, and ``count`` of blocks.

    Raises RuntimeError while nothing is traced, ImportError in an interpreter with a lock of its own.
    """
    import tracemalloc

    if not tracemalloc.is_tracing():
        raise RuntimeError("memory is not traced: py:tracemalloc_start() begins with it")
    snapshot = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__)]
    )
    return [
        _with_atoms(
            {
                "file": statistic.traceback[0].filename,
                "line": statistic.traceback[0].lineno,
                "size": statistic.size,
                "count": statistic.count,
            }
        )
        for statistic in snapshot.statistics("lineno")[:number]
    ]


def reload(name):
    """Run the code of an imported module again, as it is on disk now.

    Raises ImportError for a module that is not imported, and whatever its code raises.
    """
    module = sys.modules.get(name)
    if module is None:
        raise ImportError(
            f"the module {name!r} is not imported: the next call into it imports it as it is then",
            name=name,
        )
    importlib.invalidate_caches()
    importlib.reload(module)


def _with_atoms(values):
    return {_causeway.Atom(key): value for key, value in values.items()}


def _size(value):
    try:
        return sys.getsizeof(value)
    except Exception:  # whatever somebody's __sizeof__ raises
        return 0


def _resident_bytes():
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
