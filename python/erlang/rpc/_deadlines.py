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
# How many there are when those are looked for whose calls are over.
_sweep_at = 1000


def start(stream, seconds):
    """Abort a stream after so many seconds, unless it is over by then or nobody has it any more."""
    global _thread, _sweep_at
    with _changed:
        if len(_heap) >= _sweep_at:
            _heap[:] = filter(_is_open, _heap)
            heapq.heapify(_heap)
            _sweep_at = max(1000, 2 * len(_heap))
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
    while _heap and not _is_open(_heap[0]):
        heapq.heappop(_heap)


def _is_open(entry):
    stream = entry[2]()
    return stream is not None and not stream.over
