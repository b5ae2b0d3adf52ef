"""Packet connections under pressure: limits, back-pressure, and peers that do not do their part."""

import ctypes
import socket
import threading
import time

import pytest
from packet_support import PATIENCE, Gate, in_thread, joined, outcome, pair, peer

from erlang.packetstream import CancellationError, Packet, PacketConnection, PacketConnectionError


def test_max_outstanding():
    with peer(max_outstanding=3) as (connection, other):
        results = [connection.request(1) for _ in range(3)]
        with pytest.raises(TimeoutError, match="no room"):
            connection.request(1, timeout=0.02)
        waiting = in_thread(connection.request, 1)
        other.respond(1)
        fourth = joined(waiting)
        assert fourth.tag == 4
        waiting = in_thread(connection.request, 1)
        results[1].cancel()
        assert joined(waiting).tag == 5
        assert connection.info()["outstanding"] == 3


def test_a_window_that_is_never_full():
    with peer(send_window=1 << 62, receive_window=1 << 62) as (connection, other):
        result = connection.request(1)
        other.respond(1)
        result()


def test_a_peer_that_never_reads_is_no_memory():
    with peer(send_window=1 << 20) as (connection, _):
        with pytest.raises(TimeoutError, match="no room"):
            for _ in range(1000):
                connection.request(1, 0, bytes(100_000), timeout=0.05)
        assert connection.info()["queued_bytes"] < 2 << 20
        waiting = in_thread(connection.request, 1)
        connection.abort()
        assert type(joined(waiting)).__name__ == "ClosedError"


def test_a_peer_that_asks_and_never_reads_is_no_memory():
    answered = []

    def handler(rq_type, flags, payload):
        answered.append(rq_type)
        return bytes(100_000)

    with peer(request_handler=handler, max_requests=50, send_window=1 << 20) as (connection, other):
        other.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            for tag in range(1, 1_000_000):
                other.request(tag, bytes(1000))
        info = connection.info()
        assert info["unanswered"] < 400
        assert info["queued_bytes"] < 8 << 20
        assert len(answered) < 200


def test_rejections_that_nobody_reads_are_no_memory():
    with peer(send_window=1 << 16) as (connection, other):
        other.socket.settimeout(0.2)
        batch = b"".join(bytes([4, 128 + tag // 128, tag % 128, 2, 1]) for tag in range(128, 8192))
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                other.send(batch)
        assert connection.info()["queued_bytes"] < 1 << 22


def test_receive_window():
    gate = Gate()
    with pair(gate, options={"receive_window": 1 << 20}) as (one, two):
        results = [two.request(1, 0, bytes(1 << 18)) for _ in range(4)]
        assert gate.entered.acquire(timeout=PATIENCE)
        sending = in_thread(lambda: [two.request(1, 0, bytes(1 << 18)) for _ in range(40)])
        assert not sending[1]
        gate.go.set()
        results += joined(sending)
        assert all(result()[0] for result in results)
        assert one.info()["inbound_bytes"] == 0


def test_own_requests_go_on_in_a_flood():
    connections = []

    def handler(rq_type, flags, payload):
        return connections[0].do(2, 0, payload, timeout=PATIENCE)[2]

    with peer(request_handler=handler, max_requests=3, workers=2) as (connection, other):
        connections.append(connection)
        for tag in range(1, 41):
            other.request(tag, b"%d" % tag)
        answers = {}
        while len(answers) < 40:
            packet = other.receive()
            if packet.is_request:
                other.respond(packet.tag, packet.payload * 2)
            else:
                answers[packet.tag] = packet.payload
        assert answers == {tag: b"%d" % tag * 2 for tag in range(1, 41)}


def test_a_reader_that_has_stopped_goes_on_for_a_response():
    gate = Gate()
    with peer(request_handler=gate, max_requests=3) as (connection, other):
        for tag in range(1, 41):
            other.request(tag)
        assert gate.entered.acquire(timeout=PATIENCE)
        result = connection.request(7)
        assert other.receive().rq_type == 8
        other.respond(1, b"there")
        assert result.join(PATIENCE)[0] == (True, 0, b"there")
        gate.go.set()


def test_empty_requests_count():
    gate = Gate()
    with peer(request_handler=gate, max_requests=1 << 20, receive_window=512 * 1000) as (connection, other):
        other.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for tag in range(1, 10_000_000, 1000):
                other.send(b"".join(bytes(_request(number)) for number in range(tag, tag + 1000)))
        assert 1000 <= connection.info()["unanswered"] < 100_000
        gate.go.set()


def _request(tag):
    return Packet(is_request=True, tag=tag, rq_type=1)


def test_max_packet():
    with pair(lambda *_: bytes(1000), options={"max_packet": 2000}, other_options={"max_packet": 500}) as (
        one,
        two,
    ):
        with pytest.raises(ValueError, match="max_packet, 500"):
            two.request(1, 0, bytes(600))
        with pytest.raises(PacketConnectionError, match="1002 bytes, and at most 500"):
            two.do(1)
        one.join(PATIENCE)


def test_a_length_that_is_only_announced_takes_no_memory():
    from resource import RUSAGE_SELF, getrusage

    before = getrusage(RUSAGE_SELF).ru_maxrss
    connections = []
    for _ in range(20):
        context = peer()
        connections.append(context)
        _, other = context.__enter__()
        other.send("9f808000010201" + "00" * 400)
    for context in connections:
        context.__exit__(None, None, None)
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; the announced payloads have 1.2 GB


def test_keepalive_asks_and_is_answered():
    with pair(other_options={"keepalive": 0.3}) as (one, two):
        end = time.monotonic() + PATIENCE
        while two.info()["packets_received"] < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert two.end is None
        assert one.info()["rejected"] >= 2
        assert two.info()["late_responses"] == two.info()["unknown_responses"] == 0
        assert two.info()["outstanding"] == 0


def test_keepalive_ends_what_is_dead():
    with peer(keepalive=0.02) as (connection, other):
        result = connection.request(1)
        with pytest.raises(PacketConnectionError, match="keepalive"):
            result()
        assert other.receive().tag == 1
        probe = other.receive()
        assert (probe.tag, probe.channel, probe.rq_type) == (2, 0x7FFF_FFFF, 1)


def test_any_answer_to_a_keepalive_will_do():
    with peer(keepalive=0.3) as (connection, other):
        for tag in range(1, 4):
            probe = other.receive()
            assert probe.tag == tag
            other.respond(tag, b"unknown channel", ok=False, channel=probe.channel)
        assert connection.end is None


def test_the_peer_goes_while_much_is_queued():
    with peer(send_window=1 << 30) as (connection, other):
        results = [connection.request(1, 0, bytes(100_000)) for _ in range(100)]
        other.receive()
        other.close()
        assert {outcome(result) for result in results} <= {CancellationError, PacketConnectionError}
        connection.join(PATIENCE)
        assert connection.info()["queued_bytes"] == 0


def test_a_million_outstanding():
    """Each costs no more than an entry, and those that are over nothing."""
    count = 200_000
    with peer(send_window=1 << 30, max_outstanding=None) as (connection, other):
        draining = threading.Event()

        def drain():
            while not draining.is_set() and other.socket.recv(1 << 20):
                pass

        thread = in_thread(drain)
        results = [connection.request(1) for _ in range(count)]
        assert connection.info()["outstanding"] == count
        draining.set()
        connection.abort()
        other.socket.shutdown(socket.SHUT_RDWR)
        joined(thread)
        assert all(result.cancelled for result in results)


@pytest.mark.soak
def test_what_a_million_outstanding_cost():
    """Each an entry of a table, and those that are over nothing, in bytes of malloc."""
    count, batch = 1_000_000, 10_000
    with peer(send_window=1 << 30, max_outstanding=None) as (connection, other):

        def drain():
            while not other.socket.recv(1 << 20).endswith(bytes(PacketConnection.EOF_Packet)):
                pass

        def until(name, value):
            end = time.monotonic() + PATIENCE
            while connection.info()[name] != value:
                assert time.monotonic() < end
                time.sleep(0.01)

        def a_million(tag):
            before = allocated()
            for _ in range(count):
                connection.request(1)
            assert connection.info()["outstanding"] == count
            until("queued_bytes", 0)
            each = (allocated() - before) / count
            assert each < 200, each
            for first in range(tag, tag + count, batch):
                answers = [Packet(is_request=False, tag=tag, flags=1) for tag in range(first, first + batch)]
                other.send(b"".join(map(bytes, answers)))
            until("outstanding", 0)

        thread = in_thread(drain)
        # What is made once is there after the first.
        a_million(1)
        before = allocated()
        a_million(1 + count)
        assert allocated() - before < count
        connection.send_eof()
        joined(thread)


def allocated():
    """How many bytes of malloc are in use, but for what Python's objects take."""
    names = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks"]

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in [*names, "keepcost"]]

    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Info
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def test_many_duplicate_and_unknown_tags():
    gate = Gate(b"x")
    with peer(request_handler=gate) as (connection, other):
        other.request(1)
        assert gate.entered.acquire(timeout=PATIENCE)
        for _ in range(1000):
            other.request(1)
            other.respond(99)
        for _ in range(1000):
            assert other.receive().payload == b"channel 0: tag already in use: 1"
        gate.go.set()
        assert other.receive().payload == b"x"
        other.request(2)
        assert other.receive().payload == b"x"
        assert connection.info()["unknown_responses"] == 1000
