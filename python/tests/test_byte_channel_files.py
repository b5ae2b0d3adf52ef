"""The files of byte channels: what the standard library does with files works on a channel."""

import csv
import gc
import gzip
import io
import json
import pickle
import shutil
import tarfile

import pytest
from byte_channel_support import PATIENCE, Running, until_waiting

from erlang import ByteChannel, ByteChannelAborted, ByteChannelClosed


def filled(*messages):
    """A closed channel that holds messages."""
    channel = ByteChannel.new()
    for message in messages:
        channel.send_bytes(message)
    channel.close()
    return channel


# --- reading ------------------------------------------------------------------------------------


def test_messages_are_one_stream():
    with filled(b"ab", b"", b"cde\nf", b"", b"\ng").makefile() as file:
        assert isinstance(file, io.BufferedReader)
        assert file.read(3) == b"abc"
        assert file.readline() == b"de\n"
        assert file.peek(1)[:1] == b"f"
        assert file.read() == b"f\ng"
        assert file.read() == b""
        assert file.read(1) == b""


@pytest.mark.parametrize("buffering", [-1, 0, 1, 7, 1 << 20])
@pytest.mark.parametrize("size", [1, 5, 8192, 100_000])
def test_any_sizes(buffering, size):
    data = bytes(index * 7 % 256 for index in range(100_000))
    channel = filled(*(data[at : at + 33_333] for at in range(0, len(data), 33_333)))
    if buffering == 0 and size == 1:
        size = 100
    with channel.makefile("rb", buffering=buffering) as file:
        parts = list(iter(lambda: file.read(size), b""))
    assert b"".join(parts) == data


def test_read_returns_when_there_is_something():
    channel = ByteChannel.new()
    file = channel.makefile("rb")
    raw = ByteChannel(channel).makefile("rb", buffering=0)
    channel.send_bytes(b"one")
    assert file.read1() == b"one"
    channel.send_bytes(b"two")
    assert raw.read(100) == b"two"
    channel.send_bytes(b"three")
    assert [raw.read(2), raw.read(100)] == [b"th", b"ree"], "the rest of a message is kept"
    assert raw.readinto(bytearray()) == 0
    reader = Running(file.read, 6)
    until_waiting(channel, receivers=1)
    channel.send_bytes(b"abcd")
    until_waiting(channel, receivers=1)
    channel.send_bytes(b"efgh")
    assert reader.result() == b"abcdef"
    assert file.read1() == b"gh"


def test_lines():
    with filled(b"one\ntw", b"o\n", b"", b"thr", b"ee").makefile("rb") as file:
        assert list(file) == [b"one\n", b"two\n", b"three"]


def test_text():
    text = "zwölf Boxkämpfer\njagen Viktor\r\nüber den Sylter Deich €"
    data = text.encode()
    # Characters are cut apart by the messages.
    with filled(*(data[at : at + 1] for at in range(len(data)))).makefile("r") as file:
        assert isinstance(file, io.TextIOWrapper)
        assert file.encoding == "utf-8"
        assert file.readlines() == ["zwölf Boxkämpfer\n", "jagen Viktor\n", "über den Sylter Deich €"]
    with filled(text.encode("utf-16")).makefile("r", encoding="utf-16", newline="") as file:
        assert file.read() == text
    with filled(b"\xff").makefile("r") as file, pytest.raises(UnicodeDecodeError):
        file.read()
    with filled(b"a\xff").makefile("r", errors="replace") as file:
        assert file.read() == "a\ufffd"


def test_a_file_that_reads_leaves_the_channel_open():
    channel = ByteChannel.new()
    channel.send_bytes(b"1")
    with channel.makefile(buffering=0) as file:
        assert (file.readable(), file.writable(), file.seekable(), file.isatty()) == (
            True,
            False,
            False,
            False,
        )
        assert file.read(5) == b"1"
    assert file.closed
    assert not channel.closed
    for operation in (lambda: file.read(1), lambda: file.readinto(bytearray(1)), lambda: next(file)):
        with pytest.raises(ValueError, match="closed"):
            operation()
    channel.send_bytes(b"2")
    assert channel.receive_bytes() == b"2"


def test_what_a_file_cannot():
    for mode in ("rb", "wb"):
        file = ByteChannel.new().makefile(mode)
        for operation in (file.fileno, file.tell, lambda: file.seek(0), lambda: file.truncate(0)):  # noqa: B023
            with pytest.raises(OSError):
                operation()
    with pytest.raises(io.UnsupportedOperation):
        ByteChannel.new().makefile("rb").write(b"1")
    with pytest.raises(io.UnsupportedOperation):
        ByteChannel.new().makefile("wb").read()


def test_reading_of_an_aborted_channel():
    channel = ByteChannel.new()
    channel.send_bytes(b"123")
    file = channel.makefile()
    assert file.read(2) == b"12"
    channel.abort("disk full")
    with pytest.raises(ByteChannelAborted, match="disk full"):
        file.read()


def test_a_message_is_shown_not_copied_while_it_is_read():
    message = bytes(1 << 16)
    channel = ByteChannel.new()
    channel.send_bytes(message)
    file = channel.makefile(buffering=0)
    assert file.read(10) == message[:10]
    view = bytearray(100)
    assert file.readinto(view) == 100
    assert len(file.read(1 << 20)) == len(message) - 110


# --- writing ------------------------------------------------------------------------------------


def test_writing():
    channel = ByteChannel.new()
    with channel.makefile("wb") as file:
        assert isinstance(file, io.BufferedWriter)
        assert file.write(b"one") == 3
        assert channel.info()["messages"] == 0
        file.flush()
        assert channel.receive_bytes() == b"one"
        file.flush()
        assert channel.info()["messages"] == 0
        file.writelines([b"two", bytearray(b"three"), memoryview(b"four")])
    assert channel.closed
    assert channel.receive_bytes() == b"twothreefour"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"x")


def test_writing_without_a_buffer():
    channel = ByteChannel.new()
    with channel.makefile("wb", buffering=0) as file:
        assert (file.readable(), file.writable()) == (False, True)
        assert file.write(b"one") == 3
        assert file.write(b"") == 0
        assert file.write(memoryview(bytearray(b"two"))) == 3
        with pytest.raises(TypeError):
            file.write("text")
        with pytest.raises(TypeError):
            file.write(5)
        assert not channel.closed
    file.close()
    assert list(channel) == [b"one", b"two"]
    with pytest.raises(ValueError, match="closed"):
        file.write(b"x")


def test_what_was_written_does_not_change_any_more():
    channel = ByteChannel.new()
    file = channel.makefile("wb", buffering=0)
    memory = bytearray(b"a" * 40_000)
    file.write(memory)
    memory[:] = b"b" * 40_000
    assert channel.receive_bytes() == b"a" * 40_000
    memory.append(0)


def test_writing_waits_for_room():
    channel = ByteChannel.new(max_size=1000)
    data = bytes(range(256)) * 100

    def write():
        with channel.makefile("wb", buffering=300) as file:
            for at in range(0, len(data), 100):
                file.write(data[at : at + 100])

    writer = Running(write)
    until_waiting(channel, senders=1)
    assert channel.info()["size"] <= 1000
    with channel.makefile() as file:
        assert file.read() == data
    writer.result()


def test_writing_to_a_channel_that_is_closed():
    channel = ByteChannel.new()
    file = channel.makefile("wb", buffering=0)
    channel.close()
    with pytest.raises(ByteChannelClosed):
        file.write(b"1")
    file.close()
    buffered = filled().makefile("wb")
    buffered.write(b"lost")
    with pytest.raises(ByteChannelClosed):
        buffered.close()
    assert buffered.closed
    channel = ByteChannel.new()
    channel.abort()
    with pytest.raises(ByteChannelAborted):
        channel.makefile("wb", buffering=0).write(b"1")


def test_a_file_that_is_dropped_is_closed():
    channel = ByteChannel.new()
    channel.makefile("wb").write(b"1")
    gc.collect()
    assert list(channel) == [b"1"]


def test_a_detached_file_closes_nothing():
    channel = ByteChannel.new()
    file = channel.makefile("wb")
    file.write(b"1")
    raw = file.detach()
    del file
    assert not channel.closed
    raw.close()
    assert list(channel) == [b"1"]


def test_writing_text():
    channel = ByteChannel.new()
    with channel.makefile("w", newline="\r\n") as file:
        print("zwölf", "Boxkämpfer", file=file)
    assert b"".join(channel) == "zwölf Boxkämpfer\r\n".encode()
    channel = ByteChannel.new()
    with channel.makefile("w", encoding="ascii", errors="replace") as file:
        file.write("ö")
        with pytest.raises(TypeError):
            file.write(b"bytes")
    assert list(channel) == [b"?"]


@pytest.mark.parametrize("mode", ["", "a", "ab", "rw", "r+b", "x", "rt", "b", None, 5, b"rb"])
def test_modes_that_are_none(mode):
    with pytest.raises(ValueError, match="a channel's file has the mode 'r', 'rb', 'w' or 'wb', not "):
        ByteChannel.new().makefile(mode)


@pytest.mark.parametrize("mode", ["r", "w"])
def test_text_without_a_buffer(mode):
    channel = ByteChannel.new()
    with pytest.raises(ValueError, match="text is always buffered"):
        channel.makefile(mode, buffering=0)
    with pytest.raises(LookupError):
        channel.makefile(mode, encoding="no such encoding")
    gc.collect()
    assert not channel.closed, "there was no file that could have been closed"


# --- what others do with files ------------------------------------------------------------------


def through(write, read, max_size=5000):
    """What is read from a channel with a small budget, while something is written on another thread."""
    channel = ByteChannel.new(max_size)

    def writing():
        with channel.makefile("wb") as file:
            write(file)

    writer = Running(writing)
    with channel.makefile("rb") as file:
        result = read(file)
        assert file.read() == b""
    writer.result()
    return result


DOCUMENT = {"numbers": list(range(5000)), "text": "zwölf" * 1000, "nothing": None}


def test_json():
    assert through(lambda file: file.write(json.dumps(DOCUMENT).encode()), json.load) == DOCUMENT
    channel = ByteChannel.new()
    with channel.makefile("w") as file:
        json.dump(DOCUMENT, file)
    with channel.makefile("r") as file:
        assert json.load(file) == DOCUMENT


def test_pickle():
    def write(file):
        pickle.dump(DOCUMENT, file)
        pickle.dump("second", file)

    assert through(write, lambda file: (pickle.load(file), pickle.load(file))) == (DOCUMENT, "second")


def test_csv():
    rows = [[str(number), 'with "quotes"', "and\nlines", "ä"] for number in range(500)]
    channel = ByteChannel.new()
    with channel.makefile("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with channel.makefile("r", newline="") as file:
        assert list(csv.reader(file)) == rows


def test_gzip():
    data = bytes(index * index % 251 for index in range(200_000))

    def write(file):
        with gzip.GzipFile(fileobj=file, mode="wb") as packed:
            packed.write(data)

    def read(file):
        with gzip.GzipFile(fileobj=file, mode="rb") as packed:
            return packed.read()

    assert through(write, read) == data


@pytest.mark.parametrize("packing", ["", "gz"])
def test_tarfile(packing):
    files = {"empty": b"", "small": b"1", "large": bytes(range(256)) * 500}

    def write(file):
        with tarfile.open(fileobj=file, mode=f"w|{packing}") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    def read(file):
        with tarfile.open(fileobj=file, mode=f"r|{packing}") as archive:
            found = {member.name: archive.extractfile(member).read() for member in archive}
        file.read()  # what pads the last record
        return found

    assert through(write, read) == files


def test_copyfileobj(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 5000)

    def write(file):
        with source.open("rb") as original:
            shutil.copyfileobj(original, file)

    def read(file):
        with target.open("wb") as copy:
            shutil.copyfileobj(file, copy)

    through(write, read, max_size=100_000)
    assert target.read_bytes() == source.read_bytes()


def test_two_files_of_one_channel():
    channel = filled(*(b"%d\n" % number for number in range(1000)))
    readers = [Running(lambda: list(channel.makefile(buffering=0))) for _ in range(2)]
    lines = [line for reader in readers for line in reader.result()]
    assert sorted(map(int, lines)) == list(range(1000))


def test_a_file_across_the_end_of_a_wait():
    channel = ByteChannel.new()
    reader = Running(channel.makefile("r").read)
    until_waiting(channel, receivers=1)
    for part in (b"a", b"", b"b"):
        channel.send_bytes(part, timeout_ms=PATIENCE * 1000)
    channel.close()
    assert reader.result() == "ab"
