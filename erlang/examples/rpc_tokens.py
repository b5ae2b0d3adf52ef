"""A provider for rpc_example.erl: it reads a file's chunks, and answers with words of them."""

import threading

from erlang import rpc

_ended = threading.Event()
_codes: list[str] = []


@rpc.advertise("tokens", mode="bidi")
def tokens(stream, longest):
    """Send words of each chunk, at most so many letters of each; the reply is how many bytes there were."""
    size = 0
    try:
        for chunk in stream:
            size += len(chunk)
            for word in chunk.split()[:10]:
                stream.send(word[:longest])
        return size
    except rpc.RpcError as error:
        # The client has had enough.
        _codes.append(error.code)
        raise
    finally:
        _ended.set()


def ended(timeout=30):
    """Wait until a call has ended, and return the code of its error, or None."""
    if not _ended.wait(timeout):
        raise TimeoutError("no call has ended")
    return _codes[-1] if _codes else None
