"""What serves the benchmarks of ASGI; a node calls serve() itself.

usage: asgi_peer.py ours|asyncio|uvloop|granian

A hello application under uvicorn, with its class of protocols on httptools, or under granian. The program
prints the port and ends with its standard input.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time

import uvicorn

BODY = b"Hello, world!\n"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))],
}


async def hello(scope, receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": BODY})


async def serve(fd):
    """Serve on a descriptor that listens, until the task is cancelled."""
    config = uvicorn.Config(hello, http="httptools", lifespan="off", log_config=None, access_log=False)
    await uvicorn.Server(config).serve(sockets=[socket.socket(fileno=fd)])


def loop_factory(kind):
    """A class of event loops."""
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    if kind == "ours":
        import erlang

        return erlang.new_event_loop
    return asyncio.SelectorEventLoop


async def until_end_of_input(serving):
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(serving)
    threading.Thread(
        target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(task.cancel)), daemon=True
    ).start()
    await asyncio.wait([task])


def serve_by_granian():
    """One worker, whose HTTP is in Rust, and the application on uvloop."""
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Granian(
        f"{__file__}:hello",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        loop=Loops.uvloop,
        log_enabled=False,
    )
    threading.Thread(target=tell_when_it_listens, args=[port], daemon=True).start()
    threading.Thread(target=end_with_input, daemon=True).start()
    server.serve()


def end_with_input():
    # Not by sys.stdin: its lock would be held in the workers, which are forked.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def tell_when_it_listens(port):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            print(port, flush=True)
            return


def main(kind):
    if kind == "granian":
        return serve_by_granian()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    with asyncio.Runner(loop_factory=loop_factory(kind)) as runner:
        runner.run(until_end_of_input(serve(listener.detach())))


if __name__ == "__main__":
    main(*sys.argv[1:])
