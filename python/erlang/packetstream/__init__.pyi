from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from os import PathLike
from socket import socket
from types import TracebackType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeAlias

from typing_extensions import Buffer

import erlang
from _causeway import _PacketResult

from ._packet import DEFAULT_MAX_PACKET, Packet, _Readable

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

DEFAULT_PACKET_GRACE: float

class _Writable(Protocol):
    def write(self, data: Any, /) -> Any: ...

_Recv: TypeAlias = (
    int | str | PathLike[str] | socket | _Readable | erlang.ByteChannel | Buffer | Iterable[Buffer]
)
_Send: TypeAlias = int | socket | _Writable | erlang.ByteChannel
_Ends: TypeAlias = tuple[_Recv, _Send]
_OpenEnds: TypeAlias = Callable[[], _Ends | tuple[_Recv, _Send, Callable[[], object]]]
_Answer: TypeAlias = int | bytes | str | tuple[int, bytes] | list[int | bytes] | None
_Handler: TypeAlias = Callable[[int, int, bytes], _Answer] | Callable[[int, int, bytes], Awaitable[_Answer]]
_Decode: TypeAlias = Callable[[int, bytes], object] | None
_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
_Response: TypeAlias = tuple[bool, int, Any]

class CancellationError(Exception): ...
class ClosedError(Exception): ...
class PacketConnectionError(ConnectionError): ...

def tick_fd_2(bs: Buffer) -> None: ...

class Request_State(NamedTuple):
    decode_response: _Decode
    result: Result

RequestState = Request_State

class Result(_PacketResult):
    __slots__ = ()
    @property
    def is_cancelled(self) -> bool: ...
    @property
    def state(self) -> Literal["PENDING", "DONE", "CANCELLED"]: ...
    @property
    def result(self) -> _Response: ...
    @property
    def exc_info(self) -> _ExcInfo | None: ...
    def join(self, timeout: float | None = None) -> tuple[_Response | None, _ExcInfo | None]: ...
    def get(self, default: Any = None) -> Any: ...
    def notify(self, notifier: Callable[[Result], object]) -> None: ...
    def __await__(self) -> Generator[Any, None, _Response]: ...

class PacketConnection:
    EOF_Packet: ClassVar[Packet]
    ERQ_Packet: ClassVar[Packet]
    name: str
    request_handler: _Handler | None
    packet_grace: float | None
    timeout: float | None
    close_timeout: float
    closed: bool
    notify_recv_eof: set[Callable[[PacketConnection], object]]
    notify_send_eof: set[Callable[[PacketConnection], object]]
    def __init__(
        self,
        recv: _Recv | _Ends | _OpenEnds,
        send: _Send | str | None = None,
        request_handler: _Handler | None = None,
        name: str | None = None,
        packet_grace: float | None = None,
        tick: bool | Callable[[bytes], object] | None = None,
        recv_len_func: object = None,
        send_len_func: object = None,
        *,
        trace_log: object = None,
        workers: int = 4,
        loop: AbstractEventLoop | None = None,
        timeout: float | None = None,
        max_packet: int = ...,
        max_outstanding: int | None = 65536,
        send_window: int = ...,
        max_requests: int = 1024,
        receive_window: int = ...,
        keepalive: float | None = None,
        close_timeout: float = 10.0,
    ) -> None: ...
    def open(self) -> Self: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...
    def __del__(self, _warn: Callable[..., None] = ...) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def join_recv(self, timeout: float | None = None) -> None: ...
    def send_eof(self) -> None: ...
    def send_erq(self) -> None: ...
    @property
    def requests_allowed(self) -> bool: ...
    @property
    def end(self) -> str | None: ...
    def info(self) -> dict[str, int]: ...
    def request(
        self,
        rq_type: int,
        flags: int = 0,
        payload: Buffer = b"",
        decode_response: _Decode = None,
        channel: int = 0,
        *,
        timeout: float | None = None,
    ) -> Result: ...
    def do(
        self,
        rq_type: int,
        flags: int = 0,
        payload: Buffer = b"",
        decode_response: _Decode = None,
        channel: int = 0,
        *,
        timeout: float | None = None,
    ) -> _Response: ...
    def submit(
        self,
        rq_type: int,
        flags: int = 0,
        payload: Buffer = b"",
        *,
        decode_response: _Decode = None,
        channel: int = 0,
        label: object = None,
        timeout: float | None = None,
    ) -> Result: ...
    def __call__(
        self,
        rq_type: int,
        payload: Buffer = b"",
        flags: int = 0,
        *,
        decode_response: _Decode = None,
        channel: int = 0,
        label: object = None,
        timeout: float | None = None,
    ) -> _Response: ...
    def open_channel(self, channel: int, request_handler: _Handler | None = None) -> PacketChannel: ...
    def close_channel(self, channel: int) -> None: ...

class PacketChannel:
    connection: PacketConnection
    channel: int
    def __init__(self, connection: PacketConnection, channel: int) -> None: ...
    def request(
        self,
        rq_type: int,
        flags: int = 0,
        payload: Buffer = b"",
        decode_response: _Decode = None,
        *,
        timeout: float | None = None,
    ) -> Result: ...
    def do(
        self,
        rq_type: int,
        flags: int = 0,
        payload: Buffer = b"",
        decode_response: _Decode = None,
        *,
        timeout: float | None = None,
    ) -> _Response: ...
    def close(self) -> None: ...

class AsyncPacketConnection:
    EOF_Packet: ClassVar[Packet]
    ERQ_Packet: ClassVar[Packet]
    def __init__(
        self,
        recv: _Recv | _Ends | _OpenEnds,
        send: _Send | str | None = None,
        request_handler: _Handler | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None: ...
    async def open(self) -> Self: ...
    async def close(self) -> None: ...
    def abort(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_exception: object) -> None: ...
    async def request(
        self,
        rq_type: int,
        flags: int = 0,
        payload: Buffer = b"",
        decode_response: _Decode = None,
        channel: int = 0,
        *,
        timeout: float | None = None,
    ) -> Result: ...
    async def do(
        self,
        rq_type: int,
        flags: int = 0,
        payload: Buffer = b"",
        decode_response: _Decode = None,
        channel: int = 0,
        *,
        timeout: float | None = None,
    ) -> _Response: ...
    async def join(self) -> None: ...
    def open_channel(self, channel: int, request_handler: _Handler | None = None) -> None: ...
    def close_channel(self, channel: int) -> None: ...
    def send_eof(self) -> None: ...
    def send_erq(self) -> None: ...
    def info(self) -> dict[str, int]: ...
    @property
    def closed(self) -> bool: ...
    @property
    def end(self) -> str | None: ...

class BaseRequest:
    flags: int
    def __init__(self, flags: int = 0, **attributes: Any) -> None: ...
    def __bytes__(self) -> bytes: ...
    @classmethod
    def from_request_payload(cls, flags: int, payload: bytes) -> Self: ...
    def fulfil(self, context: Any) -> _Answer: ...
    def decode_response_payload(self, flags: int, payload: bytes) -> Any: ...

class HasPacketConnection:
    conn: PacketConnection
    rq_type_map: dict[int, type[BaseRequest]]
    rq_type_by_class: dict[type[BaseRequest], int]
    def __init__(
        self,
        recv_send: _Recv | _Ends | _OpenEnds,
        name: str | None = None,
        *,
        rq_type_map: Mapping[int, type[BaseRequest]],
        **packet_kw: Any,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...
    def conn_submit(self, rq: BaseRequest, *, channel: int = 0, label: object = None) -> Result: ...
    def conn_do_remote(self, rq: BaseRequest, *, channel: int = 0, label: object = None) -> Any: ...
    def conn_handle_request(self, rq_type: int, flags: int, payload: bytes) -> _Answer: ...
