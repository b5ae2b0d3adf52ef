"""A protocol that hands its connection to asyncio when the client says `async`, and echoes lines until then.

The reactor's descriptor stays the reactor's: asyncio gets a duplicate, and the connection lives as long as
one of them does. asyncio runs in a thread of its own. In a plain python3: `python3 asyncio_protocol.py 7777`.
"""

import asyncio
import os
import socket
import sys
import threading
from functools import cache

from erlang import reactor


class AsyncioProtocol(reactor.Protocol):
    def data_received(self, data):
        if bytes(data).strip() != b"async":
            self.write_buffer.extend(data)
            return reactor.WRITE_PENDING
        connection = socket.socket(fileno=os.dup(self.fd))
        asyncio.run_coroutine_threadsafe(serve(connection), loop())
        return reactor.CLOSE


async def serve(connection):
    """Answer lines in upper case, each after a moment, until the client has said all."""
    connection.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        writer.write(b"asyncio is here\n")
        while line := await reader.readline():
            await asyncio.sleep(0.001)
            writer.write(line.upper())
            await writer.drain()
    finally:
        writer.close()


@cache
def loop():
    """The event loop, made with its thread when it is first needed."""
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, name="asyncio", daemon=True).start()
    return made


if __name__ == "__main__":
    print("serving", reactor.serve(("127.0.0.1", int(sys.argv[1])), AsyncioProtocol), flush=True)
    reactor.run()
