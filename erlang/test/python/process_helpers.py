"""What causeway_process_python_SUITE asks of erlang.process: each function is a test."""

import asyncio
import gc
import os
import signal
import tempfile
import threading

import erlang.process as process
from erlang import ByteChannelAborted


class raises:
    def __init__(self, kind, text=""):
        self.kind, self.text = kind, text

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _traceback):
        assert kind is not None and issubclass(kind, self.kind), f"{self.kind} expected, not {kind}"
        assert self.text in str(error), str(error)
        self.error = error
        return True


def shell(script, **options):
    return process.open("sh", ["-c", script], **options)


def files():
    with shell("cat; echo err >&2; exit 3") as cat:
        assert cat.stdin.write(b"one\n") == 4
        cat.stdin.write(b"two\n")
        assert cat.stdout.readline() == b"one\n"
        cat.stdin.close()
        assert cat.stdout.read() == b"two\n"
        assert cat.stderr.read() == b"err\n"
        assert cat.stdout is cat.stdout
        assert cat.wait() == 3
        assert cat.returncode == 3
        assert cat.wait(timeout=0) == 3
        assert not cat.is_output_held
        assert cat.stdout.read() == b""


def pid():
    with shell("echo $$; read x") as one:
        assert int(one.stdout.readline()) == one.pid
        assert repr(one) == f"<erlang.process.Process {one.pid}>"


def ends():
    for script, returncode in (("exit 0", 0), ("exit 143", 143), ("kill -TERM $$", -15), ("kill -9 $$", -9)):
        assert shell(script).wait() == returncode
    held = shell("sleep 1000 & exit 2", exit_grace=20)
    assert held.wait() == 2
    assert held.is_output_held


def running():
    with shell("read x; exit 4") as one:
        assert one.returncode is None
        with raises(TimeoutError):
            one.wait(timeout=0.01)
        with raises(TimeoutError):
            one.wait(timeout=0)
        one.stdin.write(b"\n")
        assert one.wait(timeout=60) == 4


def large():
    data = bytes(range(256)) * 200_000
    with process.open("cat") as cat:

        def write():
            for place in range(0, len(data), 100_000):
                cat.stdin.write(data[place : place + 100_000])
            cat.stdin.close()

        thread = threading.Thread(target=write)
        thread.start()
        assert cat.stdout.read() == data
        thread.join()
        assert cat.wait() == 0


def back_pressure():
    """A program that writes for ever waits, and what waits here is what may."""
    with process.open("yes", buffer=10_000) as yes:
        assert yes.stdout.read(4) == b"y\ny\n"
        for _ in range(100):
            assert yes.stdout_channel.info()["size"] <= 10_000
        assert yes.returncode is None


def streams(directory):
    path = os.path.join(directory, "written")
    assert shell("echo out; echo err >&2", stdout=path, stderr=("append", path)).wait() == 0
    with open(path, "rb") as file:
        assert file.read() == b"out\nerr\n"
    one = process.open("cat", stdin=path, stderr="null")
    assert (one.stdin, one.stdin_channel, one.stderr) == (None, None, None)
    assert one.stdout.read() == b"out\nerr\n"
    assert shell("echo out; echo err >&2", stderr="stdout").stdout.read() == b"out\nerr\n"
    assert process.open("cat", stdin="null").stdout.read() == b""


def options():
    one = shell(
        "echo $(pwd) $ONE-${HOME-none} $(umask) $(nice) $(ulimit -n)",
        cd="/usr",
        env={"ONE": "eins", "HOME": None},
        umask=0o27,
        nice=3,
        rlimits={"nofile": (50, 60), "core": 0, "fsize": None},
    )
    assert one.stdout.read() == b"/usr eins-none 0027 3 50\n"
    data = bytes(range(1, 256))
    assert process.run("printf", ["%s", data]).stdout == data
    assert process.run("printf", ["%s", "ä"]).stdout == "ä".encode()


def errors():
    with raises(FileNotFoundError, "no-such-program"):
        process.open("no-such-program")
    with raises(PermissionError):
        process.open("/etc/passwd")
    with raises(FileNotFoundError, "/nowhere"):
        process.open("true", cd="/nowhere")
    with raises(ValueError, "colour"):
        process.open("true", colour="red")
    with raises(ValueError, "milliseconds"):
        process.open("true", delay_to_sigkill=-1)
    with raises(TypeError):
        process.open(42)
    with raises(ValueError, "pty"):
        process.open("true", pty=(0, 0))
    with raises(FileNotFoundError):
        process.run("no-such-program")
    with raises(ValueError, "colour"):
        process.run("true", colour="red")
    with process.open("cat") as cat:
        with raises(ValueError):
            cat.send_signal("beer")
        with raises(ValueError):
            cat.send_signal(9, "all")
        with raises(ValueError, "no terminal"):
            cat.resize(1, 1)


def signals():
    for number in (signal.SIGUSR1, 10, "usr1", "SIGUSR1"):
        with process.open("sleep", ["1000"]) as sleep:
            sleep.send_signal(number)
            assert sleep.wait() == -10
            with raises(ProcessLookupError):
                sleep.send_signal(number)
    with process.open("sleep", ["1000"]) as sleep:
        sleep.terminate()
        assert sleep.wait() == -15
    with shell("sleep 1000 & echo $!; wait") as tree:
        child = int(tree.stdout.readline())
        tree.kill()
        assert tree.wait() == -9
        assert not os.path.exists(f"/proc/{child}")


def terminal():
    with shell("stty size; read x; stty size; exit 5", pty=(10, 20)) as one:
        assert one.stdout.readline() == b"10 20\r\n"
        assert one.stderr is None
        one.resize(30, 40)
        one.stdin.write(b"\n")
        assert one.stdout.read() == b"\r\n30 40\r\n"
        assert one.wait() == 5
    with process.open("cat", pty=(10, 20)) as cat:
        cat.stdin.write(b"\x03")
        assert cat.wait() == -2
    with shell("echo e >&2", pty=(10, 20), stderr="pipe") as one:
        assert one.stderr.read() == b"e\n"


def runs():
    done = process.run("sh", ["-c", "cat; echo e >&2; exit 2"], input=b"in")
    assert done == (2, b"in", b"e\n")
    assert done.returncode == 2
    assert process.run("sh", ["-c", "echo o; echo e >&2"], stderr="stdout") == (0, b"o\ne\n", b"")
    with tempfile.NamedTemporaryFile() as file:
        assert process.run("echo", ["elsewhere"], stdout=file.name) == (0, b"", b"")
        assert process.run("cat", stdin=file.name).stdout == b"elsewhere\n"
    with raises(TimeoutError, "0.05") as caught:
        process.run("sh", ["-c", "echo early; exec sleep 1000"], timeout=0.05)
    assert isinstance(caught.error, process.Incomplete)
    with raises(process.IncompleteOutput, "max_output") as caught:
        process.run("yes", max_output=100_000)
    assert len(caught.error.stdout) == 100_000


def closing():
    """Returns numbers of processes that are to be gone."""
    one = shell("sleep 1000 & echo $!; wait")
    numbers = [one.pid, int(one.stdout.readline())]
    one.close()
    one.close()
    with raises(ByteChannelAborted):
        while True:
            one.stdout_channel.receive_bytes()
    assert one.wait() is None
    assert one.returncode is None
    with raises(ProcessLookupError):
        one.terminate()
    with shell("sleep 1000 & echo $!; wait") as two:
        numbers += [two.pid, int(two.stdout.readline())]
    return numbers


def forgotten():
    """The same of a program that nobody refers to any more."""
    one = process.open("sleep", ["1000"])
    number = one.pid
    del one
    gc.collect()
    return [number]


left = []


def leave():
    """A program that the module refers to, when the application stops."""
    left.append(process.open("sleep", ["1000"]))
    return left[-1].pid


def asynchronous():
    async def main():
        async with process.open("cat") as cat:
            await cat.stdin_channel.async_send_bytes(b"hello")
            assert await cat.stdout_channel.async_receive_bytes() == b"hello"
            waiting = asyncio.create_task(cat.async_wait())
            await asyncio.sleep(0)
            cat.stdin_channel.close()
            assert await waiting == 0
            assert await cat.async_wait() == 0
        data = bytes(1_000_000)
        one = shell("tee /dev/stderr; exit 3")
        assert await one.async_communicate(data) == (data, data)
        assert one.returncode == 3
        # A program that does not read what it is given.
        assert await process.open("true").async_communicate(data) == (b"", b"")
        lines = [part async for part in process.open("echo", ["x"]).stdout_channel]
        assert b"".join(lines) == b"x\n"
        many = await asyncio.gather(*(one_of_many(number) for number in range(50)))
        assert many == list(range(50))

    async def one_of_many(number):
        one = shell(f"echo {number}; exit {number}")
        output, _ = await one.async_communicate()
        assert int(output) == number
        return one.returncode

    asyncio.run(main())


def from_threads():
    failures = []

    def work(number):
        try:
            assert process.run("sh", ["-c", f"echo {number}; exit {number}"]) == (
                number,
                f"{number}\n".encode(),
                b"",
            )
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
