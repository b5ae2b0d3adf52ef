"""Coroutine functions for py_event_loop_SUITE."""

import asyncio
import contextlib
import threading
import time

import erlang
from erlang import server

seen = []


async def add(a, b=1):
    await asyncio.sleep(0)
    return a + b


def plain(a):
    return a


async def fail(text):
    await asyncio.sleep(0)
    raise ValueError(text)


async def sleep(seconds, value=None):
    await asyncio.sleep(seconds)
    return value


async def cancelled(name):
    """Runs until it is cancelled, and tells Erlang so."""
    erlang.send(erlang.whereis(name), erlang.atom("started"))
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        erlang.send(erlang.whereis(name), erlang.atom("cancelled"))


async def whose():
    async def inner():
        await asyncio.sleep(0)
        return erlang.self()

    await asyncio.sleep(0)
    assert erlang.self() == (await asyncio.gather(inner()))[0]
    return erlang.self()


async def say(text, end="\n"):
    await asyncio.sleep(0)
    print(text, end=end)


async def tell_later(name):
    await asyncio.sleep(0.1)
    erlang.send(erlang.whereis(name), erlang.atom("done"))


async def thread():
    return threading.get_ident()


async def call_sync(name, *arguments):
    return erlang.call(name, *arguments)


async def call_async(name, *arguments):
    return await erlang.async_call(name, *arguments)


async def call_async_within(seconds, name, *arguments):
    try:
        return await asyncio.wait_for(erlang.async_call(name, *arguments), seconds)
    except asyncio.TimeoutError:
        return "timeout"


async def sum_of_calls(name, count):
    return sum(await asyncio.gather(*[erlang.async_call(name, number) for number in range(count)]))


async def numbers(count, pause=0):
    for number in range(count):
        await asyncio.sleep(pause)
        yield number


async def numbers_then_fail(count):
    for number in range(count):
        yield number
    raise KeyError("enough")


async def endless(name):
    """Yields for ever, and tells Erlang when it is closed."""
    try:
        while True:
            await asyncio.sleep(0)
            yield 0
    finally:
        erlang.send(erlang.whereis(name), erlang.atom("closed"))


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


servers = []


async def serve_echo():
    """Serve an echo on the background loop; the port."""
    serving = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    servers.append(serving)
    return serving.sockets[0].getsockname()[1]


async def serve_listener(fd):
    servers.append(await server.serve(fd, Echo))


async def adopt(fd):
    await server.adopt(fd, Echo)


async def stop_serving():
    for serving in servers:
        await server.stop_serving(serving)
    servers.clear()


async def ask(port, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.readexactly(len(data))
    writer.close()
    await writer.wait_closed()
    return answer


def run(function, *arguments):
    """A coroutine function in a loop of its own, in the foreground."""
    return erlang.run(globals()[function](*arguments))


def run_forever_loudly(name):
    """A loop that runs until the call is interrupted."""

    async def main():
        erlang.send(erlang.whereis(name), erlang.atom("started"))
        try:
            await asyncio.sleep(3600)
        finally:
            erlang.send(erlang.whereis(name), erlang.atom("cancelled"))

    return erlang.run(main())


def run_stubborn(name):
    """A loop whose tasks swallow the interruption of the call, and all others."""

    async def spin():
        while True:
            with contextlib.suppress(BaseException):
                for _ in range(1000):
                    pass
                await asyncio.sleep(0)

    async def main():
        tasks = [asyncio.ensure_future(spin()) for _ in range(2)]
        erlang.send(erlang.whereis(name), erlang.atom("started"))
        await asyncio.wait(tasks)

    loop = erlang.new_event_loop()
    return loop.run_until_complete(main())


async def raise_keyboard_interrupt():
    asyncio.get_running_loop().call_soon(_raise, KeyboardInterrupt)
    await asyncio.sleep(0.01)
    return "survived"


def _raise(what):
    raise what


async def receive(channel):
    return await channel.async_receive_bytes()


async def subprocess_output(*command):
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output, process.returncode


def threads():
    return [thread.name for thread in threading.enumerate()]


async def add_signal_handler():
    import signal

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)


async def sleeping(seconds):
    await erlang.sleep(seconds)
    return "slept"


def _tell(name, what):
    erlang.send(erlang.whereis(name), erlang.atom(what))


@contextlib.contextmanager
def _telling(name):
    """Tells Erlang of the beginning, and of an interruption."""
    _tell(name, "started")
    try:
        yield
    except erlang.CallInterrupted:
        _tell(name, "interrupted")
        raise


async def spin(name):
    with _telling(name):
        while True:
            pass


async def spin_for(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


async def gather_spin(name):
    await asyncio.gather(asyncio.sleep(0), spin(name))


async def spinning_generator(name):
    with _telling(name):
        while True:
            pass
    yield


async def sleep_in_vain(name):
    with _telling(name):
        time.sleep(3600)


async def step_until_cancelled(name):
    try:
        _tell(name, "started")
        while True:
            for _ in range(100):
                pass
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        _tell(name, "cancelled")
        raise
    except erlang.CallInterrupted:
        _tell(name, "interrupted")
        raise


stepping = {"count": 0, "on": False}


def begin_stepping():
    stepping.update(count=0, on=True)


def end_stepping():
    stepping["on"] = False


def steps():
    return stepping["count"]


async def step_on(value):
    """Takes steps until it is to end."""
    while stepping["on"]:
        stepping["count"] += 1
        await asyncio.sleep(0)
    return value


async def say_and_tell(text, name):
    print(text)
    _tell(name, "said")


async def say_and_fail(text):
    print(text)
    raise ValueError(text)


async def say_by_part(text):
    await asyncio.create_task(say(text))
