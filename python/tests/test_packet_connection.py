"""Packet connections: requests, handlers, channels, and what goes over the wire."""

import io
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from packet_support import PATIENCE, Gate, Peer, in_thread, joined, outcome, pair, peer, tcp_pair

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


# --- the wire ---------------------------------------------------------------------------------------


def test_requests_on_the_wire():
    with peer() as (connection, other):
        connection.request(0, 0, b"abc")
        assert other.receive_hex() == "06010201616263"
        connection.request(5, 0x11)
        assert other.receive_hex() == "03024606"
        connection.request(1, 0x55, b"\2\3")
        assert other.receive_hex() == "06038256020203"
        connection.request(199, 65536, bytearray(b"q"))
        assert other.receive().rq_type == 200


@pytest.mark.parametrize(
    ("returned", "digits"),
    [
        (None, "020104"),
        (0x11, "0301810c"),
        (True, "02010c"),
        (b"", "020104"),
        (b"ok", "0401046f6b"),
        ("ok", "0401046f6b"),
        ("\udc80", "0a0104" + b"&#56448;".hex()),
        ((0x11, b"\3\2"), "0501810c0302"),
        ([0x11, b"\3\2"], "0501810c0302"),
        ((False, b"x"), "03010478"),
    ],
    ids=repr,
)
def test_what_handlers_return(returned, digits):
    with peer(request_handler=lambda *_: returned) as (_, other):
        other.request(1)
        assert other.receive_hex() == digits


@pytest.mark.parametrize(
    "returned",
    [
        1.5,
        (1, b"", 2),
        bytearray(b"x"),
        (1, "text"),
        ("text", b""),
        -1,
        (-1, b""),
        1 << 61,
        (1 << 64, b""),
        {},
    ],
    ids=repr,
)
def test_what_is_no_answer_is_a_failure(returned, caplog):
    with peer(request_handler=lambda *_: returned) as (_, other):
        other.request(12)
        assert other.receive_hex() == "1a0c00" + b"exception during handler".hex()
        # The tag is free again.
        other.request(12)
        assert other.receive().tag == 12
    assert "exception during handler" in caplog.text


def test_a_handler_that_raises(caplog):
    def handler(rq_type, flags, payload):
        raise LookupError("nothing there")

    with peer(request_handler=handler) as (_, other):
        other.request(12)
        assert other.receive_hex() == "1a0c00" + b"exception during handler".hex()
    assert "LookupError: nothing there" in caplog.text


def test_rejections():
    with peer() as (_, other):
        other.request(1)
        assert other.receive_hex() == "140100" + b"no request handler".hex()
        other.request(1, channel=7)
        rejection = other.receive()
        assert (rejection.channel, rejection.payload) == (7, b"unknown channel 7")


def test_responses_on_the_wire():
    with peer() as (connection, other):
        results = [connection.request(1) for _ in range(4)]
        other.respond(4, b"\3\2", flags=0x11)
        other.respond(2, b"no", ok=False, flags=2)
        other.respond(3)
        assert results[3]() == (True, 0x11, b"\3\2")
        assert results[1]() == (False, 2, b"no")
        assert results[2]() == (True, 0, b"")
        assert not results[0].ready


def test_a_tag_in_use_is_rejected_and_the_real_answer_comes_too():
    gate = Gate(b"real")
    with peer(request_handler=gate) as (_, other):
        other.request(60)
        assert gate.entered.acquire(timeout=PATIENCE)
        other.request(60)
        assert other.receive().payload == b"channel 0: tag already in use: 60"
        gate.go.set()
        assert other.receive().payload == b"real"


def test_a_finished_tag_may_be_used_again_and_costs_nothing():
    with peer(request_handler=upper) as (connection, other):
        for _ in range(100):
            other.request(1, b"again")
            assert other.receive().payload == b"AGAIN"
        assert connection.info()["unanswered"] == 0
        for _ in range(100):
            result = connection.request(1)
            other.respond(other.receive().tag)
            result()
        assert connection.info()["outstanding"] == 0


def test_responses_to_no_request_are_reported_and_ignored(caplog):
    with peer() as (connection, other):
        other.respond(77, b"?")
        other.respond(1, channel=5)
        result = connection.request(1)
        other.respond(1, b"yes")
        assert result() == (True, 0, b"yes")
        assert connection.info()["unknown_responses"] == 2
    assert "channel 0, tag 77" in caplog.text


def test_tags_begin_at_1_and_nothing_is_sent_by_itself():
    with peer() as (connection, other):
        assert [connection.request(0).tag for _ in range(3)] == [1, 2, 3]
        assert [other.receive().tag for _ in range(3)] == [1, 2, 3]
        connection.send_erq()
        assert other.receive_hex() == "03010200"
        with pytest.raises(ClosedError, match="end of the requests"):
            connection.request(0)


def test_no_requests_after_the_end_of_requests():
    with peer(request_handler=upper) as (connection, other):
        assert connection.requests_allowed
        other.send("03010200")
        other.request(5)
        assert other.receive().payload == b"requests no longer allowed"
        assert not connection.requests_allowed


# --- both ways --------------------------------------------------------------------------------------


def test_both_ends_ask_and_answer():
    with pair(upper, upper) as (one, two):
        assert one.do(1, 2, b"one") == (True, 3, b"ONE")
        assert two(1, b"two", 2) == (True, 3, b"TWO")
        assert two.submit(1, 0, b"x", label="named", decode_response=lambda f, p: (f, p))() == (
            True,
            1,
            (1, b"X"),
        )
        for size in (0, 1, 124, 125, 16383, 16384, 65535, 65536, 70000, 1 << 20, 3_000_001):
            assert one.do(0, 0, b"a" * size) == (True, 0, b"A" * size)


def test_handlers_that_ask_back():
    ends = []

    def handler(number):
        def handle(rq_type, flags, payload):
            if rq_type == 0:
                return payload
            return b"<" + ends[number].do(rq_type - 1, 0, payload)[2] + b">"

        return handle

    with pair(handler(0), handler(1)) as connections:
        ends += connections
        assert ends[0].do(5, 0, b"x") == (True, 0, b"<<<<<x>>>>>")


def test_answers_come_in_the_order_of_completion():
    gate = Gate(b"slow")

    def handler(rq_type, flags, payload):
        return gate(rq_type, flags, payload) if rq_type else b"fast"

    with pair(handler) as (_, two):
        slow = two.request(1)
        assert gate.entered.acquire(timeout=PATIENCE)
        assert two.do(0) == (True, 0, b"fast")
        assert not slow.ready
        gate.go.set()
        assert slow() == (True, 0, b"slow")


@pytest.mark.parametrize("workers", [1, 4, 7])
def test_as_many_handlers_at_once_as_there_are_workers(workers):
    gate = Gate()
    with pair(gate, options={"workers": workers}) as (one, two):
        results = [two.request(0) for _ in range(workers + 3)]
        for _ in range(workers):
            assert gate.entered.acquire(timeout=PATIENCE)
        assert one.info()["running"] == workers
        assert not gate.entered.acquire(timeout=0.05)
        gate.go.set()
        assert all(result() == (True, 0, b"") for result in results)


def test_many_threads():
    def work(connection, number):
        for count in range(200):
            text = b"%d-%d" % (number, count)
            assert connection.do(number, 0, text) == (True, number, text)
        return True

    def echo(rq_type, flags, payload):
        return rq_type, payload

    with pair(echo, echo) as ends:
        threads = [in_thread(work, ends[number % 2], number) for number in range(8)]
        assert [joined(thread) for thread in threads] == [True] * 8


def test_many_outstanding():
    with pair(upper, options={"max_requests": 100}) as (_, two):
        results = [two.request(1, 0, b"%d" % number) for number in range(20000)]
        assert [result()[2] for result in results] == [b"%d" % number for number in range(20000)]


def test_requests_without_waiting_are_sent_too():
    seen = threading.Semaphore(0)
    with pair(lambda *_: seen.release()) as (_, two):
        for _ in range(1000):
            two.request(0)
        for _ in range(1000):
            assert seen.acquire(timeout=PATIENCE)


def test_decode_response():
    with peer() as (connection, other):

        def decode(flags, payload):
            if not payload:
                raise LookupError("empty")
            return flags, payload.decode()

        results = [connection.request(1, decode_response=decode) for _ in range(3)]
        other.respond(1, b"x", flags=3)
        other.respond(2)
        other.respond(3, b"no", ok=False)
        assert results[0]() == (True, 3, (3, "x"))
        assert results[0]() is results[0]()
        for _ in range(2):
            with pytest.raises(LookupError, match="empty"):
                results[1]()
        assert results[2]() == (False, 0, b"no")


# --- results ----------------------------------------------------------------------------------------


def test_results():
    with peer() as (connection, other):
        result = connection.request(1)
        assert (result.ready, result.cancelled, result.state, result.channel) == (False, False, "PENDING", 0)
        for name in ("result", "exc_info"):
            with pytest.raises(AttributeError, match="not ready"):
                getattr(result, name)
        told = []
        called = threading.Semaphore(0)
        result.notify(lambda r: (told.append(r), called.release()))
        other.respond(1, b"x")
        expected = True, 0, b"x"
        assert result.join() == (expected, None)
        assert result.get() == result.result == result() == expected
        assert (result.ready, result.is_cancelled, result.state, result.exc_info) == (
            True,
            False,
            "DONE",
            None,
        )
        assert called.acquire(timeout=PATIENCE)
        assert told == [result]
        result.notify(told.append)
        assert told == [result] * 2
        assert not result.cancel()


def test_cancelling_wakes_who_waits_already():
    with peer() as (connection, other):
        result = connection.request(1)
        waiting = [in_thread(result), in_thread(result.join), in_thread(result.get, "default")]
        other.receive()
        assert result.cancel()
        assert not result.cancel()
        assert isinstance(joined(waiting[0]), CancellationError)
        assert joined(waiting[1])[1][0] is CancellationError
        assert joined(waiting[2]) == "default"
        assert (result.cancelled, result.state) == (True, "CANCELLED")
        with pytest.raises(AttributeError, match="exception"):
            _ = result.result
        # The response comes all the same, and concerns nobody.
        other.respond(1, b"late")
        second = connection.request(1)
        other.respond(2)
        assert second() == (True, 0, b"")
        assert connection.info()["late_responses"] == 1


def test_time_outs():
    with peer(timeout=0.02) as (connection, other):
        with pytest.raises(TimeoutError):
            connection.do(1)
        result = connection.request(1, timeout=3600)
        with pytest.raises(TimeoutError, match="not ready within"):
            result.join(0.01)
        other.respond(2)
        assert result() == (True, 0, b"")
        soon = connection.request(1, timeout=0.01)
        assert outcome(soon) is TimeoutError
        with pytest.raises(ValueError, match="number of seconds"):
            connection.request(1, timeout=-1)


def test_a_time_out_that_nobody_waits_for():
    with peer() as (connection, _):
        called = threading.Semaphore(0)
        connection.request(1, timeout=0.01).notify(lambda _: called.release())
        assert called.acquire(timeout=PATIENCE)
        assert connection.info()["outstanding"] == 0


# --- channels ---------------------------------------------------------------------------------------


def test_channels():
    with pair(upper, upper) as (one, two):
        with pytest.raises(ValueError, match="unknown channel 5"):
            two.request(1, channel=5)
        one.open_channel(5, lambda rq_type, flags, payload: payload[::-1])
        channel = two.open_channel(5)
        assert channel.do(1, 0, b"abc") == (True, 0, b"cba")
        assert two.do(1, 0, b"abc", channel=5) == (True, 0, b"cba")
        assert two.do(1, 0, b"abc") == (True, 1, b"ABC")
        assert one.do(1, channel=5) == (False, 0, b"no request handler")
        with pytest.raises(ValueError, match="open already"):
            one.open_channel(5)
        with pytest.raises(ValueError, match="channel must be 1"):
            one.open_channel(0)
        one.close_channel(5)
        assert channel.do(1) == (False, 0, b"unknown channel 5")
        channel.close()
        with pytest.raises(ValueError, match="unknown channel 5"):
            channel.request(1)


def test_the_same_tag_on_two_channels():
    with peer(request_handler=lambda *_: b"0") as (connection, other):
        connection.open_channel(5, lambda *_: b"5")
        other.request(1, channel=5)
        assert other.receive_hex() == "0401050535"
        other.request(1)
        assert other.receive_hex() == "03010430"


# --- forms and streams ------------------------------------------------------------------------------


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
