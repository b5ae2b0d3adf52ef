"""Peers of a connection of streaming calls that send frames faster than it handles them, and read nothing."""

import socket
import struct
import threading

import pytest
from rpc_support import PATIENCE, data_packet

from erlang import cbor, rpc
from erlang.packetstream import Packet

# Much more than a peer gets rid of that reads no answers.
_ENOUGH = 256 << 20
_OPEN, _DATA, _END, _ERROR, _CREDIT = 0x27, 0x28, 0x29, 0x2A, 0x2C


def _packet(frame, payload, tag=1):
    return bytes(Packet(is_request=True, tag=tag, rq_type=frame + 1, payload=payload))


def _opening(name, number):
    return cbor.dumps({"stream_id": number, "procedure": name, "mode": "bidi", "args": None, "window": 1000})


def _many(frame, payload):
    """Packets of different requests, which are sent again and again."""
    return b"".join(_packet(frame, payload, tag) for tag in range(1, 5000))


def _flood(peer, packets):
    """Send until nothing more goes. Returns what of the packets is left, and how many bytes went."""
    peer.settimeout(0.3)
    sent = 0
    rest = memoryview(packets)
    try:
        while sent < _ENOUGH:
            count = peer.send(rest)
            sent += count
            rest = rest[count:] or memoryview(packets)
    except TimeoutError:
        pass
    return rest, sent


@pytest.mark.parametrize(
    ("frame", "payload"),
    [
        pytest.param(_CREDIT, struct.pack(">II", 0, 1), id="room"),
        pytest.param(_CREDIT, struct.pack(">II", 6, 1), id="room of an unknown call"),
        pytest.param(_DATA, data_packet(0, 7, b"x"), id="chunks that are not the next"),
        pytest.param(_DATA, b"", id="no chunks"),
        pytest.param(_END, cbor.dumps({"stream_id": 0, "role": "send"}), id="ends"),
        pytest.param(_ERROR, cbor.dumps({"stream_id": 6, "code": "", "message": ""}), id="unknown errors"),
        pytest.param(_OPEN, _opening("held", 8), id="calls that are refused"),
    ],
)
def test_answers_that_nobody_reads_are_no_memory(frame, payload):
    held = threading.Event()
    served = threading.Event()
    rpc.advertise("held", lambda _stream: held.wait(PATIENCE), mode="bidi")
    rpc.advertise("last", lambda _stream: served.set(), mode="bidi")
    ours, theirs = socket.socketpair()
    try:
        with rpc.connect(ours, max_calls=2) as connection:
            theirs.sendall(_packet(_OPEN, _opening("held", 0), 1 << 40))
            assert theirs.recv(1000)
            rest, sent = _flood(theirs, _many(frame, payload))
            info = connection.info()
            assert sent < _ENOUGH, info
            assert info["queued_bytes"] < 16 << 20
            assert info["inbound_bytes"] < 8 << 20
            # It goes on for one who reads.
            theirs.settimeout(PATIENCE)
            drain = threading.Thread(target=_drain, args=(theirs,))
            drain.start()
            theirs.sendall(rest)
            held.set()
            tag = 1 << 41
            while not served.wait(0.05):
                theirs.sendall(_packet(_OPEN, _opening("last", 1000), tag))
                tag += 1
            theirs.shutdown(socket.SHUT_WR)
            connection.join(PATIENCE)
        ours.close()
        drain.join(PATIENCE)
        assert not drain.is_alive()
    finally:
        held.set()
        theirs.close()
        for name in ("held", "last"):
            rpc.unadvertise(name)


def _drain(peer):
    while peer.recv(1 << 20):
        pass
