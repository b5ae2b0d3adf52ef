"""Programs that erlang.EventLoop starts in a plain python3: how they end, and that nothing is left."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

import erlang

PIPE = asyncio.subprocess.PIPE


def children():
    """The children of this process, also those that have ended."""
    number = os.getpid()
    with open(f"/proc/self/task/{number}/children") as file:
        return file.read().split()


@pytest.fixture(autouse=True)
def nothing_is_left():
    gc.collect()
    descriptors, threads, before = len(os.listdir("/proc/self/fd")), threading.active_count(), children()
    yield
    gc.collect()
    assert children() == before
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_streams_and_return_codes():
    async def main():
        script = "cat; echo err >&2; exit 3"
        process = await asyncio.create_subprocess_shell(script, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert await process.communicate(b"in") == (b"in", b"err\n")
        assert process.returncode == 3
        process = await asyncio.create_subprocess_exec("sh", "-c", "kill -USR1 $$")
        assert await process.wait() == -signal.SIGUSR1
        for end, number in (("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)):
            process = await asyncio.create_subprocess_exec("sleep", "1000")
            getattr(process, end)()
            assert await process.wait() == -number
        with pytest.raises(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("no-such-program")

    erlang.run(main())


def test_many_at_once():
    async def one(number):
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"cat; exit {number % 7}", stdin=PIPE, stdout=PIPE
        )
        output, _ = await process.communicate(str(number).encode())
        return output == str(number).encode() and process.returncode == number % 7

    async def main():
        assert all(await asyncio.gather(*[one(number) for number in range(50)]))

    erlang.run(main())


def test_in_another_thread():
    async def main():
        process = await asyncio.create_subprocess_exec("sh", "-c", "exit 4")
        return await process.wait()

    results = []
    thread = threading.Thread(target=lambda: results.append(erlang.run(main())))
    thread.start()
    thread.join()
    assert results == [4]


def test_loop_that_is_closed():
    """Also what somebody still refers to."""
    loop = erlang.new_event_loop()
    start = asyncio.create_subprocess_exec
    process = loop.run_until_complete(start("sleep", "1000", stdin=PIPE, stdout=PIPE, stderr=PIPE))
    assert str(process.pid) in children()
    loop.close()
    assert str(process.pid) not in children()


def test_task_that_is_cancelled():
    """The program is the loop's, not the task's."""

    async def lead(started):
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        started.set_result(process)
        await process.communicate()

    async def main():
        started = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(lead(started))
        process = await started
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert process.returncode is None
        assert await process.communicate(b"still here") == (b"still here", None)
        assert process.returncode == 0

    erlang.run(main())


def test_a_task_that_has_ended_leaves_its_program():
    async def main():
        start = asyncio.create_subprocess_exec("sh", "-c", "read line; echo $line", stdin=PIPE, stdout=PIPE)
        process = await asyncio.create_task(start)
        assert await process.communicate(b"still here\n") == (b"still here\n", None)

    erlang.run(main())


def test_cancelled_while_it_starts():
    async def main():
        for turns in range(6):
            task = asyncio.create_task(
                asyncio.create_subprocess_exec("sleep", "1000", stdin=PIPE, stdout=PIPE)
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
            process = (await asyncio.gather(task, return_exceptions=True))[0]
            if not isinstance(process, BaseException):
                process.kill()
                await process.wait()

    erlang.run(main())


def test_no_descriptor_for_it():
    import resource

    async def main():
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        # Popen needs more than the pidfd, so that either may be what there is no descriptor for.
        for more in range(8):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, limits[1]))
            try:
                process = await asyncio.create_subprocess_exec("true", stdin=PIPE)
            except OSError:
                continue
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert await process.wait() == 0
            return
        raise AssertionError("it never was enough")

    erlang.run(main())


# A user who may have no more processes; root may always.
REFUSED = """
import asyncio, os, resource, subprocess, sys
import erlang
from erlang import _loop, _programs
async def main():
    seen = []
    asyncio.get_running_loop().call_later(0.02, seen.append, "timer")
    for _ in range(3):
        try:
            await asyncio.create_subprocess_exec("true", stdin=-1, stdout=-1)
        except BlockingIOError:
            seen.append("refused")
    await asyncio.sleep(0.05)
    return seen
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
before = len(os.listdir("/proc/self/fd"))
print(*erlang.run(main()), len(os.listdir("/proc/self/fd")) - before)
"""


def test_fork_that_is_refused():
    result = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["refused", "refused", "refused", "timer", "0"], result.stderr


@pytest.mark.skipif(not hasattr(asyncio, "AbstractChildWatcher"), reason="Python 3.14 has none")
def test_watchers_of_others_are_used():
    seen = []

    class Watcher(asyncio.ThreadedChildWatcher):
        def add_child_handler(self, pid, callback, *args):
            seen.append(pid)
            super().add_child_handler(pid, callback, *args)

    async def main():
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        return process.pid

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_child_watcher(Watcher())
        try:
            pid = erlang.run(main())
            assert seen == [pid]
        finally:
            asyncio.set_child_watcher(None)
    # asyncio's thread ends a moment after it has told.
    for thread in threading.enumerate():
        if thread.name.startswith("waitpid") or thread.name.startswith("asyncio-waitpid"):
            thread.join()
