"""What the suites of streaming calls share: providers, and ways to reach them."""

import asyncio
import contextlib
import socket
import threading

from erlang import rpc

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
