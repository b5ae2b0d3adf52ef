"""erlang.server: asyncio protocols on descriptors of others."""

import asyncio
import os
import socket

import pytest

import erlang
from erlang import server


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


def listener(family=socket.AF_INET, where=("127.0.0.1", 0)):
    sock = socket.socket(family)
    sock.bind(where)
    sock.listen()
    return sock


async def ask(reader, writer, data):
    writer.write(data)
    answer = await reader.readexactly(len(data))
    writer.close()
    return answer


@pytest.mark.parametrize("of_descriptor", [True, False])
def test_serve(of_descriptor):
    async def main():
        sock = listener()
        address = sock.getsockname()
        serving = await server.serve(sock.detach() if of_descriptor else sock, Echo)
        assert await ask(*await asyncio.open_connection(*address), b"ping") == b"ping"
        await server.stop_serving(serving)
        await server.stop_serving(serving)
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)

    erlang.run(main())


def test_serve_unix(tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        serving = await server.serve(listener(socket.AF_UNIX, path).detach(), Echo)
        assert await ask(*await asyncio.open_unix_connection(path), b"ping") == b"ping"
        await server.stop_serving(serving)

    erlang.run(main())


def test_adopt():
    async def main():
        ours, theirs = socket.socketpair()
        transport, protocol = await server.adopt(ours.detach(), Echo)
        assert protocol.transport is transport
        assert await ask(*await asyncio.open_connection(sock=theirs), b"ping") == b"ping"

    erlang.run(main())


def test_what_cannot_be_served_stays_the_callers():
    async def main():
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(ValueError, match="does not listen"):
            await server.serve(ours.fileno(), Echo)
        assert ours.fileno() == -1  # closed by this test, not before
        with listener() as sock, pytest.raises(ValueError, match="no connection"):
            await server.adopt(sock.fileno(), Echo)
        read, write = os.pipe()
        with pytest.raises(ValueError, match="no socket"):
            await server.adopt(read, Echo)
        os.close(read)
        os.close(write)
        with pytest.raises(OSError):
            await server.serve(read, Echo)
        with pytest.raises(TypeError, match="callable"):
            await server.serve(0, None)
        with pytest.raises(TypeError, match="descriptor"):
            await server.serve("socket", Echo)

    erlang.run(main())
