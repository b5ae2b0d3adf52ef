"""Coroutine functions for py_loop_programs_SUITE."""

import asyncio
import os
import resource
import socket

import erlang

PIPE = asyncio.subprocess.PIPE
kept = []


async def both(script, data, **options):
    process = await asyncio.create_subprocess_shell(script, stdin=PIPE, stdout=PIPE, stderr=PIPE, **options)
    output, errors = await process.communicate(data)
    return output, errors, process.returncode


async def output(*command, **options):
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, **options)
    return (await process.communicate())[0]


async def descriptors():
    """What a program has open, while the node has a descriptor that is inherited by whom it executes."""
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    try:
        listing = await output("ls", "/proc/self/fd", stderr=asyncio.subprocess.DEVNULL)
    finally:
        os.close(reading)
        os.close(writing)
    return sorted(map(int, listing.split()))


async def inherited():
    """What a program reads of a descriptor that it is passed; and whether it has one that is inheritable."""
    reading, writing = os.pipe()
    os.write(writing, b"passed")
    os.close(writing)
    try:
        text = await output("sh", "-c", f"cat /dev/fd/{reading}", pass_fds=(reading,))
        os.set_inheritable(reading, True)
        listing = await output("ls", "/proc/self/fd", close_fds=False, stderr=asyncio.subprocess.DEVNULL)
        return text, str(reading) in listing.decode().split()
    finally:
        os.close(reading)


async def refused():
    """Programs where their helper cannot be started, or cannot fork; and after each of them another."""
    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    none = (0, limits[1])
    resource.setrlimit(resource.RLIMIT_NPROC, none)
    answers = [await failure("true")]
    resource.setrlimit(resource.RLIMIT_NPROC, limits)
    answers.append(await pick(3))
    process = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
    helper = parent(parent(process.pid))
    resource.prlimit(helper, resource.RLIMIT_NPROC, none)
    answers.append(await failure("true"))
    resource.prlimit(helper, resource.RLIMIT_NPROC, limits)
    answers.append(await pick(4))
    await process.communicate(b"")
    return answers


def parent(process):
    with open(f"/proc/{process}/stat") as file:
        return int(file.read().rpartition(") ")[2].split()[1])


async def ended_by(method):
    process = await asyncio.create_subprocess_exec("sleep", "1000")
    getattr(process, method)()
    return await process.wait()


async def pick(number):
    process = await asyncio.create_subprocess_exec("sh", "-c", f"exit {number}")
    return await process.wait()


async def many(count):
    codes = await asyncio.gather(*[pick(number % 7) for number in range(count)])
    return codes == [number % 7 for number in range(count)]


async def failure(*command, **options):
    loop = asyncio.get_running_loop()
    try:
        await loop.subprocess_exec(asyncio.SubprocessProtocol, *command, **options)
    except (OSError, ValueError, TypeError) as error:
        return type(error).__name__, str(error)


async def wait_for_it(test):
    """Runs a program that does not end, and one that this leaves behind; tells Erlang of both."""
    script = "sleep 1000 >/dev/null & echo $!; exec sleep 1000"
    process = await asyncio.create_subprocess_shell(script, stdout=PIPE)
    child = int(await process.stdout.readline())
    erlang.send(test, (process.pid, child))
    kept.append(process)
    await process.communicate()


async def wait_and_tell(test):
    """The same; it tells Erlang of its cancellation, too."""
    try:
        await wait_for_it(test)
    except asyncio.CancelledError:
        erlang.send(test, erlang.atom("cancelled"))
        raise


def run(function, *arguments):
    return erlang.run(globals()[function](*arguments))


async def code_of(test):
    """How a program ends that Erlang ends, by what looks after it."""
    process = await asyncio.create_subprocess_exec("sleep", "1000")
    erlang.send(test, (erlang.atom("parent"), parent(process.pid)))
    return await process.wait()


async def leave_behind():
    """A program whose child goes on when it has ended; the number of that."""
    process = await asyncio.create_subprocess_shell("setsid sleep 1000 >/dev/null & echo $!", stdout=PIPE)
    text, _ = await process.communicate()
    return int(text)


async def forget():
    """What is left of a loop that ends, with its program's transport."""
    process = await asyncio.create_subprocess_exec("sleep", "1000", stdin=PIPE, stdout=PIPE)
    kept.append(process)
    return process.pid


def open_loop():
    """A loop that nobody closes."""
    loop = erlang.new_event_loop()
    kept.append(loop)
    return loop.run_until_complete(forget())


async def protocol(script):
    """The callbacks of a protocol, in their order."""
    events = []
    over = asyncio.get_running_loop().create_future()

    class Program(asyncio.SubprocessProtocol):
        def connection_made(self, transport):
            events.append("made")
            transport.get_pipe_transport(0).write(b"question")
            transport.get_pipe_transport(0).write_eof()

        def pipe_data_received(self, number, data):
            events.append((number, data))

        def pipe_connection_lost(self, number, exception):
            if number != 0:
                events.append(("lost", number))

        def process_exited(self):
            events.append("exited")

        def connection_lost(self, exception):
            events.append("over")
            over.set_result(None)

    transport, _ = await asyncio.get_running_loop().subprocess_shell(Program, script)
    await over
    return events[0], events[-1], sorted(map(str, events[1:-1])), transport.get_returncode()


async def fork():
    try:
        os.fork()
    except RuntimeError as error:
        return str(error)


async def accept_without_descriptors():
    """A server that may open no more descriptors tells so, and accepts later who came."""
    loop = asyncio.get_running_loop()
    refused = loop.create_future()
    loop.set_exception_handler(lambda _, context: refused.done() or refused.set_result(context["message"]))

    async def greet(_reader, writer):
        writer.write(b"welcome")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    client = socket.socket()
    client.setblocking(False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        await loop.sock_connect(client, server.sockets[0].getsockname())
        message = await refused
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    answer = await loop.sock_recv(client, 100)
    client.close()
    server.close()
    return message, answer


def clear():
    kept.clear()
