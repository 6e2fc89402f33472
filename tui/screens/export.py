"""Export: the adapter, or a whole merged model; it is loaded back and compared before it says done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Input, Static

from engine.errors import Exit, FtuiError
from engine.models import sources
from engine.recipe import slug
from engine.runs import control, directory, status
from engine.runs.events import AnyEvent, Exported, Failure, Progress
from engine.runs.job import Job
from engine.runs.journal import Reader
from engine.text import safe, shorten, size
from tui.frame import FAINT, FOCUS, GOOD, Frame
from tui.widgets.choice import Choice
from tui.widgets.field import Field
from tui.widgets.readout import rate

if TYPE_CHECKING:
    from engine.runs.directory import RunDir

POLL = 0.25
STAGES = ("Load the model", "Write", "Load it back and compare")
_SIZE = re.compile(r"\d+(\.\d+)?\s*[MG]i?B", re.IGNORECASE)


class ExportScreen(Frame):
    """One run's result, written where other programs load it."""

    TITLE = "Export"
    CSS_PATH = "export.tcss"
    AUTO_FOCUS = ""  # what is focused depends on whether there is anything to export
    HELP = (
        "Adapter: a few megabytes that peft puts on top of the base model. Merged: one whole model that transformers "
        "and everything built on it loads by itself, split into files of at most the shard size. Either is loaded "
        "back and its logits compared with base + adapter before it counts as done."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+e", "export", "Export", key_display="enter", priority=True, id="export.start"),
        Binding("escape", "back", "Back", id="export.back"),
        Binding("f1", "app.help", "Help", show=False, id="export.help"),
    ]

    running: reactive[bool] = reactive(False, init=False)

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        self._handle = run.name
        self._reader = Reader(run.journal_path)
        self._after = 0  # what the journal says up to here is of earlier jobs
        self._seq = 0
        self._stage = -1
        self._exports: list[Exported] = []
        self._default = ""
        self._full = False

    def body(self) -> ComposeResult:
        yield Static(id="nothing", markup=False)
        with Vertical(id="form"):
            yield Choice([("adapter", "Adapter", ""), ("merged", "Merged", "")], id="kind")
            with Horizontal(classes="field"):
                yield Static("folder", classes="label", markup=False)
                yield Field(id="to")
            with Horizontal(classes="field", id="shards"):
                yield Static("shard size", classes="label", markup=False)
                yield Field("2GB", id="shard")
                yield Static("largest file of the model", classes="hint", markup=False)
            yield Static(id="promise", markup=False)
        yield Static(id="stages", markup=False)
        yield Static(id="done", markup=False)

    def on_mount(self) -> None:
        self.query_one("#form").display = False
        self.heading = Content.assemble((shorten(safe(directory.title(self.run)), 40), "bold"), "   export")
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        """What there is to export, and what was exported before."""
        self._handle = directory.handle(self.run)
        for events in self._reader.chunks():
            self._take(events)
        self._after = self._seq
        now = status.read(self.run)
        base, source = 0, "the base model"
        try:
            recipe = self.run.recipe()
            self._full = recipe.settings.method == "full"
            source = sources.short_name(recipe.model.source)
            base = _bytes(sources.local(recipe.model.source))
        except FtuiError:
            pass  # sizes stay unknown; the export itself will say what is wrong
        result = _bytes(self.run.result)
        self.app.call_from_thread(self._ready, now, source, result, base)

    def _ready(self, now: status.Status, source: str, result: int, base: int) -> None:
        nothing = self.query_one("#nothing", Static)
        nothing.display = now.result is None
        self.query_one("#form").display = now.result is not None
        if now.result is None:
            nothing.update(Content(safe(f"{now.name} has nothing to export yet: it is {now.state}. 3 shows it.")))
            self.command = f"ftui attach {self._handle}"
            return
        whole = result if self._full else base
        merged = ("merged", "Merged", (f"{size(whole)}, " if whole else "") + "one model that transformers loads alone")
        adapter = ("adapter", "Adapter", f"{size(result)}, peft loads it onto {source}")
        choice = self.query_one("#kind", Choice)
        choice.options = [merged] if self._full else [adapter, merged]
        choice.chosen = choice.options[0][0]
        choice.refresh(layout=True)
        choice.focus()
        promise = "Enter starts. The export is loaded back and its answers compared before it counts as done."
        self.query_one("#promise", Static).update(Content.styled(promise, FAINT))
        self._kind_changed()
        self._draw()
        if now.job == "export" and now.worker_alive:
            self.running = True
        self.set_interval(POLL, self._poll)
        self.set_interval(1, self._watch_worker)

    # the form ---------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        return self.query_one("#kind", Choice).chosen

    def on_choice_changed(self) -> None:
        self._kind_changed()

    def _kind_changed(self) -> None:
        """The folder follows the kind until the person names one."""
        to = self.query_one("#to", Input)
        if to.value in ("", self._default):
            self._default = _free(f"{slug(directory.title(self.run))}-{self.kind}")
            to.value = self._default
        self.query_one("#shards").display = self.kind == "merged"
        self._say_command()

    def on_input_changed(self) -> None:
        self._say_command()

    def _say_command(self) -> None:
        merged = " --merged" if self.kind == "merged" else ""
        shard = self.query_one("#shard", Input).value.strip()
        shards = f" --shard-size {shlex.quote(shard)}" if merged and shard not in ("", "2GB") else ""
        to = self.query_one("#to", Input).value.strip()
        self.command = f"ftui export {shlex.quote(self._handle)}{merged}{shards} --to {shlex.quote(to)}"

    def on_choice_accepted(self) -> None:
        self.action_export()

    def on_input_submitted(self) -> None:
        self.action_export()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "export":
            return self.is_mounted and not self.running and self.query_one("#form").display
        return True

    def action_export(self) -> None:
        """Start it, or say what is wrong with the form where it is wrong."""
        if self.running:
            return
        to, shard = self.query_one("#to", Input), self.query_one("#shard", Input)
        if not to.value.strip():
            to.focus()
            self.notice("name a folder to write to", "warning")
        elif self.kind == "merged" and not _SIZE.fullmatch(shard.value.strip()):
            shard.focus()
            self.notice(f"{shard.value} is not a size: write it like 500MB or 2GB", "warning")
        elif _taken(folder := Path(to.value.strip()).expanduser()):
            to.focus()
            self.notice(f"{folder} is there and not empty: name another folder", "warning")
        else:
            self.notice("")
            self._stage, self._after = -1, self._seq
            self.running = True
            options = {"kind": self.kind, "to": str(folder.absolute()), "shard_size": shard.value.strip()}
            self._begin(options)

    @work(thread=True, group="control")
    def _begin(self, options: dict[str, str]) -> None:
        try:
            control.start(self.run, Job("export", str(self.run.path), options))
        except (FtuiError, OSError) as error:
            self.app.call_from_thread(self._failed, error)

    # the work ---------------------------------------------------------------------------------------------------

    def _take(self, events: list[AnyEvent]) -> Failure | None:
        """Fold events in; returns a failure that concerns the export that runs."""
        failure = None
        for event in events:
            self._seq = event.seq
            if isinstance(event, Progress) and event.what.startswith("export"):
                self._stage = event.done
            elif isinstance(event, Exported):
                self._exports.append(event)
                self._stage = len(STAGES)
            elif isinstance(event, Failure) and event.seq > self._after:
                failure = event
        return failure

    def _poll(self) -> None:
        events = self._reader.poll()
        if not events:
            return
        failure = self._take(events)
        if any(isinstance(event, Exported) for event in events):
            self.running = False
            self._kind_changed()
        if failure is not None and self.running:
            self._failed(FtuiError(Exit.EXPORT_FAILED, failure.cause, failure.where, failure.next_step))
        self._draw()

    @work(thread=True, exclusive=True, group="watch")
    def _watch_worker(self) -> None:
        """A worker that was killed says nothing in the journal."""
        if not self.running or self._stage < 0:
            return
        now = status.read(self.run)
        if self.running and now.job == "export" and not now.worker_alive and self._stage < len(STAGES):
            self.app.call_from_thread(self._lost)

    def _lost(self) -> None:
        self._poll()  # its last words may have come meanwhile
        if self.running:
            last = status.last_words(self.run.log_path)
            cause = "the export ended without a result"
            self._failed(FtuiError(Exit.EXPORT_FAILED, cause, last, f"see ftui logs {self._handle}"))

    def _failed(self, error: BaseException) -> None:
        self.running = False
        self._stage = -1
        self.error(error)
        self._draw()

    def watch_running(self) -> None:
        self.query_one("#form").disabled = self.running
        if not self.running and self.query_one("#form").display:
            self.query_one("#kind").focus()
        self._draw()
        self.refresh_bindings()

    def _draw(self) -> None:
        stages = self.query_one("#stages", Static)
        stages.display = self.running
        self.query_one("#promise").display = not self.running
        at = max(self._stage, 0)
        lines = []
        for number, name in enumerate(STAGES):
            glyph, style = ("✓", FAINT) if number < at else ("●", f"bold {FOCUS}") if number == at else ("·", FAINT)
            lines.append(Content.styled(f"{glyph} {name}", style))
        lines.append(Content.styled("\n  It goes on if you leave this screen.", FAINT))
        stages.update(Content("\n").join(lines))
        done = self.query_one("#done", Static)
        shown = self._exports[-3:][::-1]
        done.display = bool(shown) and not self.running
        done.update(Content("\n\n").join(_line(event) for event in shown))


def _line(event: Exported) -> Content:
    """One export that is done: what, where, how exact, and what to type next."""
    loads = "AutoPeftModelForCausalLM" if event.kind == "adapter" else "AutoModelForCausalLM"
    same = (
        "answers exactly as the run does"
        if not event.difference
        else (f"loaded back and compared: largest difference between logits {rate(event.difference)}")
    )
    return Content.assemble(
        ("✓", GOOD),
        (f" {event.kind} in {safe(_short(event.path))}", "bold"),
        f"\n  {same}",
        (f"\n  {loads}.from_pretrained({safe(repr(event.path))})", FAINT),
    )


def _short(path: str) -> str:
    """A path from here or from home where that is shorter."""
    here, home = str(Path.cwd()), str(Path.home())
    if path.startswith(here + "/"):
        return "." + path[len(here) :]
    return "~" + path[len(home) :] if path.startswith(home + "/") else path


def _bytes(folder: Path | None) -> int:
    """Bytes of the weights in a folder; 0 for none."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder else 0


def _taken(folder: Path) -> bool:
    try:
        return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError:
        return True


def _free(name: str) -> str:
    """./name, with a number where that is taken."""
    number, found = 1, f"./{name}"
    while _taken(Path(found)):
        number += 1
        found = f"./{name}-{number}"
    return found
