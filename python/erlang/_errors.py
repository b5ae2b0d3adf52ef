"""Exceptions as plain data, for Erlang."""

import traceback

_MAXIMUM_CAUSES = 16
_MAXIMUM_FRAMES = 200


def describe(exception, causes=0):
    """Return ``(message, frames, cause)`` of an exception.

    ``frames`` is a list of ``(file, line, function, code)``, the outermost call first; ``cause`` is
    ``None`` or a pair of an exception and its description. What cannot be shown is left out rather
    than raised.
    """
    frames = [
        (frame.filename, frame.lineno or 0, frame.name, frame.line or "")
        for frame in traceback.extract_tb(exception.__traceback__, limit=-_MAXIMUM_FRAMES)
    ]
    cause = exception.__cause__
    if cause is None and not exception.__suppress_context__:
        cause = exception.__context__
    if cause is not None and causes < _MAXIMUM_CAUSES:
        described = (cause, describe(cause, causes + 1))
    else:
        described = None
    return _text(exception), frames, described


def _text(exception):
    try:
        return str(exception).encode("utf-8", "backslashreplace").decode("utf-8")
    except Exception as error:
        return f"<unprintable: {type(error).__name__}>"
