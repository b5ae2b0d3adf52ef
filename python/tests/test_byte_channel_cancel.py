"""Tasks that wait for byte channels and are cancelled, and loops that end: nothing is lost or left."""

import asyncio
import contextlib
import errno
import gc
import random
import resource
import weakref

import pytest
from byte_channel_support import (
    Running,
    cancel,
    descriptors,
    eventually,
    output,
    run,
    started,
    threads,
    until_waiting,
    waiting,
)

from erlang import ByteChannel, ByteChannelAborted, ByteChannelClosed

pytestmark = pytest.mark.usefixtures("every_loop")

# --- cancelling ---------------------------------------------------------------------------------


def test_a_cancelled_receiver_takes_nothing():
    async def main():
        channel = ByteChannel.new()
        first, second = await started(channel, [channel.async_receive_bytes() for _ in range(2)])
        await cancel(first)
        assert channel.info()["waiting_receivers"] == 1
        channel.send_bytes(b"1")
        assert await second == b"1"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.async_receive_bytes(), 0.001)
        assert channel.info()["waiting_receivers"] == 0
        channel.send_bytes(b"2")
        assert channel.try_receive_bytes() == b"2"

    run(main())


def test_a_message_that_came_for_a_cancelled_task_is_the_next():
    async def main():
        channel = ByteChannel.new()
        first, second = await started(channel, [channel.async_receive_bytes() for _ in range(2)])
        channel.send_bytes(b"1")  # it is the first's, which does not know it yet
        await cancel(first)
        assert await second == b"1"

    run(main())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_messages_of_several_cancelled_tasks_keep_their_order(order):
    async def main():
        channel = ByteChannel.new()
        tasks = await started(channel, [channel.async_receive_bytes() for _ in range(3)])
        for number in range(5):
            channel.send_bytes(b"%d" % number)
        await cancel(*(tasks[index] for index in order))
        assert channel.info()["messages_out"] == 0
        assert [channel.try_receive_bytes() for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]

    run(main())


def test_a_cancelled_sender_has_not_sent():
    async def main():
        channel = ByteChannel.new(max_size=3)
        channel.send_bytes(b"111")
        data = [b"22", b"333", b"4"]
        tasks = await started(channel, [channel.async_send_bytes(one) for one in data], senders=True)
        await cancel(tasks[1])
        assert channel.try_receive_bytes() == b"111"
        # Now it is the first's turn, which does not know it yet.
        await cancel(tasks[0])
        assert await tasks[2] is True
        assert channel.receive_many() == [b"4"]
        assert channel.info()["messages_in"] == 2

    run(main())


def test_who_waits_behind_a_cancelled_sender_has_its_turn():
    channel = ByteChannel.new(max_size=3)
    channel.send_bytes(b"11")

    async def main():
        (large,) = await started(channel, [channel.async_send_bytes(b"333")], senders=True)
        small = Running(channel.send_bytes, b"1", timeout_ms=-1)
        await asyncio.to_thread(until_waiting, channel, senders=2)
        await cancel(large)
        assert await asyncio.to_thread(small.result) is True

    run(main())


def test_a_sender_that_has_its_turn_when_the_channel_ends():
    async def main(end, error):
        channel = ByteChannel.new(max_size=1)
        channel.send_bytes(b"1")
        tasks = await started(channel, [channel.async_send_bytes(b"%d" % n) for n in range(3)], senders=True)
        assert channel.receive_bytes() == b"1"
        getattr(channel, end)()
        for task in tasks:
            with pytest.raises(error):
                await task
        assert channel.info()["messages_in"] == 1

    run(main("close", ByteChannelClosed))
    run(main("abort", ByteChannelAborted))


@pytest.mark.parametrize("seed", range(3))
def test_receivers_that_are_cancelled_at_any_moment_lose_nothing(seed):
    randomness = random.Random(seed)
    channel = ByteChannel.new(max_size=64)
    total = 1500

    def send():
        for number in range(total):
            channel.send_bytes(b"%d" % number, timeout_ms=-1)
        channel.close()

    async def main():
        received = []

        async def receive():
            async for message in channel:
                # The task may be cancelled before each message, not between it and this line.
                received.append(int(message))

        tasks = []
        while not channel.closed or channel.info()["messages"] or tasks:
            tasks = [task for task in tasks if not task.done()]
            while len(tasks) < 5 and not (channel.closed and not channel.info()["messages"]):
                tasks.append(asyncio.ensure_future(receive()))
            await asyncio.sleep(0)
            if tasks and randomness.random() < 0.7:
                randomness.choice(tasks).cancel()
        return received

    sender = Running(send)
    received = run(main())
    sender.result()
    received += [int(message) for message in channel]
    assert sorted(received) == list(range(total))


@pytest.mark.parametrize("seed", range(3))
def test_senders_that_are_cancelled_at_any_moment_send_once_or_not(seed):
    randomness = random.Random(seed)
    channel = ByteChannel.new(max_size=16)
    receiver = Running(lambda: [int(message) for message in channel])
    outcomes = {}

    async def send(number):
        try:
            outcomes[number] = await channel.async_send_bytes(b"%d" % number)
        except asyncio.CancelledError:
            outcomes[number] = False
            raise

    async def main():
        tasks = []
        for number in range(1500):
            tasks.append(asyncio.ensure_future(send(number)))
            await asyncio.sleep(0)
            tasks = [task for task in tasks if not task.done()]
            if tasks and (len(tasks) > 8 or randomness.random() < 0.4):
                randomness.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main())
    channel.close()
    received = receiver.result()
    assert sorted(received) == sorted(number for number, sent in outcomes.items() if sent)
    assert len(outcomes) == 1500


@pytest.mark.parametrize("delay", [0, 0.0002])
def test_time_outs_that_race_with_messages(delay):
    channel = ByteChannel.new()
    total = 300

    def send():
        for number in range(total):
            until_waiting_or_closed()
            channel.send_bytes(b"%d" % number)
        channel.close()

    def until_waiting_or_closed():
        eventually(lambda: channel.info()["waiting_receivers"] or channel.info()["messages"])

    async def main():
        received = []
        while True:
            try:
                received.append(int(await asyncio.wait_for(channel.async_receive_bytes(), delay)))
            except TimeoutError:
                continue
            except ByteChannelClosed:
                return received
            finally:
                await asyncio.sleep(0)

    if delay == 0:
        # asyncio does not even begin to wait.
        channel.send_bytes(b"1")
        channel.close()
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(channel.async_receive_bytes(), delay))
        assert channel.try_receive_bytes() == b"1"
        return
    sender = Running(send)
    assert run(main()) == list(range(total))
    sender.result()


# --- the end of tasks and loops -----------------------------------------------------------------


@pytest.mark.parametrize("collect", [True, False])
def test_a_loop_that_is_closed_while_tasks_wait(collect):
    channel, full = ByteChannel.new(), ByteChannel.new(1)
    full.send_bytes(b"1")
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # that tasks are destroyed is meant
    tasks = [
        loop.create_task(channel.async_receive_bytes()),
        loop.create_task(channel.async_receive_bytes()),
        loop.create_task(full.async_send_bytes(b"lost")),
        loop.create_task(full.async_send_bytes(b"lost")),
    ]
    loop.run_until_complete(waiting(channel, receivers=2))
    loop.run_until_complete(waiting(full, senders=2))
    thread = Running(full.send_bytes, b"2", timeout_ms=-1)
    until_waiting(full, senders=3)
    channel.send_bytes(b"kept for the first task")
    assert full.receive_bytes() == b"1"
    seen = weakref.ref(loop)
    loop.close()
    if collect:
        del loop, tasks
        gc.collect()
        assert seen() is None
    # Also where somebody still has the tasks, what was kept for them is the next again.
    assert channel.try_receive_bytes() == b"kept for the first task"
    channel.send_bytes(b"x")
    assert channel.try_receive_bytes() == b"x"
    assert thread.result() is True
    assert full.receive_bytes() == b"2"


def test_a_task_that_is_collected():
    channel = ByteChannel.new()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        coroutine = channel.async_receive_bytes()
        future = coroutine.send(None)  # as a task would, that nobody refers to
        assert channel.info()["waiting_receivers"] == 1
        channel.send_bytes(b"1")
        del coroutine
        gc.collect()
        assert channel.info()["messages"] == 1
        assert not future.done()

    run(main())
    assert channel.receive_bytes() == b"1"


def test_asyncio_run_that_leaves_tasks_behind():
    channel = ByteChannel.new()

    async def main():
        tasks = [asyncio.ensure_future(channel.async_receive_bytes()) for _ in range(3)]
        await waiting(channel, receivers=3)
        for number in range(3):
            channel.send_bytes(b"%d" % number)
        return tasks

    tasks = asyncio.run(main())
    # Whether a loop that ends looks at what has come for its tasks before it cancels them is its own affair.
    received = [task.result() for task in tasks if not task.cancelled()]
    left = [channel.try_receive_bytes() for _ in range(3 - len(received))]
    assert received + left == [b"0", b"1", b"2"]
    assert channel.try_receive_bytes() is None


def test_nothing_is_left_of_many_loops():
    channel = ByteChannel.new()

    async def main(end):
        task = asyncio.ensure_future(channel.async_receive_bytes())
        await waiting(channel, receivers=1)
        if end:
            channel.send_bytes(b"x")
            assert await task == b"x"

    asyncio.run(main(True))
    gc.collect()
    before = (descriptors(), threads())
    gc.disable()
    try:
        for index in range(300):
            asyncio.run(main(index % 2 == 0))
            # Not only when memory is collected.
            assert descriptors() <= before[0]
    finally:
        gc.enable()
    assert descriptors() <= before[0]
    eventually(lambda: threads() <= before[1])  # uvloop has threads that end a little later
    assert channel.info()["waiting_receivers"] == 0


def test_one_descriptor_for_a_loop():
    async def main():
        before = (descriptors(), threads())
        channels = [ByteChannel.new() for _ in range(200)]
        tasks = [asyncio.ensure_future(channel.async_receive_bytes()) for channel in channels]
        await waiting(channels[-1], receivers=1)
        assert descriptors() == before[0] + 1
        assert threads() <= before[1]
        for channel in channels:
            channel.send_bytes(b"1")
        assert await asyncio.gather(*tasks) == [b"1"] * 200

    run(main())


def test_no_descriptor_is_free():
    async def main():
        channel = ByteChannel.new()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.ExitStack() as stack:
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            with pytest.raises(OSError) as raised:
                await channel.async_receive_bytes()
        assert raised.value.errno == errno.EMFILE
        (task,) = await started(channel, [channel.async_receive_bytes()])
        channel.send_bytes(b"1")
        assert await task == b"1"

    run(main())


def test_a_loop_with_debugging():
    async def main():
        channel = ByteChannel.new()
        (task,) = await started(channel, [channel.async_receive_bytes()])
        channel.send_bytes(b"1")
        assert await task == b"1"

    asyncio.run(main(), debug=True)


def test_a_process_that_ends_while_tasks_and_threads_wait():
    code = (
        "import asyncio, threading, erlang\n"
        "channel = erlang.ByteChannel.new()\n"
        "threading.Thread(target=channel.receive_bytes, daemon=True).start()\n"
        "loop = asyncio.new_event_loop()\n"
        "task = loop.create_task(channel.async_receive_bytes())\n"
        "while channel.info()['waiting_receivers'] < 2: loop.run_until_complete(asyncio.sleep(0))\n"
        "print('end')\n"
    )
    assert output(code) == "end\n"
