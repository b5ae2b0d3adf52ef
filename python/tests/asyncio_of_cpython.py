"""Runs modules of CPython's own tests of asyncio, where every loop is an erlang.EventLoop.

usage: python asyncio_of_cpython.py MODULE [EXCLUDED_TEST...]

A test is excluded by `Class.method`, `Class.*`, or by its method alone. Inside the BEAM this is a module of
which `run` is called.
"""

import asyncio
import faulthandler
import io
import sys
import unittest

import erlang


class Loop(erlang.EventLoop):
    """Tests give loops a selector."""

    def __init__(self, selector=None):
        super().__init__()


def tests(suite, excluded):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests(test, excluded)
        else:
            of, name = type(test).__name__, test._testMethodName
            if not excluded & {name, f"{of}.{name}", f"{of}.*"}:
                yield test


def run(module, *excluded):
    """Run a module; how many tests there were, and what is said of those that failed."""
    for holder in (asyncio, asyncio.unix_events):
        holder.SelectorEventLoop = Loop
        holder.EventLoop = Loop
    policy = getattr(asyncio.unix_events, "_UnixDefaultEventLoopPolicy", None)
    if policy is not None:
        policy._loop_factory = Loop
    loaded = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}")
    suite = unittest.TestSuite(tests(loaded, set(excluded)))
    said = io.StringIO()
    result = unittest.TextTestRunner(said, verbosity=1, buffer=True).run(suite)
    return result.testsRun, "" if result.wasSuccessful() else said.getvalue()


def main(module, *excluded):
    faulthandler.dump_traceback_later(100, exit=True)
    count, failures = run(module, *excluded)
    print(failures, file=sys.stderr)
    sys.exit(0 if count and not failures else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
