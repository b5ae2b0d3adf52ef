"""The time of copying memory, the yardstick for binaries. The port peer calls it."""

import ctypes
from time import perf_counter_ns


def memmove(size: int, milliseconds: int) -> float:
    """Microseconds of one C memmove between two buffers that are in memory and in the caches.

    This is the strictest of the honest yardsticks: no allocation, no page faults, both buffers as
    warm as a binary that is sent again and again. What ctypes itself costs is taken off.
    """
    source = ctypes.create_string_buffer(b"x" * size, size)
    target = ctypes.create_string_buffer(size)
    copying = _time(lambda: ctypes.memmove(target, source, size), milliseconds)
    calling = _time(lambda: ctypes.memmove(target, source, 0), max(1, milliseconds // 10))
    return copying - calling


def new_bytes(size: int, milliseconds: int) -> float:
    """Microseconds of a copy into a new object, bytes(bytearray): shown beside, for comparison."""
    source = bytearray(b"x" * size)
    return _time(lambda: bytes(source), milliseconds)


def _time(call, milliseconds: int) -> float:
    count = 0
    start = now = perf_counter_ns()
    deadline = start + milliseconds * 1_000_000
    while now < deadline:
        for _ in range(10):
            call()
        count += 10
        now = perf_counter_ns()
    return (now - start) / count / 1000
