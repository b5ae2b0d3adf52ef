"""The objects of byte channels: what they show, how they compare, and the memory they give back."""

import asyncio
import copy
import gc
import os
import pickle
import sys
import weakref

import pytest
from byte_channel_support import descriptors, in_plain_python, output, resident_bytes

from erlang import ByteChannel

LARGE = 1 << 16


class Mine(ByteChannel):
    """One with a dict."""


@pytest.fixture
def channel():
    return ByteChannel.new()


# --- the object ---------------------------------------------------------------------------------


def test_info():
    channel = ByteChannel.new(max_size=100)
    for message in (b"123", b"", b"4567"):
        channel.send_bytes(message)
    channel.receive_bytes()
    assert channel.info() == {
        "size": 4, "max_size": 100, "closed": False, "aborted": False, "messages": 2, "messages_in": 3,
        "messages_out": 1, "bytes_in": 7, "bytes_out": 3, "waiting_receivers": 0, "waiting_senders": 0,
    }  # fmt: skip


def test_repr():
    channel = ByteChannel.new(max_size=100)
    channel.send_bytes(b"123")
    assert repr(channel) == "<erlang.ByteChannel 1 messages, 3 of 100 bytes>"
    channel.close()
    assert repr(channel) == "<erlang.ByteChannel 1 messages, 3 of 100 bytes, closed>"
    channel.abort()
    assert repr(channel) == "<erlang.ByteChannel 0 messages, 0 of 100 bytes, aborted>"
    assert repr(ByteChannel.new()) == "<erlang.ByteChannel 0 messages, 0 bytes>"


def test_equality_is_that_of_the_channel(channel):
    same, other = ByteChannel(channel), ByteChannel.new()
    assert same is not channel
    assert same == channel
    assert channel.__ne__(same) is False
    assert hash(same) == hash(channel)
    assert channel != other
    assert channel != 5
    assert channel.__eq__(5) is NotImplemented
    assert len({channel, same, other}) == 2
    with pytest.raises(TypeError):
        channel < same  # noqa: B015
    same.send_bytes(b"1")
    assert channel.receive_bytes() == b"1"


def test_hashes_differ():
    channels = [ByteChannel.new() for _ in range(1000)]
    assert len({hash(channel) for channel in channels}) > 900
    assert [hash(channel) for channel in channels] == [hash(ByteChannel(channel)) for channel in channels]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled(channel, protocol):
    for one in (channel, Mine.new()):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(one, protocol)


def test_it_cannot_be_copied(channel):
    for function in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle"):
            function(channel)


@pytest.mark.parametrize("arguments", [(), (5,), ("ref",), (None,), (b"",), (object(),), (ByteChannel,)])
def test_what_is_no_channel(arguments):
    with pytest.raises(TypeError, match=r"takes the channel that Erlang has passed; ByteChannel\.new\(\)"):
        ByteChannel(*arguments)


def test_more_arguments_than_a_channel(channel):
    for call in (lambda: ByteChannel(channel, 1), lambda: ByteChannel(channel, max_size=1)):
        with pytest.raises(TypeError, match=r"ByteChannel\(\) takes the channel"):
            call()


def test_subclasses(channel):
    class Lines(ByteChannel):
        name = "lines"

        def receive_line(self):
            return self.receive_bytes().decode()

    mine = Lines.new(max_size=7)
    assert type(mine) is Lines
    assert mine.max_size == 7
    mine.note = "has a dict"
    mine.send_bytes(b"text")
    assert mine.receive_line() == "text"
    wrapped = Lines(channel)
    assert (type(wrapped), wrapped == channel, hash(wrapped)) == (Lines, True, hash(channel))
    assert type(ByteChannel(wrapped)) is ByteChannel


def test_it_is_closed_for_attributes(channel):
    with pytest.raises(AttributeError):
        channel.note = 1
    for name in ("closed", "max_size"):
        with pytest.raises(AttributeError):
            setattr(channel, name, 1)


def test_everything_is_documented():
    for name in dir(ByteChannel):
        if not name.startswith("_"):
            assert getattr(ByteChannel, name).__doc__, name


def test_a_message_is_not_lost_where_memory_is_short():
    code = (
        "import resource, erlang\n"
        "size = 64 << 20\n"
        "channel = erlang.ByteChannel.new()\n"
        "channel.send_bytes(bytearray(size)); channel.send_bytes(b'2')\n"
        "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages + size // 4, resource.RLIM_INFINITY))\n"
        "for receive in (channel.receive_bytes, channel.try_receive_bytes, channel.receive_many):\n"
        "    try: receive()\n"
        "    except MemoryError: pass\n"
        "    else: raise SystemExit('there was enough')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print(len(channel.receive_bytes()) == size, channel.receive_bytes(), channel.try_receive_bytes())\n"
    )
    assert output(code) == "True b'2' None\n"


@in_plain_python  # In a node the interpreter gives them back, soon.
def test_references_are_given_back():
    message = bytes(LARGE)
    reason = object()
    before = (sys.getrefcount(message), sys.getrefcount(reason))
    channel = ByteChannel.new()
    for _ in range(10):
        channel.send_bytes(message)
    assert sys.getrefcount(message) == before[0] + 10
    for _ in range(3):
        channel.receive_bytes()
    buffer = channel.receive_buffer()
    channel.receive_many()
    assert sys.getrefcount(message) == before[0] + 1
    del buffer
    assert sys.getrefcount(message) == before[0]
    channel.send_bytes(message)
    channel.abort(reason)
    assert (sys.getrefcount(message), sys.getrefcount(reason)) == (before[0], before[1] + 1)
    other = ByteChannel.new()
    other.send_bytes(message)
    del channel, other
    assert (sys.getrefcount(message), sys.getrefcount(reason)) == before


def test_a_subclass_in_a_circle_is_collected():
    mine = Mine.new()
    mine.send_bytes(bytes(LARGE))
    mine.itself = mine
    seen = weakref.ref(mine)
    del mine
    gc.collect()
    assert seen() is None


@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer keeps for a while what is freed")
def test_memory_is_given_back():
    async def tasks(channel):
        receivers = [asyncio.ensure_future(channel.async_receive_bytes()) for _ in range(20)]
        await asyncio.sleep(0)
        for receiver in receivers[::2]:
            receiver.cancel()
        for _ in range(10):
            await channel.async_send_bytes(bytes(100))
        await asyncio.gather(*receivers, return_exceptions=True)

    def churn():
        for size in (1, 100, LARGE):
            channel = ByteChannel.new(max_size=100 * LARGE)
            for source in (bytes(size), bytearray(size)):
                for _ in range(40):
                    channel.send_bytes(source)
                channel.receive_many(10 * size + 1)
                view = memoryview(channel.receive_buffer())
                channel.receive_into(bytearray(size))
                next(channel)
                with pytest.raises(TimeoutError):
                    ByteChannel.new().receive_bytes(0)
            file = channel.makefile()
            file.read(10)
            del view
        channel.abort([channel.info(), repr(channel)])
        asyncio.run(tasks(ByteChannel.new()))

    for _ in range(30):
        churn()
    gc.collect()
    before = (resident_bytes(), descriptors())
    for _ in range(120):
        churn()
    gc.collect()
    assert resident_bytes() - before[0] < 4 << 20
    assert descriptors() <= before[1]
