"""A chat: every line that somebody writes goes to all others. The first line is one's name.

In a plain python3: `python3 chat_protocol.py 7777`, then `nc 127.0.0.1 7777` twice. In Erlang all connections
of a context are in one room: `factory => {chat_protocol, 'ChatProtocol'}`.

A protocol may write to another's connection: it fills that one's `write_buffer`, and `signal_write_ready` has
the reactor write it, as fast as that client reads.
"""

import sys
from typing import ClassVar

from erlang import reactor

LONGEST_LINE = 4096


class ChatProtocol(reactor.Protocol):
    room: ClassVar[set] = set()
    name = None

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.received = bytearray()
        self.write_buffer += b"Your name?\n"

    def data_received(self, data):
        self.received += data
        while (end := self.received.find(b"\n")) >= 0:
            line = bytes(self.received[:end]).decode(errors="replace").strip()
            del self.received[: end + 1]
            self.line_received(line)
        return reactor.CLOSE if len(self.received) > LONGEST_LINE else reactor.WRITE_PENDING

    def line_received(self, line):
        if self.name is None:
            self.name = line or "somebody"
            self.room.add(self)
            self.tell_others(f"{self.name} has come")
        else:
            self.tell_others(f"{self.name}: {line}")

    def tell_others(self, text):
        for other in self.room - {self}:
            other.tell(text)

    def tell(self, text):
        self.write_buffer += f"{text}\n".encode()
        reactor.signal_write_ready(self.fd)

    def connection_lost(self):
        if self in self.room:
            self.room.discard(self)
            self.tell_others(f"{self.name} has gone")


if __name__ == "__main__":
    print("serving", reactor.serve(("127.0.0.1", int(sys.argv[1])), ChatProtocol), flush=True)
    reactor.run()
