"""Protocols that are driven by hand on a socketpair, as people unit-test them."""

import contextlib
import gc
import os
import socket
import struct
import sys
import threading
import tracemalloc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erlang import reactor

ACTIONS = ["continue", "write_pending", "read_pending", "async_pending", "close"]


class Echo(reactor.Protocol):
    """The complete example of the reactor's documentation."""

    lost = 0

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)

    def data_received(self, data):
        if not data:
            return "close"
        self.write_buffer.extend(data)
        return "write_pending"

    def write_ready(self):
        if not self.write_buffer:
            return "read_pending"
        written = self.write(bytes(self.write_buffer))
        del self.write_buffer[:written]
        if self.write_buffer:
            return "continue"
        return "read_pending"

    def connection_lost(self):
        self.lost += 1


class SimpleHTTP(reactor.Protocol):
    """The documentation's HTTP example."""

    def __init__(self):
        super().__init__()
        self.request_buffer = bytearray()

    def data_received(self, data):
        self.request_buffer.extend(data)
        if b"\r\n\r\n" in self.request_buffer:
            self.handle_request()
            return "write_pending"
        return "continue"

    def handle_request(self):
        request = self.request_buffer.decode("utf-8", errors="replace")
        _method, path, _ = request.split("\r\n")[0].split(" ", 2)
        body = f"Hello! You requested {path}"
        self.write_buffer.extend(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def write_ready(self):
        if not self.write_buffer:
            return "close"
        written = self.write(bytes(self.write_buffer))
        del self.write_buffer[:written]
        return "continue" if self.write_buffer else "close"


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


# on_read_ready, on_write_ready, close_connection, get_protocol


def test_on_read_ready_reads_by_itself(connect):
    seen = []

    class Keeps(reactor.Protocol):
        def data_received(self, data):
            seen.append(data)
            return "continue"

    connection = connect(Keeps)
    assert reactor.on_read_ready(connection.fd) == "continue"
    assert seen == []
    for part in (b"one", b"two", b"three"):
        connection.client.sendall(part)
        reactor.on_read_ready(connection.fd)
    assert seen == [b"one", b"two", b"three"]
    assert all(type(data) is reactor.ReactorBuffer for data in seen)
    assert reactor.on_read_ready(connection.fd, None) == "continue"
    connection.client.close()
    assert reactor.on_read_ready(connection.fd) == "close"
    assert len(seen) == 3


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x"), reactor.ReactorBuffer(b"x")])
def test_on_read_ready_with_data(connect, data):
    connection = connect(Echo)
    assert reactor.on_read_ready(connection.fd, data) == "write_pending"
    assert connection.protocol.write_buffer == b"x"


def test_views_of_received_data_stay(connect):
    views = []

    class Keeps(reactor.Protocol):
        def data_received(self, data):
            views.append(memoryview(data))
            return "continue"

    connection = connect(Keeps)
    for number in range(100):
        connection.client.sendall(bytes([number]) * 1000)
        reactor.on_read_ready(connection.fd)
    assert [bytes(view) for view in views] == [bytes([number]) * 1000 for number in range(100)]


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_handed_through(connect, action):
    class Answers(reactor.Protocol):
        def data_received(self, data):
            return action

        def write_ready(self):
            # Equal, not the same object.
            return "".join(list(action))

    connection = connect(Answers)
    if action == reactor.READ_PENDING:
        # What was written is what is pending: data_received has nothing to say about that.
        with pytest.raises(ValueError, match="read_pending"):
            reactor.on_read_ready(connection.fd, b"x")
    else:
        assert reactor.on_read_ready(connection.fd, b"x") == action
    assert reactor.on_write_ready(connection.fd) == action


@pytest.mark.parametrize("result", [None, True, 1, b"close", "closed", "", "CONTINUE", ["close"], "\ud800"])
def test_wrong_actions(connect, result):
    class Wrong(reactor.Protocol):
        def data_received(self, data):
            return result

        def write_ready(self):
            return result

    connection = connect(Wrong)
    with pytest.raises((TypeError, ValueError), match="data_received"):
        reactor.on_read_ready(connection.fd, b"x")
    with pytest.raises((TypeError, ValueError), match="write_ready"):
        reactor.on_write_ready(connection.fd)


def test_exceptions_come_through(connect):
    class Raises(reactor.Protocol):
        def data_received(self, data):
            raise KeyError("data")

        def write_ready(self):
            raise KeyError("write")

        def connection_lost(self):
            raise KeyError("lost")

    connection = connect(Raises)
    with pytest.raises(KeyError, match="data"):
        reactor.on_read_ready(connection.fd, b"x")
    with pytest.raises(KeyError, match="write"):
        reactor.on_write_ready(connection.fd)
    with pytest.raises(KeyError, match="lost"):
        reactor.close_connection(connection.fd)
    assert reactor.get_protocol(connection.fd) is None
    assert connection.protocol.closed is True


def test_close_connection(connect):
    connection = connect(Echo)
    assert reactor.get_protocol(connection.fd) is connection.protocol
    assert reactor.close_connection(connection.fd) is None
    assert connection.protocol.lost == 1
    assert connection.protocol.closed is True
    assert "closed" in repr(connection.protocol)
    assert reactor.get_protocol(connection.fd) is None
    reactor.close_connection(connection.fd)
    assert connection.protocol.lost == 1
    os.fstat(connection.fd)  # it stays ours, and open
    for function in (reactor.on_read_ready, reactor.on_write_ready):
        with pytest.raises(ValueError, match=str(connection.fd)):
            function(connection.fd)
    assert reactor.signal_write_ready(connection.fd) is False


def test_close_from_inside(connect):
    class Leaves(Echo):
        def data_received(self, data):
            reactor.close_connection(self.fd)
            return "close"

    connection = connect(Leaves)
    assert reactor.on_read_ready(connection.fd, b"x") == "close"
    assert connection.protocol.lost == 1


def test_connection_lost_closes_again(connect):
    class Recursive(Echo):
        def connection_lost(self):
            super().connection_lost()
            reactor.close_connection(self.fd)
            assert reactor.get_protocol(self.fd) is None

    connection = connect(Recursive)
    reactor.close_connection(connection.fd)
    assert connection.protocol.lost == 1


def test_a_reused_number_reaches_the_new_protocol(connect):
    old = connect(Echo)
    new = reactor.init_connection(old.fd, {"n": 2})
    assert reactor.get_protocol(old.fd) is new
    assert old.ask(b"hello") == b"hello"
    assert new.lost == 0
    # The old one ends: the new one, which has its number now, stays.
    reactor.close_connection(old.fd)
    assert (old.protocol.lost, new.lost) == (0, 1)


def test_get_protocol_of_others():
    assert reactor.get_protocol(99_999) is None
    reactor.close_connection(99_999)
    assert reactor.signal_write_ready(99_999) is False


@pytest.mark.parametrize("fd", [-1, "1", None, 1.0, 1 << 31, 1 << 40, 1 << 70, object()])
def test_wrong_descriptors(connect, fd):
    connect(Echo)
    for function in (
        reactor.get_protocol,
        reactor.on_read_ready,
        reactor.on_write_ready,
        reactor.close_connection,
        reactor.signal_write_ready,
        lambda fd: reactor.init_connection(fd, {}),
    ):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            function(fd)


def test_wrong_numbers_of_arguments():
    for function in (
        reactor.set_protocol_factory,
        reactor.get_protocol,
        reactor.init_connection,
        reactor.on_read_ready,
        reactor.on_write_ready,
        reactor.close_connection,
        reactor.signal_write_ready,
    ):
        with pytest.raises(TypeError):
            function()
        with pytest.raises(TypeError):
            function(1, {}, 3)
        with pytest.raises(TypeError):
            function(descriptor=1)
    with pytest.raises(TypeError):
        reactor.init_connection(1, None)
    with pytest.raises(TypeError):
        reactor.Protocol().connection_made()
    with pytest.raises(TypeError):
        reactor.Protocol().read(1, 2)


# Factories


def test_factories_of_all_kinds(connect):
    class Maker:
        def __call__(self):
            return Echo()

        def make(self):
            return Echo()

    for factory in (Echo, lambda: Echo(), Maker(), Maker().make):
        assert connect(factory).ask(b"x") == b"x"


@pytest.mark.parametrize("factory", [1, "Echo", Echo(), object()])
def test_factories_that_are_none(factory):
    with pytest.raises(TypeError, match="callable"):
        reactor.set_protocol_factory(factory)


@pytest.mark.parametrize("made", [None, 1, object(), Echo, {}])
def test_factories_that_make_something_else(made):
    reactor.set_protocol_factory(lambda: made)
    with pytest.raises(TypeError, match=r"Protocol"):
        reactor.init_connection(5, {})
    assert reactor.get_protocol(5) is None


def test_factories_that_raise():
    reactor.set_protocol_factory(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reactor.init_connection(5, {})
    reactor.set_protocol_factory(lambda needed: Echo())
    with pytest.raises(TypeError):
        reactor.init_connection(5, {})


def test_no_factory():
    reactor.set_protocol_factory(None)
    with pytest.raises(RuntimeError, match="set_protocol_factory"):
        reactor.init_connection(5, {})


def test_a_factory_that_sets_another(connect):
    def first():
        reactor.set_protocol_factory(Echo)
        gc.collect()
        return SimpleHTTP()

    assert type(connect(first).protocol) is SimpleHTTP
    assert type(reactor.init_connection(99_998, {})) is Echo
    reactor.close_connection(99_998)


def test_connection_made_that_raises():
    class Raises(Echo):
        def connection_made(self, fd, client_info):
            raise KeyError("made")

    reactor.set_protocol_factory(Raises)
    with pytest.raises(KeyError, match="made"):
        reactor.init_connection(99_997, {})
    assert reactor.get_protocol(99_997) is None


def test_the_same_protocol_twice(connect):
    """A factory that hands out one object is told its mistake, and the first connection goes on."""
    shared = Echo()
    first = connect(lambda: shared)
    with pytest.raises(TypeError, match="served a connection before"):
        connect(lambda: shared)
    assert reactor.get_protocol(first.fd) is shared
    reactor.close_connection(first.fd)
    assert reactor.get_protocol(first.fd) is None


# Subclasses


def test_slots_and_dicts(connect):
    class Slotted(reactor.Protocol):
        __slots__ = ("extra",)

    class Both(Slotted, Echo):
        pass

    class Mixin:
        def data_received(self, data):
            return "close"

    class Mixed(Mixin, reactor.Protocol):
        pass

    slotted = Slotted()
    slotted.extra = 1
    assert slotted.extra == 1
    with pytest.raises(AttributeError):
        slotted.other = 1
    with pytest.raises(AttributeError):
        reactor.Protocol().other = 1
    both = connect(Both).protocol
    both.extra, both.other = 1, 2
    assert connect(Mixed).ask is not None
    assert reactor.on_read_ready(connect(Mixed).fd, b"x") == "close"


def test_multiple_inheritance_from_other_layouts():
    for other in (dict, int, BaseException, reactor.ReactorBuffer):
        with pytest.raises(TypeError):
            type("Odd", (reactor.Protocol, other), {})


def test_methods_that_appear_later(connect):
    class Late(reactor.Protocol):
        pass

    connection = connect(Late)
    assert reactor.on_read_ready(connection.fd, b"x") == "continue"
    Late.data_received = lambda self, data: "close"
    assert reactor.on_read_ready(connection.fd, b"x") == "close"
    connection.protocol.data_received = lambda data: "async_pending"
    assert reactor.on_read_ready(connection.fd, b"x") == "async_pending"
    Late.data_received = None
    del connection.protocol.data_received
    with pytest.raises(TypeError):
        reactor.on_read_ready(connection.fd, b"x")


def test_arguments_of_constructors(connect):
    class Takes(reactor.Protocol):
        def __init__(self, one, *, two):
            self.both = one, two

    assert connect(lambda: Takes(1, two=2)).protocol.both == (1, 2)
    with pytest.raises(TypeError):
        reactor.Protocol(1)


def test_weak_references(connect):
    class Plain(reactor.Protocol):
        pass

    protocol = Plain()
    reference = weakref.ref(protocol)
    assert reference() is protocol
    del protocol
    assert reference() is None
    connection = connect(Plain)
    reference = weakref.ref(connection.protocol)
    del connection.protocol
    gc.collect()
    assert reference() is not None
    reactor.close_connection(connection.fd)
    assert reference() is None


def test_cycles_are_collected(connect):
    class Cyclic(reactor.Protocol):
        pass

    references = []
    for way in range(4):
        protocol = Cyclic()
        if way == 0:
            protocol.me = protocol
        elif way == 1:
            protocol.client_info["me"] = protocol
        elif way == 2:
            protocol.client_info = [protocol]
        else:
            protocol.write_buffer = [protocol]
        references.append(weakref.ref(protocol))
    del protocol
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


def test_classes_are_collected():
    def make():
        class Local(reactor.Protocol):
            def __del__(self):
                deleted.append(True)

        Local().connection_made(1, {})
        return weakref.ref(Local)

    deleted = []
    references = [make() for _ in range(5)]
    gc.collect()
    assert len(deleted) == 5
    assert [reference() for reference in references] == [None] * 5


def test_resurrection():
    class Clings(reactor.Protocol):
        def __del__(self):
            kept.append(self)

    kept = []
    Clings()
    assert kept[0].write_buffer == b""
    assert kept[0].data_received(b"") == "continue"
    kept.clear()


def test_a_class_that_changes():
    class A(reactor.Protocol):
        pass

    class B(reactor.Protocol):
        def data_received(self, data):
            return "close"

    protocol = A()
    protocol.__class__ = B
    assert protocol.data_received(b"") == "close"


# Memory


def one_connection():
    client, server = socket.socketpair()
    with client, server:
        protocol = reactor.init_connection(server.fileno(), {"addr": "1.2.3.4"})
        client.sendall(b"x" * 1000)
        reactor.on_read_ready(server.fileno())
        reactor.on_write_ready(server.fileno())
        protocol.read()
        repr(protocol)
        for wrong in ("x", -1):
            with pytest.raises((TypeError, ValueError)):
                reactor.on_read_ready(wrong)
        reactor.close_connection(server.fileno())


def test_references_do_not_leak():
    info, actions = {"a": 1}, [sys.intern(action) for action in ACTIONS]
    watched = [Echo, reactor.Protocol, reactor.ReactorBuffer, None, info, *actions]
    reactor.set_protocol_factory(Echo)

    def churn():
        for _ in range(100):
            one_connection()
            fd = 99_996
            reactor.init_connection(fd, info)
            reactor.on_read_ready(fd, b"x")
            reactor.close_connection(fd)
            reactor.set_protocol_factory(SimpleHTTP)
            reactor.set_protocol_factory(Echo)
            with pytest.raises(TypeError):
                reactor.set_protocol_factory(1)

    churn()
    gc.collect()
    before = [sys.getrefcount(it) for it in watched]
    churn()
    gc.collect()
    after = [sys.getrefcount(it) for it in watched]
    assert [count for count, old in zip(after, before, strict=True) if abs(count - old) > 20] == []


def test_memory_does_not_grow():
    reactor.set_protocol_factory(Echo)
    for _ in range(100):
        one_connection()
    tracemalloc.start()
    try:
        one_connection()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            one_connection()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_threads():
    """Every thread drives connections of its own."""
    reactor.set_protocol_factory(Echo)
    errors = []

    def drive():
        try:
            for _ in range(100):
                one_connection()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
