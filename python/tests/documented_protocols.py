"""The protocols and the actions of the reactor's documentation, for several suites."""

from erlang import reactor

ACTIONS = ["continue", "write_pending", "read_pending", "async_pending", "close"]


class Echo(reactor.Protocol):
    """The complete example of the reactor's documentation."""

    lost = 0

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)

    def data_received(self, data):
        if not data:
            return "close"
        self.write_buffer.extend(data)
        return "write_pending"

    def write_ready(self):
        if not self.write_buffer:
            return "read_pending"
        written = self.write(bytes(self.write_buffer))
        del self.write_buffer[:written]
        if self.write_buffer:
            return "continue"
        return "read_pending"

    def connection_lost(self):
        self.lost += 1


class SimpleHTTP(reactor.Protocol):
    """The documentation's HTTP example."""

    def __init__(self):
        super().__init__()
        self.request_buffer = bytearray()

    def data_received(self, data):
        self.request_buffer.extend(data)
        if b"\r\n\r\n" in self.request_buffer:
            self.handle_request()
            return "write_pending"
        return "continue"

    def handle_request(self):
        request = self.request_buffer.decode("utf-8", errors="replace")
        _method, path, _ = request.split("\r\n")[0].split(" ", 2)
        body = f"Hello! You requested {path}"
        self.write_buffer.extend(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def write_ready(self):
        if not self.write_buffer:
            return "close"
        written = self.write(bytes(self.write_buffer))
        del self.write_buffer[:written]
        return "continue" if self.write_buffer else "close"
