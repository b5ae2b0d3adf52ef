"""A TLS socket below a connection of packets."""

import contextlib
import logging
import select
import socket
import ssl

_log = logging.getLogger("erlang.packetstream")


def carry(sock, far, stop):
    """Carry what comes on a TLS socket to another one that does not block, and back, until that has ended or
    the other end of the socket ``stop`` is closed.

    One thread does both: OpenSSL's connections are for one at a time, and whoever waits in one of them keeps
    the other direction waiting. The socket has its time-out again afterwards.
    """
    before = sock.gettimeout()
    try:
        with far, stop:
            sock.setblocking(False)
            far.setblocking(False)
            _Carrier(sock, far, stop).run()
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        pass  # the connection is over
    except Exception:
        _log.exception("the TLS socket of a packet connection cannot be read and written")
    finally:
        # The caller may have closed it.
        with contextlib.suppress(OSError):
            sock.settimeout(before)


class _Carrier:
    def __init__(self, sock, far, stop):
        self._socket = sock
        self._far = far
        self._stop = stop
        self._incoming = self._outgoing = b""
        self._is_ended = self._is_done = False

    def run(self):
        while True:
            self._waits = {}
            moved = [self._read(), self._pass_on(), self._take(), self._write()]
            if self._is_done and not self._outgoing:
                return
            if not any(moved) and not self._wait():
                return

    def _wait(self):
        """Until something can go on; False where a socket was closed meanwhile, or it is to stop."""
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        for sock, events in self._waits.items():
            if sock.fileno() < 0:
                return False
            poll.register(sock, events)
        ready = dict(poll.poll())
        if self._stop.fileno() in ready:
            return False
        return not any(events & select.POLLNVAL for events in ready.values())

    def _wants(self, sock, events):
        self._waits[sock] = self._waits.get(sock, 0) | events
        return False

    def _tls(self, function, *arguments):
        """What a function of the TLS socket returns; None where it has to be called again."""
        try:
            return function(*arguments)
        except ssl.SSLWantReadError:
            self._wants(self._socket, select.POLLIN)
        except ssl.SSLWantWriteError:
            self._wants(self._socket, select.POLLOUT)
        return None

    def _read(self):
        if self._incoming or self._is_ended:
            return False
        data = self._tls(self._socket.recv, 65536)
        if data is None:
            return False
        self._incoming = memoryview(data)
        if not data:
            self._is_ended = True
            self._far.shutdown(socket.SHUT_WR)
        return True

    def _pass_on(self):
        if not self._incoming:
            return False
        try:
            self._incoming = self._incoming[self._far.send(self._incoming) :]
        except BlockingIOError:
            return self._wants(self._far, select.POLLOUT)
        return True

    def _take(self):
        if self._outgoing or self._is_done:
            return False
        try:
            data = self._far.recv(65536)
        except BlockingIOError:
            return self._wants(self._far, select.POLLIN)
        self._outgoing = memoryview(data)
        self._is_done = not data
        return True

    def _write(self):
        if not self._outgoing:
            return False
        count = self._tls(self._socket.send, self._outgoing)
        if count is None:
            return False
        self._outgoing = self._outgoing[count:]
        return True
