"""Which of two answers is better, their names hidden; part of Compare. Each rating is on the disk before the next is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine import ratings
from engine.ratings import Better, Rating
from engine.runs import scoreboard
from engine.text import safe, shorten
from tui.frame import FAINT, FOCUS, Frame
from tui.widgets.pair import Pair, Said

if TYPE_CHECKING:
    from engine.runs.scoreboard import Compared

WORDS: dict[str, str] = {"left": "left was better", "right": "right was better", "tie": "a tie"}


class BlindScreen(Frame):
    """Pairs in the order of the rows, the sides by chance; who is ahead shows when the person ends it, and after that
    nothing is rated any more."""

    TITLE = "Rate blind"
    HELP = (
        "Two answers to the same prompt; which side is whose is drawn by chance for each, and hidden. Say which is better, "
        "or that neither is. Prompts that both answered alike are left out. Each rating is kept at once: leave and come back "
        "any time. Unblind shows who is ahead, and ends the rating."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "rate('left')", "Left better", id="blind.left", tooltip="The left answer is better"),
        Binding("right", "rate('right')", "Right better", id="blind.right", tooltip="The right answer is better"),
        Binding("t", "rate('tie')", "Tie", id="blind.tie", tooltip="Neither is better"),
        Binding(
            "backspace",
            "before",
            "Back one",
            key_display="backspace",
            id="blind.before",
            tooltip="Rate the one before again",
        ),
        Binding("u", "unblind", "Unblind", id="blind.unblind", tooltip="Show who is ahead; that ends the rating"),
        Binding("w", "whole", "Whole prompt", show=False, id="blind.whole", tooltip="All of a long prompt"),
        Binding("escape", "back", "Back", show=False, id="blind.back"),
    ]

    def __init__(self, results: Sequence[Compared], command: str) -> None:
        super().__init__()
        self.command = command
        self._names = scoreboard.heads(results)[-2:]
        self._run, self._seed = results[0].run, results[0].seed
        self._pairs = scoreboard.to_rate(results)
        self._alike = len(scoreboard.pairs(results)) - len(self._pairs)
        self._ratings = scoreboard.rated(results)
        self._at = next(
            (at for at, one in enumerate(self._pairs) if one.row not in self._ratings.by_row), len(self._pairs)
        )
        self._sure = False  # that it is to be unblinded

    def body(self) -> ComposeResult:
        yield Static(id="tally", markup=False)
        yield Pair(id="pair")

    def on_mount(self) -> None:
        self._draw()

    @property
    def _asking(self) -> bool:
        """There is a pair to be rated."""
        return not self._ratings.unblinded and self._at < len(self._pairs)

    def _draw(self) -> None:
        asking, pair = self._asking, self.query_one(Pair)
        self.query_one("#tally").display, pair.display = not asking, asking
        done = f"   {self._at + 1}/{len(self._pairs)}" if asking else ""
        self.heading = Content.assemble(("Rate blind", "bold"), f"   {shorten(safe(self._run), 30)}{done}")
        if self._ratings.unblinded:
            self._draw_tally()
        elif not asking:
            words = f"All {len(self._pairs)} pairs are rated. u shows who is ahead; backspace rates the last one again."
            self.query_one("#tally", Static).update(words)
        else:
            one = self._pairs[self._at]
            texts = (one.first, one.second) if ratings.left(self._seed, one.row) == "first" else (one.second, one.first)
            pair.show(
                Said("prompt", one.prompt, more=f"  row {one.row}"),
                Said("reference", one.reference),
                *(Said(head, text, f"bold {FOCUS}") for head, text in zip(("left", "right"), texts, strict=True)),
            )
            pair.focus()
            before = self._ratings.by_row.get(one.row)
            if before is not None:
                self.notice(f"rated before: {WORDS[self._side(before)]}")
        self.refresh_bindings()

    def _draw_tally(self) -> None:
        tally = self._ratings.tally([pair.row for pair in self._pairs])
        first, second = (shorten(safe(name), 30) for name in self._names)
        p = f"{tally.p:.3f}" if tally.p >= 0.001 else "below 0.001"
        alike = f" {self._alike} more prompts were answered alike." if self._alike else ""
        wide = max(map(len, (first, second))) + 8
        lines = [
            Content.assemble((f"{second} better".ljust(wide), "bold"), f"{tally.second:>5}"),
            Content.assemble((f"{first} better".ljust(wide), "bold"), f"{tally.first:>5}"),
            Content.assemble(("ties".ljust(wide), "bold"), f"{tally.ties:>5}"),
            Content(""),
            Content.styled(
                f"{tally.rated} of {tally.pairs} pairs rated.{alike} Sign test without the ties: p {p}; "
                "where it is below 0.05, chance alone hardly explains the difference.\nEscape goes back.",
                FAINT,
            ),
        ]
        self.query_one("#tally", Static).update(Content("\n").join(lines))

    def _side(self, rating: Rating) -> str:
        if rating.better == "tie":
            return "tie"
        return "left" if rating.better == rating.left else "right"

    # acting -------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("rate", "whole"):
            return self._asking
        if action in ("before", "unblind"):
            return not self._ratings.unblinded and (action == "unblind" or self._at > 0)
        return True

    def action_rate(self, side: str) -> None:
        """Note it, and go on to the next."""
        row = self._pairs[self._at].row
        left = ratings.left(self._seed, row)
        better: Better = "tie" if side == "tie" else left if side == "left" else _other(left)
        self.notice("")
        self._sure = False
        try:
            self._ratings.add(Rating(row=row, better=better, left=left))
        except OSError as error:
            self.error(error)
            return
        self._at += 1
        self._draw()

    def action_before(self) -> None:
        self._at -= 1
        self._draw()

    def action_unblind(self) -> None:
        if self._asking and not self._sure:
            self._sure = True
            self.notice("u again shows who is ahead, and ends this rating", "warning")
            return
        self.notice("")
        try:
            self._ratings.unblind()
        except OSError as error:
            self.error(error)
        self._draw()

    def action_whole(self) -> None:
        self.query_one(Pair).turn_whole()


def _other(which: ratings.Which) -> ratings.Which:
    return "second" if which == "first" else "first"
