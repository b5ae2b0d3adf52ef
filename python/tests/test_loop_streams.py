"""Streams of erlang.EventLoop: what CPython's own tests of asyncio do not ask."""

import asyncio
import gc
import os
import resource
import socket

import pytest
from loop_support import Collector, pair

import erlang


@pytest.fixture
def loop():
    loop = erlang.new_event_loop()
    yield loop
    loop.close()


def test_writes_of_a_turn_go_out_together():
    async def main():
        transport, _, theirs = await pair()
        with theirs:
            transport.write(b"a")
            transport.writelines([bytearray(b"b"), memoryview(b"c")])
            assert transport.get_write_buffer_size() == 3
            with pytest.raises(BlockingIOError):
                theirs.recv(10)
            await asyncio.sleep(0)
            assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b"abc"
            transport.abort()

    erlang.run(main())


def test_what_is_written_last_goes_out(loop):
    async def main():
        transport, _, theirs = await pair()
        transport.write(b"last words")
        return transport, theirs

    transport, theirs = loop.run_until_complete(main())
    with theirs:
        assert theirs.recv(100) == b"last words"
        transport.write(b"written while nothing runs")
        assert theirs.recv(100) == b"written while nothing runs"
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))


def test_memory_may_be_used_again_after_a_write():
    async def main():
        transport, _, theirs = await pair()
        with theirs:
            data = bytearray(b"before")
            transport.write(data)
            data[:] = b"after!"
            assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b"before"
            transport.abort()

    erlang.run(main())


def test_closing_the_loop_closes_what_it_serves():
    """Whoever refers to the server and its connections yet."""
    loop = erlang.new_event_loop()
    connections = []

    class Kept(asyncio.Protocol):
        def connection_made(self, transport):
            connections.append(transport)
            loop.stop()

    server = loop.run_until_complete(loop.create_server(Kept, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    with socket.create_connection(address) as client:
        loop.run_forever()
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            loop.close()
            assert client.recv(1) == b""
            connections.clear()
            gc.collect()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    assert server.sockets[0].fileno() == -1


def test_flow_control_and_half_close():
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await pair()
        with theirs:
            data = os.urandom(4_000_000)
            transport.write(data)
            transport.write_eof()
            with pytest.raises(RuntimeError):
                transport.write(b"more")
            assert protocol.events == ["pause"]
            received = b""
            while chunk := await loop.sock_recv(theirs, 1 << 20):
                received += chunk
            assert received == data
            assert protocol.events == ["pause", "resume"]
            await loop.sock_sendall(theirs, b"an answer")
            theirs.shutdown(socket.SHUT_WR)
            while "eof" not in protocol.events:
                await asyncio.sleep(0.001)
            assert protocol.data == b"an answer"
            transport.close()
            assert await protocol.over is None

    erlang.run(main())


def test_close_writes_what_is_left_and_abort_does_not():
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await pair()
        with theirs:
            transport.write(b"x" * 1_000_000)
            transport.close()
            count = 0
            while chunk := await loop.sock_recv(theirs, 1 << 20):
                count += len(chunk)
            assert count == 1_000_000
            assert await protocol.over is None
        transport, protocol, theirs = await pair()
        with theirs:
            transport.write(b"x" * 10_000_000)
            transport.abort()
            assert await protocol.over is None
            assert "closed" in repr(transport)

    erlang.run(main())


def test_paused_reading_loses_nothing():
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await pair()
        other, other_protocol, other_theirs = await pair()
        with theirs, other_theirs:
            # Both have data in one poll: the first that gets its own pauses the other.
            protocol.data_received = lambda data: (setattr(protocol, "data", data), other.pause_reading())
            other_protocol.data_received = lambda data: (
                setattr(other_protocol, "data", other_protocol.data + data),
                transport.pause_reading(),
            )
            theirs.send(b"one")
            other_theirs.send(b"two")
            while not (protocol.data or other_protocol.data):
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert b"" in (protocol.data, other_protocol.data)
            transport.resume_reading()
            other.resume_reading()
            while not (protocol.data and other_protocol.data):
                await asyncio.sleep(0)
            assert (protocol.data, other_protocol.data) == (b"one", b"two")
            transport.abort()
            other.abort()
            await loop.create_task(asyncio.sleep(0))

    erlang.run(main())


def test_protocol_that_raises():
    async def main():
        loop = asyncio.get_running_loop()
        reported = []
        loop.set_exception_handler(lambda _, context: reported.append(context))
        _, protocol, theirs = await pair()
        with theirs:
            protocol.data_received = None
            theirs.send(b"x")
            assert isinstance(await protocol.over, TypeError)
        assert "data_received() call failed" in reported[0]["message"]

    erlang.run(main())


def test_peer_that_resets():
    async def main():
        transport, protocol, theirs = await pair()
        transport.write(b"x" * 10_000_000)
        await asyncio.sleep(0)
        theirs.close()
        assert isinstance(await protocol.over, (BrokenPipeError, ConnectionResetError))
        transport.write(b"in vain")

    erlang.run(main())


class Buffered(asyncio.BufferedProtocol):
    def __init__(self):
        self.buffer = bytearray(3)
        self.received = []
        self.over = asyncio.get_running_loop().create_future()

    def get_buffer(self, _hint):
        return self.buffer

    def buffer_updated(self, count):
        self.received.append(bytes(self.buffer[:count]))

    def connection_lost(self, exception):
        self.over.set_result(exception)


def test_buffered_protocol_and_a_change_of_protocols():
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        transport, buffered = await loop.create_unix_connection(Buffered, sock=ours)
        with theirs:
            theirs.send(b"abcdefg")
            while sum(map(len, buffered.received)) < 7:
                await asyncio.sleep(0)
            assert buffered.received == [b"abc", b"def", b"g"]
            plain = Collector()
            transport.set_protocol(plain)
            assert transport.get_protocol() is plain
            theirs.send(b"hij")
            while plain.data != b"hij":
                await asyncio.sleep(0)
        transport.close()
        assert await plain.over is None

    erlang.run(main())


def test_no_descriptors_left():
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, _context: None)
        server = await loop.create_server(Collector, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        client = socket.create_connection(address)
        client.close()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The lowest number that is free, and stays it.
        gc.collect()
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            with pytest.raises(OSError):
                await asyncio.open_connection(*address)
            await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        await writer.wait_closed()
        server.close()

    erlang.run(main())


def test_what_ends_after_it_was_written_may_write():
    async def main():
        transport, protocol, theirs = await pair()

        class Loud(bytes):
            def __del__(self):
                transport.write(b"after" + large)

        large = bytes(1_000_000)
        with theirs:
            transport.write(Loud(b"first"))
            received = b""
            loop = asyncio.get_running_loop()
            while len(received) < 10 + len(large):
                received += await loop.sock_recv(theirs, 1 << 20)
            assert received == b"firstafter" + large
            assert protocol.events == ["pause", "resume"]
            transport.abort()

    erlang.run(main())
