"""Erlang and Python in one process, joined by byte streams.

Inside the BEAM, where the OTP application ``causeway`` runs this Python, the functions here talk to
Erlang. In a plain ``python3`` what needs a BEAM raises ``RuntimeError``, and everything else works:
the protocols of ``erlang.reactor`` can be driven by hand there.

``CallInterrupted`` is raised inside a call whose Erlang caller has given it up. It is no ``Exception``,
so that ``except Exception`` lets it through.
"""

from _causeway import Atom, CallInterrupted, Pid, Ref, Term, in_beam, self, send, whereis
from erlang._callbacks import ErlangError, call
from erlang._callbacks import attribute as _attribute
from erlang._channel import ByteChannel, ByteChannelAborted, ByteChannelBusy, ByteChannelClosed

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
__version__ = "0.1.0"


def atom(name):
    """What becomes the atom of a name in Erlang, where a plain ``str`` becomes a binary.

    Atoms are never freed: Python may make 100,000 that were not there, then their conversion is a ValueError.
    Raises TypeError for what is no str, ValueError for more than 255 characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an atom is a str, not {type(name).__name__}")
    if len(name) > 255:
        raise ValueError(f"an atom has at most 255 characters, not {len(name)}")
    return Atom(name)


#: What needs asyncio, which takes a megabyte in every interpreter: only who uses it pays for it.
_OF_THE_LOOP = frozenset({"EventLoop", "EventLoopPolicy", "async_call", "new_event_loop", "run", "sleep"})


def __getattr__(name):
    """A registered Erlang function is an attribute of this module, unless something else has its name."""
    if name in _OF_THE_LOOP:
        from erlang import _loop

        try:
            return globals().setdefault(name, getattr(_loop, name))
        except AttributeError:
            raise AttributeError(f"this Python has no {name}: loops have no policies any more") from None
    return _attribute(name)
