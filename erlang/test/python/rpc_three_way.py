"""One side of streaming calls between Erlang, Python in the node and Python in a process of its own."""

import asyncio
import socket
import ssl
import sys
import threading

from erlang import rpc

PATIENCE = 30


def advertise(prefix):
    """Serve all modes by names that begin so."""

    def add(name, function, mode="server_stream"):
        rpc.advertise(prefix + name, function, mode=mode)

    add("count", _count)
    add("count_async", _count_async)
    add("double", lambda number: 2 * number)
    add("double_async", _double_async)
    add("total", lambda chunks: sum(map(len, chunks)), "client_stream")
    add("echo", _echo, "bidi")
    add("echo_async", _echo_async, "bidi")
    add("fail", _fail)
    add("endless", _endless)
    add("wait", lambda stream: list(stream), "bidi")
    add("stopped", _stopped, "client_stream")


def use(prefix, connection=None):
    """What calls of all modes bring, as numbers and bytes."""

    def reached(function, name, *arguments, **options):
        return function(prefix + name, *arguments, connection=connection, **options)

    results = []
    for kind in ("", "_async"):
        stream = reached(rpc.call_stream, "count" + kind, 1000)
        results += [b"".join(stream), stream.reply(PATIENCE)]
        results.append(reached(rpc.call, "double" + kind, 21))
        with reached(rpc.open_stream, "echo" + kind) as stream:
            for chunk in (b"a", b"", bytes(100_000), 12, [1, [2, b"x"]]):
                stream.send(chunk, PATIENCE)
                results.append(stream.receive(PATIENCE))
            stream.close_send()
            results += [list(stream), stream.reply(PATIENCE)]
    with reached(rpc.open_stream, "total", mode="client_stream") as stream:
        for _ in range(1000):
            stream.send(bytes(1000), PATIENCE)
        stream.close_send()
        results.append(stream.reply(PATIENCE))
    try:
        reached(rpc.call, "fail", 7)
    except rpc.RpcError as error:
        results += [error.code.encode(), error.message.encode()]
    with reached(rpc.call_stream, "endless") as stream:
        results.append(stream.receive(PATIENCE))
    try:
        reached(rpc.open_stream, "wait", deadline=0.05).reply(PATIENCE)
    except rpc.RpcError as error:
        results.append(error.code.encode())
    try:
        reached(rpc.call, "nothing")
    except rpc.RpcError as error:
        results.append(error.code.encode())
    results.append(asyncio.run(_use_async(prefix, connection)))
    return results


async def _use_async(prefix, connection):
    stream = await rpc.async_open_stream(prefix + "count", 3, connection=connection)
    chunks = [chunk async for chunk in stream]
    return [chunks, await rpc.async_call(prefix + "double", 4, connection=connection)]


def _count(number):
    for i in range(number):
        yield b"%d," % i
    return number


async def _count_async(number):
    for i in range(number):
        yield b"%d," % i
        await asyncio.sleep(0)


async def _double_async(number):
    await asyncio.sleep(0)
    return 2 * number


def _echo(stream):
    for chunk in stream:
        stream.send(chunk)
    return 7


async def _echo_async(stream):
    async for chunk in stream:
        await stream.async_send(chunk)
    return 7


def _fail(number):
    raise rpc.RpcError("bad", f"no {number}")


_made = 0
_ended = threading.Semaphore(0)


def _endless(_args):
    global _made
    try:
        while True:
            _made += 1
            yield b"x" * 1000
    finally:
        _ended.release()


def made():
    """How many chunks endless providers have made."""
    return _made


def ended():
    """Waits until one has ended."""
    return _ended.acquire(timeout=PATIENCE)


_go = threading.Event()


def _stopped(chunks):
    first = chunks.receive()
    _go.wait()
    return len(first) + sum(map(len, chunks))


def go():
    """Has those who have stopped go on."""
    _go.set()


def read_slowly(name, erlang_process, connection=None):
    """Takes one chunk of a stream, tells that, and waits for the rest without an end."""
    import erlang

    for chunk in rpc.call_stream(name, connection=connection):
        erlang.send(erlang_process, len(chunk))


def outcome(name, connection=None):
    """Reads a stream to its end, and returns the code of the error that it ends with."""
    stream = rpc.call_stream(name, connection=connection)
    try:
        for _ in stream:
            pass
        stream.reply(PATIENCE)
    except rpc.RpcError as error:
        return error.code
    return "none"


def _tls(port, roots):
    """A socket whose peer has a certificate of one of those roots."""
    context = ssl.create_default_context(cafile=roots)
    context.check_hostname = False
    # From 3.13 on it asks for extensions that certificates made by Erlang for tests do not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)))


def main(port, roots=None):
    """A process of its own."""
    connection = rpc.connect(_tls(port, roots) if roots else ("127.0.0.1", port))
    advertise("child_")
    rpc.advertise("child_use", lambda prefix: use(_text(prefix), connection))
    rpc.advertise("child_use_itself", lambda prefix: use(_text(prefix)))
    rpc.advertise("child_outcome", lambda name: outcome(_text(name), connection))
    rpc.advertise("child_made", lambda _args: made())
    rpc.advertise("child_ended", lambda _args: ended())
    rpc.advertise("child_go", lambda _args: go())
    rpc.advertise("child_streams", lambda _args: connection.info()["streams"])
    print("ready", flush=True)
    connection.join()
    print("streams", connection.info()["streams"], "threads", threading.active_count(), flush=True)


def _text(name):
    return name.decode() if isinstance(name, bytes) else name


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
