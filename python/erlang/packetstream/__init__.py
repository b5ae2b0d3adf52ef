"""Packet connections: requests and responses both ways over one stream of bytes, as ``cs.packetstream``
speaks.

    from erlang.packetstream import PacketConnection

    with PacketConnection(sock, request_handler=lambda rq_type, flags, payload: payload.upper()) as conn:
        ok, flags, payload = conn.do(1, payload=b"hello")

``python3 -m erlang.packetstream`` decodes captures and sends requests.
"""

from ._asyncio import AsyncPacketConnection
from ._connection import (
    DEFAULT_PACKET_GRACE,
    PacketChannel,
    PacketConnection,
    Request_State,
    RequestState,
    tick_fd_2,
)
from ._packet import DEFAULT_MAX_PACKET, Packet
from ._requests import BaseRequest, HasPacketConnection
from ._result import CancellationError, ClosedError, PacketConnectionError, Result

__all__ = [
    "DEFAULT_MAX_PACKET",
    "DEFAULT_PACKET_GRACE",
    "AsyncPacketConnection",
    "BaseRequest",
    "CancellationError",
    "ClosedError",
    "HasPacketConnection",
    "Packet",
    "PacketChannel",
    "PacketConnection",
    "PacketConnectionError",
    "RequestState",
    "Request_State",
    "Result",
    "tick_fd_2",
]
