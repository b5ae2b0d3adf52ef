from collections.abc import Iterable, Mapping
from io import BufferedReader, RawIOBase
from os import PathLike
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from typing_extensions import Buffer

from _causeway import Pid
from erlang._channel import ByteChannel

__all__ = ["Completed", "Incomplete", "IncompleteOutput", "IncompleteTime", "Process", "open", "run"]

_Text: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
_File: TypeAlias = _Text | tuple[Literal["append"], _Text]

class Completed(NamedTuple):
    returncode: int
    stdout: bytes
    stderr: bytes

class Incomplete(RuntimeError):
    stdout: bytes
    stderr: bytes
    def __init__(self, text: str, stdout: bytes = b"", stderr: bytes = b"") -> None: ...

class IncompleteTime(Incomplete, TimeoutError): ...
class IncompleteOutput(Incomplete): ...

def open(
    command: _Text,
    arguments: Iterable[_Text] = (),
    *,
    stdin: _File | None = None,
    stdout: _File | None = None,
    stderr: _File | None = None,
    pty: tuple[int, int] | None = None,
    buffer: int = 65536,
    **options: Any,
) -> Process: ...
def run(
    command: _Text,
    arguments: Iterable[_Text] = (),
    *,
    input: Buffer = b"",
    timeout: float | None = None,
    max_output: int = 67108864,
    stdin: _File | None = None,
    stdout: _File | None = None,
    stderr: _File | None = None,
    **options: Any,
) -> Completed: ...

class Process:
    pid: int
    stdin_channel: ByteChannel | None
    stdout_channel: ByteChannel | None
    stderr_channel: ByteChannel | None
    def __init__(
        self, owner: Pid, pid: int, streams: Mapping[str, ByteChannel], ended: ByteChannel
    ) -> None: ...
    @property
    def stdin(self) -> RawIOBase | None: ...
    @property
    def stdout(self) -> BufferedReader | None: ...
    @property
    def stderr(self) -> BufferedReader | None: ...
    @property
    def returncode(self) -> int | None: ...
    @property
    def is_output_held(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> int | None: ...
    async def async_wait(self) -> int | None: ...
    async def async_communicate(self, data: Buffer = b"") -> tuple[bytes, bytes]: ...
    def send_signal(
        self, signal: int | str, target: Literal["process", "group", "tree"] = "process"
    ) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def resize(self, rows: int, columns: int) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, *_exception: type[BaseException] | BaseException | TracebackType | None
    ) -> None: ...
