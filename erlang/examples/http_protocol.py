"""An HTTP/1.1 server as a reactor protocol. The grammar of HTTP is left to the library h11.

    GET  /        says hello
    POST /sha256  answers the SHA-256 digest of the body, which may be of any size
    GET  /stats   answers counters, as JSON

One HttpProtocol serves one connection, with keep-alive and pipelining. Bodies are not collected: each
part goes to the resource as it comes. Nothing more is read before what is to be written is written,
so that a client which sends requests and reads no answers gets no memory. There is no time-out for
connections that are idle.

All connections of a context are served on one thread; who runs several contexts gives each a
Statistics of its own, or a lock.
"""

import hashlib
import json
import platform
import socket
from dataclasses import asdict, dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import urlsplit

import h11

from erlang import reactor


@dataclass
class Statistics:
    """Counters since the start, of all connections; sizes are in bytes, with headers."""

    connections: int = 0
    connections_total: int = 0
    requests: int = 0
    bad_requests: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


statistics = Statistics()


class Resource:
    """Answers one request: made when its headers are there, then given the body, then asked."""

    status = 200
    content_type = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()

    def receive(self, data: bytes) -> None:
        """Take a part of the body. It is ignored here."""

    def answer(self) -> bytes:
        """The body of the response, when that of the request has ended."""
        raise NotImplementedError


class Hello(Resource):
    def answer(self):
        return f"Hello from Python {platform.python_version()} in the BEAM\n".encode()


class Digest(Resource):
    def __init__(self):
        self.digest = hashlib.sha256()

    def receive(self, data):
        self.digest.update(data)

    def answer(self):
        return f"{self.digest.hexdigest()}\n".encode()


class Counters(Resource):
    content_type = "application/json"

    def answer(self):
        return f"{json.dumps(asdict(statistics))}\n".encode()


class Refusal(Resource):
    """Answers what cannot be served, with a line that says why."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str]):
        self.status = status
        self.reason = reason
        self.headers = headers

    def answer(self):
        return f"{self.reason}\n".encode()


ROUTES: dict[str, dict[str, type[Resource]]] = {
    "/": {"GET": Hello, "HEAD": Hello},
    "/sha256": {"POST": Digest},
    "/stats": {"GET": Counters, "HEAD": Counters},
}


def route(request: h11.Request) -> Resource:
    """Make the resource that answers a request."""
    try:
        path = urlsplit(request.target.decode("ascii")).path or "/"
    except ValueError:
        return Refusal(400, "the request's target is no URL")
    methods = ROUTES.get(path)
    if methods is None:
        return Refusal(404, f"there is no {path}: try {', '.join(ROUTES)}")
    method = request.method.decode("ascii")
    if method not in methods:
        allowed = ", ".join(methods)
        return Refusal(405, f"{path} is for {allowed}, not for {method}", ("Allow", allowed))
    return methods[method]()


class HttpProtocol(reactor.Protocol):
    """Serves one connection."""

    def __init__(self):
        super().__init__()
        self.http = h11.Connection(h11.SERVER)
        self.resource: Resource | None = None
        self.is_head = False
        self.lingers = False

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        statistics.connections += 1
        statistics.connections_total += 1

    def connection_lost(self):
        statistics.connections -= 1

    def data_received(self, data):
        statistics.bytes_received += len(data)
        if self.lingers:
            return reactor.CONTINUE
        try:
            self.http.receive_data(data)
            while self.http.our_state is not h11.MUST_CLOSE:
                event = self.http.next_event()
                if event is h11.NEED_DATA:
                    return reactor.WRITE_PENDING if self.write_buffer else reactor.CONTINUE
                self.handle(event)
        except h11.RemoteProtocolError as error:
            statistics.bad_requests += 1
            self.resource = Refusal(error.error_status_hint, str(error), ("Connection", "close"))
            self.respond()
        # The client is told that it was the last response. Either it has nothing more to say ...
        if self.http.their_state is h11.MUST_CLOSE:
            return reactor.CLOSE
        return self.linger()

    def handle(self, event):
        """Do what an event of h11 asks for."""
        match event:
            case h11.Data():
                self.resource.receive(event.data)
            case h11.Request():
                statistics.requests += 1
                self.is_head = event.method == b"HEAD"
                self.resource = route(event)
                if self.http.they_are_waiting_for_100_continue:
                    self.invite_body()
            case h11.EndOfMessage():
                self.respond()

    def invite_body(self):
        """Let a client go on that asked whether it shall send the body, or save it the trouble."""
        if self.resource.status == 200:
            self.send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))
        else:
            # Nobody knows whether it sends the body in spite of that, so there is no next request.
            self.resource.headers += (("Connection", "close"),)
            self.respond()

    def respond(self):
        """Write the response."""
        body = self.resource.answer()
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", self.resource.content_type),
            ("Content-Length", str(len(body))),
            *self.resource.headers,
        ]
        status = HTTPStatus(self.resource.status)
        self.send(h11.Response(status_code=status, headers=headers, reason=status.phrase))
        if not self.is_head:
            self.send(h11.Data(body))
        self.send(h11.EndOfMessage())
        self.resource = None
        self.is_head = False
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()

    def send(self, event):
        """Put an event of h11 into write_buffer, which the reactor writes."""
        data = self.http.send(event)
        statistics.bytes_sent += len(data)
        self.write_buffer += data

    def linger(self):
        """... or it may still be sending. To close now would make the kernel throw away the response
        that it has not read yet; so say that this is the end, and let it finish."""
        del self.write_buffer[: self.write(self.write_buffer)]
        if self.write_buffer:
            return reactor.CLOSE
        connection = socket.socket(fileno=self.fd)
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            return reactor.CLOSE
        finally:
            connection.detach()
        self.lingers = True
        return reactor.CONTINUE
