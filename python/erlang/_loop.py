"""An event loop of asyncio whose waiting, scheduling, reading and writing is done by the core."""

import asyncio
import selectors
import socket
import sys
import threading
import time
from asyncio import (
    base_events,
    coroutines,
    events,
    format_helpers,
    selector_events,
    sslproto,
    unix_events,
)
from asyncio.log import logger

import _causeway
from erlang import _callbacks, _programs, _waits
from erlang._reactor_transport import ReactorTransport
from erlang._transports import DatagramTransport, ReadPipeTransport, StreamTransport, WritePipeTransport

_causeway._register_running_loop(events._get_running_loop, events._set_running_loop)


class EventLoop(_causeway.EventLoop, asyncio.SelectorEventLoop):
    """An event loop for asyncio, in place of its own: ``asyncio.Runner(loop_factory=erlang.EventLoop)``.

    Inside the BEAM it waits where the context waits that runs it: meanwhile the context serves calls from
    Erlang and the connections of its reactor, and whatever ends the call ends the loop, too. Signal handlers
    need Python's main thread, which is none of a context's.

    Streams of TCP and Unix sockets, datagrams and pipes are read and written without Python's lock; what a
    turn of the loop has written goes out at its end, together.

    A program that it has started ends with the loop, where it still runs. Inside the BEAM a guardian starts
    it, as those of ``erlang.process``.

    Where it takes a protocol factory, as in ``create_server``, ``create_connection`` and
    ``create_datagram_endpoint``, that may also make protocols of :mod:`erlang.reactor`. Their transports have
    ``close``, ``abort``, ``is_closing``, ``get_protocol`` and ``get_extra_info``, and no TLS.
    """

    def __init__(self):
        self._programs = set()
        # Of connections that protocols of erlang.reactor serve, by the id of the protocol.
        self._reactor_transports = {}
        super().__init__(_Watched(self))
        self._listeners = set()

    # --- running

    def run_forever(self):
        """Run until stop() is called."""
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        hooks = sys.get_asyncgen_hooks()
        try:
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            events._set_running_loop(self)
            self._run()
        finally:
            self._thread_id = None
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)

    def close(self):
        """Close the loop, which must not run. Nothing that was scheduled is called any more.

        Sockets that are served yet are closed. asyncio leaves them open until they are collected: a node,
        which goes on, would keep their ports and peers, and serve nobody.
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        self._end_protocols()
        for transport in list(self._reactor_transports.values()):
            self._protocol_ended(transport.get_protocol())
        for transport in list(self._programs):
            transport.abandon()
        served = [*self._listeners, *[transport._sock for transport in self._transports.values()]]
        self._listeners.clear()
        super().close()
        self._close()
        for sock in served:
            if sock is not None:
                sock.close()

    def set_debug(self, enabled):
        """Whether to tell of slow callbacks and of wrong threads, and where handles come from."""
        super().set_debug(enabled)
        self._set_debugging(bool(enabled))

    def _write_to_self(self):
        # The native half wakes the loop. This is for asyncio's own code, which means the same by it.
        self._add_callback_signalsafe(_NOTHING)

    def _make_self_pipe(self):
        # It is for signals, which the node handles inside the BEAM.
        if not _causeway.in_beam():
            super()._make_self_pipe()

    def _close_self_pipe(self):
        if not _causeway.in_beam():
            super()._close_self_pipe()

    # --- what the native half calls

    def _report_error(self, exception, handle):
        """A callback has raised what does not end the loop."""
        callback = handle._callback
        name = format_helpers._format_callback_source(callback, handle._args) if callback else repr(handle)
        context = {"message": f"Exception in callback {name}", "exception": exception, "handle": handle}
        self.call_exception_handler(context)

    def _report_protocol(self, exception, callback, protocol, is_expected):
        """A protocol of erlang.reactor has raised, and its connection ends."""
        self._report_connection(f"Exception in {callback} of {protocol!r}", protocol, is_expected, exception)

    def _report_connection(self, text, protocol, is_expected, exception=None):
        if is_expected:
            logger.debug("%s: %r", text, protocol, exc_info=exception)
        else:
            self.call_exception_handler({"message": text, "exception": exception, "protocol": protocol})

    def _protocol_ended(self, protocol):
        transport = self._reactor_transports.pop(id(protocol), None)
        if transport is not None:
            transport._ended()

    def _debug_soon(self, method, when, context, callback, *arguments):
        self._check_thread_of(method)
        self._check_callback(callback, method)
        handle = events.Handle(callback, arguments, self, context)
        return self._scheduled_handle(handle, None)

    def _debug_at(self, method, when, context, callback, *arguments):
        self._check_thread_of(method)
        self._check_callback(callback, method)
        handle = events.TimerHandle(when, callback, arguments, self, context)
        return self._scheduled_handle(handle, when)

    def _check_thread_of(self, method):
        if method != "call_soon_threadsafe":
            self._check_thread()

    def _scheduled_handle(self, handle, when):
        if handle._source_traceback:
            # The frame of _debug_soon or _debug_at.
            del handle._source_traceback[-1]
        self._schedule(handle, when)
        return handle

    def _run_handle(self, handle):
        """Run a handle of asyncio's, and tell of one that takes long."""
        if handle._cancelled:
            return
        try:
            if not self._debug:
                handle._run()
                return
            self._current_handle = handle
            began = self.time()
            handle._run()
            took = self.time() - began
            if took >= self.slow_callback_duration:
                what = base_events._format_handle(handle)
                base_events.logger.warning("Executing %s took %.3f seconds", what, took)
        finally:
            self._current_handle = None
            # An exception that a task has kept refers to this frame.
            handle = None

    # --- servers

    def _start_serving(self, protocol_factory, sock, *arguments, **options):
        super()._start_serving(protocol_factory, sock, *arguments, **options)
        self._listeners.add(sock)

    def _stop_serving(self, sock):
        self._listeners.discard(sock)
        super()._stop_serving(sock)

    # --- transports

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None):
        self._ensure_fd_no_transport(sock)
        if isinstance(protocol, _causeway.Protocol):
            return ReactorTransport(self, sock, protocol, waiter, extra, server)
        return StreamTransport(self, sock, protocol, waiter, extra, server)

    def _make_ssl_transport(
        self,
        rawsock,
        protocol,
        sslcontext,
        waiter=None,
        *,
        server_side=False,
        server_hostname=None,
        extra=None,
        server=None,
        **timeouts,
    ):
        self._ensure_fd_no_transport(rawsock)
        if isinstance(protocol, _causeway.Protocol):
            raise TypeError(
                "a protocol of erlang.reactor reads and writes its descriptor itself: it cannot have TLS"
            )
        ssl_protocol = sslproto.SSLProtocol(
            self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts
        )
        StreamTransport(self, rawsock, ssl_protocol, extra=extra, server=server)
        return ssl_protocol._app_transport

    def _make_datagram_transport(self, sock, protocol, address=None, waiter=None, extra=None):
        self._ensure_fd_no_transport(sock)
        if isinstance(protocol, _causeway.Protocol):
            return ReactorTransport(self, sock, protocol, waiter, extra)
        # Addresses of others only Python's sockets know.
        known = sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        make = DatagramTransport if known else selector_events._SelectorDatagramTransport
        return make(self, sock, protocol, address, waiter, extra)

    def _make_read_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return WritePipeTransport(self, pipe, protocol, waiter, extra)

    async def _make_subprocess_transport(self, protocol, args, shell, *streams, extra=None, **options):
        if _programs.are_watched_by_others():
            return await super()._make_subprocess_transport(
                protocol, args, shell, *streams, extra=extra, **options
            )
        return await _programs.make_transport(self, protocol, args, shell, *streams, extra=extra, **options)

    # --- signals

    def add_signal_handler(self, sig, callback, *args):
        """Have ``callback(*args)`` called when a signal comes, in plain python3.

        Raises RuntimeError inside the BEAM, whose signals are Erlang's.
        """
        if _causeway.in_beam():
            raise RuntimeError(
                "add_signal_handler() is refused inside the BEAM: signals are handled by the Erlang node "
                "(os:set_signal/2 and the event manager erl_signal_server)"
            )
        if coroutines.iscoroutine(callback) or asyncio.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        super().add_signal_handler(sig, callback, *args)


class _Nothing:
    """A handle that does nothing."""

    _cancelled = True
    _context = None


_NOTHING = _Nothing()


class _Watched:
    """What asyncio's other transports ask the selector for: what a descriptor is watched for."""

    def __init__(self, loop):
        self._loop = loop

    def get_key(self, fileobj):
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        mask = self._loop._interest(fd)
        if not mask:
            raise KeyError(f"{fileobj!r} is not registered")
        return selectors.SelectorKey(fileobj, fd, mask, None)

    def close(self):
        self._loop = None


def new_event_loop():
    """A new :class:`EventLoop`."""
    return EventLoop()


def run(main, *, debug=None):
    """Run a coroutine in a new :class:`EventLoop` and return its result, as ``asyncio.run`` does.

    Inside the BEAM the context serves on meanwhile. Raises RuntimeError where a loop runs in this thread
    already, ValueError for what is no coroutine, and what that raises.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("erlang.run() cannot be called from a running event loop: await the coroutine")
    with asyncio.Runner(debug=debug, loop_factory=EventLoop) as runner:
        return runner.run(main)


def sleep(seconds, /):
    """Sleep for so many seconds; in a coroutine ``await erlang.sleep(s)``, where only the task sleeps.

    Elsewhere it returns None afterwards, as ``time.sleep``: inside the BEAM the end of the call ends it.
    Raises ValueError for less than 0.
    """
    if events._get_running_loop() is not None:
        return asyncio.sleep(seconds)
    return time.sleep(seconds)


async def async_call(name, /, *arguments):
    """Call the function that Erlang has registered under a name, as :func:`erlang.call`: only the task waits.

    A task that is cancelled ends the function's process. Raises what ``erlang.call`` raises.
    """
    _callbacks.check(name)
    return _callbacks.value(name, await _waits.outcome(_causeway._begin_call, name, arguments))


if hasattr(unix_events, "_UnixDefaultEventLoopPolicy") or hasattr(unix_events, "DefaultEventLoopPolicy"):
    _Policy = getattr(unix_events, "_UnixDefaultEventLoopPolicy", None) or unix_events.DefaultEventLoopPolicy

    class EventLoopPolicy(_Policy):
        """A policy that makes loops of the kind :class:`EventLoop`: ``asyncio.set_event_loop_policy``."""

        _loop_factory = EventLoop
