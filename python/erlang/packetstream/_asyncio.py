"""Connections of packets for asyncio."""

from erlang._waits import outcome

from ._connection import PacketConnection


class AsyncPacketConnection:
    """A :class:`PacketConnection` for an event loop: the same arguments, ``async with``, and ``await``.

    A handler that is a coroutine function runs on the loop that has opened the connection; another one on
    one of ``workers`` threads.
    """

    EOF_Packet = PacketConnection.EOF_Packet
    ERQ_Packet = PacketConnection.ERQ_Packet

    def __init__(self, recv, send=None, request_handler=None, name=None, **options):
        self._connection = PacketConnection(recv, send, request_handler, name, **options)

    async def open(self):
        """Begin. Returns the connection. Raises as :meth:`PacketConnection.open`."""
        import asyncio  # a megabyte in every interpreter: only who uses it pays for it

        if self._connection._loop is None:
            self._connection._loop = asyncio.get_running_loop()
        self._connection.open()
        return self

    async def close(self):
        """End, within ``close_timeout`` seconds: as :meth:`PacketConnection.close`, and the loop goes on
        meanwhile.
        """
        import asyncio

        await asyncio.to_thread(self._connection.close)

    def abort(self):
        """As :meth:`PacketConnection.abort`."""
        self._connection.abort()

    async def __aenter__(self):
        return await self.open()

    async def __aexit__(self, *_exception):
        await self.close()

    async def request(self, rq_type, flags=0, payload=b"", decode_response=None, channel=0, *, timeout=None):
        """Make a request, and return its :class:`Result`, which can be awaited.

        Where ``max_outstanding`` or ``send_window`` are reached it waits. Raises as
        :meth:`PacketConnection.request`.
        """
        connection = self._connection
        link = connection._started()
        timeout = connection.timeout if timeout is None else timeout
        arguments = rq_type, flags, payload, decode_response, channel, timeout, False
        while (result := link.request(*arguments)) is None:
            await outcome(_Room, link)
        return result

    async def do(self, rq_type, flags=0, payload=b"", decode_response=None, channel=0, *, timeout=None):
        """Make a request, wait for the response, and return ``(ok, flags, payload)``.

        A task that is cancelled cancels the request. Raises as :meth:`request` and :class:`Result`.
        """
        result = await self.request(rq_type, flags, payload, decode_response, channel, timeout=timeout)
        try:
            return await result
        finally:
            result.cancel()

    async def join(self):
        """Wait until no more packets come."""
        import asyncio

        await asyncio.to_thread(self._connection.join)

    def open_channel(self, channel, request_handler=None):
        """As :meth:`PacketConnection.open_channel`, but nothing is returned."""
        self._connection.open_channel(channel, request_handler)

    def close_channel(self, channel):
        """As :meth:`PacketConnection.close_channel`."""
        self._connection.close_channel(channel)

    def send_eof(self):
        """As :meth:`PacketConnection.send_eof`."""
        self._connection.send_eof()

    def send_erq(self):
        """As :meth:`PacketConnection.send_erq`."""
        self._connection.send_erq()

    def info(self):
        """As :meth:`PacketConnection.info`."""
        return self._connection.info()

    @property
    def closed(self):
        """As ``PacketConnection.closed``."""
        return self._connection.closed

    @property
    def end(self):
        """As ``PacketConnection.end``."""
        return self._connection.end


class _Room:
    """A task that waits until there may be room for a request."""

    settled = False

    def __init__(self, bell, key, link):
        link.watch_room(bell, key)

    def finish(self):
        return None

    def cancel(self):
        """Nothing is to be given back."""
