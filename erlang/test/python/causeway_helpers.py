"""What the Erlang suites need on the Python side."""

import concurrent.futures
import contextlib
import ctypes
import gc
import math
import threading
import time
import weakref

import erlang


def identity(value):
    return value


def arguments(*positional, **named):
    return list(positional), named


def shown(value):
    """The type and the repr of what arrived."""
    return type(value).__name__, repr(value)


def text_of(number):
    return hex(number)


def tell(pid, term):
    erlang.send(pid, term)


# Calls that take long. All of them say first that they have begun.


def start_threads(test):
    """Until it is interrupted."""
    erlang.send(test, erlang.atom("started"))
    while True:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()


def in_an_executor():
    with concurrent.futures.ThreadPoolExecutor() as executor:
        return executor.submit(math.sqrt, 4).result()


def loop(pid):
    erlang.send(pid, "running")
    while True:
        pass


def sleep(pid, seconds):
    erlang.send(pid, "running")
    time.sleep(seconds)
    return "slept"


def hold_gil(pid, microseconds):
    """C code that keeps the GIL: nothing can interrupt it."""
    erlang.send(pid, "running")
    ctypes.PyDLL(None).usleep(microseconds)
    return "held"


def loop_stubbornly(pid):
    """Python code that catches every interruption."""
    erlang.send(pid, "running")
    while True:
        with contextlib.suppress(BaseException):
            # CPython 3.11 takes an interruption at the head of a loop as one of what is before it,
            # which has to be in the block, too.
            count = 0
            while True:
                count += 1


def loop_and_tell(pid):
    """A loop that tells how it was ended."""
    erlang.send(pid, "running")
    try:
        count = 0
        while True:
            count += 1
    except BaseException as error:
        erlang.send(pid, type(error).__name__)
        raise


gate = threading.Event()


def close_gate():
    gate.clear()


def wait_at_gate(pid):
    """Waits without the GIL for another call's open_gate()."""
    erlang.send(pid, "running")
    while not gate.wait(0.005):
        pass
    return "passed"


def open_gate():
    gate.set()


# Exceptions


class Complaint(Exception):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")


def complain():
    raise Complaint("outer")


def complain_with_cause():
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise Complaint("outer") from error


def complain_in_context():
    try:
        raise KeyError("inner")
    except KeyError:
        raise Complaint("outer")  # noqa: B904


def complain_alone():
    try:
        raise KeyError("inner")
    except KeyError:
        raise Complaint("outer") from None


def complain_mutely():
    raise Mute


def complain_below(depth):
    if depth == 0:
        raise Complaint("at the bottom")
    complain_below(depth - 1)


def raise_named(name):
    raise type(name, (Complaint,), {})("strange name")


def raise_circle():
    first = Complaint("first")
    second = Complaint("second")
    first.__cause__ = second
    second.__cause__ = first
    raise first


# Objects whose life is watched


class Thing:
    pass


things = {}


def make_thing(name):
    thing = Thing()
    things[name] = weakref.ref(thing)
    return thing


def is_thing(name, value):
    return things[name]() is value


def thing_lives(name):
    gc.collect()
    return things[name]() is not None


# Values that are hard to convert


def nested_list(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def nested_tuple(depth):
    value = ()
    for _ in range(depth):
        value = (value,)
    return value


def nested_dict(depth):
    value = {}
    for _ in range(depth):
        value = {"k": value}
    return value


def with_stack(size, function, *arguments):
    """What a function returns, or the exception it raises, in a thread with so many bytes of stack."""
    results = []

    def work():
        try:
            results.append(function(*arguments))
        except Exception as error:
            results.append((type(error).__name__, str(error)))

    before = threading.stack_size(size)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return results[0]


def send_nested(size, pid, kind, depth):
    """Sends a deep object from a thread with little stack."""
    return with_stack(size, erlang.send, pid, globals()[kind](depth))


def call_nested(size, name, kind, depth):
    """Has Erlang answer such a thread with a deep term."""
    return with_stack(size, lambda: depth_of_any(erlang.call(name, kind, depth)))


def depth_of_any(value):
    depth = 0
    while value:
        value = value["k"] if isinstance(value, dict) else value[0]
        depth += 1
    return depth


def self_list():
    value = [1]
    value.append(value)
    return value


def self_dict():
    value = {}
    value["me"] = value
    return value


def bomb(levels):
    """A small object that would be enormous when written out."""
    value = [0]
    for _ in range(levels):
        value = [value, value]
    return value


def depth_of(value):
    depth = 0
    while value:
        value = value[0]
        depth += 1
    return depth


class ShrinkingKey:
    def __init__(self, holder):
        self.holder = holder

    def __index__(self):
        self.holder.clear()
        return 1


def shrinking_list():
    values = []
    values.extend([0, 1, 2, 3, ShrinkingKey(values)])
    return values


def growing_dict():
    class Grower:
        def __index__(self):
            values[len(values)] = 0
            return 1

    values = {}
    values["a"] = Grower()
    values["b"] = 2
    return values


class BadIndex:
    def __index__(self):
        raise Complaint("no number")


def bad_index():
    return [BadIndex()]


def subclass_values():
    import collections
    import enum

    class Number(int):
        pass

    class Text(str):
        pass

    class Color(enum.IntEnum):
        RED = 3

    pair = collections.namedtuple("pair", "left right")
    return [Number(7), Text("text"), Color.RED, pair(1, 2), collections.OrderedDict(a=1)]


def memory_view_of(data, step):
    return memoryview(data.encode())[::step]


class Allocated(ctypes.Structure):
    """What glibc's mallinfo2() returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")
        + ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]


def native_memory():
    """Bytes that malloc has given out here: neither small Python objects nor Erlang's memory."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Allocated
    now = mallinfo()
    return now.uordblks + now.hblkhd
