"""Streaming calls over connections whose peer does what it may not, and large chunks."""

import queue
import struct
import threading

import pytest
from rpc_support import (
    PATIENCE,
    Endless,
    advertise_all,
    connected,
    data_packet,
    error_frame,
    open_call,
    raw_peer,
    unadvertise_all,
)

from erlang import cbor, rpc


@pytest.fixture(autouse=True)
def providers():
    advertise_all()
    yield
    unadvertise_all()


def test_a_stream_that_nobody_reads_stops_no_other():
    with connected() as (client, _server):
        rpc.advertise("endless", lambda _args: Endless()(None))
        slow = [client.call_stream("endless") for _ in range(3)]
        full = client.open_stream("echo")
        with pytest.raises(TimeoutError):
            while True:
                full.send(bytes(100_000), 0.05)
        assert len(list(client.call_stream("count", 20_000))) == 20_000
        with client.open_stream("total", 0) as total:
            for _ in range(200):
                total.send(bytes(100_000), PATIENCE)
            total.close_send()
            assert total.reply(PATIENCE) == 20_000_000
        for stream in (*slow, full):
            stream.cancel()


@pytest.mark.parametrize("size", [10, 1000, 20_000, 65_536, 100_000])
def test_a_peer_that_sends_more_than_there_is_room_for_is_stopped(size):
    go = threading.Event()
    outcome = queue.SimpleQueue()

    def hold(chunks):
        assert go.wait(PATIENCE)
        taken = 0
        try:
            for chunk in chunks:
                taken += len(chunk)
        except rpc.RpcError as error:
            outcome.put((taken, error.code, error.message))
            raise

    rpc.advertise("hold", hold, mode="bidi")
    rpc.advertise("double", lambda number: 2 * number)
    with raw_peer(window=100_000) as (connection, peer, frames):
        room = open_call(peer, "hold")["window"]
        per_packet = max(1, 10_000 // size)
        sequence = 0
        while frames.empty():
            assert sequence * max(64, size) < 20 * room
            peer.do(0x28, payload=data_packet(0, sequence, *[bytes(size)] * per_packet))
            sequence += per_packet
        error = error_frame(frames)
        assert (error["stream_id"], error["code"]) == (1, "out_of_credit")
        # What comes after it is dropped, and the others go on.
        for _ in range(50):
            assert peer.do(0x28, payload=data_packet(0, sequence, bytes(size)))[0]
        assert connection.info()["streams"] == 0
        assert "window" in open_call(peer, "double", 2)
        go.set()
        taken, code, message = outcome.get(timeout=PATIENCE)
        # One chunk may be larger than the room that is left. Small ones weigh more than they have.
        weight = max(64, size)
        assert room - per_packet * weight <= taken // size * weight < room + weight
        assert code == "out_of_credit"
        assert "there was room for" in message


def test_a_peer_whose_terms_weigh_nothing_is_refused():
    with raw_peer() as (_connection, peer, _frames):
        open_call(peer, "echo")
        body = cbor.dumps("x" * 1000)
        for weight in (0, 1):
            packet = struct.pack(">IIBII", 0, 0, 1, weight, len(body)) + body
            accepted, _, text = peer.do(0x28, payload=packet)
            assert (accepted, text) == (False, b"no frame of a streaming call")


def test_a_number_that_is_taken_is_refused():
    with raw_peer() as (connection, peer, _frames):
        assert "window" in open_call(peer, "echo")
        assert open_call(peer, "echo")["error"]["code"] == "badarg"
        assert connection.info()["streams"] == 1


def test_chunks_out_of_order_end_the_call():
    with raw_peer() as (_connection, peer, frames):
        open_call(peer, "total")
        peer.do(0x28, payload=data_packet(0, 0, b"a"))
        peer.do(0x28, payload=data_packet(0, 2, b"a"))
        assert error_frame(frames)["code"] == "out_of_order"


def test_frames_that_are_none_harm_nobody():
    with raw_peer() as (connection, peer, _frames):
        open_call(peer, "echo")
        unknown = struct.pack(">IIBII", 0, 0, 9, 1, 0)
        for payload in (b"", b"a", bytes(7), bytes(9), data_packet(0, 0, b"abc")[:-1], unknown):
            assert not peer.do(0x28, payload=payload)[0]
        assert not peer.do(0x2C, payload=bytes(3))[0]
        assert connection.info()["streams"] == 1


@pytest.mark.parametrize("size", [15_000, 16_384, 65_535, 65_536, 70_000, 1_000_000])
def test_chunks_of_many_sizes_arrive_as_they_were(size):
    with connected() as (client, _server), client.open_stream("echo") as stream:
        chunks = [bytes([number]) * (size + number) for number in range(6)] + [b"", b"end"]

        def send():
            for chunk in chunks:
                stream.send(chunk, PATIENCE)
            stream.close_send()

        sender = threading.Thread(target=send)
        sender.start()
        assert list(stream) == chunks
        sender.join(PATIENCE)
