"""Protocols that serve file descriptors.

Subclass :class:`Protocol`, tell :func:`set_protocol_factory` about the class, and hand descriptors
over from Erlang with ``py_reactor_context:handoff/2,3``. The reactor reads and writes without
Python's global lock, and calls the protocol with what it has read.

A protocol can also be driven by hand, on a socketpair and without Erlang: :func:`init_connection`,
:func:`on_read_ready`, :func:`on_write_ready` and :func:`close_connection` do one step each and return
what the protocol wants to be done next.
What the protocol raises, they raise. And a plain python3 serves connections by itself, with the same core:
:func:`serve` and :func:`run`.

A connection is named by its descriptor, an ``int``; sizes are in bytes. ``ValueError`` says that
something is no descriptor, or not one of a connection; ``OSError`` and its subclasses, such as
``BrokenPipeError``, come from the kernel.
"""

from _causeway import (
    Protocol,
    ReactorBuffer,
    close_connection,
    get_protocol,
    init_connection,
    on_read_ready,
    on_write_ready,
    set_protocol_factory,
    signal_write_ready,
)
from erlang._serving import run, serve, stop

__all__ = [
    "ASYNC_PENDING",
    "CLOSE",
    "CONTINUE",
    "READ_PENDING",
    "WRITE_PENDING",
    "Protocol",
    "ReactorBuffer",
    "close_connection",
    "get_protocol",
    "init_connection",
    "on_read_ready",
    "on_write_ready",
    "run",
    "serve",
    "set_protocol_factory",
    "signal_write_ready",
    "stop",
]

#: Stay in this mode: wait for more to read, or for more room to write.
CONTINUE = "continue"
#: Something is to be written: ``write_ready()`` is called as soon as there is room, mostly at once.
WRITE_PENDING = "write_pending"
#: Everything is written: wait for something to read.
READ_PENDING = "read_pending"
#: Write what is left in ``write_buffer``, then close the connection.
CLOSE = "close"
#: Wait for :func:`signal_write_ready`, then call ``write_ready()``.
ASYNC_PENDING = "async_pending"
