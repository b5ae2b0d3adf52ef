"""The threads in which functions serve calls: as many at once as there is use for.

Who waits for a stream does not count meanwhile. So calls that wait for each other come to an end, and who is
read slowly keeps nobody else from being served.
"""

import collections
import contextlib
import os
import threading

import _causeway

_lock = threading.Lock()
_waiting: collections.deque = collections.deque()
# How many functions run, and in how many threads, with those that wait.
_running = _threads = 0
_most = min(32, (os.cpu_count() or 1) + 4)
_mine = threading.local()


def set_most(number):
    """Let so many run at once; those that run go on."""
    global _most
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"max_workers must be an int, not {type(number).__name__}")
    if number < 1:
        raise ValueError(f"max_workers must be 1 or more, not {number}")
    with _lock:
        _most = number
        started = _take()
    _start(started)


def run(name, function, *arguments):
    """Run a function in a thread, now or as soon as one of those that run ends or waits."""
    with _lock:
        _waiting.append((name, function, arguments))
        started = _take()
    _start(started)


def begin_wait():
    """This thread waits from now on. Whether it serves a call: then `end_wait` is to be called."""
    global _running
    if not getattr(_mine, "serves", False):
        return False
    with _lock:
        _running -= 1
        started = _take()
    _start(started)
    return True


def end_wait():
    """It goes on, at once: it has its thread already."""
    global _running
    with _lock:
        _running += 1


@contextlib.contextmanager
def waiting():
    """Wait for something that may need others to be served."""
    serves = begin_wait()
    try:
        yield
    finally:
        if serves:
            end_wait()


def _take():
    """Those for which there is room, which count from now on. With the lock."""
    global _running, _threads
    taken = []
    while _waiting and _running < _most:
        _running += 1
        _threads += 1
        taken.append(_waiting.popleft())
    return taken


def _start(taken):
    global _running, _threads
    for place, job in enumerate(taken):
        try:
            # Inside the BEAM interpreters never end, and those with a GIL of their own have no daemons.
            threading.Thread(
                target=_serve, args=job, name=f"rpc-{job[0]}", daemon=not _causeway.in_beam()
            ).start()
        except RuntimeError:
            with _lock:
                left = taken[place:]
                _running -= len(left)
                _threads -= len(left)
                if _threads == 0:
                    raise
                # No more threads can be made now: those that there are take them.
                _waiting.extendleft(reversed(left))
            return


def _serve(_name, function, arguments):
    """Run one after the other until there is no use for the thread."""
    global _running, _threads
    _mine.serves = True
    while True:
        function(*arguments)
        del arguments
        with _lock:
            if not _waiting or _running > _most:
                _running -= 1
                _threads -= 1
                return
            _, function, arguments = _waiting.popleft()
