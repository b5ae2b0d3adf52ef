"""What streaming calls call."""

import time

made_by: dict[str, int] = {}
closed: set[str] = set()


def count(number):
    for i in range(number):
        yield str(i)


def various(args):
    yield "text"
    yield b"\xff"
    yield args
    yield {"a": None}


def double(number):
    return 2 * number


def fail(args):
    raise ValueError(f"no {args}")


def fail_late(args):
    yield "first"
    raise ValueError(f"late {args}")


def endless(name):
    try:
        while True:
            made_by[name] = made_by.get(name, 0) + 1
            yield b"0123456789"
    finally:
        closed.add(name)


def sleep(name):
    try:
        time.sleep(3600)
    finally:
        closed.add(name)


def is_closed(name):
    return name in closed


def made(name):
    return made_by[name]
