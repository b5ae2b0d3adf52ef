"""The example's HTTP protocol, driven by hand on a socketpair; the client's grammar is h11's, too."""

import hashlib
import json
import socket
import sys
import tracemalloc
from pathlib import Path

import pytest

h11 = pytest.importorskip("h11")
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "erlang/examples"))

from http_protocol import HttpProtocol, statistics  # noqa: E402

from erlang import reactor  # noqa: E402

HOST = b"Host: localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture
def http(connect):
    return connect(HttpProtocol, addr="127.0.0.1", port=1)


def parse(data, *methods):
    """The responses in the data, to requests with these methods: pairs of h11's event and the body."""
    client = h11.Connection(h11.CLIENT)
    client.receive_data(data)
    responses = []
    for method in methods:
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        event = client.next_event()
        while isinstance(event, h11.InformationalResponse):
            event = client.next_event()
        assert isinstance(event, h11.Response), event
        body = b""
        while isinstance(part := client.next_event(), h11.Data):
            body += part.data
        assert isinstance(part, h11.EndOfMessage), part
        responses.append((event, body))
        if client.our_state is h11.DONE:
            client.start_next_cycle()
    assert client.trailing_data[0] == b""
    return responses


def ask(http, request, method=b"GET"):
    """Send one request; return status, headers and body."""
    [(response, body)] = parse(http.ask(request), method)
    return response.status_code, dict(response.headers), body


def post(body, *headers):
    head = b"POST /sha256 HTTP/1.1\r\n" + HOST + b"".join(header + b"\r\n" for header in headers)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def digest(data):
    return f"{hashlib.sha256(data).hexdigest()}\n".encode()


def test_hello(http):
    status, headers, body = ask(http, GET)
    assert status == 200
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert b"date" in headers
    assert body.startswith(b"Hello from Python ")


def test_keep_alive(http):
    for size in range(20):
        assert ask(http, GET)[0] == 200
        assert ask(http, post(b"x" * size), b"POST")[2] == digest(b"x" * size)


def test_pipelining(http):
    request = GET + post(b"abc") + b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n" + GET
    responses = parse(http.ask(request * 50), *[b"GET", b"POST", b"HEAD", b"GET"] * 50)
    assert len(responses) == 200
    assert all(response.status_code == 200 for response, _ in responses)
    assert responses[1][1] == digest(b"abc")


def test_byte_by_byte(http):
    data = b""
    for byte in GET + post(b"abc", b"Connection: close"):
        http.client.sendall(bytes([byte]))
        last = http.pump()
    data = http.client.recv(10_000)
    assert [body for _, body in parse(data, b"GET", b"POST")][1] == digest(b"abc")
    assert last == "close"


def test_head(http):
    status, headers, body = ask(http, b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", b"HEAD")
    assert (status, body) == (200, b"")
    assert int(headers[b"content-length"]) == len(ask(http, GET)[2])
    assert ask(http, b"HEAD /none HTTP/1.1\r\n" + HOST + b"\r\n", b"HEAD")[0] == 404
    assert ask(http, b"HEAD /sha256 HTTP/1.1\r\n" + HOST + b"\r\n", b"HEAD")[0] == 405
    assert ask(http, GET)[0] == 200


def test_chunked_body(http):
    head = b"POST /sha256 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    request = head + b"3\r\nabc\r\n" + b"5;ext=1\r\nde" + b"fgh\r\n0\r\nTrailer: x\r\n\r\n"
    assert ask(http, request, b"POST")[2] == digest(b"abcdefgh")
    assert ask(http, head + b"0\r\n\r\n", b"POST")[2] == digest(b"")


def test_a_large_body_in_flat_memory(connect):
    http = connect(HttpProtocol)
    size, block = 64 << 20, bytes(65536)
    http.protocol.data_received(post(b"").replace(b"Length: 0", b"Length: %d" % size))
    tracemalloc.start()
    try:
        expected = hashlib.sha256()
        for _ in range(size // len(block)):
            action = reactor.on_read_ready(http.fd, block)
            expected.update(block)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert action == "write_pending"
    assert expected.hexdigest().encode() in http.protocol.write_buffer


def test_expect_continue(http):
    head, body = post(b"abc", b"Expect: 100-continue").split(b"\r\n\r\n")
    assert http.ask(head + b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert ask(http, body, b"POST")[2] == digest(b"abc")
    # Who sends the body at once is not told to.
    assert ask(http, post(b"x", b"Expect: 100-continue") + b"", b"POST")[2] == digest(b"x")


def test_expect_continue_in_vain(http):
    request = b"POST /none HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    status, headers, _ = ask(http, request, b"POST")
    assert status == 404
    assert headers[b"connection"] == b"close"
    http.client.sendall(b"abc" + GET)
    assert http.pump() == "continue"
    assert http.client.recv(100) == b""


def test_unknown_paths(http):
    for target in (b"/none", b"*", b"/sha256/", b"//", b"/%2f", b"none"):
        status, headers, body = ask(http, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        assert status in (404, 200 if target == b"//" else 404), target
        assert b"connection" not in headers
        assert body


def test_paths_with_more(http):
    for target in (b"/?a=1", b"http://localhost/", b"http://localhost", b"/#x"):
        assert ask(http, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")[0] == 200


def test_wrong_methods(http):
    for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get", b"X"):
        request = method + b" / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"
        status, headers, _ = ask(http, request, method)
        assert (status, headers[b"allow"]) == (405, b"GET, HEAD")
    status, headers, _ = ask(http, GET.replace(b"/ ", b"/sha256 "))
    assert (status, headers[b"allow"]) == (405, b"POST")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (GET.replace(HOST, b"Host: a\r\nHost: b\r\n"), 400),
        (GET.replace(HOST, HOST + b"Content-Length: -1\r\n"), 400),
        (GET.replace(HOST, HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
        (GET.replace(HOST, HOST + b"No colon\r\n"), 400),
        (GET.replace(HOST, HOST + b"Transfer-Encoding: gzip\r\n"), 501),
        (GET.replace(HOST, HOST + b"X: " + b"x" * 100_000 + b"\r\n"), 431),
        (post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"x\r\n", 400),
        (b"HEAD / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    ],
)
def test_bad_requests(http, request_, status):
    [(response, _)] = parse(http.ask(request_), b"HEAD" if request_.startswith(b"HEAD") else b"GET")
    assert response.status_code == status
    assert dict(response.headers)[b"connection"] == b"close"
    # Nothing that follows is served.
    while http.protocol.read():
        pass
    http.client.sendall(GET)
    assert http.pump() == "continue"
    assert http.client.recv(100) == b""
    http.client.shutdown(socket.SHUT_WR)
    assert http.pump() == "close"


def test_a_bad_request_after_good_ones(http):
    responses = parse(http.ask(GET + GET + b"garbage\r\n\r\n"), b"GET", b"GET", b"GET")
    assert [response.status_code for response, _ in responses] == [200, 200, 400]


def test_a_target_that_is_no_url(http):
    status, headers, _ = ask(http, b"GET http://[ HTTP/1.1\r\n" + HOST + b"\r\n")
    assert status == 400
    assert b"connection" not in headers


def test_closing(http):
    request = GET.replace(HOST, HOST + b"Connection: close\r\n")
    http.client.sendall(request + GET)
    assert http.pump() == "close"
    [(response, _)] = parse(http.client.recv(10_000), b"GET")
    assert dict(response.headers)[b"connection"] == b"close"


def test_http_1_0(http):
    http.client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert http.pump() == "close"
    assert parse(http.client.recv(10_000), b"GET")[0][0].status_code == 200


def test_an_upgrade_that_is_declined(http):
    request = GET.replace(HOST, HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n")
    assert ask(http, request)[0] == 200
    assert ask(http, GET)[0] == 200


def test_stats(http):
    def stats():
        status, headers, body = ask(http, GET.replace(b"/ ", b"/stats "))
        assert (status, headers[b"content-type"]) == (200, b"application/json")
        return json.loads(body)

    before = stats()
    assert before["connections"] >= 1
    http.ask(GET)
    after = stats()
    assert after["requests"] - before["requests"] == 2
    assert after["bytes_received"] > before["bytes_received"]
    assert after["bytes_sent"] > before["bytes_sent"]
    assert after["bad_requests"] == before["bad_requests"]
    http.ask(b"garbage\r\n\r\n")
    assert statistics.bad_requests == after["bad_requests"] + 1


def test_connections_are_counted(connect):
    before = statistics.connections
    http = connect(HttpProtocol)
    assert statistics.connections == before + 1
    reactor.close_connection(http.fd)
    assert statistics.connections == before


def test_a_client_that_does_not_read(connect):
    """What is not read piles up no further than one read's worth of responses."""
    http = connect(HttpProtocol)
    http.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            http.client.send(GET * 100)
            http.pump()
    assert len(http.protocol.write_buffer) < 1 << 20
