"""Programs that an event loop starts: what is behind ``asyncio.create_subprocess_exec`` and ``_shell``.

Inside the BEAM a guardian starts them, as those of ``erlang.process``, so that nothing of them outlives the
loop, the context or the node: the loop watches the connection to the guardian, and no child is one of the
node's. In a plain python3 ``subprocess`` starts them, and a pidfd tells of their end.

Either way a program belongs to its loop, and ends with it at the latest. What becomes of the task that has
started it is no affair of the program's, as in asyncio's own loops.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
import time
from asyncio import base_subprocess, events, unix_events

import _causeway

# How often, and for how many seconds each time, the helper is waited for that is busy with others.
_TRIES = 10_000
_PAUSE = 0.001
#: For how many milliseconds at once a program is waited for without a loop: a call may be interrupted then.
_LOOK = 50
#: For how many seconds a child that was killed is waited for where the loop is closed.
_LAST_WAIT = 5
_NULL, _AS_OUTPUT = -1, -2


def are_watched_by_others():
    """Whether a program has set a child watcher of a kind of its own, as it could up to Python 3.13."""
    if _causeway.in_beam() or not hasattr(events, "get_child_watcher"):
        return False
    watcher = getattr(events.get_event_loop_policy(), "_watcher", None)
    own = (unix_events.ThreadedChildWatcher, unix_events.PidfdChildWatcher)
    return watcher is not None and type(watcher) not in own


async def make_transport(loop, protocol, args, shell, stdin, stdout, stderr, bufsize, *, extra, **options):
    """Start a program, and return its transport when its pipes are connected."""
    if _causeway.in_beam():
        kind = GuardedTransport
        options = {"program": await _launch(loop, args, shell, (stdin, stdout, stderr), **options)}
    else:
        kind = ChildTransport
    waiter = loop.create_future()
    transport = kind(
        loop, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter, extra=extra, **options
    )
    transport.begin()
    try:
        await waiter
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.close()
        await transport._wait()
        raise
    return transport


class _Common(base_subprocess.BaseSubprocessTransport):
    def begin(self):
        """Watch the program, for as long as the loop is open."""
        self._loop._programs.add(self)
        self._watch()

    def _call_connection_lost(self, exc):
        loop, program = self._loop, self._proc
        try:
            super()._call_connection_lost(exc)
        finally:
            loop._programs.discard(self)
            self._let_go(program)

    def abandon(self):
        """The loop is closed: end the program, close what is open, and tell nobody."""
        loop, program = self._loop, self._proc
        self._closed = True
        self._let_go(program)
        for number, file in enumerate((program.stdin, program.stdout, program.stderr)):
            connected = self._pipes.get(number)
            if connected is not None and connected.pipe is not None:
                connected.pipe._abandon()
            if file is not None:
                file.close()
        loop._programs.discard(self)


class ChildTransport(_Common, unix_events._UnixSubprocessTransport):  # type: ignore[name-defined]
    """A child of a plain python3."""

    _pidfd = None

    def _start(self, args, shell, stdin, stdout, stderr, bufsize, **options):
        super()._start(args, shell, stdin, stdout, stderr, bufsize, **options)
        try:
            self._pidfd = os.pidfd_open(self._proc.pid)
        except OSError:
            program, self._proc = self._proc, None
            with program:
                program.kill()
            raise

    def _watch(self):
        self._loop._add_reader(self._pidfd, self._ended)

    def _ended(self):
        returncode = self._proc.poll()
        if returncode is not None:
            self._close_pidfd()
            self._process_exited(returncode)

    def _close_pidfd(self):
        number, self._pidfd = self._pidfd, None
        if number is not None:
            self._loop._remove_reader(number)
            os.close(number)

    def _let_go(self, program):
        if program.returncode is not None:
            return
        self._close_pidfd()
        program.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(_LAST_WAIT)


class GuardedTransport(_Common):
    """A program inside the BEAM, which is no child of the node's but of a guardian."""

    def _start(self, args, shell, stdin, stdout, stderr, bufsize, program):
        self._proc = program

    def _watch(self):
        self._proc.tell(self)

    def _let_go(self, program):
        program.close()

    def send_signal(self, signal):
        """Send a signal to the program. Raises ProcessLookupError where it has ended."""
        self._check_proc()
        self._proc.send_signal(signal)

    def terminate(self):
        """Ask it to end, by SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self):
        """End it, by SIGKILL, and what it has started, too."""
        self._check_proc()
        self._proc.kill()


class _Guarded:
    """What a transport has of a program, in the place of a ``subprocess.Popen``."""

    def __init__(self, loop, native, args, files):
        self.args = args
        self.stdin, self.stdout, self.stderr = files
        self.pid = None
        self.returncode = None
        self.started = loop.create_future()
        self._transport = None
        self._loop = loop
        self._native = native
        loop._add_reader(native.fileno(), self._told)

    def _told(self):
        self._take(self._tell)

    def _take(self, tell):
        """Take what the guardian has told so far; a transport is told by ``tell(returncode)``."""
        while event := self._native.event():
            match event:
                case ("started", pid):
                    self.pid = pid
                    self._settle(None)
                case ("failed", step, number, detail):
                    self._settle((step, number, os.fsdecode(detail)))
                case ("exited", returncode, _):
                    self._exited(returncode, tell)
                case _:
                    # It has told before how it has ended, unless its guardian was killed, and it too.
                    self._exited(-signal.SIGKILL, tell)
                    self.close()
                    return

    def _settle(self, failure):
        if not self.started.done():
            self.started.set_result(failure)

    def _exited(self, returncode, tell):
        if self.returncode is not None:
            return
        self.returncode = returncode
        if self.pid is None:
            self._settle(("start", 0, "the guardian of the program was killed"))
        elif self._transport is not None:
            tell(returncode)

    def tell(self, transport):
        """Have a transport told of the end."""
        if self.returncode is None:
            self._transport = transport
        else:
            self._loop.call_soon(transport._process_exited, self.returncode)

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        """Hold up the loop until it has ended. Raises subprocess.TimeoutExpired after so many seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        poller = select.poll()
        poller.register(self._native.fileno(), select.POLLIN)
        while self.returncode is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            poller.poll(_LOOK)
            self._take(self._tell_soon)
        return self.returncode

    def _tell(self, returncode):
        self._transport._process_exited(returncode)

    def _tell_soon(self, returncode):
        self._loop.call_soon(self._transport._process_exited, returncode)

    def send_signal(self, number):
        if self.returncode is None:
            self._native.send_signal(number, False)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self._native.send_signal(signal.SIGKILL, True)

    def close(self):
        """End what is left of it."""
        self._native.close()
        self._transport = None


async def _launch(
    loop,
    args,
    shell,
    streams,
    *,
    executable=None,
    cwd=None,
    env=None,
    user=None,
    group=None,
    extra_groups=None,
    umask=-1,
    pipesize=-1,
    start_new_session=True,
    restore_signals=True,
    pass_fds=(),
    close_fds=True,
    **others,
):
    """Start a program, which has a session of its own and the default actions of all signals."""
    _refuse(others)
    if shell:
        args = ["/bin/sh", "-c", args]
    elif isinstance(args, (str, bytes, os.PathLike)):
        args = [args]
    arguments = [_text(each) for each in args]
    environment = os.environb if env is None else {_name(key): _text(value) for key, value in env.items()}
    name = executable if executable is not None else args[0]
    if executable is not None and shell:
        arguments[0] = _text(executable)
    directory = None if cwd is None else _text(cwd)
    path = _found(_text(name), environment, directory, name)
    accounts = (
        _account(user),
        _account(group),
        None if extra_groups is None else [_account(each) for each in extra_groups],
    )
    texts = [key + b"=" + value for key, value in environment.items()]
    inherited = _inherited(pass_fds, close_fds)
    with _Streams(streams, pipesize) as opened:
        descriptors = opened.theirs + inherited
        native = await _started(
            loop, path, arguments, texts, directory, accounts, None if umask < 0 else umask, descriptors
        )
        program = _Guarded(loop, native, args, opened.take_ours())
    try:
        failure = await program.started
    except BaseException:
        _drop(program)
        raise
    if failure is None:
        return program
    _drop(program)
    step, number, detail = failure
    match step:
        case "exec":
            raise OSError(number, os.strerror(number), os.fspath(name))
        case "cd":
            raise OSError(number, os.strerror(number), os.fspath(cwd))
    what = _STEPS.get(step, step)
    raise OSError(number, detail or f"{what}: {os.strerror(number)}")


#: What could not be done, as it is told.
_STEPS = {
    "fork": "the guardian of the program could not be forked",
    "clone": "the program could not be forked",
    "descriptors": "the program could not get its descriptors",
}


def _inherited(pass_fds, close_fds):
    """The descriptors above 2 that a program has as this process has them."""
    if pass_fds or close_fds:
        return sorted({number for number in map(int, pass_fds) if number > 2})
    inherited = []
    for number in map(int, os.listdir("/proc/self/fd")):
        # One of them may be closed by now: that of the listing.
        with contextlib.suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                inherited.append(number)
    return inherited


def _drop(program):
    program.close()
    for file in (program.stdin, program.stdout, program.stderr):
        if file is not None:
            file.close()


async def _started(loop, *request):
    for _ in range(_TRIES):
        try:
            native = _causeway._launch(loop, *request)
        except BlockingIOError:
            # It starts some thousand programs a second, and cannot tell when it has room again.
            await asyncio.sleep(_PAUSE)
            continue
        if native is not None:
            return native
        await _start_helper()
    raise OSError(errno.EAGAIN, "the helper causeway-spawn does not get on")


async def _start_helper():
    from erlang._loop import async_call

    match await async_call("_causeway_process_helper"):
        case ("error", reason, text):
            # The system's reasons have the names that C has for them.
            raise OSError(getattr(errno, str(reason).upper(), errno.EIO), text)


class _Streams:
    """The program's ends of its standard streams, and ours of those that are pipes."""

    def __init__(self, streams, pipesize):
        self.theirs = []
        self._ours = [None, None, None]
        self._opened = []
        try:
            for number, what in enumerate(streams):
                self.theirs.append(self._end(number, what, pipesize))
        except BaseException:
            self.__exit__()
            raise

    def _end(self, number, what, pipesize):
        if what == subprocess.PIPE:
            return self._pipe(number, pipesize)
        if what == subprocess.STDOUT and number == 2:
            return _AS_OUTPUT
        if what == subprocess.DEVNULL or (what is None and number == 0):
            # The node's own standard input is the Erlang shell's.
            return _NULL
        if what is None:
            return number
        return what if isinstance(what, int) else what.fileno()

    def _pipe(self, number, pipesize):
        reading, writing = os.pipe()
        theirs, ours = (reading, writing) if number == 0 else (writing, reading)
        self._opened.append(theirs)
        self._ours[number] = os.fdopen(ours, "wb" if number == 0 else "rb", 0)
        if pipesize > 0:
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, pipesize)
        return theirs

    def take_ours(self):
        ours, self._ours = self._ours, []
        return ours

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        for descriptor in self._opened:
            os.close(descriptor)
        for file in self._ours:
            if file is not None:
                file.close()


#: What ``subprocess`` takes and a guardian does not, with the values that ask for nothing.
_UNUSED = {
    "preexec_fn": (None,),
    "process_group": (None, -1, 0),
    "startupinfo": (None,),
    "creationflags": (0,),
}


def _refuse(options):
    for name, value in options.items():
        if name not in _UNUSED:
            raise TypeError(f"{name!r} is no option of a program")
        if value not in _UNUSED[name]:
            raise ValueError(
                f"{name} is not supported inside the BEAM, where a guardian starts the program, "
                "in a session of its own"
            )


def _text(value):
    text = os.fsencode(value)
    if b"\0" in text:
        raise ValueError("embedded null byte")
    return text


def _name(key):
    name = _text(key)
    if b"=" in name:
        raise ValueError("illegal environment variable name")
    return name


def _account(value):
    return os.fsencode(value) if isinstance(value, str) else value


def _found(name, environment, directory, shown):
    """The file of a program, on the path that it will have."""
    if b"/" in name:
        return name
    refused = False
    for place in os.get_exec_path({os.fsdecode(key): value for key, value in environment.items()}):
        path = os.path.join(os.fsencode(place), name)
        seen = path if directory is None else os.path.join(directory, path)
        if os.path.isfile(seen):
            if os.access(seen, os.X_OK):
                return path
            refused = True
    error = errno.EACCES if refused else errno.ENOENT
    raise OSError(error, os.strerror(error), os.fspath(shown))
