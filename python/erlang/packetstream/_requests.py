"""Requests as classes, for connections that know which class a request type is."""

from ._connection import PacketConnection


class BaseRequest:
    """A request of some kind: a subclass says what is in its payload, and what is done to fulfil it."""

    def __init__(self, flags=0, **attributes):
        self.flags = flags
        for name, value in attributes.items():
            setattr(self, name, value)

    def __bytes__(self):
        """The payload of the request; nothing unless a subclass says otherwise."""
        return b""

    @classmethod
    def from_request_payload(cls, flags, payload):
        """The request that came with these flags and this payload; without a payload unless a subclass
        reads one.
        """
        return cls(flags)

    def fulfil(self, context):
        """Do what is asked, for the :class:`HasPacketConnection` that got it, and return as a request
        handler does.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it is fulfilled")

    def decode_response_payload(self, flags, payload):
        """What the payload of a good response means."""
        return payload


class HasPacketConnection:
    """Something with a connection, ``conn``, whose requests are instances of classes.

    ``rq_type_map`` says which class each request type is; the other keywords are those of
    :class:`PacketConnection`. Entering and leaving it opens and closes the connection.
    """

    def __init__(self, recv_send, name=None, *, rq_type_map, **packet_kw):
        self.rq_type_map = dict(rq_type_map)
        self.rq_type_by_class = {kind: rq_type for rq_type, kind in self.rq_type_map.items()}
        if isinstance(recv_send, tuple) or not callable(recv_send):
            self.conn = PacketConnection(
                recv_send, name=name, request_handler=self.conn_handle_request, **packet_kw
            )
        else:
            self.conn = PacketConnection(recv_send, None, self.conn_handle_request, name, **packet_kw)

    def __enter__(self):
        self.conn.open()
        return self

    def __exit__(self, *_exception):
        self.conn.close()

    def conn_submit(self, rq, *, channel=0, label=None):
        """Make a request, and return its :class:`Result`.

        Raises TypeError where its class is not in the map.
        """
        rq_type = self.rq_type_by_class.get(type(rq))
        if rq_type is None:
            raise TypeError(f"{type(rq).__name__} is not in rq_type_map")
        return self.conn.submit(
            rq_type,
            rq.flags,
            bytes(rq),
            decode_response=rq.decode_response_payload,
            channel=channel,
            label=label,
        )

    def conn_do_remote(self, rq, *, channel=0, label=None):
        """Make a request, wait, and return what its payload means.

        Raises ValueError where the peer has failed.
        """
        ok, flags, payload = self.conn_submit(rq, channel=channel, label=label)()
        if not ok:
            raise ValueError(
                f"the peer could not fulfil {type(rq).__name__}: flags={flags}, payload={payload!r}"
            )
        return payload

    def conn_handle_request(self, rq_type, flags, payload):
        """What the connection does with a request of the peer."""
        kind = self.rq_type_map.get(rq_type)
        if kind is None:
            raise ValueError(f"no class in rq_type_map for the request type {rq_type}")
        return kind.from_request_payload(flags, payload).fulfil(self)
