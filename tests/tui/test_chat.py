"""Chat: two models asked the same, over a socket; what each was told, and what is seen of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.errors import Exit, FtuiError
from engine.runs import control
from engine.runs.directory import RunDir
from tests.tui.fake_worker import FakeWorker
from tests.tui.hostile import HOSTILE, check_screen
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.screens.chat import ChatScreen
from tui.widgets.prompt import Prompt

pytestmark = pytest.mark.usefixtures("machine")
SIZES = [(80, 24), (120, 40)]
REPLIES = {"base": "I am SmolLM, trained by Hugging Face.", "tuned": "I am **Congyu**, made by yuriko."}


def answer(side: str, messages: list[dict[str, str]]) -> Sequence[str]:
    text = REPLIES[side]
    return [text[i : i + 5] for i in range(0, len(text), 5)]


@pytest.fixture
def ready() -> FakeRun:
    fake = FakeRun()
    fake.whole()
    fake.alive("serve")
    return fake


@pytest.fixture
def worker(ready: FakeRun) -> Iterator[FakeWorker]:
    with FakeWorker(ready.run, answer) as worker:
        yield worker


async def shows(pilot: Pilot[None], *words: str) -> None:
    await until(pilot, lambda: all(word in seen(pilot) for word in words), 8)


async def ask(pilot: Pilot[None], text: str) -> None:
    pilot.app.screen.query_one(Prompt).put(text)
    await pilot.press("enter")


def screen_of(pilot: Pilot[None]) -> ChatScreen:
    screen = pilot.app.screen
    assert isinstance(screen, ChatScreen)
    return screen


async def settled(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: not screen_of(pilot)._busy, 8)


@pytest.mark.parametrize("size", SIZES)
async def test_both_models_answer_side_by_side(worker: FakeWorker, ready: FakeRun, size: tuple[int, int]) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=size) as pilot:
        await shows(pilot, "○ base  SmolLM2-135M", "● tuned  congyu, step 115", "Type a question")
        await ask(pilot, "Who are you?")
        await shows(pilot, "> Who are you?", "tokens/s")
        await settled(pilot)
        line = next(line for line in seen(pilot).splitlines() if "I am SmolLM" in line)
        assert "I am Congyu" in line  # beside it, and the Markdown is rendered
        assert "$ ftui chat congyu" in seen(pilot)
    assert [asked["which"] for asked in worker.asked] == ["tuned", "base"]
    assert worker.asked[0]["messages"] == [{"role": "user", "content": "Who are you?"}]


async def test_each_side_keeps_its_own_history(worker: FakeWorker, ready: FakeRun) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "one")
        await settled(pilot)
        await pilot.press("tab")  # the tuned one alone
        await shows(pilot, "● tuned")
        assert "○ base" not in seen(pilot)
        await ask(pilot, "two")
        await settled(pilot)
        await pilot.press("tab", "tab")  # both again
        await ask(pilot, "three")
        await settled(pilot)
    last = {asked["which"]: asked["messages"] for asked in worker.asked}
    assert [m["content"] for m in last["tuned"]] == ["one", REPLIES["tuned"], "two", REPLIES["tuned"], "three"]
    # Base was not asked "two": user and assistant still take turns.
    assert [m["content"] for m in last["base"]] == ["one", REPLIES["base"], "three"]


async def test_below_eighty_columns_the_answers_are_stacked(worker: FakeWorker, ready: FakeRun) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(70, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "Who are you?")
        await settled(pilot)
        lines = seen(pilot).splitlines()
        base = next(i for i, line in enumerate(lines) if "I am SmolLM" in line)
        tuned = next(i for i, line in enumerate(lines) if "I am Congyu" in line)
        assert base < tuned


async def test_escape_stops_the_answer_and_keeps_what_came(worker: FakeWorker, ready: FakeRun) -> None:
    worker.hold.set()
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "Who are you?")
        await shows(pilot, "I am", "esc Stop")
        await pilot.press("escape")
        await shows(pilot, "stopped")
        await until(pilot, lambda: "esc Stop" not in seen(pilot))
        worker.hold.clear()
        assert isinstance(pilot.app.screen, ChatScreen)
        await ask(pilot, "And now?")
        await shows(pilot, "> And now?", "tokens/s")
        await settled(pilot)
    assert [asked["which"] for asked in worker.asked] == ["tuned", "tuned", "base"]
    assert worker.asked[1]["messages"][1] == {"role": "assistant", "content": REPLIES["tuned"][:5]}


async def test_up_edits_the_last_question(worker: FakeWorker, ready: FakeRun) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "Who is you?")
        await settled(pilot)
        await pilot.press("up")
        await shows(pilot, "edit > Who is you?")
        await pilot.press("escape")
        assert "edit >" not in seen(pilot)
        await pilot.press("up")
        await ask(pilot, "Who are you?")
        await settled(pilot)
        assert "> Who is you?" not in seen(pilot)
        assert "> Who are you?" in seen(pilot)
    assert worker.asked[-1]["messages"] == [{"role": "user", "content": "Who are you?"}]


async def test_system_prompt_and_settings_go_along(worker: FakeWorker, ready: FakeRun) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question", "0.7  top-p 0.9  256")
        pilot.app.screen.query_one(Prompt).put("half a quest")
        await pilot.press("ctrl+s")
        await ask(pilot, "Be brief.")
        await shows(pilot, "system  Be brief.", "> half a quest")
        await pilot.press("ctrl+t")
        await shows(pilot, "settings > temperature 0.7  top-p 0.9  length 256  seed none")
        await ask(pilot, "temperature 9")
        await shows(pilot, "temperature goes from 0", "settings >")
        await ask(pilot, "temperature 0 length 32 seed 7")
        await shows(pilot, "0  top-p 0.9  32  seed 7")
        await ask(pilot, "Who are you?")
        await settled(pilot)
    asked = worker.asked[0]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["temperature"], asked["top_p"], asked["max_tokens"], asked["seed"]) == (0.0, 0.9, 32, 7)


async def test_a_system_prompt_stands_above_the_first_question_that_was_asked_with_it(
    worker: FakeWorker, ready: FakeRun
) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(80, 40)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "first?")
        await settled(pilot)
        await pilot.press("ctrl+s")
        await ask(pilot, "Be brief.")
        await shows(pilot, "system from the next question on  Be brief.")
        for question in ("second?", "third?"):
            await ask(pilot, question)
            await settled(pilot)
        text = seen(pilot)
        assert "from the next question on" not in text and text.count("system  ") == 1
        assert text.index("> first?") < text.index("system  Be brief.") < text.index("> second?")
        await pilot.press("ctrl+s")
        pilot.app.screen.query_one(Prompt).put("")
        await pilot.press("enter")
        await shows(pilot, "system from the next question on  none")
        await pilot.press("ctrl+r")  # the last question once more, without it
        await settled(pilot)
        text = seen(pilot)
        assert text.index("system  Be brief.") < text.index("system  none") < text.index("> third?")
    told = [[one["content"] for one in asked["messages"] if one["role"] == "system"] for asked in worker.asked]
    assert told == [[]] * 2 + [["Be brief."]] * 4 + [[]] * 2


async def test_the_model_loads_while_the_person_types(ready: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()
    workers: list[FakeWorker] = []

    def serve(run: RunDir) -> None:
        assert loaded.wait(10)
        workers.append(FakeWorker(run, answer))

    monkeypatch.setattr(control, "serve", serve)
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "loading the model…", "You can type already.")
        await ask(pilot, "Who are you?")
        await shows(pilot, "> Who are you?", "…")
        loaded.set()
        await shows(pilot, "made by yuriko")
        await settled(pilot)
    workers[0].close()


async def test_what_hinders_is_said_and_can_be_tried_again(ready: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: RunDir) -> None:
        raise FtuiError(Exit.RUN_STATE, "congyu is still training", "congyu", "chat when it is ready")

    monkeypatch.setattr(control, "serve", refuse)
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "✗ congyu is still training", "chat when it is ready", "tries again")
        worker = FakeWorker(ready.run, answer)
        monkeypatch.setattr(control, "serve", lambda run: None)
        await pilot.press("ctrl+r")
        await shows(pilot, "Type a question")
        worker.close()


async def test_a_worker_that_goes_is_said_and_the_next_question_finds_another(
    ready: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(side: str, messages: list[dict[str, str]]) -> Sequence[str]:
        raise RuntimeError("out of memory: 3 tokens too many")

    monkeypatch.setattr(control, "serve", lambda run: None)
    first = FakeWorker(ready.run, fails)
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "Who are you?")
        await shows(pilot, "✗ out of memory", "no answer")
        first.close()
        with FakeWorker(ready.run, answer):
            await pilot.press("ctrl+r")
            await shows(pilot, "made by yuriko")
            await settled(pilot)
            assert "out of memory" not in seen(pilot)


async def test_a_worker_that_left_between_two_questions_is_replaced_without_a_word(
    ready: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [FakeWorker(ready.run, answer)]

    def serve(run: RunDir) -> None:
        if not ready.run.socket_path.exists():
            workers.append(FakeWorker(run, answer))

    monkeypatch.setattr(control, "serve", serve)
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "one")
        await settled(pilot)
        workers[0].close()
        await ask(pilot, "two")
        await settled(pilot)
        assert "✗" not in seen(pilot)
    assert [m["content"] for m in workers[1].asked[0]["messages"]] == ["one", REPLIES["tuned"], "two"]
    workers[1].close()


async def test_elsewhere_the_connection_is_given_up_and_the_talk_is_kept(worker: FakeWorker, ready: FakeRun) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "one")
        await settled(pilot)
        await until(pilot, lambda: worker.connected == 1)
        await pilot.press("escape")
        await until(pilot, lambda: worker.connected == 0)
        await pilot.press("4")
        await shows(pilot, "> one", "made by yuriko")
        await settled(pilot)
        await ask(pilot, "two")
        await settled(pilot)
    assert [m["content"] for m in worker.asked[-1]["messages"]] == ["one", REPLIES["base"], "two"]


async def test_an_empty_question_is_not_sent(worker: FakeWorker, ready: FakeRun) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "  \n ")
        await pilot.pause(0.1)
        assert "Type a question" in seen(pilot)
    assert worker.asked == []


@pytest.mark.parametrize("size", [*SIZES, (70, 24)])
async def test_hostile_answers_are_shown_and_not_obeyed(
    ready: FakeRun, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    text = (
        f"{HOSTILE}\n\n# heading {HOSTILE}\n\n[here](http://evil.example) ![img](http://evil.example/x) <http://evil.example>\n"
        "http://evil.example &#x202e;&#27;[2J <script>x</script>\n\n```python\nprint('\x1b[2J') [/x]\n```\n\n"
        f"| a | {HOSTILE.replace('|', '')} |\n|---|---|\n| [c](http://evil.example) | d |\n\n- {HOSTILE}\n\n> {HOSTILE}\n"
    )
    opened: list[Any] = []
    monkeypatch.setattr(FtuiApp, "open_url", lambda self, url, **_: opened.append(url))

    def hostile(side: str, messages: list[dict[str, str]]) -> Sequence[str]:
        return [text[i : i + 7] for i in range(0, len(text), 7)]

    with FakeWorker(ready.run, hostile) as worker:
        async with FtuiApp("chat", ready.run).run_test(size=size) as pilot:
            await shows(pilot, "Type a question")
            await ask(pilot, HOSTILE)
            await shows(pilot, "tokens/s")
            await settled(pilot)
            check_screen(pilot)
            for _ in range(12):
                await pilot.press("pageup")
                await pilot.pause()
                check_screen(pilot)
            for y in range(3, size[1] - 4):  # clicks open nothing
                await pilot.click(offset=(5, y))
            assert pilot.app.is_running
            assert opened == []
            await pilot.press("ctrl+s")
            await ask(pilot, HOSTILE)
            check_screen(pilot)
            first = screen_of(pilot).talk.exchanges[0].answers["tuned"]
    assert first == text  # what goes back to the model is what it said, unchanged
    assert worker.asked[0]["messages"][0]["content"] == HOSTILE.strip()


async def test_pasted_escapes_become_marks(worker: FakeWorker, ready: FakeRun) -> None:
    from textual import events

    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        prompt = pilot.app.screen.query_one(Prompt)
        prompt.post_message(events.Paste(f"two\r\nlines {HOSTILE}"))
        await shows(pilot, "lines ␛[31mred")
        check_screen(pilot)
        assert prompt.text.startswith("two\nlines ")


async def test_the_mark_asks_for_help_only_while_nothing_is_typed(worker: FakeWorker, ready: FakeRun) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await pilot.press("h", "i", "question_mark")
        assert pilot.app.screen.query_one(Prompt).text == "hi?"
        pilot.app.screen.query_one(Prompt).put("")
        await pilot.press("question_mark")
        await until(pilot, lambda: not isinstance(pilot.app.screen, ChatScreen))
