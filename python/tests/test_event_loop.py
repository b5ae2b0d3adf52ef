"""erlang.EventLoop: what CPython's own tests of asyncio do not ask."""

import asyncio
import contextvars
import gc
import os
import resource
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


class Collector(asyncio.Protocol):
    def __init__(self):
        self.data = b""
        self.events = []
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return True

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exception):
        self.over.set_result(exception)


async def pair():
    """A transport on a socketpair, its protocol, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_unix_connection(Collector, sock=ours)
    return transport, protocol, theirs


def test_writes_of_a_turn_go_out_together():
    async def main():
        transport, _, theirs = await pair()
        with theirs:
            transport.write(b"a")
            transport.writelines([bytearray(b"b"), memoryview(b"c")])
            assert transport.get_write_buffer_size() == 3
            with pytest.raises(BlockingIOError):
                theirs.recv(10)
            await asyncio.sleep(0)
            assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b"abc"
            transport.abort()

    erlang.run(main())


def test_what_is_written_last_goes_out(loop):
    async def main():
        transport, _, theirs = await pair()
        transport.write(b"last words")
        return transport, theirs

    transport, theirs = loop.run_until_complete(main())
    with theirs:
        assert theirs.recv(100) == b"last words"
        transport.write(b"written while nothing runs")
        assert theirs.recv(100) == b"written while nothing runs"
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))


def test_memory_may_be_used_again_after_a_write():
    async def main():
        transport, _, theirs = await pair()
        with theirs:
            data = bytearray(b"before")
            transport.write(data)
            data[:] = b"after!"
            assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b"before"
            transport.abort()

    erlang.run(main())


def test_closing_the_loop_closes_what_it_serves():
    """Whoever refers to the server and its connections yet."""
    loop = erlang.new_event_loop()
    connections = []

    class Kept(asyncio.Protocol):
        def connection_made(self, transport):
            connections.append(transport)
            loop.stop()

    server = loop.run_until_complete(loop.create_server(Kept, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    with socket.create_connection(address) as client:
        loop.run_forever()
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            loop.close()
            assert client.recv(1) == b""
            connections.clear()
            gc.collect()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    assert server.sockets[0].fileno() == -1


def test_flow_control_and_half_close():
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await pair()
        with theirs:
            data = os.urandom(4_000_000)
            transport.write(data)
            transport.write_eof()
            with pytest.raises(RuntimeError):
                transport.write(b"more")
            assert protocol.events == ["pause"]
            received = b""
            while chunk := await loop.sock_recv(theirs, 1 << 20):
                received += chunk
            assert received == data
            assert protocol.events == ["pause", "resume"]
            await loop.sock_sendall(theirs, b"an answer")
            theirs.shutdown(socket.SHUT_WR)
            while "eof" not in protocol.events:
                await asyncio.sleep(0.001)
            assert protocol.data == b"an answer"
            transport.close()
            assert await protocol.over is None

    erlang.run(main())


def test_close_writes_what_is_left_and_abort_does_not():
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await pair()
        with theirs:
            transport.write(b"x" * 1_000_000)
            transport.close()
            count = 0
            while chunk := await loop.sock_recv(theirs, 1 << 20):
                count += len(chunk)
            assert count == 1_000_000
            assert await protocol.over is None
        transport, protocol, theirs = await pair()
        with theirs:
            transport.write(b"x" * 10_000_000)
            transport.abort()
            assert await protocol.over is None
            assert "closed" in repr(transport)

    erlang.run(main())


def test_paused_reading_loses_nothing():
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await pair()
        other, other_protocol, other_theirs = await pair()
        with theirs, other_theirs:
            # Both have data in one poll: the first that gets its own pauses the other.
            protocol.data_received = lambda data: (setattr(protocol, "data", data), other.pause_reading())
            other_protocol.data_received = lambda data: (
                setattr(other_protocol, "data", other_protocol.data + data),
                transport.pause_reading(),
            )
            theirs.send(b"one")
            other_theirs.send(b"two")
            while not (protocol.data or other_protocol.data):
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert b"" in (protocol.data, other_protocol.data)
            transport.resume_reading()
            other.resume_reading()
            while not (protocol.data and other_protocol.data):
                await asyncio.sleep(0)
            assert (protocol.data, other_protocol.data) == (b"one", b"two")
            transport.abort()
            other.abort()
            await loop.create_task(asyncio.sleep(0))

    erlang.run(main())


def test_protocol_that_raises():
    async def main():
        loop = asyncio.get_running_loop()
        reported = []
        loop.set_exception_handler(lambda _, context: reported.append(context))
        _, protocol, theirs = await pair()
        with theirs:
            protocol.data_received = None
            theirs.send(b"x")
            assert isinstance(await protocol.over, TypeError)
        assert "data_received() call failed" in reported[0]["message"]

    erlang.run(main())


def test_peer_that_resets():
    async def main():
        transport, protocol, theirs = await pair()
        transport.write(b"x" * 10_000_000)
        await asyncio.sleep(0)
        theirs.close()
        assert isinstance(await protocol.over, (BrokenPipeError, ConnectionResetError))
        transport.write(b"in vain")

    erlang.run(main())


class Buffered(asyncio.BufferedProtocol):
    def __init__(self):
        self.buffer = bytearray(3)
        self.received = []
        self.over = asyncio.get_running_loop().create_future()

    def get_buffer(self, _hint):
        return self.buffer

    def buffer_updated(self, count):
        self.received.append(bytes(self.buffer[:count]))

    def connection_lost(self, exception):
        self.over.set_result(exception)


def test_buffered_protocol_and_a_change_of_protocols():
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        transport, buffered = await loop.create_unix_connection(Buffered, sock=ours)
        with theirs:
            theirs.send(b"abcdefg")
            while sum(map(len, buffered.received)) < 7:
                await asyncio.sleep(0)
            assert buffered.received == [b"abc", b"def", b"g"]
            plain = Collector()
            transport.set_protocol(plain)
            assert transport.get_protocol() is plain
            theirs.send(b"hij")
            while plain.data != b"hij":
                await asyncio.sleep(0)
        transport.close()
        assert await plain.over is None

    erlang.run(main())


def test_no_descriptors_left():
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, _context: None)
        server = await loop.create_server(Collector, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        client = socket.create_connection(address)
        client.close()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The lowest number that is free, and stays it.
        gc.collect()
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            with pytest.raises(OSError):
                await asyncio.open_connection(*address)
            await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        await writer.wait_closed()
        server.close()

    erlang.run(main())


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
