"""What a context does for the tasks that Erlang starts in its event loop."""

import asyncio
import sys
import threading
import time
from asyncio import events, tasks

from erlang._loop import EventLoop

#: After how long, in seconds, others have their turn while a stream is read.
_TURN = 0.001


def background_loop():
    """A loop that the context's thread runs between calls."""
    loop = EventLoop()
    # It counts as running all the time: nobody else is to run it.
    loop._thread_id = threading.get_ident()
    sys.set_asyncgen_hooks(firstiter=loop._asyncgen_firstiter_hook, finalizer=loop._asyncgen_finalizer_hook)
    return loop


def ensure_future(awaitable, loop):
    """A task of anything that can be awaited."""
    return asyncio.ensure_future(awaitable, loop=loop)


def report_end(loop, exception):
    """A callback has raised what would end a program."""
    message = "a callback wanted to end the event loop, which belongs to no call"
    loop.call_exception_handler({"message": message, "exception": exception})


def end(loop):
    """Cancel all tasks of a loop, let them tidy up, and close it."""
    loop._thread_id = None
    try:
        left = tasks.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(tasks.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        events._set_running_loop(None)
        sys.set_asyncgen_hooks(None, None)
        loop.close()


async def collect(iterator):
    """All that an asynchronous iterator yields."""
    items = []
    while True:
        try:
            items.append(await iterator.__anext__())
        except StopAsyncIteration:
            return items


async def pull(iterator, count, emit):
    """Emit up to ``count`` items of an asynchronous iterator: how many, and whether there may be more."""
    sent = 0
    end_of_turn = time.monotonic() + _TURN
    while sent < count and (not sent or time.monotonic() < end_of_turn):
        try:
            item = await iterator.__anext__()
        except StopAsyncIteration:
            return sent, False
        if not emit(item):
            break
        sent += 1
    return sent, True
