"""Protocols of both kinds for py_loop_reactor_SUITE; what they see is told to the process loop_reactor."""

import asyncio

import erlang
from erlang import reactor, server

FLOOD = 16 << 20


def tell(what, *details):
    to = erlang.whereis("loop_reactor")
    if to is not None:
        erlang.send(to, (erlang.atom(what), *details) if details else erlang.atom(what))


class Told(reactor.Protocol):
    """Echoes; `later` by a task of the loop that serves it."""

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.ended = asyncio.get_running_loop().create_future()
        tell("made")

    def data_received(self, data):
        if data == b"later":
            self.task = asyncio.get_running_loop().create_task(self.answer(bytes(data)))
            return reactor.ASYNC_PENDING
        self.write_buffer += data
        return reactor.WRITE_PENDING

    async def answer(self, data):
        await asyncio.sleep(0.001)
        self.write_buffer += data
        reactor.signal_write_ready(self.fd)

    def connection_lost(self):
        if not self.ended.done() and not self.ended.get_loop().is_closed():
            self.ended.set_result(None)
        tell("lost")


async def adopt(fd):
    await server.adopt(fd, Told)


async def serve():
    """Serves one connection."""
    serving = await asyncio.get_running_loop().create_server(Told, "127.0.0.1", 0)
    return serving.sockets[0].getsockname()[1]


def adopt_until_lost(fd):
    async def main():
        _, protocol = await server.adopt(fd, Told)
        while protocol.fd < 0 or not hasattr(protocol, "ended"):
            await asyncio.sleep(0)
        await protocol.ended

    erlang.run(main())


class AsyncioEcho(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        info = transport.get_extra_info("client_info")
        tell("made", info["tenant"], info["addr"])
        assert transport.get_extra_info("peername")[0] == info["addr"]
        asyncio.get_running_loop()

    def data_received(self, data):
        if data == b"fail":
            raise ValueError("on purpose")
        self.transport.write(data)

    def connection_lost(self, exception):
        tell("lost")


class Reversed(asyncio.Protocol):
    def __init__(self, loop):
        self.loop = loop

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.loop.call_later(0.001, self.transport.write, data[::-1])


def with_loop():
    return Reversed(asyncio.get_running_loop())


class AsyncioHalf(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.data = b""

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        asyncio.get_running_loop().call_later(0.001, self.answer)
        return True

    def answer(self):
        self.transport.write(self.data + b" and all")
        self.transport.close()


class AsyncioFlood(asyncio.Protocol):
    """Writes a lot, and closes."""

    def connection_made(self, transport):
        self.transport = transport
        transport.write(bytes(FLOOD))
        transport.close()

    def pause_writing(self):
        tell("paused")

    def resume_writing(self):
        tell("resumed")

    def connection_lost(self, exception):
        tell("lost")


class AsyncioPong(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(b"pong " + data, address)


def fails_with_runtime_error():
    raise RuntimeError("on purpose")


def makes_nothing():
    return {}
