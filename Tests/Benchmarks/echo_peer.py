"""Echo servers that the reactor is measured against: `echo_peer.py asyncio` or `echo_peer.py uvloop`.

Prints its port, and ends with its standard input.
"""

import asyncio
import sys
import threading


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def serve():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    reader = threading.Thread(
        target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True
    )
    reader.start()
    await ended.wait()


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop

        asyncio.run(serve(), loop_factory=uvloop.new_event_loop) if sys.version_info >= (
            3,
            12,
        ) else uvloop.run(serve())
    else:
        asyncio.run(serve())
