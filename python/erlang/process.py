"""Programs of the operating system, as Erlang's ``causeway_process_stream`` runs them.

``open`` starts a program whose standard streams are byte channels, with files and an asyncio interface on
top; ``run`` runs one to its end and returns its output. All of the output is there before the end is told, a
program waits where nobody reads what it writes, and nothing of it is left when its ``Process`` is closed or
gone, or the node ends, however it does.

Inside the BEAM only; in a plain ``python3`` both raise RuntimeError, and ``subprocess`` is what there is.
"""

import errno
import os
import weakref
from typing import NamedTuple

import _causeway
from erlang import _callbacks
from erlang._channel import ByteChannel, ByteChannelAborted

__all__ = ["Completed", "Incomplete", "IncompleteOutput", "IncompleteTime", "Process", "open", "run"]


class Completed(NamedTuple):
    """How a program has ended that ``run`` has run, and all that it has written."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Incomplete(RuntimeError):
    """``run`` has given a program up. ``stdout`` and ``stderr`` are what it had written."""

    def __init__(self, text, stdout=b"", stderr=b""):
        super().__init__(text)
        self.stdout = stdout
        self.stderr = stderr


class IncompleteTime(Incomplete, TimeoutError):
    """It took too long."""


class IncompleteOutput(Incomplete):
    """It wrote too much."""


def open(command, arguments=(), *, stdin=None, stdout=None, stderr=None, pty=None, buffer=65536, **options):
    """Start a program, found on the PATH unless it has a slash, and return its Process.

    ``arguments`` are str, bytes or paths. ``stdin``, ``stdout`` and ``stderr`` are "pipe", the default,
    "null", a path, or ("append", path); for ``stderr`` "stdout", too. ``pty=(rows, columns)`` gives it a
    terminal, which they are then unless they are said to be something else. At most ``buffer`` bytes wait in
    each direction, beside what is in the pipe; 0 is no limit. Other options are those of
    causeway_process_stream, which has their units: cd, env, where None removes a variable, arg0, umask, nice,
    uid, gid, groups, rlimits, where None is no limit, delay_to_sigkill and exit_grace in milliseconds (500
    and 200 by default), cgroup, cgroup_path, cgroup_base, cgroup_controllers, cgroup_sets.

    Returns when the program runs. Raises OSError with the errno where it cannot be started
    (FileNotFoundError, PermissionError and so on), ValueError for a wrong option, TypeError, RuntimeError
    outside the BEAM.
    """
    _need_beam("open")
    given = _options(options, stdin=stdin, stdout=stdout, stderr=stderr)
    if pty is not None:
        given["pty"] = tuple(pty)
    if buffer > 0:
        # What is read at once is no more than there is room for.
        given.setdefault("stdio_window", min(buffer, 65536))
    streams = {}
    for name, what in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        # What goes to a terminal comes as standard output.
        if what == "pipe" or (what is None and not (pty is not None and name == "stderr")):
            streams[name] = _Stream.new(buffer)
            given.pop(name, None)
    ended = ByteChannel.new()
    answer = _callbacks.call(
        "_causeway_process_open", _text(command), [_text(each) for each in arguments], given, streams, ended
    )
    match answer:
        case ("ok", owner, pid):
            return Process(owner, pid, streams, ended)
        case ("error", reason, text):
            raise _error(reason, text, command)


def run(
    command,
    arguments=(),
    *,
    input=b"",
    timeout=None,
    max_output=67108864,
    stdin=None,
    stdout=None,
    stderr=None,
    **options,
):
    """Run a program to its end and return a Completed: how it has ended, and what it has written.

    ``input`` is bytes that it reads, ``timeout`` in seconds, without limit by default, and ``max_output`` in
    bytes of both outputs: what takes longer or is more ends the program, and raises IncompleteTime, which is
    a TimeoutError, or IncompleteOutput, with what was there. Otherwise as ``open``, with the same options,
    but ``buffer``, and the same errors; what goes elsewhere by ``stdout`` and ``stderr`` is not collected.
    """
    _need_beam("run")
    given = _options(options, stdin=stdin, stdout=stdout, stderr=stderr)
    given["input"] = bytes(input)
    given["max_output"] = max_output
    if timeout is not None:
        given["run_timeout"] = max(0, round(timeout * 1000))
    match _callbacks.call(
        "_causeway_process_run", _text(command), [_text(each) for each in arguments], given
    ):
        case ("ok", (end, _), (output, errors)):
            return Completed(_returncode(end), output, errors)
        case ("timeout", (output, errors)):
            raise IncompleteTime(f"{command!r} took longer than {timeout} seconds", output, errors)
        case ("too_much", (output, errors)):
            raise IncompleteOutput(
                f"{command!r} wrote more than {max_output} bytes: max_output allows more", output, errors
            )
        case ("closed", _):
            raise RuntimeError(f"what runs {command!r} was ended")
        case ("error", reason, text):
            raise _error(reason, text, command)


class Process:
    """A program that runs, from ``open``.

    It lives as long as this object, or one of its channels and files, unless it ends before. Leaving a
    ``with`` or ``async with`` closes it.

    ``stdin_channel``, ``stdout_channel`` and ``stderr_channel`` are its streams as ByteChannels, for any
    number of threads and asyncio tasks, or None where they are something else. ``stdin``, ``stdout`` and
    ``stderr`` are the same as binary files: use one or the other. ``pid`` is the number of its process.
    """

    def __init__(self, owner, pid, streams, ended):
        self._owner = owner
        self._ended = ended
        self._files = {}
        self.pid = pid
        self.stdin_channel = streams.get("stdin")
        self.stdout_channel = streams.get("stdout")
        self.stderr_channel = streams.get("stderr")
        life = _Life()
        for stream in streams.values():
            stream.life = life
        self._life = life
        self._let_go = weakref.finalize(life, _let_go, owner)

    @property
    def stdin(self):
        """A file that writes, without a buffer; closing it is the end of the program's input."""
        return self._file("stdin", self.stdin_channel, "wb", 0)

    @property
    def stdout(self):
        """A file that reads what the program writes, up to the end."""
        return self._file("stdout", self.stdout_channel, "rb", -1)

    @property
    def stderr(self):
        """The same of its standard error."""
        return self._file("stderr", self.stderr_channel, "rb", -1)

    def _file(self, name, channel, mode, buffering):
        if channel is None:
            return None
        if name not in self._files:
            self._files[name] = channel.makefile(mode, buffering=buffering)
        return self._files[name]

    @property
    def returncode(self):
        """The exit status, or minus the number of the signal that has ended it; None while it runs or where
        it was closed before it ended.
        """
        end = self._end(lambda: self._ended.try_receive_bytes())
        return None if end is None else _returncode(end[0])

    @property
    def is_output_held(self):
        """Whether it has ended while a process that it had started still had its output open, which was cut
        off.
        """
        end = self._end(lambda: self._ended.try_receive_bytes())
        return end is not None and end[1]

    @staticmethod
    def _end(ask):
        # Nothing is ever sent: what there is to know is the reason why the channel was aborted.
        try:
            ask()
        except ByteChannelAborted as end:
            return end.reason
        return None

    def wait(self, timeout=None):
        """Wait until it has ended, all of its output is read or in the channels, and nothing of it is left;
        return ``returncode``.

        ``timeout`` is in seconds; after it a TimeoutError is raised. More output than the buffers hold has
        to be read meanwhile.
        """
        milliseconds = -1 if timeout is None else max(0, round(timeout * 1000))
        end = self._end(lambda: self._ended.receive_bytes(timeout_ms=milliseconds))
        return _returncode(end[0])

    async def async_wait(self):
        """The same, without blocking the event loop."""
        try:
            await self._ended.async_receive_bytes()
        except ByteChannelAborted as end:
            return _returncode(end.reason[0])

    async def async_communicate(self, data=b""):
        """Write ``data``, close standard input, read both outputs to their ends and wait; return them as a
        pair of bytes, as ``asyncio``'s ``communicate`` does. All of it is in memory.
        """
        import asyncio  # a megabyte in every interpreter: only who uses it pays for it

        output, errors, _ = await asyncio.gather(
            _all_of(self.stdout_channel), _all_of(self.stderr_channel), self._write(data)
        )
        await self.async_wait()
        return output, errors

    async def _write(self, data):
        if self.stdin_channel is None:
            return
        try:
            if len(data):
                await self.stdin_channel.async_send_bytes(data)
        except ByteChannelAborted:
            pass  # it does not read all: no error of a program that has enough
        self.stdin_channel.close()

    def send_signal(self, signal, target="process"):
        """Send a signal, by its number or name: to the process, or to its "group", or to the whole "tree" of
        what it has started.

        Raises ProcessLookupError where it has ended, ValueError for what is no signal.
        """
        if target not in ("process", "group", "tree"):
            raise ValueError(f"a signal goes to the 'process', 'group' or 'tree', not {target!r}")
        number = signal if isinstance(signal, str) else int(signal)
        self._ask(("kill", target, number))

    def terminate(self):
        """Ask it to end, by SIGTERM. Raises ProcessLookupError where it has ended."""
        self.send_signal("term")

    def kill(self):
        """End it, by SIGKILL, and what it has started, too. Raises ProcessLookupError where it has ended."""
        self.send_signal("kill", "tree")

    def resize(self, rows, columns):
        """Change the size of its terminal. Raises ValueError where it has none, ProcessLookupError."""
        self._ask(("resize", (rows, columns)))

    def close(self):
        """Let go of it: it and all that it has started are ended, by SIGTERM and then SIGKILL. Does not wait
        for that.

        What was not read is lost.
        """
        self._let_go()

    def _ask(self, request):
        match _callbacks.call("_causeway_process_ask", self._owner, request):
            case ("error", reason, text):
                raise _error(reason, text, None)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_exception):
        self.close()

    def __repr__(self):
        return f"<erlang.process.Process {self.pid}>"


class _Life:
    """What a process and its streams refer to: with the last of them the program ends."""


class _Stream(ByteChannel):
    __slots__ = ("life",)


def _let_go(owner):
    _causeway.send(owner, _causeway.Atom("close"))


async def _all_of(channel):
    if channel is None:
        return b""
    return b"".join([part async for part in channel])


def _need_beam(name):
    if not _causeway.in_beam():
        raise RuntimeError(
            f"erlang.process.{name}() needs a BEAM, whose guardian looks after the program: this Python runs "
            "by itself. Use subprocess here, or start Python from Erlang with the application causeway"
        )


def _text(value):
    # As the system has it, whatever the file names of this system are.
    return os.fsencode(value)


def _options(options, **files):
    given = dict(options)
    for name, what in files.items():
        if what is not None:
            given[name] = _file_option(what)
    if "env" in given:
        env = given["env"].items()
        given["env"] = [(_text(name), False if value is None else _text(value)) for name, value in env]
    if "rlimits" in given:
        given["rlimits"] = [(name, _limit(limit)) for name, limit in given["rlimits"].items()]
    for name in ("cd", "arg0"):
        if name in given:
            given[name] = _text(given[name])
    return given


def _file_option(what):
    if isinstance(what, str) and what in ("pipe", "null", "stdout"):
        return what
    match what:
        case ("append", path):
            return ("append", _text(path))
    return ("file", _text(what))


def _limit(limit):
    if isinstance(limit, tuple | list):
        return tuple(_limit(each) for each in limit)
    return _causeway.Atom("infinity") if limit is None else limit


def _returncode(end):
    match end:
        case ("status", status):
            return status
        case ("signal", number):
            return -number
    return None


def _error(reason, text, command):
    match reason:
        case "badarg":
            return ValueError(text)
        case "no_pty":
            return ValueError("the program has no terminal: open it with pty=(rows, columns)")
        case "exited" | "closed":
            return ProcessLookupError(errno.ESRCH, "the program has ended")
    number = getattr(errno, reason.upper(), None)
    if number is None:
        return RuntimeError(text)
    return OSError(number, text) if command is None else OSError(number, text, command)
