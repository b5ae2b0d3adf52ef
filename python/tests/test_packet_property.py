"""Whatever two ends of a packet connection do, every result comes to something exactly once."""

import random
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packet_support import PATIENCE, in_thread, joined, outcome

from erlang.packetstream import CancellationError, ClosedError, PacketConnection, PacketConnectionError

ENDS = ["close", "other_close", "both", "abort", "eof", "shutdown", "garbage", "truncated", "none"]
ACTIONS = st.tuples(
    st.sampled_from(["request", "back", "cancel", "wait", "large", "timeout", "callback"]), st.integers(0, 9)
)


def handler(rq_type, flags, payload):
    if rq_type == 1:
        time.sleep(0.001)
    if rq_type == 2:
        raise LookupError("as asked")
    return payload


def perform(ends, actions, end):
    one, two = ends
    results, told, waiting = [], [], []
    lock = threading.Lock()

    def note(result):
        with lock:
            told.append(result)

    for action, number in actions:
        try:
            if action == "cancel" and results:
                results[number % len(results)].cancel()
            elif action == "wait" and results:
                waiting.append(in_thread(results[number % len(results)].get))
            elif action not in ("cancel", "wait"):
                connection = two if action == "back" else one
                size = 70_000 * number if action == "large" else number
                timeout = 0.0005 * number if action == "timeout" else None
                results.append(connection.request(number % 3, number, bytes(size), timeout=timeout))
                results[-1].notify(note)
        except (ClosedError, TimeoutError):
            pass
    return (
        results,
        told,
        waiting,
        [
            in_thread(function)
            for function in {
                "close": [one.close],
                "other_close": [two.close],
                "both": [one.close, two.close],
                "abort": [one.abort],
                "eof": [one.send_eof],
            }.get(end, [])
        ],
    )


@given(st.lists(ACTIONS, max_size=30), st.sampled_from(ENDS), st.integers(1, 4))
@settings(max_examples=150)
def test_every_result_comes_to_something_once(actions, end, workers):
    first, second = socket.socketpair()
    options = {"request_handler": handler, "workers": workers, "close_timeout": PATIENCE}
    with first, second:
        one = PacketConnection(first, **options).open()
        two = PacketConnection(second, **options).open()
        try:
            results, told, waiting, ending = perform((one, two), actions, end)
            if end == "shutdown":
                first.shutdown(socket.SHUT_RDWR)
            if end == "garbage":
                first.sendall(b"\0")
            if end == "truncated":
                first.sendall(bytes.fromhex("0901"))
                first.shutdown(socket.SHUT_WR)
            for thread in ending:
                joined(thread)
            if end == "abort":
                # With much to write it could not say so: who aborts, closes.
                first.shutdown(socket.SHUT_RDWR)
            for thread in waiting:
                joined(thread)
        finally:
            for thread in [in_thread(one.close), in_thread(two.close)]:
                joined(thread)
        for result in results:
            value = outcome(result)
            assert isinstance(value, tuple) or value in (
                CancellationError,
                PacketConnectionError,
                TimeoutError,
            )
            assert outcome(result) == value
            assert result.cancelled == (value is CancellationError)
        end = time.monotonic() + PATIENCE
        while len(told) < len(results) and time.monotonic() < end:
            time.sleep(0.001)
        assert sorted(map(id, told)) == sorted(map(id, results))


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=10))
@settings(max_examples=150)
def test_any_bytes_in_any_pieces_end_clearly(data, sizes):
    first, second = socket.socketpair()
    with first, second:
        connection = PacketConnection(first, request_handler=handler, max_packet=1 << 16).open()
        try:
            result = connection.request(0)
            for size in sizes:
                second.sendall(data[:size])
                data = data[size:]
            second.sendall(data)
            second.shutdown(socket.SHUT_WR)
            connection.join(PATIENCE)
            assert result.ready
            outcome(result)
        finally:
            connection.close()


@pytest.mark.soak
def test_for_long():
    generator = random.Random(0)
    end = time.monotonic() + 60
    kinds = ["request", "back", "cancel", "wait", "large", "timeout"]
    while time.monotonic() < end:
        actions = [(generator.choice(kinds), generator.randrange(10)) for _ in range(300)]
        test_every_result_comes_to_something_once.hypothesis.inner_test(
            actions, generator.choice(ENDS), generator.randrange(1, 5)
        )
