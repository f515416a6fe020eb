"""The format: what is written is read back, what is damaged is refused with the reason."""

import hashlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hakmem import paths
from hakmem.errors import BadTrace
from hakmem.traces import events, trace
from hakmem.traces.events import ALIGNED, CALLOC, EVENT, EXIT, FREE, MALLOC, MARK, REALLOC, Events

ORIGIN = trace.Origin(kind="generated", generator="by hand", parameters={"n": 3}, command=("a", "b c"), notes={"x": 1})
SLOTS, THREADS, MARKS = 3, 2, ("warm", "done")


def sample() -> Events:
    rows = [
        (0, 0, MALLOC, 0, 100),
        (1, 0, CALLOC, 0, 5000),
        (0, 0, MARK, 0, 0),
        (2, 1, ALIGNED, 12, 64),
        (0, 1, REALLOC, 0, 300),
        (1, 1, FREE, 0, 0),
        (0, 1, EXIT, 0, 0),
        (2, 0, FREE, 0, 0),
        (1, 0, MARK, 0, 0),
    ]
    return np.array(rows, EVENT)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "sample.trace"
    trace.write(path, sample(), ORIGIN, slots=SLOTS, threads=THREADS, seed=7, warm=2, marks=MARKS)
    return path


def sealed(data: bytearray) -> bytes:
    """Make the checksums of a doctored header and its events right again."""
    begin = struct.unpack_from("<I", data, 16)[0]
    data[60:64] = struct.pack("<I", zlib.crc32(data[begin:]))
    data[124:128] = bytes(4)
    data[124:128] = struct.pack("<I", zlib.crc32(data[:begin]))
    return bytes(data)


def test_what_is_written_is_read_back(plain: Path) -> None:
    read = trace.read(plain)
    assert (read.events == sample()).all() and isinstance(read.events, np.memmap)
    header = read.header
    assert (header.events, header.warm, header.slots, header.threads, header.seed) == (9, 2, 3, 2, 7)
    assert header.marks == MARKS and header.origin == ORIGIN
    assert header.sha256 == hashlib.sha256(sample().tobytes()).hexdigest()
    assert header.bytes % 4096 == 0 and plain.stat().st_size == header.bytes + 9 * 16


def test_the_events_cannot_be_changed_through_the_map(plain: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        trace.read(plain).events["size"] = 1


def test_the_compressed_form_is_the_same_trace_and_the_same_bytes(plain: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.trace.zst", tmp_path / "b.trace.zst"
    trace.write(first, sample(), ORIGIN, slots=SLOTS, threads=THREADS, seed=7, warm=2, marks=MARKS)
    trace.copy(plain, second)
    assert first.read_bytes() == second.read_bytes()
    assert trace.read(first).header == trace.read(plain).header
    trace.copy(second, tmp_path / "back.trace")
    assert (tmp_path / "back.trace").read_bytes() == plain.read_bytes()
    assert trace.unpacked(first).is_relative_to(paths.build())
    assert sorted(tmp_path.iterdir()) == [first, second, tmp_path / "back.trace", plain]


def test_pieces_make_the_same_file_as_the_whole(plain: Path, tmp_path: Path) -> None:
    pieces = tmp_path / "pieces.trace"
    with trace.Writer(pieces, ORIGIN, slots=SLOTS, threads=THREADS, seed=7, warm=2, marks=MARKS) as out:
        for event in range(9):
            out.append(sample()[event : event + 1])
    assert pieces.read_bytes() == plain.read_bytes()


def test_an_empty_trace_is_a_trace(tmp_path: Path) -> None:
    trace.write(tmp_path / "empty.trace", sample()[:0], ORIGIN, slots=0)
    assert len(trace.read(tmp_path / "empty.trace").events) == 0


@pytest.mark.parametrize("name", ["x.trace", "x.trace.zst"])
def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZeroDivisionError), trace.Writer(tmp_path / name, ORIGIN, slots=3) as out:
        out.append(sample())
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def patched(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + value + data[at + len(value) :]


def refit(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: sealed(bytearray(patched(at, value)(data)))


BEGIN = 4096
CASES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "foreign": (lambda data: b"\x7fELF" + data[4:], "is no trace: it begins with b'.x7fELFRACE'"),
    "empty": (lambda data: b"", "is no trace: it begins with b''"),
    "short header": (lambda data: data[:50], "is truncated: it ends inside the header, after 50 bytes"),
    "long header": (lambda data: data[:500], "is truncated: it ends inside the header, after 500 of 4096 bytes"),
    "short events": (lambda data: data[:-17], "is truncated: it ends after 7 of 9 events"),
    "tail": (lambda data: data + b"x", "is damaged: 1 bytes follow the last event"),
    "byte order": (patched(8, b"\1\2\3\4"), "is of foreign byte order"),
    "newer": (patched(12, b"\2"), "is of a newer format, version 2; this hakmem reads version 1"),
    "header bit": (patched(40, b"\x99"), "is damaged: its header does not match its checksum"),
    "text bit": (patched(200, b"\x99"), "is damaged: its header does not match its checksum"),
    "event bit": (patched(BEGIN + 9, b"\x99"), "is damaged: its events do not match their checksum"),
    "contradiction": (refit(32, b"\x77"), "is damaged: its header contradicts itself"),
    "no origin": (refit(192, b"}"), "is damaged: its header does not tell where it comes from"),
    "operation": (refit(BEGIN + 6, b"\x09"), r"event 0 \(op 9, slot 0, thread 0, 100 bytes\) has an unknown operation"),
    "slot": (refit(BEGIN, b"\x03"), "event 0 .* names a slot that the header does not promise"),
    "thread": (refit(BEGIN + 4, b"\x02"), "event 0 .* names a thread that the header does not promise"),
    "size": (refit(BEGIN + 15, b"\x01"), "event 0 .* has a size above 2.47 bytes"),
    "alignment": (refit(BEGIN + 7, b"\x04"), "event 0 .* has an alignment above 2.40, or one where none belongs"),
    "twice": (refit(BEGIN + 16, b"\x00"), "event 1 .* allocates into a slot that holds a block"),
    "dead": (refit(BEGIN + 16 * 5, b"\x02"), "event 7 .* frees or resizes a block that does not live"),
    "mark": (refit(BEGIN + 16 * 2, b"\x01"), "event 2 .* is not the next mark"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_refusal_says_what_is_wrong(plain: Path, name: str) -> None:
    change, said = CASES[name]
    plain.write_bytes(change(plain.read_bytes()))
    with pytest.raises(BadTrace, match=said) as refusal:
        trace.read(plain)
    assert str(plain) in str(refusal.value) and "\n" not in str(refusal.value)


def test_damage_of_the_compressed_form_is_refused(plain: Path, tmp_path: Path) -> None:
    packed = tmp_path / "x.trace.zst"
    trace.pack(plain, packed)
    whole = packed.read_bytes()
    for cut in (0, 3, 5, len(whole) // 2, len(whole) - 6):
        packed.write_bytes(whole[:cut])
        with pytest.raises(BadTrace, match="is truncated|is no trace|is damaged"):
            trace.read(packed)
    packed.write_bytes(whole[:-40] + b"\xff" * 40)
    with pytest.raises(BadTrace, match="is damaged"):
        trace.read(packed)


@pytest.mark.parametrize("name", ["copy.trace", "copy.trace.zst"])
def test_a_damaged_trace_is_not_copied(plain: Path, tmp_path: Path, name: str) -> None:
    plain.write_bytes(CASES["event bit"][0](plain.read_bytes()))
    with pytest.raises(BadTrace, match="its events do not match their checksum"):
        trace.copy(plain, tmp_path / name)
    assert list(tmp_path.iterdir()) == [plain]


def test_a_compressed_bomb_is_not_unpacked(plain: Path, tmp_path: Path) -> None:
    bomb, packed = tmp_path / "bomb", tmp_path / "bomb.trace.zst"
    bomb.write_bytes(plain.read_bytes() + bytes(64 << 20))
    with bomb.open("rb") as source, packed.open("wb") as target:
        trace.zstandard.ZstdCompressor().copy_stream(source, target)
    with pytest.raises(BadTrace, match="unpacks to more than its header promises"):
        trace.read(packed)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match="cannot read the trace .*nothing.trace: No such file"):
        trace.read(tmp_path / "nothing.trace")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threads": 0}, "holds 1..256 threads, not 0"),
        ({"threads": 257}, "not 257"),
        ({"slots": 2**31 + 1}, "at most 2147483648 slots"),
        ({"marks": ("x" * 32,)}, "1..31 ASCII"),
        ({"marks": ("x",) * 101}, "at most 100 marks"),
    ],
)
def test_a_writer_refuses_what_the_format_cannot_hold(tmp_path: Path, wrong: dict[str, int], said: str) -> None:
    with pytest.raises(BadTrace, match=said):
        trace.Writer(tmp_path / "x.trace", ORIGIN, **{"slots": 1, **wrong})  # type: ignore[arg-type]


edits = st.lists(st.tuples(st.integers(0, 4096 + 9 * 16), st.binary(min_size=1, max_size=9)), min_size=1, max_size=5)


def damage(data: bytes, edits: list[tuple[int, bytes]], length: int | None, seal: bool) -> bytes:
    """A file with bytes changed and its end cut off, and its checksums made right again where asked for."""
    for at, value in edits:
        data = patched(at, value)(data)
    data = data[:length]
    if seal and len(data) > 4096 and data[16:20] == b"\0\x10\0\0":
        data = sealed(bytearray(data))
    return data


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits, length=st.none() | st.integers(0, 4300), seal=st.booleans())
def test_no_damage_gets_past_the_reader(
    plain: Path, tmp_path: Path, edits: list[tuple[int, bytes]], length: int | None, seal: bool
) -> None:
    """Whatever bytes come: they are refused in words, or they are a trace that makes sense."""
    damaged = tmp_path / "damaged.trace"
    damaged.write_bytes(damage(plain.read_bytes(), edits, length, seal))
    try:
        read = trace.read(damaged)
    except BadTrace:
        return
    header = read.header
    assert events.check(read.events, header.slots, header.threads, len(header.marks)) is None
    assert len(read.events) == header.events and header.warm <= header.events


# ---- what the events amount to ---------------------------------------------------------------------------------------


def test_the_shape_of_a_trace() -> None:
    found = events.shape(sample(), SLOTS, points=9)
    assert list(found.ops[1:]) == [1, 1, 1, 1, 2, 1, 2]
    assert list(found.live_bytes) == [100, 5100, 5100, 5164, 5364, 364, 364, 300, 300]
    assert list(found.live_blocks) == [1, 2, 2, 3, 3, 2, 2, 1, 1]
    assert (found.peak_bytes, found.peak_blocks) == (5364, 3)
    assert (found.cross_frees, found.frees) == (3, 3)
    assert found.joint.sum() == found.sizes.sum() == 4
    assert found.joint[:, -1].sum() == 1 and found.lifetimes.sum() == 3


def test_buckets_tile_the_integers() -> None:
    lows = events.bucket_lows()
    assert (np.diff(lows) > 0).all()
    for number, (low, after) in enumerate(zip(lows[:-1], lows[1:], strict=True)):
        assert events.bucket(low) == events.bucket(after - 1) == number
        assert after - low <= max(1, low / 8)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=9)), min_size=1, max_size=3),
       length=st.none() | st.integers(0, 400))  # fmt: skip
def test_no_damage_gets_through_the_compressed_form(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edits: list[tuple[int, bytes]], length: int | None
) -> None:
    monkeypatch.setattr(paths, "build", lambda: tmp_path / "build")
    if not (tmp_path / "x.trace.zst").exists():
        trace.pack(plain, tmp_path / "x.trace.zst")
    damaged = tmp_path / "damaged.trace.zst"
    damaged.write_bytes(damage((tmp_path / "x.trace.zst").read_bytes(), edits, length, False))
    try:
        read = trace.read(damaged)
    except BadTrace:
        return
    assert read.header == trace.read(plain).header and (read.events == trace.read(plain).events).all()


# ---- long traces -----------------------------------------------------------------------------------------------------


def test_looking_at_a_long_trace_keeps_one_window_of_it_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.tile(np.array([(0, 0, MALLOC, 0, 100), (0, 0, FREE, 0, 0)], EVENT), 2_000_000)
    trace.write(tmp_path / "long.trace", rows, ORIGIN, slots=1)
    whole = events.shape(rows, 1)
    monkeypatch.setattr(events, "WINDOW", 1 << 16)
    before = pages(2)
    read, told = trace.read(tmp_path / "long.trace"), []
    found = events.shape(read.events, 1, told=lambda done, total: told.append((done, total)))
    assert pages(2) - before < 4096  # 16 MB of 64
    assert told[-1] == (4_000_000, 4_000_000) and len(told) == 62
    assert all(np.array_equal(getattr(found, name), getattr(whole, name)) for name in vars(whole))


def test_slots_that_a_header_promises_and_nobody_uses_cost_nothing() -> None:
    taken = []
    before = pages(1)
    found = events.shape(sample(), 2**27, told=lambda done, total: taken.append(pages(1) - before))
    assert taken[0] < 2**14  # 64 MB of 3 GiB
    assert found.joint[:, -1].sum() == 1


def pages(column: int) -> int:
    """Pages of this process: resident ones (1), those of them that are a file's (2)."""
    return int(Path("/proc/self/statm").read_text().split()[column])


def test_marks_are_counted_across_windows(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "WINDOW", 2)
    assert len(trace.read(plain).events) == 9
    given = trace.read(plain).events.copy()
    given["op"][-1] = 9
    assert events.check(given, SLOTS, THREADS, len(MARKS)) == (8, "has an unknown operation")
