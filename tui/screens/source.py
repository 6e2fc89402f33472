"""Where the rows come from: a preset that brings its own, a file in this folder, the file of an earlier run, any other."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import msgspec
from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.errors import Exit, FtuiError
from engine.text import safe, shorten, size
from tui.ask import Ask
from tui.frame import FAINT
from tui.listing import pad, presets
from tui.rows import Rows
from tui.wizard import Step

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")
MOST_FILES = 50
ANOTHER = "another"
NEEDED = "Choose the rows to train on."


class SourceLine(Struct, frozen=True):
    """`key` is "preset:NAME", a path, or ANOTHER."""

    key: str
    title: str
    detail: str

    def line(self, width: int) -> Content:
        title = min(40, width * 2 // 5)
        return Content.assemble(pad(self.title, title), "  ", (shorten(self.detail, width - title - 2), FAINT))


def offers(folder: Path) -> list[SourceLine]:
    """What to offer: files of `folder`, files of earlier runs, presets with rows."""
    from engine.runs import directory

    lines = []
    with suppress(OSError):  # the folder may be gone or closed to us; a path can still be typed
        here = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        for path in here[:MOST_FILES]:
            lines.append(
                SourceLine(str(path.absolute()), safe(path.name), f"{size(path.stat().st_size)}, in this folder")
            )
    seen = {line.key for line in lines}
    for run in directory.all_runs()[:20]:
        try:
            source = run.recipe().data.source
        except FtuiError:
            continue
        if source not in seen and not source.startswith("preset:") and Path(source).is_file():
            seen.add(source)
            lines.append(SourceLine(source, safe(Path(source).name), f"of the run {safe(directory.title(run))}"))
    for preset in presets():
        if preset.brings_rows:
            lines.append(SourceLine(f"preset:{preset.key}", preset.title, f"preset, {preset.summary}"))
    return [*lines, SourceLine(ANOTHER, "Another file …", "json, jsonl, csv, tsv, parquet or txt")]


class SourceScreen(Step):
    """Second step of a new run, first half: which rows."""

    STEP = "data"
    CSS_PATH = "source.tcss"
    HELP = (
        "The rows to train on. Files of this folder come first, then files of earlier runs, then presets that bring "
        "rows. Columns are recognised by themselves: instruction and output, conversations, messages, prompt and "
        "completion, plain text."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "another", "Another file", key_display="/", id="source.another", tooltip="Type a path"),
    ]

    def body(self) -> ComposeResult:
        yield Static("", id="which", markup=False)
        yield Rows(id="sources", verb="Look at it")
        yield Ask(id="ask")

    def on_mount(self) -> None:
        choice = self.wizard.picked()
        words = (
            f"{NEEDED} The preset {safe(choice.preset)} brings none." if choice.preset and not choice.data else NEEDED
        )
        self.query_one("#which", Static).update(Content.styled(words, FAINT))
        self.query_one("#sources").focus()
        self.in_thread(lambda: offers(Path()), self.query_one("#sources", Rows).show)

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        if event.item.key == ANOTHER:
            self.action_another()
        else:
            self._choose(event.item.key)

    def action_another(self) -> None:
        choice = self.wizard.picked()
        self.query_one(Ask).ask("file", choice.data or "", self._choose_typed)

    def _choose_typed(self, text: str) -> None:
        path = Path(text).expanduser()
        if not text or not path.is_file():
            raise FtuiError(Exit.DATA_MISSING, "no such file" if text else "type a path, or escape")
        if path.suffix.lower() not in SUFFIXES:
            raise FtuiError(Exit.DATA_SYNTAX, "not one of " + " ".join(SUFFIXES))
        self._choose(str(path.absolute()))

    def _choose(self, key: str) -> None:
        choice = self.wizard.picked()
        if key.startswith("preset:"):
            choice = msgspec.structs.replace(choice, preset=key.removeprefix("preset:"), data=None)
        else:
            # Own rows in place of a preset's leave the preset; one that brings none waits for exactly these.
            preset = None if choice.preset and self._brings_rows(choice.preset) else choice.preset
            choice = msgspec.structs.replace(choice, preset=preset, data=key)
        # What was said about other rows does not hold for these.
        self.wizard.begin(msgspec.structs.replace(choice, edits={}, name=None, on_bad_row="abort"))
        self.go("data")

    @staticmethod
    def _brings_rows(preset: str) -> bool:
        from engine import presets

        return presets.load(preset).data is not None

    def before(self) -> str:
        return "model"
