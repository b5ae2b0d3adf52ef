"""Python's ``logging``, ``warnings`` and uncaught exceptions in Erlang's logger.

The modules that are concerned are changed when somebody imports them.
"""

import sys
import threading
import warnings

import _causeway
from erlang._imports import when_imported

# The levels of logging, which is not imported here.
_WARNING = 30
_ERROR = 40


def install():
    """Send what this interpreter would print to ``sys.stderr`` by itself to Erlang's logger."""
    warnings.showwarning = _show_warning
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread
    when_imported("logging", _add_handler)
    when_imported("traceback", _print_at_once)


def log(level, text, **details):
    """Send an event. A detail that is None is left out; characters that cannot be encoded are escaped."""
    details = {key: value for key, value in details.items() if value is not None}
    try:
        _causeway._log(level, text, details)
    except ValueError:
        _causeway._log(level, _escaped(text), {key: _escaped(value) for key, value in details.items()})


def _escaped(value):
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _add_handler(logging):
    from erlang._log_handler import Handler

    logging.root.addHandler(Handler())
    logging.root.setLevel(_causeway._log_level())


def reset(logging):
    """Make the loggers as they are when ``logging`` has just been imported."""
    logging.disable(logging.NOTSET)
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            logger.handlers[:] = []
            logger.filters[:] = []
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
            logger.disabled = False
    _add_handler(logging)


def _print_at_once(traceback):
    def _print(self, *, file=None, **options):
        """Print the result of self.format(), in one piece: one event of the log."""
        print("".join(self.format(**options)), file=sys.stderr if file is None else file, end="")

    traceback.TracebackException.print = _print


def _show_warning(message, category, filename, lineno, file=None, line=None):
    text = warnings.formatwarning(message, category, filename, lineno, line)
    if file is None:
        log(_WARNING, text.rstrip("\n"), source="warnings", logger="py.warnings", file=filename, line=lineno)
    else:
        file.write(text)


def _uncaught(kind, exception, trace, heading=None, **details):
    import traceback

    text = "".join(traceback.format_exception(kind, exception, trace)).rstrip("\n")
    log(_ERROR, f"{heading}\n{text}" if heading else text, source="exception", exception=text, **details)


def _uncaught_in_thread(arguments):
    if arguments.exc_type is SystemExit:
        return
    name = arguments.thread.name if arguments.thread else str(threading.get_ident())
    _uncaught(
        arguments.exc_type,
        arguments.exc_value,
        arguments.exc_traceback,
        f"Exception in thread {name}:",
        thread=name,
    )


def _unraisable(unraisable):
    heading = f"{unraisable.err_msg or 'Exception ignored in'}: {_shown(unraisable.object)}"
    _uncaught(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback, heading)


def _shown(value):
    try:
        return repr(value)
    except Exception:  # whatever somebody's __repr__ raises
        return f"<{type(value).__name__}>"
