"""What leak_cth asks about event loops that nobody has closed."""

import asyncio
import gc
import sys
import types

_DEPTH = 5
_MOST = 8
_WIDTH = 160


def open_loops():
    """Each loop that is not closed when garbage is collected, with those that refer to it, level by level."""
    gc.collect()
    loops = [each for each in gc.get_objects() if _is_open(each)]
    return [_trail(loop, loops) for loop in loops]


def _is_open(each):
    # Nothing else is asked: what looks like a proxy may run code.
    return issubclass(type(each), asyncio.BaseEventLoop) and not each.is_closed()


def _trail(loop, loops):
    seen = {id(loop), id(loops)}
    lines = [f"{loop!r} of the thread {loop._thread_id}, {sys.getrefcount(loop)} references"]
    level = [loop]
    for depth in range(1, _DEPTH + 1):
        following = []
        for target in level:
            referrers = gc.get_referrers(target)
            for each in referrers:
                if id(each) not in seen and not _is_own(each, (level, following, referrers)):
                    seen.add(id(each))
                    following.append(each)
                    lines.append("  " * depth + _described(each, target))
        level = following[:_MOST]
    return "\n".join(lines)


def _is_own(each, lists):
    if isinstance(each, types.FrameType):
        return each.f_globals is globals()
    return any(each is one for one in lists)


def _described(each, target):
    """What an object is, and where in it another is."""
    kind = type(each).__qualname__
    if isinstance(each, types.FrameType):
        return f"{kind} {each.f_code.co_qualname}:{each.f_lineno}"
    if isinstance(each, dict):
        name = each.get("__name__")
        keys = [key for key, value in list(each.items()) if value is target or key is target]
        return f"{kind} {name if isinstance(name, str) else ''}{_text(keys)}"
    return f"{kind} {_text(each)}"


def _text(each):
    try:
        return repr(each)[:_WIDTH]
    except Exception as error:
        return f"({type(error).__name__})"
