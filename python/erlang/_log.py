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
    class Handler(logging.Handler):
        """Sends records to Erlang's logger, with their logger, module, function, file, line and exception."""

        def emit(self, record):
            try:
                text = record.getMessage()
                exception = record.exc_text
                if exception is None and record.exc_info:
                    exception = record.exc_text = _formatter.formatException(record.exc_info)
                parts = [text, exception]
                if record.stack_info:
                    parts.append(_formatter.formatStack(record.stack_info))
                log(
                    record.levelno,
                    "\n".join(part for part in parts if part),
                    source="logging",
                    logger=str(record.name),
                    module=record.module,
                    function=record.funcName,
                    file=record.pathname,
                    line=record.lineno,
                    thread=record.threadName,
                    exception=exception,
                )
            except Exception:
                self.handleError(record)

    _formatter = logging.Formatter()
    logging.root.addHandler(Handler())
    logging.root.setLevel(_causeway._log_level())


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
    except Exception:
        return f"<{type(value).__name__}>"
