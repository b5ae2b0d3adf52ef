"""What becomes of a request."""

import sys

import _causeway
from erlang._waits import outcome


class CancellationError(Exception):
    """There will be no response: the request was cancelled, or the connection has ended before.

    The text says why.
    """


class ClosedError(Exception):
    """The connection is closed: nothing more can be requested."""


class PacketConnectionError(ConnectionError):
    """The connection broke: the peer sent what is no packet, was reset, or ended inside a packet."""


class Result(_causeway._PacketResult):
    """What becomes of a request: call it to wait for that, or await it.

    Both return ``(ok, flags, payload)``. They raise CancellationError where the request was cancelled or the
    connection has ended, PacketConnectionError where that broke, TimeoutError after the request's time-out,
    and what ``decode_response`` raises.
    """

    __slots__ = ()

    def __repr__(self):
        return f"<Result: {self.state}>"

    @property
    def is_cancelled(self):
        """The same as ``cancelled``."""
        return self.cancelled

    @property
    def state(self):
        """``"PENDING"``, ``"DONE"`` or ``"CANCELLED"``."""
        if not self.ready:
            return "PENDING"
        return "CANCELLED" if self.cancelled else "DONE"

    @property
    def result(self):
        """What it has come to.

        Raises AttributeError before it is ready, and where it has come to an exception.
        """
        result, exc_info = self._known()
        if exc_info is not None:
            raise AttributeError(f"there is no result but an exception: {exc_info[1]!r}")
        return result

    @property
    def exc_info(self):
        """The exception that it has come to, as ``sys.exc_info()`` has it; None where it is none.

        Raises AttributeError before it is ready.
        """
        return self._known()[1]

    def join(self, timeout=None):
        """Wait, at most so many seconds, and return ``(result, exc_info)``, of which one is None.

        Raises TimeoutError where it is not ready then; the request goes on.
        """
        if not self._wait(timeout):
            raise TimeoutError(f"not ready within {timeout} s")
        return self._known()

    def get(self, default=None):
        """Wait without limit, and return the result, or a default where it has come to an exception."""
        result, exc_info = self.join()
        return result if exc_info is None else default

    def notify(self, notifier):
        """Have ``notifier(self)`` called when it is ready: at once where it is, else by a thread of the
        connection.
        """
        if not self._on_settled(lambda: notifier(self)):
            notifier(self)

    def _known(self):
        if not self.ready:
            raise AttributeError("it is not ready: nothing is known yet")
        try:
            return self._outcome(), None
        except BaseException:
            return None, sys.exc_info()

    def __await__(self):
        return outcome(_Wait, self).__await__()


class _Wait:
    """A task that waits for a result."""

    def __init__(self, bell, key, result):
        self._result = result
        result._watch(bell, key)

    @property
    def settled(self):
        return self._result.ready

    def finish(self):
        return self._result._outcome()

    def cancel(self):
        """The task does not wait any more; others may."""


_causeway._register_packets(Result, CancellationError, ClosedError, PacketConnectionError)
