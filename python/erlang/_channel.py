"""Byte channels as Python has them: what the core does, and on top of it asyncio and files."""

import io

import _causeway

from ._waits import outcome


class ByteChannelBusy(RuntimeError):
    """There is no room for a message now."""


class ByteChannelClosed(RuntimeError):
    """The channel is closed; where it is received from, empty as well."""


class ByteChannelAborted(RuntimeError):
    """The channel was aborted: what was queued is lost. ``reason`` says why."""

    @property
    def reason(self):
        """What was given to ``abort``, in either language."""
        return self.args[0] if self.args else None

    def __str__(self):
        return f"the channel was aborted: {self.reason!r}"


class ByteChannel(_causeway.ByteChannel):
    """Messages of bytes between Erlang and Python, or between threads and tasks of Python.

    Erlang passes one to a call as an argument; ``ByteChannel.new()`` makes one, also in a plain python3.
    Messages keep their order and their boundaries, an empty one is like any other. Any number of threads
    and asyncio tasks may use a channel at once, each on whatever event loop; who waits is served first
    come first served, and who gives up loses nothing.

    Iterating, with ``for`` or ``async for``, receives until the channel is closed. Leaving a ``with`` or
    ``async with`` closes it.
    """

    __slots__ = ()

    @classmethod
    def new(cls, max_size=0):
        """A new channel, on which at most ``max_size`` bytes may be queued; 0 is no limit.

        A message that is larger than that has its turn when the channel is empty. Raises ValueError,
        TypeError.
        """
        return cls(_causeway._new_channel(max_size))

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_exception):
        self.close()

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await self.async_receive_bytes()
        except ByteChannelClosed:
            raise StopAsyncIteration from None

    async def async_receive_bytes(self):
        """Wait for the next message, without blocking the event loop, and return it as bytes.

        A task that is cancelled takes none; ``asyncio.timeout`` limits the time. Raises ByteChannelClosed
        once it is closed and empty, ByteChannelAborted.
        """
        message = self.try_receive_bytes()
        if message is not None:
            return message
        return await outcome(self._wait_receive)

    async def async_send_bytes(self, data):
        """Send one message, and wait for room where there is none, without blocking the event loop.

        Returns True. A task that is cancelled has not sent it. Raises ByteChannelClosed, ByteChannelAborted,
        TypeError for what is not bytes-like.
        """
        try:
            return self.send_bytes(data)
        except ByteChannelBusy:
            pass
        return await outcome(self._wait_send, data)

    def makefile(self, mode="rb", *, buffering=-1, encoding=None, errors=None, newline=None):
        """A file object that reads the messages as one stream of bytes, or writes to the channel.

        ``mode`` is "rb" or "wb", "r" or "w" for text. Reading waits for messages and ends where the channel
        is closed; writing waits for room. Closing a file that writes closes the channel, closing one that
        reads does not. The other arguments are those of ``open``, but that text is UTF-8 by default. Raises
        ValueError for another mode, and what reading and writing the channel raises.
        """
        if mode not in ("r", "rb", "w", "wb"):
            raise ValueError(f"a channel's file has the mode 'r', 'rb', 'w' or 'wb', not {mode!r}")
        size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        is_text = mode[-1] != "b"
        if is_text:
            if size == 0:
                raise ValueError("text is always buffered")
            # Raises what is wrong before there is a file, whose end would close the channel.
            io.TextIOWrapper(io.BytesIO(), encoding or "utf-8", errors, newline)
        raw = _ChannelReader(self) if mode[0] == "r" else _ChannelWriter(self)
        if size == 0:
            return raw
        file = io.BufferedReader(raw, size) if mode[0] == "r" else io.BufferedWriter(raw, size)
        return io.TextIOWrapper(file, encoding or "utf-8", errors, newline) if is_text else file


_causeway._register_channel(ByteChannel, ByteChannelBusy, ByteChannelClosed, ByteChannelAborted)


class _ChannelReader(io.RawIOBase):
    """What is received, as a file."""

    def __init__(self, channel):
        self._channel = channel
        self._rest = memoryview(b"")

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.closed:
            raise ValueError("I/O operation on closed file")
        room = memoryview(buffer).cast("B")
        if not len(room):
            return 0
        # An empty message is not the end.
        while not self._rest:
            try:
                self._rest = memoryview(self._channel.receive_buffer())
            except ByteChannelClosed:
                return 0
        count = min(len(room), len(self._rest))
        room[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _ChannelWriter(io.RawIOBase):
    """A file whose writes are messages."""

    def __init__(self, channel):
        self._channel = channel

    def writable(self):
        return True

    def write(self, data):
        if self.closed:
            raise ValueError("I/O operation on closed file")
        with memoryview(data).cast("B") as view:
            if len(view):
                # The caller may use its memory again: bytes are what nobody changes.
                self._channel.send_bytes(bytes(view), timeout_ms=-1)
            return len(view)

    def close(self):
        if not self.closed:
            try:
                super().close()
            finally:
                self._channel.close()
