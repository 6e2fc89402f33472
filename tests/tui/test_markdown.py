"""An answer that comes in piece by piece: drawn right at each piece, and laid out anew only where it takes another line."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.containers import VerticalScroll

from tui.widgets.markdown import ForeignMarkdown

WORDS = [
    "Once",
    "upon",
    "a",
    "time",
    "there",
    "was",
    "a",
    "**dragon**",
    "with",
    "scales",
    "as",
    "black",
    "as",
    "coal,",
    "and",
    "丛雨",
    "said:",
    "",
]


class Two(App[None]):
    """One text streamed, below it the same given whole."""

    CSS = "ForeignMarkdown { width: 40; }"

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield ForeignMarkdown(id="streamed")
            yield ForeignMarkdown(id="whole")


async def test_a_paragraph_that_grows_is_drawn_as_if_it_had_come_whole() -> None:
    app, layouts = Two(), 0

    def laid_out(_: object) -> None:
        nonlocal layouts
        layouts += 1

    async with app.run_test(size=(60, 50)) as pilot:
        streamed, whole = app.query_one("#streamed", ForeignMarkdown), app.query_one("#whole", ForeignMarkdown)
        app.screen.screen_layout_refresh_signal.subscribe(app, laid_out)
        pieces = [f"{word} " for word in WORDS * 6]
        for piece in pieces:
            await streamed.append(piece)
            await pilot.pause()
        assert streamed.size.height >= 10 and layouts < len(pieces) / 2
        await whole.update("".join(pieces))
        await pilot.pause()
        lines = [
            [strip.text for strip in part.children[0].render_lines(part.children[0].size.region)]
            for part in (streamed, whole)
        ]
        assert lines[0] == lines[1] and "dragon" in " ".join(lines[0]) and "*" not in " ".join(lines[0])
