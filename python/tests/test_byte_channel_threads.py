"""Threads that wait for byte channels: without the GIL, in their order, and interrupted by signals."""

import random
import signal
import time

import pytest
from byte_channel_support import (
    PATIENCE,
    Running,
    eventually,
    on_the_main_thread,
    output,
    python,
    threads,
    until_waiting,
)

from erlang import ByteChannel, ByteChannelAborted, ByteChannelBusy, ByteChannelClosed


def receivers(channel):
    """Every way to wait for a message; each gives the message as bytes."""
    room = bytearray(100)
    return [
        channel.receive_bytes,
        lambda: channel.receive_bytes(None),
        lambda: channel.receive_bytes(PATIENCE * 1000),
        lambda: bytes(channel.receive_buffer()),
        lambda: b"".join(channel.receive_many()),
        lambda: bytes(room[: channel.receive_into(room)]),
        lambda: next(channel),
        lambda: channel.makefile(buffering=0).read(100),
    ]


@pytest.mark.parametrize("index", range(8))
def test_another_thread_runs_while_one_waits(index):
    channel = ByteChannel.new()
    receiver = Running(receivers(channel)[index])
    until_waiting(channel, receivers=1)
    # This thread would not come this far if the GIL was held.
    assert sum(range(100_000)) == 4_999_950_000
    channel.send_bytes(b"message")
    assert receiver.result() == b"message"
    until_waiting(channel)


def test_another_thread_runs_while_one_waits_for_room():
    channel = ByteChannel.new(max_size=3)
    channel.send_bytes(b"111")
    sender = Running(channel.send_bytes, b"22", timeout_ms=-1)
    until_waiting(channel, senders=1)
    assert sum(range(100_000)) == 4_999_950_000
    assert channel.info()["messages_in"] == 1
    assert channel.receive_bytes() == b"111"
    assert sender.result() is True
    assert channel.receive_bytes() == b"22"


def test_waiting_uses_no_processor():
    channel, full = ByteChannel.new(), ByteChannel.new(max_size=1)
    full.send_bytes(b"1")

    def used(wait):
        begin = time.thread_time()
        with pytest.raises(TimeoutError):
            wait()
        return time.thread_time() - begin

    for wait in (
        lambda: channel.receive_bytes(200),
        lambda: full.send_bytes(b"2", timeout_ms=200),
        lambda: channel.receive_many(timeout_ms=200),
    ):
        assert used(wait) < 0.1


def test_time_outs_take_as_long_as_they_say():
    channel = ByteChannel.new()
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.receive_bytes(50)
    assert time.monotonic() - begin >= 0.05


# --- the order ----------------------------------------------------------------------------------


def test_threads_are_served_in_their_order():
    channel = ByteChannel.new()
    running = []
    for number in range(10):
        running.append(Running(channel.receive_bytes))
        until_waiting(channel, receivers=number + 1)
    for number in range(10):
        channel.send_bytes(b"%d" % number)
    assert [thread.result() for thread in running] == [b"%d" % number for number in range(10)]


def test_senders_are_served_in_their_order():
    channel = ByteChannel.new(max_size=4)
    channel.send_bytes(b"1111")
    data = [b"4444", b"1", b"22", b"", b"333333", b"0"]
    running = []
    for number, message in enumerate(data):
        running.append(Running(channel.send_bytes, message, timeout_ms=-1))
        until_waiting(channel, senders=number + 1)
    with pytest.raises(ByteChannelBusy):
        channel.send_bytes(b"")
    received = []
    for _ in range(7):
        received.append(channel.receive_bytes())
        assert channel.info()["size"] <= 6
    assert received == [b"1111", *data]
    assert all(thread.result() for thread in running)


def test_a_sender_behind_one_that_times_out_has_its_turn():
    channel = ByteChannel.new(max_size=3)
    channel.send_bytes(b"11")
    large = Running(channel.send_bytes, b"333", timeout_ms=200)
    until_waiting(channel, senders=1)
    small = Running(channel.send_bytes, b"1", timeout_ms=PATIENCE * 1000)
    with pytest.raises(TimeoutError):
        large.result()
    assert small.result() is True
    assert channel.receive_many() == [b"11", b"1"]


def test_a_receiver_that_times_out_is_passed_over():
    channel = ByteChannel.new()
    first = Running(channel.receive_bytes, 20)
    until_waiting(channel, receivers=1)
    second = Running(channel.receive_bytes)
    with pytest.raises(TimeoutError):
        first.result()
    until_waiting(channel, receivers=1)
    channel.send_bytes(b"1")
    assert second.result() == b"1"


def test_receive_into_that_is_too_small_hands_the_message_on():
    channel = ByteChannel.new()
    first = Running(channel.receive_into, bytearray(1))
    until_waiting(channel, receivers=1)
    second = Running(channel.receive_bytes)
    until_waiting(channel, receivers=2)
    channel.send_bytes(b"12")
    with pytest.raises(ValueError, match="the next message has 2 bytes, the buffer room for 1"):
        first.result()
    assert second.result() == b"12"


# --- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_end_wakes_everybody(end):
    error = ByteChannelClosed if end == "close" else ByteChannelAborted
    channel, full = ByteChannel.new(), ByteChannel.new(max_size=1)
    full.send_bytes(b"1")
    waits = receivers(channel)[:-2]
    waiting = [Running(wait) for wait in waits]
    until_waiting(channel, receivers=len(waits))
    iterating = Running(lambda: list(channel))
    sending = [Running(full.send_bytes, b"2", timeout_ms=-1) for _ in range(3)]
    until_waiting(channel, receivers=len(waits) + 1)
    until_waiting(full, senders=3)
    getattr(channel, end)()
    getattr(full, end)()
    for thread in (*waiting, *sending):
        with pytest.raises(error):
            thread.result()
    if end == "close":
        assert iterating.result() == []
        assert list(full) == [b"1"]
    else:
        with pytest.raises(error):
            iterating.result()


def test_a_wait_keeps_the_channel():
    received = []
    channel = ByteChannel.new()
    other = ByteChannel(channel)
    thread = Running(lambda channel: received.extend(channel), channel)
    until_waiting(channel, receivers=1)
    del channel
    other.send_bytes(b"1")
    other.close()
    thread.result()
    assert received == [b"1"]


# --- many ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_many_threads_lose_and_double_nothing(seed):
    channel = ByteChannel.new(max_size=50)
    producers, consumers, each = 4, 4, 400

    def produce(producer):
        choices = random.Random(f"{seed} producer {producer}")
        for number in range(each):
            data = b"%d:%d" % (producer, number)
            while True:
                try:
                    channel.send_bytes(data, timeout_ms=choices.choice([None, 0, 1, -1]))
                    break
                except (TimeoutError, ByteChannelBusy):
                    pass

    def consume(consumer):
        choices = random.Random(f"{seed} consumer {consumer}")
        received = []
        room, small = bytearray(100), bytearray(3)
        ways = [
            lambda: [channel.receive_bytes()],
            lambda: [channel.receive_bytes(choices.choice([0, 1]))],
            lambda: [bytes(channel.receive_buffer())],
            lambda: channel.receive_many(choices.choice([1, 20, 1000])),
            lambda: [bytes(room[: channel.receive_into(room)])],
            lambda: [bytes(small[: channel.receive_into(small)])],
            lambda: [message for message in [channel.try_receive_bytes()] if message is not None],
        ]
        while True:
            try:
                received += choices.choice(ways)()
            except (TimeoutError, ValueError):
                continue
            except ByteChannelClosed:
                return received

    consuming = [Running(consume, consumer) for consumer in range(consumers)]
    producing = [Running(produce, producer) for producer in range(producers)]
    for thread in producing:
        thread.result()
    channel.close()
    parts = [thread.result() for thread in consuming]
    # One that was too large for a buffer may have come back when all others had seen the end.
    parts.append(list(channel))
    assert sorted(message for part in parts for message in part) == sorted(
        b"%d:%d" % (producer, number) for producer in range(producers) for number in range(each)
    )
    info = channel.info()
    assert (info["messages_in"], info["messages_out"]) == (producers * each,) * 2
    assert (info["size"], info["waiting_receivers"], info["waiting_senders"]) == (0, 0, 0)


def test_one_producer_and_one_consumer_keep_the_order():
    channel = ByteChannel.new(max_size=100)

    def produce():
        with channel:
            for number in range(5000):
                channel.send_bytes(b"%d" % number, timeout_ms=-1)

    thread = Running(produce)
    assert [int(message) for message in channel] == list(range(5000))
    thread.result()


def test_ping_pong():
    there, back = ByteChannel.new(), ByteChannel.new()

    def echo():
        for message in there:
            back.send_bytes(message)

    thread = Running(echo)
    for number in range(3000):
        there.send_bytes(b"%d" % number)
        assert back.receive_bytes() == b"%d" % number
    there.close()
    thread.result()


def test_no_thread_is_made():
    channel = ByteChannel.new()
    before = threads()
    running = [Running(channel.receive_bytes) for _ in range(5)]
    until_waiting(channel, receivers=5)
    assert threads() <= before + 5
    channel.close()
    for thread in running:
        with pytest.raises(ByteChannelClosed):
            thread.result()


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["receive_bytes()", "send_bytes(b'2', timeout_ms=-1)", "makefile().read()"])
def test_control_c_interrupts_a_wait(wait):
    process = python(
        "import signal, sys, erlang\n"
        "channel = erlang.ByteChannel.new(max_size=1)\n"
        f"if 'send' in {wait!r}: channel.send_bytes(b'1')\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        f"    channel.{wait}\n"
        "except KeyboardInterrupt:\n"
        "    info = channel.info()\n"
        "    print('interrupted', info['waiting_receivers'], info['waiting_senders'], info['messages'])\n"
    )
    try:
        assert process.stdout.readline() == "ready\n"
        eventually(lambda: asleep(process.pid))
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (printed, errors) == (f"interrupted 0 0 {int('send' in wait)}\n", "")
    assert time.monotonic() - begin < PATIENCE / 2


def asleep(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


@on_the_main_thread
def test_a_handler_of_a_signal_may_use_the_channel():
    channel = ByteChannel.new()
    old = signal.signal(signal.SIGALRM, lambda *_: channel.send_bytes(b"from the handler"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert channel.receive_bytes(PATIENCE * 1000) == b"from the handler"
    finally:
        signal.signal(signal.SIGALRM, old)


@on_the_main_thread
def test_an_exception_of_a_handler_loses_no_message():
    channel = ByteChannel.new()

    def handle(*_):
        # It has come, and is kept for the wait that this ends.
        channel.send_bytes(b"1")
        raise ZeroDivisionError

    old = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(ZeroDivisionError):
            channel.receive_bytes(PATIENCE * 1000)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert channel.try_receive_bytes() == b"1"
    assert channel.info()["waiting_receivers"] == 0


def test_a_signal_that_says_nothing_ends_no_wait():
    code = (
        "import os, signal, threading, erlang\n"
        "channel = erlang.ByteChannel.new()\n"
        "seen = []\n"
        "def handle(*_):\n"
        "    seen.append(1)\n"
        "    if len(seen) == 20: channel.send_bytes(b'end')\n"
        "    else: signal.setitimer(signal.ITIMER_REAL, 0.001)\n"
        "signal.signal(signal.SIGALRM, handle)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001)\n"
        "print(channel.receive_bytes(), len(seen))\n"
    )
    assert output(code) == "b'end' 20\n"
