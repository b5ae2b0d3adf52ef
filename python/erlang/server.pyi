import asyncio
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import TypeVar

_P = TypeVar("_P", bound=asyncio.BaseProtocol)

async def serve(
    listen_fd: int | socket.socket,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    *,
    ssl: SSLContext | None = None,
) -> asyncio.Server: ...
async def adopt(
    fd: int | socket.socket, protocol_factory: Callable[[], _P], *, ssl: SSLContext | None = None
) -> tuple[asyncio.Transport, _P]: ...
async def stop_serving(server: asyncio.AbstractServer) -> None: ...
