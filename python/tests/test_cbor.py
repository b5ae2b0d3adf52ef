"""CBOR: the examples of RFC 8949, cbor2 as the oracle, and bytes that are none."""

import math
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erlang import Atom, cbor

FUZZ = Path(__file__).parents[2] / "Tests/Fuzz"
CORPORA = ["cbor-items.txt", "cbor.txt"]

EXAMPLES = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("1903e8", 1000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("c249010000000000000000", 18446744073709551616),
    ("3bffffffffffffffff", -18446744073709551616),
    ("c349010000000000000000", -18446744073709551617),
    ("20", -1),
    ("3903e7", -1000),
    ("fb3ff199999999999a", 1.1),
    ("fb7e37e43c8800759c", 1.0e300),
    ("fbc010666666666666", -4.1),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("40", b""),
    ("4401020304", b"\x01\x02\x03\x04"),
    ("60", ""),
    ("62c3bc", "\u00fc"),
    ("64f0908591", "\U00010151"),
    ("80", []),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("a0", {}),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("826161a161626163", ["a", {"b": "c"}]),
]

OTHER_FORMS = [
    ("f7", None),
    ("f93c00", 1.0),
    ("f97bff", 65504.0),
    ("f90001", 5.960464477539063e-8),
    ("fa47c35000", 100000.0),
    ("f97c00", math.inf),
    ("faff800000", -math.inf),
    ("1800", 0),
    ("c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
    ("c11a514b67b0", 1363896240),
    ("c240", 0),
    ("5f42010243030405ff", b"\x01\x02\x03\x04\x05"),
    ("7f657374726561646d696e67ff", "streaming"),
    ("9fff", []),
    ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
    ("83018202039f0405ff", [1, [2, 3], [4, 5]]),
    ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
    ("a1820102" + "03", {(1, 2): 3}),
]


@pytest.mark.parametrize(("encoded", "value"), EXAMPLES)
def test_examples_of_the_standard(encoded, value):
    assert cbor.dumps(value).hex() == encoded
    assert cbor.loads(bytes.fromhex(encoded)) == value


@pytest.mark.parametrize(("encoded", "value"), OTHER_FORMS)
def test_other_forms_are_read(encoded, value):
    read = cbor.loads(bytearray.fromhex(encoded))
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("encoded", ["f97e00", "fa7fc00000", "fb7ff8000000000000"])
def test_what_is_no_number(encoded):
    assert math.isnan(cbor.loads(bytes.fromhex(encoded)))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.binary(), inner),
    max_leaves=30,
)


@given(values)
def test_as_cbor2_has_it(value):
    encoded = cbor.dumps(value)
    assert cbor2.loads(encoded) == value
    assert encoded == cbor2.dumps(value)
    assert cbor.loads(encoded) == value
    assert cbor.loads(cbor2.dumps(value, canonical=True)) == value


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_read(data):
    read_or_refuse(data)


def test_what_fuzzers_have_found():
    lines = [line for name in CORPORA for line in (FUZZ / name).read_text().splitlines()]
    inputs = [bytes.fromhex(line) for line in lines if not line.startswith("#")]
    assert len(inputs) > 100
    for data in inputs:
        read_or_refuse(data)


def read_or_refuse(data):
    try:
        read = cbor.loads(data)
    except ValueError:
        return
    again = cbor.loads(cbor.dumps(read))
    assert repr(again) == repr(read)


@given(values)
def test_what_is_cut_off_is_refused(value):
    encoded = cbor.dumps(value)
    for length in range(min(len(encoded), 50)):
        with pytest.raises(ValueError, match="ends in the middle"):
            cbor.loads(encoded[:length])


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("", "ends in the middle"),
        ("1c", "no meaning"),
        ("ff", "an end of what has not begun"),
        ("83ff", "ends in the middle"),
        ("8301ff02", "an end of what has not begun"),
        ("bf01ff", "an end of what has not begun"),
        ("0000", "1 bytes follow"),
        ("a200010002", "twice"),
        ("a1a000", "a key that is a map"),
        ("a1818000", "an array with one or with an array"),
        ("5f6161ff", "another kind"),
        ("5f01ff", "another kind"),
        ("e0", "simple value 0"),
        ("c201", "large integer"),
        ("9bffffffffffffffff", "ends in the middle"),
        ("81" * 300 + "00", "200 levels"),
        ("9f" * 300, "200 levels"),
        ("c1" * 300 + "00", "200 levels"),
    ],
)
def test_what_is_no_cbor(encoded, text):
    with pytest.raises(ValueError, match=text):
        cbor.loads(bytes.fromhex(encoded))


def test_text_must_be_utf8():
    with pytest.raises(UnicodeDecodeError):
        cbor.loads(b"\x61\xff")
    with pytest.raises(UnicodeEncodeError):
        cbor.dumps("\ud800")


def test_what_has_no_form():
    for value in (object(), {1, 2}, 1j, [print]):
        with pytest.raises(TypeError, match="has no form in CBOR"):
            cbor.dumps(value)
    circle = []
    circle.append(circle)
    with pytest.raises(ValueError, match="contains itself"):
        cbor.dumps(circle)
    with pytest.raises(TypeError):
        cbor.loads("text")


def test_relatives_of_the_common_types():
    class Number(int):
        pass

    class Text(str):
        __slots__ = ()

    relatives = [Number(7), Text("t"), Atom("a"), (1, 2), bytearray(b"x"), memoryview(b"yz")]
    assert cbor.loads(cbor.dumps(relatives)) == [7, "t", "a", [1, 2], b"x", b"yz"]
