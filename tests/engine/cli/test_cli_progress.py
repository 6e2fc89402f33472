"""What is said while something lasts."""

from __future__ import annotations

import io
import sys

import pytest

from engine.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("what", "speed", "words"),
    [
        ("counting tokens", 15_422.4, "15,422 rows/s"),
        ("looking at the rows", 3.24, "3.2 rows/s"),
        ("reading bytes", 31e6, "31 MB/s"),
        ("fetching MB", 4.5, "4.5 MB/s"),
        ("converting tensors", 12.0, ""),
        ("counting tokens", None, ""),
    ],
)
def test_the_speed_is_in_the_unit_of_what_is_done(what: str, speed: float | None, words: str) -> None:
    assert progress.rate(what, speed) == words


def test_a_terminal_gets_a_bar_without_foreign_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.shown() as report:
        for done in (0, 50, 100):
            report("counting \x07tokens", done, 100)
    assert "counting ␇tokens" in terminal.getvalue()
    assert "\x07" not in terminal.getvalue()


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(quiet=True) as report:
        report("counting tokens", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_a_line_comes_only_when_it_says_something_new(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.shown() as report:
        for what, done in (("ada: model", 0), ("ada: answers", 1), ("ada: answers", 2), ("ada: model", 0)):
            for _ in range(100):
                report(what, done, 3 if done else 0)
                now += 1
    assert capsys.readouterr().err.splitlines() == [
        "ada: model",
        "ada: answers 33 %",
        "ada: answers 66 %",
        "ada: model",
    ]
