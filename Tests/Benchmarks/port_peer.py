"""What Causeway is measured against: a Python child of open_port with {packet, 4}.

Requests {call, Module, Function, Args} and replies {ok, Result} | {error, {Type, Text}} are in
Erlang's external term format, read and written in plain Python as one would without a library. While it
serves a request, the child may send {callback, Name, Args} and waits for {ok, Result}.
"""

import sys
from functools import cache
from importlib import import_module
from struct import Struct

U16 = Struct("!H")
U32 = Struct("!I")
I32 = Struct("!i")
F64 = Struct("!d")


class Atom(str):
    """An Erlang atom other than true, false and none."""

    __slots__ = ()


# Decoding: one function for each tag; it gets the position after the tag and returns the value and
# the position after the value.

CONSTANTS = {b"true": True, b"false": False, b"none": None}


@cache
def to_atom(name: bytes, encoding: str):
    return CONSTANTS[name] if name in CONSTANTS else Atom(name, encoding)


def decode_value(data, pos):
    return DECODERS[data[pos]](data, pos + 1)


def decode_small_integer(data, pos):
    return data[pos], pos + 1


def decode_integer(data, pos):
    return I32.unpack_from(data, pos)[0], pos + 4


def decode_small_big(data, pos):
    return decode_big(data, pos + 1, data[pos])


def decode_large_big(data, pos):
    return decode_big(data, pos + 4, U32.unpack_from(data, pos)[0])


def decode_big(data, pos, size):
    end = pos + 1 + size
    value = int.from_bytes(data[pos + 1 : end], "little")
    return (-value if data[pos] else value), end


def decode_float(data, pos):
    return F64.unpack_from(data, pos)[0], pos + 8


def decode_atom_latin1(data, pos):
    end = pos + 2 + U16.unpack_from(data, pos)[0]
    return to_atom(data[pos + 2 : end], "latin-1"), end


def decode_atom_utf8(data, pos):
    end = pos + 2 + U16.unpack_from(data, pos)[0]
    return to_atom(data[pos + 2 : end], "utf-8"), end


def decode_small_atom_latin1(data, pos):
    end = pos + 1 + data[pos]
    return to_atom(data[pos + 1 : end], "latin-1"), end


def decode_small_atom_utf8(data, pos):
    end = pos + 1 + data[pos]
    return to_atom(data[pos + 1 : end], "utf-8"), end


def decode_binary(data, pos):
    end = pos + 4 + U32.unpack_from(data, pos)[0]
    return data[pos + 4 : end], end


def decode_string(data, pos):
    end = pos + 2 + U16.unpack_from(data, pos)[0]
    return list(data[pos + 2 : end]), end


def decode_nil(data, pos):
    return [], pos


def decode_items(data, pos, count):
    items = []
    append = items.append
    decoders = DECODERS
    for _ in range(count):
        item, pos = decoders[data[pos]](data, pos + 1)
        append(item)
    return items, pos


def decode_list(data, pos):
    items, pos = decode_items(data, pos + 4, U32.unpack_from(data, pos)[0])
    tail, pos = decode_value(data, pos)
    if tail != []:
        raise ValueError("improper list")
    return items, pos


def decode_small_tuple(data, pos):
    items, pos = decode_items(data, pos + 1, data[pos])
    return tuple(items), pos


def decode_large_tuple(data, pos):
    items, pos = decode_items(data, pos + 4, U32.unpack_from(data, pos)[0])
    return tuple(items), pos


def decode_map(data, pos):
    items, pos = decode_items(data, pos + 4, 2 * U32.unpack_from(data, pos)[0])
    return dict(zip(items[::2], items[1::2], strict=True)), pos


DECODERS = {
    70: decode_float,
    97: decode_small_integer,
    98: decode_integer,
    100: decode_atom_latin1,
    104: decode_small_tuple,
    105: decode_large_tuple,
    106: decode_nil,
    107: decode_string,
    108: decode_list,
    109: decode_binary,
    110: decode_small_big,
    111: decode_large_big,
    115: decode_small_atom_latin1,
    116: decode_map,
    118: decode_atom_utf8,
    119: decode_small_atom_utf8,
}


def decode(data: bytes):
    if data[0] != 131:
        raise ValueError("not the external term format")
    return decode_value(data, 1)[0]


# Encoding: one function for each type; it appends pieces to a list.


def encode_int(value, pieces):
    if 0 <= value <= 255:
        pieces.append(b"a%c" % value)
    elif -0x80000000 <= value <= 0x7FFFFFFF:
        pieces.append(b"b" + I32.pack(value))
    else:
        size = (abs(value).bit_length() + 7) // 8
        head = b"n%c" % size if size <= 255 else b"o" + U32.pack(size)
        pieces.append(head + (b"\1" if value < 0 else b"\0") + abs(value).to_bytes(size, "little"))


def encode_float(value, pieces):
    pieces.append(b"F" + F64.pack(value))


def encode_atom(value, pieces):
    name = value.encode()
    if len(name) <= 255:
        pieces.append(b"w%c" % len(name) + name)
    else:
        pieces.append(b"v" + U16.pack(len(name)) + name)


def encode_bool(value, pieces):
    pieces.append(b"w\4true" if value else b"w\5false")


def encode_none(value, pieces):
    pieces.append(b"w\4none")


def encode_bytes(value, pieces):
    pieces.append(b"m" + U32.pack(len(value)))
    pieces.append(value)


def encode_str(value, pieces):
    encode_bytes(value.encode(), pieces)


def encode_items(values, pieces):
    encoders = ENCODERS
    for value in values:
        encoders[type(value)](value, pieces)


def encode_tuple(value, pieces):
    size = len(value)
    pieces.append(b"h%c" % size if size <= 255 else b"i" + U32.pack(size))
    encode_items(value, pieces)


def encode_list(value, pieces):
    if value:
        pieces.append(b"l" + U32.pack(len(value)))
        encode_items(value, pieces)
    pieces.append(b"j")


def encode_dict(value, pieces):
    pieces.append(b"t" + U32.pack(len(value)))
    for pair in value.items():
        encode_items(pair, pieces)


ENCODERS = {
    Atom: encode_atom,
    bool: encode_bool,
    bytearray: encode_bytes,
    bytes: encode_bytes,
    dict: encode_dict,
    float: encode_float,
    int: encode_int,
    list: encode_list,
    str: encode_str,
    tuple: encode_tuple,
    type(None): encode_none,
}


def encode(value) -> bytes:
    pieces = [b"\x83"]
    ENCODERS[type(value)](value, pieces)
    return b"".join(pieces)


# The loop.

OK = Atom("ok")
ERROR = Atom("error")

module_named = cache(import_module)


def answer(request: bytes) -> bytes:
    try:
        _, module, function, args = decode(request)
        return encode((OK, getattr(module_named(module), function)(*args)))
    except Exception as error:  # Whatever it is, the caller gets it.
        return encode((ERROR, (Atom(type(error).__name__), str(error))))


def receive():
    requests = sys.stdin.buffer
    header = requests.read(4)
    return requests.read(U32.unpack(header)[0]) if header else None


def send(message: bytes):
    replies = sys.stdout.buffer
    replies.write(U32.pack(len(message)) + message)
    replies.flush()


def call_back(name, *args):
    """What erlang.call is with ours."""
    send(encode((Atom("callback"), Atom(name), list(args))))
    _, result = decode(receive())
    return result


def main():
    while (request := receive()) is not None:
        send(answer(request))


if __name__ == "__main__":
    main()
