"""How streaming calls fail."""

_TEXTS = {
    "closed": "the stream was closed without a reply",
    "peer_closed": "the other half was closed without a reply",
    "peer_down": "the other half is gone",
    "not_found": "nobody has advertised that name",
    "send_closed": "the stream sends nothing more",
    "cancelled": "the call was cancelled",
}


class RpcError(RuntimeError):
    """A streaming call has failed. ``code`` says how, for programs, and ``message`` for people.

    A handler that raises one has the call end with these. Codes of ours are ``cancelled``,
    ``deadline_exceeded``, ``disconnected``, ``peer_down``, ``not_found``, ``unavailable``,
    ``too_many_calls``, ``closed``, ``peer_closed``, ``send_closed``, ``out_of_order``, ``out_of_credit``,
    ``badarg`` and ``refused``; of another exception of a handler it is the name of its class, of one in
    Erlang ``error``, ``throw`` or ``exit``. ``causeway_rpc_stream`` of Erlang says what each means.
    """

    def __init__(self, code, message=""):
        code = str(code)
        super().__init__(code, message or _TEXTS.get(code, ""))
        self.code = code
        self.message = self.args[1]

    def __str__(self):
        return f"{self.code}: {self.message}" if self.message else self.code


def of_reason(reason):
    """The exception of an error as the core has it: ``("error", (code, message))``, or another reason."""
    if isinstance(reason, tuple) and len(reason) >= 2 and reason[0] == "error":
        reason = reason[1]
    if isinstance(reason, dict) and "code" in reason:
        return RpcError(_text(reason["code"]), _text(reason.get("message", "")))
    if isinstance(reason, tuple) and len(reason) == 2 and isinstance(reason[0], (str, bytes)):
        return RpcError(_text(reason[0]), _text(reason[1]))
    if isinstance(reason, str):
        return RpcError("not_found" if reason == "not_advertised" else reason)
    return RpcError("error", repr(reason))


def of_exception(error):
    """Code and message by which an exception of a handler crosses."""
    if isinstance(error, RpcError):
        return error.code, error.message
    return type(error).__name__, str(error)


def _text(value):
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else repr(value)
