"""erlang.EventLoop: what CPython's own tests of asyncio do not ask."""

import asyncio
import contextvars
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref

import pytest

import erlang


@pytest.fixture
def loop():
    loop = erlang.new_event_loop()
    yield loop
    loop.close()


def test_run_and_its_loop():
    async def main():
        assert isinstance(asyncio.get_running_loop(), erlang.EventLoop)
        assert await erlang.sleep(0) is None
        return 5

    assert erlang.run(main()) == 5
    assert erlang.sleep(0) is None
    with asyncio.Runner(loop_factory=erlang.EventLoop) as runner:
        assert runner.run(main()) == 5


def test_run_in_a_loop_that_runs():
    async def main():
        coroutine = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="running event loop"):
            erlang.run(coroutine)
        coroutine.close()

    erlang.run(main())


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="loops have no policies any more")
def test_policy():
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(erlang.EventLoopPolicy())
    try:
        loop = asyncio.new_event_loop()
        assert isinstance(loop, erlang.EventLoop)
        loop.close()
    finally:
        asyncio.set_event_loop_policy(before)


def test_async_call_needs_a_beam():
    with pytest.raises(RuntimeError, match="BEAM"):
        erlang.run(erlang.async_call("anything"))


def test_order_and_contexts(loop):
    variable = contextvars.ContextVar("variable", default=0)
    seen = []

    def note(number):
        seen.append((number, variable.get()))

    context = contextvars.copy_context()
    context.run(variable.set, 7)
    loop.call_soon(note, 1)
    loop.call_soon(note, 2, context=context)
    loop.call_later(0.002, note, 4)
    loop.call_later(0.001, note, 3, context=context)
    loop.call_at(loop.time() + 0.003, loop.stop)
    loop.run_forever()
    assert seen == [(1, 0), (2, 7), (3, 7), (4, 0)]


def test_arguments_that_are_wrong(loop):
    for call in (loop.call_soon, loop.call_soon_threadsafe, loop.call_later, loop.call_at):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        loop.call_soon(print, colour="red")
    with pytest.raises(TypeError):
        loop.call_later(None, print)
    with pytest.raises(TypeError):
        loop.call_later("soon", print)
    with pytest.raises(ValueError):
        loop.add_reader(-1, print)
    with pytest.raises(PermissionError), open(__file__) as file:
        loop.add_reader(file, print)


def test_closed_loop():
    loop = erlang.new_event_loop()
    handle = loop.call_later(1000, print)
    loop.close()
    loop.close()
    handle.cancel()
    for call in (loop.call_soon, loop.call_soon_threadsafe, loop.run_forever):
        with pytest.raises(RuntimeError, match="closed"):
            call(*[print][: call != loop.run_forever])
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)


def test_cancelled_handles(loop):
    seen = []
    cancelled = [loop.call_soon(seen.append, 1), loop.call_later(0, seen.append, 2)]
    timers = [loop.call_later(1000, seen.append, 3) for _ in range(1000)]
    assert "append" in repr(cancelled[0])
    for handle in cancelled + timers:
        handle.cancel()
        handle.cancel()
        assert handle.cancelled()
        assert "cancelled" in repr(handle)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == []


@pytest.mark.parametrize("debug", [False, True])
def test_exception_of_a_callback(loop, debug):
    loop.set_debug(debug)
    reported = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert isinstance(reported[0]["exception"], ZeroDivisionError)
    assert "lambda" in reported[0]["message"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exceptions_that_end_the_loop(loop, kind):
    def end():
        raise kind

    seen = []
    loop.call_soon(end)
    loop.call_soon(seen.append, 1)
    with pytest.raises(kind):
        loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_debug_tells_of_slow_callbacks(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert "Executing <Handle" in caplog.text


def test_debug_keeps_no_failed_task(loop):
    """A frame that its exception refers to must not refer to the handle, which has the task."""
    loop.set_debug(True)

    async def fail():
        raise LookupError

    async def main():
        task = loop.create_task(fail())
        reference = weakref.ref(task)
        try:
            await task
        except LookupError:
            del task
        return reference

    gc.disable()
    try:
        assert loop.run_until_complete(main())() is None
    finally:
        gc.enable()


def test_debug_knows_its_thread(loop):
    loop.set_debug(True)

    async def main():
        with pytest.raises(RuntimeError, match="Non-thread-safe"):
            await asyncio.to_thread(loop.call_soon, print)

    loop.run_until_complete(main())


def test_other_threads_wake_it(loop):
    seen = []

    def other():
        for number in range(1000):
            loop.call_soon_threadsafe(seen.append, number)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other)
    thread.start()
    loop.run_forever()
    thread.join()
    assert seen == list(range(1000))


def test_descriptors_of_a_loop_that_waits(loop):
    """What another thread must not change, it cannot."""
    errors = []
    ours, theirs = socket.socketpair()

    def other():
        try:
            loop.add_reader(ours, print)
        except RuntimeError as error:
            errors.append(str(error))
        loop.call_soon_threadsafe(loop.stop)

    with ours, theirs:
        thread = threading.Timer(0.05, other)
        thread.start()
        loop.run_forever()
        thread.join()
    assert "call_soon_threadsafe" in errors[0]


def test_signal_handler_and_ctrl_c():
    code = """
import asyncio, os, signal, erlang
async def main():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, done.set_result, 1)
    os.kill(os.getpid(), signal.SIGUSR1)
    print(await done, flush=True)
    loop.call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise
try:
    erlang.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["1", "cancelled", "interrupted"], result.stderr


def test_nothing_is_left():
    class Held:
        pass

    def cycle():
        loop = erlang.EventLoop()
        held = Held()
        held.handles = [loop.call_later(1000, held.__init__), loop.call_soon(held.__init__)]
        held.loop = loop
        loop.close()
        return weakref.ref(held), weakref.ref(loop)

    references = cycle()
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        erlang.run(asyncio.sleep(0))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_waiting_takes_no_time_of_the_processor():
    before = time.process_time()
    erlang.run(asyncio.sleep(0.3))
    assert time.process_time() - before < 0.15


def test_signals_while_it_waits(loop):
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        loop.call_later(0.1, loop.stop)
        loop.run_forever()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [1]
