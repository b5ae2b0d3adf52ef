"""The event loop on which coroutines serve calls: it runs as long as one does."""

import threading

import _causeway

_lock = threading.Lock()
_loop = None
_tasks = 0


def run_in_loop(function, *arguments):
    """Run a coroutine function on the loop, from any thread."""
    import asyncio

    global _loop, _tasks
    with _lock:
        _tasks += 1
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(
                target=_run, args=(_loop,), name="rpc-loop", daemon=not _causeway.in_beam()
            ).start()
        _loop.call_soon_threadsafe(_start, function, arguments)


_running: set[object] = set()


def _start(function, arguments):
    import asyncio

    task = asyncio.get_running_loop().create_task(function(*arguments))
    # The loop itself does not keep it.
    _running.add(task)
    task.add_done_callback(_ended)


def _ended(task):
    import asyncio

    global _loop, _tasks
    _running.discard(task)
    with _lock:
        _tasks -= 1
        if _tasks == 0:
            asyncio.get_running_loop().stop()
            _loop = None


def _run(loop):
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
