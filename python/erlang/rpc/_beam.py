"""Streaming calls of a Python inside the BEAM: Erlang finds who serves a name, and watches."""

import _causeway

from .. import _callbacks
from . import _pool
from ._errors import of_reason
from ._stream import Stream


class _Link:
    """What the process of a half is told: it passes on what goes to another node."""

    def __init__(self, process):
        self._process = process

    def replied(self, _stream):
        self._cast(_causeway.Atom("replied"))

    def ending(self, _stream, final):
        final = _causeway.Atom("both") if final == "both" else (_causeway.Atom("error"), *final)
        self._cast((_causeway.Atom("final"), final))

    def _cast(self, what):
        _causeway.send(self._process, (_causeway.Atom("$gen_cast"), what))


def advertise(handler):
    """Have Erlang send calls of a name here."""
    _done(_callbacks.call("_causeway_rpc_advertise", handler.name, handler.mode, handler))


def unadvertise(name):
    """Have it send no more."""
    _done(_callbacks.call("_causeway_rpc_unadvertise", name))


def names():
    """What this node serves, in either language."""
    return _callbacks.call("_causeway_rpc_names")


def call(name, args, options):
    """A call whose reply is all that is wanted."""
    with _pool.waiting():
        return _done(_callbacks.call("_causeway_rpc_call", name, args, options))


def open_stream(name, args, options):
    """A stream, when its provider has accepted."""
    with _pool.waiting():
        answer = _callbacks.call("_causeway_rpc_open", name, args, options, _causeway._context())
    process, half = _done(answer)
    return Stream(half, _Link(process))


def _done(answer):
    match answer:
        case ("ok", value):
            return value
        case ("error", ("badarg", text)):
            raise ValueError(text)
        case ("error", ("not_started", text)):
            raise RuntimeError(text)
        case ("error", _):
            raise of_reason(answer)
    return None


# --- what Erlang calls ------------------------------------------------------------------------


def serve(handler, half, process, args):
    """Begin to serve a call. Returns the process of the context that does."""
    handler.start(Stream(half, _Link(process)), args)
    return _causeway._context()
