"""The descriptors of a connection, from whatever it is given."""

import contextlib
import functools
import io
import itertools
import logging
import os
import socket
import stat
import sys
import threading

_log = logging.getLogger("erlang.packetstream")


class Streams:
    """Two descriptors for the core, which owns them, and the threads that carry what has no descriptor of
    its own.
    """

    def __init__(self, recv, send):
        self._pumps = []
        self.recv = self.send = -1
        try:
            if recv is send and isinstance(recv, socket.socket) and hasattr(recv, "unwrap"):
                self._carry(recv)
            else:
                self.recv = self._source(recv)
                self.send = self._target(send)
        except BaseException:
            self.discard()
            raise

    def discard(self):
        """Nobody has taken the descriptors."""
        for fd in (self.recv, self.send):
            if fd >= 0:
                os.close(fd)
        self.end(0)

    def end(self, timeout):
        """The core has written and read all that it will: the threads have so many seconds for theirs."""
        for near, *_ in self._pumps:
            # It may be over already.
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)
        # When Python has ended its threads are stopped where they are: whoever waits for one waits for ever.
        is_running = not sys.is_finalizing()
        for near, thread, stop in self._pumps:
            if thread is not None and is_running:
                thread.join(timeout)
            if stop is not None:
                # The socket is the caller's again, who may close it: nobody may write to its number then.
                stop.close()
                if is_running:
                    thread.join()
            near.close()
        self._pumps = []

    def _carry(self, sock):
        from . import _tls  # who has no TLS needs no ssl

        near, far = socket.socketpair()
        stop, stopped = socket.socketpair()
        self._pumps.append((near, _start(_tls.carry, sock, far, stopped), stop))
        self.recv = os.dup(near.fileno())
        self.send = os.dup(near.fileno())

    def _source(self, recv):
        if isinstance(recv, str | os.PathLike):
            return os.open(recv, os.O_RDONLY | os.O_CLOEXEC)
        fd = _descriptor(recv, io.FileIO)
        if fd is not None:
            return _duplicate(fd, os.O_RDONLY)
        if isinstance(recv, io.BufferedReader) and isinstance(recv.raw, io.FileIO):
            ahead, fd = _read_ahead(recv), recv.fileno()
            if not ahead:
                return _duplicate(fd, os.O_RDONLY)
            pieces = itertools.chain([ahead], _descriptor_pieces(os.dup(fd)))
        else:
            pieces = _pieces(recv)
        near, far = socket.socketpair()
        # Nobody waits for it: what it reads from may never end.
        self._pumps.append((near, None, None))
        _start(_pump_in, pieces, far)
        return os.dup(near.fileno())

    def _target(self, send):
        fd = _descriptor(send, io.FileIO | io.BufferedWriter)
        own = None
        if fd is None:
            write = _writer(send)
        elif os.isatty(fd) and os.get_blocking(fd):
            # A terminal that has room waits nevertheless where that is not enough: nobody else may have to.
            own = os.dup(fd)
            write = functools.partial(_write_all, own)
        else:
            return _duplicate(fd, os.O_WRONLY)
        near, far = socket.socketpair()
        self._pumps.append((near, _start(_pump_out, far, write, own), None))
        return os.dup(near.fileno())


def _descriptor(stream, files):
    """The descriptor that can be read or written instead of the object, None where there is none."""
    if isinstance(stream, bool):
        raise TypeError("a stream is a file descriptor, a socket or a binary file, not bool")
    if isinstance(stream, int):
        return stream
    if isinstance(stream, socket.socket):
        # What is encrypted has to go by its methods.
        return None if hasattr(stream, "unwrap") else stream.fileno()
    if isinstance(stream, files):
        if stream.writable():
            stream.flush()
        return stream.fileno()
    return None


def _duplicate(fd, mode):
    """A descriptor that does not block, where there can be one without changing the caller's."""
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        # The core can do without.
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(fd)


def _read_ahead(file):
    """What a buffered file has read already, and waits for nobody."""
    blocks = os.get_blocking(file.fileno())
    if blocks:
        os.set_blocking(file.fileno(), False)
    try:
        return file.read(len(file.peek()))
    finally:
        if blocks:
            os.set_blocking(file.fileno(), True)


def _descriptor_pieces(fd):
    with open(fd, "rb", buffering=0) as file:
        yield from iter(functools.partial(file.read, 65536), b"")


def _pieces(recv):
    """What an object has to be read, piece by piece."""
    if isinstance(recv, bytes | bytearray | memoryview):
        return iter((recv,))
    if hasattr(recv, "receive_bytes"):
        return iter(recv)
    for name in ("read1", "read", "recv"):
        if hasattr(recv, name):
            return iter(functools.partial(getattr(recv, name), 65536), b"")
    try:
        return iter(recv)
    except TypeError:
        raise TypeError(
            "recv is a file descriptor, a socket, a binary file, a ByteChannel, bytes or an iterable of "
            f"bytes, not {type(recv).__name__}"
        ) from None


def _writer(send):
    if hasattr(send, "send_bytes"):
        return lambda data: send.send_bytes(data, timeout_ms=-1)
    if hasattr(send, "sendall"):
        return send.sendall
    if not hasattr(send, "write"):
        raise TypeError(
            f"send is a file descriptor, a socket, a binary file or a ByteChannel, not {type(send).__name__}"
        )

    def write(data):
        rest = memoryview(data)
        while rest:
            count = send.write(rest)
            rest = rest[count if count is not None else len(rest) :]
        if hasattr(send, "flush"):
            send.flush()

    return write


def _write_all(fd, data):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _start(function, *arguments):
    thread = threading.Thread(
        target=function, args=arguments, name=f"packetstream{function.__name__}", daemon=True
    )
    thread.start()
    return thread


def _pump_in(pieces, far):
    with far:
        try:
            for piece in pieces:
                far.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the connection is over
        except Exception as error:
            if type(error).__name__ not in ("ByteChannelClosed", "ByteChannelAborted"):
                _log.exception("the stream of a packet connection cannot be read")


def _pump_out(far, write, own):
    with far, contextlib.ExitStack() as stack:
        if own is not None:
            stack.callback(os.close, own)
        try:
            while data := far.recv(65536):
                write(data)
        except ConnectionResetError:
            pass  # the connection is over
        except Exception:
            _log.exception("the stream of a packet connection cannot be written")
