"""The functions of erlang.reactor by which somebody else than the reactor drives protocols, and factories."""

import gc
import os

import pytest

from documented_protocols import ACTIONS, Echo, SimpleHTTP
from erlang import reactor

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
