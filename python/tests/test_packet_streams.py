"""Packet connections over TLS, terminals and pipes."""

import asyncio
import contextlib
import os
import pty
import socket
import ssl
import subprocess
import sys
import threading
import tty

import pytest
import trustme
from packet_support import PATIENCE, Peer, in_thread, joined, outcome, tcp_pair

from erlang.packetstream import AsyncPacketConnection, CancellationError, PacketConnection

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost")
LARGE = bytes(range(256)) * 12_000


def echo(rq_type, flags, payload):
    return flags, payload


def versions():
    return [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@contextlib.contextmanager
def tls_pair(version=ssl.TLSVersion.TLSv1_3):
    """Both ends of a TLS connection, on which the peers know each other already."""
    there, here = tcp_pair()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(server)
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    server.minimum_version = client.minimum_version = version
    server.maximum_version = client.maximum_version = version
    accepting = in_thread(lambda: server.wrap_socket(here, server_side=True))
    with client.wrap_socket(there, server_hostname="localhost") as one, joined(accepting) as two:
        yield one, two


@pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)
def test_tls_both_ways_at_once(version):
    with (
        tls_pair(version) as (one, two),
        PacketConnection(one, request_handler=echo) as first,
        PacketConnection(two, request_handler=echo) as second,
    ):
        assert first.do(1, 3, b"abc") == second.do(1, 3, b"abc") == (True, 3, b"abc")
        # More than fits both ways: who only writes, or only reads, would wait for ever.
        results = [end.request(1, 0, LARGE) for _ in range(4) for end in (first, second)]
        assert all(result() == (True, 0, LARGE) for result in results)
        results = [end.request(1, 0, b"%d" % number) for number in range(500) for end in (first, second)]
        assert [result()[2] for result in results[::2]] == [b"%d" % number for number in range(500)]


def test_python_ends_with_a_tls_connection_that_nobody_has_closed():
    """Its thread is stopped where it is then: whoever waited for that one would never end."""
    program = (
        "import test_packet_streams as tests\n"
        "pair = tests.tls_pair()\n"
        "sockets = pair.__enter__()\n"
        "connections = [tests.PacketConnection(end, request_handler=tests.echo).open() for end in sockets]\n"
        "assert connections[0].do(1, 3, b'abc') == (True, 3, b'abc')\n"
        "connections[0]._cycle = connections\n"  # only the last collection finds it
    )
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, env=environment, timeout=PATIENCE, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_tls_stays_the_callers():
    with tls_pair() as (one, two):
        one.settimeout(7)
        two.settimeout(PATIENCE)
        with PacketConnection(one) as connection:
            result = connection.request(1, 0, b"abc")
            other = Peer(two)
            assert other.receive().payload == b"abc"
            other.respond(1, b"def")
            assert result() == (True, 0, b"def")
        assert other.receive() == PacketConnection.EOF_Packet
        # It goes on as it was.
        assert one.gettimeout() == 7
        one.sendall(b"plain")
        assert two.recv(5) == b"plain"


@pytest.mark.parametrize("how", ["unwrap", "shutdown"])
def test_the_end_of_tls_wakes_everybody(how):
    with tls_pair() as (one, two), PacketConnection(one) as connection:
        waiting = in_thread(connection.request(1))
        Peer(two).receive()
        if how == "unwrap":
            with contextlib.suppress(OSError, ssl.SSLError):
                two.settimeout(0.1)
                two.unwrap()
        two.shutdown(socket.SHUT_RDWR)
        assert isinstance(joined(waiting), CancellationError)


def test_tls_that_nobody_reads_ends_in_time():
    with tls_pair() as (one, _two):
        connection = PacketConnection(one, close_timeout=0.1, send_window=1 << 30).open()
        results = [connection.request(1, 0, LARGE) for _ in range(10)]
        connection.close()
        # Nobody writes to the socket any more: its number may be another's soon.
        assert not [thread for thread in threading.enumerate() if thread.name == "packetstreamcarry"]
        assert {outcome(result) for result in results} == {CancellationError}


def test_tls_with_asyncio():
    async def upper(rq_type, flags, payload):
        await asyncio.sleep(0)
        return flags, payload.upper()

    async def main(one, two):
        async with (
            AsyncPacketConnection(one, request_handler=upper) as first,
            AsyncPacketConnection(two, request_handler=upper) as second,
        ):
            assert await first.do(1, 1, b"a") == await second.do(1, 1, b"a") == (True, 1, b"A")
            requests = [end.do(1, 0, b"x" * 300_000) for _ in range(8) for end in (first, second)]
            assert {answer[2] for answer in await asyncio.gather(*requests)} == {b"X" * 300_000}

    with tls_pair() as (one, two):
        asyncio.run(asyncio.wait_for(main(one, two), PATIENCE))


# --- terminals --------------------------------------------------------------------------------------


@contextlib.contextmanager
def terminal():
    """Both ends of a terminal that changes no byte."""
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        yield master, slave
    finally:
        for fd in {master, slave}:
            with contextlib.suppress(OSError):
                os.close(fd)


def test_a_terminal():
    with (
        terminal() as (master, slave),
        PacketConnection(master, request_handler=echo) as one,
        PacketConnection(slave, request_handler=echo) as two,
    ):
        every_byte = bytes(range(256))
        assert one.do(1, 2, every_byte) == two.do(1, 2, every_byte) == (True, 2, every_byte)
        # More than it holds both ways, several times: who waits in a write reads nothing.
        for _ in range(10):
            results = [end.request(1, 0, LARGE[:100_000]) for _ in range(3) for end in (one, two)]
            assert all(result() == (True, 0, LARGE[:100_000]) for result in results)


def test_a_terminal_that_hangs_up():
    with terminal() as (master, slave), PacketConnection(slave) as connection:
        waiting = in_thread(connection.request(1))
        assert os.read(master, 4) == bytes.fromhex("03010202")
        os.close(master)
        assert joined(waiting).__class__.__name__ in ("CancellationError", "PacketConnectionError")


def test_a_child_on_a_terminal():
    program = (
        "import sys, tty; tty.setraw(0)\n"
        "from erlang.packetstream import PacketConnection\n"
        "handler = lambda rq_type, flags, payload: payload[::-1]\n"
        "with PacketConnection(0, 1, handler) as c:\n"
        "    sys.stderr.write('up\\n'); sys.stderr.flush(); c.join()\n"
    )
    with terminal() as (master, slave):
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE) as child:
            os.close(slave)
            assert child.stderr.readline() == b"up\n"
            with PacketConnection(master) as connection:
                assert connection.do(1, 0, b"abc") == (True, 0, b"cba")
            assert child.wait(PATIENCE) == 0


# --- pipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [True, False])
def test_pipes_both_ways(blocking):
    there, back = os.pipe(), os.pipe()
    for fd in (*there, *back):
        os.set_blocking(fd, blocking)
    try:
        with (
            PacketConnection(back[0], there[1], echo) as one,
            PacketConnection(there[0], back[1], echo) as two,
        ):
            results = [end.request(1, 0, LARGE) for _ in range(3) for end in (one, two)]
            assert all(result() == (True, 0, LARGE) for result in results)
            assert one.do(1, 2, b"") == (True, 2, b"")
        assert {os.get_blocking(fd) for fd in (*there, *back)} == {blocking}
    finally:
        for fd in (*there, *back):
            os.close(fd)


def test_a_pipe_whose_reader_goes():
    there, back = os.pipe(), os.pipe()
    with PacketConnection(back[0], there[1]) as connection:
        os.close(there[0])
        result = connection.request(1)
        with pytest.raises(Exception, match="sending failed"):
            result()
    for fd in (there[1], *back):
        os.close(fd)


def test_a_pipe_whose_writer_goes():
    there, back = os.pipe(), os.pipe()
    with PacketConnection(back[0], there[1]) as connection:
        results = [connection.request(1) for _ in range(3)]
        ready = threading.Event()
        connection.notify_recv_eof.add(lambda _: ready.set())
        os.close(back[1])
        assert {outcome(result) for result in results} == {CancellationError}
        assert ready.wait(PATIENCE)
    for fd in (*there, back[0]):
        os.close(fd)
