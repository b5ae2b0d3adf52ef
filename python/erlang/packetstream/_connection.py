"""Connections of packets for threads."""

import atexit
import collections
import logging
import os
import threading
import time
import warnings
import weakref

import _causeway

from ._coroutines import Coroutines, is_coroutine_handler
from ._packet import DEFAULT_MAX_PACKET, Packet
from ._result import ClosedError
from ._streams import Streams

DEFAULT_PACKET_GRACE = 0.01

Request_State = RequestState = collections.namedtuple("Request_State", "decode_response result")
Request_State.__doc__ = "What a request waits with, under the names of ``cs.packetstream``; not used here."

_STALLED = 0.1  # seconds

_log = logging.getLogger("erlang.packetstream")
_open: weakref.WeakSet = weakref.WeakSet()


def tick_fd_2(bs):
    """Write a short binary tick to the standard error file descriptor."""
    os.write(2, bs)


class PacketConnection:
    """Requests and responses both ways over one stream of bytes.

    The stream is a file descriptor, socket or binary file for each direction, or one for both; also anything
    with ``read1`` or ``read`` and with ``write``, a ByteChannel, and for ``recv`` bytes and iterables of
    bytes. They stay the caller's: descriptors are duplicated, nothing is closed. ``PacketConnection((recv,
    send), name)`` and ``PacketConnection(socket, name=...)`` are other ways to give them, and a callable
    that returns ``(recv, send)`` or ``(recv, send, close)`` is called by :meth:`open`, its ``close()`` by
    the last :meth:`close`.

    Nothing happens before :meth:`open`, which ``with`` calls. ``request_handler(rq_type, flags, payload)``
    answers the peer's requests, on one of ``workers`` threads, or on an event loop where it is a coroutine
    function: ``loop``, or one in a thread of its own. It returns None, flags, a payload as bytes or str, or
    ``(flags, payload)``; when it raises, the peer is told so.

    - ``packet_grace``: seconds for which a packet waits for others to be written with it. Without it,
      packets are written together when they come faster than they can be written.
    - ``tick``: called with a byte for each packet, ``b"<"`` received and ``b">"`` sent, several at once;
      True is :func:`tick_fd_2`.
    - ``timeout``: seconds for a request that has no time-out of its own.
    - ``max_packet``: bytes of a packet; a peer that sends a longer one ends the connection.
    - ``max_outstanding``, ``send_window``: requests without a response (65,536; None is no limit), and bytes
      not yet written (4 MiB), from which on :meth:`request` waits.
    - ``max_requests``, ``receive_window``: unanswered requests of the peer (1,024), and their bytes (64 MiB;
      each has 512 more than its payload), from which on nothing more is read. While requests of ours are
      outstanding only the second counts, as a handler may be waiting for the response.
    - ``keepalive``: seconds without any packet after which the peer is asked for one, and ends the
      connection where as many again bring none.
    - ``close_timeout``: seconds that :meth:`close` gives what is under way.

    ``recv_len_func``, ``send_len_func`` and ``trace_log`` are taken and not used.

    The callables in the sets ``notify_recv_eof`` and ``notify_send_eof`` are called with the connection when
    no more packets come, by a thread of the connection, and when close() has sent the last. ``closed`` says
    whether close() or abort() were called. ``EOF_Packet`` and ``ERQ_Packet`` are what send_eof() and
    send_erq() send. All methods are for any thread. Raises TypeError, ValueError for wrong options.
    """

    EOF_Packet = Packet(is_request=True, channel=0, tag=0, flags=0, rq_type=0, payload=b"")
    ERQ_Packet = Packet(is_request=True, channel=0, tag=1, flags=0, rq_type=0, payload=b"")

    def __init__(
        self,
        recv,
        send=None,
        request_handler=None,
        name=None,
        packet_grace=None,
        tick=None,
        recv_len_func=None,
        send_len_func=None,
        *,
        trace_log=None,
        workers=4,
        loop=None,
        timeout=None,
        max_packet=DEFAULT_MAX_PACKET,
        max_outstanding=65536,
        send_window=4 << 20,
        max_requests=1024,
        receive_window=64 << 20,
        keepalive=None,
        close_timeout=10.0,
    ):
        self._lock = threading.RLock()
        self._opens = 0
        self._link = self._streams = self._close_streams = None
        self.closed = False
        if isinstance(send, str) or (send is None and not callable(recv)):
            if isinstance(send, str):
                if name is not None:
                    raise TypeError("a name is given twice")
                name = send
            if isinstance(recv, tuple) and len(recv) == 2:
                recv, send = recv
            else:
                send = recv
        self._ends = recv, send
        self.name = name if name is not None else f"{type(self).__name__}-{id(self):x}"
        if request_handler is not None and not callable(request_handler):
            raise TypeError(f"request_handler must be callable, not {type(request_handler).__name__}")
        self.request_handler = request_handler
        self.packet_grace = packet_grace
        self._tick = tick_fd_2 if tick is True else tick or None
        self._loop = loop
        self._handlers = {}
        self._coroutines = None
        self.timeout = timeout
        self.close_timeout = close_timeout
        self._options = {
            "max_packet": _number("max_packet", max_packet, 1),
            "workers": _number("workers", workers, 1, 1000),
            "max_outstanding": max_outstanding and _number("max_outstanding", max_outstanding, 1),
            "send_window": _number("send_window", send_window, 1),
            "max_requests": _number("max_requests", max_requests, 1),
            "receive_window": _number("receive_window", receive_window, 1),
            "grace_ns": _nanoseconds("packet_grace", packet_grace),
            "keepalive_ns": _nanoseconds("keepalive", keepalive),
            "ticks": int(self._tick is not None),
        }
        self.notify_recv_eof = set()
        self.notify_send_eof = set()

    def __str__(self):
        return f"{type(self).__name__}[{self.name}]"

    def __repr__(self):
        state = "not open" if self._link is None else self._link.end
        return f"<{self}: {state[1] if isinstance(state, tuple) else state or 'open'}>"

    # --- opening and closing ----------------------------------------------------------------

    def open(self):
        """Begin, where it is not open yet; each open() needs a close(). Returns the connection.

        Raises TypeError for what is no stream, OSError for a descriptor that is not open, and what a callable
        raises that makes the streams.
        """
        with self._lock:
            if self._opens == 0:
                self._start()
            self._opens += 1
        return self

    def _start(self):
        recv, send = self._ends
        if send is None and callable(recv):
            recv, send, *close = recv()
            self._close_streams = close[0] if close else None
        streams = Streams(recv, send)
        self._link = _causeway._new_packet_link(streams.recv, streams.send, _hook(self), self._options)
        self._streams = streams
        self.closed = False
        for channel, handler in {0: self.request_handler, **self._handlers}.items():
            self._set_handler(channel, handler)
        _open.add(self)
        self._link.start()

    def close(self):
        """Undo one open(); the last close() ends the connection, within ``close_timeout`` seconds.

        New requests of the peer are rejected; those it has made are answered, and responses to ours are
        waited for. Then the peer is told that this is the end. Whoever still waits for a response gets
        CancellationError.
        """
        with self._lock:
            if self._opens == 0:
                return
            self._opens -= 1
            if self._opens > 0:
                return
            self.closed = True
        self._shutdown(self.close_timeout)

    def abort(self):
        """End the connection at once: who waits for a response gets CancellationError.

        The peer is told, where that can be written without waiting. Returns at once.
        """
        with self._lock:
            self._opens = 0
            self.closed = True
        if self._link is not None:
            self._link.send_end()
            self._link.shut("the connection was aborted")
            self._end_streams(0)

    def _shutdown(self, timeout):
        link = self._link
        end = time.monotonic() + timeout

        def left():
            return max(0, end - time.monotonic())

        try:
            link.stop_requests("rejecting request: runstate.cancelled")
            link.drain(left())
            link.send_end()
            self._wait_sent(link, left)
            for notifier in list(self.notify_send_eof):
                notifier(self)
        finally:
            link.shut("the connection was closed")
            link.wait_over(left())
            self._end_streams(left())

    def _wait_sent(self, link, left):
        """Until all is written. A peer that has ended and takes nothing more is not waited for."""
        sent = -1
        while not link.wait_sent(min(left(), _STALLED)) and left():
            before, sent = sent, link.info()["bytes_sent"]
            if link.end is not None and sent == before:
                return

    def _end_streams(self, timeout):
        _open.discard(self)
        if self._coroutines is not None:
            self._coroutines.end()
            self._coroutines = None
        if self._streams is not None:
            self._streams.end(timeout)
            self._streams = None
        if self._close_streams is not None:
            close, self._close_streams = self._close_streams, None
            close()

    def __enter__(self):
        return self.open()

    def __exit__(self, *_exception):
        self.close()

    def __del__(self, _warn=warnings.warn):
        if getattr(self, "_opens", 0):
            _warn(f"{self} was dropped without close()", ResourceWarning, source=self, stacklevel=2)
            self.abort()

    def join(self, timeout=None):
        """Wait until no more packets come, because either side has ended that or the connection broke.

        Raises TimeoutError after so many seconds.
        """
        if not self._started().join(timeout):
            raise TimeoutError(f"packets may still come after {timeout} s")

    join_recv = join

    def send_eof(self):
        """Tell the peer that nothing more comes from here: no request, no response. Does not wait."""
        self._started().send_end()

    def send_erq(self):
        """Tell the peer that no more requests come from here, as releases from 20240630 on understand it.

        It ends connections of 20240412.
        """
        self._started().send_end_of_requests()

    @property
    def requests_allowed(self):
        """Whether requests of the peer are taken: not after its ERQ packet, its end, or our close()."""
        return self._started().requests_allowed

    @property
    def end(self):
        """Why no more packets come, as a text; None while they may."""
        end = self._started().end
        return end and end[1]

    def info(self):
        """Counters and levels, as a dict.

        ``packets_sent``, ``packets_received``, ``bytes_sent``, ``bytes_received``, ``requests_sent``,
        ``requests_received``, ``rejected``, ``late_responses``, ``unknown_responses`` count; ``outstanding``
        requests of ours and ``unanswered`` ones of the peer (of which ``waiting`` for a handler,
        ``running``), ``queued_bytes`` and ``inbound_bytes``, and ``threads``, are what there is now. Raises
        AttributeError before open().
        """
        return self._started().info()

    # --- requests ---------------------------------------------------------------------------

    def request(self, rq_type, flags=0, payload=b"", decode_response=None, channel=0, *, timeout=None):
        """Make a request, and return its :class:`Result`.

        Where ``max_outstanding`` or ``send_window`` are reached it waits. ``decode_response(flags,
        payload)`` makes the payload of a good response into something else. ``timeout``, in seconds, is for
        the waiting here and for the response; it is that of the connection by default. ``rq_type`` and
        ``flags`` are numbers from 0. The payload is not copied where it is large ``bytes``.

        Raises ClosedError, ValueError for numbers that packets cannot have and an unknown channel,
        TypeError, TimeoutError, AttributeError before open().
        """
        link = self._link or self._started()
        timeout = self.timeout if timeout is None else timeout
        return link.request(rq_type, flags, payload, decode_response, channel, timeout, True)

    def do(self, rq_type, flags=0, payload=b"", decode_response=None, channel=0, *, timeout=None):
        """Make a request, wait for the response, and return ``(ok, flags, payload)``.

        Raises as :meth:`request` and :class:`Result`.
        """
        return self.request(rq_type, flags, payload, decode_response, channel, timeout=timeout)()

    def submit(
        self, rq_type, flags=0, payload=b"", *, decode_response=None, channel=0, label=None, timeout=None
    ):
        """The same as :meth:`request`. The label is taken and not used."""
        return self.request(rq_type, flags, payload, decode_response, channel, timeout=timeout)

    def __call__(
        self, rq_type, payload=b"", flags=0, *, decode_response=None, channel=0, label=None, timeout=None
    ):
        """The same as :meth:`do`, with the payload before the flags."""
        return self.do(rq_type, flags, payload, decode_response, channel, timeout=timeout)

    def _started(self):
        if self._link is None:
            raise AttributeError(f"{self} was never opened: open() does that, or with")
        return self._link

    # --- channels ---------------------------------------------------------------------------

    def open_channel(self, channel, request_handler=None):
        """Open a channel other than 0, whose requests from the peer a handler of its own answers.

        The numbers are agreed with the peer by other means, from 1 to 2,147,483,646. Returns a
        :class:`PacketChannel`. Raises ValueError for another number, and for one that is open.
        """
        if request_handler is not None and not callable(request_handler):
            raise TypeError(f"request_handler must be callable, not {type(request_handler).__name__}")
        _number("channel", channel, 1, 0x7FFF_FFFE)
        with self._lock:
            if channel in self._handlers:
                raise ValueError(f"the channel {channel} is open already")
            self._handlers[channel] = request_handler
            if self._link is not None and not self.closed:
                self._set_handler(channel, request_handler)
        return PacketChannel(self, channel)

    def close_channel(self, channel):
        """Close a channel: requests to it are rejected from now on.

        Raises ValueError where it is not open.
        """
        with self._lock:
            if channel not in self._handlers:
                raise ValueError(f"unknown channel {channel}")
            del self._handlers[channel]
            if self._link is not None:
                self._link.remove_handler(channel)

    def _set_handler(self, channel, handler):
        takes_lists = handler is not None and is_coroutine_handler(handler)
        if takes_lists:
            if self._coroutines is None:
                self._coroutines = Coroutines(self._loop)
            handler = self._coroutines.handler(self._link, handler)
        self._link.set_handler(channel, handler, takes_lists)


class PacketChannel:
    """A channel of a connection other than 0."""

    def __init__(self, connection, channel):
        self.connection = connection
        self.channel = channel

    def __repr__(self):
        return f"<channel {self.channel} of {self.connection!r}>"

    def request(self, rq_type, flags=0, payload=b"", decode_response=None, *, timeout=None):
        """As :meth:`PacketConnection.request`."""
        return self.connection.request(
            rq_type, flags, payload, decode_response, self.channel, timeout=timeout
        )

    def do(self, rq_type, flags=0, payload=b"", decode_response=None, *, timeout=None):
        """As :meth:`PacketConnection.do`."""
        return self.connection.do(rq_type, flags, payload, decode_response, self.channel, timeout=timeout)

    def close(self):
        """Close the channel."""
        self.connection.close_channel(self.channel)


def _hook(connection):
    """What the core tells and asks, for a connection that it does not keep alive."""
    reference = weakref.ref(connection)
    name = str(connection)

    def hook(kind, value):
        if kind == "encode":
            return _encode(value)
        connection = reference()
        if kind == "failed":
            _log.error("%s: exception during handler", name, exc_info=value)
        elif kind == "report":
            _log.warning("%s: %s", name, value)
        elif connection is None:
            return None
        elif kind == "tick":
            connection._tick(value.encode())
        else:
            for notifier in list(connection.notify_recv_eof):
                try:
                    notifier(connection)
                except Exception:
                    _log.exception("%s: exception in notify_recv_eof", name)
        return None

    return hook


def _encode(value):
    """What a handler has returned, as bytes, an int or (int, bytes). Raises where it is no answer."""
    if isinstance(value, str):
        return value.encode("utf-8", "xmlcharrefreplace")
    if isinstance(value, int):
        return _flags(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, tuple | list) and len(value) == 2:
        flags, payload = value
        if isinstance(flags, int) and isinstance(payload, bytes):
            return _flags(flags), bytes(payload)
    raise TypeError(
        f"a handler returns None, int, bytes, str or (int, bytes), not {type(value).__name__}: {value!r:.200}"
    )


def _flags(value):
    if not 0 <= value < 1 << 61:
        raise ValueError(f"the flags of a response are 0 to 2**61 - 1, not {value}")
    return int(value)


def _number(name, value, least, most=1 << 62):
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least} to {most}, not {value}")
    return value


def _nanoseconds(name, seconds):
    if not seconds:
        return 0
    if not 0 < seconds < 1e9:
        raise ValueError(f"{name} is a number of seconds, not {seconds}")
    return max(1, int(seconds * 1e9))


def abort_all():
    """Aborts all connections of this interpreter, whose context ends. Whether none of their threads is left.

    Nothing else would: a thread of theirs keeps the handler, and that what it was defined with.
    """
    connections = list(_open)
    links = [connection._link for connection in connections]
    for link in links:
        link.send_end()
    # A thread that writes just now writes that, too.
    end = time.monotonic() + _STALLED
    for link in links:
        link.wait_sent(max(0, end - time.monotonic()))
    for connection in connections:
        connection.abort()
    return all(link.wait_over(1) for link in links)


@atexit.register
def _abort_all():
    """No thread of a connection may run Python code while Python ends."""
    for connection in list(_open):
        link = connection._link
        if link is not None:
            link.shut("Python ends")
            link.wait_over(1)


__all__ = ["ClosedError", "PacketChannel", "PacketConnection"]
