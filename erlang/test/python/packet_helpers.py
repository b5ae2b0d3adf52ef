"""Packet connections inside a node."""

import socket

from erlang.packetstream import PacketConnection

_open = []


def round_trips(count, size):
    """Both ends in this context. Returns how many answers were right."""
    one, two = socket.socketpair()
    with (
        one,
        two,
        PacketConnection(one, request_handler=lambda _type, flags, payload: (flags, payload)),
        PacketConnection(two) as connection,
    ):
        results = [connection.request(1, number, bytes(size)) for number in range(count)]
        return sum(result() == (True, number, bytes(size)) for number, result in enumerate(results))


def wait_for_ever():
    """Nobody answers."""
    one, two = socket.socketpair()
    with one, two, PacketConnection(one, close_timeout=0.1) as connection:
        connection.do(1)


def serve(there, back):
    """Answers what comes on one byte channel, on another, until the end."""
    with PacketConnection(there, back, lambda _type, flags, payload: (flags, payload.upper())) as connection:
        connection.join()
    return connection.end


def serve_socket(fd):
    """Begins to serve a descriptor, and returns."""
    _open.append(PacketConnection(fd, request_handler=lambda _type, _flags, payload: payload[::-1]).open())


def close_all():
    """Ends what `serve_socket` has begun."""
    while _open:
        _open.pop().close()


def callback(name):
    """A handler that calls Erlang."""
    import erlang

    one, two = socket.socketpair()
    with (
        one,
        two,
        PacketConnection(one, request_handler=lambda *_: erlang.call(name)),
        PacketConnection(two) as connection,
    ):
        return connection.do(1)
