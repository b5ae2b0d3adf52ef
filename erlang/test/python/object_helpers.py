"""Objects that say when they go, for py_object_SUITE."""

import sys
import weakref

import erlang


class Point:
    """An object without a form in Erlang."""

    kind = "point"

    def __init__(self, x, y=0):
        self.x = x
        self.y = y

    def moved(self, by, *, times=1):
        return Point(self.x + by * times, self.y)

    def same(self, other):
        return self is other

    def complain(self):
        raise KeyError(self.x)

    @property
    def broken(self):
        raise OSError("no such luck")


class Word(str):
    pass


# How many of them there are.
tracked = weakref.WeakSet()


def track(x=0):
    point = Point(x)
    tracked.add(point)
    return point


def number_of_tracked():
    return len(tracked)


def tell_when_gone(pid, what):
    """A Point whose end is a message."""
    point = Point(0)
    weakref.finalize(point, erlang.send, pid, what)
    return point


def hide(thing):
    return [thing, {"in": (thing,), thing: thing}]


def is_same(first, second):
    return first is second


def all_same(thing, container):
    listed, mapped = container
    return thing is listed and thing is mapped["in"][0] and thing is mapped[thing]


def waste():
    """Garbage that only the collector finds."""
    for _ in range(100):
        circle = []
        circle.append(circle)


hoard = []


def collect_hoard(number):
    hoard.append([bytearray(1000) for _ in range(number)])


def in_other_interpreter(directory, code):
    """Runs code in a new interpreter, on a thread of that: the context's own thread serves the main one."""
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters

        identifier = interpreters.create("legacy")
    else:
        import _xxsubinterpreters as interpreters

        identifier = interpreters.create(isolated=False)
    try:
        failure = interpreters.run_string(identifier, _IN_THREAD.format(directory=directory, code=code))
        if failure is not None:
            raise RuntimeError(str(failure))
    finally:
        interpreters.destroy(identifier)


_IN_THREAD = """
import sys, threading
sys.path.insert(0, {directory!r})
thread = threading.Thread(target=exec, args=({code!r}, {{}}))
thread.start()
thread.join()
"""
