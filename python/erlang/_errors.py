"""Exceptions as plain data, for Erlang."""

import sys
import traceback

_MAXIMUM_CAUSES = 16
_MAXIMUM_FRAMES = 200


def describe(exception, causes=0):
    """Return ``(message, frames, cause)`` of an exception.

    ``frames`` is a list of ``(file, line, function, code)``, the outermost call first; ``cause`` is
    ``None`` or a pair of an exception and its description. What cannot be shown is left out rather
    than raised.
    """
    frames = _plain(traceback.extract_tb(exception.__traceback__, limit=-_MAXIMUM_FRAMES))
    cause = exception.__cause__
    if cause is None and not exception.__suppress_context__:
        cause = exception.__context__
    if cause is not None and causes < _MAXIMUM_CAUSES:
        described = (cause, describe(cause, causes + 1))
    else:
        described = None
    return _text(exception), frames, described


def stack(thread):
    """Return the frames of a thread's calls in the same form, by its ``threading.get_ident()``."""
    frame = sys._current_frames().get(thread)
    return _plain(traceback.extract_stack(frame, limit=_MAXIMUM_FRAMES)) if frame else []


def _plain(frames):
    return [(frame.filename, frame.lineno or 0, frame.name, frame.line or "") for frame in frames]


def _text(exception):
    try:
        return str(exception).encode("utf-8", "backslashreplace").decode("utf-8")
    except Exception as error:  # whatever somebody's __str__ raises
        return f"<unprintable: {type(error).__name__}>"
