"""``sys.stdout`` and ``sys.stderr`` inside the BEAM.

What is printed goes to the group leader of the Erlang process on whose behalf it is printed, what is written
to ``sys.stderr`` to Erlang's logger. The native half keeps what is no complete line, for each thread by
itself, and makes a thread wait that is too far ahead.
"""

import codecs
import io
import sys

import _causeway


def install():
    """Replace the streams of this interpreter. ``sys.__stdout__`` and ``sys.__stderr__`` stay the files."""
    sys.stdout = Stream("<stdout>", _causeway._write)
    sys.stderr = Stream("<stderr>", _causeway._write_error)


class Stream(io.TextIOBase):
    """A text stream without a file. What cannot be encoded is escaped: writing raises for no text."""

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True
    write_through = False
    mode = "w"

    def __init__(self, name, write):
        super().__init__()
        self.name = name
        # Of the instance, so that print() calls the native function itself.
        self.write = write
        self.buffer = Bytes(self)

    def writable(self):
        return True

    def flush(self):
        """Send what is no complete line yet."""
        _causeway._flush()

    def close(self):
        """Flush. The stream is everybody's and stays open."""
        self.flush()

    def fileno(self):
        raise io.UnsupportedOperation(
            f"{self.name} has no file descriptor: inside the BEAM it goes to an Erlang process"
        )

    def reconfigure(self, **options):
        """Accepted for the sake of programs that set their encoding; it stays UTF-8, by lines."""

    def __repr__(self):
        return f"<erlang {self.name} encoding='utf-8'>"


class Bytes(io.BufferedIOBase):
    """What ``sys.stdout.buffer`` is: bytes that are taken for UTF-8."""

    mode = "wb"

    def __init__(self, stream):
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    @property
    def name(self):
        return self._stream.name

    def writable(self):
        return True

    def write(self, data, /):
        with memoryview(data) as view:
            size = view.nbytes
            self._stream.write(self._decoder.decode(view.tobytes()))
        return size

    def flush(self):
        self._stream.flush()

    def close(self):
        self.flush()

    def fileno(self):
        return self._stream.fileno()
