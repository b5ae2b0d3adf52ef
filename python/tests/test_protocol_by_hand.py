"""Protocols that are driven by hand on a socketpair, as people unit-test them."""

import contextlib
import os
import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from documented_protocols import ACTIONS, Echo, SimpleHTTP
from erlang import reactor

# The documentation's examples


def test_echo(connect):
    connection = connect(Echo, addr="127.0.0.1", port=5)
    connection.client.sendall(b"ping")
    assert reactor.on_read_ready(connection.fd) == "write_pending"
    assert reactor.on_write_ready(connection.fd) == "read_pending"
    assert connection.client.recv(10) == b"ping"
    assert connection.protocol.client_info == {"addr": "127.0.0.1", "port": 5}


def test_http(connect):
    connection = connect(SimpleHTTP)
    assert reactor.on_read_ready(connection.fd, b"GET /a HTTP/1.0\r\n") == "continue"
    assert reactor.on_read_ready(connection.fd, b"\r\n") == "write_pending"
    assert reactor.on_write_ready(connection.fd) == "close"
    assert connection.client.recv(1000).endswith(b"\r\n\r\nHello! You requested /a")


@given(st.lists(st.binary(min_size=1, max_size=100_000), max_size=5))
def test_echo_of_anything(parts):
    client, server = socket.socketpair()
    with client, server:
        client.setblocking(False)
        reactor.set_protocol_factory(Echo)
        protocol = reactor.init_connection(server.fileno(), {})
        try:
            unsent, back = b"".join(parts), b""
            expected = unsent
            while len(back) < len(expected):
                if unsent:
                    with contextlib.suppress(BlockingIOError):
                        unsent = unsent[client.send(unsent) :]
                reactor.on_read_ready(server.fileno())
                reactor.on_write_ready(server.fileno())
                with contextlib.suppress(BlockingIOError):
                    back += client.recv(1 << 20)
            assert back == expected
            assert protocol.write_buffer == b""
        finally:
            reactor.close_connection(server.fileno())


# What every protocol has


def test_attributes_before_a_connection():
    protocol = reactor.Protocol()
    assert protocol.fd == -1
    assert protocol.client_info == {}
    assert protocol.write_buffer == bytearray() and type(protocol.write_buffer) is bytearray
    assert protocol.closed is False
    assert reactor.Protocol().write_buffer is not protocol.write_buffer


def test_attributes_without_super(connect):
    seen = []

    class Rude(reactor.Protocol):
        def __init__(self):
            seen.append((self.fd, self.client_info, self.write_buffer, self.closed))

        def connection_made(self, fd, client_info):
            seen.append((fd, client_info, self.fd, self.client_info, self.closed))

        def connection_lost(self):
            seen.append((self.fd, self.closed))

    connection = connect(Rude, a=1)
    protocol = connection.protocol
    assert (protocol.fd, protocol.client_info, protocol.write_buffer) == (connection.fd, {"a": 1}, b"")
    reactor.close_connection(connection.fd)
    assert seen == [
        (-1, {}, b"", False),
        (connection.fd, {"a": 1}, connection.fd, {"a": 1}, False),
        (connection.fd, True),
    ]


def test_actions_are_spelled_as_documented():
    spelled = [
        reactor.CONTINUE,
        reactor.WRITE_PENDING,
        reactor.READ_PENDING,
        reactor.ASYNC_PENDING,
        reactor.CLOSE,
    ]
    assert spelled == ACTIONS


def test_base_class_methods(connect):
    connection = connect(reactor.Protocol)
    protocol = connection.protocol
    assert protocol.data_received(b"x") == "continue"
    assert protocol.write_ready() == "read_pending"
    protocol.write_buffer += b"abc"
    assert protocol.write_ready() == "read_pending"
    assert protocol.write_buffer == b""
    assert connection.client.recv(10) == b"abc"
    assert protocol.connection_lost() is None
    assert protocol.connection_made(connection.fd, {"b": 2}) is None
    assert protocol.client_info == {"b": 2}


def test_the_base_class_writes_what_there_is_room_for(connect):
    connection = connect(reactor.Protocol)
    data = os.urandom(3_000_000)
    connection.protocol.write_buffer += data
    kept = connection.protocol.write_buffer
    back = b""
    while connection.protocol.write_ready() == "continue":
        back += connection.client.recv(1 << 22)
    assert connection.protocol.write_buffer is kept
    while len(back) < len(data):
        back += connection.client.recv(1 << 22)
    assert back == data


def test_write_buffer_of_another_type(connect):
    protocol = connect(reactor.Protocol).protocol
    protocol.write_buffer = b"bytes"
    with pytest.raises(TypeError, match="bytearray"):
        protocol.write_ready()
    del protocol.write_buffer
    with pytest.raises(AttributeError):
        protocol.write_buffer  # noqa: B018
    assert protocol.write_ready() == "read_pending"


def test_write_buffer_that_is_exported(connect):
    """Nobody can shrink a bytearray that a memoryview shows: the rest goes on in another, nothing twice."""
    connection = connect(reactor.Protocol)
    protocol = connection.protocol
    protocol.write_buffer += b"abc"
    with memoryview(protocol.write_buffer) as view:
        assert protocol.write_ready() == "read_pending"
        assert view == b"abc"
    assert protocol.write_ready() == "read_pending"
    assert protocol.write_buffer == b""
    assert connection.client.recv(10) == b"abc"
    connection.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        connection.client.recv(10)


def test_deleted_and_odd_attributes(connect):
    connection = connect(Echo)
    connection.protocol.client_info = None
    connection.protocol.client_info = {"x": 1}
    with pytest.raises(TypeError):
        connection.protocol.fd = "x"
    with pytest.raises(TypeError):
        connection.protocol.closed = "yes"
    with pytest.raises(TypeError):
        del connection.protocol.fd
    assert connection.ask(b"still") == b"still"


def test_repr():
    assert "not connected" in repr(reactor.Protocol())

    class Named(reactor.Protocol):
        pass

    assert "Named" in repr(Named())


# read and write


def test_read(connect):
    connection = connect(reactor.Protocol)
    protocol = connection.protocol
    assert protocol.read() == b""
    connection.client.sendall(b"x" * 100_000)
    assert len(protocol.read(10)) == 10
    assert len(protocol.read()) == 65536
    assert protocol.read(0) == b""
    assert len(protocol.read(1 << 20)) == 100_000 - 10 - 65536
    connection.client.close()
    assert protocol.read() == b""


@pytest.mark.parametrize("size", [-1, "1", None, 1.5, 1 << 70, sys.maxsize])
def test_read_of_a_wrong_size(connect, size):
    with pytest.raises((TypeError, ValueError, OverflowError, MemoryError)):
        connect(reactor.Protocol).protocol.read(size)


def test_write(connect):
    connection = connect(reactor.Protocol)
    for data in (b"ab", bytearray(b"ab"), memoryview(b"ab"), reactor.ReactorBuffer(b"ab")):
        assert connection.protocol.write(data) == 2
        assert connection.client.recv(10) == b"ab"
    assert connection.protocol.write(b"") == 0
    for wrong in ("ab", 1, None, [1]):
        with pytest.raises(TypeError):
            connection.protocol.write(wrong)
    with pytest.raises(TypeError):
        connection.protocol.write()


def test_write_to_a_full_socket(connect):
    connection = connect(reactor.Protocol)
    while connection.protocol.write(b"x" * 65536):
        pass
    assert connection.protocol.write(b"x") == 0
    connection.client.recv(1 << 22)
    assert connection.protocol.write(b"x" * 65536) > 0


def test_nothing_blocks_on_a_blocking_socket(connect):
    connection = connect(reactor.Protocol)
    connection.server.setblocking(True)
    assert connection.protocol.read() == b""
    assert reactor.on_read_ready(connection.fd) == "continue"
    while connection.protocol.write(b"x" * 65536):
        pass
    assert connection.protocol.write(b"x") == 0


def test_write_to_a_peer_that_is_gone(connect):
    connection = connect(Echo)
    connection.client.close()
    with pytest.raises(BrokenPipeError):
        connection.protocol.write(b"x")
    connection.protocol.write_buffer += b"x"
    with pytest.raises(BrokenPipeError):
        reactor.on_write_ready(connection.fd)


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def test_a_peer_that_resets():
    client, server = tcp_pair()
    with server:
        reactor.set_protocol_factory(Echo)
        protocol = reactor.init_connection(server.fileno(), {})
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(ConnectionResetError):
            reactor.on_read_ready(server.fileno())
        with pytest.raises(BrokenPipeError):
            protocol.write(b"x")
        reactor.close_connection(server.fileno())


def test_descriptors_that_are_no_connections():
    protocol = reactor.Protocol()
    with pytest.raises(OSError):
        protocol.write(b"x")
    assert protocol.read() == b""
    protocol.fd = 1 << 20
    with pytest.raises(OSError):
        protocol.write(b"x")


def test_pipes():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    try:
        reactor.set_protocol_factory(reactor.Protocol)
        protocol = reactor.init_connection(writer, {})
        while protocol.write(b"x" * 65536):
            pass
        protocol.fd = reader
        assert protocol.read(10) == b"x" * 10
        reactor.close_connection(writer)
        protocol.fd = writer
        os.close(reader)
        reader = -1
        with pytest.raises(BrokenPipeError):
            protocol.write(b"x")
    finally:
        os.close(writer)
        if reader >= 0:
            os.close(reader)
