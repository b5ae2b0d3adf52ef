"""Byte channels in plain python3: what every method does and raises. Nobody waits here."""

import array
import io
import mmap
import pickle

import numpy
import pytest

import _causeway
import erlang
from erlang import ByteChannel, ByteChannelAborted, ByteChannelBusy, ByteChannelClosed

LARGE = 1 << 16  # from here on messages are not copied


@pytest.fixture
def channel():
    return ByteChannel.new()


# --- messages -----------------------------------------------------------------------------------


def test_messages_keep_their_order_and_boundaries(channel):
    messages = [b"one", b"", b"\0\xff", bytes(LARGE), b"", b"x" * 16384, b"last"]
    for message in messages:
        assert channel.send_bytes(message) is True
    assert channel.info()["messages"] == len(messages)
    assert [channel.receive_bytes() for _ in messages] == messages
    assert channel.try_receive_bytes() is None


def test_an_empty_message_is_no_end(channel):
    channel.send_bytes(b"")
    assert channel.try_receive_bytes() == b""
    assert channel.try_receive_bytes() is None


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 3 << 20])
def test_sizes_around_what_is_copied(channel, size):
    message = bytes(index % 251 for index in range(min(size, 5000))) * (size // 5000 + 1)
    message = message[:size]
    channel.send_bytes(message)
    channel.send_bytes(bytearray(message))
    channel.send_bytes(memoryview(message))
    for _ in range(3):
        received = channel.receive_bytes()
        assert type(received) is bytes
        assert received == message


@pytest.mark.parametrize("size", [5, LARGE])
def test_whatever_is_bytes_like(channel, size):
    content = b"\x01" * size
    anonymous = mmap.mmap(-1, size)
    anonymous.write(content)
    sources = [
        bytearray(content),
        memoryview(content),
        memoryview(b"z" + content)[1:],
        array.array("b", content),
        numpy.frombuffer(content, dtype=numpy.uint8),
        anonymous,
        io.BytesIO(content).getbuffer(),
        type("Bytes", (bytes,), {})(content),
        _causeway.ReactorBuffer(content),
    ]
    for source in sources:
        channel.send_bytes(source)
        assert channel.receive_bytes() == content
    channel.send_bytes(array.array("I", [1, 2, 3]))
    assert channel.receive_bytes() == array.array("I", [1, 2, 3]).tobytes()


@pytest.mark.parametrize("size", [5, LARGE])
@pytest.mark.parametrize("keep", [memoryview, lambda source: source])
def test_a_source_may_change_after_it_was_sent(channel, size, keep):
    source = bytearray(b"a" * size)
    channel.send_bytes(keep(source))
    source[:] = b"b" * size
    assert channel.receive_bytes() == b"a" * size
    # It is not held, so that it can grow.
    source.extend(b"c")


def test_a_view_of_bytes_that_change_is_copied(channel):
    source = bytearray(LARGE)
    channel.send_bytes(memoryview(source).toreadonly())
    source[0] = 1
    assert channel.receive_bytes() == bytes(LARGE)


def test_large_bytes_come_out_as_the_same_object(channel):
    message = bytes(LARGE)
    channel.send_bytes(message)
    assert channel.receive_bytes() is message
    channel.send_bytes(message)
    assert channel.receive_many()[0] is message
    channel.send_bytes(message)
    assert next(channel) is message


def test_a_subclass_of_bytes_does_not_come_out(channel):
    class Mine(bytes):
        pass

    channel.send_bytes(Mine(LARGE))
    assert type(channel.receive_bytes()) is bytes


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("text", "takes bytes or something bytes-like, not str: encode the text"),
        (None, "takes bytes or something bytes-like, not NoneType"),
        (5, "takes bytes or something bytes-like, not int"),
        ([1], "takes bytes or something bytes-like, not list"),
    ],
)
def test_what_is_no_bytes(channel, data, text):
    for send in (channel.send_bytes, lambda data: channel.send_bytes(data, timeout_ms=0)):
        with pytest.raises(TypeError, match=text):
            send(data)
    assert channel.info()["messages_in"] == 0


def test_buffers_that_cannot_be_read(channel):
    gone = memoryview(b"abc")
    gone.release()
    with pytest.raises(ValueError, match="released"):
        channel.send_bytes(gone)
    with pytest.raises((BufferError, ValueError)):
        channel.send_bytes(memoryview(b"abcdef")[::2])
    assert channel.info()["messages_in"] == 0


# --- the budget ---------------------------------------------------------------------------------


def test_busy_and_room_again():
    channel = ByteChannel.new(max_size=10)
    channel.send_bytes(b"123456")
    channel.send_bytes(b"7890")
    with pytest.raises(ByteChannelBusy, match="busy: 10 of at most 10 bytes are queued"):
        channel.send_bytes(b"x")
    assert channel.info()["messages"] == 2
    assert channel.receive_bytes() == b"123456"
    with pytest.raises(RuntimeError, match="busy"):
        channel.send_bytes(b"1234567")
    channel.send_bytes(b"abcdef")
    assert [channel.receive_bytes(), channel.receive_bytes()] == [b"7890", b"abcdef"]


def test_a_message_larger_than_the_budget_when_nothing_else_is_queued():
    channel = ByteChannel.new(max_size=4)
    channel.send_bytes(b"12345678")
    assert channel.info()["size"] == 8
    for data in (b"1", b"12345"):
        with pytest.raises(ByteChannelBusy):
            channel.send_bytes(data)
    assert channel.receive_bytes() == b"12345678"
    channel.send_bytes(b"1")
    with pytest.raises(ByteChannelBusy):
        channel.send_bytes(b"12345678")


def test_empty_messages_take_no_room():
    channel = ByteChannel.new(1)
    channel.send_bytes(b"1")
    channel.send_bytes(b"")
    assert channel.info()["messages"] == 2


@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (-1, ValueError, "max_size is a number of bytes, or 0 for no limit, not -1"),
        (10**30, ValueError, "max_size"),
        (-(10**30), ValueError, "max_size"),
        ("1", TypeError, "integer"),
        (1.5, TypeError, "integer"),
        (None, TypeError, "integer"),
        (b"3", TypeError, "integer"),
    ],
)
def test_budgets_that_are_none(size, error, text):
    with pytest.raises(error, match=text):
        ByteChannel.new(max_size=size)


def test_the_largest_budget():
    assert ByteChannel.new((1 << 63) - 1).max_size == (1 << 63) - 1
    assert ByteChannel.new().max_size == 0


# --- the end ------------------------------------------------------------------------------------


def test_what_was_queued_comes_before_the_end(channel):
    channel.send_bytes(b"1")
    channel.send_bytes(b"2")
    assert channel.closed is False
    assert channel.close() is None
    assert channel.close() is None
    assert channel.closed is True
    for timeout in ({}, {"timeout_ms": 0}, {"timeout_ms": -1}):
        with pytest.raises(ByteChannelClosed, match="closed"):
            channel.send_bytes(b"3", **timeout)
    assert channel.try_receive_bytes() == b"1"
    assert channel.receive_bytes() == b"2"
    for receive in (
        channel.receive_bytes,
        channel.try_receive_bytes,
        channel.receive_many,
        channel.receive_buffer,
        lambda: channel.receive_into(bytearray(1)),
        lambda: channel.receive_bytes(timeout_ms=0),
    ):
        for _ in range(2):
            with pytest.raises(ByteChannelClosed, match="the channel is closed"):
                receive()


def test_abort_drops_what_was_queued(channel):
    channel.send_bytes(b"1")
    reason = {"why": ["disk full"]}
    assert channel.abort(reason) is None
    channel.abort("another reason")
    channel.close()
    for operation in (
        channel.receive_bytes,
        channel.try_receive_bytes,
        channel.receive_many,
        channel.receive_buffer,
        lambda: channel.receive_into(bytearray(1)),
        lambda: channel.send_bytes(b""),
        lambda: channel.send_bytes(b"", timeout_ms=-1),
        lambda: next(channel),
        lambda: list(channel),
    ):
        with pytest.raises(ByteChannelAborted) as raised:
            operation()
        assert raised.value.reason == reason
        assert str(raised.value) == "the channel was aborted: {'why': ['disk full']}"
    info = channel.info()
    assert (info["size"], info["messages"], info["closed"], info["aborted"]) == (0, 0, True, True)


def test_abort_after_close(channel):
    channel.send_bytes(b"1")
    channel.close()
    channel.abort()
    with pytest.raises(ByteChannelAborted) as raised:
        channel.try_receive_bytes()
    assert raised.value.reason is None


def test_the_errors_are_runtime_errors():
    for error in (ByteChannelBusy, ByteChannelClosed, ByteChannelAborted):
        assert issubclass(error, RuntimeError)
        assert getattr(erlang, error.__name__) is error
    assert not issubclass(ByteChannelAborted, ByteChannelClosed)
    assert ByteChannelAborted().reason is None
    copied = pickle.loads(pickle.dumps(ByteChannelAborted("why")))
    assert copied.reason == "why"


def test_with_closes(channel):
    with channel as same:
        assert same is channel
        channel.send_bytes(b"1")
    assert channel.closed
    assert list(channel) == [b"1"]
    with pytest.raises(ZeroDivisionError), ByteChannel.new() as other:
        1 / 0  # noqa: B018
    assert other.closed


def test_for_receives_until_the_end(channel):
    for number in range(3):
        channel.send_bytes(b"%d" % number)
    channel.close()
    assert iter(channel) is channel
    assert list(channel) == [b"0", b"1", b"2"]
    assert list(channel) == []
    with pytest.raises(StopIteration):
        next(channel)
