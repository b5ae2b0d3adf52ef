"""What the suites of byte channels share: threads and tasks, and waiting for events."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import erlang

PACKAGE = Path(erlang.__file__).parent.parent

# The same tests run in plain python3 and in a context of a node, which is no main thread.
in_plain_python = pytest.mark.skipif("_causeway" in sys.builtin_module_names, reason="of plain python3")
on_the_main_thread = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals are the main thread's"
)

# How long something that must happen may take. Only a defect makes anything wait that long.
PATIENCE = 30


class Running(threading.Thread):
    """A thread that runs a function; ``result()`` gives what it returns or raises."""

    def __init__(self, function, *arguments, **keywords):
        super().__init__(daemon=True)
        self._work = lambda: function(*arguments, **keywords)
        self._value = self._error = None
        self.start()

    def run(self):
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def result(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "it still waits"
        if self._error is not None:
            raise self._error
        return self._value


def eventually(condition):
    """Look until a condition holds, and let others run meanwhile."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.0005)


def until_waiting(channel, receivers=0, senders=0):
    """Return when so many wait for a channel."""
    eventually(
        lambda: (
            (info := channel.info())["waiting_receivers"] == receivers and info["waiting_senders"] == senders
        )
    )


def python(code):
    """A new Python that runs code and can import the package."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env=os.environ | {"PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(code):
    """What such a Python prints until it ends well."""
    process = python(code)
    try:
        printed, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return printed


def descriptors():
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def threads():
    """How many threads of any kind this process has. One that was joined may end a little later."""
    return len(os.listdir("/proc/self/task"))


def resident_bytes():
    """How much of this process is in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- asyncio ----------------------------------------------------------------------------------


def run(main):
    """Run a coroutine on a loop of its own; what waits for ever is an error."""
    return asyncio.run(asyncio.wait_for(main, PATIENCE))


async def waiting(channel, receivers=0, senders=0):
    """Let the other tasks of the loop run until so many of them wait."""
    for _ in range(1000):
        info = channel.info()
        if (info["waiting_receivers"], info["waiting_senders"]) == (receivers, senders):
            return
        await asyncio.sleep(0)
    raise AssertionError(info)


async def started(channel, coroutines, senders=False):
    """Tasks of which each waits before the next begins."""
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.ensure_future(coroutine))
        await waiting(channel, **{"senders" if senders else "receivers": len(tasks)})
    return tasks


async def cancel(*tasks):
    for task in tasks:
        task.cancel()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task
