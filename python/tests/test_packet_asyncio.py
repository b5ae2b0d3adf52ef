"""Packet connections and asyncio: the twin, handlers that are coroutines, and results that are awaited."""

import asyncio
import contextlib
import socket
import threading

import pytest
from packet_support import PATIENCE, Peer, peer

from erlang.packetstream import (
    AsyncPacketConnection,
    CancellationError,
    ClosedError,
    PacketConnection,
    PacketConnectionError,
)

pytestmark = pytest.mark.usefixtures("every_loop")


def run(coroutine):
    async def limited():
        return await asyncio.wait_for(coroutine, PATIENCE)

    return asyncio.run(limited())


@contextlib.asynccontextmanager
async def async_pair(handler=None, other_handler=None, **options):
    one, two = socket.socketpair()
    with one, two:
        async with (
            AsyncPacketConnection(one, request_handler=handler, **options) as first,
            AsyncPacketConnection(two, request_handler=other_handler) as second,
        ):
            yield first, second


async def upper(rq_type, flags, payload):
    await asyncio.sleep(0)
    return flags + rq_type, payload.upper()


def test_both_ways():
    async def main():
        async with async_pair(upper, upper) as (one, two):
            assert await one.do(1, 2, b"x") == (True, 3, b"X")
            results = [await two.request(1, 0, b"%d" % number) for number in range(1000)]
            assert [(await result)[2] for result in results] == [b"%d" % n for n in range(1000)]
            answers = await asyncio.gather(*[one.do(0, 0, b"a%d" % number) for number in range(100)])
            assert [answer[2] for answer in answers] == [b"A%d" % number for number in range(100)]
            assert one.info()["unanswered"] == 0
        assert two.closed

    run(main())


def test_handlers_run_on_the_loop_and_at_once():
    async def main():
        started = []
        go = asyncio.Event()

        async def handler(rq_type, flags, payload):
            assert threading.current_thread() is threading.main_thread()
            started.append(payload)
            await go.wait()

        async with async_pair(handler) as (_, two):
            tasks = [asyncio.create_task(two.do(1, 0, b"%d" % number)) for number in range(50)]
            while len(started) < 50:
                await asyncio.sleep(0)
            go.set()
            assert all(ok for ok, _, _ in await asyncio.gather(*tasks))

    run(main())


def test_sync_handlers_run_on_threads():
    async def main():
        names = []

        def handler(*_):
            names.append(threading.current_thread() is threading.main_thread())

        async with async_pair(handler) as (_, two):
            await two.do(1)
        assert names == [False]

    run(main())


def test_handlers_that_fail(caplog):
    async def handler(rq_type, flags, payload):
        if rq_type:
            raise LookupError("nothing there")
        return 1.5

    async def main():
        async with async_pair(handler) as (_, two):
            assert await two.do(1) == (False, 0, b"exception during handler")
            assert await two.do(0) == (False, 0, b"exception during handler")

    run(main())
    assert "nothing there" in caplog.text


def test_a_task_that_is_cancelled_cancels_its_request():
    async def main():
        one, two = socket.socketpair()
        with one, two:
            async with AsyncPacketConnection(one) as connection:
                task = asyncio.create_task(connection.do(1))
                while not connection.info()["outstanding"]:
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert connection.info()["outstanding"] == 0
                connection.abort()

    run(main())


def test_several_await_one_result():
    async def main():
        one, two = socket.socketpair()
        with one, two:
            async with AsyncPacketConnection(one) as connection:
                result = await connection.request(1)

                async def wait():
                    return await result

                tasks = [asyncio.create_task(wait()) for _ in range(3)]
                tasks[0].cancel()
                await asyncio.sleep(0)
                Peer(two).respond(1, b"x")
                assert await asyncio.gather(*tasks[1:]) == [(True, 0, b"x")] * 2
                assert await result == (True, 0, b"x")

    run(main())


def test_every_end_wakes_tasks():
    async def main(end, error):
        one, two = socket.socketpair()
        with one, two:
            async with AsyncPacketConnection(one) as connection:
                tasks = [asyncio.create_task(connection.do(1)) for _ in range(3)]
                while connection.info()["outstanding"] < 3:
                    await asyncio.sleep(0)
                end(connection, Peer(two))
                for task in tasks:
                    with pytest.raises(error):
                        await task
                await connection.join()

    run(main(lambda _, other: other.send("03000200"), CancellationError))
    run(main(lambda _, other: other.send("00"), PacketConnectionError))
    run(main(lambda connection, _: connection.abort(), CancellationError))


def test_room():
    async def main():
        one, two = socket.socketpair()
        with one, two:
            other = Peer(two)
            async with AsyncPacketConnection(one, max_outstanding=2) as connection:
                first = [await connection.request(1) for _ in range(2)]
                third = asyncio.create_task(connection.request(1))
                await asyncio.sleep(0.01)
                assert not third.done()
                other.respond(1)
                assert (await third).tag == 3
                waiting = asyncio.create_task(connection.request(1))
                await asyncio.sleep(0.01)
                connection.abort()
                with pytest.raises(ClosedError):
                    await waiting
                assert first[0].ready

    run(main())


def test_time_outs():
    async def main():
        async with async_pair(lambda *_: threading.Event().wait(0.2)) as (_, two):
            with pytest.raises(TimeoutError):
                await two.do(1, timeout=0.01)

    run(main())


def test_coroutine_handlers_without_a_loop_of_their_own():
    with peer(request_handler=upper) as (_, other):
        other.request(1, b"x", rq_type=4)
        answer = other.receive()
        assert (answer.flags, answer.payload) == (4 << 1 | 1, b"X")


def test_close_waits_for_coroutines():
    async def main():
        async def handler(*_):
            await asyncio.sleep(0.05)
            return b"done"

        one, two = socket.socketpair()
        with one, two:
            other = Peer(two)
            async with AsyncPacketConnection(one, request_handler=handler) as connection:
                other.request(1)
                while not connection.info()["unanswered"]:
                    await asyncio.sleep(0)
            assert other.receive().payload == b"done"
            assert other.receive() == PacketConnection.EOF_Packet

    run(main())


def test_channels():
    async def main():
        async with async_pair() as (one, two):
            one.open_channel(3, upper)
            two.open_channel(3)
            assert await two.do(0, 0, b"x", channel=3) == (True, 0, b"X")
            one.close_channel(3)
            assert await two.do(0, channel=3) == (False, 0, b"unknown channel 3")

    run(main())
