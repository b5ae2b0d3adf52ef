"""What a context does for the tasks that Erlang starts in its event loop."""

import asyncio
import socket
import sys
import threading
import time
import weakref
from asyncio import events, tasks

from erlang._loop import EventLoop

#: After how long, in seconds, others have their turn while a stream is read.
_TURN = 0.001


def background_loop():
    """A loop that the context's thread runs between calls."""
    loop = EventLoop()
    # It counts as running all the time: nobody else is to run it.
    loop._thread_id = threading.get_ident()
    loop._adopted = weakref.WeakSet()
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
        for transport in list(loop._adopted):
            transport.abort()
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


def produce(loop, factory):
    """What a factory makes while the loop runs."""
    before = events._get_running_loop()
    events._set_running_loop(loop)
    try:
        return factory()
    finally:
        events._set_running_loop(before)


def adopt(loop, fd, protocol, client_info, data, place):
    """Serve a descriptor that a reactor was handed by a protocol of asyncio.

    ``data`` was read from it before; ``place`` is called when the connection is over. What the reactor was
    told of it is ``get_extra_info("client_info")`` of the transport. Where this raises, the descriptor stays
    the reactor's.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        raise TypeError(f"an asyncio protocol serves sockets, not the descriptor {fd}") from None
    try:
        sock.setblocking(False)
        transport = _transport(loop, sock, protocol, {"client_info": client_info}, _Place(place))
    except BaseException:
        sock.detach()
        raise
    if data:
        transport._hold(bytes(data))
    loop._adopted.add(transport)


def _transport(loop, sock, protocol, extra, place):
    if sock.type == socket.SOCK_STREAM and isinstance(protocol, (asyncio.Protocol, asyncio.BufferedProtocol)):
        return loop._make_socket_transport(sock, protocol, extra=extra, server=place)
    if sock.type == socket.SOCK_DGRAM and isinstance(protocol, asyncio.DatagramProtocol):
        transport = loop._make_datagram_transport(sock, protocol, extra=extra)
        transport._server = place
        return transport
    raise TypeError(
        f"a protocol of the type {type(protocol).__name__} does not serve a socket of the {sock.type!r}"
    )


class _Place:
    """The place of a connection in its reactor, as what transports know as their server."""

    def __init__(self, give_back):
        self._give_back = give_back

    def _attach(self, *transport):
        pass

    def _detach(self, *transport):
        self._give_back()


def drain(loop):
    """Close adopted connections when they have written what they have to."""
    for transport in list(loop._adopted):
        transport.close()


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
