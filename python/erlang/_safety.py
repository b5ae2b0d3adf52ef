"""What keeps Python from harming the node.

The native half refuses ``os.fork``, ``os.forkpty`` and ``os.exec*``.
"""

import faulthandler

from erlang._imports import when_imported


def install():
    """Show where a fatal error happens, and have ``multiprocessing`` start its processes by spawn."""
    # One for all interpreters. The descriptor, because sys.stderr has none here.
    if not faulthandler.is_enabled():
        faulthandler.enable(file=2, all_threads=True)
    when_imported("multiprocessing.context", _spawn)


def _spawn(context):
    # The default only, so that programs may still set a method themselves, once.
    context._default_context = context.DefaultContext(context._concrete_contexts["spawn"])
    context.ForkProcess._Popen = staticmethod(_refuse("fork"))
    context.ForkServerProcess._Popen = staticmethod(_refuse("forkserver"))


def _refuse(method):
    def start(process):
        raise RuntimeError(
            f"multiprocessing's start method {method!r} is refused inside the BEAM, which must not be "
            "forked: use subprocess, or multiprocessing.get_context('spawn'), the default here"
        )

    return start
