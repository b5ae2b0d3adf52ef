"""Objects that say when they go, for py_object_SUITE."""

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
