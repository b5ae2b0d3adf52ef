"""Packet connections: what they go over, wrong arguments, options, and the names of cs.packetstream."""

import io
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from packet_support import PATIENCE, Gate, Peer, outcome, peer, tcp_pair

import erlang
from erlang.packetstream import (
    DEFAULT_PACKET_GRACE,
    BaseRequest,
    CancellationError,
    ClosedError,
    HasPacketConnection,
    Packet,
    PacketConnection,
    Request_State,
    RequestState,
)


def upper(rq_type, flags, payload):
    return flags + rq_type, payload.upper()


def test_descriptors_stay_the_callers():
    there, back = os.pipe(), os.pipe()
    with (
        PacketConnection(there[0], back[1], upper) as one,
        PacketConnection((back[0], there[1]), "two") as two,
    ):
        assert two.do(1, 0, b"x" * 300_000) == (True, 1, b"X" * 300_000)
        assert str(two) == "PacketConnection[two]"
        assert one.info()["requests_received"] == 1
    for fd in there + back:
        os.close(fd)


def test_pipes_keep_their_mode():
    there, back = os.pipe(), os.pipe()
    with PacketConnection(there[0], back[1]):
        assert all(os.get_blocking(fd) for fd in there + back)
    for fd in there + back:
        os.close(fd)


def test_files():
    there, back = os.pipe(), os.pipe()
    with (
        os.fdopen(there[0], "rb") as recv,
        os.fdopen(back[1], "wb") as send,
        os.fdopen(back[0], "rb", buffering=0) as other_recv,
        os.fdopen(there[1], "wb", buffering=0) as other_send,
        PacketConnection(recv, send, upper),
        PacketConnection(other_recv, other_send) as two,
    ):
        assert two.do(1, 0, b"x" * 300_000) == (True, 1, b"X" * 300_000)


@pytest.mark.parametrize("make", [bytes, io.BytesIO, lambda data: iter([data[:3], data[3:]])])
def test_what_can_only_be_read(make):
    data = b"".join(bytes([3, tag, 2, 1]) for tag in range(1, 4))
    sent = io.BytesIO()
    with PacketConnection(make(data), sent, upper) as connection:
        connection.join(PATIENCE)
    answers = list(Packet.scan(sent.getvalue()))
    assert sorted(packet.tag for packet in answers if not packet.is_request) == [1, 2, 3]
    assert answers[-1] == PacketConnection.EOF_Packet


def test_a_path(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(bytes.fromhex("06010201616263"))
    with open(tmp_path / "answer", "wb") as sent, PacketConnection(str(path), sent, upper) as connection:
        connection.join(PATIENCE)
    assert (tmp_path / "answer").read_bytes().hex() == "050104414243" + "03000200"


def test_byte_channels():
    there, back = erlang.ByteChannel.new(), erlang.ByteChannel.new()
    with PacketConnection(there, back, upper), PacketConnection(back, there) as two:
        assert two.do(1, 0, b"x" * 300_000) == (True, 1, b"X" * 300_000)


def test_a_callable_that_connects():
    one, two = socket.socketpair()
    closed = []
    with one, two, PacketConnection(one, request_handler=upper):
        with PacketConnection(lambda: (two, two, lambda: closed.append(True))) as connection:
            assert connection.do(0, 0, b"x") == (True, 0, b"X")
        assert closed == [True]


def test_tcp():
    one, two = tcp_pair()
    with one, two, PacketConnection(one, request_handler=upper), PacketConnection(two) as connection:
        assert connection.do(0, 0, b"x" * 3_000_000) == (True, 0, b"X" * 3_000_000)


def test_a_child_over_its_standard_streams():
    program = (
        "import sys; from erlang.packetstream import PacketConnection\n"
        "with PacketConnection(0, 1, lambda t, f, p: p[::-1]) as c: c.join()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        with PacketConnection(child.stdout, child.stdin) as connection:
            assert connection.do(0, 0, b"abc" * 100_000) == (True, 0, b"cba" * 100_000)
        assert child.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((object(), 1), TypeError, "recv is a file descriptor"),
        ((0, object()), TypeError, "send is a file descriptor"),
        ((True, 1), TypeError, "not bool"),
        ((1 << 20, 1), OSError, "Bad file"),
    ],
)
def test_what_is_no_stream(arguments, error, text):
    with pytest.raises(error, match=text):
        PacketConnection(*arguments).open()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"request_handler": 1}, TypeError, "callable"),
        ({"workers": 0}, ValueError, "workers must be 1"),
        ({"workers": 1.0}, TypeError, "workers must be an int"),
        ({"max_packet": 0}, ValueError, "max_packet"),
        ({"send_window": -1}, ValueError, "send_window"),
        ({"packet_grace": -1}, ValueError, "packet_grace"),
        ({"keepalive": 1e12}, ValueError, "keepalive"),
        ({"unknown": 1}, TypeError, "unknown"),
    ],
)
def test_wrong_options(options, error, text):
    with pytest.raises(error, match=text):
        PacketConnection(0, 1, **options)


def test_wrong_requests():
    with peer() as (connection, _):
        for arguments, error, text in [
            ((-1,), ValueError, "rq_type must not be negative"),
            (((1 << 64) - 1,), ValueError, "rq_type"),
            ((1 << 70,), ValueError, "rq_type"),
            (("1",), TypeError, "int"),
            ((1, -1), ValueError, "flags"),
            ((1, 1 << 62), ValueError, "flags"),
            ((1, 0, "text"), TypeError, "not str"),
            ((1, 0, 5), TypeError, "not int"),
            ((1, 0, bytes((64 << 20) + 1)), ValueError, "max_packet"),
        ]:
            with pytest.raises(error, match=text):
                connection.request(*arguments)
        assert connection.info()["requests_sent"] == 0


def test_ticks():
    ticks = []
    told = threading.Semaphore(0)

    def tick(bs):
        ticks.append(bytes(bs))
        told.release()

    with peer(tick=tick) as (connection, other):
        result = connection.request(1)
        other.respond(1)
        result()
        while b"".join(ticks).count(b"<") < 1 or b"".join(ticks).count(b">") < 1:
            assert told.acquire(timeout=PATIENCE)


def test_packet_grace():
    with peer(packet_grace=0.05) as (connection, other):
        start = time.monotonic()
        results = [connection.request(1) for _ in range(10)]
        other.receive()
        assert time.monotonic() - start >= 0.05
        other.respond(1)
        assert results[0]() == (True, 0, b"")


def test_classes_of_requests():
    class Add(BaseRequest):
        def __bytes__(self):
            return f"{self.a},{self.b}".encode()

        @classmethod
        def from_request_payload(cls, flags, payload):
            a, b = payload.split(b",")
            return cls(flags, a=int(a), b=int(b))

        def fulfil(self, context):
            return str(self.a + self.b)

        def decode_response_payload(self, flags, payload):
            return int(payload)

    class Unknown(Add):
        pass

    one, two = socket.socketpair()
    with (
        one,
        two,
        HasPacketConnection(one, "one", rq_type_map={3: Add}),
        HasPacketConnection((two, two), rq_type_map={3: Add, 4: Unknown}) as end,
    ):
        assert end.conn_do_remote(Add(a=1, b=2)) == 3
        assert end.conn_submit(Add(a=1, b=2))() == (True, 0, 3)
        with pytest.raises(ValueError, match="could not fulfil Unknown"):
            end.conn_do_remote(Unknown(a=1, b=2))
        with pytest.raises(TypeError, match="not in rq_type_map"):
            end.conn_do_remote(BaseRequest())


def test_names_of_before():
    assert DEFAULT_PACKET_GRACE == 0.01
    assert RequestState is Request_State
    assert Request_State._fields == ("decode_response", "result")
    assert bytes(PacketConnection.EOF_Packet).hex() == "03000200"
    assert bytes(PacketConnection.ERQ_Packet).hex() == "03010200"


def test_nothing_is_done_before_open():
    one, two = socket.socketpair()
    with one, two:
        connection = PacketConnection(one)
        assert not connection.closed
        with pytest.raises(AttributeError, match="never opened"):
            connection.request(1)
        connection.open()
        connection.open()
        connection.close()
        assert not connection.closed
        connection.close()
        assert connection.closed
        with pytest.raises(ClosedError):
            connection.request(1)
        connection.close()
        with connection:
            result = connection.request(1)
            assert Peer(two).receive().is_request
            connection.abort()
            assert outcome(result) is CancellationError


def test_dropped_without_close():
    one, two = socket.socketpair()
    with one, two:
        connection = PacketConnection(one, name="dropped").open()
        result = connection.request(1)
        with pytest.warns(ResourceWarning, match=r"\[dropped\] was dropped"):
            del connection
        assert outcome(result) is CancellationError


def test_logging_has_a_name(caplog):
    with caplog.at_level(logging.WARNING), peer(name="named") as (_, other):
        other.respond(9)
        other.request(1)
        other.receive()
    assert "PacketConnection[named]: a response to no request" in caplog.text


def test_representations():
    gate = Gate()
    one, two = socket.socketpair()
    with one, two, PacketConnection(two, request_handler=gate):
        connection = PacketConnection(one, name="mine")
        assert repr(connection) == "<PacketConnection[mine]: not open>"
        with connection:
            assert repr(connection) == "<PacketConnection[mine]: open>"
            assert repr(connection.open_channel(3)) == f"<channel 3 of {connection!r}>"
            result = connection.request(1)
            assert repr(result) == "<Result: PENDING>"
            gate.go.set()
            result.join(PATIENCE)
            assert repr(result) == "<Result: DONE>"
        assert repr(connection) == "<PacketConnection[mine]: the connection was closed>"
