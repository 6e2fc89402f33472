"""Export: the adapter, a whole merged model, or a GGUF; it is loaded back and compared before it says done."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
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
from engine.runs import export as exports
from engine.runs.events import AnyEvent, Exported, Failure, Progress, Pushed
from engine.runs.job import Job
from engine.runs.journal import Reader
from engine.text import safe, shorten, size
from tui.frame import FAINT, FOCUS, GOOD, Frame
from tui.widgets.choice import Choice
from tui.widgets.field import Field
from tui.widgets.paths import Paths
from tui.widgets.readout import rate

if TYPE_CHECKING:
    from engine.runs.directory import RunDir

POLL = 0.25
STAGES = ("Load the model", "Write", "Load it back and compare", "Put it on the hub")
# Name in the form -> what the job is told of it.
KINDS: dict[str, dict[str, str]] = {
    "adapter": {"kind": "adapter"},
    "merged": {"kind": "merged"},
    "f16": {"kind": "gguf", "format": "f16"},
    "q8_0": {"kind": "gguf", "format": "q8_0"},
}


class ExportScreen(Frame):
    """One run's result, written where other programs load it."""

    TITLE = "Export"
    CSS_PATH = "export.tcss"
    AUTO_FOCUS = ""  # what is focused depends on whether there is anything to export
    HELP = (
        "Adapter: a few megabytes that peft puts on top of the base model. Merged: one whole model that transformers "
        "and everything built on it loads by itself, split into files of at most the shard size, in the precision that "
        "it was tuned in or another. GGUF: one file for llama.cpp, with a Modelfile for Ollama, in 16 or 8 bit. Each is "
        "loaded back and its logits compared with base + adapter before it counts as done. With a name under hub it is "
        "put there too, by the token in HF_TOKEN."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+e", "export", "Export", key_display="enter", priority=True, id="export.start"),
        Binding("s", "stop", "Stop", id="export.stop", tooltip="End the export that goes on; nothing half is left"),
        Binding("escape", "back", "Back", id="export.back"),
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
        self._total = 3  # stages of the export that goes on
        self._written = ""
        self._pushes: dict[str, str] = {}
        self._sure = False  # that it may go to the hub
        self._whole = False  # the run left a model, no adapter

    def body(self) -> ComposeResult:
        yield Static(id="nothing", markup=False)
        with Vertical(id="form"):
            yield Choice([(name, name, "") for name in KINDS], id="kind")
            with Horizontal(classes="field"):
                yield Static("folder", classes="label", markup=False)
                yield Field(id="to", suggester=Paths())
            with Horizontal(classes="field", id="shards"):
                yield Static("shard size", classes="label", markup=False)
                yield Field("2GB", id="shard")
                yield Static("largest file of the model", classes="hint", markup=False)
            with Horizontal(classes="field", id="weights"):
                yield Static("weights", classes="label", markup=False)
                yield Field(id="dtype")
                yield Static("fp32, bf16 or fp16; empty as it was tuned", classes="hint", markup=False)
            with Horizontal(classes="field"):
                yield Static("hub", classes="label", markup=False)
                yield Field(id="push")
                yield Static("OWNER/NAME; empty: stays here", classes="hint", markup=False)
            yield Choice(
                [
                    ("private", "Private", "only you can see it there"),
                    ("public", "Public", "everybody can see it there"),
                ],
                id="seen",
            )
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
        source, sizes = "the base model", dict.fromkeys(KINDS, 0)
        try:
            recipe = self.run.recipe()
            self._whole = not recipe.settings.adapts
            source = sources.short_name(recipe.model.source)
            base = sources.local(recipe.model.source)
            if self.run.result is not None:
                for name, told in KINDS.items():
                    sizes[name] = exports.needed(exports.read(told), self.run.result, base, recipe.settings.precision)
        except (FtuiError, OSError):
            pass  # sizes stay unknown; the export itself will say what is wrong
        self.app.call_from_thread(self._ready, now, source, sizes)

    def _ready(self, now: status.Status, source: str, sizes: dict[str, int]) -> None:
        nothing = self.query_one("#nothing", Static)
        nothing.display = now.result is None
        self.query_one("#form").display = now.result is not None
        if now.result is None:
            nothing.update(Content(safe(f"{now.name} has nothing to export yet: it is {now.state}. 3 shows it.")))
            self.command = f"ftui attach {self._handle}"
            return
        words = {
            "adapter": ("Adapter", f"peft loads it onto {source}"),
            "merged": ("Merged", "one model that transformers loads alone"),
            "f16": ("GGUF f16", "one file for llama.cpp and Ollama"),
            "q8_0": ("GGUF q8_0", "the same in half the size, a little less exact"),
        }
        choice = self.query_one("#kind", Choice)
        choice.options = [
            (name, word, (f"{size(sizes[name])}, " if sizes[name] else "") + meaning)
            for name, (word, meaning) in words.items()
            if not (self._whole and name == "adapter")
        ]
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
        self._changed()
        to = self.query_one("#to", Input)
        if to.value in ("", self._default):
            self._default = _free(f"{slug(directory.title(self.run))}-{self.kind}")
            to.value = self._default
        self.query_one("#shards").display = self.query_one("#weights").display = self.kind == "merged"
        self._say_command()

    def on_input_changed(self) -> None:
        self._changed()
        self._say_command()

    def _changed(self) -> None:
        """What was said of the form before, a question among it, is said of another form."""
        self._sure = False
        self.notice("")

    @property
    def _asked(self) -> dict[str, Any]:
        """What the form says, as the job's options."""
        value = {name: self.query_one(f"#{name}", Input).value.strip() for name in ("to", "shard", "dtype", "push")}
        found: dict[str, Any] = {**KINDS[self.kind], "to": value["to"]}
        if self.kind == "merged":
            found |= {"shard_size": value["shard"], "dtype": value["dtype"] or None}
        if value["push"]:
            found |= {"push": value["push"], "public": self.query_one("#seen", Choice).chosen == "public"}
        return found

    def _say_command(self) -> None:
        asked = self._asked
        self.query_one("#seen").display = "push" in asked
        parts = ["ftui export", shlex.quote(self._handle)]
        if self.kind == "merged":
            parts.append("--merged")
            if asked["shard_size"] not in ("", "2GB"):
                parts.append(f"--shard-size {shlex.quote(asked['shard_size'])}")
            if asked["dtype"]:
                parts.append(f"--dtype {shlex.quote(asked['dtype'])}")
        elif "format" in asked:
            parts.append(f"--gguf {asked['format']}")
        parts.append(f"--to {shlex.quote(asked['to'])}")
        if "push" in asked:
            parts.append(f"--push {shlex.quote(asked['push'])}" + (" --public" if asked["public"] else ""))
        self.command = " ".join(parts)

    def on_choice_accepted(self) -> None:
        self.action_export()

    def on_input_submitted(self) -> None:
        self.action_export()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "export":
            return self.is_mounted and not self.running and self.query_one("#form").display
        return self.running if action == "stop" else True

    def action_export(self) -> None:
        """Start it, or say what is wrong with the form where it is wrong."""
        if self.running:
            return
        asked = self._asked
        folder = Path(asked["to"]).expanduser()
        if not asked["to"]:
            self.query_one("#to").focus()
            self.notice("name a folder to write to", "warning")
            return
        try:
            options = exports.read({**asked, "to": str(folder.absolute())})
            exports.check_place(folder.absolute())
        except FtuiError as error:
            wrong = {"shard size": "#shard", "push": "#push"}.get(error.where, "#dtype")
            self.query_one(wrong if error.code == Exit.USAGE else "#to").focus()
            words = (
                f"{error.cause}: {error.next_step}" if error.next_step else f"weights are {', '.join(exports.DTYPES)}"
            )
            self.notice(words, "warning")
            return
        if options.push and not self._sure:
            self._sure = True
            seen = "for everybody to see" if options.public else "for you alone to see"
            self.notice(f"enter again puts it on the hub as {options.push}, {seen}", "warning")
        else:
            self.notice("")
            self._stage, self._after, self._written, self._sure = -1, self._seq, "", False
            self._total = 4 if options.push else 3
            self.running = True
            self._begin(msgspec.to_builtins(options))

    def action_stop(self) -> None:
        """It ends after the part it is at; its last word comes through the journal."""
        self.in_thread(
            lambda: control.stop(self.run), lambda _: self.notice("it stops after the part it is at"), group="control"
        )

    @work(thread=True, group="control")
    def _begin(self, options: dict[str, Any]) -> None:
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
                self._stage, self._total, self._written = event.done, event.total, ""
            elif isinstance(event, Progress) and event.what == "MB" and self._stage == 1:
                self._written = f"   {event.done} of {event.total} MB"
            elif isinstance(event, Exported):
                self._exports.append(event)
                self._stage = 3
            elif isinstance(event, Pushed):
                self._pushes[event.path] = event.url
                self._stage = 4
            elif isinstance(event, Failure) and event.seq > self._after:
                failure = event
        return failure

    def _poll(self) -> None:
        events = self._reader.poll()
        if not events:
            return
        failure = self._take(events)
        if any(isinstance(event, Exported | Pushed) for event in events) and self._stage >= self._total:
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
        if self.running and now.job == "export" and not now.worker_alive and self._stage < self._total:
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
        for number, name in enumerate(STAGES[: self._total]):
            glyph, style = ("✓", FAINT) if number < at else ("●", f"bold {FOCUS}") if number == at else ("·", FAINT)
            lines.append(Content.styled(f"{glyph} {name}{self._written if number == at else ''}", style))
        lines.append(Content.styled("\n  It goes on if you leave this screen.", FAINT))
        stages.update(Content("\n").join(lines))
        done = self.query_one("#done", Static)
        shown = self._exports[-3:][::-1]
        done.display = bool(shown) and not self.running
        done.update(Content("\n\n").join(self._line(event) for event in shown))

    def _line(self, event: Exported) -> Content:
        """One export that is done: what, where, how exact, and what to type next."""
        if event.kind == "gguf":
            use = f"in it: ollama create {exports.ollama_name(directory.title(self.run))} -f Modelfile"
        else:
            loads = "AutoPeftModelForCausalLM" if event.kind == "adapter" else "AutoModelForCausalLM"
            use = f"{loads}.from_pretrained({event.path!r})"
        gap = f"{event.difference:.2g}" if event.difference >= 1e-3 else rate(event.difference)
        same = (
            "answers exactly as the run does"
            if not event.difference
            else f"loaded back and compared: largest difference between logits {gap}"
        )
        if event.asked:
            same += f"\n  {event.alike} of {event.asked} greedy answers are the same"
        parts: list[str | Content | tuple[str, str]] = [
            ("✓", GOOD),
            (f" {event.kind} {event.form}".rstrip() + f" in {safe(_short(event.path))}", "bold"),
            f"\n  {same}",
            (f"\n  {safe(use)}", FAINT),
        ]
        if event.path in self._pushes:
            parts.append(f"\n  on the hub: {safe(self._pushes[event.path])}")
        return Content.assemble(*parts)


def _short(path: str) -> str:
    """A path from here or from home where that is shorter."""
    here, home = str(Path.cwd()), str(Path.home())
    if path.startswith(here + "/"):
        return "." + path[len(here) :]
    return "~" + path[len(home) :] if path.startswith(home + "/") else path


def _free(name: str) -> str:
    """./name, with a number where that is taken."""
    number, found = 1, f"./{name}"
    while exports.taken(Path(found)):
        number += 1
        found = f"./{name}-{number}"
    return found
