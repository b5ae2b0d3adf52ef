"""The Python ends of bench_channels.erl."""

import itertools
from time import perf_counter_ns


def count_bytes(channel):
    """Receives one by one, as bytes."""
    count = 0
    for _message in channel:
        count += 1
    return count


def count_buffers(channel):
    """Receives one by one, without a copy."""
    receive = channel.receive_buffer
    for count in itertools.count():
        try:
            receive()
        except RuntimeError:
            return count


def count_many(channel):
    """Receives as many at once as are there."""
    count = 0
    receive = channel.receive_many
    while True:
        try:
            count += len(receive())
        except RuntimeError:
            return count


def send(channel, size, milliseconds):
    """Sends one by one for so long, and waits for room. Returns how many."""
    data = b"x" * size
    send = channel.send_bytes
    batch = 100 if size < 4096 else 1
    deadline = perf_counter_ns() + milliseconds * 1_000_000
    count = 0
    while perf_counter_ns() < deadline:
        for _ in range(batch):
            send(data, timeout_ms=-1)
        count += batch
    channel.close()
    return count


def echo(source, target):
    """Sends back what it receives."""
    for message in source:
        target.send_bytes(message)


def new_bytes(size, milliseconds):
    """How many bytes objects of that size are made in a second, by PyBytes_FromStringAndSize."""
    source = bytearray(b"x" * size)
    start = now = perf_counter_ns()
    deadline = start + milliseconds * 1_000_000
    count = 0
    while now < deadline:
        for _ in range(10):
            _message = bytes(source)  # kept until the next is there, as a receiver does
        count += 10
        now = perf_counter_ns()
    return count * 1e9 / (now - start)
