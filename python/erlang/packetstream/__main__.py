"""A tool for people: what is in a capture, and one request to a server."""

import argparse
import contextlib
import socket
import sys

from . import DEFAULT_MAX_PACKET, Packet, PacketConnection


def describe(packet):
    """A line about a packet."""
    channel = f" channel {packet.channel}" if packet.channel else ""
    size = len(packet.payload)
    payload = f" {size} bytes {bytes(packet.payload[:32])!r}{'...' if size > 32 else ''}" if size else ""
    if not packet.is_request:
        outcome = "ok" if packet.flags & 1 else "not ok"
        return f"response{channel} tag {packet.tag} {outcome} flags 0x{packet.flags >> 1:02x}{payload}"
    if packet.rq_type == 0:
        control = {0: "end of packets", 1: "end of requests"}.get(packet.tag, f"control {packet.tag}")
        return f"{control}{channel}{payload}"
    return f"request{channel} tag {packet.tag} type {packet.rq_type - 1} flags 0x{packet.flags:02x}{payload}"


def dump(arguments):
    """Prints the packets of a file, one a line. Returns 1 where it is none to the end."""
    with contextlib.ExitStack() as files:
        file = sys.stdin.buffer if arguments.file == "-" else files.enter_context(open(arguments.file, "rb"))
        number = 0
        try:
            for number, packet in enumerate(Packet.scan(file, max_packet=arguments.max_packet), start=1):
                print(f"{number}: {describe(packet)}", flush=True)
        except (ValueError, EOFError) as error:
            print(f"after {number} packets: {error}", file=sys.stderr)
            return 1
    return 0


def call(arguments):
    """Sends one request and writes the payload of the response. Returns 1 where the peer has failed."""
    if not 0 < arguments.port < 65536:
        raise ValueError(f"a port is 1 to 65535, not {arguments.port}")
    payload = sys.stdin.buffer.read() if arguments.payload == "-" else arguments.payload.encode()
    try:
        connected = socket.create_connection((arguments.host, arguments.port), arguments.timeout)
    except OSError as error:
        raise OSError(f"cannot connect to {arguments.host}:{arguments.port}: {error}") from error
    with (
        connected as sock,
        PacketConnection(sock, name="call", close_timeout=1.0) as connection,
    ):
        ok, flags, response = connection.do(
            arguments.type, arguments.flags, payload, channel=0, timeout=arguments.timeout
        )
    sys.stdout.buffer.write(response)
    if response and sys.stdout.isatty():
        print()
    sys.stdout.flush()
    print(f"{'ok' if ok else 'not ok'} flags 0x{flags:02x}, {len(response)} bytes", file=sys.stderr)
    return 0 if ok else 1


def number(text):
    """A number, also a hexadecimal one."""
    return int(text, 0)


def main():
    """The program."""
    parser = argparse.ArgumentParser(prog="python3 -m erlang.packetstream", description=__doc__)
    commands = parser.add_subparsers(required=True)
    dumping = commands.add_parser("dump", help="decode a capture of one direction, one line for each packet")
    dumping.add_argument("file", help="- is the standard input")
    dumping.add_argument("--max-packet", type=int, default=DEFAULT_MAX_PACKET, help="bytes (%(default)s)")
    dumping.set_defaults(run=dump)
    calling = commands.add_parser("call", help="send one request, and write the payload of the response")
    calling.add_argument("host")
    calling.add_argument("port", type=int)
    calling.add_argument("type", type=int, help="the request type, a number")
    calling.add_argument("payload", nargs="?", default="", help="text; - is the standard input")
    calling.add_argument("--flags", type=number, default=0, help="a number (%(default)s)")
    calling.add_argument("--timeout", type=float, default=10.0, help="seconds (%(default)s)")
    calling.set_defaults(run=call)
    arguments = parser.parse_args()
    try:
        return arguments.run(arguments)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
