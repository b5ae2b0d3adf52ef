"""Byte channels and asyncio: tasks on any number of loops, cancelled at every moment."""

import asyncio

import pytest
from byte_channel_support import PATIENCE, Running, run, started, until_waiting, waiting

from erlang import ByteChannel, ByteChannelAborted, ByteChannelBusy, ByteChannelClosed

pytestmark = pytest.mark.usefixtures("every_loop")

# --- what it does -------------------------------------------------------------------------------


def test_what_is_there_comes_at_once():
    async def main():
        channel = ByteChannel.new(max_size=2)
        assert await channel.async_send_bytes(b"1") is True
        assert await channel.async_send_bytes(bytearray(b"2")) is True
        assert [await channel.async_receive_bytes(), await channel.async_receive_bytes()] == [b"1", b"2"]

    run(main())


def test_a_task_waits_and_others_run():
    async def main():
        channel = ByteChannel.new()
        (task,) = await started(channel, [channel.async_receive_bytes()])
        assert not task.done()
        channel.send_bytes(b"")
        assert await task == b""
        assert channel.info()["waiting_receivers"] == 0

    run(main())


def test_a_sender_waits_for_room():
    async def main():
        channel = ByteChannel.new(max_size=4)
        channel.send_bytes(b"1234")
        data = bytearray(b"56")
        (task,) = await started(channel, [channel.async_send_bytes(data)], senders=True)
        data[:] = b"xx"
        assert channel.receive_bytes() == b"1234"
        assert await task is True
        assert await channel.async_receive_bytes() == b"56"

    run(main())


def test_async_for_and_async_with():
    async def main():
        channel = ByteChannel.new(max_size=3)

        async def send():
            async with channel as same:
                assert same is channel
                for number in range(20):
                    await channel.async_send_bytes(b"%d" % number)

        sender = asyncio.ensure_future(send())
        assert [message async for message in channel] == [b"%d" % number for number in range(20)]
        await sender
        assert channel.closed
        assert [message async for message in channel] == []
        with pytest.raises(ByteChannelClosed):
            await channel.async_receive_bytes()
        with pytest.raises(ByteChannelClosed):
            await channel.async_send_bytes(b"1")
        with pytest.raises(ZeroDivisionError):
            async with ByteChannel.new() as other:
                1 / 0  # noqa: B018
        assert other.closed

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_end_wakes_all_tasks(end):
    error = ByteChannelClosed if end == "close" else ByteChannelAborted

    async def main():
        receivers, senders = ByteChannel.new(), ByteChannel.new(1)
        senders.send_bytes(b"1")
        tasks = await started(receivers, [receivers.async_receive_bytes() for _ in range(3)])
        tasks += await started(senders, [senders.async_send_bytes(b"%d" % n) for n in range(3)], senders=True)

        async def iterate():
            return [message async for message in receivers]

        iterating = asyncio.ensure_future(iterate())
        await waiting(receivers, receivers=4)
        for channel in (receivers, senders):
            getattr(channel, end)()
        for task in tasks:
            with pytest.raises(error):
                await task
        if end == "close":
            assert await iterating == []
            assert list(senders) == [b"1"]
        else:
            with pytest.raises(error):
                await iterating

    run(main())


def test_wrong_data():
    async def main():
        channel = ByteChannel.new(1)
        with pytest.raises(TypeError, match="encode the text"):
            await channel.async_send_bytes("text")
        channel.send_bytes(b"1")
        with pytest.raises(TypeError, match="bytes-like, not int"):
            await channel.async_send_bytes(5)

    run(main())


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="new in Python 3.12")
def test_tasks_that_begin_at_once():
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        channel = ByteChannel.new(max_size=1)
        tasks = [asyncio.ensure_future(channel.async_receive_bytes()) for _ in range(3)]
        assert channel.info()["waiting_receivers"] == 3
        await asyncio.gather(*(channel.async_send_bytes(b"%d" % number) for number in range(3)))
        assert await asyncio.gather(*tasks) == [b"0", b"1", b"2"]

    run(main())


def test_without_a_loop():
    coroutine = ByteChannel.new().async_receive_bytes()
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


def test_tasks_are_served_in_their_order():
    async def main():
        channel = ByteChannel.new(max_size=3)
        tasks = await started(channel, [channel.async_receive_bytes() for _ in range(50)])
        for number in range(50):
            channel.send_bytes(b"%d" % number)
        assert await asyncio.gather(*tasks) == [b"%d" % number for number in range(50)]
        channel.send_bytes(b"111")
        # The first is too large for now; the small ones behind do not go before it.
        data = [b"333", b"1", b"", b"22"]
        tasks = await started(channel, [channel.async_send_bytes(one) for one in data], senders=True)
        with pytest.raises(ByteChannelBusy):
            channel.send_bytes(b"")
        assert [await channel.async_receive_bytes() for _ in range(5)] == [b"111", *data]
        assert all(await asyncio.gather(*tasks))

    run(main())


def test_threads_and_tasks_of_several_loops_are_served_in_their_order():
    channel = ByteChannel.new()
    received = {}

    def receive(number):
        async def main():
            received[number] = await channel.async_receive_bytes()

        if number % 2:
            asyncio.run(main())
        else:
            received[number] = channel.receive_bytes()

    running = []
    for number in range(12):
        running.append(Running(receive, number))
        until_waiting(channel, receivers=number + 1)
    for number in range(12):
        channel.send_bytes(b"%d" % number)
    for thread in running:
        thread.result()
    assert received == {number: b"%d" % number for number in range(12)}


# --- several loops ------------------------------------------------------------------------------


def test_many_loops_on_one_channel():
    channel = ByteChannel.new(max_size=40)
    loops, tasks, each = 3, 4, 60

    async def send(who):
        for number in range(each):
            await channel.async_send_bytes(b"%s:%d" % (who, number))

    async def receive():
        return [message async for message in channel]

    async def senders(loop):
        await asyncio.gather(*(send(b"%d.%d" % (loop, task)) for task in range(tasks)))

    async def receivers():
        return await asyncio.gather(*(receive() for _ in range(tasks)))

    receiving = [Running(asyncio.run, receivers()) for _ in range(loops)]
    sending = [Running(asyncio.run, senders(loop)) for loop in range(loops)]
    for thread in sending:
        thread.result()
    channel.close()
    parts = [part for thread in receiving for part in thread.result()]
    everything = sorted(message for part in parts for message in part)
    assert everything == sorted(
        b"%d.%d:%d" % (loop, task, number)
        for loop in range(loops)
        for task in range(tasks)
        for number in range(each)
    )
    for part in parts:
        last = {}
        for message in part:
            who, number = message.split(b":")
            assert int(number) > last.get(who, -1), "one sender's messages keep their order"
            last[who] = int(number)


def test_a_thread_wakes_a_loop_that_sleeps():
    channel, answers = ByteChannel.new(), ByteChannel.new()

    async def echo():
        async for message in channel:
            await answers.async_send_bytes(message)
        answers.close()

    thread = Running(asyncio.run, echo())
    for number in range(300):
        until_waiting(channel, receivers=1)
        channel.send_bytes(b"%d" % number)
        assert answers.receive_bytes(PATIENCE * 1000) == b"%d" % number
    channel.close()
    thread.result()
