"""What the suites of output and safety need on the Python side."""

import concurrent.futures
import contextlib
import io
import logging
import os
import subprocess
import sys
import threading
import warnings

import erlang
import erlang.reactor as reactor


class Printer(reactor.Protocol):
    """Prints what it is told."""

    def data_received(self, data):
        print("heard", data.decode(), end="")
        self.write_buffer.extend(data)
        return "write_pending"


def use_printer():
    reactor.set_protocol_factory(Printer)


def print_lines(name, count):
    for number in range(count):
        print(name, number)


def print_around_call(name):
    """A line that is interrupted by a call of Erlang."""
    print("before ", end="")
    erlang.call(name)
    print("after")


def print_much(size):
    """In lines of 100 characters."""
    line = "x" * 99
    for _ in range(size // 100):
        print(line)


def print_in_thread(text, end):
    thread = threading.Thread(target=print, args=(text,), kwargs={"end": end})
    thread.start()
    thread.join()


def print_without_end(pid, text):
    """Prints what is no line, flushes it, and goes on until the gate is opened."""
    print(text, end="", flush=True)
    wait(pid)


gate = threading.Event()


def wait(pid):
    gate.clear()
    erlang.send(pid, "waiting")
    while not gate.wait(0.005):
        pass


def wait_and_print(pid, text):
    wait(pid)
    print(text)


def open_gate():
    gate.set()


def streams():
    """What programs ask of sys.stdout."""
    with contextlib.redirect_stdout(io.StringIO()) as captured:
        print("captured")
    with contextlib.suppress(io.UnsupportedOperation):
        sys.stdout.fileno()
        return "it has a descriptor"
    sys.stdout.writelines(["some ", "lines\n"])
    sys.stdout.buffer.write(b"caf\xc3")
    sys.stdout.buffer.write(b"\xa9 \xff\n")
    sys.stdout.close()
    sys.stdout.reconfigure(encoding="latin-1")
    print("é")
    return [
        captured.getvalue(),
        sys.stdout.encoding,
        sys.stdout.isatty(),
        sys.stdout.closed,
        sys.stdout.writable(),
        sys.stdout.readable(),
        sys.stdout.write("four"),
    ]


# Logging


def log_at(level, text):
    logging.getLogger("a.b").log(level, text)


def log_exception():
    try:
        raise KeyError("missing")
    except KeyError:
        logging.getLogger("a.b").exception("it %s", "failed")


def log_badly():
    logging.getLogger("a.b").error("%d", "no number")


def warn(text):
    warnings.warn(text, stacklevel=1)


def fail_in_thread():
    thread = threading.Thread(target=lambda: 1 / 0, name="failing")
    thread.start()
    thread.join()


class Failing:
    def __del__(self):
        raise ValueError("in del")


def fail_in_del():
    Failing()


def print_exception():
    import traceback

    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError:
        traceback.print_exc()


# Safety


def refusals():
    """What every function says that must not work, by name."""
    import pty

    calls = {
        "fork": os.fork,
        "forkpty": os.forkpty,
        "pty.fork": pty.fork,
        "execv": lambda: os.execv("/bin/true", ["true"]),
        "execve": lambda: os.execve("/bin/true", ["true"], {}),
        "execvp": lambda: os.execvp("true", ["true"]),
        "execl": lambda: os.execl("/bin/true", "true"),
        "spawnl": lambda: os.spawnl(os.P_WAIT, "/bin/true", "true"),
    }
    said = {}
    for name, call in calls.items():
        try:
            said[name] = f"nothing: {call()!r}"
        except RuntimeError as error:
            said[name] = str(error)
    return said


def start_process(method):
    """Starts a process of multiprocessing, with the default method where it is None."""
    import multiprocessing
    import time

    process = multiprocessing.get_context(method).Process(target=time.time)
    process.start()
    process.join()
    return process.exitcode


def start_pool(method):
    import multiprocessing

    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(abs, [-1, -2])


def start_executor():
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        return executor.submit(abs, -3).result()


def run_many(count):
    """Exit codes of as many processes at once."""

    def run(number):
        return subprocess.run(["sh", "-c", f"exit {number % 7}"]).returncode

    with concurrent.futures.ThreadPoolExecutor(count) as executor:
        return list(executor.map(run, range(count)))


def posix_spawn():
    process = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def recurse(depth):
    return 0 if depth == 0 else 1 + recurse(depth - 1)


def overflow():
    """Use up the stack of this thread, in C: a pattern of a million parentheses, which regcomp() follows by recursion."""
    import ctypes

    depth = 1_000_000
    pattern = b"(" * depth + b")" * depth
    ctypes.PyDLL(None).regcomp(ctypes.create_string_buffer(4096), pattern, 1)
