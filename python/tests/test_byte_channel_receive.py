"""The ways to receive from a byte channel: time-outs, many at once, and without copies."""

import array
import threading

import pytest

import _causeway
from erlang import ByteChannel

LARGE = 1 << 16  # from here on messages are not copied


@pytest.fixture
def channel():
    return ByteChannel.new()


@pytest.mark.parametrize("timeout", [0, 1, 20])
def test_time_outs(channel, timeout):
    for receive in (
        lambda: channel.receive_bytes(timeout),
        lambda: channel.receive_bytes(timeout_ms=timeout),
        lambda: channel.receive_buffer(timeout),
        lambda: channel.receive_many(timeout_ms=timeout),
        lambda: channel.receive_into(bytearray(4), timeout_ms=timeout),
    ):
        with pytest.raises(TimeoutError, match=f"no message within {timeout} ms"):
            receive()
    full = ByteChannel.new(1)
    full.send_bytes(b"1")
    with pytest.raises(TimeoutError, match=f"no room within {timeout} ms"):
        full.send_bytes(b"2", timeout_ms=timeout)
    assert (full.info()["messages_in"], full.info()["waiting_senders"]) == (1, 0)
    channel.send_bytes(b"1")
    assert channel.receive_bytes(timeout) == b"1"


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-2, ValueError), (1 << 40, ValueError), (10**30, ValueError), ("1", TypeError), (0.5, TypeError)],
)
def test_time_outs_that_are_none(channel, timeout, error):
    channel.send_bytes(b"1")
    text = "timeout_ms is a number of milliseconds, or -1" if error is ValueError else "integer"
    for operation in (
        lambda: channel.receive_bytes(timeout),
        lambda: channel.receive_buffer(timeout),
        lambda: channel.receive_many(1, timeout),
        lambda: channel.receive_into(bytearray(1), timeout),
        lambda: channel.send_bytes(b"2", timeout_ms=timeout),
    ):
        with pytest.raises(error, match=text):
            operation()
    assert channel.info()["messages_in"] == 1
    assert channel.try_receive_bytes() == b"1"


def test_receive_many(channel):
    for number in range(10):
        channel.send_bytes(b"%d" % number)
    assert channel.receive_many(3) == [b"0", b"1", b"2"]
    assert channel.receive_many(max_bytes=1) == [b"3"]
    assert channel.receive_many(timeout_ms=0) == [b"4", b"5", b"6", b"7", b"8", b"9"]
    channel.send_bytes(b"large")
    channel.send_bytes(b"x")
    assert channel.receive_many(2) == [b"large"], "the first comes however large it is"
    for _ in range(5000):
        channel.send_bytes(b"")
    assert [len(channel.receive_many()), len(channel.receive_many())] == [4096, 905]
    channel.send_bytes(b"1")
    channel.close()
    assert channel.receive_many() == [b"1"]


@pytest.mark.parametrize("limit", [0, -1, -(10**30)])
def test_receive_many_of_nothing(channel, limit):
    channel.send_bytes(b"1")
    with pytest.raises(ValueError, match="max_bytes must be positive"):
        channel.receive_many(limit)
    with pytest.raises(TypeError):
        channel.receive_many("1")
    assert channel.receive_many() == [b"1"]


def test_receive_into(channel):
    for message in (b"abc", b"", b"x" * LARGE, b"12"):
        channel.send_bytes(message)
    room = bytearray(b"........")
    assert channel.receive_into(room) == 3
    assert room == b"abc....."
    assert channel.receive_into(bytearray()) == 0
    large = array.array("I", bytes(LARGE))
    assert channel.receive_into(memoryview(large)) == LARGE
    assert large.tobytes() == b"x" * LARGE
    assert channel.receive_into(memoryview(room)[6:], timeout_ms=0) == 2
    assert room == b"abc...12"
    room.append(0)  # it is not held any more


def test_receive_into_what_is_too_small_keeps_the_message(channel):
    channel.send_bytes(b"12345")
    channel.send_bytes(b"6")
    before = channel.info()
    with pytest.raises(ValueError, match="the next message has 5 bytes, the buffer room for 4"):
        channel.receive_into(bytearray(4))
    assert channel.info() == before
    assert channel.receive_many() == [b"12345", b"6"]


def test_receive_into_what_is_too_small_gives_nobody_a_turn():
    channel = ByteChannel.new(max_size=3)
    channel.send_bytes(b"abc")
    sender = threading.Thread(target=channel.send_bytes, args=[b"d"], kwargs={"timeout_ms": 10_000})
    sender.start()
    while not channel.info()["waiting_senders"]:
        pass
    for _ in range(1000):
        with pytest.raises(ValueError, match="3 bytes"):
            channel.receive_into(bytearray(2))
    assert channel.info()["waiting_senders"] == 1
    assert channel.info()["messages_out"] == 0
    assert channel.receive_bytes() + channel.receive_bytes() == b"abcd"
    sender.join()


def test_receive_into_what_is_no_room(channel):
    channel.send_bytes(b"1")
    for wrong in (b"bytes", "text", None, 5, memoryview(b"x"), memoryview(bytearray(8))[::2]):
        with pytest.raises(TypeError):
            channel.receive_into(wrong)
    assert channel.try_receive_bytes() == b"1"


@pytest.mark.parametrize("size", [3, LARGE])
@pytest.mark.parametrize("source", [bytes, bytearray])
def test_what_a_buffer_shows_outlives_all_else(size, source):
    channel = ByteChannel.new()
    message = source(b"abc" * (size // 3 + 1))
    expected = bytes(message)
    channel.send_bytes(message)
    buffer = channel.receive_buffer()
    assert type(buffer) is _causeway.ReactorBuffer
    assert len(buffer) == len(expected)
    view = memoryview(buffer)
    del message, channel, buffer
    ByteChannel.new().send_bytes(b"x" * size)  # would take memory that was given back
    assert view == expected
    assert view.readonly
    assert view[1:].tobytes() == expected[1:]


def test_wrong_arguments(channel):
    for call in (
        lambda: channel.send_bytes(),
        lambda: channel.send_bytes(b"", 1),
        lambda: channel.send_bytes(b"", timeout=1),
        lambda: channel.receive_bytes(1, 2),
        lambda: channel.receive_bytes(timeout=1),
        lambda: channel.try_receive_bytes(1),
        lambda: channel.receive_into(),
        lambda: channel.close(1),
        lambda: channel.abort(1, 2),
        lambda: channel.info(1),
        lambda: ByteChannel.new(1, 2),
    ):
        with pytest.raises(TypeError):
            call()
    assert not channel.closed
