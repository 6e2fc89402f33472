"""How far a run is before the first step: what is done, what goes on, what is still to come."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from engine.text import duration, safe

WORDS = {
    "preparing": "Preparing",
    "queued": "Waiting in line",
    "loading": "Loading the model",
    "tokenizing": "Counting tokens",
    "evaluating": "Asking the questions",
    "training": "Training",
    "saving": "Saving",
}
_BEFORE = ("preparing", "loading", "tokenizing", "training")


class Phase(Struct, frozen=True):
    """One state that the run entered. seconds: how long it took, or has taken; share: 0 to 1, None while not known."""

    state: str
    seconds: float
    detail: str = ""
    share: float | None = None


def meter(share: float, width: int = 20) -> str:
    """A bar for a share between 0 and 1."""
    full = round(min(1.0, max(0.0, share)) * width)
    return "━" * full + "┄" * (width - full)


def rows(phases: Sequence[Phase]) -> list[tuple[str, str, str]]:
    """(glyph, what, how far): ✓ done, ● now, · to come. Details may hold anything and are made safe here."""
    found = [
        ("✓", WORDS.get(phase.state, phase.state), duration(phase.seconds) if phase.seconds >= 1 else "")
        for phase in phases[:-1]
    ]
    if phases:
        now = phases[-1]
        parts = [safe(now.detail)] if now.detail else []
        if now.share is not None:
            parts.insert(0, meter(now.share))
        elif now.seconds >= 2:
            parts.append(duration(now.seconds))
        found.append(("●", WORDS.get(now.state, now.state), "  ".join(parts)))
    seen = {phase.state for phase in phases}
    last = max((_BEFORE.index(state) for state in seen if state in _BEFORE), default=-1)
    found.extend(("·", WORDS[state], "") for state in _BEFORE[last + 1 :])
    return found


class Phases(Widget):
    """The list of phases; `show` draws again only what changed."""

    DEFAULT_CSS = """
    Phases {
        height: auto;

        & > .phases--done { color: $foreground 65%; }
        & > .phases--now { color: $primary; text-style: bold; }
        & > .phases--later { color: $foreground 50%; }
    }
    """
    COMPONENT_CLASSES = {"phases--done", "phases--now", "phases--later"}

    lines: reactive[tuple[tuple[str, str, str], ...]] = reactive((), layout=True)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)

    def show(self, phases: Sequence[Phase]) -> None:
        self.lines = tuple(rows(phases))

    def render(self) -> Content:
        wide = max((len(what) for _, what, _ in self.lines), default=0)
        kinds = {"✓": "phases--done", "●": "phases--now", "·": "phases--later"}
        found = []
        for glyph, what, far in self.lines:
            style = self.get_visual_style(kinds[glyph])
            found.append(Content.assemble((f"{glyph} {what:<{wide}}", style), "   ", far))
        return Content("\n").join(found)
