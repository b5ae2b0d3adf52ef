"""Protocols served by a plain python3, without Erlang: the same core, polled by who calls run()."""

import os
import signal
import socket
import threading

import _causeway


def serve(where, factory=None, /, *, client_info=None, max_connections=10_000, backlog=1024):
    """Have :func:`run` serve connections, and return the address where it does.

    ``where`` is ``(host, port)``, 0 being any port; the path of a Unix socket; a socket, or a file
    descriptor: one that listens, whose connections are accepted, or one that is connected or has datagrams,
    which is served itself. A socket or descriptor stays yours: a duplicate is served.
    ``factory`` makes the protocols; without it the one of :func:`set_protocol_factory` does. Connections that
    are accepted have ``addr``, ``port`` and ``type`` in ``client_info``, besides what is given here.
    ``client_info`` is a dict for the protocols. ``max_connections`` holds for all of a run(), and is that of
    its first serve(): further peers wait. ``backlog`` is that of the C function ``listen``. Returns at once,
    None for what is no socket.

    Raises OSError where the address cannot be had, OverflowError for a port that is none, TypeError,
    ValueError, and RuntimeError inside the BEAM.
    """
    if factory is not None and not callable(factory):
        raise TypeError(f"the protocol factory must be callable, not {type(factory).__name__}")
    if max_connections < 1:
        raise ValueError(f"max_connections must be at least 1, not {max_connections}")
    fd = _descriptor(where, backlog)
    try:
        address = _address(fd)
        _causeway._serve(fd, dict(client_info or {}), factory, max_connections)
    except BaseException:  # Ctrl-C as well: nobody else knows of the descriptor
        os.close(fd)
        raise
    return address


def run():
    """Serve what :func:`serve` was called for, until :func:`stop` is called or nothing is left.

    A signal handler that raises, as Ctrl-C does, ends it too, and so does a protocol that raises what is no
    Exception, as SystemExit. At its end connections are closed, and ``connection_lost()`` is called. Any
    Exception of a protocol ends its connection and is logged by the logger ``erlang.reactor``.

    Raises RuntimeError inside the BEAM, and where another thread is in run().
    """
    if threading.current_thread() is not threading.main_thread():
        _causeway._run(-1)
        return
    awake, waker = socket.socketpair()
    with awake, waker:
        waker.setblocking(False)
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            _causeway._run(awake.fileno())
        finally:
            signal.set_wakeup_fd(before)


def stop():
    """Make :func:`run` return. From any thread, and from a protocol. Where nothing runs it does nothing."""
    _causeway._stop()


def report(exception, callback, connection, is_expected):
    """Log what a protocol has raised."""
    # Only now: it is most of what an import of erlang would cost.
    import logging

    level = logging.DEBUG if is_expected else logging.ERROR
    info = (type(exception), exception, exception.__traceback__)
    log = logging.getLogger("erlang.reactor")
    log.log(level, "exception in %s of %r", callback, connection, exc_info=info)


def report_text(text, fd, is_expected):
    """Log what is wrong with the system, or with a peer."""
    import logging

    level = logging.DEBUG if is_expected else logging.ERROR
    logging.getLogger("erlang.reactor").log(level, "%s (fd %d)", text, fd)


def _descriptor(where, backlog):
    if isinstance(where, int):
        return os.dup(where)
    if isinstance(where, socket.socket):
        return os.dup(where.fileno())
    if isinstance(where, (str, bytes, os.PathLike)):
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            listener.bind(os.fspath(where))
            listener.listen(backlog)
            return listener.detach()
    if not isinstance(where, tuple) or len(where) != 2:
        raise TypeError(f"serve() takes (host, port), a path, a socket or a descriptor, not {where!r}")
    return socket.create_server(
        where, family=socket.AF_INET6 if ":" in where[0] else socket.AF_INET, backlog=backlog
    ).detach()


def _address(fd):
    """What getsockname() says; None for what is no socket."""
    twin = os.dup(fd)
    try:
        named = socket.socket(fileno=twin)
    except OSError:
        os.close(twin)
        return None
    with named:
        return named.getsockname()
