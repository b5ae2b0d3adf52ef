"""What the suites share: protocols on socketpairs, and the pace of hypothesis."""

import asyncio
import contextlib
import gc
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

import erlang
from erlang import reactor

# Machines that test are slow at times; a slow example is no error.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


# The core's types that are called by the module in which people find them.
NAMED = (erlang.Pid, erlang.Ref, erlang.Term, erlang.Atom, reactor.Protocol, reactor.ReactorBuffer)

# What one connection or loop has: the exceptions that a test has expected keep it until others come. Modules
# that are imported meanwhile refer to the core's types, too.
SLACK = {"descriptors": 4, "threads": 1, "children": 0, "objects": 30}


def holdings():
    """What this process has open and running."""
    tasks = os.listdir("/proc/self/task")
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(tasks),
        "children": sum(map(children, tasks)),
        "objects": objects(),
    }


def objects():
    """How many objects of the core's types there are, more or less: each has a reference to its type."""
    return sum(map(sys.getrefcount, native_types(object)))


def native_types(base, is_native=False):
    """Those of them that come from a type, and what Python's classes make of them. No module lists them."""
    for kind in type.__subclasses__(base):
        is_one = is_native or kind.__module__ == "_causeway" or kind in NAMED
        if is_one:
            yield kind
        yield from native_types(kind, is_one)


def children(task):
    """How many children a thread has: none if it has ended since it was listed, as those of a node do."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return len(Path(f"/proc/self/task/{task}/children").read_text().split())
    return 0


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left():
    """After a module, this process has no more of anything than before, but for what the last test has."""
    # libuv has two descriptors for signals as long as the process lives.
    uvloop.new_event_loop().close()
    most = {kind: count + SLACK[kind] for kind, count in holdings().items()}
    yield
    end = time.monotonic() + 10
    while more := {kind: count for kind, count in holdings().items() if count > most[kind]}:
        gc.collect()
        assert time.monotonic() < end, f"{more}, not {most}: open are {kinds_of_descriptors()}"


def kinds_of_descriptors():
    links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return Counter(re.sub(r"\d+", "N", link) for link in links)


@pytest.fixture(
    params=[None, uvloop.EventLoopPolicy, erlang.EventLoopPolicy], ids=["asyncio", "uvloop", "erlang"]
)
def every_loop(request):
    """A test that uses this runs on every kind of event loop."""
    asyncio.set_event_loop_policy(request.param and request.param())
    yield
    asyncio.set_event_loop_policy(None)


@pytest.fixture(scope="session")
def preload(tmp_path_factory):
    """The library that counts allocations and copies, made by the compiler that comes with Swift."""
    if not shutil.which("clang"):
        pytest.skip("no clang to build the library with")
    if "LD_PRELOAD" in os.environ:
        pytest.skip("another library is preloaded, as a sanitizer is: it has the allocations")
    source = Path(__file__).parents[2] / "Tests/Preload/preload.c"
    library = tmp_path_factory.mktemp("preload") / "preload.so"
    options = ["-shared", "-fPIC", "-O1", "-ftls-model=initial-exec"]
    subprocess.run(["clang", *options, "-o", library, source, "-ldl"], check=True)
    return library


class Connection:
    """A protocol on one end of a socketpair, and the other end, which is the client's."""

    def __init__(self, factory, info):
        self.client, self.server = socket.socketpair()
        self.client.settimeout(10)
        self.server.setblocking(False)
        self.fd = self.server.fileno()
        self.waits_to_write = False
        reactor.set_protocol_factory(factory)
        self.protocol = reactor.init_connection(self.fd, info)

    def pump(self):
        """Do what the reactor does until it would wait; return the last action."""
        action = self.steps()
        if action == "close":
            del self.protocol.write_buffer[: self.protocol.write(self.protocol.write_buffer)]
        return action

    def steps(self):
        while True:
            if self.waits_to_write:
                action = reactor.on_write_ready(self.fd)
                if action != "read_pending":
                    return action
                self.waits_to_write = False
            action = reactor.on_read_ready(self.fd)
            self.waits_to_write = action == "write_pending"
            if not self.waits_to_write:
                return action

    def ask(self, request):
        """Send a request and return what comes back at once."""
        self.client.sendall(request)
        self.pump()
        return self.client.recv(1 << 20)

    def close(self):
        reactor.close_connection(self.fd)
        self.client.close()
        self.server.close()


@pytest.fixture
def connect():
    """Makes connections: connect(factory, **client_info)."""
    with contextlib.ExitStack() as stack:

        def connect(factory, **info):
            connection = Connection(factory, info)
            stack.callback(connection.close)
            return connection

        yield connect
    reactor.set_protocol_factory(None)
