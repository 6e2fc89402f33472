"""A prompt, what is expected, and two answers beside each other, or one below the other where there is no room."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.text import safe

STACK_BELOW = 72  # columns: two answers side by side need at least these


class Said(Struct, frozen=True):
    """One text under its head; `style` is the head's, `more` stands behind it."""

    head: str
    text: str
    style: str = ""
    more: str = ""


class Pair(VerticalScroll, inherit_bindings=False):
    """Scrolls by up, down, page up and page down. A long prompt or reference is cut unless `whole`."""

    DEFAULT_CSS = """
    Pair {
        height: 1fr;
        scrollbar-size-vertical: 1;

        & > .pair--part { height: auto; margin: 0 0 1 0; }
        & > .pair--sides { height: auto; }
        & > .pair--sides > Static { width: 1fr; height: auto; }
        & > .pair--sides > .pair--right { padding: 0 0 0 2; }
        &.-stacked > .pair--sides { layout: vertical; }
        &.-stacked > .pair--sides > .pair--right { padding: 1 0 0 0; }
        & > .pair--below { height: auto; margin: 1 0 0 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Up", show=False, id="pair.up"),
        Binding("down,j", "scroll_down", "Down", show=False, id="pair.down"),
        Binding("pageup", "page_up", "Page up", show=False, id="pair.page-up"),
        Binding("pagedown", "page_down", "Page down", show=False, id="pair.page-down"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.whole = False
        self._parts: dict[str, Said] = {}

    def compose(self) -> ComposeResult:
        yield Static(classes="pair--part pair--prompt", markup=False)
        yield Static(classes="pair--part pair--reference", markup=False)
        with Horizontal(classes="pair--sides"):
            yield Static(classes="pair--left", markup=False)
            yield Static(classes="pair--right", markup=False)
        yield Static(classes="pair--below", markup=False)

    def show(self, prompt: Said, reference: Said, left: Said, right: Said, below: Said | None = None) -> None:
        """Other texts, from their beginning."""
        self._parts = {"prompt": prompt, "reference": reference, "left": left, "right": right}
        if below is not None:
            self._parts["below"] = below
        self._draw()
        self.scroll_home(animate=False)

    def turn_whole(self) -> None:
        """Show all of prompt and reference, or only their beginnings again."""
        self.whole = not self.whole
        self._draw()

    def on_resize(self) -> None:
        self.set_class(self.size.width < STACK_BELOW, "-stacked")
        self._draw()

    def _draw(self) -> None:
        for name in ("prompt", "reference", "left", "right", "below"):
            place, said = self.query_one(f".pair--{name}", Static), self._parts.get(name)
            place.display = said is not None
            if said is not None:
                text = Content(safe(said.text, newlines=True).strip("\n"))
                if name in ("prompt", "reference"):
                    text = self._begun(text)
                head = Content.assemble((said.head, said.style or "$faint"), (said.more, "$faint"))
                place.update(Content("\n").join([head, text]))

    def _begun(self, text: Content) -> Content:
        """As many lines as leave room for the answers."""
        most = max(2, self.size.height // 4)
        lines = text.wrap(max(10, self.size.width - 1))
        if self.whole or len(lines) <= most + 1:
            return text
        cut = Content.styled(f"… {len(lines) - most} more lines (w shows all)", "$faint")
        return Content("\n").join([*lines[:most], cut])
