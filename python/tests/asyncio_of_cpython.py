"""Runs modules of CPython's own tests of asyncio, where every loop is an erlang.EventLoop.

usage: python asyncio_of_cpython.py MODULE [EXCLUDED_TEST...]

A test is excluded by `Class.method`, or by its method alone.
"""

import asyncio
import faulthandler
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
        elif not excluded & {test._testMethodName, f"{type(test).__name__}.{test._testMethodName}"}:
            yield test


def main(module, *excluded):
    for holder in (asyncio, asyncio.unix_events):
        holder.SelectorEventLoop = Loop
        holder.EventLoop = Loop
    policy = getattr(asyncio.unix_events, "_UnixDefaultEventLoopPolicy", None)
    if policy is not None:
        policy._loop_factory = Loop
    loaded = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}")
    faulthandler.dump_traceback_later(100, exit=True)
    suite = unittest.TestSuite(tests(loaded, set(excluded)))
    result = unittest.TextTestRunner(verbosity=1, buffer=True).run(suite)
    sys.exit(0 if result.wasSuccessful() and result.testsRun else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
