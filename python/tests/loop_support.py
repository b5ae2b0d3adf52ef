"""What the suites of event loops share: a protocol that notes what it is told, and a pair that has it."""

import asyncio
import socket


class Collector(asyncio.Protocol):
    """Notes what comes, and lets others wait for the end."""

    def __init__(self):
        self.data = b""
        self.events = []
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return True

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exception):
        self.over.set_result(exception)


async def pair():
    """A transport on a socketpair, its protocol, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_unix_connection(Collector, sock=ours)
    return transport, protocol, theirs
