from typing import Any

from _causeway import Atom as Atom
from _causeway import CallInterrupted as CallInterrupted
from _causeway import Pid as Pid
from _causeway import Ref as Ref
from _causeway import Term as Term
from _causeway import in_beam as in_beam
from _causeway import self as self
from _causeway import send as send
from _causeway import whereis as whereis
from erlang._callbacks import ErlangError as ErlangError
from erlang._callbacks import call as call
from erlang._channel import ByteChannel as ByteChannel
from erlang._channel import ByteChannelAborted as ByteChannelAborted
from erlang._channel import ByteChannelBusy as ByteChannelBusy
from erlang._channel import ByteChannelClosed as ByteChannelClosed
from erlang._loop import EventLoop as EventLoop
from erlang._loop import EventLoopPolicy as EventLoopPolicy
from erlang._loop import async_call as async_call
from erlang._loop import new_event_loop as new_event_loop
from erlang._loop import run as run
from erlang._loop import sleep as sleep

__all__ = [
    "Atom",
    "ByteChannel",
    "ByteChannelAborted",
    "ByteChannelBusy",
    "ByteChannelClosed",
    "CallInterrupted",
    "ErlangError",
    "EventLoop",
    "EventLoopPolicy",
    "Pid",
    "Ref",
    "Term",
    "async_call",
    "atom",
    "call",
    "in_beam",
    "new_event_loop",
    "run",
    "self",
    "send",
    "sleep",
    "whereis",
]
__version__: str

def atom(name: str) -> Atom: ...
def __getattr__(name: str) -> Any: ...
