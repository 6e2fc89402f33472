"""Where the rows come from: a file or folder here, an entry of a registry, the file of an earlier run, a preset, the hub."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.errors import Exit, FtuiError
from engine.text import number, safe, shorten, size
from tui.ask import Ask
from tui.frame import FAINT, FOCUS
from tui.listing import pad, presets
from tui.rows import Rows
from tui.screens.by_name import ANOTHER, ByName
from tui.wizard import brings_rows

PACKED = (".gz", ".zst")
REGISTRY = "dataset_info.json"  # LLaMA-Factory's list of data sets
MOST = 50  # files, and entries of a registry, that are offered
NEEDED = "Choose the rows to train on."
_HUB = re.compile(r"hub:[\w.-]+(/[\w.-]+)?")


class SourceLine(Struct, frozen=True):
    """`key` is what `Choice.data` takes ("preset:NAME", "dataset_info.json:ENTRY", a path), or ANOTHER."""

    key: str
    title: str
    detail: str
    used: bool = False

    def line(self, width: int) -> Content:
        title = min(40, width * 2 // 5)
        used = "● in use  " if self.used else ""
        detail = shorten(self.detail, max(0, width - title - 2 - len(used)))
        return Content.assemble(pad(self.title, title), "  ", (used, FOCUS), (detail, FAINT))


def is_data(path: Path) -> bool:
    """Whether a file's name is that of rows, packed or not."""
    from engine.data import sources

    inner = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return inner.suffix.lower() in sources.SUFFIXES and inner.stem.lower() not in ("readme", "dataset_info")


def offers(folder: Path) -> list[SourceLine]:
    """What to offer: files and folders in `folder`, its registry, files of earlier runs, presets with rows."""
    lines = [*_files(folder), *_folders(folder), *entries(folder / REGISTRY)]
    lines += _of_runs({line.key for line in lines})
    for preset in presets():
        if preset.brings_rows:
            lines.append(SourceLine(f"preset:{preset.key}", preset.title, f"preset, {preset.summary}"))
    return [*lines, SourceLine(ANOTHER, "Another …", "a file, a folder, or hub:OWNER/NAME")]


def _files(folder: Path) -> list[SourceLine]:
    lines = []
    with suppress(OSError):  # the folder may be gone or closed to us; a path can still be typed
        for path in sorted(path for path in folder.iterdir() if is_data(path) and path.is_file())[:MOST]:
            lines.append(
                SourceLine(str(path.absolute()), safe(path.name), f"{size(path.stat().st_size)}, in this folder")
            )
    return lines


def _folders(folder: Path) -> list[SourceLine]:
    """Folders that hold rows themselves."""
    lines = []
    with suppress(OSError):
        for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))[:MOST]:
            with suppress(OSError):
                files = [file for file in path.iterdir() if is_data(file) and file.is_file()]
                if files:
                    whole = size(sum(file.stat().st_size for file in files))
                    detail = f"{whole} in {len(files)} file{'' if len(files) == 1 else 's'}"
                    lines.append(SourceLine(str(path.absolute()), safe(path.name) + "/", detail))
    return lines


def entries(registry: Path) -> list[SourceLine]:
    """The entries of a LLaMA-Factory registry whose file is there; those of the hub can be typed."""
    lines = []
    for name, entry in _registry(registry).items():
        file = entry.get("file_name") if isinstance(entry, dict) else None
        if isinstance(file, str) and _exists(registry.parent / file):
            shape = "preference pairs" if entry.get("ranking") else str(entry.get("formatting", "alpaca"))
            detail = f"{file} as {REGISTRY} reads it, {shape}"
            lines.append(SourceLine(f"{registry.absolute()}:{name}", safe(name), safe(detail)))
    return lines[:MOST]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _registry(path: Path) -> dict[str, Any]:
    """What a registry holds; nothing where it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _of_runs(seen: set[str]) -> list[SourceLine]:
    from engine.runs import directory

    lines = []
    for run in directory.all_runs()[:20]:
        try:
            source = run.recipe().data.source
        except FtuiError:
            continue
        path = Path(source)
        if source not in seen and not source.startswith("preset:") and _exists(path) and path.is_file():
            seen.add(source)
            lines.append(SourceLine(source, safe(path.name), f"of the run {safe(directory.title(run))}"))
    return lines


def short(source: str) -> str:
    """A source as it is named on screen: a file by its name, an entry by its own, a weight behind it."""
    from engine import choice

    found = choice.weighted(source)
    name = found.source
    if not name.startswith(("hub:", "preset:")):
        path, sign, entry = name.rpartition(":")
        name = entry if sign and path.endswith(".json") else Path(name).name or name
    return safe(name) + (f" ×{number(found.weight)}" if found.weight != 1 else "")


class SourceScreen(ByName):
    """Second step of a new run, first half: which rows."""

    WHAT = "rows"
    HINT = "a path, or hub:OWNER/NAME; tab completes"
    TITLE = "Data"
    STEP = "data"
    CSS_PATH = "source.tcss"
    HELP = (
        "The rows to train on. Files and folders here come first, then the entries of a dataset_info.json, files of earlier "
        "runs, and presets that bring rows; any other path can be typed or pasted, and tab completes it. Columns are "
        "recognised by themselves. a mixes rows in beside those that are chosen, with a weight: 2 lets them count twice in "
        "each epoch, 0.5 takes half of them."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash",
            "another('/')",
            "Another",
            key_display="/",
            priority=True,  # it acts before the next key is given to anybody: a path can be typed at once
            id="source.another",
            tooltip="Type a path or hub:OWNER/NAME",
        ),
        Binding(
            "a", "mix", "Mix in", id="source.mix", tooltip="Add these rows to those that are chosen, with a weight"
        ),
        Binding("x", "unmix", "Take out", id="source.unmix", tooltip="Take the rows that were mixed in last out again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[SourceLine] = []

    def body(self) -> ComposeResult:
        yield Static("", id="which", markup=False)
        yield Rows(id="sources", verb="Look at it")
        yield Ask(id="ask")

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#sources"))  # at once: what is typed early may open the field
        self.in_thread(lambda: offers(Path()), self._offer)

    def on_resize(self) -> None:
        # A question keeps its place below; a long list scrolls above it.
        self.query_one("#sources").styles.max_height = max(3, self.query_one("#body").content_size.height - 4)

    def _offer(self, lines: list[SourceLine]) -> None:
        self._lines = lines
        self.drafted()

    def drafted(self) -> None:
        from engine import choice as choices

        choice = self.wizard.picked()
        used = {choice.data or f"preset:{choice.preset}", *choice.more}
        used |= {choices.weighted(word).source for word in used}
        self.query_one("#sources", Rows).show(
            [msgspec.structs.replace(line, used=line.key in used) for line in self._lines]
        )
        words = Content.styled(NEEDED, FAINT)
        if self.wizard.has_rows:
            first = short(choice.data) if choice.data else f"preset {safe(choice.preset)}"
            names = " + ".join([first, *map(short, choice.more)])
            words = Content.assemble(("Rows now: ", FAINT), (names, "bold"), ("   enter takes others instead", FAINT))
        elif choice.preset:
            words = Content.styled(f"{NEEDED} The preset {safe(choice.preset)} brings none.", FAINT)
        self.query_one("#which", Static).update(words)
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "mix":
            return self.wizard.has_rows
        if action == "unmix":
            return bool(self.wizard.choice and self.wizard.choice.more)
        return super().check_action(action, parameters)

    def take(self, text: str) -> None:
        self.choose(checked(text))

    def held(self) -> str:
        return self.wizard.picked().data or ""

    def choose(self, key: str) -> None:
        choice = self.wizard.picked()
        if key.startswith("preset:"):
            choice = msgspec.structs.replace(choice, preset=key.removeprefix("preset:"), data=None)
        else:
            # Own rows in place of a preset's leave the preset; one that brings none waits for exactly these.
            preset = None if choice.preset and brings_rows(choice.preset) else choice.preset
            choice = msgspec.structs.replace(choice, preset=preset, data=key)
        # What was said about other rows does not hold for these.
        self._go_on(
            msgspec.structs.replace(
                choice,
                more=[],
                columns={},
                subset=None,
                split=None,
                prompt=None,
                completion=None,
                edits={},
                name=None,
                on_bad_row="abort",
            )
        )

    def action_mix(self) -> None:
        """Ask for the weight of the rows under the cursor, and mix them in."""
        item = self.query_one("#sources", Rows).current
        if item is None:
            return
        if item.key == ANOTHER:
            self.query_one(Ask).ask("mix in", "", lambda text: self._ask_weight(checked(text)), paths=True)
        else:
            self._ask_weight(item.key)

    def _ask_weight(self, source: str) -> None:
        def take(text: str) -> None:
            self._mix(source, text)

        self.query_one(Ask).ask("weight", "1", take, "2 takes each row twice, 0.5 half of them", short=True)

    def _mix(self, source: str, weight: str) -> None:
        try:
            value = float(weight)
        except ValueError:
            raise ValueError("this takes a number, as 2 or 0.5") from None
        if not 0 < value <= 100:
            raise ValueError("a weight is above 0 and at most 100")
        choice = self.wizard.picked()
        word = source if value == 1 else f"{source}*{number(value)}"
        self._go_on(msgspec.structs.replace(choice, more=[*choice.more, word]))

    def action_unmix(self) -> None:
        choice = self.wizard.picked()
        more, last = choice.more[:-1], choice.more[-1]
        said = {source: one for source, one in choice.said.items() if source != last or source in more}
        self.wizard.begin(msgspec.structs.replace(choice, more=more, said=said))

    def _go_on(self, choice: object) -> None:
        self.wizard.begin(choice)  # type: ignore[arg-type]
        self.go("data")

    def before(self) -> str:
        return "model"


def checked(text: str) -> str:
    """A source as a person types it, in the form that `Choice.data` takes. Raises FtuiError for one that cannot be.

    What is on the hub is not fetched here: its name is all that is looked at.
    """
    from engine import choice
    from engine.data import locate

    if not text:
        raise FtuiError(Exit.DATA_MISSING, "type a path, or escape")
    if text.startswith("hub:"):
        if not _HUB.fullmatch(text):
            raise FtuiError(Exit.DATA_MISSING, "this takes hub:OWNER/NAME")
        return text
    source = choice.weighted(text)
    registry, _, entry = source.source.rpartition(":")
    if not (registry.endswith(REGISTRY) and "hf_hub_url" in _registry(Path(registry)).get(entry, {})):
        locate.files(source)
    return text if source.weight != 1 else source.source
