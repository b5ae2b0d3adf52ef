"""What event loops are measured by: `loop_peer.py ours|asyncio|uvloop PROGRAM ARGUMENT`.

`serve protocol` and `serve streams` are echo servers, which print their port and end with their standard
input; `call_soon`, `timers` and `tasks` run for so many milliseconds and print a rate.
"""

import asyncio
import sys
import threading


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def stream_echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def trivial():
    pass


async def serve(style):
    loop = asyncio.get_running_loop()
    if style == "streams":
        server = await asyncio.start_server(stream_echo, "127.0.0.1", 0, backlog=1024)
    else:
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    reader = threading.Thread(
        target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True
    )
    reader.start()
    await ended.wait()


async def call_soon(milliseconds):
    """Callbacks that schedule the next, twenty at a time."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    count = 0

    def step():
        nonlocal count
        count += 1
        if count % 1000 or loop.time() < end:
            loop.call_soon(step)
        elif not done.done():
            done.set_result(None)

    began = loop.time()
    end = began + int(milliseconds) / 1000
    for _ in range(20):
        loop.call_soon(step)
    await done
    print(count / (loop.time() - began))


async def timers(milliseconds):
    """Timers that are cancelled, and as many that are not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    end = began + int(milliseconds) / 1000
    count = 0
    while loop.time() < end:
        for handle in [loop.call_later(10 + number / 1000, int) for number in range(1000)]:
            handle.cancel()
        done = loop.create_future()
        for number in range(1000):
            loop.call_later(number * 1e-7, int)
        loop.call_later(1e-4, done.set_result, None)
        await done
        count += 2000
    print(count / (loop.time() - began))


async def tasks(milliseconds):
    """Tasks, a thousand at a time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    end = began + int(milliseconds) / 1000
    count = 0
    while loop.time() < end:
        await asyncio.gather(*[asyncio.sleep(0) for _ in range(1000)])
        count += 1000
    print(count / (loop.time() - began))


def main(kind, program, argument):
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    elif kind == "ours":
        import erlang

        factory = erlang.EventLoop
    else:
        factory = asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(globals()[program](argument))


if __name__ == "__main__":
    main(*sys.argv[1:])
