"""Two protocols that return a ball to each other, and count what the core allocates meanwhile."""

import os
import socket

import erlang
import preload
from erlang import reactor

WARM_UP = 2_000
MEASURED = 10_000
watcher = None


def use(name, pid):
    global watcher
    watcher = pid
    reactor.set_protocol_factory(globals()[name])


class Player(reactor.Protocol):
    """The base class writes."""

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.count = 0

    def data_received(self, data):
        self.count += 1
        if self.count == WARM_UP:
            self.before = preload.allocations()
        if self.count == WARM_UP + MEASURED:
            erlang.send(watcher, ("allocated", preload.allocations() - self.before))
            return "continue"
        self.write_buffer += data
        return "write_pending"


class Writer(Player):
    """Writes by itself."""

    def write_ready(self):
        written = self.write(self.write_buffer)
        del self.write_buffer[:written]
        return "read_pending"


class Sender(Player):
    """Sends each datagram by itself."""

    def write_ready(self):
        self.write(self.write_buffer)
        self.write_buffer.clear()
        return "read_pending"


def open_streams():
    left, right = socket.socketpair()
    return left.detach(), right.detach()


def open_datagrams():
    """Two UDP sockets, the first of which has got a ball from the other."""
    left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for one in (left, right):
        one.bind(("127.0.0.1", 0))
    right.sendto(b"x" * 64, left.getsockname())
    return left.detach(), right.detach()


def allocate(number):
    """What so many allocations are counted as."""
    before = preload.allocations()
    for _ in range(number):
        bytes(10_000)
    return preload.allocations() - before


def throw(fd):
    os.write(fd, b"x" * 64)
