"""What Tests/Preload/preload.c offers, in a process that has loaded it first."""

import ctypes
import errno

RECV, SEND, RECVFROM, SENDTO, WATCH = range(5)
_library = ctypes.CDLL(None)
_library.preload_allocations.restype = ctypes.c_long
_library.preload_vain_closes.restype = ctypes.c_long
_library.preload_seen.restype = ctypes.c_long
_library.preload_fail.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def allocations():
    """Calls of malloc and the like on this thread so far."""
    return _library.preload_allocations()


def vain_closes():
    """How often this process has closed what was not open."""
    return _library.preload_vain_closes()


def fail(call, fd, error, times):
    """Have a call of the kernel fail for a descriptor, so many times; -1: until stop_failing()."""
    _library.preload_fail(globals()[call], fd, getattr(errno, error), times)


def stop_failing(call, fd):
    _library.preload_fail(globals()[call], fd, 0, 0)


def reset():
    for call in range(5):
        _library.preload_fail(call, -1, 0, 0)


def seen(call):
    """How often that call was tried since fail()."""
    return _library.preload_seen(globals()[call])
