"""The examples, each served by a plain python3 of its own as their first lines say."""

import contextlib
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import erlang

EXAMPLES = Path(__file__).parent.parent.parent / "erlang/examples"
PACKAGE = Path(erlang.__file__).parent.parent


@contextlib.contextmanager
def served(name):
    """Run an example; yields the port that it has chosen."""
    command = [sys.executable, EXAMPLES / f"{name}.py", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(PACKAGE)}
    ) as server:
        try:
            yield int(re.search(r"(\d+)\)", server.stdout.readline())[1])
        finally:
            server.terminate()


class Client:
    """A TCP connection of lines."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.lines = self.socket.makefile("rb")

    def say(self, line):
        self.socket.sendall(line + b"\n")

    def hear(self):
        return self.lines.readline().rstrip(b"\n")


def test_echo():
    with served("echo_protocol") as port:
        client = Client(port)
        client.say(b"hello")
        assert client.hear() == b"hello"


def test_chat():
    with served("chat_protocol") as port:
        joe, mike = Client(port), Client(port)
        assert joe.hear() == mike.hear() == b"Your name?"
        joe.say(b"Joe")
        mike.say(b"Mike")
        assert joe.hear() == b"Mike has come"
        joe.say(b"Hello, Mike")
        assert mike.hear() == b"Joe: Hello, Mike"
        # Far more than a socket holds, while Mike does not read: nothing is lost.
        text = b"x" * 4000
        for _ in range(2000):
            joe.say(text)
        for _ in range(2000):
            assert mike.hear() == b"Joe: " + text
        mike.socket.shutdown(socket.SHUT_RDWR)
        assert joe.hear() == b"Mike has gone"


def test_chat_of_endless_lines():
    with served("chat_protocol") as port:
        client = Client(port)
        client.socket.sendall(b"x" * 5000)
        assert client.hear() == b"Your name?"
        assert client.hear() == b""


def test_names_over_udp():
    with served("udp_protocol") as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect(("127.0.0.1", port))

        def ask(question):
            client.send(question)
            return client.recv(1000)

        assert ask(b"get joe") == b"unknown"
        assert ask(b"set joe Armstrong, J.") == b"ok"
        assert ask(b"get joe") == b"Armstrong, J."
        assert ask(b"") == b"set NAME VALUE, or get NAME"


def test_asyncio_takes_over():
    with served("asyncio_protocol") as port:
        client = Client(port)
        client.say(b"hello")
        assert client.hear() == b"hello"
        client.say(b"async")
        assert client.hear() == b"asyncio is here"
        client.say(b"hello")
        assert client.hear() == b"HELLO"
        client.socket.shutdown(socket.SHUT_WR)
        assert client.hear() == b""


def test_websocket_echo():
    wsproto = pytest.importorskip("wsproto")
    events = wsproto.events
    with served("websocket_protocol") as port:
        client = Client(port).socket
        connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

        def talk(event):
            client.sendall(connection.send(event))
            return hear()

        def hear():
            while True:
                for event in connection.events():
                    return event
                connection.receive_data(client.recv(65536) or None)

        assert isinstance(talk(events.Request(host="localhost", target="/")), events.AcceptConnection)
        assert talk(events.TextMessage("hello")).data == "hello"
        assert talk(events.BytesMessage(b"\0\1")).data == b"\0\1"
        assert talk(events.Ping(b"there?")).payload == b"there?"
        assert isinstance(talk(events.CloseConnection(code=1000)), events.CloseConnection)
        assert client.recv(1) == b""


def test_websocket_refuses_rubbish():
    pytest.importorskip("wsproto")
    with served("websocket_protocol") as port:
        client = Client(port)
        client.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r")
        assert client.hear().startswith(b"HTTP/1.1 4")
