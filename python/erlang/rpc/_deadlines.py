"""What ends calls whose time is over in a plain python3: one thread, as long as there are such."""

import heapq
import itertools
import threading
import time
import weakref

_changed = threading.Condition()
_heap: list[tuple[float, int, weakref.ref, float]] = []
_count = itertools.count()
_thread = None


def start(stream, seconds):
    """Abort a stream after so many seconds, unless it is over by then or nobody has it any more."""
    global _thread
    with _changed:
        heapq.heappush(_heap, (time.monotonic() + seconds, next(_count), weakref.ref(stream), seconds))
        if _thread is None:
            _thread = threading.Thread(target=_run, name="rpc-deadlines", daemon=True)
            _thread.start()
        _changed.notify()


def _run():
    global _thread
    while True:
        with _changed:
            _drop_finished()
            if not _heap:
                _thread = None
                return
            left = _heap[0][0] - time.monotonic()
            if left > 0:
                # Now and then those whose calls are over are let go of.
                _changed.wait(min(left, 1.0))
                continue
            _, _, reference, seconds = heapq.heappop(_heap)
        stream = reference()
        if stream is not None and not stream.over:
            stream.abort("deadline_exceeded", f"the call was not over after {round(seconds * 1000)} ms")
        del stream


def _drop_finished():
    while _heap:
        stream = _heap[0][2]()
        if stream is not None and not stream.over:
            return
        heapq.heappop(_heap)
