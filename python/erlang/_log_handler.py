"""The handler of Python's root logger inside the BEAM. Imported when somebody has imported ``logging``."""

import logging

from erlang import _log


class Handler(logging.Handler):
    """Sends records to Erlang's logger, with their logger, module, function, file, line and exception."""

    def emit(self, record):
        try:
            exception = record.exc_text
            if exception is None and record.exc_info:
                exception = record.exc_text = _formatter.formatException(record.exc_info)
            stack = _formatter.formatStack(record.stack_info) if record.stack_info else None
            parts = [record.getMessage(), exception, stack]
            _log.log(
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
        except Exception:  # as in every handler: whatever somebody's __str__ raises while the text is made
            self.handleError(record)


_formatter = logging.Formatter()
