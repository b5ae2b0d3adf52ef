"""Erlang functions as Python sees them."""

from functools import partial

import _causeway


class ErlangError(RuntimeError):
    """Raised where an Erlang function that Python has called ends with an exception.

    ``kind`` is ``'error'``, ``'exit'`` or ``'throw'``; ``reason`` is the converted term, or ``None`` where
    it has no form in Python; ``stacktrace`` is a list of dicts with ``module``, ``function``, ``arity``,
    ``file`` and ``line``, the innermost call first.
    """

    def __init__(self, text, kind=None, reason=None, stacktrace=()):
        super().__init__(text)
        self.kind = kind
        self.reason = reason
        self.stacktrace = list(stacktrace)

    def __reduce__(self):
        return type(self), (str(self), self.kind, self.reason, self.stacktrace)


def call(name, /, *arguments):
    """Call the function that Erlang has registered under a name, and return its result.

    The function gets one list of the arguments and runs in a process of its own. Meanwhile the calling
    context goes on serving, so that the function may call Python again, to any depth; in other threads
    only that thread waits, without Python's lock. It waits as long as the function takes, unless the call
    is interrupted in which it happens. Arguments and result are converted as those of ``py:call`` are.

    Raises NameError for a name that is not registered, ErlangError where the function fails or its process
    is killed, RecursionError where calls are nested too deep (500), or a term is for the stack of this
    thread, RuntimeError outside the BEAM, TypeError for a name that is no str, and ValueError for an argument
    that has no form in Erlang.
    """
    check(name)
    return value(name, _causeway._call(name, arguments))


def check(name):
    """Raise what is wrong with the name of an Erlang function."""
    if not isinstance(name, str):
        raise TypeError(f"the name of an Erlang function is a str, not {type(name).__name__}")
    if not _causeway._is_function(name):
        raise _unknown(name)


def value(name, answer):
    """What the function has returned, of the answer to a call of it."""
    if answer[0] == "ok":
        return answer[1]
    match answer:
        case ("error", "unknown"):
            raise _unknown(name)
        case ("error", kind, reason, text, stacktrace):
            raise _error(name, text, kind, reason, stacktrace)
        case _:
            raise ErlangError(f"the process of the Erlang function {name!r} ended before it answered", "exit")


class _NeedsBeam(AttributeError, RuntimeError):
    """Raised where an Erlang function is looked up in a plain ``python3``.

    It is an AttributeError, so that ``hasattr`` answers, and the RuntimeError of all that needs a BEAM.
    """


def attribute(name):
    """The registered Erlang function of a name as a Python function.

    Raises AttributeError for a name that is not registered, which outside the BEAM is a RuntimeError, too.
    """
    if _causeway._is_function(name):
        return partial(call, name)
    missing = f"module 'erlang' has no attribute {name!r}"
    if _causeway.in_beam() or name.startswith("__"):
        raise AttributeError(f"{missing}, nor has Erlang registered such a function", name=name)
    raise _NeedsBeam(f"{missing}, and {_needs_beam(name)}", name=name)


def _error(name, text, kind, reason, stacktrace):
    error = ErlangError(text, kind, reason, stacktrace)
    error.add_note(f"in the Erlang function {name!r}")
    for frame in stacktrace:
        place = f" ({frame['file']}, line {frame['line']})" if frame["file"] else ""
        error.add_note(f"  {frame['module']}:{frame['function']}/{frame['arity']}{place}")
    return error


def _unknown(name):
    if not _causeway.in_beam():
        return RuntimeError(_needs_beam("call"))
    return NameError(
        f"no Erlang function is registered as {name!r}: py:register_function({name}, Fun) does that",
        name=name,
    )


def _needs_beam(name):
    return (
        f"erlang.{name}() needs a BEAM: this Python runs by itself. "
        "Start Python from Erlang with the application causeway"
    )
