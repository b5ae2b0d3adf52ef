"""Streaming calls by name: one call, many chunks, in either direction, and a reply.

    from erlang import rpc

    @rpc.advertise("tokens")
    def tokens(prompt):
        for word in prompt.split():
            yield word.encode()

    for chunk in rpc.call_stream("tokens", "so it goes"):
        ...

Inside the BEAM, names are those of ``causeway_rpc``: served by this node, in either language, or by nodes
that are connected. In a plain ``python3`` they are those of this process, and of the other end of a
connection: ``rpc.connect(("127.0.0.1", 5000))`` or ``rpc.listen``.
"""

import _causeway

from . import _connection, _deadlines, _pool, _registry
from ._connection import Connection, Listener
from ._errors import RpcError
from ._handlers import Handler, check_mode
from ._stream import WINDOW, Stream

__all__ = [
    "Connection",
    "Listener",
    "RpcError",
    "Stream",
    "advertise",
    "async_call",
    "async_open_stream",
    "call",
    "call_stream",
    "connect",
    "list_advertised",
    "listen",
    "open_stream",
    "set_max_workers",
    "unadvertise",
]


def advertise(name, function=None, *, mode="server_stream"):
    """Serve a name by a function, as a decorator or at once. Returns the function.

    With the mode ``server_stream`` it is called with the arguments of the call; with ``client_stream`` and
    ``bidi`` with a :class:`Stream` first, from which it receives, and to which it may send. It is given as
    many as it has parameters. What a generator or async generator yields is sent; what a function, a
    generator or a coroutine returns is the reply, and the stream is closed.

    Functions run in threads, as many at once as :func:`set_max_workers` allows, coroutines in one event loop
    that they share. An exception ends the call with its class's name as the code and its text as the message;
    the traceback is logged. Where the other side has gone or given up, the next use of the stream raises
    :class:`RpcError`, and a coroutine is cancelled.

    A name is a str, or what else can be a key of a dict; what served it here before serves it no more. Raises
    TypeError for what is no function, ValueError for another mode.
    """
    if function is None:
        check_mode(mode)
        return lambda function: advertise(name, function, mode=mode)
    handler = Handler(name, mode, function)
    if _causeway.in_beam():
        _node().advertise(handler)
    else:
        _registry.add(handler)
    return function


def unadvertise(name):
    """Serve a name no longer. Calls that run go on. One that is not served is no error."""
    if _causeway.in_beam():
        _node().unadvertise(name)
    else:
        _registry.remove(name)


def set_max_workers(number):
    """Have so many functions serve calls at once in this interpreter; other calls wait until one ends.

    Without it that is 4 more than there are processors, but 32 at most. One that waits for a stream, or for
    the reply of another call, does not count meanwhile: calls that need each other come to an end, and a
    slow reader keeps nobody else from being served. Raises ValueError, TypeError.
    """
    _pool.set_most(number)


def list_advertised():
    """What is served here, as a list of names and modes."""
    return [tuple(each) for each in _node().names()] if _causeway.in_beam() else _registry.names()


def call(name, args=None, *, deadline=30.0, key=None, connection=None):
    """Call a name and return its reply, within ``deadline`` seconds; None is no limit.

    Chunks are not looked at.

    ``args`` is one value: inside the BEAM what becomes a term, over a connection what becomes CBOR, otherwise
    any object. It waits without the GIL, and other calls to functions are served meanwhile.

    Calls with the same ``key`` go to the same of several nodes. Over a ``connection`` the name is the other
    side's: a :class:`Connection`, inside the BEAM the process that ``causeway_rpc:connect/2`` makes.

    Raises RpcError with the code and message of what went wrong there, or ``not_found``,
    ``deadline_exceeded``, ``disconnected`` and so on; ValueError or TypeError for arguments that have no form
    on the other side.
    """
    if _causeway.in_beam():
        return _node().call(name, args, _options("server_stream", deadline, key, None, connection))
    handler = None if connection else _registry.find(name)
    if handler is None:
        return _other_side(name, connection).call(name, args, deadline=deadline)
    client, server = _pair(WINDOW, deadline)
    with client:
        if handler.is_plain:
            handler.run(server, args)
        else:
            handler.start(server, args)
        return client.reply()


async def async_call(name, args=None, *, deadline=30.0, key=None, connection=None):
    """The same without blocking the event loop."""
    async with await async_open_stream(
        name, args, mode="server_stream", deadline=deadline, key=key, connection=connection
    ) as stream:
        return await stream.async_reply()


def call_stream(name, args=None, *, deadline=None, key=None, window=WINDOW, connection=None):
    """Call a name that sends a stream, which the returned :class:`Stream` is: iterate over it.

    Otherwise as :func:`open_stream`.
    """
    return open_stream(
        name, args, mode="server_stream", deadline=deadline, key=key, window=window, connection=connection
    )


def open_stream(name, args=None, *, mode="bidi", deadline=None, key=None, window=WINDOW, connection=None):
    """Call a name, and return the caller's half, a :class:`Stream`, when who serves it has accepted.

    The mode that it was advertised with goes before ``mode``. After ``deadline`` seconds the call fails on
    both sides as ``deadline_exceeded``; None is no limit. At most ``window`` bytes wait here to be received;
    over a :class:`Connection` it is that one's. Otherwise as :func:`call`. Raises ValueError for another mode
    and for a window below 1.
    """
    check_mode(mode)
    if _causeway.in_beam():
        return _node().open_stream(name, args, _options(mode, deadline, key, window, connection))
    handler = None if connection else _registry.find(name)
    if handler is None:
        return _other_side(name, connection).open_stream(name, args, mode=mode, deadline=deadline)
    client, server = _pair(window, deadline)
    handler.start(server, args)
    return client


async def async_open_stream(
    name, args=None, *, mode="bidi", deadline=None, key=None, window=WINDOW, connection=None
):
    """The same without blocking the event loop.

    In the thread of a context it does block it until the provider has accepted: that may need the context,
    which serves meanwhile.
    """
    if _causeway.in_beam() and _causeway._context() is None:
        import asyncio

        return await asyncio.to_thread(
            open_stream,
            name,
            args,
            mode=mode,
            deadline=deadline,
            key=key,
            window=window,
            connection=connection,
        )
    if not _causeway.in_beam() and (connection or _registry.find(name) is None):
        return await _other_side(name, connection).async_open_stream(name, args, mode=mode, deadline=deadline)
    return open_stream(
        name, args, mode=mode, deadline=deadline, key=key, window=window, connection=connection
    )


def connect(ends, **options):
    """Connect to a node or to another Python, in a plain ``python3``, and return a :class:`Connection`.

    ``ends`` is the address, ``(host, port)``, or what a PacketConnection takes: a socket, also of TLS,
    descriptors, file objects, byte channels. Options are those of :class:`Connection`. It waits until the
    system has connected. Raises OSError, and RuntimeError inside the BEAM.
    """
    return _connection.connect(ends, **options)


def listen(address, **options):
    """Take connections at an address, ``(host, port)``, and return a :class:`Listener`, at once.

    With the port 0 the system chooses one: ``address`` says which. Options are those of :class:`Connection`,
    for each. Raises OSError, and RuntimeError inside the BEAM.
    """
    if _causeway.in_beam():
        raise RuntimeError("inside the node Erlang has the connections: causeway_rpc:connect/2 makes one")
    return Listener(address, options)


def _node():
    from . import _beam

    return _beam


def _options(mode, deadline, key, window, connection):
    options = {"mode": mode}
    if deadline is not None:
        options["deadline"] = max(0, round(deadline * 1000))
    if key is not None:
        options["key"] = key
    if window is not None:
        options["window"] = window
    if connection is not None:
        options["connection"] = connection
    return options


def _pair(window, deadline):
    halves = _causeway._RpcHalf(window), _causeway._RpcHalf(window)
    halves[0].pair(halves[1])
    client, server = map(Stream, halves)
    if deadline is not None:
        _deadlines.start(client, deadline)
    return client, server


def _other_side(name, connection):
    connection = connection or _connection.only()
    if connection is None:
        raise RpcError(
            "not_found", f"{name!r} is not advertised in this process, and no one connection is open"
        )
    return connection
