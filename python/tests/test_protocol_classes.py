"""Protocol as a class among Python's classes: subclasses, references, garbage, memory and threads."""

import gc
import socket
import sys
import threading
import tracemalloc
import weakref

import pytest

from documented_protocols import ACTIONS, Echo, SimpleHTTP
from erlang import reactor

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
