"""What the model says now: one prompt, and its answers as training went on, the latest last."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from engine.text import safe, shorten

Answer = tuple[int, str]  # optimizer step, what the model answered


def fold(text: str, width: int, lines: int) -> list[str]:
    """Safe `text` on at most `lines` lines of `width` cells, broken at spaces where there are any; … where it was cut."""
    words = text
    found: list[str] = []
    while words and len(found) < lines - 1 and cell_len(words) > width:
        head = _head(words, width)
        found.append(head.rstrip())
        words = words[len(head) :].lstrip()
    if words:
        found.append(shorten(words, width))
    return found


def _head(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += cell_len(char)
        if used > width:
            space = text.rfind(" ", 0, index + 1)
            return text[:space] if space > width // 2 else text[: max(1, index)]
    return text


def choose(answers: Sequence[Answer], count: int) -> list[Answer]:
    """At most `count` answers: the first one (what it said before) and the newest."""
    if len(answers) <= count:
        return list(answers)
    return [answers[0], *answers[len(answers) - count + 1 :]] if count > 1 else [answers[-1]]


class Said(Widget):
    """Answers to one probe prompt. Texts may hold anything: they are made safe here."""

    DEFAULT_CSS = """
    Said {
        height: auto;

        & > .said--prompt { text-style: bold; }
        & > .said--step { color: $foreground 60%; }
        & > .said--before { color: $foreground 75%; }
        & > .said--latest { color: $success; text-style: bold; }
    }
    """
    COMPONENT_CLASSES = {"said--prompt", "said--step", "said--before", "said--latest"}

    state: reactive[tuple[str, tuple[Answer, ...], int]] = reactive(("", (), 6), layout=True)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)

    def show(self, prompt: str, answers: Sequence[Answer], lines: int) -> None:
        """lines  how many lines it may take, the prompt's included."""
        self.state = (safe(prompt), tuple((step, safe(text.strip())) for step, text in answers), lines)

    def render(self) -> Content:
        return Content("\n").join(self._lines(self.content_size.width))

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return len(self._lines(width))

    def _lines(self, width: int) -> list[Content]:
        prompt, answers, lines = self.state
        if not prompt or width < 10:
            return []
        found = [Content.styled(shorten(f"“{prompt}”", width), self.get_visual_style("said--prompt"))]
        step_width = max([4, *(len(str(step)) for step, _ in answers)])
        room = width - step_width - 2
        shown = choose(answers, lines - 2)  # one line is kept for an answer that needs two
        for number, (step, text) in enumerate(shown):
            latest = number == len(shown) - 1
            style = self.get_visual_style("said--latest" if latest else "said--before")
            spare = lines - 1 - len(shown) + 1 if latest else 1
            for index, part in enumerate(fold(text, room, spare) or ["(an empty answer)"]):
                label = f"{step if index == 0 else '':>{step_width}}  "
                found.append(Content.assemble((label, self.get_visual_style("said--step")), (part, style)))
        return found
