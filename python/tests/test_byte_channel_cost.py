"""What an operation on a byte channel costs, counted: it must not depend on how much is queued."""

import os
import subprocess
import sys

from byte_channel_support import PACKAGE, PATIENCE

COUNTED = """
import ctypes, sys
from erlang import ByteChannel

library = ctypes.CDLL(None)
counters = [library.preload_allocations, library.preload_copied]
for counter in counters:
    counter.restype = ctypes.c_long

def cost(depth):
    channel = ByteChannel.new()
    for _ in range(depth):
        channel.send_bytes(message)
    before = [counter() for counter in counters]
    for _ in range(2560):
        channel.send_bytes(message)
        channel.receive_bytes()
    return [counter() - start for counter, start in zip(counters, before)]

message = b"x" * 64
cost(1)
print(*cost(1), *cost(1_000_000))
"""


def test_a_send_costs_the_same_at_any_depth(preload):
    finished = subprocess.run(
        [sys.executable, "-c", COUNTED],
        env=os.environ | {"LD_PRELOAD": str(preload), "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert finished.returncode == 0, finished.stderr
    allocations, copied, allocations_deep, copied_deep = map(int, finished.stdout.split())
    # It counts: each message is made and copied on both sides.
    assert allocations >= 2560
    assert copied >= 2560 * 2 * 64
    # A queue that grows takes a segment for 256 messages.
    assert allocations_deep <= allocations + 2 * 2560 // 256
    assert copied_deep <= copied + 4096
