"""Which texts tokie may be trusted with, for one tokenizer: found by trying what tokenizers are known to disagree on.

tokie cuts text into words by code of its own instead of by the pattern in tokenizer.json. Both agree on nearly all that
is ever written, and on a few rare things they do not: a quote after a tab, a line of blanks, Roman numerals that are one
character, bytes that the vocabulary has no token for. Here each such thing is encoded both ways, in many surroundings;
texts that hold one which comes out different are left to the model's own tokenizer. In the end texts of all that is
left, mixed at random, must come out alike, or tokie is not used.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import NamedTuple

from engine.data.skeleton import Refused

Encode = Callable[[list[str]], Sequence[list[int]]]  # texts to the tokens of each

# What may come out different, as a pattern that begins with a certain character, and what to try it with.
_QUOTED = [f"'{end}{after}" for end in ("s", "t", "re", "ve", "m", "ll", "d", "S", "LL") for after in ("", "a", " b")]
_NARROW: list[tuple[str, str, list[str]]] = [
    *((chr(code), re.escape(chr(code)), [chr(code)]) for code in (*range(1, 9), 11, 12, *range(14, 32), 127)),
    *((blank, f"{blank}'", [blank + quoted for quoted in _QUOTED]) for blank in "\t\n\r "),
    *(
        (
            end,
            rf"{end}[^\S\r\n]+[\r\n]",
            [end + blank + other for blank in (" ", "  ", "\t", " \t") for other in ("\n", "\r\n", "\n\n")],
        )
        for end in "\n\r"
    ),
]
# The same for characters beyond ASCII: a class of characters, and some of it.
_WIDE = [
    ("\u0080-\u009f", "\u0085\u0093"),
    ("\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000", "\u00a0\u2003\u202f\u3000"),
    ("\u2028\u2029", "\u2028\u2029"),
    ("\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff", "\u00ad\u200b\u200d\u200e\u202b\u2060\ufeff"),
    ("\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2080-\u2089\u2150-\u215f\u2460-\u249b", "²½⁴₂⅓①⑳"),
    (
        "\u16ee-\u16f0\u2160-\u2188\u3007\u3021-\u3029\u3038-\u303a\ua6e6-\ua6ef"
        "\U00010140-\U00010174\U00010341\U0001034a\U000103d1-\U000103d5\U00012400-\U0001246e",
        "Ⅷⅳↂ〇〡",
    ),
    ("\u249c-\u24ff\U0001f100-\U0001f1ff", "ⓐⓏ🄰🅁🆀🇩"),
    ("\u00aa\u00ba\u02b0-\u02ff", "ªºʰˇ˥"),
    ("\u01c4-\u01cc\u01f1-\u01f3", "ǅǲ"),
    ("\u0130\u0131\u017f\u212a", "İıſK"),
    ("\u0300-\u036f\u1ab0-\u1aff\u20d0-\u20ff\ufe00-\ufe0f", "\u0301\u0308\u20e3\ufe0f"),
    ("\u0080-\u024f\u1e00-\u1eff", "éÑßøœŁẞế"),
    ("\u0370-\u058f", "αΩйЖѢԱ"),
    ("\u0590-\u08ff", "אבּعربيّ٣،"),
    ("\u0900-\u0fff", "हिन्दी३தமிไทย๓བོད"),
    ("\u1000-\u1fff", "ကြაბუአማភាសা᠑ἄ"),
    ("\u2010-\u2027\u2030-\u205e", "–—‘’“”…•‰"),
    ("\u20a0-\u20cf\u2100-\u214f", "€₿℃™"),
    ("\u2190-\u2bff", "→∑≤□★✓⠿⟨"),
    ("\u3001-\u3006\u3008-\u3020\u3030-\u303f\uff00-\uffef", "、。《「～（Ａ１ｶ"),
    ("\u3040-\u30ff\u3100-\u312f", "ひらカナーㄅ"),
    ("\u3400-\u9fff\uf900-\ufaff", "丛雨你好的〆一豈"),
    ("\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff", "한국어ᄒ"),
    ("\ue000-\uf8ff\ufffc-\uffff", "\ue000\uf8ff\ufffd"),
    ("\U00010000-\U0001efff", "𐍈𝐀𝟙🀄"),
    ("\U0001f000-\U0001ffff", "😀🎇🇩🏽🫣"),
    ("\U00020000-\U0003ffff", "𠈐𰻝"),
    ("\U00040000-\U0010ffff", "\U00040001\U00077bf0\U000c0001\U000f0001\U00100001"),
]
_AROUND = (
    *("{}", "a{}", "{}a", " {}", " {}b", "{} b", "1{}", "{}1", "123{}", "{}123", "!{}!", "{}{}"),
    *("\n{}", "{}\n", "  {}", "\t{}", "{}'s", "...{}'t"),
)
_PLAIN = (
    *(
        "the",
        "It",
        "don't",
        "I'LL",
        "USA",
        "camelCase",
        "snake_case",
        "x2",
        "7",
        "12",
        "123",
        "1234567",
        "3.14",
        "a.b",
        ",",
    ),
    *(
        ".",
        "...",
        "?!",
        "(",
        ")",
        "[0]",
        "{}",
        "==",
        "->",
        "//",
        "#",
        "$5",
        "50%",
        "@",
        "&",
        "*",
        "**",
        "_",
        "~",
        "`",
        "\\n",
    ),
    *(
        " ",
        "  ",
        "   ",
        "    ",
        "\n",
        "\n\n",
        "\n    ",
        "\r\n",
        "\t",
        "\t\t",
        "https://x.yz/a?b=c&d",
        "<b>",
        "</p>",
        "'",
        '"',
    ),
)
_MIXED, _ROUNDS = 1500, 4  # texts of all together; how often more may be found among them


class Doubts(NamedTuple):
    """Patterns of texts that tokie must not be given: as `skeleton.Refused` takes them."""

    narrow: list[tuple[str, str]]
    wide: list[str]


def doubts(theirs: Encode, own: Encode, words: Iterable[str] = ()) -> Doubts | None:
    """What comes out different; None if plain text does, so that tokie cannot be used.

    theirs, own  encode with tokie, and with the model's own tokenizer
    words        that the tokenizer takes in a way of its own
    """

    def differ(texts: Sequence[str]) -> list[bool]:
        return [one != other for one, other in zip(theirs(list(texts)), own(list(texts)), strict=True)]

    def reduced(parts: list[str]) -> list[str]:
        """A text that comes out different, without the parts that have nothing to do with it."""
        for at in range(len(parts) - 1, -1, -1):
            fewer = parts[:at] + parts[at + 1 :]
            if fewer and differ(["".join(fewer)])[0]:
                parts = fewer
        return parts

    narrow = [*_NARROW, *((word[0], re.escape(word), [word]) for word in words)]
    rare = Refused([(first, pattern) for first, pattern, _ in narrow], [members for members, _ in _WIDE])
    plain = [around.replace("{}", one) for one in _PLAIN for around in _AROUND]
    if any(differ([text for text in plain if not rare(text)])):
        return None
    tried = [some for _, _, some in narrow] + [list(some) for _, some in _WIDE]
    around = [[around.replace("{}", one) for one in some for around in _AROUND] for some in tried]
    different = iter(differ(list(chain.from_iterable(around))))
    doubted = {at for at, texts in enumerate(around) if any(list(islice(different, len(texts))))}
    chance = random.Random(0)
    of = {one: at for at, some in enumerate(tried) for one in some}
    for _ in range(_ROUNDS):
        found = Doubts(
            [(first, pattern) for at, (first, pattern, _) in enumerate(narrow) if at in doubted],
            [members for at, (members, _) in enumerate(_WIDE, len(narrow)) if at in doubted],
        )
        refused = Refused(*found)
        atoms = [*_PLAIN, *chain.from_iterable(some for at, some in enumerate(tried) if at not in doubted)]
        mixed = [chance.choices(atoms, k=chance.randrange(2, 14)) for _ in range(_MIXED)]
        mixed = [parts for parts in mixed if not refused("".join(parts))]
        wrong = [
            parts
            for parts, is_wrong in zip(mixed, differ(["".join(parts) for parts in mixed]), strict=True)
            if is_wrong
        ]
        if not wrong:
            return found if len(mixed) > _MIXED // 4 else None
        for parts in wrong:
            guilty = {of[part] for part in reduced(parts) if part in of}
            if not guilty:
                return None
            doubted |= guilty
    return None
