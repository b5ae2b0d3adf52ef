"""Protocols that keep a context busy with nobody's help: both ends of their connections are served there.

So what they show does not depend on how fast some client is.
"""

import ctypes
import os
import socket
import threading

import erlang
from erlang import reactor

is_over = False
gate = threading.Event()
counts = {"rally": 0, "hose": 0, "echo": 0}


def begin():
    global is_over
    is_over = False
    gate.clear()
    counts.update(dict.fromkeys(counts, 0))


def end():
    """Have everything that is on its way go no further."""
    global is_over
    is_over = True


def count_of(plays):
    return counts[plays]


class Player(reactor.Protocol):
    """What it plays is in client_info.

    ``rally``: it returns what comes. ``hose``: one end writes all that there is room for, the other drops it.
    ``echo``: it returns what its client sends. The end that serves begins.
    """

    block = bytes(1 << 20)

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.plays = client_info["plays"]
        if client_info.get("serves"):
            self.write_buffer += b"o"

    def data_received(self, data):
        counts[self.plays] += 1
        if self.plays == "hose" or is_over:
            return "continue"
        self.write_buffer += data
        return "write_pending"

    def write_ready(self):
        if self.plays != "hose":
            return super().write_ready()
        self.write_buffer.clear()
        self.write(self.block)
        return "read_pending" if is_over else "continue"


def open_pair():
    left, right = socket.socketpair()
    return left.detach(), right.detach()


def hold_lock(path, pid):
    """Keep the GIL, in native code, until somebody opens the fifo at `path` to write."""
    os.mkfifo(path)
    erlang.send(pid, "holding")
    os.close(ctypes.PyDLL(None).open(os.fsencode(path), os.O_RDONLY))
    os.unlink(path)


def pass_gate():
    """Keep the context until open_gate()."""
    gate.wait()


def open_gate():
    gate.set()


def note():
    return counts["rally"]
