"""Functions that serve calls, and how they are run."""

import inspect
import logging

from . import _pool
from ._errors import RpcError, of_exception
from ._loop import run_in_loop

MODES = ("server_stream", "client_stream", "bidi")
_log = logging.getLogger("erlang.rpc")


def _nothing():
    pass


def check_mode(mode):
    """Raise what is wrong with a mode."""
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")


class Handler:
    """A function that serves a name in a mode."""

    def __init__(self, name, mode, function):
        check_mode(mode)
        if not callable(function):
            raise TypeError(f"a handler is a function, not {type(function).__name__}")
        self.name = name
        self.mode = mode
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self._parameters = _parameters(function)

    @property
    def is_plain(self):
        """Whether it only makes a reply of its arguments, in whatever thread calls it."""
        return not (
            self.is_async or self.mode != "server_stream" or inspect.isgeneratorfunction(self.function)
        )

    def start(self, stream, args, ended=_nothing):
        """Have it serve a call, in a task of its own, or in a thread as soon as there is one for it.

        ``ended`` is called when it has.
        """
        if self.is_async:
            run_in_loop(self._serve_async, stream, args, ended)
        else:
            _pool.run(self.name, self._run_later, stream, args, ended)

    def _run_later(self, stream, args, ended):
        try:
            # Where the caller has given up meanwhile nothing is done.
            if not stream.over:
                self.run(stream, args)
        finally:
            ended()

    def run(self, stream, args):
        """Serve a call in this thread."""
        try:
            made = self._call(stream, args)
            if inspect.isgenerator(made):
                made = _send_items(stream, made)
            if inspect.isawaitable(made) or inspect.isasyncgen(made):
                raise TypeError(
                    f"the handler of {self.name!r} must be an async def itself to return {made!r}"
                )
            stream.set_reply(made)
        except BaseException as error:
            self._failed(stream, error)
        else:
            stream.close()

    async def _serve_async(self, stream, args, ended):
        import asyncio

        serving = asyncio.ensure_future(self._run_async(stream, args))
        # Where the other half is gone or has given up, nobody waits for what is still done.
        watching = asyncio.ensure_future(_until_given_up(stream))
        try:
            await asyncio.wait((serving, watching), return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            await serving
        except asyncio.CancelledError:
            stream.cancel()
        except BaseException as error:
            self._failed(stream, error)
        else:
            stream.close()
        finally:
            watching.cancel()
            ended()

    async def _run_async(self, stream, args):
        made = self._call(stream, args)
        if inspect.isasyncgen(made):
            async for item in made:
                await stream.async_send(item)
            made = None
        elif inspect.isawaitable(made):
            made = await made
        stream.set_reply(made)

    def _call(self, stream, args):
        given = (args,) if self.mode == "server_stream" else (stream, args)
        return self.function(*given[: self._parameters])

    def _failed(self, stream, error):
        # One that has come from the stream itself is known to both sides.
        if not (isinstance(error, RpcError) and stream._half.info()["closed_send"]):
            _log.error("the handler of the streaming call %r has failed", self.name, exc_info=error)
        stream.abort(*of_exception(error))


def _send_items(stream, generator):
    try:
        while True:
            try:
                item = next(generator)
            except StopIteration as end:
                return end.value
            stream.send(item)
    finally:
        generator.close()


async def _until_given_up(stream):
    try:
        await stream.async_reply()
    except RpcError:
        return
    # A reply of its own is no reason to stop.
    import asyncio

    await asyncio.get_running_loop().create_future()


def _parameters(function):
    """How many arguments it takes by place."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return 2
    return sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)
