"""Every way in which a packet connection ends: whoever waits is told why, and nobody hangs."""

import gc
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref

import pytest
from packet_support import PATIENCE, Gate, Peer, in_thread, joined, outcome, pair, peer

from erlang import rpc
from erlang.packetstream import (
    CancellationError,
    ClosedError,
    Packet,
    PacketConnection,
    PacketConnectionError,
)


def eof_packet(other):
    other.send("03000200")


def raw_eof(other):
    other.socket.shutdown(socket.SHUT_WR)


def eof_in_a_packet(other):
    other.send("0601")
    raw_eof(other)


def eof_in_a_large_packet(other):
    other.send(bytes.fromhex("c08003010201") + b"x" * 200_000)
    raw_eof(other)


def malformed(other):
    other.send("00")


def length_bomb(other):
    other.send("8fffffff7f")


def unknown_control(other):
    other.send("03050200")


def reset(other):
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()


def closed(other):
    other.close()


CANCELS = {eof_packet: "has ended its packets", raw_eof: "ended the stream", closed: "ended the stream"}
BREAKS = {
    eof_in_a_packet: "inside a packet",
    eof_in_a_large_packet: "inside a packet",
    malformed: "it is empty",
    length_bomb: "at most 67108864 are allowed",
    unknown_control: "control packet of no known kind",
    reset: "receiving failed: Connection reset|sending failed",
}


@pytest.mark.parametrize("end", [*CANCELS, *BREAKS], ids=lambda end: end.__name__)
def test_every_end_wakes_everybody(end):
    kind = socket.AF_INET if end in (reset, closed) else socket.AF_UNIX
    with peer(kind=kind) as (connection, other):
        results = [connection.request(1) for _ in range(5)]
        for _ in results:
            other.receive()
        waiting = [in_thread(result) for result in results[:3]] + [in_thread(results[0].join)]
        joining = in_thread(connection.join)
        told = threading.Event()
        connection.notify_recv_eof.add(lambda c: told.set())
        end(other)
        error = CancellationError if end in CANCELS else PacketConnectionError
        for thread in waiting[:3]:
            assert type(joined(thread)) is error
        assert joined(waiting[3])[1][0] is error
        with pytest.raises(error, match=(CANCELS | BREAKS)[end]):
            results[4]()
        assert joined(joining) is None
        assert told.wait(PATIENCE)
        assert all(result.ready for result in results)
        assert connection.end
        # What is asked now is answered at once, by the same reason.
        assert outcome(connection.request(1)) is error
        assert connection.info()["outstanding"] == 0


def test_half_close_answers_what_was_asked():
    gate = Gate(b"late")
    with peer(request_handler=gate) as (_, other):
        other.request(1)
        other.request(2)
        assert gate.entered.acquire(timeout=PATIENCE)
        eof_packet(other)
        gate.go.set()
        assert {other.receive().tag, other.receive().tag} == {1, 2}


def test_what_came_before_the_end_counts():
    with peer() as (connection, other):
        results = [connection.request(1) for _ in range(3)]
        other.respond(2, b"two")
        eof_packet(other)
        connection.join(PATIENCE)
        assert results[1]() == (True, 0, b"two")
        assert outcome(results[0]) is outcome(results[2]) is CancellationError


# --- closing ----------------------------------------------------------------------------------------


def test_close_waits_for_answers_both_ways():
    gate = Gate(b"slow")
    with pair(gate, gate) as (one, two):
        result = two.request(1)
        back = one.request(1)
        for _ in range(2):
            assert gate.entered.acquire(timeout=PATIENCE)
        closing = in_thread(two.close)
        while not two.closed:
            pass
        with pytest.raises(ClosedError):
            two.request(1)
        gate.go.set()
        assert joined(closing) is None
        assert result() == back() == (True, 0, b"slow")


def test_close_rejects_new_requests_and_sends_the_end_last():
    gate = Gate(b"done")
    with peer(request_handler=gate) as (connection, other):
        other.request(1)
        assert gate.entered.acquire(timeout=PATIENCE)
        closing = in_thread(connection.close)
        while True:
            # It is closing as soon as it rejects.
            other.request(2)
            packet = other.receive() if connection.closed else None
            if packet is not None:
                break
        assert packet.payload == b"rejecting request: runstate.cancelled"
        gate.go.set()
        last = packet
        while last != PacketConnection.EOF_Packet:
            packet, last = last, other.receive()
        assert joined(closing) is None


def test_close_has_a_deadline():
    gate = Gate()
    with peer(request_handler=gate, close_timeout=0.05) as (connection, other):
        result = connection.request(1)
        waiting = in_thread(result)
        other.request(1)
        assert gate.entered.acquire(timeout=PATIENCE)
        start = time.monotonic()
        connection.close()
        assert time.monotonic() - start < PATIENCE
        assert isinstance(joined(waiting), CancellationError)
        with pytest.raises(CancellationError, match="the connection was closed"):
            result()
        gate.go.set()


def test_close_while_the_peer_never_reads():
    with peer(close_timeout=0.05, send_window=1 << 30) as (connection, _):
        results = [connection.request(1, 0, bytes(1 << 20)) for _ in range(20)]
        connection.close()
        assert {outcome(result) for result in results} == {CancellationError}


def test_close_by_a_handler():
    closing = threading.Event()

    def handler(rq_type, flags, payload):
        holder[0].close()
        closing.set()
        return b"never sent"

    holder = []
    with peer(request_handler=handler) as (connection, other):
        holder.append(connection)
        start = time.monotonic()
        other.request(1)
        assert other.receive() == PacketConnection.EOF_Packet
        assert closing.wait(PATIENCE)
        assert time.monotonic() - start < 5


def test_abort_wakes_everybody_at_once():
    with peer() as (connection, _):
        waiting = [in_thread(connection.request(1)) for _ in range(5)]
        joining = in_thread(connection.join)
        connection.abort()
        assert {type(joined(thread)) for thread in waiting} == {CancellationError}
        assert joined(joining) is None
        with pytest.raises(ClosedError):
            connection.request(1)


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (lambda ours: PacketConnection(ours).open(), PacketConnection.close),
        (lambda ours: PacketConnection(ours).open(), PacketConnection.abort),
        (rpc.connect, rpc.Connection.close),
    ],
    ids=["close", "abort", "calls"],
)
def test_the_peer_sees_the_end_while_the_connection_is_kept(make, end):
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    with theirs:
        connection = make(ours)
        end(connection)
        ours.close()
        received = b""
        while data := theirs.recv(100):
            received += data
        assert received == bytes.fromhex("03000200")
        assert connection.closed


def test_both_ends_close_at_once():
    for _ in range(50):
        with pair(lambda *_: b"x", lambda *_: b"y") as (one, two):
            result = one.request(1)
            threads = [in_thread(end.close) for end in (one, two)]
            assert [joined(thread) for thread in threads] == [None, None]
            assert result.ready


def test_notify_send_eof():
    told = []
    with peer() as (connection, other):
        connection.notify_send_eof.add(told.append)
        connection.close()
        assert other.receive() == PacketConnection.EOF_Packet
    assert told == [connection]


def test_send_eof_ends_only_this_direction():
    with peer() as (connection, other):
        result = connection.request(1)
        connection.send_eof()
        with pytest.raises(ClosedError):
            connection.request(1)
        assert other.receive().is_request
        assert other.receive() == PacketConnection.EOF_Packet
        other.respond(1, b"still")
        assert result() == (True, 0, b"still")


@pytest.mark.parametrize("name", ["join", "join_recv"])
def test_joining_waits_for_the_end_of_what_comes(name):
    with peer() as (connection, other):
        join = getattr(connection, name)
        with pytest.raises(TimeoutError):
            join(0.01)
        joining = in_thread(join)
        connection.send_eof()
        assert connection.end is None
        eof_packet(other)
        assert joined(joining) is None
        assert "has ended its packets" in connection.end


def test_opened_again():
    one, two = socket.socketpair()
    with one, two:
        connection = PacketConnection(one, request_handler=lambda *_: b"again")
        other = Peer(two)
        for _ in range(3):
            with connection:
                other.request(1)
                assert other.receive().payload == b"again"
            assert other.receive() == PacketConnection.EOF_Packet


# --- nothing is left --------------------------------------------------------------------------------


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def native_threads():
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                names.append(file.read().strip())
        except OSError:
            pass  # it has ended
    return names.count("causeway-packet")


def test_no_descriptors_and_threads_are_left():
    def round_trip():
        with pair(lambda *_: b"x") as (_, two):
            kept.append(two.request(1))
            kept[-1]()

    kept = []
    round_trip()
    before = descriptors()
    for _ in range(20):
        round_trip()
    gc.collect()
    assert descriptors() <= before
    end = time.monotonic() + PATIENCE
    while native_threads() and time.monotonic() < end:
        pass
    assert native_threads() == 0


def test_payloads_are_given_back():
    class Payload(bytes):
        pass

    freed = threading.Semaphore(0)
    with pair(lambda *_: None) as (_, two):
        payload = bytes(bytearray(1 << 20))
        count = sys.getrefcount(payload)
        for _ in range(10):
            two.do(1, 0, payload)
        two.do(1)
        assert sys.getrefcount(payload) <= count + 1
    assert sys.getrefcount(payload) == count
    del freed


@pytest.mark.parametrize("how", ["open", "handler", "waiting"])
def test_python_ends_while_a_connection_is_open(how):
    program = f"""
import socket, threading, time
from erlang.packetstream import PacketConnection
one, two = socket.socketpair()
entered = threading.Event()
def handler(*_):
    entered.set()
    while {how == "handler"}:
        time.sleep(0.001)
a = PacketConnection(one, request_handler=handler).open()
b = PacketConnection(two).open()
if {how == "waiting"}:
    a.request_handler = None
    threading.Thread(target=a.request(1).join, daemon=True).start()
b.request(1)
entered.wait()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], timeout=PATIENCE, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_python_ends_with_coroutine_handlers_of_a_connection_that_nobody_has_closed():
    """The thread of their loop is stopped where it is then: whoever waited for it would wait in vain."""
    program = """
import socket, types
from erlang.packetstream import PacketConnection
observer = types.ModuleType("observer")  # it must not keep the names of this program
exec('''
import os, sys, threading
wait, ends, tell = threading.Thread.join, sys.is_finalizing, os.write
def join(thread, timeout=None):
    if ends():
        tell(2, b"waits for " + thread.name.encode())
    wait(thread, timeout)
threading.Thread.join = join
''', vars(observer))
one, two = socket.socketpair()
async def handler(rq_type, flags, payload):
    return payload
a = PacketConnection(one, request_handler=handler).open()
b = PacketConnection(two).open()
assert b.do(1, 0, b"abc") == (True, 0, b"abc")
a._cycle = a  # only the last collection finds it
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], timeout=PATIENCE, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_interrupts_who_waits():
    program = """
import signal, socket, threading, os
from erlang.packetstream import PacketConnection
one, two = socket.socketpair()
with PacketConnection(one, close_timeout=0.1) as connection:
    for wait in (connection.request(1), connection.request(1).join, connection.join):
        def kill():
            os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.05, kill).start()
        try:
            wait()
        except KeyboardInterrupt:
            print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=PATIENCE, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n" * 3, "")


def test_random_bytes_end_in_a_clear_error():
    from packet_support import noise

    for data in noise():
        with peer(request_handler=lambda *_: b"x", max_packet=1 << 20) as (connection, other):
            result = connection.request(1)
            other.send(data)
            other.socket.shutdown(socket.SHUT_WR)
            connection.join(PATIENCE)
            assert result.ready
            assert connection.end


def test_packets_after_the_end_are_not_looked_at():
    with peer(request_handler=lambda *_: b"x") as (connection, other):
        other.send(bytes(PacketConnection.EOF_Packet) + bytes(Packet(is_request=True, tag=1, rq_type=1)))
        connection.join(PATIENCE)
        assert connection.info()["requests_received"] == 0


def test_failed_results_keep_nothing():
    """The traceback of their exception has frames that refer to them, and to the connection."""

    def fail():
        with peer() as (connection, _):
            result = connection.request(0)
            assert result.cancel()
            with pytest.raises(CancellationError):
                result()
            return weakref.ref(connection)

    before = descriptors()
    gone = [fail() for _ in range(10)]
    gc.collect()
    assert [reference() for reference in gone] == [None] * 10
    assert descriptors() <= before
