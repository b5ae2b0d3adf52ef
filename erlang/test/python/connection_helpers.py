"""The Python ends of packet connections: in the node by functions, and as a program of its own."""

import os
import socket
import sys
import threading

from erlang.packetstream import CancellationError, PacketConnection

held = []


# In the node


def start(receive, send):
    connection = PacketConnection(
        receive, send, request_handler=lambda rq_type, flags, payload: bytes(payload)[::-1]
    )
    connection.open()
    held.append(connection)


def ask(rq_type, payload):
    return held[-1].do(rq_type, payload=payload, timeout=20)


def finish():
    held.pop().close()


def wait_for_end():
    connection = held.pop()
    connection.join()
    connection.close()
    return True


# As a program


def serve_request(rq_type, flags, payload):
    if rq_type == 1:
        return bytes(payload).upper()
    if rq_type == 2:
        return flags + 1
    if rq_type == 3:
        raise ValueError("as asked")
    threading.Event().wait()


def serve(sock):
    with PacketConnection(sock, request_handler=serve_request) as connection:
        connection.join()


def ask_erlang(sock):
    with PacketConnection(sock) as connection:
        assert connection.do(1, 5, b"abc") == (True, 5, b"ABC")
        assert connection.do(2) == (False, 3, b"no")
        assert connection.do(3) == (False, 0, b"exception during handler")
        results = [connection.request(1, payload=b"%d" % number) for number in range(500)]
        assert [result() for result in results] == [(True, 0, b"%d" % number) for number in range(500)]
        large = b"A" * 3_000_000
        assert connection.do(1, payload=large) == (True, 0, large)


def ask_back(sock):
    def handler(rq_type, flags, payload):
        ok, _, answer = connection.do(rq_type - 1, payload=payload)
        assert ok
        return bytes(answer) + b"%d " % rq_type

    connection = PacketConnection(sock, request_handler=handler, workers=32)
    with connection:
        connection.join()


def die(sock):
    """Answers one request, and is gone when three more have come."""
    asked = []

    def handler(rq_type, flags, payload):
        if rq_type == 4:
            asked.append(rq_type)
            if len(asked) == 3:
                os._exit(0)
            threading.Event().wait()

    with PacketConnection(sock, request_handler=handler) as connection:
        connection.join()


def close(sock):
    """The same with a close in good order, but handlers that never end."""
    asked = threading.Semaphore(0)

    def handler(rq_type, flags, payload):
        if rq_type == 4:
            asked.release()
            threading.Event().wait()

    connection = PacketConnection(sock, request_handler=handler, close_timeout=0.1)
    connection.open()
    for _ in range(3):
        asked.acquire()
    connection.close()
    os._exit(0)  # the handlers still wait


def wait(sock):
    """Each of three requests ends with the connection."""
    connection = PacketConnection(sock)
    connection.open()
    results = [connection.request(1) for _ in range(3)]
    for result in results:
        try:
            result()
        except (CancellationError, ConnectionError):
            continue
        raise AssertionError("an answer")
    connection.close()


def channels(sock):
    def handler(rq_type, flags, payload):
        _, _, answer = channel.do(rq_type, payload=payload)
        return bytes(answer) + b" of Python"

    connection = PacketConnection(sock)
    channel = connection.open_channel(5, handler)
    with connection:
        connection.join()


def results(sock):
    values = [None, 17, True, b"bytes", "text \udc80", (3, b"both"), 1.5, (1, "text"), ("text", b"bytes")]
    with PacketConnection(
        sock, request_handler=lambda rq_type, flags, payload: values[rq_type]
    ) as connection:
        connection.join()


def keepalive(sock):
    with PacketConnection(sock, request_handler=lambda *_: None, keepalive=0.2) as connection:
        connection.join()


ROLES = {
    "serve": serve,
    "ask": ask_erlang,
    "back": ask_back,
    "die": die,
    "close": close,
    "wait": wait,
    "channels": channels,
    "results": results,
    "keepalive": keepalive,
}

if __name__ == "__main__":
    # With a port over a connection to it, else over standard input and output.
    if len(sys.argv) > 2:
        ROLES[sys.argv[1]](socket.create_connection(("127.0.0.1", int(sys.argv[2]))))
    else:
        ROLES[sys.argv[1]]((0, 1))
