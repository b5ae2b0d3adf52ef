"""What asyncio knows of connections that protocols of erlang.reactor serve."""

import socket
from asyncio import futures, transports

from erlang._transports import attach, detach, name_of


class ReactorTransport(transports.BaseTransport):
    """A connection of an ``erlang.EventLoop`` that a protocol of ``erlang.reactor`` serves."""

    def __init__(self, loop, sock, protocol, waiter=None, extra=None, server=None):
        extra = dict(extra or {})
        extra["sockname"] = name_of(sock.getsockname)
        if "peername" not in extra:
            extra["peername"] = name_of(sock.getpeername)
        super().__init__(extra)
        self._loop = loop
        self._protocol = protocol
        self._server = None
        self._is_closing = False
        sock.setblocking(False)
        loop._serve_protocol(sock.fileno(), _client_info(sock, extra["peername"]), lambda: protocol)
        sock.detach()
        loop._reactor_transports[id(protocol)] = self
        if server is not None:
            self._server = server
            attach(server, self)
        if waiter is not None:
            # The protocol is told first: at the beginning of the next turn.
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)

    def get_protocol(self):
        """The protocol."""
        return self._protocol

    def is_closing(self):
        """Whether it is closed or about to be."""
        return self._is_closing

    def close(self):
        """Close it when what is in ``write_buffer`` is written."""
        self._end(True)

    def abort(self):
        """Close it without what is left to be written."""
        self._end(False)

    def _end(self, is_patient):
        if self._loop is None or (self._is_closing and is_patient):
            return
        self._is_closing = True
        # Not before it has begun.
        self._loop.call_soon(self._loop._end_protocol, self._protocol, is_patient)

    def _ended(self):
        """It is over."""
        self._is_closing = True
        self._loop = None
        server, self._server = self._server, None
        if server is not None:
            detach(server, self)


def _client_info(sock, peername):
    """What a reactor tells of a peer."""
    kind = "udp" if sock.type == socket.SOCK_DGRAM else "tcp"
    if sock.family == socket.AF_UNIX:
        return {"type": "unix"}
    if peername is None:
        return {"type": kind}
    return {"addr": peername[0], "port": peername[1], "type": kind}
