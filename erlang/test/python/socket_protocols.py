"""Protocols for the suites of sockets. What they have to tell goes to the process in `watcher`."""

import os
import pty
import resource
import socket
import time

import erlang
from erlang import reactor

watcher = None
MEGABYTES = bytes(range(256)) * 4096 * 5


def use(name, pid):
    """Make a protocol of this module the factory, and tell its events to a process."""
    global watcher
    watcher = pid
    reactor.set_protocol_factory(globals()[name] if name else None)


def tell(*event):
    erlang.send(watcher, event)


def megabytes():
    return MEGABYTES


class Told(reactor.Protocol):
    def connection_made(self, fd, client_info):
        tell("made", fd, client_info)

    def connection_lost(self):
        tell("lost", self.fd)


class Echo(Told):
    def data_received(self, data):
        self.write_buffer += data
        return "write_pending"


class Receiver(Told):
    """Tells all that has come so far, each time more comes."""

    def __init__(self):
        self.all = b""

    def data_received(self, data):
        self.all += data
        tell("all", self.all)
        return "continue"


class Datagrams(Told):
    """Tells of each datagram, and answers it in the way that it asks for."""

    def data_received(self, data):
        tell("datagram", bytes(data), self.peer)
        how, _, answer = bytes(data).partition(b":")
        if how == b"write":
            tell("written", self.write(answer))
        elif how == b"to":
            tell("sent", self.send_to(answer, self.peer))
        elif how == b"buffer":
            self.write_buffer += answer
            return "write_pending"
        return "continue"


class DatagramsLater(Told):
    """Answers a datagram when it is signalled, and then only gets the next."""

    def data_received(self, data):
        tell("datagram", bytes(data), self.peer)
        self.write_buffer += data
        return "async_pending"


class Flood(Told):
    """Sends every datagram to itself again, so that there is always one; echoes what comes by a stream."""

    count = 0

    def connection_made(self, fd, client_info):
        self.is_stream = client_info["type"] == "tcp"
        if not self.is_stream:
            super().connection_made(fd, client_info)

    def data_received(self, data):
        if self.is_stream:
            self.write_buffer += data
            return "write_pending"
        self.send_to(data, self.peer)
        self.count += 1
        if self.count == 1000:
            tell("flooded", self.fd)
        return "continue"


class DatagramsByHand(Told):
    """Echoes, and writes by itself."""

    def data_received(self, data):
        self.write_buffer += data
        return "write_pending"

    def write_ready(self):
        self.write(bytes(self.write_buffer))
        self.write_buffer.clear()
        return "read_pending"


class HalfOpen(Told):
    """Writes 5 MB when the peer has sent all, and stays."""

    def data_received(self, data):
        tell("data", bytes(data))
        return "continue"

    def eof_received(self):
        tell("eof")
        self.write_buffer += MEGABYTES
        return "write_pending"


class HalfOpenUntilWritten(HalfOpen):
    def write_ready(self):
        done = super().write_ready() == "read_pending"
        return "close" if done else "continue"


class HalfOpenUntilSignalled(Told):
    """Waits at the end of what the peer sends, and has nothing to write then."""

    def eof_received(self):
        tell("eof")
        return "async_pending"


class Answer(Told):
    """Writes 5 MB for whatever comes."""

    def data_received(self, data):
        self.write_buffer += MEGABYTES
        return "write_pending"


class RaisesAtTheEnd(Told):
    def eof_received(self):
        raise ValueError("eof_received raises")


class EndsSlowly(Told):
    """Takes a tenth of a second at its end, and tells whether it could do so."""

    def connection_lost(self):
        tell("ending")
        is_done = False
        try:
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                pass
            is_done = True
        finally:
            tell("ended", is_done)


class EndsNever(Told):
    def connection_lost(self):
        while True:
            pass


class Later(Told):
    def data_received(self, data):
        self.write_buffer += b"later"
        tell("waiting", self.fd)
        return "async_pending"


class Counter(Told):
    """For an eventfd: the number that was read goes to the watcher, and twice of it is written."""

    def data_received(self, data):
        number = int.from_bytes(data, "little")
        tell("number", number)
        if number == 21:
            self.write_buffer += (2 * number).to_bytes(8, "little")
            return "write_pending"
        return "continue"


def raising_factory():
    tell("refused")
    raise LookupError("the factory raises")


def write_of(fd, data):
    """What `write` of the protocol of a descriptor says; the name of an exception for one."""
    try:
        return reactor.get_protocol(fd).write(data)
    except OSError as error:
        return type(error).__name__


def open_terminal():
    """The two ends of a pseudo terminal that hands on every byte as it is."""
    import tty

    master, slave = pty.openpty()
    tty.setraw(slave)
    return master, slave


def open_stream_pair():
    left, right = socket.socketpair()
    return left.detach(), right.detach()


def open_datagram_pair():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return left.detach(), right.detach()


def shut_down(fd):
    """Shut a socket down by a duplicate of its descriptor, which is closed."""
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def limit_descriptors(more):
    """Let only so many descriptors more be opened; -1 for as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard
    if more >= 0:
        highest = max(int(number) for number in os.listdir("/proc/self/fd"))
        for number in range(highest):
            if not os.path.exists(f"/proc/self/fd/{number}"):
                os.dup2(highest, number, inheritable=False)
        limit = highest + 1 + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
