from collections.abc import Callable, Mapping
from os import PathLike
from socket import socket
from typing import Any, Final

from _causeway import Protocol as Protocol
from _causeway import ReactorBuffer as ReactorBuffer
from _causeway import close_connection as close_connection
from _causeway import get_protocol as get_protocol
from _causeway import init_connection as init_connection
from _causeway import on_read_ready as on_read_ready
from _causeway import on_write_ready as on_write_ready
from _causeway import set_protocol_factory as set_protocol_factory
from _causeway import signal_write_ready as signal_write_ready

__all__ = [
    "ASYNC_PENDING",
    "CLOSE",
    "CONTINUE",
    "READ_PENDING",
    "WRITE_PENDING",
    "Protocol",
    "ReactorBuffer",
    "close_connection",
    "get_protocol",
    "init_connection",
    "on_read_ready",
    "on_write_ready",
    "run",
    "serve",
    "set_protocol_factory",
    "signal_write_ready",
    "stop",
]

CONTINUE: Final = "continue"
WRITE_PENDING: Final = "write_pending"
READ_PENDING: Final = "read_pending"
CLOSE: Final = "close"
ASYNC_PENDING: Final = "async_pending"

def serve(
    where: tuple[str, int] | str | bytes | PathLike[str] | socket | int,
    factory: Callable[[], Protocol] | None = None,
    /,
    *,
    client_info: Mapping[str, Any] | None = None,
    max_connections: int = 10_000,
    backlog: int = 1024,
) -> Any: ...
def run() -> None: ...
def stop() -> None: ...
