"""Streaming calls over connections whose peer opens more calls than it may, or gives room without end."""

import asyncio
import queue
import socket
import struct
import threading

import pytest
from rpc_support import PATIENCE, advertise_all, connected, open_call, raw_peer, unadvertise_all

from erlang import cbor, rpc


@pytest.fixture(autouse=True)
def providers():
    advertise_all()
    yield
    unadvertise_all()


@pytest.fixture
def held():
    """What ends the handlers of "held"; they go on when their calls are over."""
    go = threading.Event()
    rpc.advertise("held", lambda _stream: go.wait(PATIENCE), mode="bidi")
    yield go
    go.set()


def _code(answer):
    return answer.get("error", {}).get("code")


def _answers(answer):
    return lambda frame, _flags, _payload: (0, cbor.dumps(answer)) if frame == 0x27 else None


def _give_up(peer, number):
    ending = {"stream_id": number, "code": "cancelled", "message": ""}
    assert peer.do(0x2A, payload=cbor.dumps(ending))[0]


def _wait_until(condition):
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it has not come")


def test_the_peer_may_have_so_many_calls_open():
    with raw_peer(max_calls=3) as (connection, peer, _frames):
        for number in (0, 2, 4):
            assert open_call(peer, "echo", number)["window"]
        answer = open_call(peer, "echo", 6)
        assert answer["error"] == {
            "code": "too_many_calls",
            "message": "3 calls are open over this connection already",
        }
        assert connection.info()["streams"] == 3
        _give_up(peer, 2)
        _wait_until(lambda: _code(open_call(peer, "echo", 6)) is None)
        assert _code(open_call(peer, "echo", 8)) == "too_many_calls"


def test_own_calls_do_not_count():
    with connected(max_calls=1) as (one, two):
        first, second = one.open_stream("echo"), two.open_stream("echo")
        for connection in (one, two):
            with pytest.raises(rpc.RpcError) as info:
                connection.call("echo")
            assert info.value.code == "too_many_calls"
        first.cancel()
        second.cancel()


def test_handlers_of_calls_that_were_given_up_count(held):
    with raw_peer(max_calls=5) as (connection, peer, _frames):
        accepted = 0
        for number in range(0, 200, 2):
            accepted += _code(open_call(peer, "held", number)) is None
            _give_up(peer, number)
        assert accepted == 5
        assert connection.info()["streams"] == 0
        held.set()
        _wait_until(lambda: _code(open_call(peer, "echo", 1000)) is None)


def test_coroutines_count_until_they_end():
    with raw_peer(max_calls=2) as (_connection, peer, _frames):
        for number in range(0, 40, 2):
            _wait_until(lambda number=number: _code(open_call(peer, "echo_async", number)) is None)
            _give_up(peer, number)


@pytest.mark.parametrize("number", [1, -2, 1 << 32, 1 << 80, "0", 1.0, None])
def test_numbers_that_the_peer_may_not_use_are_refused(number):
    with raw_peer() as (connection, peer, _frames):
        assert _code(open_call(peer, "echo", number)) == "badarg"
        assert connection.info()["streams"] == 0


@pytest.mark.parametrize("window", [0, -1, "1", 1.5, None])
def test_room_that_is_none_is_refused(window):
    with raw_peer() as (connection, peer, _frames):
        assert _code(open_call(peer, "echo", 0, window)) == "badarg"
        assert connection.info()["streams"] == 0
    with raw_peer(_answers({"window": window, "mode": "bidi"})) as (connection, _peer, _frames):
        with pytest.raises(rpc.RpcError, match="unavailable: the other side has answered what is no answer"):
            connection.open_stream("there")
        assert connection.info()["streams"] == 0


@pytest.mark.parametrize("answer", [{"mode": "bidi"}, [1], {"error": None}])
def test_answers_that_are_none(answer):
    with raw_peer(_answers(answer)) as (connection, _peer, _frames):
        with pytest.raises(rpc.RpcError):
            connection.open_stream("there")
        assert connection.info()["streams"] == 0


def test_a_deadline_that_passes_before_the_call_is_accepted():
    """The peer answers what was given up, and only says that it was."""
    given_up = threading.Event()

    def take(frame, _flags, _payload):
        if frame == 0x2A:
            given_up.set()
        if frame == 0x27:
            given_up.wait(PATIENCE)
            return 0, cbor.dumps({"error": {"code": "cancelled", "message": "before it was accepted"}})
        return None

    with raw_peer(take) as (connection, _peer, _frames):
        with pytest.raises(rpc.RpcError) as raised:
            connection.open_stream("slow", deadline=0.01)
        assert raised.value.code == "deadline_exceeded"
        given_up.clear()
        with pytest.raises(rpc.RpcError) as raised:
            asyncio.run(connection.async_open_stream("slow", deadline=0.01))
        assert raised.value.code == "deadline_exceeded"
        assert connection.info()["streams"] == 0


def test_room_without_end_is_not_used():
    """The peer has room for more than there are numbers, and says of nothing that it has come."""
    arrived = queue.SimpleQueue()
    go = threading.Event()

    def take(frame, _flags, payload):
        if frame == 0x27:
            return 0, cbor.dumps({"window": 1 << 60, "mode": "bidi"})
        if frame == 0x28:
            arrived.put(len(payload))
            go.wait(PATIENCE)
        return None

    with raw_peer(take) as (connection, peer, _frames):
        stream = connection.open_stream("there")
        for _ in range(100):
            peer.do(0x2C, payload=struct.pack(">II", 1, 0xFFFFFFFF))
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                stream.send(bytes(100_000), 0.3)
        assert stream.info()["seq_out"] * 100_000 < 5 << 20
        for _ in range(100):
            peer.do(0x2C, payload=struct.pack(">II", 1, 0xFFFFFFFF))
        with pytest.raises(TimeoutError):
            stream.send(bytes(100_000), 0.3)
        go.set()
        for _ in range(200):
            stream.send(bytes(100_000), PATIENCE)
        stream.cancel()


def test_wrong_limits():
    one, _two = socket.socketpair()
    cases = [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError)]
    for wrong, error in cases:
        with pytest.raises(error, match="max_calls must be"):
            rpc.connect(one, max_calls=wrong)
