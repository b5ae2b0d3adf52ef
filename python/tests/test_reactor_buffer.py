"""ReactorBuffer against bytes: whatever bytes does, it does, with the same results and errors."""

import gc
import itertools
import pickle
import struct
import sys
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from erlang import reactor
from erlang.reactor import ReactorBuffer

# Few different bytes, so that searches find something; white space, letters and what is neither.
ALPHABET = b"aAb \t\n\r\0\xff-1"
some_bytes = st.lists(st.sampled_from(ALPHABET), max_size=40).map(bytes) | st.binary(max_size=300)
pieces = st.lists(st.sampled_from(ALPHABET), max_size=3).map(bytes)
byteslike = st.sampled_from([bytes, bytearray, memoryview, ReactorBuffer])
indices = (
    st.none() | st.integers(-45, 45) | st.sampled_from([sys.maxsize, -sys.maxsize - 1, 1 << 80, -(1 << 80)])
)


def outcome(function):
    """What a function returns or raises, in a form that can be compared."""
    try:
        result = function()
    except Exception as error:
        return type(error)
    return type(result), result


def assert_same(data, function):
    """Assert that a function does the same with a ReactorBuffer as with the bytes in it."""
    buffer = ReactorBuffer(data)
    assert outcome(lambda: function(buffer)) == outcome(lambda: function(data))
    assert bytes(buffer) == data


PLAIN = [
    "capitalize", "decode", "expandtabs", "hex", "isalnum", "isalpha", "isascii", "isdigit", "islower",
    "isspace", "istitle", "isupper", "lower", "lstrip", "rstrip", "rsplit", "split", "splitlines", "strip",
    "swapcase", "title", "upper",
]  # fmt: skip
SEARCHES = ["count", "endswith", "find", "index", "rfind", "rindex", "startswith"]
WITH_PIECE = [
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "strip",
]
WIDTHS = ["center", "ljust", "rjust", "zfill"]
OTHERS = ["fromhex", "join", "maketrans", "replace", "translate"]


def test_every_method_of_bytes_is_tried():
    methods = {name for name in dir(bytes) if not name.startswith("_")}
    # bytes.fromhex gained no siblings up to 3.14.
    assert methods == {*PLAIN, *SEARCHES, *WITH_PIECE, *WIDTHS, *OTHERS}
    assert all(callable(getattr(ReactorBuffer(b"a"), name)) for name in methods)


@given(some_bytes)
def test_methods_without_arguments(data):
    for name in PLAIN:
        assert_same(data, lambda it, name=name: getattr(it, name)())


@given(some_bytes, pieces | st.integers(-1, 256), byteslike, indices, indices)
@example(b"", b"", bytes, None, None)
@example(b"", b"", bytes, 1, None)
@example(b"abc", b"", bytes, 4, None)
@example(b"abc", b"", bytes, 3, 2)
def test_searches(data, piece, kind, start, end):
    sought = kind(piece) if isinstance(piece, bytes) else piece
    for name in SEARCHES:
        assert_same(data, lambda it, name=name: getattr(it, name)(sought))
        assert_same(data, lambda it, name=name: getattr(it, name)(sought, start))
        assert_same(data, lambda it, name=name: getattr(it, name)(sought, start, end))
    assert_same(data, lambda it: it.startswith((sought, b"x"), start, end))
    assert_same(data, lambda it: it.endswith((sought, b"x"), start, end))


@pytest.mark.parametrize(
    "sought", [None, "a", 1.0, 256, -1, 1 << 70, (), ("a",), (b"a", 1), [b"a"], object()]
)
def test_searches_for_what_is_wrong(sought):
    for name in SEARCHES:
        assert_same(b"abc", lambda it, name=name: getattr(it, name)(sought))
        assert_same(b"abc", lambda it, name=name: getattr(it, name)())
        assert_same(b"abc", lambda it, name=name: getattr(it, name)(b"a", 0, 1, 2))
        assert_same(b"abc", lambda it, name=name: getattr(it, name)(b"a", "0"))
        assert_same(b"abc", lambda it, name=name: getattr(it, name)(b"a", begin=0))
    assert_same(b"abc", lambda it: sought in it)


@given(some_bytes, pieces, byteslike, st.integers(-1, 3))
def test_methods_with_a_piece(data, piece, kind, limit):
    for name in WITH_PIECE:
        assert_same(data, lambda it, name=name: getattr(it, name)(kind(piece)))
    assert_same(data, lambda it: it.split(kind(piece), limit))
    assert_same(data, lambda it: it.rsplit(sep=kind(piece), maxsplit=limit))
    assert_same(data, lambda it: it.splitlines(keepends=True))
    assert_same(data, lambda it: it.replace(kind(piece), b"xy", limit))
    assert_same(data, lambda it: it.translate(None, delete=piece))
    assert_same(data, lambda it: it.translate(bytes(reversed(range(256)))))
    assert_same(data, lambda it: it.maketrans(piece, piece[::-1]))


@given(some_bytes, st.integers(-1, 60))
def test_methods_with_a_width(data, width):
    for name in WIDTHS:
        assert_same(data, lambda it, name=name: getattr(it, name)(width))
    for name in WIDTHS[:3]:
        assert_same(data, lambda it, name=name: getattr(it, name)(width, b"*"))
    assert_same(data, lambda it: it.expandtabs(width % 10))


@given(some_bytes, st.lists(pieces, max_size=4), byteslike)
def test_join(data, parts, kind):
    assert_same(data, lambda it: it.join(kind(part) for part in parts))
    assert b"-".join([ReactorBuffer(data), b"x"]) == data + b"-x"


@given(
    some_bytes,
    st.sampled_from(["utf-8", "ascii", "latin-1", "utf-16", "none-such"]),
    st.sampled_from(["strict", "replace"]),
)
def test_decode(data, encoding, errors):
    assert_same(data, lambda it: it.decode(encoding))
    assert_same(data, lambda it: it.decode(encoding, errors))
    assert_same(data, lambda it: it.decode(errors=errors))
    assert_same(data, lambda it: str(it, encoding, errors))


@given(some_bytes, indices)
def test_indexing(data, index):
    assert_same(data, lambda it: it[index])


@pytest.mark.parametrize("index", ["0", 1.0, None, (0, 1), b"a", True, object()])
def test_indexing_with_what_is_wrong(index):
    assert_same(b"abc", lambda it: it[index])
    assert_same(b"abc", lambda it: it[index:])


@given(some_bytes, indices, indices, indices)
@example(b"abc", None, None, 0)
@example(b"abc", 1, 0, None)
@example(b"abcdef", None, None, -sys.maxsize - 1)
@example(b"abcdef", -1, None, -2)
def test_slices(data, start, stop, step):
    assert_same(data, lambda it: it[start:stop])
    assert_same(data, lambda it: it[start:stop:step])


@given(some_bytes, some_bytes, byteslike)
def test_comparisons(data, other, kind):
    for right in (kind(other), kind(data), kind(data + b"\0")):
        for compare in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
            oracle = getattr(data, compare)(bytes(right))
            assert getattr(ReactorBuffer(data), compare)(right) is oracle
    assert (bytes(other) == ReactorBuffer(data)) is (other == data)
    assert (bytes(other) < ReactorBuffer(data)) is (other < data)
    assert (bytearray(other) >= ReactorBuffer(data)) is (other >= data)


@pytest.mark.parametrize("other", [None, "abc", 1, [97, 98, 99], object()])
def test_comparisons_with_what_is_no_bytes(other):
    assert ReactorBuffer(b"abc") != other
    assert (ReactorBuffer(b"abc") == other) is False
    assert_same(b"abc", lambda it: it < other)
    assert_same(b"abc", lambda it: it >= other)


@given(some_bytes)
def test_hash_is_that_of_bytes(data):
    assert hash(ReactorBuffer(data)) == hash(data)
    assert {data: "found"}[ReactorBuffer(data)] == "found"
    assert {ReactorBuffer(data): "found"}[data] == "found"


@given(some_bytes, pieces | st.integers(-1, 256), byteslike)
def test_containment(data, piece, kind):
    sought = kind(piece) if isinstance(piece, bytes) else piece
    assert_same(data, lambda it: sought in it)
    assert_same(data, lambda it: sought not in it)


@given(some_bytes)
def test_iteration(data):
    assert_same(data, list)
    assert_same(data, lambda it: list(reversed(it)))
    assert_same(data, lambda it: len(it))
    assert_same(data, lambda it: bool(it))
    assert_same(data, lambda it: sum(it))
    assert_same(data, lambda it: max(it))


@given(some_bytes, some_bytes, byteslike)
def test_concatenation(data, other, kind):
    right = kind(other)
    assert ReactorBuffer(data) + right == data + other
    assert b"" + ReactorBuffer(data) == data
    assert kind(other) + ReactorBuffer(data) == other + data if kind is not memoryview else True
    extended = bytearray(other)
    extended += ReactorBuffer(data)
    extended.extend(ReactorBuffer(data))
    assert extended == other + data + data


@pytest.mark.parametrize("other", [None, "a", 1, [1], object()])
def test_arithmetic_with_what_is_wrong(other):
    assert_same(b"abc", lambda it: it + other)
    assert_same(b"abc", lambda it: other + it)
    assert_same(b"abc", lambda it: it * other)
    assert_same(b"abc", lambda it: it % other)
    assert_same(b"abc", lambda it: other % it)
    assert_same(b"abc", lambda it: it - it)


@given(some_bytes, st.integers(-2, 4))
def test_repetition(data, times):
    assert_same(data, lambda it: it * times)
    assert_same(data, lambda it: times * it)


@pytest.mark.parametrize("times", [sys.maxsize, 1 << 70, -(1 << 70)])
def test_repetition_too_often(times):
    assert_same(b"abc", lambda it: it * times)


def test_percent_formatting():
    assert_same(b"%d %s", lambda it: it % (1, b"x"))
    assert_same(b"%d", lambda it: it % "x")
    assert_same(b"%(a)b", lambda it: it % {b"a": b"1"})
    assert b"<%b>" % ReactorBuffer(b"x") == b"<x>"
    template = "text"
    assert_same(b"abc", lambda it: template % it)


@given(some_bytes)
def test_repr_shows_the_bytes(data):
    assert repr(ReactorBuffer(data)) == f"ReactorBuffer({data!r})"


@given(some_bytes, indices, indices, indices)
def test_views_show_the_bytes(data, start, stop, step):
    buffer = ReactorBuffer(data)
    for view in (memoryview(buffer), buffer.memoryview()):
        assert view.readonly and view.format == "B" and view.itemsize == 1 and view.contiguous
        assert view.obj is buffer
        assert outcome(lambda view=view: bytes(view[start:stop:step])) == outcome(
            lambda: bytes(memoryview(data)[start:stop:step])
        )
    with pytest.raises(TypeError):
        view[0:0] = b""


def test_views_outlive_the_buffer():
    views = [memoryview(ReactorBuffer(bytes([n]) * 70_000)) for n in range(50)]
    gc.collect()
    noise = [ReactorBuffer(b"\xee" * 70_000) for _ in range(50)]
    assert [bytes(view) for view in views] == [bytes([n]) * 70_000 for n in range(50)]
    assert len(noise) == 50


def test_no_writable_view():
    with pytest.raises(TypeError):
        struct.pack_into("B", ReactorBuffer(b"abc"), 0, 1)
    with pytest.raises(TypeError):
        ReactorBuffer(b"abc")[0] = 1
    with pytest.raises(TypeError):
        del ReactorBuffer(b"abc")[0]


def test_construction():
    assert ReactorBuffer() == b""
    for source in (
        b"ab",
        bytearray(b"ab"),
        memoryview(b"ab"),
        memoryview(b"xaxb")[1::2],
        ReactorBuffer(b"ab"),
    ):
        assert ReactorBuffer(source) == b"ab"
    for wrong in ("ab", 3, [97], None):
        with pytest.raises(TypeError):
            ReactorBuffer(wrong)
    with pytest.raises(TypeError):
        ReactorBuffer(b"a", b"b")
    with pytest.raises(TypeError):
        ReactorBuffer(data=b"a")


def test_a_copy_is_a_copy():
    source = bytearray(b"abc")
    buffer = ReactorBuffer(source)
    source[:] = b"xyz"
    source.clear()
    assert buffer == b"abc"


def test_it_is_final_and_closed():
    with pytest.raises(TypeError):
        type("Sub", (ReactorBuffer,), {})
    with pytest.raises((AttributeError, TypeError)):
        ReactorBuffer(b"a").extra = 1
    with pytest.raises((AttributeError, TypeError)):
        ReactorBuffer.find = None


def test_unknown_attributes():
    assert_same(b"a", lambda it: it.none_such)
    assert_same(b"a", lambda it: it._private)
    assert_same(b"a", lambda it: hasattr(it, "read"))
    assert_same(b"a", lambda it: getattr(it, "none_such", 5))
    assert_same(b"a", lambda it: getattr(it, "\ud800", 5))
    assert_same(b"a", lambda it: getattr(it, 1))


def test_methods_are_the_types_as_well():
    assert ReactorBuffer.decode(ReactorBuffer(b"a")) == "a"
    assert ReactorBuffer.fromhex("61") == b"a"
    assert {name for name in dir(bytes) if not name.startswith("_")} <= set(dir(ReactorBuffer))


def test_what_is_not_contiguous():
    """A view with steps is bytes-like, too, but a function that wants one run of bytes refuses it."""
    view = memoryview(b"xaxb")[1::2]
    assert_same(b"ab", lambda it: it == view)
    assert_same(b"ab", lambda it: it != view)
    assert_same(b"ab", lambda it: view == it)
    assert_same(b"ab", lambda it: it + view)
    assert_same(b"ab", lambda it: it.find(view))
    assert_same(b"ab", lambda it: it.startswith(view))
    assert_same(b"ab", lambda it: view in it)
    assert ReactorBuffer(view) == b"ab"


def test_copies_by_other_modules():
    """What takes any bytes-like takes this."""
    buffer = ReactorBuffer(struct.pack("!IH", 5, 6))
    assert struct.unpack("!IH", buffer) == (5, 6)
    assert int.from_bytes(buffer[:4], "big") == 5
    assert int.from_bytes(buffer, "big") == (5 << 16) + 6
    assert int(ReactorBuffer(b" 12 ")) == 12
    assert float(ReactorBuffer(b"1.5")) == 1.5
    assert pickle.loads(ReactorBuffer(pickle.dumps({"a": 1}))) == {"a": 1}
    assert memoryview(buffer).cast("H").shape == (3,)


def test_memory_is_given_back():
    def churn():
        for _ in range(200):
            buffer = ReactorBuffer(bytes(100_000))
            view = memoryview(buffer)
            for function in (
                repr,
                hash,
                list,
                lambda it: it[::2],
                lambda it: it.upper(),
                lambda it: it + b"x",
            ):
                function(ReactorBuffer(b"some bytes"))
            outcome(lambda buffer=buffer: buffer["x"])
            outcome(lambda buffer=buffer: buffer.find("x"))
            outcome(lambda buffer=buffer: buffer + None)
            del view

    churn()
    references = [sys.getrefcount(it) for it in (ReactorBuffer, bytes, TypeError)]
    tracemalloc.start()
    try:
        churn()
        gc.collect()
        resident = resident_pages()
        sizes = [tracemalloc.get_traced_memory()[0]]
        for _ in range(3):
            churn()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        # Each time: a table of Python's that grows does so once.
        assert min(after - before for before, after in itertools.pairwise(sizes)) < 10_000, sizes
        assert resident_pages() - resident < 1000
    finally:
        tracemalloc.stop()
    now = [sys.getrefcount(it) for it in (ReactorBuffer, bytes, TypeError)]
    assert all(abs(after - count) < 50 for after, count in zip(now, references, strict=True))


def resident_pages():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1])


def test_the_type_says_where_it_is_from():
    assert ReactorBuffer.__module__ == "erlang.reactor"
    assert reactor.ReactorBuffer is ReactorBuffer
    assert ReactorBuffer.__doc__
