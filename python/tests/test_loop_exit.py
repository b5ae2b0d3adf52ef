"""How a plain python3 ends that has event loops open: as with asyncio's own, and without a word."""

import os
import signal
import subprocess
import sys

import pytest

PATIENCE = 30  # seconds; only a defect takes so long

PREFACE = """
import asyncio, os, socket, signal, sys, threading
import erlang
started = threading.Event()
def in_daemon(main):
    threading.Thread(target=lambda: new().run_until_complete(main()), daemon=True).start()
    started.wait()
"""

LOOPS = {"erlang": "new = erlang.EventLoop\n", "asyncio": "new = asyncio.SelectorEventLoop\n"}

#: What each prints is the same with either loop; none of them has anything to complain about.
PROGRAMS = {
    "busy_in_a_daemon_thread": """
async def main():
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    echo_reader, echo_writer = await asyncio.open_unix_connection(sock=theirs)
    async def echo():
        while True:
            echo_writer.write(await echo_reader.read(1000))
    task = asyncio.create_task(echo())
    while True:
        writer.write(b"x" * 100)
        await reader.read(1000)
        await asyncio.sleep(0.00001)
        started.set()
in_daemon(main)
""",
    "idle_in_a_daemon_thread": """
async def main():
    started.set()
    await asyncio.Event().wait()
in_daemon(main)
""",
    "program_in_a_daemon_thread": """
async def main():
    program = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    started.set()
    await program.wait()
in_daemon(main)
""",
    "called_by_a_daemon_thread": """
loop = new()
def call():
    while True:
        loop.call_soon_threadsafe(started.set)
        started.wait(0.001)
threading.Thread(target=call, daemon=True).start()
loop.call_later(0.01, loop.stop)
loop.run_forever()
""",
    "open_transports": """
loop = new()
async def main():
    ours, theirs = socket.socketpair()
    transport, protocol = await loop.create_unix_connection(asyncio.Protocol, sock=ours)
    transport.write(bytes(1 << 20))
    server = await asyncio.start_server(print, "127.0.0.1", 0)
    return transport, protocol, theirs, server
kept = loop.run_until_complete(main())
kept[1].cycle = loop
""".replace("asyncio.Protocol,", "type('Own', (asyncio.Protocol,), {}),"),
    "working_executor": """
loop = new()
async def main():
    loop.run_in_executor(None, started.wait)
    await asyncio.sleep(0)
    started.set()
loop.run_until_complete(main())
""",
    "interrupted": """
loop = new()
loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print(loop.is_running(), loop.is_closed())
print(loop.run_until_complete(asyncio.sleep(0, "on")))
""",
    "cancelled_by_an_interruption": """
async def main():
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    finally:
        print("tidy")
try:
    with asyncio.Runner(loop_factory=new) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted")
""",
}


def ends(program, *kinds):
    """The exit code, the output and the errors of a program with each kind of loop."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PREFACE + LOOPS[kind] + program],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for kind in kinds
    ]
    try:
        outputs = [each.communicate(timeout=PATIENCE) for each in started]
    finally:
        for each in started:
            each.kill()
    return [(each.returncode, *output) for each, output in zip(started, outputs, strict=True)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_end(name):
    ours, theirs = ends(PROGRAMS[name], "erlang", "asyncio")
    assert theirs[::2] == (0, "")
    assert ours == theirs


def test_a_program_ends_with_its_python():
    """It is the loop's: asyncio leaves it running, and complains of its transport."""
    program = """
loop = new()
program = loop.run_until_complete(asyncio.create_subprocess_exec("sleep", "1000", stdin=-1))
print(program.pid)
"""
    [(returncode, output, errors)] = ends(program, "erlang")
    assert (returncode, errors) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(output), 0)


def test_uncaught_interruption():
    program = "loop = new()\nloop.call_soon(os.kill, os.getpid(), signal.SIGINT)\nloop.run_forever()\n"
    [(returncode, output, errors)] = ends(program, "erlang")
    assert (returncode, output) == (-signal.SIGINT, "")
    assert errors.startswith("Traceback") and errors.endswith("\nKeyboardInterrupt\n")
