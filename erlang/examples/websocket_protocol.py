"""A WebSocket echo; the library wsproto knows the grammar, the reactor moves the bytes.

In a plain python3: `python3 websocket_protocol.py 7777`, then in a browser's console
`ws = new WebSocket("ws://127.0.0.1:7777"); ws.onmessage = e => console.log(e.data)` and `ws.send("hi")`.
"""

import sys

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage
from wsproto.utilities import RemoteProtocolError

from erlang import reactor


class WebSocketProtocol(reactor.Protocol):
    def connection_made(self, fd, client_info):
        super().connection_made(fd, client_info)
        self.socket = WSConnection(ConnectionType.SERVER)

    def data_received(self, data):
        try:
            self.socket.receive_data(bytes(data))
            return self.handle_events()
        except RemoteProtocolError as error:
            if error.event_hint is not None:
                self.send(error.event_hint)
            return reactor.CLOSE

    def handle_events(self):
        for event in self.socket.events():
            match event:
                case Request():
                    self.send(AcceptConnection())
                case TextMessage() | BytesMessage():
                    self.send(type(event)(data=event.data, message_finished=event.message_finished))
                case Ping():
                    self.send(event.response())
                case CloseConnection():
                    self.send(event.response())
                    return reactor.CLOSE
        return reactor.WRITE_PENDING

    def send(self, event):
        self.write_buffer += self.socket.send(event)


if __name__ == "__main__":
    print("serving", reactor.serve(("127.0.0.1", int(sys.argv[1])), WebSocketProtocol), flush=True)
    reactor.run()
