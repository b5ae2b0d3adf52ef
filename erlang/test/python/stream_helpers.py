"""Generators for py_stream_SUITE."""

import time
from collections.abc import Iterator

import erlang

produced = 0
closed = 0


def reset():
    global produced, closed
    produced = closed = 0


def count_up():
    """Count for ever, and how far it came and how often it was ended."""
    global produced, closed
    try:
        while True:
            produced += 1
            yield produced
    finally:
        closed += 1


def counters():
    return produced, closed


def fail_after(number):
    yield from range(number)
    raise KeyError("enough")


def words(text, pause):
    """Yield some words at once, then wait long before the last."""
    *first, last = text.split()
    yield from first
    time.sleep(pause)
    yield last


def wait_between(pid):
    yield 1
    erlang.send(pid, "waiting")
    time.sleep(100)
    yield 2


def loop_between(pid):
    yield 1
    erlang.send(pid, "waiting")
    while True:
        pass


def no_generator():
    return 42


def fail_at_once():
    raise ValueError("no generator")


def unconvertible():
    yield 1
    yield "\ud800"


class ListIterator(list, Iterator):
    """An iterator that would become a list of its own."""

    def __iter__(self):
        return self

    def __next__(self):
        if not self:
            raise StopIteration
        return self.pop()


def odd_iterator():
    return ListIterator([3, 2, 1])


def with_keywords(*, start, stop):
    return iter(range(start, stop))


def threads():
    """Yield the identifier of the thread that runs this, many times."""
    import threading

    for _ in range(5000):
        yield threading.get_ident()


def call_back(name):
    for number in range(3):
        yield erlang.call(name, number)
