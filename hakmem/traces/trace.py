"""Traces: files of allocation events that every allocator can be driven with; the format and the files.

A trace is a header of fixed layout, padded to `header_bytes`, then events of 16 bytes that numpy maps without copying.
Everything is little-endian; `native/include/hakmem_trace.h` describes the same bytes for C, docs/traces.md in words.
The order of the events in the file is the order in which they happened: of one thread, and of one slot among threads.
Compressed by zstd (``.zst``) a trace is stored; it is unpacked before it is used.
"""

import hashlib
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import zstandard
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from hakmem import paths
from hakmem.errors import BadTrace
from hakmem.traces import events
from hakmem.traces.events import EVENT, Events, Told

VERSION = 1
MAX_MARKS = 100
MAX_THREADS = 256
MAX_SLOTS = 2**31
SUFFIX = ".trace"

_MAGIC = b"HAKTRACE"
_ORDER = 0x01020304
_FIXED = struct.Struct("<8sIIIIQQIIQII32sI24xI")
_CRC_AT = _FIXED.size - 4
_NAME_BYTES = 32
_PAGE = 4096
_MAX_TEXT = 1 << 20
_READ = 1 << 20
_SMALL = 8 << 20  # bytes that are packed with more effort
_NAME = re.compile(r"[ !#-\[\]-~]{1,31}")  # of a mark: it ends up in a line of JSON
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Origin(BaseModel):
    """Where a trace comes from.

    Attributes
    ----------
    kind : {"generated", "recorded", "imported"}
    generator : str
        Name of the kernel, the recorder or the imported format.
    version : int
        Of the generator: another one makes other events of the same parameters.
    parameters : dict
        What the generator was given, sizes in bytes.
    command : tuple of str
        The recorded program and its arguments.
    notes : dict
        What the maker found worth telling: blocks it never saw allocated, sizes it left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["generated", "recorded", "imported"]
    generator: str
    version: int = 1
    parameters: dict[str, JsonValue] = {}
    command: tuple[str, ...] = ()
    notes: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class Header:
    """What stands before the events.

    Attributes
    ----------
    events, warm : int
        Events, and how many of the first ones are a warm-up that a replay does not time.
    slots, threads : int
        Events name slots below `slots` and threads below `threads`.
    seed : int
    marks : tuple of str
        Names of the phases that `MARK` events end.
    sha256 : str
        Of the events' bytes, hexadecimal: the identity of the trace.
    crc : int
        CRC-32 of the same bytes.
    bytes : int
        Offset of the first event.
    origin : Origin
    """

    events: int
    warm: int
    slots: int
    threads: int
    seed: int
    marks: tuple[str, ...]
    sha256: str
    crc: int
    bytes: int
    origin: Origin


@dataclass(frozen=True)
class Trace:
    """An opened trace: its header, and its events mapped read-only (shape ``(events,)``, dtype `EVENT`)."""

    path: Path
    header: Header
    events: Events


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path, *, verify: bool = True) -> Trace:
    """Open a trace, unpacked or zstd-compressed.

    Parameters
    ----------
    path : Path
    verify : bool
        Check the events too: their checksum, and that they make sense (nothing is freed that does not live).

    Returns
    -------
    Trace
        Its events are a read-only map; nothing is copied.

    Raises
    ------
    BadTrace
        No such file, not a trace, of a newer format, of foreign byte order, truncated or damaged; the message says
        which.
    """
    plain = unpacked(path)
    header = read_header(plain)
    mapped: Events = np.empty(0, EVENT)
    if header.events:
        mapped = np.memmap(plain, EVENT, mode="r", offset=header.bytes, shape=(header.events,))
    if verify:
        if _crc(mapped) != header.crc:
            raise BadTrace(f"{path} is damaged: its events do not match their checksum")
        _refuse_nonsense(mapped, header, path)
    return Trace(path, header, mapped)


def read_header(path: Path) -> Header:
    """Read the header of an unpacked trace, and hold the file's size against it; the events are not looked at."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _parse(file, size, path)
    except OSError as error:
        raise BadTrace(f"cannot read the trace {path}: {error.strerror}") from error


def _refuse_nonsense(given: Events, header: Header, path: Path) -> None:
    found = events.check(given, header.slots, header.threads, len(header.marks))
    if found is not None:
        at, why = found
        raise BadTrace(f"{path} is damaged: event {at} ({_words(given[at])}) {why}")


def _words(event: Any) -> str:
    op = int(event["op"])
    name = events.OPS.get(op, f"op {op}")
    return f"{name}, slot {event['slot']}, thread {event['thread']}, {event['size']} bytes"


def _crc(given: Events) -> int:
    crc = 0
    for part in events.windows(given):
        crc = zlib.crc32(part.view(np.uint8).data, crc)
    return crc


def _parse(file: BinaryIO, size: int, path: Path) -> Header:
    head = file.read(_FIXED.size)
    if head[: len(_MAGIC)] != _MAGIC[: len(head)] or not head:
        raise BadTrace(f"{path} is no trace: it begins with {head[:8]!r}, a trace with {_MAGIC!r}")
    if len(head) < _FIXED.size:
        raise BadTrace(f"{path} is truncated: it ends inside the header, after {len(head)} bytes")
    (_, order, version, begin, event_bytes, events, warm, slots, threads, seed, text_bytes, crc, sha, marks, told) = (
        _FIXED.unpack(head)
    )
    if order != _ORDER:
        raise BadTrace(f"{path} is of foreign byte order: a trace is little-endian")
    if version != VERSION:
        age = "newer" if version > VERSION else "unknown"
        raise BadTrace(f"{path} is of a {age} format, version {version}; this hakmem reads version {VERSION}")
    sane = (
        event_bytes == EVENT.itemsize
        and begin % _PAGE == 0
        and text_bytes <= _MAX_TEXT
        and marks <= MAX_MARKS
        and _FIXED.size + marks * _NAME_BYTES + text_bytes <= begin <= _MAX_TEXT + 4 * _PAGE
        and warm <= events <= 2**40
        and slots <= MAX_SLOTS
        and 1 <= threads <= MAX_THREADS
    )
    if not sane:
        raise BadTrace(f"{path} is damaged: its header contradicts itself")
    rest = file.read(begin - _FIXED.size)
    if len(rest) < begin - _FIXED.size:
        raise BadTrace(f"{path} is truncated: it ends inside the header, after {size} of {begin} bytes")
    if zlib.crc32(rest, zlib.crc32(head[:_CRC_AT] + bytes(4))) != told:
        raise BadTrace(f"{path} is damaged: its header does not match its checksum")
    there = (size - begin) // EVENT.itemsize
    if there < events:
        raise BadTrace(f"{path} is truncated: it ends after {there} of {events} events")
    if size != begin + events * EVENT.itemsize:
        raise BadTrace(f"{path} is damaged: {size - begin - events * EVENT.itemsize} bytes follow the last event")
    names = tuple(
        rest[at * _NAME_BYTES : (at + 1) * _NAME_BYTES].rstrip(b"\0").decode("latin-1") for at in range(marks)
    )
    if not all(map(_NAME.fullmatch, names)):
        raise BadTrace(f"{path} is damaged: a mark has no proper name")
    try:
        origin = Origin.model_validate_json(rest[marks * _NAME_BYTES :][:text_bytes])
    except ValidationError as error:
        raise BadTrace(f"{path} is damaged: its header does not tell where it comes from") from error
    return Header(events, warm, slots, threads, seed, names, sha.hex(), crc, begin, origin)


def is_trace(path: Path) -> bool:
    """Whether a file begins like a trace, plain or compressed."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_MAGIC))
    except OSError as error:
        raise BadTrace(f"cannot read the trace {path}: {error.strerror}") from error
    return begin == _MAGIC or begin.startswith(_ZSTD_MAGIC)


# ---- the compressed form ---------------------------------------------------------------------------------------------


def unpacked(path: Path) -> Path:
    """Return the file of a trace as it is, or unpacked under ``build/traces`` if it is zstd-compressed.

    Raises
    ------
    BadTrace
        It cannot be read, or the compressed stream is damaged or truncated.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_ZSTD_MAGIC)) != _ZSTD_MAGIC:
                return path
            file.seek(0)
            name = hashlib.file_digest(file, "sha256").hexdigest()[:24]
            target = paths.build() / "traces" / f"{name}{SUFFIX}"
            if not target.exists():
                file.seek(0)
                _unpack(file, target, path)
            return target
    except OSError as error:
        raise BadTrace(f"cannot read the trace {path}: {error.strerror}") from error


def _unpack(file: BinaryIO, target: Path, path: Path) -> None:
    """Unpack, but never more than the trace's own header promises."""
    with _scratch(target) as out, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream:
        written, limit = 0, _FIXED.size
        try:
            while piece := stream.read(_READ):
                if written == 0:
                    limit = _promised(piece)
                written += len(piece)
                if written > limit:
                    raise BadTrace(f"{path} is damaged: it unpacks to more than its header promises")
                out.write(piece)
        except zstandard.ZstdError as error:
            raise BadTrace(f"{path} is damaged: {error}") from error
        if written == 0:
            raise BadTrace(f"{path} is truncated: nothing of it can be unpacked")
        out.seek(0)
        _parse(out, written, path)


def _promised(head: bytes) -> int:
    """Return the size of the file that a header announces; nonsense is refused later, by `_parse`."""
    if len(head) < _FIXED.size:
        return _FIXED.size
    fields = _FIXED.unpack(head[: _FIXED.size])
    return max(int(fields[3]) + int(fields[5]) * EVENT.itemsize, len(head))


def pack(plain: Path, target: Path, told: Told | None = None) -> None:
    """Write the zstd-compressed form of an unpacked trace, small ones with more effort."""
    header = read_header(plain)
    packer = _packer(header.events * EVENT.itemsize)
    with plain.open("rb") as file, _scratch(target) as out:
        out.write(packer.compress(file.read(header.bytes)))  # a frame of its own, as `Writer` makes it
        with packer.stream_writer(out, closefd=False) as packed:
            _pour(file, packed, told)


def copy(source: Path, target: Path, told: Told | None = None) -> None:
    """Copy a trace that is whole, packed or unpacked as the ending of the target's name says.

    Parameters
    ----------
    source, target : Path
    told : callable, optional
        Called with bytes done and bytes in all.

    Raises
    ------
    BadTrace
        As `read` does.
    """
    read(source)
    plain = unpacked(source)
    if target.suffix == ".zst":
        pack(plain, target, told)
        return
    with plain.open("rb") as file, _scratch(target) as out:
        _pour(file, out, told)


def _packer(size: int) -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=19 if size <= _SMALL else 3, write_checksum=True)


def _pour(file: BinaryIO, out: Any, told: Told | None) -> None:
    total = os.fstat(file.fileno()).st_size
    while piece := file.read(_READ):
        out.write(piece)
        if told is not None:
            told(file.tell(), total)


@contextmanager
def _scratch(target: Path) -> Iterator[Any]:
    """Write beside the target; it gets its name when it is whole, and nothing is left if it is not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


# ---- writing ---------------------------------------------------------------------------------------------------------


def fitting(slots: int) -> int:
    """Return a number of slots that a trace can hold, and refuse any other."""
    if slots > MAX_SLOTS:
        raise BadTrace(f"a trace holds at most {MAX_SLOTS} slots, not {slots}")
    return slots


class Writer:
    """Streams a trace to disk in bounded memory; use as a context manager.

    Parameters
    ----------
    path : Path
        Ends in ``.zst`` for the compressed form. It appears when the trace is whole; an exception leaves nothing.
    origin : Origin
    seed : int
    slots, threads : int
        What the events will name.
    warm : int
        Leading events that a replay does not time.
    marks : tuple of str
        Names of the phases, in the order of their `MARK` events; at most 31 ASCII characters each.
    promised : int, optional
        Bytes there will be, if that is known: few ones are packed with more effort.
    """

    def __init__(
        self,
        path: Path,
        origin: Origin,
        *,
        slots: int,
        threads: int = 1,
        seed: int = 0,
        warm: int = 0,
        marks: tuple[str, ...] = (),
        promised: int = _SMALL + 1,
    ) -> None:
        if not 1 <= threads <= MAX_THREADS:
            raise BadTrace(f"a trace holds 1..{MAX_THREADS} threads, not {threads}")
        if len(marks) > MAX_MARKS or not all(map(_NAME.fullmatch, marks)):
            raise BadTrace(
                f'a trace takes at most {MAX_MARKS} marks of 1..{_NAME_BYTES - 1} ASCII characters other than " and \\'
            )
        self._path, self._origin = path, origin
        self._fields = (warm, fitting(slots), threads, seed)
        self._marks = b"".join(name.encode().ljust(_NAME_BYTES, b"\0") for name in marks)
        self._text = origin.model_dump_json().encode()
        if len(self._text) > _MAX_TEXT:
            raise BadTrace(f"what a trace tells of its origin takes at most {_MAX_TEXT} bytes, not {len(self._text)}")
        self._begin = -(-(_FIXED.size + len(self._marks) + len(self._text)) // _PAGE) * _PAGE
        self._events, self._crc, self._sha = 0, 0, hashlib.sha256()
        self._packer = _packer(promised) if path.suffix == ".zst" else None

    def __enter__(self) -> Self:
        """Open the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        self._file, self._scratch = os.fdopen(handle, "w+b"), Path(name)
        if self._packer:
            self._out: Any = self._packer.stream_writer(self._file, closefd=False)
        else:
            self._out = self._file
            self._file.write(bytes(self._begin))
        return self

    def append(self, more: Events) -> None:
        """Write some events (dtype `EVENT`)."""
        data = np.ascontiguousarray(more).view(np.uint8).data
        self._sha.update(data)
        self._crc = zlib.crc32(data, self._crc)
        self._events += len(more)
        self._out.write(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        """Write the header, which tells what followed it, and give the file its name."""
        try:
            with self._file as file:
                if error is None and self._packer:  # a frame for the header, one for the events
                    self._out.close()
                    file.seek(0)
                    with _scratch(self._path) as whole:
                        whole.write(self._packer.compress(self._header()))
                        shutil.copyfileobj(file, whole, _READ)
                elif error is None:
                    file.seek(0)
                    file.write(self._header())
                    os.fchmod(file.fileno(), 0o644)
            if error is None and not self._packer:
                os.replace(self._scratch, self._path)
        finally:
            self._scratch.unlink(missing_ok=True)

    def _header(self) -> bytes:
        warm, slots, threads, seed = self._fields
        where = (_MAGIC, _ORDER, VERSION, self._begin, EVENT.itemsize, self._events, warm, slots, threads, seed)
        more = (len(self._text), self._crc, self._sha.digest(), len(self._marks) // _NAME_BYTES)
        rest = (self._marks + self._text).ljust(self._begin - _FIXED.size, b"\0")
        blank = _FIXED.pack(*where, *more, 0)
        return blank[:_CRC_AT] + struct.pack("<I", zlib.crc32(rest, zlib.crc32(blank))) + rest


def write(
    path: Path,
    given: Events,
    origin: Origin,
    *,
    slots: int,
    threads: int = 1,
    seed: int = 0,
    warm: int = 0,
    marks: tuple[str, ...] = (),
) -> None:
    """Write a trace that is in memory; the parameters are those of `Writer`."""
    fields = {"slots": slots, "threads": threads, "seed": seed, "warm": warm, "promised": given.nbytes}
    with Writer(path, origin, marks=marks, **fields) as out:
        out.append(given)
