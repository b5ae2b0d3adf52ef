"""CBOR (RFC 8949), as the frames of streaming calls are written; by the core, also in plain python3.

``None`` is null, ``str`` text, bytes-like objects are byte strings, lists and tuples arrays, dicts maps in
their own order; ints have any size, floats 64 bits. Lengths are definite.
"""

from _causeway import _cbor_dumps, _cbor_loads

__all__ = ["dumps", "loads"]


def dumps(value):
    """Return a value as CBOR, as bytes.

    Raises TypeError for what has no form in CBOR, ValueError for what contains itself or is nested more than
    200 levels deep, UnicodeEncodeError for text that UTF-8 has not.
    """
    return _cbor_dumps(value)


def loads(data):
    """Return the one value that bytes hold.

    Arrays become lists, and tuples where they are keys; undefined becomes None. Tags other than those of
    large ints are left out. Raises ValueError for what is no CBOR, for bytes that follow, for a key that a
    map has twice, and for one that cannot be a key of a dict: a map, or an array with a map or an array
    in it; TypeError for what is not bytes-like. Everything is copied.
    """
    return _cbor_loads(data)
