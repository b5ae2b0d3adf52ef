"""What keeps Python from harming the node.

The native half refuses ``os.fork``, ``os.forkpty`` and ``os.exec*``.
"""

from erlang._imports import when_imported

# Start methods of ``multiprocessing`` that copy the process.
REFUSED = ("fork", "forkserver")


def install():
    """Show where a fatal error happens, and have ``multiprocessing`` start its processes by spawn."""
    _enable_faulthandler()
    when_imported("multiprocessing.context", _spawn)


def _enable_faulthandler():
    try:
        import faulthandler
    except ImportError:
        # An interpreter with a GIL of its own cannot have it. That of the main one is for all of them.
        return
    if not faulthandler.is_enabled():
        # The descriptor, because sys.stderr has none here.
        faulthandler.enable(file=2, all_threads=True)


def _spawn(context):
    # The default only, so that programs may still set a method themselves, once.
    default = context.DefaultContext(context._concrete_contexts["spawn"])
    choose, methods = default.set_start_method, default.get_all_start_methods

    def set_start_method(method, force=False):
        # At once, and not where something is started: that may be far away from the mistake.
        if method in REFUSED:
            raise _refusal(method)
        choose(method, force)

    default.set_start_method = set_start_method
    default.get_all_start_methods = lambda: [method for method in methods() if method not in REFUSED]
    context._default_context = default
    # Whoever has asked for such a context need not start anything: libraries do when they are imported.
    context.ForkProcess._Popen = staticmethod(_refuse("fork"))
    context.ForkServerProcess._Popen = staticmethod(_refuse("forkserver"))


def _refuse(method):
    def start(process):
        raise _refusal(method)

    return start


def _refusal(method):
    return RuntimeError(
        f"multiprocessing's start method {method!r} is refused inside the BEAM, which must not be "
        "forked: use subprocess, or multiprocessing.get_context('spawn'), the default here"
    )
