"""Protocols of asyncio on sockets that Erlang hands over.

A listening socket that Erlang has bound, or a connection that it has accepted, is served by the event loop
that runs: in a task that Erlang has started (``py:async_call``), that is the loop of the context, which goes
on between calls. Erlang passes the descriptor of a socket that it gives up, or a duplicate (``py:dup_fd``).

On an ``erlang.EventLoop`` a factory may also make protocols of :mod:`erlang.reactor`: they are served as by a
reactor, while the loop runs. The reverse is there, too: a reactor context that is handed a connection, and
whose factory makes a protocol of asyncio, has its event loop serve it.
"""

import asyncio
import os
import socket
import stat


async def serve(listen_fd, protocol_factory, *, ssl=None):
    """Accept connections on a socket that listens already, and return the server.

    ``listen_fd`` is a descriptor, which is the server's from then on, or a socket. ``protocol_factory`` makes
    an ``asyncio`` protocol for each connection; ``ssl`` is an ``ssl.SSLContext``. :func:`stop_serving` ends
    it.

    Returns at once. Raises ValueError for what does not listen, OSError for what is not open, TypeError: the
    descriptor is the caller's then. The corresponding methods of a loop are ``create_server`` and
    ``create_unix_server``.
    """
    _check(protocol_factory)
    sock = _socket(listen_fd)
    try:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"the socket {listen_fd!r} does not listen: adopt() serves a connection")
        return await _create_server(asyncio.get_running_loop(), sock, protocol_factory, ssl)
    except BaseException:
        _leave(sock, listen_fd)
        raise


async def adopt(fd, protocol_factory, *, ssl=None):
    """Serve one connection, a descriptor or a socket, which is the transport's from then on.

    Returns the transport and the protocol. ``ssl`` is an ``ssl.SSLContext`` of a server.

    With ``ssl`` it waits for the handshake, and raises what that does. Raises ValueError for what is no
    connection of a stream, OSError for what is not open, TypeError: the descriptor is the caller's then. The
    corresponding method of a loop is ``connect_accepted_socket``.
    """
    _check(protocol_factory)
    sock = _socket(fd)
    try:
        if sock.type != socket.SOCK_STREAM or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"the socket {fd!r} is no connection of a stream")
        loop = asyncio.get_running_loop()
        return await loop.connect_accepted_socket(protocol_factory, sock, ssl=ssl)
    except ValueError:
        _leave(sock, fd)
        raise


async def stop_serving(server):
    """Accept no more connections; those that there are go on. Any number of times."""
    server.close()


def _check(protocol_factory):
    if not callable(protocol_factory):
        raise TypeError(f"the protocol factory must be callable, not {type(protocol_factory).__name__}")


def _socket(where):
    """The socket of a descriptor, which it owns."""
    if isinstance(where, socket.socket):
        sock = where
    elif isinstance(where, int) and not isinstance(where, bool):
        # Before there is an owner, who would close what is no socket.
        if not stat.S_ISSOCK(os.fstat(where).st_mode):
            raise ValueError(f"the descriptor {where} is no socket")
        sock = socket.socket(fileno=where)
    else:
        raise TypeError(f"a file descriptor or a socket is needed, not {where!r}")
    sock.setblocking(False)
    return sock


def _leave(sock, where):
    if sock is not where:
        sock.detach()


async def _create_server(loop, sock, protocol_factory, ssl):
    # Unix sockets have a method of their own.
    create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
    return await create(protocol_factory, sock=sock, ssl=ssl)
