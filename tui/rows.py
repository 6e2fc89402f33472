"""A list with one line an item, drawn for the width there is, and a cursor that is a glyph as well as a colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from msgspec import Struct
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import RenderOptions


class Item(Protocol):
    """What a list holds. Items are compared with ==, so that only changed lines are drawn again."""

    @property
    def key(self) -> str: ...

    def line(self, width: int) -> Content:
        """The item in exactly one line of at most `width` cells; foreign text already made safe."""
        ...


GUTTER = 2  # cells for the cursor


class Heading(Struct, frozen=True):
    """A line between items, which the cursor passes over."""

    key: str
    text: str

    def line(self, width: int) -> Content:
        return Content.styled(self.text, "$faint")


class Rows(ScrollView, can_focus=True, inherit_bindings=False):
    """Items under a cursor. Enter chooses; moving past an end moves on to the next thing on the screen, if there is one."""

    DEFAULT_CSS = """
    Rows {
        height: auto;
        background: $background;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;

        & > .rows--cursor { background: $cursor; text-style: bold; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, tooltip="Move", id="list.up"),
        Binding("down,j", "move(1)", "Down", show=False, tooltip="Move", id="list.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, tooltip="Move", id="list.page-up"),
        Binding("pagedown", "page(1)", "Page down", show=False, tooltip="Move", id="list.page-down"),
        Binding("home", "first", "First", show=False, tooltip="Move", id="list.first"),
        Binding("end", "last", "Last", show=False, tooltip="Move", id="list.last"),
        Binding("enter", "choose", "Choose", id="list.choose"),
    ]

    cursor: reactive[int] = reactive(0)

    class Chosen(Message):
        """Enter, or a click on the line that has the cursor."""

        def __init__(self, rows: Rows, item: Item) -> None:
            super().__init__()
            self.rows, self.item = rows, item

        @property
        def control(self) -> Rows:
            return self.rows

    class Moved(Message):
        """The cursor stands on another item."""

        def __init__(self, rows: Rows, item: Item) -> None:
            super().__init__()
            self.rows, self.item = rows, item

        @property
        def control(self) -> Rows:
            return self.rows

    def __init__(self, *, id: str | None = None, verb: str = "Choose", help: str = "", disabled: bool = False) -> None:
        """verb  what enter does here, for the footer (not shown when empty); help  what `?` says while the list has the focus."""
        super().__init__(id=id, disabled=disabled)
        choose = Binding("enter", "choose", verb, show=bool(verb), id="list.choose")
        self._bindings.key_to_bindings["enter"] = [choose]
        self.help_text = help
        self._items: list[Item] = []

    @property
    def items(self) -> Sequence[Item]:
        return self._items

    @property
    def current(self) -> Item | None:
        """The item under the cursor."""
        return self._items[self.cursor] if 0 <= self.cursor < len(self._items) else None

    def show(self, items: Sequence[Item]) -> None:
        """Replace the items; the cursor stays on the item it was on, and only what changed is drawn."""
        before, at = self._items, self.current
        new = list(items)
        if new == before:
            return
        self._items = new
        keys = [item.key for item in new]
        there = keys.index(at.key) if at is not None and at.key in keys else self._nearest(self.cursor)
        if len(new) != len(before):
            self.virtual_size = Size(self.size.width, len(new))
            self.refresh(layout=True)
        else:
            for index, (old, item) in enumerate(zip(before, new, strict=True)):
                if old != item:
                    self.refresh_line(index)
        if there != self.cursor:
            self.cursor = there
        elif at is None or at != self.current:
            self._tell()

    def put_cursor(self, key: str) -> None:
        """Move the cursor to the item with this key, if it is there."""
        for index, item in enumerate(self._items):
            if item.key == key:
                self.cursor = index

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._items)

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        width = self.scrollable_content_region.width
        if not 0 <= index < len(self._items):
            return Strip.blank(width, self.visual_style.rich_style)
        at = self.has_focus and index == self.cursor
        mark = Content.styled("› ", "bold $primary") if at else Content("  ")
        line = mark + self._items[index].line(max(1, width - GUTTER))
        style = self.visual_style + (self.get_visual_style("rows--cursor") if at else self.visual_style)
        strips = line.render_strips(width, 1, style, RenderOptions(self._get_style, self.styles.get_rules()))
        strip = strips[0] if strips else Strip.blank(width)
        return strip.crop(0, width).extend_cell_length(width, style.rich_style)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._items))

    def on_focus(self) -> None:
        self.refresh()
        self._tell()

    def on_blur(self) -> None:
        self.refresh()

    def watch_cursor(self, before: int, after: int) -> None:
        for index in (before, after):
            self.refresh_line(index)
        self.scroll_to_region_line(after)
        self._tell()

    def scroll_to_region_line(self, index: int) -> None:
        height = self.scrollable_content_region.height
        if index < self.scroll_offset.y:
            self.scroll_to(y=index, animate=False)
        elif height and index >= self.scroll_offset.y + height:
            self.scroll_to(y=index - height + 1, animate=False)

    def _tell(self) -> None:
        if (item := self.current) is not None and self.is_mounted:
            self.post_message(self.Moved(self, item))

    def action_move(self, step: int) -> None:
        there = self.cursor + step
        if 0 <= there < len(self._items) and isinstance(self._items[there], Heading):
            there += step
        if 0 <= there < len(self._items):
            self.cursor = there
        else:
            self._onward(step)

    def _onward(self, step: int) -> None:
        """To the next thing in this direction, a list by its near end. Nothing moves past the ends of the screen."""
        chain = self.screen.focus_chain
        at = chain.index(self)
        beyond = chain[at + 1 :] if step > 0 else chain[:at][::-1]
        there = next((thing for thing in beyond if not isinstance(thing, Rows) or thing.items), None)
        if isinstance(there, Rows):
            there.cursor = there._nearest(0 if step > 0 else len(there.items) - 1)
        if there is not None:
            there.focus()

    def action_page(self, pages: int) -> None:
        height = max(1, self.scrollable_content_region.height - 1)
        self.cursor = self._nearest(self.cursor + pages * height)

    def action_first(self) -> None:
        self.cursor = self._nearest(0)

    def action_last(self) -> None:
        self.cursor = self._nearest(len(self._items) - 1)

    def _nearest(self, index: int) -> int:
        """The item at `index`, or the one that is nearest to it; below a heading there is always one."""
        there = min(max(0, index), max(0, len(self._items) - 1))
        return there + 1 if self._items and isinstance(self._items[there], Heading) else there

    def action_choose(self) -> None:
        if (item := self.current) is not None:
            self.post_message(self.Chosen(self, item))

    def on_click(self, event: events.Click) -> None:
        index = event.y + self.scroll_offset.y
        if index == self.cursor:
            self.action_choose()
        elif 0 <= index < len(self._items):
            self.cursor = self._nearest(index)
