"""One half of a streaming call, as programs have it."""

import _causeway

from .. import cbor
from .._waits import outcome
from . import _pool
from ._errors import RpcError, of_reason

WINDOW = 262144
_END = object()
_EMPTY = object()
_RECEIVE, _SEND, _REPLY = range(3)


class Stream:
    """One half of a streaming call: chunks in both directions, each with an end of its own, and one reply.

    Chunks are bytes, or other values, which cross as Erlang's terms inside the node and as CBOR elsewhere.
    Any number of threads and asyncio tasks may use it at once. Who sends waits while the other side does not
    take what was sent before: a window of bytes lies between them.

    Iterating, with ``for`` or ``async for``, receives until the other half sends nothing more. Leaving a
    ``with`` or ``async with`` cancels what is not over by then, and so does losing the last reference.

    Where the call fails, chunks that came before are received first; then every method that needs the other
    half raises :class:`RpcError` with the same code and message.
    """

    def __init__(self, half, link=None):
        self._half = half
        self._link = link
        self._aborted = None

    # --- sending ------------------------------------------------------------------------------

    def send(self, chunk, timeout=None):
        """Send a chunk, and wait for room, without the GIL, at most so many seconds.

        Raises TimeoutError, after which nothing was sent, RpcError where nothing is sent any more, and
        ValueError or TypeError for what has no form on the other side.
        """
        if self._half.send(chunk, -1 if timeout is None else round(timeout * 1000)) is not True:
            raise self._unsendable()

    async def async_send(self, chunk):
        """The same without blocking the event loop. A task that is cancelled has not sent it."""
        try:
            sent = self._half.send(chunk, 0)
        except TimeoutError:
            sent = await outcome(self._begin, _SEND, chunk)
            self._half.pass_on()
        if not sent:
            raise self._unsendable()

    def close_send(self):
        """Send nothing more: the other half receives what was sent, and then its end. Returns at once."""
        self._half.end("send")

    def _unsendable(self):
        reply = self._half.reply(0)
        if isinstance(reply, tuple) and reply[0] == "error" and self._half.info()["closed_recv"]:
            return of_reason(reply)
        return RpcError("send_closed")

    # --- receiving ----------------------------------------------------------------------------

    def receive(self, timeout=None):
        """Wait for the next chunk, without the GIL, at most so many seconds.

        Raises EOFError at the end, TimeoutError, RpcError.
        """
        chunk = self._half.receive(-1 if timeout is None else round(timeout * 1000), _END)
        if chunk is _END:
            raise EOFError("the other half sends nothing more")
        return chunk

    def receive_many(self, max_bytes=1 << 20, timeout=None):
        """Wait for the next chunk, and return a list of it and of those that are there, up to ``max_bytes``.

        The list is empty at the end. Raises TimeoutError, RpcError.
        """
        return self._half.receive_many(max_bytes, -1 if timeout is None else round(timeout * 1000))

    async def async_receive(self):
        """As :meth:`receive`, without blocking the event loop. A task that is cancelled takes none."""
        chunk = self._half.try_receive(_EMPTY, _END)
        if chunk is _EMPTY:
            received = await outcome(self._begin, _RECEIVE)
            chunk, weight = received or (_END, 0)
            self._half.took(weight)
        if chunk is _END:
            raise EOFError("the other half sends nothing more")
        return chunk

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._half)

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await self.async_receive()
        except EOFError:
            raise StopAsyncIteration from None

    # --- the reply ----------------------------------------------------------------------------

    def reply(self, timeout=None):
        """Wait for the reply, without the GIL, at most so many seconds. Any number of times.

        Raises RpcError where it is an error or none will come, TimeoutError.
        """
        reply = self._half.reply(-1 if timeout is None else round(timeout * 1000))
        if reply is None:
            raise TimeoutError(f"no reply within {timeout} s")
        return _value(reply)

    async def async_reply(self):
        """The same without blocking the event loop."""
        reply = self._half.reply(0)
        if reply is None:
            reply = await outcome(self._begin, _REPLY)
        return _value(reply)

    def set_reply(self, value):
        """Give the reply. Only the first counts; it ends nothing. Returns at once.

        Raises ValueError or TypeError for what has no form on the other side.
        """
        self._set_reply(value, {"result": value}, "ok")

    def set_error(self, code, message=""):
        """Give an error as the reply."""
        self._set_reply((code, message), {"error": {"code": code, "message": message}}, "error")

    def _set_reply(self, value, body, kind):
        kind = _causeway.Atom(kind) if _causeway.in_beam() else kind
        # On the wire it is CBOR, which is made where a mistake can be told.
        reply = (kind, value) if _causeway.in_beam() else (kind, value, cbor.dumps(body))
        self._half.set_reply(reply)
        if self._link is not None:
            self._link.replied(self)

    # --- the end ------------------------------------------------------------------------------

    def close(self):
        """End both directions. What was sent is still received. Returns at once."""
        if self._link is not None:
            self._link.ending(self, "both")
        self._half.end("close")

    def abort(self, code, message=""):
        """End the call with an error: both halves raise it from now on."""
        self._aborted = (code, message)
        if self._link is not None:
            self._link.ending(self, (code, message))
        kind = _causeway.Atom("error") if _causeway.in_beam() else "error"
        self._half.end("abort", (kind, (code, message)))

    def cancel(self):
        """Give the call up: :meth:`abort` with the code ``cancelled``, unless it is over."""
        if not self._half.over:
            self.abort("cancelled", "the call was cancelled")

    @property
    def over(self):
        """Whether nothing can happen any more: both directions have ended, what came was taken."""
        return self._half.over

    def info(self):
        """How it stands, as a dict, as ``causeway_rpc_stream:info/1`` of Erlang has it."""
        return self._half.info()

    def _begin(self, bell, key, goal, data=None):
        waiter = self._half._wait(bell, key, goal, data)
        return _Failed if waiter is None else waiter

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.cancel()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_exception):
        self.cancel()

    def __del__(self):
        half = getattr(self, "_half", None)
        if half is not None and not half.over:
            self.cancel()


class _Failed:
    """A wait to send where nothing is sent any more."""

    settled = True

    @staticmethod
    def finish():
        return False

    @staticmethod
    def cancel():
        pass


def _value(reply):
    if isinstance(reply, str):
        raise RpcError(reply)
    if reply[0] == "ok":
        return reply[1]
    raise of_reason(reply)


def _of_cbor(body):
    """A reply that has come."""
    content = cbor.loads(body)
    error = content.get("error")
    if error is not None:
        return "error", error
    return "ok", content.get("result")


_causeway._register_rpc(of_reason, _of_cbor, _pool.begin_wait, _pool.end_wait)
