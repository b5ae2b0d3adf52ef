"""What the suites of packet connections share."""

import contextlib
import socket
import threading
from pathlib import Path

from erlang.packetstream import Packet, PacketConnection

PACKETS = Path(__file__).parents[2] / "Tests/Packets"
PATIENCE = 30.0  # seconds; only a defect takes so long


def vectors():
    """The lines of Tests/Packets/hex.txt, as lists of fields."""
    lines = (PACKETS / "hex.txt").read_text().splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def noise():
    """Bytes that a fuzzer has found to be of interest."""
    return [bytes.fromhex(line) for line in (PACKETS / "corpus.txt").read_text().splitlines()[1:]]


class Peer:
    """The other end of a connection, packet by packet."""

    def __init__(self, sock):
        self.socket = sock
        sock.settimeout(PATIENCE)
        self._file = sock.makefile("rb")

    def send(self, hex_or_packet):
        """Send bytes, hexadecimal or those of a packet."""
        data = bytes.fromhex(hex_or_packet) if isinstance(hex_or_packet, str) else bytes(hex_or_packet)
        self.socket.sendall(data)

    def request(self, tag, payload=b"", *, rq_type=0, flags=0, channel=0):
        self.send(
            Packet(
                is_request=True, channel=channel, tag=tag, flags=flags, rq_type=rq_type + 1, payload=payload
            )
        )

    def respond(self, tag, payload=b"", *, ok=True, flags=0, channel=0):
        self.send(Packet(is_request=False, channel=channel, tag=tag, flags=flags << 1 | ok, payload=payload))

    def receive(self):
        """The next packet."""
        return Packet.parse(self._file)

    def receive_hex(self):
        return bytes(self.receive()).hex()

    def close(self):
        self._file.close()
        self.socket.close()


@contextlib.contextmanager
def peer(*, kind=socket.AF_UNIX, **options):
    """A connection, and its other end by hand."""
    ours, theirs = socket.socketpair() if kind == socket.AF_UNIX else tcp_pair()
    other = Peer(theirs)
    options.setdefault("close_timeout", 5.0)
    connection = PacketConnection(ours, **options)
    try:
        with connection:
            try:
                yield connection, other
            finally:
                # Nothing more is to be waited for.
                other.close()
    finally:
        ours.close()


@contextlib.contextmanager
def pair(handler=None, other_handler=None, options=None, other_options=None):
    """Two connections, each the other's peer."""
    with contextlib.ExitStack() as stack:
        one, two = socket.socketpair()
        stack.enter_context(one)
        stack.enter_context(two)
        first = stack.enter_context(PacketConnection(one, request_handler=handler, **options or {}))
        yield (
            first,
            stack.enter_context(PacketConnection(two, request_handler=other_handler, **other_options or {})),
        )


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


class Gate:
    """A handler that tells when it runs, and waits until it may go on."""

    def __init__(self, answer=None):
        self.answer = answer
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, rq_type, flags, payload):
        self.entered.release()
        assert self.go.wait(PATIENCE)
        return self.answer


def outcome(result):
    """What a result has come to: its value, or the type of its exception."""
    value, exc_info = result.join(PATIENCE)
    return value if exc_info is None else exc_info[0]


def in_thread(function, *arguments):
    """A thread that runs a function, and a list with what that has returned or raised."""
    outcomes = []

    def run():
        try:
            outcomes.append(function(*arguments))
        except BaseException as error:
            outcomes.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcomes


def joined(thread_and_outcomes):
    """What became of such a thread."""
    thread, outcomes = thread_and_outcomes
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it hangs"
    return outcomes[0]
