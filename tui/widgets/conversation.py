"""What was asked and answered, and how answers are drawn. No widget in it."""

from __future__ import annotations

import re
from typing import Literal

import msgspec
from msgspec import Struct, field

from engine.sampling import HOTTEST

Side = Literal["base", "tuned"]


class Exchange(Struct):
    """One question, and the answers that were given to it so far; `system` is what the models were told when it was asked last."""

    question: str
    answers: dict[Side, str] = field(default_factory=dict)
    system: str = ""


class Conversation(Struct):
    """A talk with two models at once: the questions are common, each side goes on from its own answers."""

    system: str = ""
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def coming(self) -> str | None:
        """The system prompt that begins to count with the next question; None where it is the one that counts."""
        before = self.exchanges[-1].system if self.exchanges else ""
        return self.system if self.system != before else None

    @property
    def begun(self) -> str | None:
        """The system prompt that began to count with the last question; None where it was the one before."""
        before, now = ["", "", *(exchange.system for exchange in self.exchanges)][-2:]
        return now if now != before else None

    def messages(self, side: Side) -> list[dict[str, str]]:
        """What to send to `side` so that it answers the last question.

        An earlier question that this side did not answer is left out: a template wants user and assistant in turn.
        """
        found = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for exchange in self.exchanges[:-1]:
            if answer := exchange.answers.get(side):
                found.append({"role": "user", "content": exchange.question})
                found.append({"role": "assistant", "content": answer})
        if self.exchanges:
            found.append({"role": "user", "content": self.exchanges[-1].question})
        return found


class Sampling(Struct, frozen=True):
    """How an answer is drawn. temperature 0 takes the likeliest token each time; length in tokens."""

    temperature: float = 0.7
    top_p: float = 0.9
    length: int = 256
    seed: int | None = None

    def words(self) -> str:
        """As it stands beside the prompt: "0.7  top-p 0.9  256"."""
        seed = "" if self.seed is None else f"  seed {self.seed}"
        return f"{self.temperature:g}  top-p {self.top_p:g}  {self.length}{seed}"

    def line(self) -> str:
        """As it is edited: "temperature 0.7  top-p 0.9  length 256  seed none"."""
        seed = "none" if self.seed is None else str(self.seed)
        return f"temperature {self.temperature:g}  top-p {self.top_p:g}  length {self.length}  seed {seed}"


_RANGES = {
    "temperature": (0.0, HOTTEST, f"temperature goes from 0 (always the likeliest token) to {HOTTEST:g}"),
    "top_p": (0.01, 1.0, "top-p goes from 0.01 to 1"),
    "length": (1, 32_768, "length is a number of tokens from 1 on"),
    "seed": (0, 2**31 - 1, "seed is a whole number, or none"),
}


def parse(line: str, now: Sampling) -> Sampling:
    """Settings from a line such as "temperature 0 length 512"; what is not named stays. ValueError says what is wrong."""
    words = re.split(r"[\s,=:]+", line.strip().lower().replace("top-p", "top_p").replace("top p", "top_p"))
    changes: dict[str, float | int | None] = {}
    names = iter(word for word in words if word)
    for name in names:
        if name not in _RANGES:
            raise ValueError(f"{name!r} is no setting; write for example: {now.line()}")
        value = next(names, "")
        low, high, rule = _RANGES[name]
        if name == "seed" and value in ("none", "-", ""):
            changes[name] = None
            continue
        try:
            number = float(value) if name in ("temperature", "top_p") else int(value)
        except ValueError:
            raise ValueError(rule) from None
        if not low <= number <= high:
            raise ValueError(rule)
        changes[name] = number
    return msgspec.structs.replace(now, **changes)


def how_it_went(reason: str, tokens: int, seconds: float, how: Sampling) -> str:
    """The line below an answer: "31 tokens, 14 tokens/s"."""
    parts = [f"{tokens} token{'s' if tokens != 1 else ''}"]
    if seconds > 0 and tokens:
        parts.append(f"{tokens / seconds:.0f} tokens/s")
    if reason == "length":
        parts.append(f"cut at {how.length}")
    elif reason == "stopped":
        parts.append("stopped")
    return ", ".join(parts)
