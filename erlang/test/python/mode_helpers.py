"""What the suites of modes need in every kind of context: nothing here uses what an interpreter may refuse."""

import _thread
import importlib
import sys
import threading
import time

import erlang
from erlang import reactor

#: Who is told by :mod:`endless_module` that its import has begun.
listener = None
mark = "untouched"


def identity(value):
    return value


def interpreter():
    """Tell interpreters apart: none ever ends, so that no other can have its address."""
    return id(sys.modules)


def count_to(number):
    yield from range(number)


def loop(pid):
    erlang.send(pid, "running")
    while True:
        pass


def sleep(pid):
    erlang.send(pid, "running")
    time.sleep(100)


def loop_in_generator(pid):
    yield 1
    loop(pid)


def wait_for_erlang(pid):
    erlang.call("mode_wait", pid)


def import_endlessly(pid):
    global listener
    listener = pid
    importlib.import_module("endless_module")


def compute(pid, number):
    """Compute in C, which keeps the lock of its interpreter."""
    erlang.send(pid, "running")
    result = sum(range(number))
    erlang.send(pid, "computed")
    return result


def count_down(number):
    while number:
        number -= 1
    return "counted"


def nest(depth):
    """Down through Erlang to where the depth is 0, and back."""
    return depth if depth == 0 else 1 + erlang.call("mode_nest", depth - 1)


def call_in_threads(name, values):
    """Call an Erlang function from a thread for each of the values."""
    results = {}

    def run(value):
        results[value] = erlang.call(name, value)

    threads = [threading.Thread(target=run, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[value] for value in values]


# Serving


class Echo(reactor.Protocol):
    def data_received(self, data):
        self.write_buffer.extend(data)
        return "write_pending"


class Deferred(Echo):
    """Answers from a thread."""

    def data_received(self, data):
        threading.Thread(target=self.answer, args=(bytes(data),)).start()
        return "async_pending"

    def answer(self, data):
        self.write_buffer += b"later " + data
        assert reactor.signal_write_ready(self.fd)


class Upper(reactor.Protocol):
    def data_received(self, data):
        self.write_buffer.extend(bytes(data).upper())
        return "write_pending"


def look_for(function, fd):
    """What a function of the reactor says of a descriptor, or what it raises."""
    try:
        found = getattr(reactor, function)(fd)
    except ValueError as error:
        return type(error).__name__
    return type(found).__name__ if isinstance(found, reactor.Protocol) else found


# What Python refuses, and what it does not


def refusals(names):
    """What importing each of these modules says, where that is an ImportError and no missing file."""
    texts = {}
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except ImportError as error:
            texts[name] = str(error)
    return texts


def multiply():
    import numpy

    matrix = numpy.arange(4.0).reshape(2, 2)
    return (matrix @ matrix).tolist()


def count_bits():
    import bitarray

    bits = bitarray.bitarray("1101")
    return bits.count(), bits.to01()


def use_standard_library():
    """Exercise what keeps state of its own."""
    import asyncio
    import json
    import logging
    import queue
    import re

    async def add(left, right):
        await asyncio.sleep(0)
        return left + right

    async def gather():
        return await asyncio.gather(add(1, 2), add(3, 4))

    results = queue.Queue()
    worker = threading.Thread(target=lambda: results.put(json.loads("[1, 2]")))
    worker.start()
    worker.join()
    logger = logging.getLogger("mode_helpers")
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    logger.warning("said %d", 1)
    logger.removeHandler(handler)
    return asyncio.run(gather()), results.get(), records, re.sub("a+", "b", "caat")


# What a context may leave in its interpreter


class Departing:
    """Tell when it goes."""

    def __init__(self, pid, name):
        self.pid = pid
        self.name = name

    def __del__(self):
        erlang.send(self.pid, ("gone", self.name))


def departing(pid, name):
    return Departing(pid, name)


class Clinging:
    """Never done with going."""

    def __init__(self, pid):
        self.pid = pid

    def __del__(self):
        erlang.send(self.pid, "clinging")
        while True:
            pass


def cling(pid):
    global clinging
    clinging = Clinging(pid)


class PerThread(threading.local):
    pass


def keep_in_thread(pid, name):
    global per_thread
    per_thread = PerThread()
    per_thread.thing = Departing(pid, name)


def change_much():
    """Change what belongs to the interpreter, in every way that a program has."""
    import builtins
    import json
    import types

    sys.path.insert(0, "/nowhere")
    sys.modules["own_module"] = types.ModuleType("own_module")
    sys.modules["colorsys"] = types.ModuleType("colorsys")
    sys.modules["json"] = types.ModuleType("json")
    sys.modules["__main__"].own_name = 1
    builtins.own_builtin = 1
    builtins.len = json.dumps
    time.monotonic = lambda: 0
    sys.stdout = None
    sys.setrecursionlimit(5000)
    sys.meta_path.insert(0, None)
    sys.meta_path.pop(0)
    reactor.set_protocol_factory(Echo)
    return interpreter()


def traces():
    """What :func:`change_much` may have left, for an interpreter without this module."""
    import builtins
    import colorsys
    import json

    return {
        "path": "/nowhere" in sys.path,
        "module": "own_module" in sys.modules,
        "standard": not hasattr(colorsys, "rgb_to_hsv"),
        "json": not hasattr(json, "dumps"),
        "main": hasattr(sys.modules["__main__"], "own_name"),
        "builtins": hasattr(builtins, "own_builtin"),
        "len": type(len).__name__ != "builtin_function_or_method",
        "monotonic": time.monotonic() == 0,
        "stdout": sys.stdout is None,
        "recursion": sys.getrecursionlimit() == 5000,
    }


def start_thread(pid, kind):
    """A thread that outlives the call: until no process has the name mode_hold any more."""

    def run():
        erlang.send(pid, "thread runs")
        while erlang.whereis("mode_hold") is not None:
            time.sleep(0.01)
            erlang.send(pid, "beat")

    if kind == "threading":
        threading.Thread(target=run).start()
    else:
        _thread.start_new_thread(run, ())


def interpreter_in_interpreter():
    """What calls Erlang from an interpreter that Python code has made."""
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    made = interpreters.create()
    try:
        code = "import _causeway\nassert _causeway._call('mode_double', (21,)) == ('ok', 42)\n_causeway._sleep(0.001)\n"
        return repr(interpreters.run_string(made, code))
    finally:
        interpreters.destroy(made)
