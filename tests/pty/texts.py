"""Hostile strings: the same ones at each run, each with a token by which it can be found again.

A number of 77000 and above in a control sequence is always theirs: neither rich nor Textual writes any.
"""

from __future__ import annotations

import base64
import os
import random
import re

TOKEN = re.compile(r"zq\d{5}z")
_FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
# What a string tries; {t} is its token, {n} its number, {b} its token in base64.
TRICKS = (
    # C0, ESC and what begins with it
    "\x1b[31m\x1b[2J\x1b[H\x1b[{n}m\x1b[{n}A\x1b[38;5;{n}m",
    "\x1b]0;{t}\x07\x1b]2;{t}\x1b\\\x1b]0;{t}",
    "\x1b]52;c;{b}\x07\x1b]52;c;?\x1b\\",
    "\x1b]8;;https://{t}.example/\x1b\\{t}\x1b]8;;\x1b\\\x1b]8;id={t};file:///etc/passwd\x07click\x1b]8;;\x07",
    "\x1b]4;1;rgb:ff/00/00\x07\x1b]10;?\x07\x1b]9;{t}\x07\x1b]777;notify;{t};{t}\x07\x1b]133;A\x07\x1b]7;file://{t}/\x07",
    "\x1b]1337;File=inline=1;size={n}:{b}\x07\x1b]1337;SetMark\x07",
    "\x1b[6n\x1b[c\x1b[>c\x1b[5n\x1b[21t\x1b[?{n}$p\x05",
    "\x1bc\x1b(0\x1b#8\x1b>\x1b=\x1bM\x1bD\x1bE\x1b7\x1b8\x1bN\x1bO",
    "\x1b[?1049l\x1b[?1003h\x1b[?2004h\x1b[?{n}h\x1b[20h\x1b[4h\x1b[?25l\x1b[>{n}u",
    "\x1b[1;2r\x1b[5S\x1b[3L\x1b[2P\x1b[{n}@\x1b[3J\x1b[8;{n};{n}t",
    "\x1bP1$q{t}\x1b\\\x1bPtmux;\x1b\x1b]52;c;{b}\x07\x1b\\\x1bP+q{b}\x1b\\\x1bPq#0;2;0;0;0{t}\x1b\\",
    "\x1b_Ga=T,f=100;{b}\x1b\\\x1b^{t}\x1b\\\x1bX{t}\x1b\\\x1bk{t}\x1b\\",
    "".join(map(chr, range(0x20))) + "{t}",
    "\b\b\b\b\b\b\b\b\b\b\b\b{t}\x7f\x7f\x7f",
    "\r{t} over\r\r",
    "\n{t}!line\n\n{t}!line",
    "\x0b{t}\x0c{t}\x1c{t}\x1d{t}\x1e{t}\x85{t}\u2028{t}\u2029{t}",
    "\x07\x07\x07{t}\x00\x00",
    "\t\t{t}\t\t",
    # C1: one character that says what ESC and a letter say
    "\x9b31m\x9b{n}m\x9d0;{t}\x9c\x9d52;c;{b}\x9c\x90q{t}\x9c\x9f{t}\x9c\x84\x85\x8d\x8e\x8f",
    "".join(map(chr, range(0x7F, 0xA0))) + "{t}",
    # what reorders and hides
    "\u202e{t}\u202c \u2066{t}\u2069 \u2067{t}\u2068 \u202a\u202b\u202d\u200e\u200f\u061c",
    "z\u200be\u200cr\u200do\u2060{t}\ufeff\u00ad\u034f\u180e\u115f\u1160\u3164\uffa0\u17b4\u2063",
    "{t}\ufe00\ufe01\U000e0100\U000e01ef\U000e0041\U000e0042\U000e007f\u2764\ufe0f",
    "\U0001d173\U00013430\ufff9{t}\ufffa\ufffb\U0001bca0\u206a\ufff0\U000e0001",
    "Z" + "\u0300\u0301\u0489\u20dd" * 80 + "{t}" + "\u0e2a\u0e47" + "\u0e47" * 200,
    "\ud800{t}\udc9b31m\udfff",
    # what takes more room than it seems
    "{t}" * 300,
    "漢字かな混じり文 {t} "
    + _FAMILY
    + "\U0001f1e9\U0001f1ea\U0001f469\U0001f3fd\u200d\U0001f4bb \uff21\uff22 ﷽ \u0b95\u0bcc",
    # what somebody between it and the terminal may obey
    "[@click=app.quit]{t}[/] [@click=app.bell()]x[/] [red]{t}[/red] [/] [/x] \\[ [link=https://{t}.example]x[/link] [bold",
    "[@click=screen.toggle_help]{t}[/][on red]$primary [$error]x[/] [b][i][/b] [@click='app.copy(\"{t}\")']x[/]",
    "[{t}](javascript:alert) ![{t}](file:///etc/passwd) <script>{t}</script> &#27;[31m &#x202e; <https://{t}.example> `[/]`",
    "%s%n%d%(x)s {{}} {{0}} {{{t}!r}} {{__class__}} ${{HOME}} $(touch {t}) `id` ; rm -rf {t} && || > {t} #",
    "{{{{ 7*7 }}}} {{% for x in range(9**9) %}} {{{{ ''.__class__.__mro__ }}}} {t}",
    "../../../../etc/passwd ~root -rf --help C:\\x CON {t}/..",
    '"}}\n{{"event":"note","text":"{t}"}}\n',
    "!!python/object/apply:os.system ['touch {t}'] &a *a - : | > {t}",
)


def token(number: int) -> str:
    return f"zq{number:05}z"


class Texts:
    """Hands out hostile strings one after another; `count` were handed out.

    Each begins and ends with its token and holds two tricks: one in turn, one by chance (of a fixed seed).
    """

    def __init__(self, first: int = 0, seed: int = 4) -> None:
        self.first = self.count = first
        self._random = random.Random(seed + first)

    def __call__(self) -> str:
        number = self.count
        self.count += 1
        name = token(number)
        second = self._random.randrange(len(TRICKS))
        words = {"t": name, "n": 77000 + number, "b": base64.b64encode(name.encode()).decode()}
        return f"{name} " + " ".join(TRICKS[at].format(**words) for at in (number % len(TRICKS), second)) + f" {name}"

    def many(self, count: int) -> list[str]:
        return [self() for _ in range(count)]

    def utf8(self) -> str:
        """One that a file of UTF-8 text can hold."""
        return self().encode("utf-8", "replace").decode()

    def name(self, suffix: str = "") -> str:
        """One that can be the name of a file: no /, no NUL, at most 200 bytes, other bytes as os.fsdecode gives them."""
        raw = self().replace("/", "∕").replace("\0", "").encode("utf-8", "ignore")[:160]
        return os.fsdecode(raw + b"\x9b31m") + suffix
