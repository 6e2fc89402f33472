"""The table of runs as plain data: read in a thread, drawn by the screen. No Textual app is needed to test it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from rich.cells import cell_len
from textual.content import Content

from engine.text import ago, duration, safe, shorten
from tui.frame import BAD, FAINT, FOCUS, GOOD, WARN

if TYPE_CHECKING:
    from engine.presets import Preset
    from engine.runs.directory import RunDir
    from engine.runs.journal import Reader
    from engine.runs.status import Status
    from engine.runs.view import RunView
    from tui.widgets.chart import Curve

GLYPHS = {"ready": ("✓", GOOD), "failed": ("!", BAD), "lost": ("!", BAD), "stopped": ("■", WARN)}
ALIVE, QUEUED = ("●", FOCUS), ("○", FOCUS)
# States that last before and after training, in words that fit the column.
STATES = {"preparing": "starting", "tokenizing": "counting", "evaluating": "checking"}
SPARK_POINTS = 64  # losses kept for the little curve; more than any column is wide


def pad(text: str, width: int, right: bool = False) -> str:
    """`text` in exactly `width` cells."""
    text = shorten(text, width)
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


class Columns(Struct, frozen=True):
    """Widths of the table's columns in cells, for a line of `width` cells in all."""

    run: int
    model: int
    method: int
    step: int
    loss: int
    spark: int
    evaluation: int
    when: int

    @classmethod
    def of(cls, width: int) -> Columns:
        """Everything of use at 75 cells; room beyond that goes to names, then to the curve and held-out loss."""
        extra = max(0, width - 75)
        run = min(10, extra // 3)
        model = min(14, extra // 3)
        rest = extra - run - model
        evaluation = 8 if rest >= 12 else 0
        spark = min(20, rest - (evaluation + 2 if evaluation else 0))
        return cls(12 + run, 14 + model, 9, 8, 5, 4 + spark, evaluation, 10)

    def heading(self) -> str:
        loss = pad("Loss", self.loss, right=True) + " " * (self.spark + 1)
        held_out = pad("Held out", self.evaluation, right=True) + "  " if self.evaluation else ""
        return (
            f"  {pad('Run', self.run)}  {pad('Model', self.model)}  {pad('Method', self.method)}"
            f"  {pad('Step', self.step, right=True)}  {loss}  {held_out}{pad('When', self.when, right=True)}"
        )


class RunLine(Struct, frozen=True):
    """One run as it stands in the table; `key` is the name of its folder."""

    key: str
    name: str
    state: str
    alive: bool
    model: str
    method: str
    step: int
    total: int
    loss: float | None
    evaluation: float | None
    losses: tuple[float, ...]
    when: str
    cause: str
    waits: str = ""

    @property
    def resumable(self) -> bool:
        return not self.alive and self.state != "ready"

    @property
    def answers(self) -> bool:
        """There is something to chat with."""
        return self.state == "ready"

    def words(self) -> str:
        """What a filter looks at."""
        return f"{self.name} {self.model} {self.method} {self.state} {self.cause} {self.waits}".lower()

    def line(self, width: int) -> Content:
        from tui.widgets.braille import spark

        columns = Columns.of(width)
        if self.state == "queued":
            return self._queued(columns).truncate(width, ellipsis=True)
        glyph, colour = ALIVE if self.alive else GLYPHS.get(self.state, ("·", FAINT))
        step = f"{self.step}/{self.total}" if self.step else STATES.get(self.state, self.state)
        left = Content.assemble(
            (glyph, colour),
            f" {pad(self.name, columns.run)}  ",
            (f"{pad(self.model, columns.model)}  {pad(self.method, columns.method)}", FAINT),
            f"  {pad(step, columns.step, right=True)}  ",
        )
        if self.cause:
            return (left + Content.styled(self.cause, BAD)).truncate(width, ellipsis=True)
        loss = "" if self.loss is None else f"{self.loss:.2f}"
        held_out = ""
        if columns.evaluation:
            held_out = (
                pad("" if self.evaluation is None else f"{self.evaluation:.2f}", columns.evaluation, right=True) + "  "
            )
        right = Content.assemble(
            pad(loss, columns.loss, right=True),
            " ",
            (
                pad(spark(self.losses, columns.spark) if self.losses else "", columns.spark),
                FOCUS if self.alive else FAINT,
            ),
            f"  {held_out}",
            (pad(self.when, columns.when, right=True), FAINT),
        )
        return (left + right).truncate(width, ellipsis=True)

    def _queued(self, columns: Columns) -> Content:
        """A run in line has no numbers yet: what it waits for takes their room."""
        glyph, colour = QUEUED
        return Content.assemble(
            (glyph, colour),
            f" {pad(self.name, columns.run)}  ",
            (f"{pad(self.model, columns.model)}  {pad(self.method, columns.method)}", FAINT),
            f"  queued {self.waits}",
        )


class PresetLine(Struct, frozen=True):
    """One preset to start from."""

    key: str
    title: str
    summary: str
    measured: str
    brings_rows: bool
    when: str = ""

    def line(self, width: int) -> Content:
        title, measured = min(24, width // 3), 16 if width >= 70 else 0
        summary = width - title - measured - 2
        return Content.assemble(
            pad(self.title, title),
            "  ",
            (pad(self.summary, summary), FAINT),
            (pad(self.measured, measured, right=True), FAINT),
        )


def presets() -> list[PresetLine]:
    """Every preset that can be read; one that cannot says so in its place."""
    from engine import presets as rooms
    from engine.errors import FtuiError

    found = []
    for name in rooms.names():
        try:
            preset = rooms.load(name)
        except FtuiError as error:
            found.append(PresetLine(name, safe(name), safe(f"cannot be read: {error.cause}"), "", False))
            continue
        measured = preset.measured[0] if preset.measured else None
        time = f"measured {duration(measured.seconds).removeprefix('about ')}" if measured else ""
        if preset.data is None:
            time = "with your rows"
        found.append(
            PresetLine(name, safe(preset.title), safe(preset.summary), time, preset.data is not None, _when(preset))
        )
    return sorted(found, key=lambda line: not line.brings_rows)


def _when(preset: Preset) -> str:
    """When to use a preset, and what it took where it was measured."""
    lines = [safe(preset.when)]
    for run in preset.measured[:3]:
        lines.append(
            f"Measured on {safe(run.hardware)} with {safe(run.model)}: {duration(run.seconds)}, "
            f"{run.steps} steps, loss {run.first_loss:.2f} to {run.last_loss:.2f}."
        )
    return "\n".join(lines)


class Listing:
    """Reads all runs. Journals are followed, not read again; those of runs that ended are read once."""

    def __init__(self) -> None:
        self._followed: dict[str, tuple[Reader, RunView]] = {}
        self._trained: dict[str, float] = {}
        self._dirs: dict[str, RunDir] = {}

    def run(self, key: str) -> RunDir | None:
        """The run behind a line."""
        return self._dirs.get(key)

    def curve(self, key: str) -> Curve | None:
        """What a chart of this run draws; None before its first step."""
        from tui.widgets import readout
        from tui.widgets.chart import Curve

        if key not in self._followed:
            return None
        view = self._followed[key][1]
        if not len(view.steps):
            return None
        total = view.start.total_steps if view.start else view.steps.step[-1]
        smooth = view.smoothed(readout.alpha(total))
        # Another thread may be adding steps: what all three have in common is whole.
        length = min(len(view.steps.step), len(view.steps.loss), len(smooth))
        evaluated = [(float(event.step), event.loss) for event in view.evaluated]
        return Curve(view.steps.step[:length], view.steps.loss[:length], smooth[:length], evaluated, total)

    def read(self, now: float) -> list[RunLine]:
        """All runs, newest first. `now` in seconds since 1970. A run whose files cannot be read says so."""
        from engine.runs import directory, status

        lines = []
        runs = directory.all_runs()
        self._dirs = {run.name: run for run in runs}
        for run in runs:
            key = run.name
            try:
                lines.append(self._line(run, status.read(run), now))
            except Exception as error:  # one broken folder must not hide the others
                lines.append(_broken(key, error))
        return lines

    def _line(self, run: RunDir, status: Status, now: float) -> RunLine:
        from engine.advice.fields import METHODS
        from engine.models import sources
        from engine.recipe import LOW_RANK

        alive = not status.ended
        method = next((word for name, word in METHODS.items() if name == status.method), status.method or "")
        if status.method in LOW_RANK:
            method = f"{method} r{run.recipe().settings.rank}"
        cause = ""
        if status.state in ("failed", "lost") or status.hung or (status.state == "stopped" and status.cause):
            cause = status.cause or status.detail or status.state
        losses, trained = self._losses(run)
        ended = max(trained, status.started or 0.0)
        return RunLine(
            key=run.name,
            name=safe(status.name),
            state=status.state,
            alive=alive,
            model=safe(sources.short_name(status.model)),
            method=safe(method),
            step=status.step or 0,
            total=status.total_steps or 0,
            loss=status.loss,
            evaluation=status.eval_loss,
            losses=losses,
            when="now" if alive and not status.ended else ago(max(0.0, now - (ended or now))),
            cause=safe(cause),
            waits=safe(status.detail) if status.state == "queued" else "",
        )

    def _losses(self, run: RunDir) -> tuple[tuple[float, ...], float]:
        """The losses of the little curve, and when training last told of itself: exports and the like write in the journal, too."""
        from engine.runs.events import State, Step
        from engine.runs.journal import Reader
        from engine.runs.view import RunView

        if run.name not in self._followed:
            self._followed[run.name] = (Reader(run.journal_path), RunView())
        reader, view = self._followed[run.name]
        for events in reader.points():
            view.fold(events)
            told = next((event for event in reversed(events) if isinstance(event, State | Step)), None)
            if told is not None:
                self._trained[run.name] = told.time
        losses = tuple(view.steps.loss[:: max(1, len(view.steps) // SPARK_POINTS)])
        return losses, self._trained.get(run.name, 0.0)


def _broken(key: str, error: Exception) -> RunLine:
    cause = safe(f"cannot be read: {error}")
    return RunLine(key, safe(key), "failed", False, "", "", 0, 0, None, None, (), "", cause)
