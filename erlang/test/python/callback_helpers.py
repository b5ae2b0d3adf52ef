"""What the suites of callbacks and py_timeout_SUITE need on the Python side: functions that call Erlang."""

import concurrent.futures
import importlib
import pickle
import sys
import threading
import time

import erlang


def call(name, *arguments):
    return erlang.call(name, *arguments)


def call_as_attribute(name, *arguments):
    return getattr(erlang, name)(*arguments)


def import_and_call(name, *arguments):
    names = {}
    exec(f"from erlang import {name} as function", names)
    return names["function"](*arguments)


def import_anew(directory, names):
    """Import modules as if it were for the first time.

    What is compiled is not kept: importlib opens such files by os.open, and an interruption between that and the block
    that closes them would leave descriptors.
    """
    sys.dont_write_bytecode = True
    if directory not in sys.path:
        sys.path.insert(0, directory)
    for name in names:
        sys.modules.pop(name, None)
        importlib.import_module(name)


kept = {}


def keep(name):
    """Keeps a function, to call it when it is registered no more."""
    kept[name] = getattr(erlang, name)


def call_kept(name, *arguments):
    return kept[name](*arguments)


def attempt(name, *arguments):
    """The result of a call, or all that its exception says."""
    try:
        return "returned", erlang.call(name, *arguments)
    except erlang.ErlangError as error:
        notes = getattr(error, "__notes__", [])
        return type(error).__name__, str(error), error.kind, error.reason, error.stacktrace, notes
    except Exception as error:
        return type(error).__name__, str(error)


def pickled_error(name):
    """An exception that went through pickle, as between processes."""
    try:
        erlang.call(name)
    except erlang.ErlangError as error:
        copy = pickle.loads(pickle.dumps(error))
        return copy.kind, copy.reason, str(copy) == str(error), copy.stacktrace == error.stacktrace
    return None


def nest(name, depth, *more):
    """One level of Python between two of Erlang."""
    return erlang.call(name, depth, *more)


def with_recursion_limit(limit, name, *arguments):
    """A call while Python itself allows deeper or shallower recursion."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        return erlang.call(name, *arguments)
    finally:
        sys.setrecursionlimit(before)


# Other threads


def in_thread(name, *arguments):
    """Calls Erlang from a thread that is no context's."""
    results = []
    thread = threading.Thread(target=lambda: results.append(attempt(name, *arguments)))
    thread.start()
    thread.join()
    return results


def in_background(name, *arguments):
    """The same without waiting for the thread."""
    threading.Thread(target=call, args=(name, *arguments)).start()


def in_executor(name, workers, numbers):
    with concurrent.futures.ThreadPoolExecutor(workers) as executor:
        return list(executor.map(lambda number: erlang.call(name, number), numbers))


def self_in_thread():
    """What erlang.self() does in a thread that is no context's."""
    results = []

    def work():
        try:
            results.append(erlang.self())
        except RuntimeError as error:
            results.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return results[0]


# What is interrupted


def call_and_tell(pid, name, *arguments):
    """Tells how a call of Erlang was ended."""
    try:
        return erlang.call(name, *arguments)
    except BaseException as error:
        erlang.send(pid, ("ended", type(error).__name__))
        raise


def call_finally(pid, name, last):
    """Calls Erlang once more when it is interrupted, as a context manager does that gives something back."""
    try:
        return erlang.call(name)
    finally:
        erlang.send(pid, ("finally", erlang.call(last)))


def call_stubbornly(name):
    """Waits again and again, whatever it is told."""
    while True:
        try:
            erlang.call(name)
        except BaseException:
            time.sleep(0.001)


def loop_as(pid):
    erlang.send(pid, ("running", erlang.self()))
    while True:
        pass


def sleep_as(pid):
    erlang.send(pid, ("running", erlang.self()))
    time.sleep(100)


def call_as(pid, name):
    erlang.send(pid, ("running", erlang.self()))
    erlang.call(name)


def spin(count):
    while count:
        count -= 1
    return "spun"


def nap(seconds):
    time.sleep(seconds)
    return "slept"


# What a call sees of the one that it is served on top of


def call_in_handler(name):
    """Calls Erlang while an exception is handled."""
    try:
        raise KeyError("of somebody else")
    except KeyError:
        return erlang.call(name)


def complain():
    raise ValueError("mine")


def handled():
    return repr(sys.exc_info()[1])


def self_around(name):
    """Whose call it is, before and after another was served on top."""
    return erlang.self(), erlang.call(name), erlang.self()


class Slow:
    """An exception or a number that lets other threads run while it is converted."""

    def __init__(self, pid, name):
        self.pid = pid
        self.name = name

    def __index__(self):
        erlang.send(self.pid, ("converting", self.name))
        erlang.call(self.name)
        return 17


def slow(pid, name):
    return ["before", Slow(pid, name), [(float(n), 1 << 70) for n in range(1, 51)]]


class SlowError(Exception):
    def __str__(self):
        pid, name = self.args
        erlang.send(pid, ("converting", name))
        erlang.call(name)
        return 50 * "text"


def slow_error(pid, name, _padding):
    raise SlowError(pid, name)


def hold(_data, pid, name):
    erlang.send(pid, ("holding", name))
    erlang.call(name)
    return "held"
