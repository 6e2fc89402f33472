"""Conversations, sampling settings, and Markdown that is shown without being obeyed."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.await_complete import AwaitComplete

from tests.tui.hostile import HOSTILE, check_screen
from tests.tui.stage import until
from tui.widgets import chatlog
from tui.widgets.chatlog import ChatLog, Reply
from tui.widgets.conversation import Conversation, Exchange, Sampling, Side, parse
from tui.widgets.markdown import ForeignMarkdown, parser


def test_messages_hold_the_sides_own_answers_in_turn() -> None:
    talk = Conversation("Be brief.", [Exchange("a", {"base": "b1", "tuned": "t1"}), Exchange("b", {"tuned": "t2"})])
    talk.exchanges.append(Exchange("c"))
    assert [(m["role"], m["content"]) for m in talk.messages("tuned")] == [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "t1"),
        ("user", "b"),
        ("assistant", "t2"),
        ("user", "c"),
    ]
    assert [m["content"] for m in talk.messages("base")] == ["Be brief.", "a", "b1", "c"]
    assert Conversation("  ").messages("base") == []


def test_settings_are_read_as_they_are_written() -> None:
    now = Sampling()
    assert parse(now.line(), now) == now
    assert parse("temperature=0, top-p: 1 length 9 seed 3", now) == Sampling(0.0, 1.0, 9, 3)
    assert parse("seed none", Sampling(seed=3)).seed is None
    assert parse("", now) == now


@pytest.mark.parametrize(
    "line",
    ["temperature", "temperature hot", "temperature nan", "top_p 0", "length 0", "length 2.5", "width 3", "seed -1"],
)
def test_settings_out_of_range_are_refused_with_the_rule(line: str) -> None:
    with pytest.raises(ValueError, match=r"goes from|number|whole|no setting"):
        parse(line, Sampling())


def test_markdown_makes_no_links_images_html_or_characters() -> None:
    source = "[a](http://x) ![b](http://x) <http://x> http://x &#x202e; &lt; <b>c</b>\n\n<div>\nd\n</div>\n\n[e]: http://x\n[e]\n"
    kinds = {token.type for token in parser().parse(source)}
    kinds |= {child.type for token in parser().parse(source) for child in token.children or ()}
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "softbreak", "hardbreak", "text_special"}


def test_emphasis_code_lists_and_tables_are_markdown_still() -> None:
    kinds = {token.type for token in parser().parse("**a** `b`\n\n- c\n\n| d |\n|---|\n| e |\n\n```py\nf\n```\n")}
    assert {"bullet_list_open", "table_open", "fence"} <= kinds


class Alone(App[None]):
    def compose(self) -> ComposeResult:
        yield ChatLog()


async def test_a_streamed_answer_ends_as_the_whole_text_would() -> None:
    text = f"Some **bold** text\n\n1. one\n2. two\n\n```\ncode\n```\n\nend {HOSTILE}"
    app = Alone()
    async with app.run_test(size=(100, 40)) as pilot:
        log = app.query_one(ChatLog)
        turn = await log.ask(HOSTILE)
        base, tuned = await turn.reply("base"), await turn.reply("tuned")
        for char in text:
            await tuned.write(char)
        await tuned.finish("31 tokens")
        await base.write(text)
        await base.finish("31 tokens")
        await pilot.pause()
        blocks = [
            [type(block).__name__ for block in side.query_one(ForeignMarkdown).children] for side in (base, tuned)
        ]
        assert blocks[0] == blocks[1]
        assert len(blocks[0]) == 4
        assert tuned.text == text
        check_screen(pilot)


async def test_pieces_that_come_quickly_are_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first at once, the others after a pause; nothing waits for a piece that does not come."""
    drawn: list[str] = []
    append = ForeignMarkdown.append

    def counted(self: ForeignMarkdown, text: str) -> AwaitComplete:
        drawn.append(text)
        return append(self, text)

    monkeypatch.setattr(ForeignMarkdown, "append", counted)
    monkeypatch.setattr(chatlog, "PACE", 600)
    app = Alone()
    async with app.run_test(size=(80, 24)) as pilot:
        log = app.query_one(ChatLog)
        reply = await (await log.ask("Who?")).reply("tuned")
        for piece in ("I", " am", " Congyu", "."):
            await reply.write(piece)
        await pilot.pause()
        assert drawn == ["I"] and reply.text == "I am Congyu."
        await reply.finish("")
        assert drawn == ["I"] and reply.query_one(ForeignMarkdown).source == "I am Congyu."
        monkeypatch.setattr(chatlog, "PACE", 0.01)
        drawn.clear()
        reply.ask_again()
        for piece in ("You", " are", " here"):
            await reply.write(piece)
        await until(pilot, lambda: "".join(drawn) == "You are here")


async def test_base_stands_at_the_left_whichever_answers_first() -> None:
    app = Alone()
    async with app.run_test(size=(100, 20)) as pilot:
        turn = await app.query_one(ChatLog).ask("q")
        tuned, base = await turn.reply("tuned"), await turn.reply("base")
        await pilot.pause()
        assert base.region.x < tuned.region.x
        assert base.region.y == tuned.region.y
        app.query_one(ChatLog).stacked = True
        await pilot.pause()
        assert base.region.y < tuned.region.y


async def test_the_log_follows_the_end_once_it_is_full_and_begins_at_the_top() -> None:
    app = Alone()
    async with app.run_test(size=(60, 10)) as pilot:
        log = app.query_one(ChatLog)
        turn = await log.ask("short")
        await pilot.pause()
        assert turn.region.y == log.region.y
        for number in range(12):
            turn = await log.ask(f"question {number}")
            log.follow()
            await pilot.pause()
        assert log.scroll_y == log.max_scroll_y > 0
        for _ in range(12):
            await log.drop_last()
        await pilot.pause()
        await pilot.pause()
        assert log.scroll_y == 0


async def said(log: ChatLog, side: Side, lines: int) -> Reply:
    reply = await log.turns[-1].reply(side)
    await reply.write("".join(f"{side} {line}\n\n" for line in range(lines)))
    return reply


async def test_side_by_side_the_end_of_the_shorter_answer_stays_in_view() -> None:
    app = Alone()
    async with app.run_test(size=(60, 10)) as pilot:
        log = app.query_one(ChatLog)
        await log.ask("first")
        await said(log, "tuned", 30)
        await until(pilot, lambda: 0 < log.max_scroll_y < log.scroll_y + 3)  # it alone is followed to its end
        turn = await log.ask("second")
        short = await said(log, "tuned", 2)
        await pilot.pause(0.1)
        long = await said(log, "base", 30)
        await until(pilot, lambda: turn.region.y == log.region.y and log.max_scroll_y > log.scroll_y)
        assert short.region.bottom <= log.region.bottom < long.region.bottom
        await short.write("more\n\n" * 20)
        await until(pilot, lambda: short.region.height > 20 and short.region.bottom == log.region.bottom)
        log.stacked = True
        await until(pilot, lambda: long.region.bottom <= short.region.y and short.region.bottom == log.region.bottom)


async def test_who_scrolls_is_not_followed_until_back_or_the_next_question() -> None:
    app = Alone()
    async with app.run_test(size=(60, 10)) as pilot:
        log = app.query_one(ChatLog)
        await log.ask("first")
        reply = await said(log, "tuned", 30)
        await until(pilot, lambda: log.max_scroll_y > 0 and log.scroll_y == log._place)
        followed = log.scroll_y

        async def at_after_more() -> float:
            before = log.max_scroll_y
            await reply.write("more\n\n")
            await until(pilot, lambda: log.max_scroll_y > before)
            return log.scroll_y

        log.scroll_relative(y=-5, animate=False)
        await pilot.pause()
        assert await at_after_more() == followed - 5
        log.scroll_to(y=log._place, animate=False)
        await pilot.pause()
        assert await at_after_more() == log._place
        log.scroll_home(animate=False)
        await pilot.pause()
        turn = await log.ask("second")
        await pilot.pause()
        assert turn.region.bottom <= log.region.bottom
