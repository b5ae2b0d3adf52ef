"""Transports of streams: the parts that are not called for every message."""

import warnings
from asyncio import base_events, constants, futures, protocols, transports, trsock
from asyncio.log import logger

import _causeway


class StreamTransport(_causeway._transport_type(transports._FlowControlMixin)):
    """A transport of a TCP or Unix socket of an ``erlang.EventLoop``; see ``asyncio.Transport``."""

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE
    _sock = None
    _empty_waiter = None

    def __init__(self, loop, sock, protocol, waiter=None, extra=None, server=None):
        self._extra = dict(extra or {})
        self._extra["socket"] = trsock.TransportSocket(sock)
        self._extra["sockname"] = name_of(sock.getsockname)
        if "peername" not in self._extra:
            self._extra["peername"] = name_of(sock.getpeername)
        self._loop = loop
        self._sock_fd = sock.fileno()
        self._begin(loop, self._sock_fd, protocol)
        self._sock = sock
        self.set_protocol(protocol)
        self._server = server
        if server is not None:
            attach(server, self)
        loop._transports[self._sock_fd] = self
        base_events._set_nodelay(sock)
        loop.call_soon(protocol.connection_made, self)
        # Only when connection_made() has been called.
        loop.call_soon(self._start_reading)
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)

    def set_protocol(self, protocol):
        """Have another protocol called from now on."""
        self._set_protocol(protocol, isinstance(protocol, protocols.BufferedProtocol))

    def get_extra_info(self, name, default=None):
        """What is known of the connection: 'socket', 'sockname', 'peername'."""
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
        if self._sock is None:
            info.append("closed")
        elif self.is_closing():
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if self._loop is not None and not self._loop.is_closed():
            mask = self._loop._interest(self._sock_fd) if self._sock is not None else 0
            info.append(f"read={'polling' if mask & 1 else 'idle'}")
            state = "polling" if mask & 2 else "idle"
            info.append(f"write=<{state}, bufsize={self.get_write_buffer_size()}>")
        return f"<{' '.join(info)}>"

    def __del__(self, _warn=warnings.warn):
        if self._sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._sock.close()
            if self._server is not None:
                detach(self._server, self)

    # --- what the native half calls

    def _fatal_error(self, exception, message="Fatal error on transport"):
        if isinstance(exception, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exception)
        else:
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exception,
                    "transport": self,
                    "protocol": self.get_protocol(),
                }
            )
        self._force_close(exception)
        self._end_waiter(exception)

    def _flow_error(self, exception, name):
        self._loop.call_exception_handler(
            {
                "message": f"protocol.{name}() failed",
                "exception": exception,
                "transport": self,
                "protocol": self.get_protocol(),
            }
        )

    def _written_in_vain(self):
        if self._lost_count() > constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
            logger.warning("socket.send() raised exception.")

    def _call_connection_lost(self, exception):
        sock = self._sock
        try:
            protocol = self.get_protocol()
            if protocol is not None:
                protocol.connection_lost(exception)
        finally:
            self._finish()
            if sock is not None:
                sock.close()
            self._sock = None
            self._loop = None
            server, self._server = self._server, None
            if server is not None:
                detach(server, self)
            self._end_waiter(ConnectionError("Connection is closed by peer"))

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
