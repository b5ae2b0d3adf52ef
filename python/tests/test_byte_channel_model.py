"""Whatever is done to a byte channel, in whatever order, it does what a plain queue does.

The rules use a channel and a model of it side by side. Threads and tasks that wait are real; the model says
which of them has to go on, and with what.
"""

import asyncio
import contextlib
from collections import deque

from byte_channel_support import PATIENCE, Running, eventually
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from erlang import ByteChannel, ByteChannelAborted, ByteChannelBusy, ByteChannelClosed


class Large(bytes):
    """More than what is copied, and not shown at its full length where a test fails."""

    def __repr__(self):
        return "Large"


MESSAGES = st.one_of(st.binary(max_size=6), st.just(Large(20_000)))


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = Running(self.loop.run_forever)

    def call(self, function, *arguments):
        """Run a function on the loop's thread; return what it returns."""

        async def called():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(PATIENCE)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.result()
        self.loop.close()


class ThreadWait:
    """A thread that waits."""

    can_be_cancelled = False

    def __init__(self, wait, _coroutine, _loop):
        self.thread = Running(wait)

    def outcome(self):
        return outcome(self.thread.result)


class TaskWait:
    """An asyncio task that waits."""

    can_be_cancelled = True

    def __init__(self, _wait, coroutine, loop):
        self.loop = loop
        self.task = loop.call(lambda: asyncio.ensure_future(coroutine()))

    def outcome(self):
        eventually(self.task.done)
        return outcome(self.task.result)

    def cancel(self):
        """True where the task is cancelled, and not already done."""
        is_cancelled = self.loop.call(self.task.cancel)
        eventually(self.task.done)
        return is_cancelled and self.task.cancelled()


def outcome(function):
    """What a call returns, or the class of what it raises."""
    try:
        return function()
    except Exception as error:
        return type(error)


class Model:
    """A queue with a budget, and with those who wait in two lines."""

    def __init__(self, limit):
        self.limit = limit
        self.messages, self.receivers, self.senders = deque(), deque(), deque()
        self.end = None
        self.settled = {}
        self.counts = {"messages_in": 0, "messages_out": 0, "bytes_in": 0, "bytes_out": 0}

    @property
    def size(self):
        return sum(map(len, self.messages))

    def has_room(self, data):
        return not self.limit or not self.messages or self.size + len(data) <= self.limit

    def put(self, data):
        self.count("in", data)
        if self.receivers:
            self.count("out", data)
            self.settled[self.receivers.popleft()] = data
        else:
            self.messages.append(data)

    def take(self):
        data = self.messages.popleft()
        self.count("out", data)
        return data

    def admit(self):
        while self.senders and self.end is None and self.has_room(self.senders[0][1]):
            waiting, data = self.senders.popleft()
            self.settled[waiting] = True
            self.put(data)

    def count(self, way, data):
        self.counts[f"messages_{way}"] += 1
        self.counts[f"bytes_{way}"] += len(data)

    def send(self, data):
        if self.end:
            return self.end
        if self.senders or not self.has_room(data):
            return ByteChannelBusy
        self.put(data)
        return True

    def receive(self, empty):
        if not self.messages:
            return self.end or empty
        data = self.take()
        self.admit()
        return data

    def receive_many(self, room):
        if not self.messages:
            return self.end or TimeoutError
        taken = [self.take()]
        room -= len(taken[0])
        while self.messages and len(self.messages[0]) <= room:
            taken.append(self.take())
            room -= len(taken[-1])
        self.admit()
        return taken

    def give_up(self, waiting):
        if waiting in self.receivers:
            self.receivers.remove(waiting)
        self.senders = deque(one for one in self.senders if one[0] is not waiting)
        self.admit()

    def finish(self, end):
        if self.end is ByteChannelAborted or self.end is end:
            return
        self.end = end
        for waiting in (*self.receivers, *(waiting for waiting, _ in self.senders)):
            self.settled[waiting] = end
        self.receivers.clear()
        self.senders.clear()
        if end is ByteChannelAborted:
            self.messages.clear()


class ByteChannelMachine(RuleBasedStateMachine):
    waits = Bundle("waits")

    def __init__(self):
        super().__init__()
        self.loops = []
        self.channel = self.model = None
        self.reset(0)

    def reset(self, limit):
        self.channel, self.model = ByteChannel.new(max_size=limit), Model(limit)

    @rule(limit=st.sampled_from([0, 1, 5, 30_000]))
    def another_channel(self, limit):
        self.end_waits()
        self.reset(limit)

    @rule(data=MESSAGES, timeout=st.sampled_from([None, 0]))
    def send(self, data, timeout):
        data = bytes(data)
        expected = self.model.send(data)
        if expected is ByteChannelBusy and timeout == 0:
            expected = TimeoutError
        assert outcome(lambda: self.channel.send_bytes(data, timeout_ms=timeout)) == expected

    @rule()
    def try_receive(self):
        assert outcome(self.channel.try_receive_bytes) == self.model.receive(None)

    @rule()
    def receive(self):
        assert outcome(lambda: self.channel.receive_bytes(0)) == self.model.receive(TimeoutError)

    @rule()
    def receive_buffer(self):
        received = outcome(lambda: self.channel.receive_buffer(0))
        assert received == self.model.receive(TimeoutError)

    @rule(size=st.integers(0, 6))
    def receive_into(self, size):
        room = bytearray(size)
        count = outcome(lambda: self.channel.receive_into(room, 0))
        if self.model.messages and len(self.model.messages[0]) > size:
            assert count is ValueError
            return
        expected = self.model.receive(TimeoutError)
        assert count == (len(expected) if type(expected) is bytes else expected)
        if type(expected) is bytes:
            assert room[:count] == expected

    @rule(room=st.sampled_from([1, 5, 25_000]))
    def receive_many(self, room):
        assert outcome(lambda: self.channel.receive_many(room, 0)) == self.model.receive_many(room)

    @rule()
    def close(self):
        self.channel.close()
        self.model.finish(ByteChannelClosed)

    @rule()
    def abort(self):
        self.channel.abort()
        self.model.finish(ByteChannelAborted)

    # --- those who wait ---

    @rule(target=waits, kind=st.sampled_from([ThreadWait, TaskWait]))
    def wait_for_message(self, kind):
        if self.model.messages or self.model.end or len(self.model.receivers) > 4:
            return multiple()
        waiting = kind(self.channel.receive_bytes, self.channel.async_receive_bytes, self.loop())
        self.model.receivers.append(waiting)
        self.until_all_wait()
        return waiting

    @rule(target=waits, kind=st.sampled_from([ThreadWait, TaskWait]), data=MESSAGES)
    def wait_for_room(self, kind, data):
        model, data = self.model, bytes(data)
        if model.end or len(model.senders) > 4 or not (model.senders or not model.has_room(data)):
            return multiple()
        channel, loop = self.channel, self.loop()
        waiting = kind(
            lambda: channel.send_bytes(data, timeout_ms=-1), lambda: channel.async_send_bytes(data), loop
        )
        model.senders.append((waiting, data))
        self.until_all_wait()
        return waiting

    @rule(waiting=consumes(waits))
    def cancel(self, waiting):
        if waiting not in self.model.receivers and all(one is not waiting for one, _ in self.model.senders):
            return
        if waiting.can_be_cancelled:
            assert waiting.cancel()
            self.model.give_up(waiting)

    @invariant()
    def it_stands_as_the_model_does(self):
        # Tasks have their turn when their loop runs: until then the model is ahead.
        self.let_go_on()
        info, model = self.channel.info(), self.model
        assert info == {
            "size": model.size,
            "max_size": model.limit,
            "messages": len(model.messages),
            "waiting_receivers": len(model.receivers),
            "waiting_senders": len(model.senders),
            "closed": model.end is not None,
            "aborted": model.end is ByteChannelAborted,
            **model.counts,
        }

    # --- not rules ---

    def let_go_on(self):
        settled, self.model.settled = self.model.settled, {}
        for waiting, expected in settled.items():
            assert waiting.outcome() == expected
        self.until_all_wait()

    def loop(self):
        if not self.loops:
            self.loops.append(Loop())
        return self.loops[0]

    def until_all_wait(self):
        def all_wait():
            info = self.channel.info()
            return (info["waiting_receivers"], info["waiting_senders"]) == (
                len(self.model.receivers),
                len(self.model.senders),
            )

        eventually(all_wait)

    def end_waits(self):
        self.abort()
        self.let_go_on()

    def teardown(self):
        self.end_waits()
        for loop in self.loops:
            with contextlib.closing(loop):
                pass


TestByteChannel = ByteChannelMachine.TestCase
TestByteChannel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
