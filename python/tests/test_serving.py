"""erlang.reactor.serve and run: the core serves connections in a plain python3."""

import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from erlang import reactor


class Echo(reactor.Protocol):
    def data_received(self, data):
        self.write_buffer += data
        return "write_pending"


class Told(Echo):
    """Keeps what happens to it."""

    events: list

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.events.append(("made", client_info))

    def connection_lost(self):
        self.events.append(("lost", self.closed))


@pytest.fixture
def told():
    return type("ToldHere", (Told,), {"events": []})


@contextlib.contextmanager
def running():
    """run() in another thread, which has ended afterwards."""
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        yield thread
    finally:
        reactor.stop()
        thread.join(20)
        assert not thread.is_alive()


def connect(address):
    client = socket.create_connection(address[:2], timeout=20)
    client.settimeout(20)
    return client


def read_all(client):
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_serves_an_address(host, told):
    address = reactor.serve((host, 0), told, client_info={"service": "echo"})
    with running(), connect(address) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        port = client.getsockname()[1]
    assert told.events == [
        ("made", {"service": "echo", "addr": host, "port": port, "type": "tcp"}),
        ("lost", True),
    ]


def test_serves_a_path(tmp_path, told):
    path = tmp_path / "socket"
    assert reactor.serve(path, told) == str(path)
    with running(), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    assert told.events[0] == ("made", {"type": "unix"})


def test_serves_sockets_which_stay_ours(told):
    listener = socket.create_server(("127.0.0.1", 0))
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    reactor.serve(listener, told)
    reactor.serve(theirs.fileno(), told, client_info={"pair": True})
    with running(), connect(listener.getsockname()) as client:
        client.sendall(b"1")
        assert client.recv(1) == b"1"
        ours.sendall(b"2")
        assert ours.recv(1) == b"2"
    # The reactor has closed its own numbers, not these.
    assert listener.fileno() >= 0 and theirs.fileno() >= 0
    theirs.send(b"3")
    assert ours.recv(1) == b"3"
    for one in (listener, ours, theirs):
        one.close()


def test_serves_datagrams():
    class Upper(reactor.Protocol):
        def data_received(self, data):
            self.write_buffer += bytes(data).upper() + b" " + str(self.peer[1]).encode()
            return "write_pending"

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        reactor.serve(server, Upper)
        with running():
            clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
            for client in clients:
                client.settimeout(20)
                client.sendto(b"datagram", server.getsockname())
            for client in clients:
                answer, source = client.recvfrom(100)
                assert answer == b"DATAGRAM %d" % client.getsockname()[1]
                assert source == server.getsockname()
                client.close()


def test_factories_of_several_listeners():
    def shouting(text):
        class Shouting(reactor.Protocol):
            def connection_made(self, fd, client_info):
                super().connection_made(fd, client_info)
                self.write_buffer += text

        return Shouting

    one = reactor.serve(("127.0.0.1", 0), shouting(b"one"))
    other = reactor.serve(("127.0.0.1", 0), shouting(b"other"))
    with running(), connect(one) as first, connect(other) as second:
        assert first.recv(100) == b"one"
        assert second.recv(100) == b"other"


def test_the_factory_of_all():
    reactor.set_protocol_factory(Echo)
    try:
        address = reactor.serve(("127.0.0.1", 0))
        with running(), connect(address) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
    finally:
        reactor.set_protocol_factory(None)


def test_the_end_of_what_the_peer_sends():
    class Late(reactor.Protocol):
        """Answers when it knows that nothing more comes, with more than fits at once."""

        size = 0

        def data_received(self, data):
            self.size += len(data)
            return "continue"

        def eof_received(self):
            self.write_buffer += b"%d" % self.size + bytes(5_000_000)
            return "close"

    address = reactor.serve(("127.0.0.1", 0), Late)
    with running(), connect(address) as client:
        client.sendall(b"12345")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"5" + bytes(5_000_000)


def test_half_open_until_it_says_close():
    class HalfOpen(reactor.Protocol):
        def eof_received(self):
            threading.Thread(target=reactor.signal_write_ready, args=(self.fd,)).start()
            return "async_pending"

        def write_ready(self):
            self.write_buffer += b"afterwards"
            return "close"

    address = reactor.serve(("127.0.0.1", 0), HalfOpen)
    with running(), connect(address) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"afterwards"


def test_room_for_connections():
    address = reactor.serve(("127.0.0.1", 0), Echo, max_connections=2)
    with running():
        first, second, third = (connect(address) for _ in range(3))
        for client in (first, second):
            client.sendall(b"served")
            assert client.recv(100) == b"served"
        # The third waits in the backlog, and is served when there is room.
        third.sendall(b"later")
        third.settimeout(0.2)
        with pytest.raises(TimeoutError):
            third.recv(100)
        third.settimeout(20)
        first.close()
        assert third.recv(100) == b"later"
        second.close()
        third.close()


def test_out_of_descriptors(caplog):
    address = reactor.serve(("127.0.0.1", 0), Echo)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with caplog.at_level(logging.ERROR, "erlang.reactor"), running(), connect(address) as first:
        first.sendall(b"served")
        assert first.recv(100) == b"served"
        with socket.socket() as second, contextlib.ExitStack() as fillers:
            second.settimeout(20)
            # Numbers below the limit are taken, and those above it are not allowed.
            highest = max(int(number) for number in os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        fillers.callback(os.close, os.dup(second.fileno()))
                second.connect(address)
                second.sendall(b"later")
                first.sendall(b"still")
                assert first.recv(100) == b"still"
                # Its place is what the other waits for.
                first.close()
                assert second.recv(100) == b"later"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (record,) = caplog.records
    assert "raise the limit of open files" in record.message


def test_an_exception_is_logged_and_ends_its_connection(caplog):
    class Failing(Echo):
        def data_received(self, data):
            if data == b"fail":
                raise LookupError("no such thing")
            return super().data_received(data)

    address = reactor.serve(("127.0.0.1", 0), Failing)
    with (
        caplog.at_level(logging.ERROR, "erlang.reactor"),
        running(),
        connect(address) as bad,
        connect(address) as good,
    ):
        bad.sendall(b"fail")
        assert bad.recv(100) == b""
        good.sendall(b"go on")
        assert good.recv(100) == b"go on"
    (record,) = caplog.records
    assert "data_received" in record.message
    assert record.exc_info[0] is LookupError


def test_run_ends_when_nothing_is_left():
    ours, theirs = socket.socketpair()
    reactor.serve(theirs, Echo)
    theirs.close()
    ours.close()
    reactor.run()


def test_run_without_serve_returns():
    reactor.run()
    reactor.stop()
    reactor.run()


def test_run_in_two_threads():
    address = reactor.serve(("127.0.0.1", 0), Echo)
    with running():
        with connect(address) as client:
            client.sendall(b"1")
            assert client.recv(1) == b"1"
        with pytest.raises(RuntimeError, match="serves already"):
            reactor.run()


def test_stop_from_a_protocol(told):
    class Stopping(told):
        def data_received(self, data):
            reactor.stop()
            return "continue"

    address = reactor.serve(("127.0.0.1", 0), Stopping)
    client = connect(address)
    client.sendall(b"stop")
    reactor.run()
    assert told.events[-1] == ("lost", True)
    assert client.recv(1) == b""
    client.close()


@pytest.fixture
def interruptible():
    """As in a shell's foreground: what is started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_ends_run():
    address = reactor.serve(("127.0.0.1", 0), Echo)
    client = connect(address)

    def interrupt():
        client.sendall(b"1")
        client.recv(1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        reactor.run()
    thread.join()
    assert client.recv(1) == b""
    client.close()


class Ends(Told):
    """Does what its peer wants to end run() with."""

    def data_received(self, data):
        if data == b"exit":
            raise SystemExit(3)
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass


@pytest.mark.parametrize(("wish", "error"), [(b"exit", SystemExit), (b"interrupt", KeyboardInterrupt)])
def test_what_is_no_exception_ends_run(told, wish, error, caplog):
    """Python's own wish to end is not one of a protocol that is to be logged."""
    ends = type("EndsHere", (Ends,), {"events": told.events})
    address = reactor.serve(("127.0.0.1", 0), ends)
    with connect(address) as client, connect(address) as other:
        client.sendall(wish)
        with pytest.raises(error):
            reactor.run()
        assert client.recv(1) == other.recv(1) == b""
    assert [event for event in told.events if event[0] == "lost"] == [("lost", True)] * 2
    assert caplog.records == []


def test_exit_in_the_factory_and_at_the_end():
    def leaving():
        raise SystemExit(4)

    class LeavesLast(reactor.Protocol):
        def data_received(self, data):
            reactor.stop()
            return "continue"

        def connection_lost(self):
            raise SystemExit(5)

    for factory, status in [(leaving, 4), (LeavesLast, 5)]:
        with connect(reactor.serve(("127.0.0.1", 0), factory)) as client:
            client.sendall(b"x")
            with pytest.raises(SystemExit) as caught:
                reactor.run()
            assert caught.value.code == status


def test_a_signal_while_it_waits_tells_protocols_of_the_end(told):
    """What is raised is there again after connection_lost, which must not see it."""
    address = reactor.serve(("127.0.0.1", 0), told)
    with connect(address) as client:

        def interrupt():
            client.sendall(b"1")
            client.recv(1)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            reactor.run()
        thread.join()
    assert told.events[-1] == ("lost", True)


@pytest.mark.parametrize(
    ("where", "error"),
    [
        (None, TypeError),
        (("127.0.0.1",), TypeError),
        (("127.0.0.1", 70000), OverflowError),
        (("not a host", 1), OSError),
        (-1, OSError),
        (10**6, OSError),
    ],
)
def test_wrong_places(where, error):
    with pytest.raises(error):
        reactor.serve(where, Echo)


def test_wrong_arguments(tmp_path):
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(TypeError, match="callable"):
        reactor.serve(("127.0.0.1", 0), 5)
    with pytest.raises(ValueError, match="max_connections"):
        reactor.serve(("127.0.0.1", 0), Echo, max_connections=0)
    with open(tmp_path / "file", "w") as file, pytest.raises(PermissionError):
        reactor.serve(file.fileno(), Echo)
    with open("/dev/null") as file, pytest.raises(PermissionError):
        reactor.serve(file.fileno(), Echo)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_nothing_is_left(told):
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(20):
        address = reactor.serve(("127.0.0.1", 0), told)
        with running():
            clients = [connect(address) for _ in range(20)]
            for client in clients:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
            for client in clients[:10]:
                client.close()
        for client in clients[10:]:
            assert client.recv(1) == b""
            client.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert len([event for event in told.events if event[0] == "lost"]) == 400


MEASURED = """
import ctypes
import socket
import sys

from erlang import reactor

allocations = ctypes.CDLL(None).preload_allocations
allocations.restype = ctypes.c_long

class Ponger(reactor.Protocol):
    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.left = 12_000

    def data_received(self, data):
        self.left -= 1
        if self.left in (10_000, 0):
            seen.append(allocations())
        if self.left == 0:
            return "close"
        self.write_buffer.extend(data)
        return "write_pending"

class Writer(Ponger):
    def write_ready(self):
        written = self.write(self.write_buffer)
        del self.write_buffer[:written]
        return "read_pending"

seen = []
reactor.set_protocol_factory({"Ponger": Ponger, "Writer": Writer}[sys.argv[1]])
if sys.argv[2] == "streams":
    ours, theirs = socket.socketpair()
    ours.send(b"x" * 64)
else:
    ours, theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for one in (ours, theirs):
        one.bind(("127.0.0.1", 0))
    ours.sendto(b"x" * 64, theirs.getsockname())
for one in (ours, theirs):
    reactor.serve(one)
    one.close()
if sys.argv[2] == "datagrams":
    # A socket of datagrams does not end with another.
    Ponger.connection_lost = lambda self: reactor.stop()
reactor.run()
before, *_, after = seen
print(after - before)
"""


@pytest.mark.parametrize("sockets", ["streams", "datagrams"])
@pytest.mark.parametrize("protocol", ["Ponger", "Writer"])
def test_no_allocation_for_an_event(preload, protocol, sockets):
    """20,000 events in the steady state, counted by a malloc of our own."""
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURED), protocol, sockets],
        env=os.environ | {"LD_PRELOAD": str(preload)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    # Python may take an arena for its small objects now and then.
    assert int(finished.stdout) < 20
