import asyncio
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import TypeVar

from erlang import reactor

_P = TypeVar("_P", bound=asyncio.BaseProtocol | reactor.Protocol)

async def serve(
    listen_fd: int | socket.socket,
    protocol_factory: Callable[[], asyncio.BaseProtocol | reactor.Protocol],
    *,
    ssl: SSLContext | None = None,
) -> asyncio.Server: ...
async def adopt(
    fd: int | socket.socket, protocol_factory: Callable[[], _P], *, ssl: SSLContext | None = None
) -> tuple[asyncio.BaseTransport, _P]: ...
async def stop_serving(server: asyncio.AbstractServer) -> None: ...
