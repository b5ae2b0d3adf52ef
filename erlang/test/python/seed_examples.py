"""The complete examples of the documentation that our reactor follows, word for word."""

import asyncio
import socket

import erlang.reactor as reactor


class EchoProtocol(reactor.Protocol):
    """Simple echo protocol - sends back whatever it receives."""

    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        print(f"Connection from {client_info.get('addr')}:{client_info.get('port')}")

    def data_received(self, data):
        """Echo received data back to client."""
        if not data:
            return "close"
        # Buffer the data for writing
        self.write_buffer.extend(data)
        return "write_pending"

    def write_ready(self):
        """Write buffered data."""
        if not self.write_buffer:
            return "read_pending"
        written = self.write(bytes(self.write_buffer))
        del self.write_buffer[:written]
        if self.write_buffer:
            return "continue"  # More to write
        return "read_pending"  # Done, wait for more input

    def connection_lost(self):
        print(f"Connection closed: fd={self.fd}")


class SimpleHTTPProtocol(reactor.Protocol):
    """Minimal HTTP/1.0 protocol."""

    def __init__(self):
        super().__init__()
        self.request_buffer = bytearray()

    def data_received(self, data):
        self.request_buffer.extend(data)
        # Check for end of headers
        if b"\r\n\r\n" in self.request_buffer:
            self.handle_request()
            return "write_pending"
        return "continue"

    def handle_request(self):
        """Parse request and prepare response."""
        request = self.request_buffer.decode("utf-8", errors="replace")
        first_line = request.split("\r\n")[0]
        method, path, _ = first_line.split(" ", 2)
        # Simple response
        body = f"Hello! You requested {path}"
        response = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: text/plain\r\n\r\n{body}"
        self.write_buffer.extend(response.encode())

    def write_ready(self):
        if not self.write_buffer:
            return "close"  # HTTP/1.0: close after response
        written = self.write(bytes(self.write_buffer))
        del self.write_buffer[:written]
        if self.write_buffer:
            return "continue"
        return "close"


class MyProtocol(reactor.Protocol):
    def data_received(self, data):
        # self.fd is the socket fd from Erlang
        self.write_buffer.extend(b"Got: " + data)
        return "write_pending"


async def handle_connection(fd: int):
    # Create socket from fd (Python takes ownership)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)

    # Use asyncio streams
    reader, writer = await asyncio.open_connection(sock=sock)

    data = await reader.read(1024)
    writer.write(b"Echo: " + data)
    await writer.drain()

    writer.close()
    await writer.wait_closed()


def handle_connection_sync(fd: int):
    """Sync wrapper for Erlang call."""
    asyncio.run(handle_connection(fd))


def connect_to(addr: str, port: int):
    sock = socket.create_connection((addr, port))
    # ... use socket
    with sock:
        sock.sendall(b"from Python")


class BufferProtocol(reactor.Protocol):
    """All operations that the documentation shows on what data_received() gets, and what they said."""

    def __init__(self):
        super().__init__()
        self.request_buffer = bytearray()
        self.seen = {}

    def data_received(self, data):
        # Buffer protocol - zero-copy access
        mv = memoryview(data)
        first_byte = mv[0]

        # Indexing and slicing
        header = data[0:4]
        last_byte = data[-1]

        # Bytes methods
        if data.startswith(b"GET"):
            method = "GET"
        pos = data.find(b"\r\n")
        count = data.count(b"/")

        # String conversion
        text = data.decode("utf-8")

        # Comparison
        if data == b"PING":
            self.write_buffer.extend(b"PONG")

        # Convert to bytes (creates a copy)
        data_copy = bytes(data)

        # 'in' operator
        if b"HTTP" in data:
            self.handle_http()

        # Length
        size = len(data)

        # Extend bytearray (uses buffer protocol)
        self.request_buffer.extend(data)

        # For maximum performance, use memoryview slicing for comparisons
        mv = data.memoryview()
        assert mv[:3] == b"GET"

        self.seen.update(
            first_byte=first_byte,
            header=header,
            last_byte=last_byte,
            method=method,
            pos=pos,
            count=count,
            text=text,
            data_copy=data_copy,
            size=size,
            request_buffer=bytes(self.request_buffer),
        )
        return "write_pending"

    def handle_http(self):
        self.write_buffer.extend(b"http")


def seen(fd):
    """What the protocol of a descriptor has seen, by get_protocol() as documented."""
    proto = reactor.get_protocol(fd)
    if proto:
        return f"Protocol state: {proto.client_info}", proto.seen
    return None
