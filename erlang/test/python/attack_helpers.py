"""Programs for py_loop_attack_SUITE: what a context that ends finds its loops at, and what both kinds do."""

import asyncio
import gc
import os
import socket
import threading

import erlang

LARGE = bytes(4 << 20)
LOOPS = {"erlang": erlang.EventLoop, "asyncio": asyncio.SelectorEventLoop}


def in_foreground(name, test, channel):
    """A situation in a loop that a call runs."""
    return erlang.run(globals()[name](test, channel))


# --- what is going on when the context ends: each tells the test so, and does not end by itself


async def awaiting(test, _channel):
    """Tasks wait for one another, for time, for a lock that nobody gives back, and for Erlang."""
    lock, queue = asyncio.Lock(), asyncio.Queue()
    await lock.acquire()
    chain = asyncio.create_task(asyncio.sleep(3600))
    tasks = [chain]
    for _ in range(50):
        chain = asyncio.create_task(_wait_for(chain))
        tasks += [chain, asyncio.create_task(lock.acquire()), asyncio.create_task(queue.get())]
    await asyncio.sleep(0)
    _started(test)
    await asyncio.gather(*tasks)


async def _wait_for(task):
    await asyncio.shield(task)


async def writing(test, _channel):
    """Streams are full of what their peers do not read."""
    pairs = [socket.socketpair() for _ in range(5)]
    writers = []
    for ours, _ in pairs:
        _, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(LARGE)
        writers.append(writer)
    drains = [asyncio.create_task(writer.drain()) for writer in writers]
    await asyncio.sleep(0)
    _started(test)
    try:
        await asyncio.gather(*drains)
    finally:
        for _, theirs in pairs:
            theirs.close()


async def stubborn(test, _channel):
    """A task goes on after each cancellation, and another starts tasks while it is cancelled."""

    async def go_on():
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                asyncio.create_task(go_on())  # noqa: RUF006

    tasks = [asyncio.create_task(go_on()) for _ in range(3)]
    await asyncio.sleep(0)
    _started(test)
    await asyncio.gather(*tasks)


async def resolving(test, _channel):
    """Names are resolved by threads."""
    loop = asyncio.get_running_loop()
    _started(test)
    while True:
        await asyncio.gather(*[loop.getaddrinfo("localhost", port) for port in range(20)])


async def executing(test, channel):
    """Threads of an executor work until Erlang closes the channel; what they come to finds no loop."""
    loop = asyncio.get_running_loop()
    work = [loop.run_in_executor(None, _work, test, channel) for _ in range(3)]
    await asyncio.gather(*work)


def _work(test, channel):
    _started(test)
    for _ in channel:
        pass


async def calling(test, _channel):
    """Eight threads call the loop until it is closed, and tell what they are told then."""
    loop = asyncio.get_running_loop()
    here = threading.Semaphore(0)

    def call():
        try:
            while True:
                loop.call_soon_threadsafe(here.release)
                # What the end finds scheduled is not called any more.
                here.acquire(timeout=0.01)
        except RuntimeError as error:
            erlang.send(test, (erlang.atom("refused"), str(error)))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    _started(test)
    await asyncio.sleep(3600)


async def loop_of_a_thread(test, channel):
    """A thread runs a loop of its own, which nobody closes, until Erlang closes the channel."""

    def run():
        loop = erlang.new_event_loop()
        loop.call_soon(_started, test)
        try:
            loop.run_until_complete(channel.async_receive_bytes())
        except erlang.ByteChannelClosed:
            erlang.send(test, erlang.atom("over"))

    threading.Thread(target=run).start()
    await asyncio.sleep(3600)


def _started(test):
    erlang.send(test, erlang.atom("started"))


# --- the same with loops of both kinds: what was seen


def seen(program, kind):
    """What a program has seen with a kind of loop."""
    notes = []
    globals()[program](LOOPS[kind], notes.append)
    return notes


def _try(note, function, *arguments):
    try:
        note(repr(function(*arguments)))
    except (RuntimeError, TypeError, ValueError) as error:
        note(f"{type(error).__name__}: {error}")


async def _nothing():
    await asyncio.sleep(0)


def _refused(function):
    """What a coroutine is refused by; it is closed then."""

    def call(loop):
        coroutine = _nothing()
        try:
            return function(loop, coroutine)
        finally:
            coroutine.close()

    return call


def closed(new, note):
    """Whatever is asked of a loop that is closed."""
    loop = new()
    future = loop.create_future()
    loop.close()
    for function in [
        lambda: loop.close(),
        lambda: loop.call_soon(int),
        lambda: loop.call_later(1, int),
        lambda: loop.call_at(1, int),
        lambda: loop.call_soon_threadsafe(int),
        lambda: loop.run_forever(),
        lambda: loop.run_until_complete(future),
        lambda: _refused(type(loop).create_task)(loop),
        lambda: _refused(type(loop).run_until_complete)(loop),
        lambda: loop.run_in_executor(None, int),
        lambda: loop.add_reader(0, int),
        lambda: loop.remove_reader(0),
        lambda: loop.add_writer(0, int),
        lambda: loop.remove_writer(0),
        lambda: loop.stop(),
        lambda: loop.is_running(),
        lambda: loop.is_closed(),
        lambda: loop.get_debug(),
        lambda: loop.set_debug(True),
        lambda: loop.get_debug(),
        lambda: loop.set_exception_handler(None),
        lambda: loop.set_task_factory(None),
    ]:
        _try(note, function)


def nested(new, note):
    """A loop, and another one, run by what runs in it."""
    loop, other = new(), new()

    async def main():
        # Not run_forever: where 3.13.0 refuses that, asyncio's own loop forgets that it runs.
        for each in (loop, other):
            _try(note, lambda each=each: _refused(type(each).run_until_complete)(each))
        _try(note, loop.close)
        _try(note, lambda: _refused(lambda _, coroutine: asyncio.run(coroutine))(None))
        note(asyncio.get_running_loop() is loop)

    loop.run_until_complete(main())
    note((loop.is_running(), other.is_running()))
    # Both are as before.
    for each in (other, loop):
        each.run_until_complete(_nothing())
        each.close()


def twice(new, note):
    """Runners one after the other, and one that is used again when it is closed."""

    async def main():
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=new) as runner:
        first = runner.run(main())
        note(runner.run(main()) is first)
    note(first.is_closed())
    with asyncio.Runner(loop_factory=new) as other:
        note(other.run(main()) is first)
    _try(note, lambda: _refused(lambda _, coroutine: runner.run(coroutine))(None))
    _try(note, asyncio.get_running_loop)


def many(new, note):
    """A hundred loops, of which the one is closed, the other collected."""
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        loop = new()
        note(loop.run_until_complete(asyncio.sleep(0, number)))
        if number % 2:
            loop.close()
    del loop
    gc.collect()
    note(len(os.listdir("/proc/self/fd")) <= before)


def of_threads(new, note):
    """Loops of threads that end without closing them."""
    before = len(os.listdir("/proc/self/fd"))

    def run():
        loop = new()
        loop.call_later(3600, print)
        note(loop.run_until_complete(asyncio.sleep(0, "ran")))

    for _ in range(5):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    gc.collect()
    note(len(os.listdir("/proc/self/fd")) <= before)


def from_threads(new, note):
    """Eight threads that call a loop: everything is called, in the order of each."""
    loop = new()
    calls = [[] for _ in range(8)]

    def append(number, turn):
        calls[number].append(turn)
        if sum(map(len, calls)) == 1600:
            loop.stop()

    def call(number):
        for turn in range(200):
            loop.call_soon_threadsafe(append, number, turn)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    loop.close()
    note(calls == [list(range(200))] * 8)


def closed_by_another(new, note):
    """A loop that runs is closed by another thread, and run; then it is closed while others call it."""
    loop = new()
    running = threading.Event()
    loop.call_soon(running.set)
    runner = threading.Thread(target=loop.run_forever)
    runner.start()
    running.wait()
    _try(note, loop.close)
    loop.call_soon_threadsafe(loop.stop)
    runner.join()
    refused = []
    ready = threading.Semaphore(0)

    def call():
        ready.release()
        while not refused:
            try:
                loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                refused.append(str(error))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
        ready.acquire()
    loop.close()
    for caller in callers:
        caller.join()
    note(sorted(set(refused)))


def ends(new, note):
    """What ends a loop, by whom it is raised; and that it can be run afterwards."""
    loop = new()

    def throw(what):
        raise what

    async def main(what):
        await asyncio.sleep(0)
        raise what

    for what in (KeyboardInterrupt(), SystemExit(3)):
        for start in (
            lambda what=what: loop.call_soon(throw, what) and loop.run_forever(),
            lambda what=what: loop.run_until_complete(main(what)),
        ):
            try:
                start()
            except (KeyboardInterrupt, SystemExit) as error:
                note((repr(error), loop.is_running(), loop.is_closed()))
        note(loop.run_until_complete(asyncio.sleep(0, "on")))
    loop.stop()
    loop.call_soon(note, "called once")
    loop.run_forever()
    loop.close()


def reported(new, note):
    """What an exception handler is told."""
    loop = new()
    loop.set_exception_handler(
        lambda _, context: note((context["message"].split(" at ")[0], repr(context["exception"])))
    )
    loop.call_soon(lambda: 1 / 0)
    loop.call_later(0, lambda: {}["absent"])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)

        def read():
            ours.recv(1)
            loop.call_later(0.01, loop.stop)
            raise ValueError("read")

        loop.add_reader(ours, read)
        theirs.send(b"x")
        loop.run_forever()
        loop.remove_reader(ours)
    loop.close()
