from collections.abc import Iterable, Iterator
from typing import BinaryIO, ClassVar, Protocol, Self

from typing_extensions import Buffer

DEFAULT_MAX_PACKET: int

class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

class Packet:
    __slots__ = ("channel", "flags", "is_request", "payload", "rq_type", "tag")
    is_request: bool
    channel: int
    tag: int
    flags: int
    rq_type: int
    payload: bytes
    def __init__(
        self,
        *,
        is_request: bool,
        channel: int = 0,
        tag: int,
        flags: int = 0,
        rq_type: int | None = None,
        payload: bytes = b"",
    ) -> None: ...
    def __eq__(self, other: object) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __bytes__(self) -> bytes: ...
    def transcribe(self) -> Iterator[bytes]: ...
    def write(self, file: BinaryIO, flush: bool = False) -> int: ...
    @classmethod
    def parse(cls, bfr: _Readable | Buffer, *, max_packet: int = ...) -> Self: ...
    @classmethod
    def parse_bytes(cls, bs: Buffer, offset: int = 0, *, max_packet: int = ...) -> tuple[Self, int]: ...
    @classmethod
    def scan(cls, bfr: _Readable | Buffer | Iterable[Buffer], *, max_packet: int = ...) -> Iterator[Self]: ...
