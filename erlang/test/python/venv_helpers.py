"""What the suite of virtual environments needs on the Python side."""

import importlib.machinery
import multiprocessing
import os
import site
import sys
import sysconfig
from multiprocessing import resource_tracker

import erlang


def state():
    """All that an activation changes, as text."""
    return {
        "path": sys.path,
        "prefix": [sys.prefix, sys.exec_prefix, sys.base_prefix],
        "executable": [
            sys.executable,
            sys._base_executable,
            os.fsdecode(multiprocessing.spawn.get_executable()),
        ],
        "environment": dict(os.environ),
        "finders": list(map(repr, sys.meta_path)),
        "hooks": list(map(repr, sys.path_hooks)),
        "site": site.PREFIXES,
        "sysconfig": sysconfig.get_paths(),
    }


def origin(name):
    """Where a module would be imported from, if it were not imported yet."""
    spec = importlib.machinery.PathFinder.find_spec(name)
    return None if spec is None else spec.origin


def change_meanwhile():
    sys.path.insert(0, "/somebody/elses")
    os.environ["PATH"] = "/first:" + os.environ["PATH"]
    os.environ["VIRTUAL_ENV"] = "/another"


def changed_meanwhile():
    """Whether those changes are still there; takes them back."""
    found = (
        sys.path[0] == "/somebody/elses",
        os.environ["PATH"].startswith("/first:"),
        os.environ.pop("VIRTUAL_ENV"),
    )
    sys.path.remove("/somebody/elses")
    os.environ["PATH"] = os.environ["PATH"].removeprefix("/first:")
    return found


# multiprocessing: what runs there is found by the name of this module.


def square(number):
    return number * number, os.getpid(), sys.executable, sys.prefix, erlang.in_beam()


def put_origin(queue, name):
    queue.put(origin(name))


def run_pool():
    """What the processes of a pool answer, and how many of them are left."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        answers = pool.map(square, range(4))
        pool.close()
        pool.join()
    left = [pid for _, pid, *_ in answers if os.path.exists(f"/proc/{pid}")]
    return [answer[0] for answer in answers], sorted({answer[2:] for answer in answers}), left


def run_process(name):
    """Where a process finds a module, its exit code, and whether it is left."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=put_origin, args=(queue, name))
    process.start()
    found = queue.get(timeout=30)
    process.join()
    return found, process.exitcode, os.path.exists(f"/proc/{process.pid}")


def children():
    """The processes whose parent this one is, those included that have ended and were not waited for.

    multiprocessing's tracker lives as long as its parent: it is ended first.
    """
    resource_tracker._resource_tracker._stop()
    own = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                parent = stat.read().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == os.getpid():
            own.append(int(name))
    return sorted(own)
