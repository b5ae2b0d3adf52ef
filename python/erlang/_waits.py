"""How tasks wait for what threads of the core do."""

import itertools
import weakref

import _causeway

# One bell for each event loop, which keeps it as long as it is open: it watches the bell's eventfd. The bell
# keeps no loop alive.
_bells: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_keys = itertools.count()


class _Bell:
    """By which other threads tell an event loop that waits are over: an eventfd that the loop watches."""

    def __init__(self, loop):
        self.waits = {}
        self.native = _causeway._LoopBell()
        loop.add_reader(self.native.fileno(), self._rung)

    def _rung(self):
        for key in self.native.drain():
            _, future = self.waits.get(key, (None, None))
            if future is not None and not future.done():
                future.set_result(None)

    def __del__(self):
        # The loop is closed. Its tasks go on no more, even where somebody still refers to them.
        for waiter, _ in self.waits.values():
            waiter.cancel()


async def outcome(begin, *arguments):
    """What a wait brings. Where the task is cancelled meanwhile, nobody waits any more.

    It must not refer to the bell while it waits: only the loop does.
    """
    import asyncio  # a megabyte in every interpreter: only who uses it pays for it

    loop = asyncio.get_running_loop()
    reference = _bells.get(loop)
    bell = reference and reference()
    if bell is None:
        bell = _Bell(loop)
        _bells[loop] = weakref.ref(bell)
    key = next(_keys)
    waiter = begin(bell.native, key, *arguments)
    waits = bell.waits
    del bell
    try:
        if not waiter.settled:
            future = loop.create_future()
            # The bell may have rung before there was a future: this thread answers it, but only later.
            waits[key] = (waiter, future)
            await future
        return waiter.finish()
    finally:
        waits.pop(key, None)
        waiter.cancel()
        # The traceback of an exception refers to them, by way of this frame, and they to it.
        waiter = future = None
