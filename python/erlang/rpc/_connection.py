"""Calls over a packet connection, in a plain python3: to a node, or to another Python.

A frame is a request, whose type is that of the frame. Both sides open calls, each with numbers of its own;
who names a call that the other has opened adds 1 to twice its number. Chunks and credit go through the core.
"""

import contextlib
import itertools
import socket
import threading
import weakref

import _causeway

from .. import cbor
from ..packetstream import CancellationError, ClosedError, PacketConnection
from . import _deadlines
from ._errors import RpcError, of_reason
from ._handlers import check_mode
from ._registry import find
from ._stream import WINDOW, Stream

_OPEN, _END, _ERROR = 0x27, 0x29, 0x2A
# How many bytes of openings and endings may wait here.
_RECEIVE_WINDOW = 4 << 20
# More room than anybody has.
_MOST_ROOM = 1 << 40
# Those of calls that the other side opens.
_NUMBERS = range(0, 1 << 32, 2)
MAX_CALLS = 1024
_open: weakref.WeakSet = weakref.WeakSet()


class Connection:
    """A connection over which names are called and served, from ``rpc.connect``.

    It goes over whatever a :class:`erlang.packetstream.PacketConnection` does, whose options it takes, but
    ``request_handler`` and ``workers``. ``window`` is how many bytes of a call may wait here, and three times
    as many on the way; with ``serve=False`` the other side calls nothing. It may have ``max_calls`` open at
    once: more are refused with the code ``too_many_calls``. Leaving a ``with`` closes it. Calls that are not
    over then, or when it breaks, fail as ``disconnected``. Raises RuntimeError inside the BEAM, ValueError,
    TypeError, and what :meth:`erlang.packetstream.PacketConnection.open` raises.
    """

    def __init__(self, ends, *, window=WINDOW, serve=True, max_calls=MAX_CALLS, **options):
        if _causeway.in_beam():
            raise RuntimeError("inside the node Erlang has the connections: causeway_rpc:connect/2 makes one")
        self._window = window
        self._serve = serve
        self._max_calls = _positive("max_calls", max_calls)
        # Handlers may go on when their calls are over.
        self._serving = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._closed = False
        self._socket = ends if isinstance(ends, socket.socket) else None
        # Credit bounds what waits to be written; who takes frames must not wait for that.
        options.setdefault("send_window", 1 << 40)
        options.setdefault("max_outstanding", None)
        options.setdefault("receive_window", _RECEIVE_WINDOW)
        # One at a time: frames are taken as they come, and none of them waits.
        self._packets = PacketConnection(ends, request_handler=self._frame, workers=1, **options)
        self._packets.notify_recv_eof.add(self._ended)
        self._packets.open()
        self._link = self._packets._link
        self._link.takes_calls()
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
        check_mode(mode)
        number = self._free_number()
        stream = self._stream(number, 0)
        opening = {
            "stream_id": number ^ 1,
            "procedure": name,
            "mode": mode,
            "args": args,
            "window": stream._half.room,
        }
        if deadline is not None:
            opening["deadline_ms"] = round(deadline * 1000)
            _deadlines.start(stream, deadline)
        try:
            return stream, self._packets.request(_OPEN, payload=cbor.dumps(opening))
        except BaseException as error:
            raise self._unopened(stream, error) from None

    def _free_number(self):
        # They are used again when 32 bits have no more.
        while self._link.halves(number := 2 * next(self._numbers) % (1 << 32) + 1):
            pass
        return number

    def _opened(self, stream, accepted, answer):
        if not accepted:
            raise self._unopened(stream, RpcError("unavailable", answer.decode("utf-8", "replace")))
        match _loads(answer):
            case {"error": reason}:
                raise self._unopened(stream, of_reason(reason))
            case {"window": int(window)} if window > 0:
                stream._half.grant(min(window, _MOST_ROOM))
                return stream
        text = "the other side has answered what is no answer"
        raise self._unopened(stream, RpcError("unavailable", text))

    def _unopened(self, stream, error):
        stream._half.leave()
        stream._half.end("close")
        # Its deadline has passed: whatever the other side says of it then.
        if stream._aborted is not None:
            return RpcError(*stream._aborted)
        if isinstance(error, (ClosedError, CancellationError)):
            return RpcError("disconnected", str(error))
        return error

    def _stream(self, number, credit):
        half = _causeway._RpcHalf(self._window)
        with self._lock:
            if self._closed or not half.attach(self._link, number, credit):
                half.end("close")
                raise RpcError("disconnected", "the connection is closed")
        return Stream(half, _WILL)

    # --- what comes ---------------------------------------------------------------------------

    def _frame(self, frame, _flags, payload):
        match frame:
            case 0x29 | 0x2A:
                content = cbor.loads(payload)
                for half in self._link.halves(content["stream_id"]):
                    _end(half, frame, content)
            case 0x27:
                return 0, self._accept(cbor.loads(payload))
            case _:
                raise ValueError(f"a frame of type {frame}")
        return None

    def _accept(self, opening):
        handler = find(_name(opening["procedure"])) if self._serve else None
        if handler is None:
            return cbor.dumps({"error": {"code": "not_found", "message": "nobody has advertised that name"}})
        if max(self._link.calls_of_peer(), self._serving) >= self._max_calls:
            text = f"{self._max_calls} calls are open over this connection already"
            return cbor.dumps({"error": {"code": "too_many_calls", "message": text}})
        number, window = opening["stream_id"], opening["window"]
        # Calls of this side have odd ones.
        is_free = isinstance(number, int) and number in _NUMBERS and not self._link.halves(number)
        if not is_free or not isinstance(window, int) or window < 1:
            text = "a call has a window, and a stream_id that is even and that no other call has"
            return cbor.dumps({"error": {"code": "badarg", "message": text}})
        stream = self._stream(number, min(window, _MOST_ROOM))
        deadline = opening.get("deadline_ms")
        if deadline is not None:
            _deadlines.start(stream, deadline / 1000)
        with self._lock:
            self._serving += 1
        try:
            handler.start(stream, opening["args"], self._served)
        except BaseException:
            self._served()
            raise
        return cbor.dumps({"window": stream._half.room, "mode": handler.mode})

    def _served(self):
        with self._lock:
            self._serving -= 1

    # --- the end ------------------------------------------------------------------------------

    def _ended(self, _packets):
        """No more packets come."""
        with self._lock:
            self._closed = True
            halves = self._link.halves()
        for half in halves:
            half.leave()
            half.event("lose", ("error", ("disconnected", self._packets.end or "the connection was closed")))

    def close(self):
        """End it, within ``close_timeout`` seconds; a socket that it was made of is closed, too.

        Calls that are not over fail as ``disconnected``, here and on the other side.
        """
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
        return self._packets.info() | {"streams": len(self._link.halves())}

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()


def _loads(answer):
    try:
        return cbor.loads(answer)
    except ValueError:
        return None


def _positive(name, number):
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an int, not {type(number).__name__}")
    if number < 1:
        raise ValueError(f"{name} must be 1 or more, not {number}")
    return number


def _name(name):
    """Erlang's names are binaries."""
    try:
        return name.decode() if isinstance(name, bytes) else name
    except UnicodeDecodeError:
        return name


def _end(half, frame, content):
    """The other half has ended."""
    both = frame == _ERROR or content["role"] == "both"
    if both:
        # Who is told so does not answer.
        half.leave()
    if frame == _ERROR:
        half.event("abort", ("error", (content["code"], content["message"])))
    else:
        half.event("close" if both else "send")


class _Will:
    """What is told of a stream before it ends."""

    @staticmethod
    def ending(stream, final):
        stream._half.ending(*(() if final == "both" else final))

    @staticmethod
    def replied(_stream):
        pass


_WILL = _Will()


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
