"""Packet connections between two Python processes over a socketpair, and what they are measured against.

usage: packet_ends.py PEER LOAD MILLISECONDS     prints exchanges a second, or bytes a second for `1m`

PEER: ours; asyncio, a minimal exchange of the same packets over asyncio's streams; raw, the socketpair alone.
LOAD: sequential, one 32-byte request after the other; outstanding, 100 at once; 1m, 1 MB payloads, four at
once.
"""

import asyncio
import collections
import os
import socket
import subprocess
import sys
from time import perf_counter_ns

AT_ONCE = {"sequential": 1, "outstanding": 100, "1m": 4}
PAYLOAD = {"sequential": b"x" * 32, "outstanding": b"x" * 32, "1m": b"x" * 1_000_000}


def ours_server(sock, load):
    from erlang.packetstream import PacketConnection

    answer = b"y" * 16
    with PacketConnection(sock, request_handler=lambda _type, _flags, _payload: (0, answer)) as connection:
        connection.join()


def ours_client(sock, load, milliseconds):
    from erlang.packetstream import PacketConnection

    payload = PAYLOAD[load]
    with PacketConnection(sock, send_window=16 << 20) as connection:
        if load == "sequential":
            do = connection.do
            return rate(lambda: do(1, 0, payload), milliseconds, 100)
        request = connection.request
        window = collections.deque(request(1, 0, payload) for _ in range(AT_ONCE[load]))

        def exchange():
            window.popleft()()
            window.append(request(1, 0, payload))

        return rate(exchange, milliseconds, 100 if load == "outstanding" else 4)


def rate(exchange, milliseconds, batch):
    """How many times a second it can be called."""
    start = now = perf_counter_ns()
    end = start + milliseconds * 1_000_000
    count = 0
    while now < end:
        for _ in range(batch):
            exchange()
        count += batch
        now = perf_counter_ns()
    return count * 1e9 / (now - start)


def encode(packet_tag, rest):
    """Tags below 128 are enough."""
    body = bytes([packet_tag]) + rest
    return bytes([len(body)]) + body


async def packets(reader):
    """What comes, as it comes: bodies of less than 128 bytes."""
    data = b""
    while piece := await reader.read(65536):
        data += piece
        start = 0
        bodies = []
        while start < len(data) and len(data) - start > data[start]:
            end = start + 1 + data[start]
            bodies.append(data[start + 1 : end])
            start = end
        data = data[start:]
        yield bodies


async def asyncio_server(sock):
    reader, writer = await asyncio.open_connection(sock=sock)
    answer = b"\x04" + b"y" * 16
    async for bodies in packets(reader):
        writer.write(b"".join([encode(body[0], answer) for body in bodies]))
        await writer.drain()


async def asyncio_client(sock, load, milliseconds):
    reader, writer = await asyncio.open_connection(sock=sock)
    rest = b"\x02\x02" + PAYLOAD[load]
    start = now = perf_counter_ns()
    end = start + milliseconds * 1_000_000
    count = 0
    writer.write(b"".join([encode(tag, rest) for tag in range(1, AT_ONCE[load] + 1)]))
    async for bodies in packets(reader):
        count += len(bodies)
        now = perf_counter_ns()
        if now >= end:
            break
        writer.write(b"".join([encode(body[0], rest) for body in bodies]))
        await writer.drain()
    writer.close()
    return count * 1e9 / (now - start)


def raw_server(sock):
    buffer = bytearray(1 << 20)
    while sock.recv_into(buffer):
        pass


def raw_client(sock, milliseconds):
    payload = PAYLOAD["1m"]
    return rate(lambda: sock.sendall(payload), milliseconds, 4)


def main():
    peer, load, milliseconds = sys.argv[1:4]
    if len(sys.argv) > 4:
        sock = socket.socket(fileno=int(sys.argv[4]))
        if peer == "ours":
            ours_server(sock, load)
        elif peer == "asyncio":
            asyncio.run(asyncio_server(sock))
        else:
            raw_server(sock)
        os._exit(0)
    here, there = socket.socketpair()
    command = [sys.executable, __file__, peer, load, milliseconds, str(there.fileno())]
    with subprocess.Popen(command, pass_fds=[there.fileno()]) as server:
        there.close()
        if peer == "ours":
            result = ours_client(here, load, int(milliseconds))
        elif peer == "asyncio":
            result = asyncio.run(asyncio_client(here, load, int(milliseconds)))
        else:
            result = raw_client(here, int(milliseconds))
        here.close()
        server.wait(10)
    print(result * (len(PAYLOAD[load]) if load == "1m" else 1))


main()
