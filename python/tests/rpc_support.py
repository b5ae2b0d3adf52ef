"""What the suites of streaming calls share: providers, and ways to reach them."""

import asyncio
import contextlib
import queue
import socket
import struct
import threading

from erlang import cbor, rpc
from erlang.packetstream import PacketConnection

PATIENCE = 30.0  # seconds; only a defect takes so long


def advertise_all():
    """Serve what the tests call."""
    for name, mode, function in _PROVIDERS:
        rpc.advertise(name, function, mode=mode)


def unadvertise_all():
    for name, _ in rpc.list_advertised():
        rpc.unadvertise(name)


@contextlib.contextmanager
def connected(**options):
    """Two connections that are each other's peer, in this process."""
    one, two = socket.socketpair()
    with rpc.connect(one, **options) as first, rpc.connect(two, **options) as second:
        yield first, second


class Endless:
    """A provider that sends for ever, and tells when it has ended."""

    def __init__(self):
        self.made = 0
        self.ended = threading.Event()

    def __call__(self, _args):
        try:
            while True:
                self.made += 1
                yield b"x" * 1000
        finally:
            self.ended.set()


def _count(number):
    for i in range(number):
        yield str(i).encode()
    return {"sent": number}


def _echo(stream):
    for chunk in stream:
        stream.send(chunk)
    return "done"


def _total(chunks, start):
    return start + sum(map(len, chunks))


async def _count_async(number):
    for i in range(number):
        await asyncio.sleep(0)
        yield {"i": i}


async def _echo_async(stream):
    async for chunk in stream:
        await stream.async_send(chunk)
    return "done"


async def _double_async(number):
    await asyncio.sleep(0)
    return 2 * number


def _fail(what):
    raise ValueError(f"no {what}")


def _fail_late(what):
    yield b"first"
    raise rpc.RpcError("late", what)


_PROVIDERS = [
    ("count", "server_stream", _count),
    ("double", "server_stream", lambda number: 2 * number),
    ("total", "client_stream", _total),
    ("echo", "bidi", _echo),
    ("count_async", "server_stream", _count_async),
    ("echo_async", "bidi", _echo_async),
    ("double_async", "server_stream", _double_async),
    ("fail", "server_stream", _fail),
    ("fail_late", "server_stream", _fail_late),
]


def data_packet(number, sequence, *bodies):
    """A packet of chunks of bytes, as it goes over a connection."""
    heads = struct.Struct(">BII")
    parts = [heads.pack(0, max(1, len(chunk)), len(chunk)) + chunk for chunk in bodies]
    return struct.pack(">II", number, sequence) + b"".join(parts)


@contextlib.contextmanager
def raw_peer(take=None, **options):
    """A connection, and a bare packet connection as its peer, with the frames that come to that.

    ``take`` answers them in place of what accepts all calls.
    """
    one, two = socket.socketpair()
    frames = queue.SimpleQueue()

    def note(frame, flags, payload):
        frames.put((frame, payload))
        if take is not None:
            return take(frame, flags, payload)
        return (0, cbor.dumps({"window": 1 << 20, "mode": "bidi"})) if frame == 0x27 else None

    with rpc.connect(one, **options) as connection, PacketConnection(two, request_handler=note) as peer:
        yield connection, peer, frames


def open_call(peer, name, number=0, window=1 << 20):
    """Open a call from such a peer. Returns the answer, or None where the handler of calls has failed."""
    opening = {"stream_id": number, "procedure": name, "mode": "bidi", "args": None, "window": window}
    accepted, _, answer = peer.do(0x27, payload=cbor.dumps(opening))
    return cbor.loads(answer) if accepted else None


def error_frame(frames):
    """The next error that comes to it."""
    while True:
        frame, payload = frames.get(timeout=PATIENCE)
        if frame == 0x2A:
            return cbor.loads(payload)
