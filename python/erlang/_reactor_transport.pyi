import asyncio
from asyncio.base_events import Server
from socket import socket
from typing import Any

from _causeway import Protocol

class ReactorTransport(asyncio.BaseTransport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket,
        protocol: Protocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: Server | None = None,
    ) -> None: ...
    def get_protocol(self) -> Protocol: ...  # type: ignore[override]
    def abort(self) -> None: ...
