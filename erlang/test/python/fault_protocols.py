"""Protocols for the suites that look at what is left: they count their connections."""

import gc
import os
import resource

from erlang import reactor

ANSWER = bytes(range(256)) * 4096 * 50
# What was counted is the length: append() is one step, whatever thread does it and whatever interrupts that.
made = bytearray()
lost = bytearray()
twice = bytearray()
forgotten = bytearray()
fillers = []


class Counted(reactor.Protocol):
    """Echoes, after a first byte `E`; after an `A` it answers 50 MB, and then echoes."""

    is_made = False
    is_lost = False
    is_asked = False

    def connection_made(self, fd, client_info):
        self.is_made = True
        made.append(0)

    def data_received(self, data):
        if not self.is_asked:
            self.is_asked = True
            if data[:1] == b"A":
                self.write_buffer += ANSWER
            data = data[1:]
        self.write_buffer += data
        return "write_pending"

    def connection_lost(self):
        if self.is_lost:
            twice.append(0)
        self.is_lost = True
        lost.append(0)

    def __del__(self):
        if self.is_made and not self.is_lost:
            forgotten.append(0)


def answer():
    return ANSWER


def counted():
    """How many connections have begun, ended, ended twice and not at all, and how many protocols exist."""
    gc.collect()
    alive = sum(isinstance(thing, Counted) for thing in gc.get_objects())
    return len(made), len(lost), len(twice), len(forgotten), alive


def use_up_descriptors():
    """Leave no descriptor to be opened, until give_back_descriptors()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        while True:
            fillers.append(os.dup(0))
    except OSError:
        pass


def give_back_descriptors():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    while fillers:
        os.close(fillers.pop())
