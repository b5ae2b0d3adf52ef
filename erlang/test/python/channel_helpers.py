"""The Python ends of the channels in the suites."""

import asyncio
import contextlib
import gc
import hashlib
import random
import sys
import threading
import time

import erlang


def identity(value):
    return value


def new(max_size=0):
    return erlang.ByteChannel.new(max_size=max_size)


kept = {}


def keep(name, value):
    """Holds something that Erlang lets go of."""
    kept[name] = value


def give(name):
    return kept[name]


def forget(name):
    del kept[name]
    gc.collect()


def receive_kept(name):
    """All from a channel that is kept, and is not from now on."""
    return list(kept.pop(name))


def kept_is_closed(name):
    return kept[name].closed


def use_when_left(name):
    """What a kept channel says when it was seen to be at its end."""
    channel = kept.pop(name)
    assert list(channel) == []

    def outcome(function, *arguments):
        try:
            return function(*arguments)
        except erlang.ByteChannelClosed as error:
            return type(error).__name__

    return [
        outcome(channel.send_bytes, b"x"),
        outcome(channel.try_receive_bytes),
        outcome(channel.receive_many),
        channel.closed,
    ]


def send_kept_channel(name, data):
    return kept[name].send_bytes(data)


def are_same(one, other):
    return one == other and hash(one) == hash(other)


# Ends that wait in threads of their own: what becomes of them is told by a message (name, outcome).


def outcome_of(action):
    try:
        return action()
    except Exception as error:
        return type(error).__name__, str(error)


def in_thread(pid, name, action):
    def run():
        outcome = outcome_of(action)
        erlang.send(pid, (name, outcome))

    threading.Thread(target=run, daemon=True).start()


def thread_receives(pid, name, channel, timeout_ms=-1):
    in_thread(pid, name, lambda: channel.receive_bytes(timeout_ms))


def thread_sends(pid, name, channel, data, timeout_ms=-1):
    in_thread(pid, name, lambda: channel.send_bytes(data, timeout_ms=timeout_ms))


def thread_iterates(pid, name, channel):
    in_thread(pid, name, lambda: list(channel))


# Tasks of an event loop that runs in a thread of its own.

loop = loop_thread = None


def in_loop():
    global loop, loop_thread
    if loop is None:
        loop = asyncio.new_event_loop()
        loop_thread = threading.Thread(target=loop.run_forever, daemon=True)
        loop_thread.start()
    return loop


def end_loop():
    """Leave no thread to the suites that count them."""
    global loop, loop_thread
    if loop is not None:
        loop.call_soon_threadsafe(loop.stop)
        loop_thread.join()
        loop.close()
        loop = loop_thread = None


tasks = {}


def in_task(pid, name, coroutine):
    async def run():
        try:
            outcome = await coroutine
        except asyncio.CancelledError:
            outcome = "cancelled"
        except Exception as error:
            outcome = type(error).__name__, str(error)
        erlang.send(pid, (name, outcome))

    def start():
        tasks[name] = in_loop().create_task(run())

    in_loop().call_soon_threadsafe(start)


def task_receives(pid, name, channel):
    in_task(pid, name, channel.async_receive_bytes())


def task_sends(pid, name, channel, data):
    in_task(pid, name, channel.async_send_bytes(data))


def task_iterates(pid, name, channel):
    async def iterate():
        return [message async for message in channel]

    in_task(pid, name, iterate())


def cancel(name):
    in_loop().call_soon_threadsafe(lambda: tasks[name].cancel())


def task_lives_shortly(channel, milliseconds):
    """A task that waits for a message, and is cancelled soon: the message, or None."""

    async def wait():
        try:
            return await asyncio.wait_for(channel.async_receive_bytes(), milliseconds / 1000)
        except TimeoutError:
            return None

    return asyncio.run(wait())


def many_wait(pid, channel, number):
    """So many tasks wait; the messages that they get are told when all have one."""

    async def wait():
        return await asyncio.gather(*(channel.async_receive_bytes() for _ in range(number)))

    in_task(pid, "many", wait())


# Many that give up, and look again.


def thread_collects(pid, name, channel):
    def collect():
        messages = []
        while True:
            try:
                messages.append(channel.receive_bytes(random.randrange(3)))
            except TimeoutError:
                pass
            except erlang.ByteChannelClosed:
                return messages

    in_thread(pid, name, collect)


def tasks_collect(pid, name, channel):
    """Ten tasks at a time; those that have nothing soon are cancelled."""

    async def collect():
        messages = []

        async def receive():
            messages.append(await channel.async_receive_bytes())

        while True:
            tasks = [asyncio.ensure_future(receive()) for _ in range(10)]
            await asyncio.sleep(random.random() / 500)
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, erlang.ByteChannelClosed):
                    return messages

    in_task(pid, name, collect())


cancelling = threading.Event()


def cancelled_with_messages(pid, channel, number):
    """Tasks wait; the loop does nothing more until all of them have a message, and are cancelled."""
    cancelling.clear()

    async def wait():
        waiting = [asyncio.ensure_future(channel.async_receive_bytes()) for _ in range(number)]
        await asyncio.sleep(0)
        cancelling.wait()
        for task in waiting:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        return sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)

    in_task(pid, "cancelled", wait())


def cancel_them():
    cancelling.set()


def numbered(producer, number):
    return (bytes([producer]) + n.to_bytes(3, "big") for n in range(1, number + 1))


def thread_produces(pid, name, channel, producer, number):
    def produce():
        for message in numbered(producer, number):
            channel.send_bytes(message, timeout_ms=-1)

    in_thread(pid, name, produce)


def task_produces(pid, name, channel, producer, number):
    async def produce():
        for message in numbered(producer, number):
            await channel.async_send_bytes(message)

    in_task(pid, name, produce())


def thread_sends_numbers(pid, name, channel, number):
    """And closes the channel."""

    def send():
        with channel:
            send_number(channel, number)

    in_thread(pid, name, send)


def thread_measures_sending(pid, name, channel, data):
    """How many seconds of CPU time it takes to wait for room."""

    def measure():
        started = time.thread_time()
        channel.send_bytes(data, timeout_ms=-1)
        return time.thread_time() - started

    in_thread(pid, name, measure)


def task_measures_sending(pid, name, channel, data):
    """The same of a task, whose loop has nothing else to do."""

    async def measure():
        started = time.thread_time()
        await channel.async_send_bytes(data)
        return time.thread_time() - started

    in_thread(pid, name, lambda: asyncio.run(measure()))


# Calls that wait.


def receive(channel, timeout_ms=-1):
    return channel.receive_bytes(timeout_ms)


def async_receive(channel):
    return asyncio.run(channel.async_receive_bytes())


def ask_and_receive(name, channel):
    erlang.call(name, channel)
    return channel.receive_bytes()


def receive_all(channel):
    return list(channel)


def send(channel, data, timeout_ms=None):
    return channel.send_bytes(data, timeout_ms=timeout_ms)


def send_number(channel, number):
    for value in range(number):
        channel.send_bytes(b"%d" % value, timeout_ms=-1)


def pump(source, target):
    """Everything from one channel to another; the number of messages, and the digest of what passed."""
    digest = hashlib.blake2b()
    number = 0
    for message in source:
        digest.update(message)
        target.send_bytes(message, timeout_ms=-1)
        number += 1
    target.close()
    return number, digest.digest()


def pump_buffers(source, target):
    """The same without copies."""
    digest = hashlib.blake2b()
    number = 0
    while True:
        try:
            message = source.receive_buffer()
        except erlang.ByteChannelClosed:
            break
        digest.update(message)
        target.send_bytes(bytes(message), timeout_ms=-1)
        number += 1
    target.close()
    return number, digest.digest()


def aborted_because(channel):
    try:
        channel.receive_bytes(0)
    except erlang.ByteChannelAborted as error:
        return error.reason


def each_end(channel, data):
    """What every method says of a channel's end."""

    async def with_tasks():
        outcomes = []
        for action in (channel.async_receive_bytes(), channel.async_send_bytes(data)):
            try:
                outcomes.append(await action)
            except Exception as error:
                outcomes.append(type(error).__name__)
        return outcomes

    actions = [
        lambda: channel.receive_bytes(),
        lambda: channel.receive_buffer(),
        lambda: channel.receive_many(),
        lambda: channel.receive_into(bytearray(10)),
        lambda: channel.try_receive_bytes(),
        lambda: channel.send_bytes(data),
        lambda: channel.send_bytes(data, timeout_ms=-1),
    ]
    outcomes = [outcome_of(action) for action in actions]
    return [outcome[0] if type(outcome) is tuple else outcome for outcome in outcomes] + asyncio.run(
        with_tasks()
    )


# Memory.


def send_kept(channel, name, size):
    kept[name] = bytes(size)
    channel.send_bytes(kept[name])


def references_to(name):
    return sys.getrefcount(kept[name])


def send_pieces(channel, number, size):
    for n in range(number):
        channel.send_bytes(n.to_bytes(8, "big") * (size // 8))


def give_back_memory():
    import ctypes  # which sub-interpreters do not have

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def count(channel):
    return sum(1 for _ in channel)


def same_object_comes_back(channel):
    data = bytes(100000)
    channel.send_bytes(data)
    return channel.receive_bytes() is data


def keep_buffer(name, channel):
    kept[name] = channel.receive_buffer()
    return len(kept[name])


def bytes_of(name):
    return bytes(kept[name])


def changed_after_sending(channel):
    """A bytearray may change as soon as it was sent."""
    data = bytearray(b"a" * 100000)
    channel.send_bytes(data)
    channel.send_bytes(memoryview(data)[:50000])
    data[:] = b"b" * 100000


def buffers_as_bytes(name):
    """What the ways to look into a buffer agree upon."""
    buffer = kept[name]
    return list({bytes(buffer), bytes(memoryview(buffer)), buffer[:], b"".join([buffer])})


def send_odd_memory(channel):
    import array

    channel.send_bytes(memoryview(b"abcdefghijkl")[2:5])
    channel.send_bytes(array.array("H", [1, 2]))
    channel.send_bytes(memoryview(bytes(6)).cast("B", (2, 3)))
    with contextlib.suppress(BufferError):
        channel.send_bytes(memoryview(b"not in one piece")[::2])


def receive_into(channel, size, timeout_ms=-1):
    buffer = bytearray(size)
    return channel.receive_into(buffer, timeout_ms), bytes(buffer)


def copy_with(source, target):
    with source, target:
        for message in source:
            target.send_bytes(message)


def copy_async_with(source, target):
    async def copy():
        async with target:
            async for message in source:
                await target.async_send_bytes(message)

    asyncio.run(copy())


def send_sizes(channel, sizes):
    """Random messages; their digests."""
    digests = []
    for size in sizes:
        data = random.randbytes(size)
        digests.append(hashlib.sha256(data).digest())
        channel.send_bytes(data)
    return digests


def digests(channel):
    return [hashlib.sha256(message).digest() for message in channel]


# Files.


def read_json(channel):
    import json

    with channel.makefile("rb") as file:
        return json.load(file)


def tar_names(channel):
    import tarfile

    with tarfile.open(fileobj=channel.makefile("rb"), mode="r|gz") as archive:
        return [(member.name, len(archive.extractfile(member).read())) for member in archive]


def write_lines(channel, lines):
    with channel.makefile("w") as file:
        file.writelines(lines)


def copy_file(source, target):
    import shutil

    with source.makefile("rb") as reader, target.makefile("wb") as writer:
        shutil.copyfileobj(reader, writer)


def csv_doubled(source, target):
    import csv

    with source.makefile("r", newline="") as reader, target.makefile("w", newline="") as writer:
        csv.writer(writer).writerows([[2 * field for field in row] for row in csv.reader(reader)])
