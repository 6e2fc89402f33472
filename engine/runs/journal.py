"""The journal of a run: events.jsonl, one event a line, only ever appended to.

A writer that dies leaves at most one torn line at the end. Readers ignore it, the next writer ends it with a newline,
and from then on it is a line that does not parse and is skipped.
"""

from __future__ import annotations

import errno
import math
import os
import time
import typing
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.runs.events import AnyEvent, Checkpoint, Event, Failure, Point, Result, Retry, State, Step
from engine.secrets import HIDDEN, secrets

CHUNK = 1 << 18  # bytes a reader takes at once: memory stays flat, and what is decoded stays in the processor's cache
GLIMPSE = 32 << 10  # bytes of one piece of a glimpse: about a hundred steps
PENDING = 1 << 20  # bytes a writer keeps while the disk is full
# What a resumed run or a person relies on must be on the disk; a lost metric is only a gap in a curve.
_DURABLE = (State, Checkpoint, Result, Retry, Failure)

E = typing.TypeVar("E", bound=Event)
_KINDS: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind for kind in typing.get_args(AnyEvent) if issubclass(kind, Event)
}
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_brief: msgspec.json.Decoder[AnyEvent | Point] = msgspec.json.Decoder(
    typing.Union[(Point, *(kind for kind in _KINDS.values() if kind is not Step))]
)
_encoder = msgspec.json.Encoder()


def decode(line: bytes) -> AnyEvent | None:
    """The event that a whole line holds; None for a damaged line or a kind this version does not know.

    JSON has no NaN and no infinity: both are written as null and read as NaN.
    """
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError:
        pass
    try:
        raw = msgspec.json.decode(line)
        kind = _KINDS[raw["event"]]
        for name, annotation in typing.get_type_hints(kind).items():
            if annotation is float and name in raw and raw[name] is None:
                raw[name] = math.nan
        return msgspec.convert(raw, kind)  # type: ignore[return-value]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return None


class Writer:
    """Appends events. One process at a time: the worker, or the face while it holds the run's lock."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self._pending = b""
        self._secrets = [_encoder.encode(secret)[1:-1] for secret in secrets()]  # as they would stand in a line
        self.seq = 0
        self._size = 0
        self._torn = False
        self._catch_up()

    def _catch_up(self) -> None:
        """Go on from what the file ends with, also where another writer of this process has appended to it."""
        if not self._pending and (size := os.fstat(self._descriptor).st_size) != self._size:
            self.seq, whole = self._last(size)
            self._torn, self._size = not whole, size

    def _last(self, size: int) -> tuple[int, bool]:
        """The sequence number of the last event in `size` bytes, and whether the last line is whole."""
        high = size
        whole = size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n"
        tail = b""
        while high > 0:
            low = max(0, high - CHUNK)
            tail = os.pread(self._descriptor, high - low, low) + tail
            lines = tail.split(b"\n")
            for line in reversed(lines if low == 0 else lines[1:]):
                event = decode(line) if line else None
                if event is not None:
                    return event.seq, whole
            high, tail = low, lines[0]
        return 0, whole

    def write(self, event: E) -> E:
        """Append one event, with the next sequence number and the time of now unless it has one. Returns it.

        State, Checkpoint, Result, Retry and Failure are on the disk when this returns. While the disk is full events are
        kept (up to 1 MB, then the oldest go) and written when there is room again: a full disk does not end a run.
        """
        self._catch_up()
        self.seq += 1
        event.seq = self.seq
        event.time = event.time or time.time()
        line = _encoder.encode(event)
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN.encode())
        self._pending += line + b"\n"
        try:
            self._flush()
            if isinstance(event, _DURABLE):
                os.fdatasync(self._descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if len(self._pending) > PENDING:
                self._pending = self._pending[self._pending.index(b"\n", len(self._pending) - PENDING - 1) + 1 :]
        return event

    def _flush(self) -> None:
        content = b"\n" + self._pending if self._torn else self._pending
        written = os.write(self._descriptor, content)
        self._size += written
        if written < len(content):
            # The disk filled up within the write: what is there is torn, and the lines are written again, whole.
            self._torn = True
            whole = content.rfind(b"\n", 0, written) + 1
            self._pending = content[whole:].lstrip(b"\n")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        self._pending = b""

    def close(self) -> None:
        os.close(self._descriptor)


class Reader:
    """Follows a journal. Each event is given once, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0  # bytes read, always just after a newline

    def poll(self) -> list[AnyEvent]:
        """The events of the whole lines that came since the last poll; none when there is no journal yet."""
        return [event for events in self.chunks() for event in events]

    def chunks(self) -> Iterator[list[AnyEvent]]:
        """As `poll`, in pieces of about 256 kB of journal: for a first look at a long one without holding it all."""
        return map(_events, self._blocks())

    def points(self) -> Iterator[list[AnyEvent | Point]]:
        """As `chunks`, but of the step lines before the last one of each piece only the point of the curve is read.

        All that a picture needs, in two thirds of the time: a million steps are 280 MB of JSON.
        """
        return map(_points, self._blocks())

    def glimpse(self, pieces: int = 48) -> list[AnyEvent | Point]:
        """As `points`, of a long journal only so many pieces evenly spaced, the first and the newest among them.

        A picture of the whole at once, to look at while the journal is read; empty where it is short enough to be read
        instead. Reading goes on where it was.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return []
        found: list[AnyEvent | Point] = []
        try:
            size = os.fstat(descriptor).st_size
            if size < 4 * pieces * GLIMPSE:
                return []
            for number in range(pieces):
                at = number * (size - GLIMPSE) // (pieces - 1)
                block = os.pread(descriptor, GLIMPSE, at)
                begin = block.find(b"\n") + 1 if at else 0
                found += _points(block[begin : block.rfind(b"\n") + 1])
        finally:
            os.close(descriptor)
        return found

    def _blocks(self) -> Iterator[bytes]:
        """Whole lines, many at once."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            size = CHUNK
            while block := os.pread(descriptor, size, self.offset):
                end = block.rfind(b"\n") + 1
                if end:
                    self.offset += end
                    size = CHUNK
                    yield block[:end]
                elif len(block) < size:
                    return  # a torn tail
                else:
                    size *= 2  # one line longer than the block
        finally:
            os.close(descriptor)


def _events(block: bytes) -> list[AnyEvent]:
    try:
        return _decoder.decode_lines(block)
    except msgspec.MsgspecError:
        # One line in it is damaged or of a later version: take them one by one.
        return [event for line in block.split(b"\n") if line and (event := decode(line)) is not None]


def _points(block: bytes) -> list[AnyEvent | Point]:
    try:
        events = _brief.decode_lines(block)
    except msgspec.MsgspecError:
        return list(_events(block))
    at = block.rfind(b'{"event":"step",')  # within a text it would be written with \\"
    last = decode(block[at : block.index(b"\n", at)]) if at >= 0 else None
    if isinstance(last, Step):
        index = next(index for index in reversed(range(len(events))) if isinstance(events[index], Point))
        events[index] = last
    return events
