"""Packet connections: requests, handlers, channels, and what goes over the wire."""

import threading

import pytest
from packet_support import PATIENCE, Gate, in_thread, joined, outcome, pair, peer

from erlang.packetstream import CancellationError, ClosedError


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
