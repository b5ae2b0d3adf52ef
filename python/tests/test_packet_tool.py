"""The command-line tool of packet connections."""

import subprocess
import sys

from packet_support import PATIENCE, in_thread, joined

from erlang.packetstream import Packet, PacketConnection

TOOL = [sys.executable, "-m", "erlang.packetstream"]


def tool(*arguments, data=b""):
    return subprocess.run([*TOOL, *map(str, arguments)], input=data, capture_output=True, timeout=PATIENCE)


def capture():
    request = Packet(is_request=True, channel=5, tag=300, flags=17, rq_type=8, payload=b"hello" * 10)
    packets = [
        request,
        Packet(is_request=False, tag=1, flags=0x23, payload=b"\3\2"),
        Packet(is_request=False, tag=2),
        PacketConnection.ERQ_Packet,
        PacketConnection.EOF_Packet,
    ]
    return b"".join(map(bytes, packets))


LINES = [
    "1: request channel 5 tag 300 type 7 flags 0x11 50 bytes b'hellohellohellohellohellohellohe'...",
    "2: response tag 1 ok flags 0x11 2 bytes b'\\x03\\x02'",
    "3: response tag 2 not ok flags 0x00",
    "4: end of requests",
    "5: end of packets",
]


def test_dump(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(capture())
    for done in (tool("dump", path), tool("dump", "-", data=capture())):
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().splitlines() == LINES


def test_dump_of_what_is_no_capture(tmp_path):
    done = tool("dump", "-", data=capture() + b"\0")
    assert (done.returncode, done.stdout.decode().splitlines()) == (1, LINES)
    assert b"after 5 packets: no packet: it is empty" in done.stderr
    assert b"after 0 packets: the stream ended inside a packet" in tool("dump", "-", data=b"\6").stderr
    done = tool("dump", tmp_path / "none")
    assert done.returncode == 1
    assert b"No such file" in done.stderr


def test_call():
    import socket

    def handler(rq_type, flags, payload):
        if rq_type:
            raise LookupError("as asked")
        return flags, payload.upper()

    def serve(listener):
        sock = listener.accept()[0]
        with sock, PacketConnection(sock, request_handler=handler) as connection:
            connection.join(PATIENCE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = in_thread(serve, listener)
        done = tool("call", "127.0.0.1", port, 0, "-", "--flags", "0x11", data=b"hello")
        assert (done.returncode, done.stdout) == (0, b"HELLO")
        assert b"ok flags 0x11, 5 bytes" in done.stderr
        joined(thread)
        thread = in_thread(serve, listener)
        done = tool("call", "127.0.0.1", port, 1, "hello")
        assert (done.returncode, done.stdout) == (1, b"exception during handler")
        joined(thread)
    done = tool("call", "127.0.0.1", port, 1)
    assert done.returncode == 1
    assert b"cannot connect to 127.0.0.1:%d: [Errno 111] Connection refused" % port in done.stderr
    assert b"a port is 1 to 65535, not 99999" in tool("call", "127.0.0.1", 99999, 1).stderr
    assert b"invalid number value: 'x'" in tool("call", "127.0.0.1", port, 1, "--flags", "x").stderr


def test_help():
    done = tool("--help")
    assert done.returncode == 0
    assert b"dump" in done.stdout and b"call" in done.stdout
    assert tool().returncode == 2
