"""Datagrams and pipes of erlang.EventLoop: what CPython's own tests of asyncio do not ask."""

import asyncio
import gc
import os
import resource
import socket
import threading

import pytest
from loop_support import Collector

import erlang


class Datagrams(asyncio.DatagramProtocol):
    """Notes what comes, and lets others wait for it."""

    def __init__(self):
        self.received = []
        self.errors = []
        self.flow = []
        self.changed = asyncio.Event()
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.received.append((data, address))
        self.changed.set()

    def error_received(self, exception):
        self.errors.append(exception)
        self.changed.set()

    def pause_writing(self):
        self.flow.append("pause")

    def resume_writing(self):
        self.flow.append("resume")
        self.changed.set()

    def connection_lost(self, exception):
        self.over.set_result(exception)

    async def until(self, condition):
        while not condition():
            self.changed.clear()
            await self.changed.wait()


class Echo(Datagrams):
    def datagram_received(self, data, address):
        super().datagram_received(data, address)
        self.transport.sendto(data, address)


async def endpoint(kind=Datagrams, **options):
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(kind, **options)
    return transport, protocol


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_there_and_back(host):
    async def main():
        server, echo = await endpoint(Echo, local_addr=(host, 0))
        address = server.get_extra_info("sockname")
        client, answers = await endpoint(remote_addr=address[:2])
        other, others = await endpoint(local_addr=(host, 0))
        for number in range(20):
            client.sendto(str(number).encode())
            other.sendto(bytearray(b"other"), address[:2])
        client.sendto(b"")
        client.sendto(memoryview(b"x" * 60_000), address)
        await answers.until(lambda: len(answers.received) == 22)
        await others.until(lambda: len(others.received) == 20)
        expected = [str(number).encode() for number in range(20)] + [b"", b"x" * 60_000]
        assert [data for data, _ in answers.received] == expected
        assert {source for _, source in answers.received + others.received} == {address}
        sources = {client.get_extra_info("sockname"), other.get_extra_info("sockname")}
        assert {source for _, source in echo.received} == sources
        for transport in (server, client, other):
            transport.close()
        assert await asyncio.gather(echo.over, answers.over, others.over) == [None] * 3

    erlang.run(main())


def test_wrong_addresses_and_data():
    async def main():
        server, _ = await endpoint(Echo, local_addr=("127.0.0.1", 0))
        address = server.get_extra_info("sockname")
        client, answers = await endpoint(remote_addr=address)
        free, protocol = await endpoint(local_addr=("127.0.0.1", 0))
        with pytest.raises(ValueError, match="Invalid address"):
            client.sendto(b"x", ("127.0.0.1", 1))
        for wrong in (17, (1, 2, 3, 4, 5), ("127.0.0.1",), ("127.0.0.1", "http")):
            with pytest.raises((TypeError, ValueError)):
                free.sendto(b"x", wrong)
        with pytest.raises(OverflowError):
            free.sendto(b"x", ("127.0.0.1", 70_000))
        with pytest.raises(TypeError):
            free.sendto("text", address)
        # No address, one of another family, a name that nobody has, and too many bytes: the protocol is told.
        nowhere = [None, ("::1", 9), ("no-such-host.invalid", 9)]
        for data, where in [(b"x", each) for each in nowhere] + [(b"x" * 70_000, address)]:
            seen = len(protocol.errors)
            free.sendto(data, where)
            await protocol.until(lambda seen=seen: len(protocol.errors) > seen)
        assert all(isinstance(error, OSError) for error in protocol.errors)
        free.sendto(b"by name", ("localhost", address[1]))
        client.sendto(b"goes on", addr=address)
        await protocol.until(lambda: protocol.received)
        await answers.until(lambda: answers.received)
        for transport in (server, client, free):
            transport.close()
            transport.close()
            transport.sendto(b"in vain")

    erlang.run(main())


def test_error_of_a_peer_that_is_gone():
    async def main():
        gone = socket.socket(type=socket.SOCK_DGRAM)
        gone.bind(("127.0.0.1", 0))
        client, protocol = await endpoint(remote_addr=gone.getsockname())
        gone.close()
        client.sendto(b"anybody?")
        await protocol.until(lambda: protocol.errors)
        assert isinstance(protocol.errors[0], ConnectionRefusedError)
        assert not client.is_closing()
        client.abort()
        assert await protocol.over is None

    erlang.run(main())


def test_broadcast_and_a_shared_port():
    async def main():
        first, one = await endpoint(local_addr=("127.0.0.1", 0), reuse_port=True)
        address = first.get_extra_info("sockname")
        second, _ = await endpoint(local_addr=address, reuse_port=True)
        sender, protocol = await endpoint(family=socket.AF_INET, allow_broadcast=True)
        assert sender.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        sender.sendto(b"to all", ("<broadcast>", 9))
        silent, refused = await endpoint(family=socket.AF_INET)
        silent.sendto(b"to all", ("255.255.255.255", 9))
        await refused.until(lambda: refused.errors)
        assert isinstance(refused.errors[0], PermissionError)
        assert not any(isinstance(error, PermissionError) for error in protocol.errors)
        for transport in (first, second, sender, silent):
            transport.close()
        await one.over

    erlang.run(main())


@pytest.mark.parametrize("connected", [False, True])
def test_unix_datagrams_and_flow_control(tmp_path, connected):
    """A receiver that is full holds the sender up, and nothing is lost."""
    path = str(tmp_path / "receiver")

    async def main():
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(path)
        receiver.setblocking(False)
        options = {"remote_addr": path} if connected else {"local_addr": str(tmp_path / "sender")}
        sender, protocol = await endpoint(family=socket.AF_UNIX, **options)
        where = None if connected else path
        data = [b"%04d" % number + b"x" * 2_000 for number in range(400)]
        for each in data:
            sender.sendto(each, where)
        assert protocol.flow == ["pause"]
        assert sender.get_write_buffer_size() > 64 * 1024
        received = []
        with receiver:
            while len(received) < len(data):
                received.append(await asyncio.get_running_loop().sock_recv(receiver, 10_000))
            assert received == data
            await protocol.until(lambda: protocol.flow == ["pause", "resume"])
        sender.close()
        assert await protocol.over is None

    erlang.run(main())


def test_large_unix_datagrams():
    async def main():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        transport, protocol = await endpoint(sock=ours)
        with theirs:
            theirs.setblocking(False)
            for size in (150_000, 1, 0):
                theirs.send(b"x" * size)
            await protocol.until(lambda: len(protocol.received) == 3)
            assert [len(data) for data, _ in protocol.received] == [150_000, 1, 0]
            assert {source for _, source in protocol.received} == {None}
        transport.close()

    erlang.run(main())


def test_what_is_sent_last_goes_out():
    loop = erlang.new_event_loop()
    receiver = socket.socket(type=socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(10)

    async def main():
        transport, _ = await endpoint(remote_addr=receiver.getsockname())
        transport.sendto(b"last words")
        return transport

    with receiver:
        transport = loop.run_until_complete(main())
        assert receiver.recv(100) == b"last words"
        transport.sendto(b"while nothing runs")
        assert receiver.recv(100) == b"while nothing runs"
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_exceptions_of_a_datagram_protocol():
    """They are reported, and end nothing; what comes with others in one read is not lost."""

    async def main():
        reported = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        receiver, protocol = await endpoint(local_addr=("127.0.0.1", 0))
        seen = protocol.datagram_received

        def refuse(data, address):
            seen(data, address)
            raise ZeroDivisionError(data)

        protocol.datagram_received = refuse
        sender, _ = await endpoint(remote_addr=receiver.get_extra_info("sockname"))
        for number in range(5):
            sender.sendto(b"%d" % number)
        await protocol.until(lambda: len(protocol.received) == 5)
        await asyncio.sleep(0)
        assert [context["exception"].args[0] for context in reported] == [b"0", b"1", b"2", b"3", b"4"]
        assert "datagram_received() failed" in reported[0]["message"]
        sender.close()
        receiver.close()

    erlang.run(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_datagrams_survive_an_end_of_the_loop(kind):
    loop = erlang.new_event_loop()

    async def begin():
        receiver, protocol = await endpoint(local_addr=("127.0.0.1", 0))
        seen = protocol.datagram_received

        def end(data, address):
            seen(data, address)
            if data == b"1":
                raise kind

        protocol.datagram_received = end
        sender, _ = await endpoint(remote_addr=receiver.get_extra_info("sockname"))
        return receiver, sender, protocol

    receiver, sender, protocol = loop.run_until_complete(begin())
    for number in range(5):
        loop.call_soon(sender.sendto, b"%d" % number)
    with pytest.raises(kind):
        loop.run_forever()
    loop.run_until_complete(protocol.until(lambda: len(protocol.received) == 5))
    assert [data for data, _ in protocol.received] == [b"0", b"1", b"2", b"3", b"4"]
    sender.close()
    receiver.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


# --- pipes


async def pipe():
    """The transports of both ends of a pipe, and their protocols."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    reader, received = await loop.connect_read_pipe(Collector, os.fdopen(reading, "rb", 0))
    writer, written = await loop.connect_write_pipe(Collector, os.fdopen(writing, "wb", 0))
    return reader, received, writer, written


def test_pipes_and_flow_control():
    async def main():
        reader, received, writer, written = await pipe()
        data = os.urandom(3_000_000)
        reader.pause_reading()
        writer.write(data)
        assert written.events == ["pause"]
        assert writer.get_write_buffer_size() > 1_000_000
        reader.resume_reading()
        writer.writelines([b"the", bytearray(b" "), memoryview(b"end")])
        # Of a pipe that is all.
        writer.write_eof()
        assert writer.is_closing()
        writer.write(b"in vain")
        assert await received.over is None
        assert await written.over is None
        assert received.data == data + b"the end"
        assert received.events == ["eof"]
        assert written.events == ["pause", "resume"]

    erlang.run(main())


def test_reader_that_goes():
    async def main():
        reader, received, writer, written = await pipe()
        reader.close()
        assert await received.over is None
        # Nothing was to be written: that is no error.
        assert await written.over is None
        reader, received, writer, written = await pipe()
        reader.pause_reading()
        writer.write(b"x" * 1_000_000)
        reader.abort()
        assert isinstance(await written.over, BrokenPipeError)
        with pytest.raises(RuntimeError, match="only reads"):
            reader.write(b"x")

    erlang.run(main())


def test_what_is_no_pipe(tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        with open(tmp_path / "file", "wb") as file:
            for connect in (loop.connect_read_pipe, loop.connect_write_pipe):
                with pytest.raises(ValueError, match="only for pipes"):
                    await connect(Collector, file)
        with open(os.devnull, "wb", 0) as null:
            transport, protocol = await loop.connect_write_pipe(Collector, null)
            transport.write(b"x" * 1_000_000)
            transport.close()
            assert await protocol.over is None

    erlang.run(main())


# --- what the system refuses, and the end


def test_no_descriptor_to_accept_with():
    """The server tells of it, waits a second, and accepts who came meanwhile."""

    async def main():
        loop = asyncio.get_running_loop()
        refused = loop.create_future()

        def note(_loop, context):
            if not refused.done():
                refused.set_result(context)

        loop.set_exception_handler(note)

        async def greet(_reader, writer):
            writer.write(b"welcome")
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        client = socket.socket()
        client.setblocking(False)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        gc.collect()
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            await loop.sock_connect(client, server.sockets[0].getsockname())
            context = await refused
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert isinstance(context["exception"], OSError)
        assert "out of system resource" in context["message"]
        assert await loop.sock_recv(client, 100) == b"welcome"
        client.close()
        server.close()

    erlang.run(main())


def test_ten_thousand_tasks_are_cancelled():
    async def sleep(ended):
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(1)

    async def main(ended):
        tasks = [asyncio.create_task(sleep(ended)) for _ in range(10_000)]
        _, writer = await asyncio.open_connection(sock=ours)
        transport, _ = await endpoint(local_addr=("127.0.0.1", 0))
        await asyncio.sleep(0)
        writer.close()
        transport.close()
        assert len(asyncio.all_tasks()) == len(tasks) + 1

    gc.collect()
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    ours, theirs = socket.socketpair()
    with theirs:
        ended = []
        erlang.run(main(ended))
        assert len(ended) == 10_000
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, asyncio.Task)]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads
