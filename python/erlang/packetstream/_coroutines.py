"""Handlers that are coroutine functions: the core hands over lists of requests, and is told the answers
later.
"""

import inspect
import logging
import sys
import threading

_log = logging.getLogger("erlang.packetstream")


def is_coroutine_handler(handler):
    """Whether calling it makes a coroutine."""
    return any(map(inspect.iscoroutinefunction, (handler, type(handler).__call__)))


class Coroutines:
    """An event loop for handlers: a given one, the one that runs here, or one in a thread of its own."""

    def __init__(self, loop):
        import asyncio  # a megabyte in every interpreter: only who uses it pays for it

        self._tasks = set()
        self._thread = None
        if loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(loop,), name="packetstream-loop", daemon=True
                )
                self._thread.start()
        self._loop = loop

    def _run(self, loop):
        try:
            loop.run_forever()
        finally:
            loop.close()

    def handler(self, link, function):
        """What takes a list of requests, from any thread."""

        def handle(requests):
            self._loop.call_soon_threadsafe(begin, requests)

        def begin(requests):
            for request in requests:
                task = self._loop.create_task(answer(*request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        async def answer(token, rq_type, flags, payload):
            try:
                result = await function(rq_type, flags, payload)
            except BaseException as error:
                _log.error("exception during handler", exc_info=error)
                link.refuse(token)
                if not isinstance(error, Exception):
                    raise
            else:
                link.answer(token, result)

        return handle

    def end(self):
        """The connection is over: what still runs is cancelled."""

        def cancel():
            for task in list(self._tasks):
                task.cancel()
            if self._thread is not None:
                # After the tasks have seen it.
                self._loop.call_soon(self._loop.stop)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(cancel)
        # When Python has ended the thread is stopped where it is.
        is_waited_for = self._thread is not threading.current_thread() and not sys.is_finalizing()
        if self._thread is not None and is_waited_for:
            self._thread.join(1)
