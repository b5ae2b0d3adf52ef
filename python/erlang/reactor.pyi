from typing import Final

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
    "set_protocol_factory",
    "signal_write_ready",
]

CONTINUE: Final = "continue"
WRITE_PENDING: Final = "write_pending"
READ_PENDING: Final = "read_pending"
CLOSE: Final = "close"
ASYNC_PENDING: Final = "async_pending"
