"""Protocols for the suites of the reactor. What they have to tell goes to the process in `watcher`."""

import hashlib
import os
import socket
import threading

import erlang
from erlang import reactor

watcher = None
kept = []


def use(name, pid):
    """Make a protocol of this module the factory, and tell its events to a process."""
    global watcher
    watcher = pid
    kept.clear()
    reactor.set_protocol_factory(globals()[name] if name else None)


def tell(*event):
    erlang.send(watcher, event)


def open_pipe():
    return os.pipe()


def open_pair():
    """Two descriptors of a connected pair of Unix sockets."""
    left, right = socket.socketpair()
    return left.detach(), right.detach()


def open_pair_at(number):
    """The other end of a connected pair of Unix sockets, one of which has this number."""
    left, right = open_pair()
    if left == number:
        return right
    if right != number:
        os.dup2(right, number, inheritable=False)
        os.close(right)
    return left


def open_pairs(number):
    return [list(open_pair()) for _ in range(number)]


def write_all(descriptors):
    """Write one byte to each."""
    for fd in descriptors:
        os.write(fd, b"x")


def read_all(descriptors):
    """Read that byte from each, as an Echo returns it."""
    for fd in descriptors:
        assert os.read(fd, 1) == b"x"


class Echo(reactor.Protocol):
    """Echoes natively: the base class's write_ready writes."""

    def data_received(self, data):
        self.write_buffer += data
        return "write_pending"


class Watched(Echo):
    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        tell("made", fd, client_info)

    def connection_lost(self):
        tell("lost", self.fd, self.closed)


class WritesByHand(Watched):
    """Echoes, and writes by itself."""

    def write_ready(self):
        written = self.write(self.write_buffer)
        del self.write_buffer[:written]
        return "continue" if self.write_buffer else "read_pending"


class Receiver(Watched):
    def data_received(self, data):
        tell("data", bytes(data))
        return "continue"


class Told(Watched):
    """Does what the peer says, one command in each piece of data."""

    def data_received(self, data):
        command = bytes(data).decode()
        if command == "raise":
            raise KeyError("data_received raises")
        if command == "nonsense":
            return "nonsense"
        if command == "none":
            return None
        if command == "number":
            return 7
        if command == "read_pending":
            return "read_pending"
        if command.startswith("later "):
            self.later = {"later nonsense": "nonsense", "later none": None, "later number": 7}[command]
            return "write_pending"
        if command.startswith("buffer "):
            self.write_buffer = b"no bytearray"
            return command.removeprefix("buffer ")
        if command == "exit":
            raise SystemExit(3)
        if command == "close":
            self.write_buffer += b"good bye"
            return "close"
        if command == "raise later":
            self.write_buffer += b"x"
            self.fail = True
            return "write_pending"
        if command == "loop":
            tell("looping")
            while True:
                pass
        self.write_buffer += b"did " + bytes(data)
        return "write_pending"

    fail = False
    later = "read_pending"

    def write_ready(self):
        if self.fail:
            raise OSError("write_ready raises")
        if self.later != "read_pending":
            return self.later
        return super().write_ready()


class ToldAtTheEnd(Told):
    """The last command is what eof_received returns."""

    def eof_received(self):
        return {"nonsense": "nonsense", "none": None, "number": 7}[self.last]

    def data_received(self, data):
        self.last = bytes(data).decode()
        tell("last")
        return "continue"


class NoBytearrayWhenMade(Watched):
    def connection_made(self, fd, client_info):
        self.write_buffer = "no bytearray"


class NoBytearrayAtTheEnd(Watched):
    def data_received(self, data):
        self.write_buffer = bytes(data)
        tell("data")
        return "continue"


class RaisesWhenMade(Watched):
    def connection_made(self, fd, client_info):
        raise ValueError("connection_made raises")


class RaisesWhenLost(Echo):
    def connection_lost(self):
        raise ValueError("connection_lost raises")


def no_protocol():
    return object()


def raising_factory():
    raise LookupError("factory raises")


class SpeaksFirst(Watched):
    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.write_buffer += b"welcome"


class Digest(reactor.Protocol):
    """Reads 8 bytes of length and so many bytes, and answers their SHA-256."""

    def __init__(self):
        self.left = None
        self.sha256 = hashlib.sha256()

    def data_received(self, data):
        if self.left is None:
            self.left = int.from_bytes(data[:8], "big")
            data = data[8:]
        self.sha256.update(data)
        self.left -= len(data)
        if self.left > 0:
            return "continue"
        self.write_buffer += self.sha256.digest()
        return "close"


class Source(reactor.Protocol):
    """Sends as many bytes as it is asked for, a block at a time, then their SHA-256."""

    block = bytes(range(256)) * 256

    def data_received(self, data):
        self.left = int.from_bytes(data[:8], "big")
        self.sha256 = hashlib.sha256()
        return "write_pending"

    def write_ready(self):
        if not self.write_buffer:
            if self.left is None:
                return "close"
            if self.left == 0:
                self.left = None
                self.write_buffer += self.sha256.digest()
            else:
                piece = self.block[: self.left]
                self.left -= len(piece)
                self.sha256.update(piece)
                self.write_buffer += piece
        written = self.write(self.write_buffer)
        del self.write_buffer[:written]
        return "continue"


class SignalsItself(Watched):
    """Signals itself before it waits for that, as often as the peer wants."""

    def data_received(self, data):
        self.left = int(bytes(data))
        reactor.signal_write_ready(self.fd)
        return "async_pending"

    def write_ready(self):
        self.left -= 1
        if self.left == 0:
            self.write(b"done")
            return "read_pending"
        reactor.signal_write_ready(self.fd)
        # Other work is done meanwhile, so that the signal arrives while this method runs.
        erlang.call("nothing")
        return "async_pending"


class Deferred(Watched):
    """Answers from another thread."""

    def data_received(self, data):
        threading.Thread(target=self.answer, args=(bytes(data),)).start()
        return "async_pending"

    def answer(self, data):
        self.write_buffer += b"later " + data
        tell("signalled", reactor.signal_write_ready(self.fd))


class Waiting(Watched):
    def data_received(self, data):
        tell("waiting", self.fd)
        return "async_pending"


class Filled(reactor.Protocol):
    """A thread puts as many numbers into write_buffer as the peer wants."""

    def data_received(self, data):
        threading.Thread(target=self.fill, args=(int.from_bytes(data, "big"),)).start()
        return "async_pending"

    def fill(self, count):
        try:
            for number in range(count):
                self.write_buffer += number.to_bytes(4, "big")
                if number % 10 == 9:
                    reactor.signal_write_ready(self.fd)
            tell("filled")
        except BaseException as error:
            tell(repr(error))


class ClosesAnother(Watched):
    """Closes the connection that the peer names, and waits for Erlang before it returns."""

    def data_received(self, data):
        command, _, fd = bytes(data).partition(b" ")
        if command != b"close":
            tell("data", self.fd, bytes(data))
            return "continue"
        reactor.close_connection(int(fd))
        erlang.call("meanwhile")
        tell("closed another")
        return "continue"


class Action(str):
    __slots__ = ()


class Spells(Echo):
    """Echoes, and spells its action as the peer says."""

    def data_received(self, data):
        super().data_received(data)
        actions = {
            b"joined": "".join(["write", "_pending"]),
            b"constant": reactor.WRITE_PENDING,
            b"subclass": Action("write_pending"),
        }
        return actions[bytes(data)]


class Keeper(Watched):
    """Keeps views of what was read beyond the callback."""

    def data_received(self, data):
        kept.append(memoryview(data) if len(kept) % 2 else data)
        tell("kept", len(kept))
        return "continue"


def kept_bytes():
    return b"".join(bytes(piece) for piece in kept)


class Reader(Watched):
    """Uses read() and write() itself."""

    def data_received(self, data):
        more = self.read(10)
        self.write_buffer += bytes(data) + b"|" + more
        return "write_pending"


class BrokenPipe(Watched):
    """Writes to a peer that is gone."""

    def data_received(self, data):
        tell("writing", self.fd)
        return "async_pending"

    def write_ready(self):
        try:
            for _ in range(10000):
                if not self.write(b"x" * 65536):
                    return "continue"
        except OSError as error:
            tell("error", type(error).__name__)
        return "close"


def attributes_of(fd):
    protocol = reactor.get_protocol(fd)
    if protocol is None:
        return None
    return protocol.fd, protocol.closed, protocol.client_info, type(protocol).__name__


# Protocols that call Erlang


class Asks(Watched):
    """Answers with what an Erlang function says, who it is, and how the question ended."""

    def data_received(self, data):
        name = bytes(data).decode()
        tell("asking", name, erlang.self())
        try:
            self.write_buffer += erlang.call(name).encode()
        except BaseException as error:
            tell("failed", name, type(error).__name__)
            raise
        return "write_pending"


class Signalled(Watched):
    """Waits for a signal, and takes its time in the method that writes."""

    def data_received(self, data):
        return "async_pending"

    def write_ready(self):
        tell("writing", erlang.self())
        self.write_buffer += erlang.call("slowly").encode()
        self.write(bytes(self.write_buffer))
        return "read_pending"


class MadeSlowly(Echo):
    """Takes its time, in Python, before there is an instance."""

    def __init__(self):
        tell("making", erlang.self())
        try:
            for _ in range(3_000_000):
                pass
        except BaseException as error:
            tell("failed", "init", type(error).__name__)
            raise
        tell("init over")


class MadeNever(Echo):
    def __init__(self):
        tell("making", erlang.self())
        while True:
            pass
