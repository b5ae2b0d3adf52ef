"""Packets, and the bytes they are."""

import _causeway

DEFAULT_MAX_PACKET = 64 << 20


class Packet:
    """One packet, as it is on the wire.

    Request types there are one higher than those of :meth:`PacketConnection.request`: 0 is of control
    packets. The lowest bit of a response's flags says whether all went well. A response has no attribute
    ``rq_type``.

    Attributes: ``is_request``, a bool; ``channel``, ``tag`` and ``rq_type``, numbers of up to 64 bits;
    ``flags``, of up to 62; ``payload``, bytes.
    """

    __slots__ = ("channel", "flags", "is_request", "payload", "rq_type", "tag")

    def __init__(self, *, is_request, channel=0, tag, flags=0, rq_type=None, payload=b""):
        """A packet from its parts.

        Raises ValueError for a request without a type, and a response with one.
        """
        self.is_request = is_request
        self.channel = channel
        self.tag = tag
        self.flags = flags
        self.payload = payload
        if is_request:
            if rq_type is None:
                raise ValueError("a request has an rq_type")
            self.rq_type = rq_type
        elif rq_type is not None:
            raise ValueError("a response has no rq_type")

    def __eq__(self, other):
        if not isinstance(other, Packet):
            return NotImplemented
        return self._parts() == other._parts()

    def _parts(self):
        is_request = bool(self.is_request)
        rq_type = self.rq_type if is_request else None
        return is_request, self.channel, self.tag, self.flags, rq_type, bytes(self.payload)

    def __str__(self):
        payload = bytes(self.payload[:16])
        more = "..." if len(self.payload) > 16 else ""
        return (
            f"{type(self).__name__}(is_request={bool(self.is_request)},channel={self.channel},tag={self.tag},"
            f"flags=0x{self.flags:02x},payload={payload!r}{more})"
        )

    __repr__ = __str__

    def __bytes__(self):
        return b"".join(self.transcribe())

    def transcribe(self):
        """Its bytes, in pieces. Raises ValueError for a number that packets cannot have."""
        rq_type = self.rq_type if self.is_request else 0
        yield _causeway._packet_head(
            self.is_request, self.channel, self.tag, self.flags, rq_type, len(self.payload)
        )
        if self.payload:
            yield bytes(self.payload)

    def write(self, file, flush=False):
        """Write it to a binary file. Returns how many bytes it has."""
        size = 0
        for piece in self.transcribe():
            file.write(piece)
            size += len(piece)
        if flush:
            file.flush()
        return size

    @classmethod
    def parse(cls, bfr, *, max_packet=DEFAULT_MAX_PACKET):
        """The next packet of a binary file, or the one at the beginning of something bytes-like.

        Nothing behind the packet is read. Raises EOFError where the stream ends before it is there as a
        whole, ValueError where it is malformed or longer than ``max_packet`` bytes.
        """
        if not hasattr(bfr, "read"):
            return cls.parse_bytes(bfr, max_packet=max_packet)[0]
        data = bytearray()
        while isinstance(found := _causeway._packet_parse(data, 0, max_packet), int):
            piece = bfr.read(found - len(data))
            if not piece:
                raise EOFError(f"the stream ended {'inside' if data else 'before'} a packet")
            data += piece
        return cls._from(found, data)

    @classmethod
    def parse_bytes(cls, bs, offset=0, *, max_packet=DEFAULT_MAX_PACKET):
        """The packet at an offset, and the offset behind it. Raises as :meth:`parse`."""
        found = _causeway._packet_parse(bs, offset, max_packet)
        if isinstance(found, int):
            raise EOFError(f"the bytes end inside a packet: {found} are needed, {len(bs) - offset} are there")
        return cls._from(found, bs), found[6]

    @classmethod
    def scan(cls, bfr, *, max_packet=DEFAULT_MAX_PACKET):
        """All packets of a binary file, of something bytes-like, or of an iterable of such.

        Raises as :meth:`parse`.
        """
        data = b""
        needed = 1
        for piece in _pieces(bfr):
            data = data + bytes(piece) if data else bytes(piece)
            if len(data) < needed:
                continue
            offset = 0
            while not isinstance(found := _causeway._packet_parse(data, offset, max_packet), int):
                yield cls._from(found, data)
                offset = found[6]
            data = data[offset:]
            needed = found
        if data:
            raise EOFError("the stream ended inside a packet")

    @classmethod
    def _from(cls, found, data):
        is_request, channel, tag, flags, rq_type, start, end = found
        return cls(
            is_request=is_request,
            channel=channel,
            tag=tag,
            flags=flags,
            rq_type=rq_type if is_request else None,
            payload=bytes(memoryview(data)[start:end]),
        )


def _pieces(bfr):
    if isinstance(bfr, bytes | bytearray | memoryview):
        yield bfr
    elif read := getattr(bfr, "read1", None) or getattr(bfr, "read", None):
        while data := read(65536):
            yield data
    else:
        yield from bfr
