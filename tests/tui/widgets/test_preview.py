"""The masked preview: what is trained, special, cut off or the same on both sides, each told apart by more than colour."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.widgets import Input

from tests.tui.hostile import HOSTILE, check_screen
from tui.widgets import preview
from tui.widgets.preview import MaskedPreview, Side, as_above, of_pieces, of_tokens

TOKENS = [
    ("<|im_start|>", False, True),
    ("user", False, False),
    ("\n", False, False),
    ("Hi", True, False),
    ("<|im_end|>", True, True),
]


class Alone(App[None]):
    def __init__(self, *sides: Side) -> None:
        super().__init__()
        self.sides = sides

    def compose(self) -> ComposeResult:
        yield Input()
        yield MaskedPreview(self.sides)

    def seen(self) -> str:
        strips = self.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips).rstrip()

    def bold(self) -> dict[str, bool]:
        return {
            segment.text.strip(): bool(segment.style and segment.style.bold)
            for strip in self.screen._compositor.render_strips()
            for segment in strip
            if segment.text.strip()
        }


def test_special_tokens_are_told_apart_and_line_feeds_are_seen() -> None:
    found = of_pieces([("<|im_start|>user\nHi<|im_end|>\n", False), ("Yes<|im_end|>", True)])
    assert found == [
        ("<|im_start|>", "special"),
        ("user⏎\nHi", "context"),
        ("<|im_end|>", "special"),
        ("⏎\n", "context"),
        ("Yes", "trained"),
        ("<|im_end|>", "special-trained"),
    ]
    plain = of_pieces([("[INST] <s>a <b> | x </s>", False)])
    assert ("[INST]", "special") in plain and ("<s>", "special") in plain
    assert of_pieces([("<b>", False)]) == [("<b>", "context")]


def test_token_boundaries_come_on_demand_and_change_no_text() -> None:
    marked = of_tokens(TOKENS)
    assert [text for text, role in marked if role == "boundary"] == ["▏"] * len(TOKENS)
    without = "".join(text for text, role in marked if role != "boundary")
    assert (
        without == "".join(text for text, _ in of_tokens(TOKENS, boundaries=False)) == "<|im_start|>user⏎\nHi<|im_end|>"
    )
    assert of_tokens(TOKENS, boundaries=False)[1] == ("user⏎\n", "context")


def test_what_a_cutoff_takes_away_is_drawn_otherwise_and_counted() -> None:
    found = of_tokens(TOKENS, 3, boundaries=False)
    assert found[-1] == ("Hi<|im_end|>", "cut")
    assert "cut here: 2 tokens more" in found[-2][0]
    assert not [role for _, role in of_tokens(TOKENS, 5) if role == "cut"]


def test_a_preview_can_begin_at_the_answer() -> None:
    segments = of_pieces([("system⏎\nlong\nquestion\n", False), ("Answer.", True), ("\n", False), ("More.", True)])
    found = preview.from_answer(segments)
    assert "".join(text for text, _ in found) == "⋯ long⏎\nquestion⏎\nAnswer.⏎\nMore."
    assert preview.from_answer(segments, 9) == segments
    context = of_pieces([("only\ncontext\nand\nmore", False)])
    assert preview.from_answer(context) == context


def test_the_prompt_of_a_pair_is_written_once() -> None:
    chosen = ("chosen", of_pieces([("Question?", False), ("good", True)]))
    rejected = ("rejected", of_pieces([("Question?", False), ("bad", True)]))
    assert as_above([chosen, rejected])[1] == ("rejected", [("⋯ the same prompt\n", "boundary"), ("bad", "trained")])
    # Answers that begin alike are shown whole: they are what is compared.
    same = ("rejected", of_pieces([("Other?", False), ("good", True)]))
    assert as_above([chosen, same])[1] == same
    assert as_above([chosen]) == [chosen]


def test_a_very_long_text_says_how_much_of_it_is_not_drawn() -> None:
    found = preview._at_most([("a" * 30, "context"), ("b" * 30, "trained")], 40)
    assert [len(text) for text, _ in found[:2]] == [30, 10]
    assert "20 characters more" in found[-1][0]


async def test_trained_text_is_bold_and_context_is_not() -> None:
    app = Alone(("", of_pieces([("question ", False), ("answer", True)])))
    async with app.run_test(size=(60, 6)) as pilot:
        await pilot.pause()
        assert {text: app.bold()[text] for text in ("question", "answer")} == {"question": False, "answer": True}


async def test_both_sides_of_a_pair_have_their_title() -> None:
    app = Alone(
        ("✓ chosen", of_pieces([("Q ", False), ("A", True)])), ("✗ rejected", of_pieces([("Q ", False), ("B", True)]))
    )
    async with app.run_test(size=(60, 12)) as pilot:
        await pilot.pause()
        assert [line for line in app.seen().splitlines()[-6:] if line] == [
            "✓ chosen",
            "Q A",
            "✗ rejected",
            "⋯ the same prompt",
            "B",
        ]


async def test_up_at_the_top_goes_on_to_the_thing_before() -> None:
    app = Alone(("", of_pieces([("line\n" * 40, True)])))
    async with app.run_test(size=(60, 10)) as pilot:
        widget = app.query_one(MaskedPreview)
        widget.focus()
        await pilot.press("down", "down")
        await pilot.pause(0.3)
        assert widget.scroll_offset.y > 0
        await pilot.press("home")
        await pilot.pause(0.3)
        await pilot.press("up")
        assert isinstance(app.focused, Input)


@pytest.mark.parametrize("title", ["", HOSTILE])
async def test_foreign_text_is_shown_as_it_is(title: str) -> None:
    tokens = of_tokens([(HOSTILE, True, False), (HOSTILE, False, True)], 1)
    app = Alone((title, [*tokens, *of_pieces([(HOSTILE, False)])]))
    async with app.run_test(size=(200, 20)) as pilot:
        await pilot.pause()
        assert "␛[31mred" in app.seen()
        check_screen(pilot)


def test_a_divided_text_shows_where_its_parts_begin() -> None:
    tokens = [(f"{at} ", True, False) for at in range(20)]
    shown = of_tokens(tokens, 8, boundaries=False, divided=True)
    assert [text for text, role in shown if role == "mark"] == ["\n┄┄┄┄ part 2\n", "\n┄┄┄┄ part 3\n"]
    assert "".join(text for text, role in shown if role == "trained") == "".join(text for text, _, _ in tokens)
    assert of_tokens(tokens[:8], 8, divided=True) == of_tokens(tokens[:8], 8)
