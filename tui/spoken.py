"""The engine's next steps in the words of the screens: a key where the command line has an option."""

from __future__ import annotations

import re

# What the engine says, and what is said of it here. A key is named with the screen that has it.
_SPOKEN: tuple[tuple[str, str], ...] = (
    (r"give(?: --set \w+=…)+", "f on Data or Review fills them in"),
    (r"fill them:(?: --set \w+=…)+", "f on Data or Review fills them in"),
    (r"fill them with --set NAME=…", "f on Data fills them in"),
    (
        r"leave (it|them) out \(--bad-rows skip\), or have mended what can be \(--bad-rows repair\)",
        r"s on Data leaves \1 out, r mends what can be",
    ),
    (r"have it mended \(--bad-rows repair\)", "let r on Data mend it"),
    (r"have mended what can be \(--bad-rows repair\)", "let r on Data mend what can be"),
    (r"leave such rows out \(--bad-rows skip\)", "let s on Data leave such rows out"),
    (r"; `ftui data FILE` lists them all", ""),
    (r"a template says it: --prompt '(.+)' --completion '.+'", r"a template says it, t on Mapping: \1"),
    (r"say which is which: --(?:prompt|columns) '.+' --(?:completion|columns) '.+'", "m on Data says which is which"),
    (
        r"give yours with --data FILE|give --data FILE, or a preset that brings rows \(`ftui presets`\)",
        "d chooses rows",
    ),
    (r"name a data file \(--data FILE\)", "d chooses other rows"),
    (r"give --model a local folder(, a GGUF file)?(?: or `starter`)?", r"choose a local folder\1 with / on Model"),
    (r"then allow it with --trust-remote-code", "then allow it on Model"),
    (r"begin a run with --trust-remote-code", "allow it on Model, in a new run"),
    (r" \(--reward\)", ", in the plan's line reward"),
    (r" \(--length [\d,]+\)", ""),
    (r"; --force takes its place", ""),
    (r"; --method lora does without", "; method lora does without"),
    (r"--edit (\w+)=(\S+)", r"e on Plan: \1 \2"),
)
_PATTERNS = [(re.compile(pattern), words) for pattern, words in _SPOKEN]


def spoken(text: str) -> str:
    """`text` of the engine as a screen says it. Not yet safe to show."""
    if "--" in text:
        for pattern, words in _PATTERNS:
            text = pattern.sub(words, text)
    return text
