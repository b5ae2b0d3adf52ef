"""Calls over a packet connection, in a plain python3: to a node, or to another Python.

A frame is a request, whose type is that of the frame. Both sides open calls, each with numbers of its own;
who names a call that the other has opened adds 1 to twice its number. Chunks are numbered, and sent as far as
the receiver has given room; while a packet of a call is on its way, what is sent is collected for the next.
"""

import contextlib
import itertools
import socket
import struct
import threading
import weakref

import _causeway

from .. import cbor
from ..packetstream import CancellationError, ClosedError, PacketConnection
from . import _deadlines
from ._errors import RpcError, of_reason
from ._registry import find
from ._stream import WINDOW, Stream

OPEN, DATA, END, ERROR, CREDIT = 0x27, 0x28, 0x29, 0x2A, 0x2C
_HEAD = struct.Struct(">II")
_AT_ONCE = 262144
# How many packets of a call may be on their way where they are large, and how many windows.
_PACKETS = 4
_LARGE = 65536
_ON_THE_WAY = 4
_open: weakref.WeakSet = weakref.WeakSet()


class Connection:
    """A connection over which names are called and served, from ``rpc.connect``.

    It goes over whatever a :class:`erlang.packetstream.PacketConnection` does, whose options it takes.
    ``window`` is how many bytes of a call may wait here, and three times as many on the way; with
    ``serve=False`` the other side calls nothing. Leaving a ``with`` closes it. Calls that are not over then,
    or when it breaks, fail as ``disconnected``.
    """

    def __init__(self, ends, *, window=WINDOW, serve=True, **options):
        if _causeway.in_beam():
            raise RuntimeError("inside the node Erlang has the connections: causeway_rpc:connect/2 makes one")
        self._window = window
        self._room = _ON_THE_WAY * window
        self._serve = serve
        self._lock = threading.Lock()
        self._streams = {}
        self._numbers = itertools.count()
        self._closed = False
        self._socket = ends if isinstance(ends, socket.socket) else None
        # Credit bounds what waits to be written; who takes frames must not wait for that.
        options.setdefault("send_window", 1 << 40)
        # One at a time: frames are taken as they come, and none of them waits.
        self._packets = PacketConnection(ends, request_handler=self._frame, workers=1, **options)
        self._packets.notify_recv_eof.add(self._ended)
        self._packets.open()
        _open.add(self)

    # --- calls --------------------------------------------------------------------------------

    def call(self, name, args=None, *, deadline=30.0):
        """As :func:`erlang.rpc.call`, over this connection."""
        with self.open_stream(name, args, mode="server_stream", deadline=deadline) as stream:
            return stream.reply()

    async def async_call(self, name, args=None, *, deadline=30.0):
        """As :func:`erlang.rpc.async_call`, over this connection."""
        async with await self.async_open_stream(
            name, args, mode="server_stream", deadline=deadline
        ) as stream:
            return await stream.async_reply()

    def call_stream(self, name, args=None, *, deadline=None):
        """As :func:`erlang.rpc.call_stream`, over this connection."""
        return self.open_stream(name, args, mode="server_stream", deadline=deadline)

    def open_stream(self, name, args=None, *, mode="bidi", deadline=None):
        """As :func:`erlang.rpc.open_stream`, over this connection."""
        stream, result = self._begin(name, args, mode, deadline)
        try:
            accepted, _, answer = result()
        except BaseException as error:
            raise self._unopened(stream, error) from None
        return self._opened(stream, accepted, answer)

    async def async_open_stream(self, name, args=None, *, mode="bidi", deadline=None):
        """The same without blocking the event loop."""
        stream, result = self._begin(name, args, mode, deadline)
        try:
            accepted, _, answer = await result
        except BaseException as error:
            raise self._unopened(stream, error) from None
        return self._opened(stream, accepted, answer)

    def _begin(self, name, args, mode, deadline):
        stream = self._stream(2 * next(self._numbers) + 1, 0)
        opening = {
            "stream_id": stream.number ^ 1,
            "procedure": name,
            "mode": mode,
            "args": args,
            "window": self._room,
        }
        if deadline is not None:
            opening["deadline_ms"] = round(deadline * 1000)
            _deadlines.start(stream, deadline)
        try:
            return stream, self._packets.request(OPEN, payload=cbor.dumps(opening))
        except BaseException as error:
            raise self._unopened(stream, error) from None

    def _opened(self, stream, accepted, answer):
        if not accepted:
            raise self._unopened(stream, RpcError("unavailable", answer.decode("utf-8", "replace")))
        answer = cbor.loads(answer)
        if "error" in answer:
            raise self._unopened(stream, of_reason(answer["error"]))
        self._grant(stream, answer["window"])
        return stream

    def _unopened(self, stream, error):
        self._streams.pop(stream.number, None)
        stream._half.end("close")
        if isinstance(error, (ClosedError, CancellationError)):
            return RpcError("disconnected", str(error))
        return error

    def _stream(self, number, credit):
        half = _causeway._RpcHalf(self._window)
        half.attach(_ON_THE_WAY * _AT_ONCE)
        stream = _Stream(half, self, number, credit)
        with self._lock:
            if self._closed:
                half.end("close")
                raise RpcError("disconnected", "the connection is closed")
            self._streams[number] = weakref.ref(stream) if number & 1 else stream
        return stream

    # --- what streams tell ---------------------------------------------------------------------

    def sent(self, stream):
        """Something waits in the outbox."""
        passing = stream.passing
        if not passing or (passing < _PACKETS and stream._half.waiting >= _LARGE):
            self._pass_on(stream)

    replied = sent

    def took(self, stream):
        """A chunk was taken: the other side is given room again, now and then."""
        half = stream._half
        if half.owed * 8 >= self._room:
            self._tell(CREDIT, _HEAD.pack(stream.number ^ 1, half.settle()))
        elif half.over:
            self.sent(stream)

    def ending(self, stream, final):
        """It is about to end so: 'both', or a code and a message."""
        if stream.final == "send":
            stream.final = final

    def _pass_on(self, stream):
        with stream.lock:
            if stream.passing >= _PACKETS:
                return
            failed = isinstance(stream.final, tuple)
            if stream.credit <= 0:
                if failed:
                    self._tell_end(stream)
                return
            start = _HEAD.pack(stream.number ^ 1, stream.seq)
            packet, weight, chunks, has_ended = stream._half.take(min(stream.credit, _AT_ONCE), start)
            if len(packet) == len(start):
                if has_ended:
                    self._tell_end(stream)
                return
            stream.credit -= weight
            stream.seq = (stream.seq + chunks) & 0xFFFFFFFF
            stream.passing += 1
            # With the lock, for the order. It waits for nothing, as whoever reads may want the lock.
            try:
                result = self._packets.request(DATA, payload=packet)
            except (ClosedError, CancellationError):
                return
        result.notify(stream.passed_on)

    def _grant(self, stream, more):
        with stream.lock:
            stream.credit += more
        self.sent(stream)

    def _tell_end(self, stream):
        """All is passed on: what comes then. With the stream's lock."""
        final = stream.final
        if stream.told != final:
            stream.told = final
            number = stream.number ^ 1
            if isinstance(final, tuple):
                self._tell(ERROR, {"stream_id": number, "code": final[0], "message": final[1]})
            else:
                self._tell(END, {"stream_id": number, "role": final})
        if final != "send" or stream._half.over:
            self._forget(stream)

    def _tell(self, frame, content):
        payload = content if isinstance(content, bytes) else cbor.dumps(content)
        with contextlib.suppress(ClosedError, CancellationError):
            self._packets.request(frame, payload=payload)

    def _forget(self, stream):
        self._streams.pop(stream.number, None)

    # --- what comes ---------------------------------------------------------------------------

    def _frame(self, frame, _flags, payload):
        match frame:
            case 0x28:
                number, seq = _HEAD.unpack_from(payload)
                stream = self._find(number)
                if stream is not None:
                    self._deliver(stream, seq, payload)
            case 0x2C:
                number, more = _HEAD.unpack_from(payload)
                stream = self._find(number)
                if stream is not None:
                    self._grant(stream, more)
            case 0x29 | 0x2A:
                content = cbor.loads(payload)
                stream = self._find(content["stream_id"])
                if stream is not None:
                    self._end(stream, frame, content)
            case 0x27:
                return 0, self._accept(cbor.loads(payload))
            case _:
                raise ValueError(f"a frame of type {frame}")
        return None

    def _find(self, number):
        stream = self._streams.get(number)
        return stream() if isinstance(stream, weakref.ref) else stream

    def _deliver(self, stream, seq, payload):
        if seq != stream.seq_in:
            stream.abort("out_of_order", f"chunk {seq} has come where {stream.seq_in} is the next")
            return
        chunks = stream._half.deliver(payload, _HEAD.size)
        stream.seq_in = (seq + chunks) & 0xFFFFFFFF

    def _end(self, stream, frame, content):
        half = stream._half
        if frame == ERROR:
            half.event("abort", ("error", (content["code"], content["message"])))
        else:
            half.event("close" if content["role"] == "both" else "send")
        if frame == ERROR or content["role"] == "both":
            # Who is told so does not answer.
            stream.told = stream.final = None
            self._streams.pop(stream.number, None)
        elif half.over:
            self._streams.pop(stream.number, None)

    def _accept(self, opening):
        handler = find(_name(opening["procedure"])) if self._serve else None
        if handler is None:
            return cbor.dumps({"error": {"code": "not_found", "message": "nobody has advertised that name"}})
        stream = self._stream(opening["stream_id"], opening["window"])
        deadline = opening.get("deadline_ms")
        if deadline is not None:
            _deadlines.start(stream, deadline / 1000)
        handler.start(stream, opening["args"])
        return cbor.dumps({"window": self._room, "mode": handler.mode})

    # --- the end ------------------------------------------------------------------------------

    def _ended(self, _packets):
        """No more packets come."""
        with self._lock:
            self._closed = True
            streams = [self._find(number) for number in list(self._streams)]
            self._streams.clear()
        for stream in streams:
            if stream is not None:
                stream.told = stream.final = None
                reason = ("error", ("disconnected", self._packets.end or "the connection was closed"))
                stream._half.event("lose", reason)

    def close(self):
        """End it. Calls that are not over fail as ``disconnected``, here and on the other side."""
        _open.discard(self)
        self._ended(None)
        self._packets.close()
        if self._socket is not None:
            self._socket.close()

    def join(self, timeout=None):
        """Wait, at most so many seconds, until the other side has ended it. Raises TimeoutError."""
        self._packets.join(timeout)
        # Who is told of that in another thread may be later.
        self._ended(None)

    @property
    def closed(self):
        """Whether nothing can be called any more."""
        return self._closed

    def info(self):
        """Counters, as a dict: those of the packet connection, and ``streams`` that are not over."""
        return self._packets.info() | {"streams": len(self._streams)}

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()


def _name(name):
    """Erlang's names are binaries."""
    try:
        return name.decode() if isinstance(name, bytes) else name
    except UnicodeDecodeError:
        return name


class _Stream(Stream):
    """A stream that goes over a connection."""

    def __init__(self, half, link, number, credit):
        super().__init__(half, link)
        self.lock = threading.RLock()
        self.number = number
        self.credit = credit
        self.seq = self.seq_in = 0
        # How many packets are on their way.
        self.passing = 0
        # What is told when all is passed on, and what was.
        self.final = "send"
        self.told = None

    def passed_on(self, _result):
        with self.lock:
            self.passing -= 1
        self._link.sent(self)

    def __del__(self):
        super().__del__()
        link = getattr(self, "_link", None)
        if link is not None:
            link._streams.pop(self.number, None)


class Listener:
    """What ``rpc.listen`` makes: it takes connections in a thread of its own. A ``with`` closes it."""

    def __init__(self, address, options):
        self._options = options
        self._connections = weakref.WeakSet()
        self._closed = False
        self._socket = socket.create_server(address)
        self._thread = threading.Thread(target=self._accept, name="rpc-listener", daemon=True)
        self._thread.start()

    @property
    def address(self):
        """Where it listens: host and port."""
        return self._socket.getsockname()[:2]

    def _accept(self):
        while not self._closed:
            try:
                ends, _ = self._socket.accept()
            except OSError:
                return
            ends.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep(Connection(ends, **self._options), self._connections)

    def close(self):
        """Take no more connections, and close those that are there."""
        self._closed = True
        # close() alone does not wake the thread.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in list(self._connections):
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()


def _keep(connection, connections):
    """It lives until its peer ends it."""
    connections.add(connection)

    def ended(_packets):
        # Who calls this must not wait.
        threading.Thread(target=connection.close, name="rpc-close", daemon=True).start()

    connection._packets.notify_recv_eof.add(ended)


def connect(ends, **options):
    """Make a connection of an address, ``(host, port)``, or of what a PacketConnection takes."""
    if isinstance(ends, tuple) and len(ends) == 2 and isinstance(ends[0], str):
        ends = socket.create_connection(ends)
        ends.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(ends, **options)


def only():
    """The one connection that is open."""
    connections = [each for each in _open if not each.closed]
    return connections[0] if len(connections) == 1 else None
