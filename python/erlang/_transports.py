"""Transports of event loops: the parts that are not called for every message."""

import errno
import os
import socket
import stat
import warnings
from asyncio import base_events, constants, futures, protocols, transports, trsock
from asyncio.log import logger

import _causeway


class _Common:
    """What transports have in common. Their native half knows the protocol, and reads and writes."""

    #: What is closed with the transport.
    _owned = None
    _written_in_vain_text = "socket.send() raised exception."

    def get_extra_info(self, name, default=None):
        """What is known of the connection: 'socket', 'sockname' and 'peername', or 'pipe'."""
        return self._extra.get(name, default)

    def set_write_buffer_limits(self, high=None, low=None):
        """Have the protocol paused above ``high`` bytes that are not written yet, and resumed at ``low``.

        Raises ValueError where these are not in order.
        """
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._set_limits(high, low)

    def __repr__(self):
        info = [type(self).__name__]
        if self._owned is None:
            info.append("closed")
        elif self.is_closing():
            info.append("closing")
        info.append(f"fd={self._fd}")
        if self._loop is not None and not self._loop.is_closed():
            mask = self._loop._interest(self._fd) if self._owned is not None else 0
            info.append(f"read={'polling' if mask & 1 else 'idle'}")
            state = "polling" if mask & 2 else "idle"
            info.append(f"write=<{state}, bufsize={self.get_write_buffer_size()}>")
        elif self._owned is not None:
            info.append("open")
        return f"<{' '.join(info)}>"

    def __del__(self, _warn=warnings.warn):
        if self._owned is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._owned.close()

    def _begin_calls(self, waiter, *, reads=True):
        self._loop.call_soon(self.get_protocol().connection_made, self)
        # Only when connection_made() has been called.
        if reads:
            self._loop.call_soon(self._start_reading)
        if waiter is not None:
            self._loop.call_soon(futures._set_result_unless_cancelled, waiter, None)

    # --- what the native half calls

    def _fatal_error(self, exception, message="Fatal error on transport"):
        if self._is_expected(exception):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exception)
        else:
            self._report(message, exception)
        self._force_close(exception)

    def _is_expected(self, exception):
        return isinstance(exception, OSError)

    def _flow_error(self, exception, name):
        self._report(f"protocol.{name}() failed", exception)

    def _report(self, message, exception):
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": exception,
                "transport": self,
                "protocol": self.get_protocol(),
            }
        )

    def _written_in_vain(self):
        if self._lost_count() > constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
            logger.warning(self._written_in_vain_text)

    def _call_connection_lost(self, exception):
        try:
            protocol = self.get_protocol()
            if protocol is not None:
                protocol.connection_lost(exception)
        finally:
            self._abandon()

    def _abandon(self):
        """Close what it owns, and tell nobody."""
        owned, self._owned = self._owned, None
        self._finish()
        if owned is not None:
            owned.close()
        self._loop = None


class StreamTransport(_Common, _causeway._transport_type(transports._FlowControlMixin)):
    """A transport of a TCP or Unix socket of an ``erlang.EventLoop``; see ``asyncio.Transport``."""

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE
    _server = None
    _empty_waiter = None

    def __init__(self, loop, sock, protocol, waiter=None, extra=None, server=None):
        self._extra = _of_socket(sock, extra)
        self._loop = loop
        self._fd = self._sock_fd = sock.fileno()
        self._begin(loop, self._fd, protocol, "both", True)
        self._owned = sock
        self.set_protocol(protocol)
        self._server = server
        if server is not None:
            attach(server, self)
        loop._transports[self._fd] = self
        base_events._set_nodelay(sock)
        self._begin_calls(waiter)

    @property
    def _sock(self):
        return self._owned

    def set_protocol(self, protocol):
        """Have another protocol called from now on."""
        self._set_protocol(protocol, isinstance(protocol, protocols.BufferedProtocol))

    def __del__(self, _warn=warnings.warn):
        super().__del__(_warn)
        self._leave_server()

    def _fatal_error(self, exception, message="Fatal error on transport"):
        super()._fatal_error(exception, message)
        self._end_waiter(exception)

    def _abandon(self):
        super()._abandon()
        self._leave_server()
        self._end_waiter(ConnectionError("Connection is closed by peer"))

    def _leave_server(self):
        server, self._server = self._server, None
        if server is not None:
            detach(server, self)

    # --- sendfile

    def _make_empty_waiter(self):
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._empty_waiter = self._loop.create_future()
        if self._await_written(True):
            self._empty_waiter.set_result(None)
        return self._empty_waiter

    def _reset_empty_waiter(self):
        self._empty_waiter = None
        self._await_written(False)

    def _written_out(self):
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_result(None)

    def _end_waiter(self, exception):
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_exception(exception)


class _PipeTransport(_Common, _causeway._transport_type(transports._FlowControlMixin)):
    """A transport of one end of a pipe; or of a socket or a terminal that is used the one way."""

    _written_in_vain_text = "pipe closed by peer or os.write(pipe, data) raised exception."

    def __init__(self, loop, pipe, protocol, direction, waiter, extra):
        self._extra = {**(extra or {}), "pipe": pipe}
        self._loop = loop
        self._fd = pipe.fileno()
        mode = os.fstat(self._fd).st_mode
        is_device = stat.S_ISCHR(mode)
        if not (is_device or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise ValueError("Pipe transport is only for pipes, sockets and character devices")
        os.set_blocking(self._fd, False)
        self._begin(loop, self._fd, protocol, direction, stat.S_ISSOCK(mode))
        self._owned = pipe
        self.set_protocol(protocol)
        # Where it writes, all that it reads is that the peer has closed its end: a device does not tell.
        self._begin_calls(waiter, reads=direction == "read" or not is_device)

    # As asyncio's own have it, and its tests.
    @property
    def _pipe(self):
        return self._owned

    @_pipe.setter
    def _pipe(self, pipe):
        self._owned = pipe

    @property
    def _fileno(self):
        return self._fd

    def set_protocol(self, protocol):
        """Have another protocol called from now on."""
        self._set_protocol(protocol, isinstance(protocol, protocols.BufferedProtocol))


class ReadPipeTransport(_PipeTransport):
    """A transport that reads from a pipe of an ``erlang.EventLoop``; see ``asyncio.ReadTransport``."""

    def __init__(self, loop, pipe, protocol, waiter=None, extra=None):
        super().__init__(loop, pipe, protocol, "read", waiter, extra)

    def _is_expected(self, exception):
        # What the end of a terminal is.
        return isinstance(exception, OSError) and exception.errno == errno.EIO


class WritePipeTransport(_PipeTransport):
    """A transport that writes to a pipe of an ``erlang.EventLoop``; see ``asyncio.WriteTransport``."""

    def __init__(self, loop, pipe, protocol, waiter=None, extra=None):
        super().__init__(loop, pipe, protocol, "write", waiter, extra)


class DatagramTransport(
    _Common,
    _causeway._datagram_transport_type(transports._FlowControlMixin),
    transports.DatagramTransport,
):
    """A transport of a UDP or Unix socket of an ``erlang.EventLoop``; see ``asyncio.DatagramTransport``.

    Up to 16 datagrams are received at once, and what a turn of the loop sends goes out at its end, together.
    An error of the system ends nothing: ``error_received`` of the protocol is told.
    """

    def __init__(self, loop, sock, protocol, address=None, waiter=None, extra=None):
        self._extra = _of_socket(sock, extra)
        self._loop = loop
        self._family = sock.family
        self._fd = self._sock_fd = sock.fileno()
        is_connected = bool(self._extra["peername"])
        self._begin(loop, self._fd, protocol, sock.family == socket.AF_UNIX, is_connected)
        self._owned = sock
        if address:
            self._only_to(address)
        loop._transports[self._fd] = self
        self._begin_calls(waiter)

    @property
    def _sock(self):
        return self._owned

    def set_protocol(self, protocol):
        """Have another protocol called from now on."""
        self._set_protocol(protocol)

    # --- what the native half calls

    def _resolve(self, address):
        """An address with a number for its host, of one with a name: as Python's sockets do it, at once."""
        if self._family == socket.AF_UNIX or not isinstance(address, tuple):
            raise TypeError(
                f"an address is (host, port), (host, port, flow, scope) or a path, not {address!r}"
            )
        host, port, *rest = address
        if not isinstance(port, int):
            raise TypeError(f"a port is a number, not {port!r}")
        special = {
            "": "0.0.0.0" if self._family == socket.AF_INET else "::",
            "<broadcast>": "255.255.255.255",
        }
        if host in special:
            return (special[host], port, *rest)
        infos = socket.getaddrinfo(host, port, family=self._family, type=socket.SOCK_DGRAM)
        return (*infos[0][4][:2], *rest)


def _of_socket(sock, extra):
    known = dict(extra or {})
    known["socket"] = trsock.TransportSocket(sock)
    known["sockname"] = name_of(sock.getsockname)
    if "peername" not in known:
        known["peername"] = name_of(sock.getpeername)
    return known


def name_of(ask):
    """What a socket is named, or None."""
    try:
        return ask()
    except OSError:
        return None


# Before Python 3.13 a server only counts its transports.
_IS_TOLD_WHICH = base_events.Server._attach.__code__.co_argcount == 2


def attach(server, transport):
    """Tell a server of a connection."""
    server._attach(*[transport][:_IS_TOLD_WHICH])


def detach(server, transport):
    """Tell a server of the end of a connection."""
    server._detach(*[transport][:_IS_TOLD_WHICH])
