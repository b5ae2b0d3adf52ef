"""Protocols of erlang.reactor that an event loop serves, and those of asyncio where only a reactor is."""

import asyncio
import gc
import logging
import os
import socket
import ssl
import threading
import weakref

import pytest

import erlang
from erlang import reactor, server

LARGE = bytes(range(256)) * 20_000


class Echo(reactor.Protocol):
    def data_received(self, data):
        self.write_buffer += data
        return reactor.WRITE_PENDING


class Told(Echo):
    """Keeps what it is told."""

    def __init__(self):
        self.events = []

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.events.append("made")

    def data_received(self, data):
        self.events.append(bytes(data))
        return super().data_received(data)

    def connection_lost(self):
        self.events.append("lost")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def ask(reader, writer, data):
    writer.write(data)
    return await reader.readexactly(len(data))


async def adopted(factory):
    """A pair: the transport and protocol, and a client of it."""
    ours, theirs = socket.socketpair()
    transport, protocol = await server.adopt(ours.detach(), factory)
    return transport, protocol, *await asyncio.open_connection(sock=theirs)


def test_server_and_client():
    async def main():
        serving = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        address = serving.sockets[0].getsockname()
        clients = [await asyncio.open_connection(*address) for _ in range(20)]
        answers = await asyncio.gather(*[ask(*client, b"%d" % index) for index, client in enumerate(clients)])
        assert answers == [b"%d" % index for index in range(20)]
        assert await ask(*clients[0], LARGE) == LARGE
        # The same as a client.
        transport, protocol = await asyncio.get_running_loop().create_connection(Told, *address)
        assert transport.get_protocol() is protocol
        assert protocol.client_info == {"addr": "127.0.0.1", "port": address[1], "type": "tcp"}
        assert transport.get_extra_info("peername") == address
        for _, writer in clients:
            writer.close()
        transport.close()
        serving.close()
        await serving.wait_closed()

    before = descriptors()
    erlang.run(main())
    assert descriptors() == before


def test_adopted_connection():
    async def main():
        transport, protocol, reader, writer = await adopted(Told)
        assert protocol.client_info == {"type": "unix"}
        assert await ask(reader, writer, b"ping") == b"ping"
        assert not transport.is_closing()
        writer.close()
        await until(lambda: protocol.closed)
        assert protocol.events == ["made", b"ping", "lost"]
        assert transport.is_closing()

    erlang.run(main())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_unix_server(tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        serving = await asyncio.get_running_loop().create_unix_server(Echo, path)
        reader, writer = await asyncio.open_unix_connection(path)
        assert await ask(reader, writer, LARGE) == LARGE
        writer.close()
        serving.close()

    erlang.run(main())


def test_datagrams():
    class Pong(reactor.Protocol):
        def data_received(self, data):
            self.write_buffer += b"pong " + bytes(data)
            return reactor.WRITE_PENDING

    async def main():
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Pong, local_addr=("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.setblocking(False)
            peer.connect(transport.get_extra_info("sockname"))
            peer.send(b"1")
            assert await loop.sock_recv(peer, 100) == b"pong 1"
        transport.close()

    before = descriptors()
    erlang.run(main())
    assert descriptors() == before


def test_half_close():
    class Late(Echo):
        def eof_received(self):
            self.write_buffer += b"end"
            return reactor.CLOSE

    async def main():
        for factory, end in (Echo, b""), (Late, b"end"):
            _, _, reader, writer = await adopted(factory)
            writer.write(LARGE)
            writer.write_eof()
            assert await reader.read() == LARGE + end
            writer.close()

    erlang.run(main())


def test_a_peer_that_does_not_read():
    """What has no room waits, and nothing more is read meanwhile."""

    async def main():
        _, protocol, reader, writer = await adopted(Told)
        writer.write(LARGE * 4)
        await until(lambda: protocol.write_buffer)
        seen = len(protocol.events)
        await asyncio.sleep(0.01)
        assert len(protocol.events) == seen
        assert await reader.readexactly(len(LARGE) * 4) == LARGE * 4
        writer.close()

    erlang.run(main())


def test_close_writes_what_is_left_and_abort_does_not():
    class Speaks(Told):
        def connection_made(self, fd, client_info):
            super().connection_made(fd, client_info)
            self.write_buffer += LARGE

    async def main():
        transport, protocol, reader, writer = await adopted(Speaks)
        transport.close()
        transport.close()
        assert await reader.read() == LARGE
        assert protocol.events[-1] == "lost"
        writer.close()
        transport, protocol, reader, writer = await adopted(Speaks)
        transport.abort()
        assert len(await reader.read()) < len(LARGE)
        assert protocol.events == ["made", "lost"]
        transport.abort()
        writer.close()

    erlang.run(main())


def test_exceptions_end_their_connection():
    class Fails(Echo):
        def data_received(self, data):
            if data == b"fail":
                raise ValueError("on purpose")
            return super().data_received(data)

    async def main():
        reported = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        _, failing, reader, writer = await adopted(Fails)
        _, _, other_reader, other_writer = await adopted(Fails)
        writer.write(b"fail")
        assert await reader.read() == b""
        assert [(type(each["exception"]), each["protocol"]) for each in reported] == [(ValueError, failing)]
        assert "data_received" in reported[0]["message"]
        assert await ask(other_reader, other_writer, b"ping") == b"ping"
        for each in writer, other_writer:
            each.close()

    erlang.run(main())


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop(exception):
    class Ends(Echo):
        def data_received(self, data):
            raise exception

    async def main():
        _, _, reader, writer = await adopted(Ends)
        writer.write(b"end")
        await reader.read()

    with pytest.raises(exception):
        erlang.run(main())


def test_tasks_answer():
    """A protocol starts tasks of the loop, which tell when there is an answer; so does another thread."""

    class Later(reactor.Protocol):
        def data_received(self, data):
            self.task = asyncio.get_running_loop().create_task(self.answer(bytes(data)))
            return reactor.ASYNC_PENDING

        async def answer(self, data):
            await asyncio.sleep(0.001)
            self.write_buffer += data.upper()
            if data == b"thread":
                threading.Thread(target=reactor.signal_write_ready, args=[self.fd]).start()
            else:
                assert reactor.signal_write_ready(self.fd)

    async def main():
        _, _, reader, writer = await adopted(Later)
        for text in b"one", b"thread", b"two":
            assert await ask(reader, writer, text) == text.upper()
        writer.close()

    erlang.run(main())


def test_the_end_of_the_loop_ends_connections():
    protocols = []

    async def main():
        _, protocol, reader, writer = await adopted(Told)
        assert await ask(reader, writer, b"ping") == b"ping"
        protocols.append(protocol)
        writer.close()
        # Not even begun.
        ours, protocols_end = socket.socketpair()
        with protocols_end:
            asyncio.get_running_loop()._make_socket_transport(ours, Told())

    before = descriptors()
    erlang.run(main())
    assert descriptors() == before
    assert protocols[0].events == ["made", b"ping", "lost"]


def test_no_tls():
    async def main():
        ours, theirs = socket.socketpair()
        with theirs, pytest.raises(TypeError, match="cannot have TLS"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            await asyncio.get_running_loop().connect_accepted_socket(Echo, ours, ssl=context)
        ours.close()

    erlang.run(main())


def test_data_that_was_held_comes_before_the_end():
    """A transport of asyncio's that reads again has its data before it is told of the end of the stream."""

    class Paused(asyncio.Protocol):
        def __init__(self):
            self.events = []

        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.events.append(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.001, self.transport.resume_reading)

        def eof_received(self):
            self.events.append("end")

    async def main():
        ours, theirs = socket.socketpair()
        transport, protocol = await server.adopt(ours, Paused)
        with theirs:
            transport._hold(b"held")
            transport._hold(b"held too")
            theirs.send(b"sent")
            theirs.shutdown(socket.SHUT_WR)
            await until(lambda: "end" in protocol.events)
        assert protocol.events == [b"held", b"held too", b"sent", "end"]

    erlang.run(main())


def test_asyncio_protocols_need_a_loop(caplog):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reactor.serve(listener, asyncio.Protocol)
        peer = socket.create_connection(listener.getsockname())
        peer.settimeout(10)

        def wait_for_end():
            assert peer.recv(1) == b""
            peer.close()
            reactor.stop()

        thread = threading.Thread(target=wait_for_end)
        thread.start()
        with caplog.at_level(logging.ERROR, "erlang.reactor"):
            reactor.run()
        thread.join()
    assert "served by an event loop, see erlang.server" in caplog.text
    reactor.set_protocol_factory(asyncio.Protocol)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TypeError, match=r"see erlang\.server"):
        reactor.init_connection(ours.fileno(), {})
    reactor.set_protocol_factory(None)


def test_a_loop_that_is_dropped():
    """It is collected with its connections, whose protocols refer to it, and says so as asyncio's do."""

    class OfLoop(Told):
        def connection_made(self, fd, client_info):
            super().connection_made(fd, client_info)
            self.loop = asyncio.get_running_loop()

    async def begin():
        ours, theirs = socket.socketpair()
        _, protocol = await server.adopt(ours.detach(), OfLoop)
        return weakref.ref(protocol), theirs, protocol.events

    def drop():
        loop = erlang.new_event_loop()
        return weakref.ref(loop), *loop.run_until_complete(begin())

    gc.collect()
    before = descriptors()
    loop, protocol, theirs, events = drop()
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert loop() is None
    assert protocol() is None
    assert events == ["made", "lost"]
    assert theirs.recv(1) == b""
    theirs.close()
    assert descriptors() == before
