"""CPython's own tests of asyncio against erlang.EventLoop."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("asyncio_of_cpython.py")
# They sleep most of the time.
AT_ONCE = 4
# Those first that take longest.
MODULES = [
    "test_tasks",
    "test_subprocess",
    "test_ssl",
    "test_events",
    "test_sslproto",
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_futures",
    "test_locks",
    "test_pep492",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_sock_lowlevel",
    "test_streams",
    "test_taskgroups",
    "test_threads",
    "test_timeouts",
    "test_unix_events",
    "test_waitfor",
]

# Tests that look into asyncio's loop, or give it what is no descriptor.
EXCLUDED = {
    # A mock in the place of a socket, whose fileno() is another mock: the core waits for real descriptors.
    "BaseEventLoopWithSelectorTests.test_create_server_soreuseport_only_defined": "test_base_events",
    # Wants a task that was ready before to run before a datagram that has come: ours delivers first.
    "test_datagram_send_to_non_listening_address": "test_events",
    "SslProtoHandshakeTests.test_connection_lost_when_busy": "test_sslproto",
    # Has a private method of asyncio's own transport.
    "TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket": "test_ssl",
}


@pytest.fixture(scope="module")
def runs():
    """A run of each module, all of them begun."""
    if importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this Python comes without its tests (Debian: libpython3.11-testsuite)")
    environment = dict(os.environ)
    environment.pop("PYTEST_CURRENT_TEST", None)

    def run(module):
        excluded = [test for test, of in EXCLUDED.items() if of == module]
        command = [sys.executable, RUNNER, module, *excluded]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {module: pool.submit(run, module) for module in MODULES if _is_there(module)}


def _is_there(module):
    return importlib.util.find_spec(f"test.test_asyncio.{module}") is not None


@pytest.mark.parametrize("module", MODULES)
def test_module(runs, module):
    if module not in runs:
        pytest.skip(f"this Python has no {module}")
    result = runs[module].result()
    assert result.returncode == 0, result.stderr[-8000:]
