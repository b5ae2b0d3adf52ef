"""An echo server: what a client sends comes back.

In a plain python3: `python3 echo_protocol.py 7777`, then `nc 127.0.0.1 7777`. In Erlang:
`py_reactor_context:start_link(1, worker, #{factory => {echo_protocol, 'EchoProtocol'}})`, and a handoff.
"""

import sys

from erlang import reactor


class EchoProtocol(reactor.Protocol):
    def data_received(self, data):
        self.write_buffer.extend(data)
        return reactor.WRITE_PENDING


if __name__ == "__main__":
    print("serving", reactor.serve(("127.0.0.1", int(sys.argv[1])), EchoProtocol), flush=True)
    reactor.run()
