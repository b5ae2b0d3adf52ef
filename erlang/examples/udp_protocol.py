"""A name server of the simplest kind, over UDP: `set NAME VALUE` and `get NAME`, one datagram each.

One protocol serves the whole socket: `data_received` gets one datagram, `peer` says from whom it is, and what
is in `write_buffer` goes there as one datagram. In a plain python3: `python3 udp_protocol.py 7777`, then
`nc -u 127.0.0.1 7777`. In Erlang: hand over the socket of `gen_udp:open`.
"""

import socket
import sys

from erlang import reactor


class NameProtocol(reactor.Protocol):
    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.values = {}

    def data_received(self, data):
        match bytes(data).split(None, 2):
            case [b"set", name, value]:
                self.values[name] = value.strip()
                self.write_buffer += b"ok"
            case [b"get", name]:
                self.write_buffer += self.values.get(name, b"unknown")
            case _:
                self.write_buffer += b"set NAME VALUE, or get NAME"
        return reactor.WRITE_PENDING


if __name__ == "__main__":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", int(sys.argv[1])))
        print("serving", reactor.serve(server, NameProtocol), flush=True)
    reactor.run()
