"""The journal on disk and what a view makes of it."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from engine.runs import journal, processes
from engine.runs.events import Checkpoint, Evaluated, Failure, Note, Sample, Start, State, Step
from engine.runs.journal import Reader, Writer
from engine.runs.view import RunView
from tests.engine.runs.fake_worker import a_step


def begin(from_step: int = 0) -> Start:
    return Start(attempt=1, from_step=from_step, total_steps=20, epochs=2.0, rows=10)


def test_round_trip_and_sequence(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = Writer(path)
    events = [State(state="loading"), begin(), a_step(1), Note(text="two\nlines \u202e 丛雨"), Failure(cause="x")]
    for event in events:
        writer.write(event)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5] and all(event.time > 0 for event in events)
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_bytes().count(b"\n") == 5
    reader = Reader(path)
    assert reader.poll() == events and reader.poll() == []
    later = Writer(path)
    assert later.write(a_step(2)).seq == 6
    assert writer.write(a_step(3)).seq == 7  # the first one noticed
    assert [event.seq for event in reader.poll()] == [6, 7]


def test_every_torn_tail_is_ignored_and_healed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Writer(path).write(State(state="training"))
    whole = path.read_bytes()
    writer = Writer(path)
    writer.write(a_step(1))
    line = path.read_bytes()[len(whole) :]
    for cut in range(1, len(line)):
        path.write_bytes(whole + line[:cut])
        reader = Reader(path)
        assert [event.seq for event in reader.poll()] == [1]
        Writer(path).write(a_step(2))
        # Cut just before its newline the line is whole after all.
        expected = [1, 2, 3] if cut == len(line) - 1 else [1, 2]
        assert [1] + [event.seq for event in reader.poll()] == expected
        assert [event.seq for event in Reader(path).poll()] == expected


def test_unknown_kinds_and_damage_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = Writer(path)
    writer.write(a_step(1))
    with path.open("ab") as file:
        file.write(
            b'{"event":"hologram","seq":2,"time":1.0}\n\n[1]\nnull\n\xff\xfe\n{"event":"step","seq":3}\n{"event":[]}\n'
        )
    later = Writer(path)
    later.write(a_step(2))
    assert [event.step for event in Reader(path).poll() if isinstance(event, Step)] == [1, 2]


def test_a_loss_that_is_not_finite_stays_a_step(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = Writer(path)
    writer.write(a_step(1, loss=math.nan))
    writer.write(a_step(2, loss=math.inf))
    first, second = Reader(path).poll()
    assert isinstance(first, Step) and isinstance(second, Step)
    assert math.isnan(first.loss) and math.isnan(second.loss) and second.grad_norm == 0.5
    assert "NaN" not in path.read_text() and json.loads(path.read_text().splitlines()[0])["loss"] is None


def test_reader_before_there_is_a_file_and_lines_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = Reader(path)
    assert reader.poll() == []
    writer = Writer(path)
    writer.write(Note(text="x" * 3_000_000))
    writer.write(a_step(1))
    note, step = reader.poll()
    assert isinstance(note, Note) and len(note.text) == 3_000_000 and isinstance(step, Step)
    assert Writer(path).write(a_step(2)).seq == 3


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "events.jsonl").symlink_to(target)
    with pytest.raises(OSError):
        Writer(tmp_path / "events.jsonl")


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    writer = Writer(path)
    writer.write(a_step(1))
    real = os.write
    room = [30]

    def full(descriptor: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count, room[0] = real(descriptor, content[: room[0]]), 0
        return count

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for step in range(2, 6):
            writer.write(a_step(step))
        writer.write(State(state="saving"))
    assert [event.seq for event in Reader(path).poll()] == [1]
    writer.write(a_step(6))
    assert [event.seq for event in Reader(path).poll()] == [1, 2, 3, 4, 5, 6, 7]


KILLED = """
import sys
import tracemalloc
from pathlib import Path
from engine.runs.events import Note
from engine.runs.journal import Writer
writer = Writer(Path(sys.argv[1]))
while True:
    writer.write(Note(text="n" * 500))
"""


def test_killed_writers_leave_every_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(3):
        size = path.stat().st_size if path.exists() else 0
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], env=processes.environment())
        while not path.exists() or path.stat().st_size < size + 50_000:
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
    sequence = [event.seq for event in Reader(path).poll()]
    assert sequence == list(range(1, len(sequence) + 1)) and len(sequence) > 250


def test_view_drops_what_a_resumed_run_does_again() -> None:
    view = RunView()
    assert not view.fold([])
    first = [State(state="training"), begin(), *[a_step(step) for step in range(1, 9)]]
    extra = [Evaluated(step=8, loss=0.5), Sample(step=8, prompt="p", answer="a"), Checkpoint(step=5, path="c")]
    assert view.fold([*first, *extra, Failure(cause="out of memory")])
    assert view.failure is not None and view.last is not None and view.last.step == 8
    assert len(view.smoothed(0.5)) == 8
    view.fold([State(state="preparing"), begin(from_step=5)])
    assert list(view.steps.step) == [1, 2, 3, 4, 5] and view.evaluated == [] and view.samples == []
    assert view.failure is None and view.last is None and [kept.step for kept in view.checkpoints] == [5]
    assert len(view.smoothed(0.5)) == 5
    view.fold([a_step(step, loss=3.0) for step in range(6, 8)])
    assert list(view.steps.step) == [1, 2, 3, 4, 5, 6, 7] and list(view.steps.loss)[5:] == [3.0, 3.0]
    assert list(view.smoothed(0.5))[4:] == [1.0, 2.0, 2.5]


def seen(view: RunView) -> dict[str, object]:
    """Everything that a picture shows."""
    curve = (list(view.steps.step), str(list(view.steps.loss)))
    return {**{name: value for name, value in vars(view).items() if name != "steps"}, "curve": curve}


def test_points_make_the_same_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in a journal and wherever a piece of it ends."""
    path = tmp_path / "events.jsonl"
    writer = Writer(path)
    chance = random.Random(1)
    writer.write(begin())
    step = 0
    for _ in range(600):
        step += 1
        writer.write(a_step(step, loss=chance.choice([chance.random(), math.nan, 1 / 3])))
        match chance.randrange(12):
            case 0:
                writer.write(Sample(step=step, prompt='{"event":"step","step":1,"loss":0}\n', answer="丛雨"))
            case 1:
                writer.write(Evaluated(step=step, loss=0.5))
            case 2:
                writer.write(Checkpoint(step=step, path=f"checkpoints/step-{step:06d}"))
            case 3 if chance.random() < 0.3:
                step = chance.randrange(step)
                writer.write(State(state="preparing"))
                writer.write(begin(from_step=step))
            case 4:
                with path.open("ab") as file:
                    file.write(chance.choice([b"\n", b'{"event":"hologram"}\n', b'{"event":"step","step":7,"epo\n']))
    for size in (64, 1000, 1001, 5000, 1 << 20):
        monkeypatch.setattr(journal, "CHUNK", size)
        whole, brief = RunView(), RunView()
        for events in Reader(path).chunks():
            whole.fold(events)
        reader = Reader(path)
        for points in reader.points():
            brief.fold(points)
        assert seen(brief) == seen(whole) and len(whole.steps) > 50
        assert reader.offset == path.stat().st_size
    whole.smoothed(0.5)
    assert len(whole.smoothed(0.5)) == len(whole.steps)


def test_smoothed_keeps_gaps() -> None:
    view = RunView()
    view.fold([a_step(1, 4.0), a_step(2, math.nan), a_step(3, 2.0)])
    assert str(list(view.smoothed(0.25))) == "[4.0, nan, 3.5]"
    view.fold([a_step(4, 3.5)])
    assert list(view.smoothed(0.25))[3] == 3.5
    assert list(view.smoothed(1.0))[3] == 3.5


def test_memory_stays_flat_over_a_day(tmp_path: Path) -> None:
    """A picture that is open for a day of steps, looked at again and again, holds a few bytes a step and no events."""
    path = tmp_path / "events.jsonl"
    writer = Writer(path)
    writer.write(begin())
    writer.write(a_step(1))
    line = path.read_bytes().splitlines()[-1] + b"\n"
    reader, view = Reader(path), RunView()
    view.fold(reader.poll())
    view.smoothed(0.01)
    tracemalloc.start()
    with path.open("ab", buffering=0) as file:
        for number in range(100):
            numbers = range(number * 1000 + 2, number * 1000 + 1002)
            file.write(b"".join(line.replace(b'"step":1,', b'"step":%d,' % step) for step in numbers))
            view.fold(reader.poll())
            view.smoothed(0.01)
    assert len(view.steps) == 100_001
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000 * 32  # bytes; the journal has 20 MB


def test_a_first_look_at_a_long_journal_holds_little_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = Writer(path)
    writer.write(begin())
    writer.write(a_step(1))
    line = path.read_bytes().splitlines()[-1] + b"\n"
    with path.open("ab") as file:
        for step in range(2, 100_002):
            file.write(line.replace(b'"step":1,', b'"step":%d,' % step))
    tracemalloc.start()
    view = RunView()
    for events in Reader(path).points():
        view.fold(events)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(view.steps) == 100_001
    assert peak < 100_000 * 24 + 20 * journal.CHUNK  # the arrays, while they grow, and one piece with its events


def test_a_glimpse_of_a_long_journal_reaches_from_the_first_step_to_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = Writer(path)
    writer.write(State(state="training"))
    writer.close()
    reader = Reader(path)
    assert reader.glimpse() == []  # short enough to be read
    assert Reader(tmp_path / "none").glimpse() == []
    line = msgspec.json.encode(a_step(7)).replace(b'"step":7', b'"step":%d')[:-1] + b',"seq":%d,"time":1}\n'
    assert line.count(b"%d") == 2
    with path.open("ab") as file:
        file.write(b"".join(line % (step, step + 1) for step in range(1, 100_001)))
        file.write(b'{"event":"step","ste')  # a torn tail
    view = RunView()
    assert view.fold(reader.glimpse())
    assert view.state == "training" and view.steps.step[0] == 1 and view.last is not None and view.last.step == 100_000
    gaps = [after - before for before, after in pairwise(view.steps.step)]
    assert 5_000 < len(view.steps) < 30_000 and max(gaps) < 5_000
    assert len(list(reader.poll())) == 100_001  # nothing was taken from what is read afterwards
