"""What changed on the screen since the terminal was last told, and nothing else.

Textual repaints whole widgets. `Painter` knows every cell that the terminal shows and turns a repaint into the cells that
differ, so that a widget that draws itself again unchanged costs no byte. It is also the last door of a screen: glyphs that
the terminal cannot show are exchanged here, and colours that it does not have become attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.color import Color, ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Size
from textual.strip import Strip

from engine import glyphs

Cell = tuple[str, str]  # text, the numbers of its SGR sequence; the second cell of a wide character is ("", …)
SMALLEST = Size(40, 10)  # below it screens would show rubbish
WHITE = 7
GAP = 7  # so many unchanged cells cost less than moving over them


class Painter:
    """The cells that a terminal shows.

    colours  the palette; None is no colour at all, where what has a background of its own is shown reversed
    """

    def __init__(self, colours: ColorSystem | None) -> None:
        self.colours = colours
        self._shown: dict[tuple[int, int], Cell] = {}
        self._codes: dict[Style | None, str] = {}
        self._ground: Color | None = None

    def forget(self) -> None:
        """Nothing is known of the terminal any more: the next paint tells it everything."""
        self._shown.clear()

    def changes(self, update: CompositorUpdate, ground: Color, size: Size) -> Changes | None:
        """Of a repaint, what the terminal does not show yet; None where it shows it all.

        ground  the background colour of the screen: in few colours, what has another one is a highlight
        size    of the terminal; where it is too small for any screen, one line says so instead
        """
        if size.width < SMALLEST.width or size.height < SMALLEST.height:
            update = _too_small(size, ground)
        if ground != self._ground:
            self._ground = ground
            self._codes.clear()
        shown = self._shown
        runs: list[tuple[int, int, list[Cell]]] = []
        for y, x, strip in _strips(update):
            begin, run, gap = x, list[Cell](), 0
            for cell in self._cells(strip):
                if shown.get((y, x)) == cell:
                    gap += 1
                else:
                    if not run:
                        begin = x
                    elif gap > GAP:
                        runs.append((y, begin, run[:-gap]))
                        begin, run = x, []
                    shown[y, x] = cell
                    gap = 0
                if run or not gap:
                    run.append(cell)
                x += 1
            if run:
                runs.append((y, begin, run[: len(run) - gap]))
        return Changes(runs) if runs else None

    def _cells(self, strip: Iterable[Segment]) -> Iterator[Cell]:
        """A strip cell by cell. What is not one character a cell stays one piece: its first cell holds all of it."""
        for text, style, control in strip:
            if control or not text:
                continue
            codes = self._codes.get(style)
            if codes is None:
                codes = self._codes[style] = self._sgr(style)
            if glyphs.ascii_only():
                text = "".join(map(glyphs.drawn, text))
            width = cell_len(text)
            if width == len(text) and (text.isascii() or all(cell_len(char) == 1 for char in text)):
                for char in text:
                    yield char, codes
            else:
                yield text, codes
                for _ in range(width - 1):
                    yield "", text + codes  # not equal to any cell but the same piece's

    def _sgr(self, style: Style | None) -> str:
        """The numbers of the sequence that sets a style, in the colours there are."""
        if style is None:
            return ""
        if self.colours not in (None, ColorSystem.STANDARD):
            return style._make_ansi_codes(self.colours)
        colour = ground = None
        reverse = bool(style.reverse)
        highlight = style.bgcolor is not None and self._ground is not None and style.bgcolor != self._ground
        if self.colours is None:
            reverse ^= highlight
        else:
            colour, ground = (one and one.downgrade(self.colours) for one in (style.color, style.bgcolor))
            if highlight and self._ground is not None and ground == self._ground.downgrade(self.colours):
                reverse = not reverse
            if colour is None or colour == ground:
                colour = Color.from_ansi(WHITE)
        bare = Style(
            color=colour,
            bgcolor=ground,
            bold=style.bold,
            dim=style.dim,
            italic=style.italic,
            underline=style.underline,
            strike=style.strike,
            reverse=reverse,
        )
        return bare._make_ansi_codes(ColorSystem.STANDARD)


class Changes(CompositorUpdate):
    """Runs of cells to write, each (y, x, cells)."""

    def __init__(self, runs: list[tuple[int, int, list[Cell]]]) -> None:
        self.runs = runs

    def __rich_console__(self, console: Console, options: object) -> Iterator[Segment]:  # Textual prints none
        yield Segment(self.render_segments(console))

    def render_segments(self, console: Console) -> str:
        """As bytes for the terminal: each run where it belongs, each style once while it lasts."""
        out: list[str] = []
        style = ""
        for y, begin, cells in self.runs:
            astray = True  # whether the cursor may be elsewhere: terminals differ in how wide they draw an emoji
            for x, (text, codes) in enumerate(cells, begin):
                if not text:
                    continue
                if astray:
                    out.append(f"\x1b[{y + 1};{x + 1}H")
                if codes != style:
                    out.append(f"\x1b[0;{codes}m" if style and codes else f"\x1b[{codes}m")
                    style = codes
                out.append(text)
                astray = len(text) > 1
        return "".join([*out, "\x1b[m"] if style else out)


def _too_small(size: Size, ground: Color) -> LayoutUpdate:
    """The whole screen with the one line that says what is needed, as much of it as there is room for."""
    words = f"ftui needs {SMALLEST.width}x{SMALLEST.height}, here is {size.width}x{size.height}"
    style = Style(bgcolor=ground)
    lines = [words[: size.width].ljust(size.width), *[" " * size.width] * (size.height - 1)]
    return LayoutUpdate([[Strip([Segment(line, style)], size.width)] for line in lines], size.region)


def _strips(update: CompositorUpdate) -> Iterator[tuple[int, int, Strip]]:
    """The pieces of one of Textual's updates, each with the row and column that it begins at."""
    if isinstance(update, LayoutUpdate):
        for y, line in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in line:
                yield y, x, strip
                x += strip.cell_length
    elif isinstance(update, ChopsUpdate):
        for y, x1, x2 in update.spans:
            for end, (x, piece) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                # Beyond the span it may hold the wrong widget's cells.
                if piece is not None and x < x2 and end > x1:
                    yield y, x, piece.crop(0, min(end, x2) - x)
