"""The package in a plain python3: it imports, and what needs a BEAM says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import _causeway
import erlang
from erlang import process, reactor

PACKAGE = Path(erlang.__file__).parent.parent
FIND_PYTHONS = PACKAGE.parent / ".ci/find-pythons"


def run(python, code, **environment):
    """Run code in another Python that can import the package; return what it prints."""
    finished = subprocess.run(
        [python, "-X", "faulthandler", "-c", code],
        env=os.environ | {"PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def other_pythons():
    if not FIND_PYTHONS.exists():
        return [sys.executable]
    listing = subprocess.run([FIND_PYTHONS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = [line.split(" ", 1)[1] for line in listing.stdout.splitlines()]
    return list(dict.fromkeys([*found, "/usr/bin/python3", sys.executable]))


def test_there_is_no_beam():
    assert erlang.in_beam() is False


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *[("send", (None, 1)), ("send", ()), ("whereis", ("init",)), ("whereis", (1,)), ("whereis", ())],
        *[("self", ()), ("call", ("name", 1)), ("call", ("name",))],
    ],
)
def test_what_needs_a_beam(name, arguments):
    with pytest.raises(RuntimeError, match=rf"erlang\.{name}\(\) needs a BEAM"):
        getattr(erlang, name)(*arguments)


def test_erlang_function_as_attribute():
    with pytest.raises(RuntimeError, match=r"erlang\.price\(\) needs a BEAM"):
        erlang.price("tea")
    # Whoever only looks is told as Python tells it.
    with pytest.raises(AttributeError, match="needs a BEAM") as raised:
        erlang.price  # noqa: B018
    assert raised.value.name == "price"
    assert not hasattr(erlang, "price")
    assert getattr(erlang, "price", 3) == 3
    with pytest.raises(ImportError):
        from erlang import price  # noqa: F401


def test_special_names_are_no_erlang_functions():
    with pytest.raises(AttributeError, match="has no attribute '__path_hooks__'") as raised:
        erlang.__path_hooks__  # noqa: B018
    assert not isinstance(raised.value, RuntimeError)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("_write", ("x",)), ("_write_error", ("x",)), ("_flush", ()), ("_log", (30, "x", {}))],
)
def test_output_needs_a_beam(name, arguments):
    with pytest.raises(RuntimeError, match="needs a BEAM"):
        getattr(_causeway, name)(*arguments)


@pytest.mark.parametrize("name", ["open", "run"])
def test_programs_need_a_beam(name):
    with pytest.raises(RuntimeError, match=rf"erlang\.process\.{name}\(\) needs a BEAM.*subprocess"):
        getattr(process, name)("true")


def test_nothing_is_changed():
    state = "sys.stdout, sys.stderr, time.sleep, sys.excepthook, multiprocessing.get_start_method()"
    code = (
        "import sys, time, logging, os, multiprocessing\n"
        f"before = {state}\n"
        "import erlang, erlang.reactor\n"
        f"assert before == ({state})\n"
        "assert not logging.root.handlers\n"
        "child = os.fork()\n"
        "if child == 0: os.execv('/bin/true', ['true'])\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    assert run(sys.executable, code) == "0\n"


def test_terms_come_from_erlang_only():
    for type_ in (erlang.Pid, erlang.Ref, erlang.Term):
        with pytest.raises(TypeError):
            type_()
        with pytest.raises(TypeError):
            type_.__new__(type_)
        with pytest.raises(TypeError):
            object.__new__(type_)
        with pytest.raises(TypeError):
            type("Sub", (type_,), {})


def test_interruptions_are_no_exceptions():
    assert issubclass(erlang.CallInterrupted, BaseException)
    assert not issubclass(erlang.CallInterrupted, Exception)


def test_what_is_exported_is_there_and_documented():
    for module in (erlang, reactor):
        assert module.__doc__
        for name in module.__all__:
            assert getattr(getattr(module, name), "__doc__", None), name
    public = {name for name in dir(_causeway) if not name.startswith("_")}
    assert public <= {*erlang.__all__, *reactor.__all__}


def test_the_package_is_typed():
    for name in ("erlang/py.typed", "erlang/__init__.pyi", "erlang/reactor.pyi", "_causeway.pyi"):
        assert (PACKAGE / name).exists()


@pytest.mark.parametrize("python", other_pythons())
def test_every_python_loads_the_same_file(python):
    code = """if True:
        import socket, sys, _causeway
        from erlang import reactor

        class Echo(reactor.Protocol):
            def data_received(self, data):
                self.write_buffer += data
                return "write_pending"

        reactor.set_protocol_factory(Echo)
        here, there = socket.socketpair()
        reactor.init_connection(here.fileno(), {})
        there.sendall(b"ping")
        assert reactor.on_read_ready(here.fileno()) == "write_pending"
        assert reactor.on_write_ready(here.fileno()) == "read_pending"
        assert there.recv(10) == b"ping"
        print(_causeway.__file__)
        """
    assert run(python, code) == f"{_causeway.__file__}\n"


def test_import_again():
    """A second import of the native module, as importlib.reload and test runners do."""
    code = """if True:
        import importlib, sys, gc
        import erlang.reactor
        first = erlang.reactor.Protocol
        for name in [name for name in sys.modules if name.split(".")[0] in ("erlang", "_causeway")]:
            del sys.modules[name]
        gc.collect()
        import erlang.reactor
        erlang.reactor.set_protocol_factory(erlang.reactor.Protocol)
        erlang.reactor.close_connection(erlang.reactor.init_connection(9999, {}).fd)
        first().connection_made(1, {})
        importlib.reload(erlang)
        print("ok")
        """
    assert run(sys.executable, code) == "ok\n"


def test_protocols_that_live_to_the_end():
    """Interpreter shutdown with connections, factories and views still there."""
    code = """if True:
        from erlang import reactor
        class P(reactor.Protocol):
            def __del__(self):
                self.write_buffer, self.client_info
        reactor.set_protocol_factory(P)
        kept = [reactor.init_connection(n, {"me": P()}) for n in range(9000, 9100)]
        view = memoryview(reactor.ReactorBuffer(b"abc"))
        print("ok")
        """
    assert run(sys.executable, code) == "ok\n"


def test_fork():
    code = """if True:
        import os
        from erlang import reactor
        reactor.set_protocol_factory(reactor.Protocol)
        child = os.fork()
        if child == 0:
            reactor.init_connection(9999, {})
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    assert run(sys.executable, code) == "7\n"


def test_subinterpreters():
    """Each interpreter has a module of its own; the main one is not touched."""
    code = """if True:
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        from erlang import reactor
        reactor.set_protocol_factory(reactor.Protocol)
        other = interpreters.create()
        interpreters.run_string(other, '''if True:
            from erlang import reactor
            try:
                reactor.init_connection(9999, {})
            except RuntimeError:
                print("apart", flush=True)
            reactor.set_protocol_factory(reactor.Protocol)
            reactor.init_connection(9999, {})
            ''')
        print(reactor.get_protocol(9999))
        interpreters.destroy(other)
        print(type(reactor.init_connection(9999, {})) is reactor.Protocol)
        """
    assert run(sys.executable, code) == "apart\nNone\nTrue\n"
