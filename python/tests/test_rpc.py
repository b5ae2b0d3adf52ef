"""Streaming calls of plain Pythons: in one process, and over packet connections."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time

import pytest
from rpc_support import PATIENCE, Endless, advertise_all, connected, unadvertise_all

from erlang import rpc


@pytest.fixture(autouse=True)
def providers():
    advertise_all()
    yield
    unadvertise_all()


@pytest.fixture(params=["local", "connection"])
def caller(request):
    """Who calls: this process itself, or the other end of a connection. No stream is left afterwards."""
    if request.param == "local":
        yield rpc
        return
    with connected() as (client, server):
        yield client
        gc.collect()
        deadline = time.monotonic() + PATIENCE
        while (client.info()["streams"] or server.info()["streams"]) and time.monotonic() < deadline:
            client.call("double", 1)
        assert client.info()["streams"] == server.info()["streams"] == 0


def test_a_generator_is_a_stream_whose_return_value_is_the_reply(caller):
    stream = caller.call_stream("count", 1000)
    assert list(stream) == [str(i).encode() for i in range(1000)]
    assert stream.reply(PATIENCE) == {"sent": 1000}
    assert stream.reply(0) == {"sent": 1000}
    with pytest.raises(EOFError):
        stream.receive(0)


def test_a_function_makes_the_reply(caller):
    assert caller.call("double", 21) == 42
    stream = caller.call_stream("double", 4)
    assert list(stream) == []
    assert stream.reply(PATIENCE) == 8


def test_a_function_may_take_the_chunks_of_a_client(caller):
    with caller.open_stream("total", 5) as stream:
        for size in (1, 0, 100, 300_000):
            stream.send(bytes(size))
        stream.close_send()
        assert stream.reply(PATIENCE) == 5 + 1 + 100 + 300_000
        with pytest.raises(rpc.RpcError) as error:
            stream.send(b"late")
        assert error.value.code == "send_closed"


@pytest.mark.parametrize("name", ["echo", "echo_async"])
def test_both_directions_go_on_their_own(caller, name):
    values = [
        b"bytes",
        b"",
        "text",
        12,
        1 << 80,
        1.5,
        None,
        True,
        ["a", {"b": b"c"}],
        {"k": [1, 2]},
        bytes(70_000),
    ]
    with caller.open_stream(name) as stream:
        for value in values:
            stream.send(value, PATIENCE)
            assert stream.receive(PATIENCE) == value
        stream.close_send()
        assert list(stream) == []
        assert stream.reply(PATIENCE) == "done"
        assert stream.over


def test_coroutines_serve(caller):
    assert caller.call("double_async", 4) == 8
    assert list(caller.call_stream("count_async", 3)) == [{"i": 0}, {"i": 1}, {"i": 2}]


def test_asyncio(caller, every_loop):
    async def use():
        async with await caller.async_open_stream("echo") as stream:
            for i in range(100):
                await stream.async_send(str(i).encode())
                assert await stream.async_receive() == str(i).encode()
            stream.close_send()
            assert [chunk async for chunk in stream] == []
            assert await stream.async_reply() == "done"
        assert len([chunk async for chunk in caller.call_stream("count", 5000)]) == 5000
        with pytest.raises(rpc.RpcError):
            await caller.async_call("fail", "chance")
        return await asyncio.gather(*(caller.async_call("double", i) for i in range(50)))

    assert asyncio.run(use()) == [2 * i for i in range(50)]


def test_a_task_that_is_cancelled_loses_nothing(caller, every_loop):
    async def use():
        async with await caller.async_open_stream("echo") as stream:
            task = asyncio.ensure_future(stream.async_receive())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await stream.async_send(b"kept")
            assert await stream.async_receive() == b"kept"

    asyncio.run(use())


def test_exceptions_cross_and_are_logged(caller, caplog):
    with caplog.at_level(logging.ERROR, "erlang.rpc"), pytest.raises(rpc.RpcError) as error:
        caller.call("fail", "chance")
    assert (error.value.code, error.value.message) == ("ValueError", "no chance")
    assert "raise ValueError" in caplog.text


def test_an_error_comes_after_the_chunks_and_stays(caller):
    stream = caller.call_stream("fail_late", "why")
    assert stream.receive(PATIENCE) == b"first"
    for receive in (stream.receive, stream.reply, lambda: next(stream), lambda: stream.send(b"x")):
        with pytest.raises(rpc.RpcError) as error:
            receive()
        assert (error.value.code, error.value.message) == ("late", "why")


def test_a_name_that_nobody_serves(caller):
    for use in (caller.call, caller.call_stream, caller.open_stream):
        with pytest.raises(rpc.RpcError) as error:
            use("nothing")
        assert error.value.code == "not_found"


def test_names_come_and_go(caller):
    rpc.advertise("one", lambda: 1)
    assert ("one", "server_stream") in rpc.list_advertised()
    assert caller.call("one") == 1
    rpc.advertise("one", lambda: 2)
    assert caller.call("one") == 2
    rpc.unadvertise("one")
    with pytest.raises(rpc.RpcError):
        caller.call("one")


def test_wrong_arguments(caller):
    with pytest.raises(ValueError, match="mode is one of"):
        rpc.advertise("x", mode="wrong")
    with pytest.raises(TypeError, match="a handler is a function"):
        rpc.advertise("x", 12)
    with pytest.raises(ValueError, match="mode is one of"):
        caller.open_stream("echo", mode="wrong")
    with caller.open_stream("echo") as stream:
        with pytest.raises((TypeError, ValueError)):
            stream.send(object())
        stream.send(b"still usable")
        assert stream.receive(PATIENCE) == b"still usable"


@pytest.mark.parametrize("end", ["with", "cancel", "gone", "abort"])
def test_a_client_that_has_enough_ends_its_provider(caller, end):
    provider = Endless()
    rpc.advertise("endless", provider)
    rpc.advertise("endless", lambda _args: provider(None))
    if end == "with":
        with caller.call_stream("endless") as stream:
            stream.receive(PATIENCE)
    else:
        stream = caller.call_stream("endless")
        stream.receive(PATIENCE)
        match end:
            case "cancel":
                stream.cancel()
                with pytest.raises(rpc.RpcError) as error:
                    stream.reply(PATIENCE)
                assert error.value.code == "cancelled"
            case "abort":
                stream.abort("enough", "of it")
            case "gone":
                del stream
                gc.collect()
    assert provider.ended.wait(PATIENCE)


def test_a_coroutine_that_waits_is_cancelled_with_its_call(caller):
    ended = threading.Event()

    async def wait(_args):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    rpc.advertise("wait", wait)
    with caller.call_stream("wait"):
        pass
    assert ended.wait(PATIENCE)


def test_a_deadline_ends_both_sides(caller):
    codes = []
    ended = threading.Event()

    def wait(stream):
        try:
            stream.receive()
        except rpc.RpcError as error:
            codes.append(error.code)
            ended.set()
            raise

    rpc.advertise("wait", wait, mode="bidi")
    stream = caller.open_stream("wait", deadline=0.05)
    with pytest.raises(rpc.RpcError) as error:
        stream.reply(PATIENCE)
    assert error.value.code == "deadline_exceeded"
    assert ended.wait(PATIENCE)
    assert codes == ["deadline_exceeded"]


def test_a_reader_that_takes_nothing_stops_the_sender(caller):
    provider = Endless()
    rpc.advertise("endless", lambda _args: provider(None))
    with caller.call_stream("endless") as stream:
        # What it has made when it waits is what there is room for.
        before = -1
        while provider.made != before or before == 0:
            before = provider.made
            time.sleep(0.05)
        assert before < 3000
        for _ in range(5000):
            stream.receive(PATIENCE)
        assert provider.made < 5000 + 3000
    assert provider.ended.wait(PATIENCE)


def test_a_sender_waits_for_room(caller):
    go = threading.Event()

    def slow(chunks):
        assert go.wait(PATIENCE)
        return sum(map(len, chunks))

    rpc.advertise("slow", slow, mode="client_stream")
    with caller.open_stream("slow") as stream:
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                stream.send(bytes(50_000), 0.1)
                sent += 1
        assert sent < 60
        go.set()
        stream.send(bytes(50_000), PATIENCE)
        stream.close_send()
        assert stream.reply(PATIENCE) == (sent + 1) * 50_000


def test_no_more_functions_serve_at_once_than_may(caller):
    go = threading.Event()
    begun = threading.Semaphore(0)

    def hold():
        begun.release()
        assert go.wait(PATIENCE)
        return 1

    rpc.advertise("hold", hold)
    rpc.set_max_workers(2)
    try:
        streams = [caller.call_stream("hold") for _ in range(5)]
        assert begun.acquire(timeout=PATIENCE)
        assert begun.acquire(timeout=PATIENCE)
        assert not begun.acquire(timeout=0.05)
        # Who gives up while it waits is not served any more.
        streams.pop().cancel()
        # Frames are taken in order, so that is known there when this is answered, which takes no thread.
        assert caller.call("double_async", 1) == 2
        go.set()
        assert [stream.reply(PATIENCE) for stream in streams] == [1] * 4
        assert begun.acquire(timeout=PATIENCE)
        assert begun.acquire(timeout=PATIENCE)
        assert not begun.acquire(timeout=0.05)
    finally:
        go.set()
        rpc.set_max_workers(8)


def test_calls_that_need_each_other_come_to_an_end(caller):
    def nested(depth):
        if depth == 0:
            return 0
        # By a stream, as rpc.call() runs what this process serves by itself.
        return 1 + caller.call_stream("nested", depth - 1).reply(PATIENCE)

    rpc.advertise("nested", nested)
    rpc.set_max_workers(1)
    try:
        assert caller.call("nested", 10) == 10
        # A slow reader keeps nobody from being served.
        with caller.call_stream("count", 1_000_000):
            assert list(caller.call_stream("count", 2)) == [b"0", b"1"]
    finally:
        rpc.set_max_workers(8)


@pytest.mark.parametrize("number", [0, -1, True, 1.5, None])
def test_wrong_numbers_of_workers(number):
    with pytest.raises((ValueError, TypeError), match="max_workers must be"):
        rpc.set_max_workers(number)


def test_time_outs_of_receiving(caller):
    with caller.open_stream("echo") as stream:
        for wait in (lambda: stream.receive(0), lambda: stream.receive(0.01), lambda: stream.reply(0.01)):
            with pytest.raises(TimeoutError):
                wait()


def test_many_at_once(caller):
    outcomes = []

    def use(number):
        outcomes.append(sum(map(len, caller.call_stream("count", number))))

    threads = [threading.Thread(target=use, args=(100 + i,)) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(outcomes) == 50


def test_receive_many(caller):
    stream = caller.call_stream("count", 5000)
    chunks = []
    while some := stream.receive_many():
        chunks += some
    assert chunks == [str(i).encode() for i in range(5000)]


def test_a_connection_that_ends_fails_its_calls():
    provider = Endless()
    rpc.advertise("endless", lambda _args: provider(None))
    with connected() as (client, server):
        stream = client.call_stream("endless")
        stream.receive(PATIENCE)
        server.close()
        with pytest.raises(rpc.RpcError) as error:
            while True:
                stream.receive(PATIENCE)
        assert error.value.code == "disconnected"
        assert provider.ended.wait(PATIENCE)
        with pytest.raises(rpc.RpcError) as error:
            client.call("double", 1)
        assert error.value.code == "disconnected"


def test_a_connection_may_serve_nothing():
    with connected(serve=False) as (client, _server):
        with pytest.raises(rpc.RpcError) as error:
            client.call("double", 1)
        assert error.value.code == "not_found"


_CHILD = """
import sys, time
from erlang import rpc

@rpc.advertise("endless")
def endless(_args):
    while True:
        yield b"x" * 1000

with rpc.listen(("127.0.0.1", 0)) as listener:
    print(listener.address[1], flush=True)
    sys.stdin.read()
"""


def test_another_process_that_is_killed():
    unadvertise_all()
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        with rpc.connect(("127.0.0.1", int(child.stdout.readline()))) as connection:
            # The one connection that is open is where a name is looked for that is not served here.
            stream = rpc.call_stream("endless")
            assert stream.receive(PATIENCE) == b"x" * 1000
            child.kill()
            with pytest.raises(rpc.RpcError) as error:
                while True:
                    stream.receive(PATIENCE)
            assert error.value.code == "disconnected"
            assert connection.info()["streams"] == 0
    finally:
        child.kill()
        child.communicate()


def test_nothing_is_left():
    before = threading.active_count()
    with connected() as (client, _server):
        for _ in range(200):
            list(client.call_stream("count", 3))
        assert client.info()["streams"] == 0
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
