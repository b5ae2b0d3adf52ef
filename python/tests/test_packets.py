"""Packets and their bytes."""

import io
import random

import pytest
from packet_support import noise, vectors

from erlang.packetstream import Packet


def payload(text):
    if text == "-":
        return b"", b""
    count, star, digits = text.partition("*")
    if star:
        return (bytes.fromhex(digits) * int(count),) * 2
    return bytes.fromhex(text), b""


def packets():
    """All packets of the specification and their bytes."""
    for kind, *fields, digits in vectors():
        if kind == "request":
            channel, tag, flags, rq_type = map(int, fields[:4])
            content, rest = payload(fields[4])
            packet = Packet(
                is_request=True, channel=channel, tag=tag, flags=flags, rq_type=rq_type, payload=content
            )
            yield packet, bytes.fromhex(digits) + rest
        elif kind == "response":
            channel, tag, flags = map(int, fields[:3])
            content, rest = payload(fields[3])
            packet = Packet(is_request=False, channel=channel, tag=tag, flags=flags, payload=content)
            yield packet, bytes.fromhex(digits) + rest


def test_every_packet_of_the_specification():
    assert len(list(packets())) >= 25
    for packet, data in packets():
        assert bytes(packet) == data
        assert b"".join(packet.transcribe()) == data
        assert Packet.parse_bytes(data) == (packet, len(data))
        assert Packet.parse_bytes(b"xx" + data + b"yy", 2) == (packet, len(data) + 2)
        assert Packet.parse(data) == packet
        file = io.BytesIO(data + b"rest")
        assert Packet.parse(file) == packet
        assert file.read() == b"rest"


@pytest.mark.parametrize("kind", ["number", "padded"])
def test_every_number_of_the_specification(kind):
    """As the tag of a response."""
    for value, digits in [fields[1:] for fields in vectors() if fields[0] == kind]:
        number = bytes.fromhex(digits)
        data = bytes([len(number) + 1]) + number + b"\0"
        packet = Packet(is_request=False, tag=int(value))
        assert Packet.parse_bytes(data) == (packet, len(data))
        assert (bytes(packet) == data) == (kind == "number")


def test_every_malformed_packet():
    for _, text, digits in [fields for fields in vectors() if fields[0] == "malformed"]:
        with pytest.raises(ValueError, match=text.replace("_", " ")):
            Packet.parse_bytes(bytes.fromhex(digits))
        with pytest.raises(ValueError, match=text.replace("_", " ")):
            Packet.parse(io.BytesIO(bytes.fromhex(digits)))


def test_a_part_of_a_packet_is_an_end_of_file():
    for _, data in packets():
        for size in range(min(len(data), 300)):
            with pytest.raises(EOFError):
                Packet.parse_bytes(data[:size])
            with pytest.raises(EOFError, match="inside" if size else "before"):
                Packet.parse(io.BytesIO(data[:size]))


def test_scan_reads_files_bytes_and_pieces():
    expected = [packet for packet, data in packets() if len(data) < 20000]
    stream = b"".join(map(bytes, expected))
    assert list(Packet.scan(stream)) == expected
    assert list(Packet.scan(io.BytesIO(stream))) == expected
    assert list(Packet.scan(iter([stream[:5], stream[5:7], b"", stream[7:]]))) == expected
    small = b"".join(bytes(packet) for packet in expected if len(packet.payload) < 100)
    assert list(Packet.scan(small[place : place + 1] for place in range(len(small)))) == [
        packet for packet in expected if len(packet.payload) < 100
    ]
    with pytest.raises(EOFError, match="inside a packet"):
        list(Packet.scan(stream[:-1]))


def test_the_maximum():
    data = bytes.fromhex("06010201616263")
    assert Packet.parse(data, max_packet=6).payload == b"abc"
    with pytest.raises(ValueError, match="6 bytes, and at most 5"):
        Packet.parse(data, max_packet=5)


def test_attributes_equality_and_text():
    packet = Packet.parse(bytes.fromhex("0701030101616263"))
    assert (packet.is_request, packet.channel, packet.tag, packet.flags) == (True, 1, 1, 0)
    assert (packet.rq_type, packet.payload) == (1, b"abc")
    assert str(packet) == "Packet(is_request=True,channel=1,tag=1,flags=0x00,payload=b'abc')"
    response = Packet.parse(bytes.fromhex("0501810c") + b"\3\2")
    assert not hasattr(response, "rq_type")
    long = Packet(is_request=False, tag=1, flags=17, payload=b"0123456789abcdefg")
    assert str(long).endswith("flags=0x11,payload=b'0123456789abcdef'...)")
    same = Packet(is_request=1, channel=1, tag=1, flags=0, rq_type=1, payload=bytearray(b"abc"))
    assert packet == same
    for name, value in [("channel", 2), ("tag", 2), ("flags", 1), ("rq_type", 2), ("payload", b"x")]:
        other = Packet.parse(bytes(packet))
        setattr(other, name, value)
        assert packet != other
    assert packet != "packet"
    file = io.BytesIO()
    assert packet.write(file, flush=True) == 8
    assert file.getvalue().hex() == "0701030101616263"


@pytest.mark.parametrize(
    "numbers",
    [{"tag": -1}, {"tag": 1 << 64}, {"channel": -1}, {"flags": 1 << 62}, {"flags": -1}, {"rq_type": 1 << 64}],
)
def test_numbers_that_packets_cannot_have(numbers):
    packet = Packet(**{"is_request": True, "tag": 1, "rq_type": 1} | numbers)
    with pytest.raises(ValueError, match=next(iter(numbers))):
        bytes(packet)


def test_types_belong_to_requests():
    with pytest.raises(ValueError, match="rq_type"):
        Packet(is_request=True, tag=1)
    with pytest.raises(ValueError, match="rq_type"):
        Packet(is_request=False, tag=1, rq_type=1)


def test_random_bytes_end_in_a_clear_error():
    generator = random.Random(1)
    for data in noise() + [generator.randbytes(generator.randrange(1, 80)) for _ in range(5000)]:
        try:
            for packet in Packet.scan(data, max_packet=1 << 20):
                assert Packet.parse(bytes(packet)) == packet
        except (ValueError, EOFError) as error:
            assert str(error)
