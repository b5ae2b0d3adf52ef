import asyncio
from asyncio.base_events import Server
from collections.abc import Callable
from socket import socket
from typing import Any

class StreamTransport(asyncio.Transport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: Server | None = None,
    ) -> None: ...
    def __del__(self, _warn: Any = ...) -> None: ...

class ReadPipeTransport(asyncio.ReadTransport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None: ...
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

class WritePipeTransport(asyncio.WriteTransport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None: ...
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

class DatagramTransport(asyncio.DatagramTransport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None: ...
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

def name_of(ask: Callable[[], Any]) -> Any: ...
def attach(server: Server, transport: asyncio.BaseTransport) -> None: ...
def detach(server: Server, transport: asyncio.BaseTransport) -> None: ...
