"""What should not be learned by heart: keys and tokens, and data of persons.

Keys are told by the prefix that their makers gave them and by how random they look, so that "sk-your-key-here" is none;
persons' data by shapes that little else has. Nothing found is shown whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import log2

from engine.data.findings.chunk import SEPARATOR, Chunk
from engine.data.findings.kinds import Finding, Marked

_RUN = 20  # characters of a key, its prefix included: none is shorter
_RANDOM = 3.0  # bits a character, below which a text repeats itself too much for a key
_PREFIXES = (
    r"sk-(?:proj-|svcacct-|or-v1-|ant-(?:api\d\d-)?)?|hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza"
    r"|[sr]k_live_|npm_|pypi-"
)
_KEY = re.compile(
    rf"(?<![A-Za-z0-9_])(?:({_PREFIXES})([A-Za-z0-9_-]{{16,256}})"
    r"|(eyJ)([A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}))"
)
_PREFIX = re.compile(rf"{_PREFIXES}|eyJ")
_PEM = re.compile(
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[A-Za-z0-9+/=\s]|\\[rn]|(?:Proc-Type|DEK-Info|Version|Comment):[^\n]*){40,}(?:-----END [A-Z ]{1,40}-----)?"
)
_EMAIL = re.compile(r"(?<![\w.+-])(\w(?:[\w.+-]{0,62}\w)?)@((?:[A-Za-z0-9-]{1,63}\.){1,5}([A-Za-z]{2,24}))(?![\w-])")
# Reserved for examples (RFC 2606), and what people write when they make an address up.
_INVENTED = re.compile(
    r"(?:^|\.)(?:example|test|invalid|localhost|domain|email|(?:abc|xyz|acme|your|my)?(?:company|domain|site|website)|"
    r"abc|xyz|acme|sample|placeholder)(?:\.[a-z]{2,4}){0,2}$",
    re.IGNORECASE,
)
_NOBODY = frozenset(["git", "noreply", "no-reply", "user", "username", "name", "yourname", "your.name", "someone"])
_FILES = frozenset(["png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "html", "json"])  # logo@2x.png
_NUMBER = re.compile(r"(?<![\w.,$€£/=+-])[+(]?\d[\d ().-]{7,22}\d(?![\w/=]|[.,:-]\d)")
_PHONE = re.compile(
    r"\+\d{1,3}[ .-](?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|\+(?:86 ?1[3-9]|1[2-9]\d)\d{9}"
    r"|(?:\+?1[-. ])?\([2-9]\d\d\) ?[2-9]\d\d[-. ]\d{4}"
    r"|(?:1[-. ])?[2-9]\d\d([-. ])[2-9]\d\d\1\d{4}"
    r"|0\d{2,4}[ -]\d{3,4}[ -]?\d{3,4}"
    r"|1[3-9]\d([ -])\d{4}\2\d{4}"
    r"|(\d{10,11})"
)
# What must stand before digits without a sign or a gap, for them to be no sum.
_CALLED = re.compile(
    r"phone|\btel\b|mobile|cell|call|text|whatsapp|fax|电话|手机|联系|号码|微信|电話|携帯", re.IGNORECASE
)
_CARD = re.compile(
    r"(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d|62\d\d)([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -]?)\d{6}\2\d{5}"
)
# Printed in every manual on payments.
_TEST_CARDS = frozenset(
    [
        "4111111111111111",
        "4242424242424242",
        "4012888888881881",
        "5555555555554444",
        "5105105105105100",
        "378282246310005",
        "371449635398431",
        "6011111111111117",
        "6011000990139424",
    ]
)

_WORD = bytes(byte < 128 and (chr(byte).isalnum() or byte in b"_-") for byte in range(256))
_DIGIT = bytes(ord("0") if byte in b"0123456789" else byte if chr(byte) == SEPARATOR else 0 for byte in range(256))
_BETWEEN = b" ().-+"  # may stand between the digits of one number
_DIGITS = b"0" * 9  # as many as the shortest telephone number has that is told from other numbers


def mask_keys(text: str) -> str:
    """`text` without keys and tokens: "[key removed]" in their place."""
    if "PRIVATE KEY" in text:
        text = _PEM.sub("[key removed]", text)
    return _KEY.sub(lambda match: "[key removed]" if _is_key(match) else match[0], text)


def mask_personal(text: str) -> str:
    """`text` without e-mail addresses, telephone and card numbers: "[e-mail address removed]" in their place."""
    if "@" in text:
        text = _EMAIL.sub(lambda match: "[e-mail address removed]" if _is_person(match) else match[0], text)
    return _NUMBER.sub(lambda match: f"[{kind} removed]" if (kind := _number(match)) else match[0], text)


class Keys:
    """Marks rows with keys or tokens that open something."""

    def __init__(self) -> None:
        self._marked = Marked()

    def look(self, chunk: Chunk) -> None:
        hits: dict[int, str] = {}
        for index, start, stop in _runs(chunk):
            text = chunk.texts[index]
            if index not in hits and _PREFIX.search(text, start, stop):
                match = next((m for m in _KEY.finditer(text, start, stop + 4096) if _is_key(m)), None)
                if match is not None:
                    hits[index] = f"{match[1] or match[3]}…{match[0][-4:]}"
        if b"PRIVATE KEY-----" in chunk.flat:
            hits.update({at: "a private key" for at, text in enumerate(chunk.texts) if _PEM.search(text)})
        for index in sorted(hits):
            self._marked.add(chunk.example(index).row, hits[index])

    def findings(self) -> list[Finding]:
        what = "keys or tokens: whoever uses the model could read them out"
        fix = "take them out, and have them changed if they are real"
        return self._marked.finding("secrets", "warning", ("holds", "hold"), what, fix, "mask-secrets")


class Personal:
    """Marks rows with e-mail addresses, telephone numbers and payment cards."""

    def __init__(self) -> None:
        self._marked = Marked()
        self._kinds: Counter[str] = Counter()

    def look(self, chunk: Chunk) -> None:
        hits: dict[int, list[tuple[str, str]]] = {}
        for index in chunk.holding(b"@"):
            if shown := next(_addresses(chunk.texts[index]), ""):
                hits.setdefault(index, []).append(("e-mail", shown))
        for index in _long_numbers(chunk):
            for match in _NUMBER.finditer(chunk.texts[index]):
                if kind := _number(match):
                    hits.setdefault(index, []).append((kind.removesuffix(" number"), f"a {kind}, …{match[0][-4:]}"))
                    break
        rows: dict[int, set[str]] = {}
        for index in sorted(hits):
            row = chunk.example(index).row
            self._marked.add(row, hits[index][0][1])
            rows.setdefault(row, set()).update(kind for kind, _ in hits[index])
        for kinds in rows.values():
            self._kinds.update(kinds)

    def findings(self) -> list[Finding]:
        what = "data of persons: " + ", ".join(f"{kind} {count:,}" for kind, count in self._kinds.most_common())
        fix = "take them out where they are real"
        return self._marked.finding("personal-data", "warning", ("holds", "hold"), what, fix, "mask-personal-data")


def _runs(chunk: Chunk) -> Iterator[tuple[int, int, int]]:
    """(index of the text, start, stop) of each run of letters, digits, _ and - that is as long as a key."""
    import numpy as np

    flat = chunk.flat.translate(_WORD)
    # Wherever it begins, a run of 20 fills four blocks of four in a row.
    full = np.frombuffer(flat, "<u4", len(flat) // 4) == 0x01010101
    if len(full) < 4:
        return
    stop = 0
    for block in np.flatnonzero(full[:-3] & full[1:-2] & full[2:-1] & full[3:]).tolist():
        if block * 4 < stop:
            continue
        start = flat.rfind(b"\0", 0, block * 4) + 1
        stop = flat.find(b"\0", block * 4)
        stop = len(flat) if stop < 0 else stop
        if stop - start >= _RUN:
            index, begin = chunk.at(start)
            yield index, begin, begin + stop - start


def _is_key(match: re.Match[str]) -> bool:
    prefix, rest = match[1], match[2]
    if prefix is None:
        return True
    if prefix in ("AKIA", "ASIA"):
        return len(rest) == 16 and rest.isupper() and _entropy(rest) >= _RANDOM
    words = re.split("[-_]", rest)
    kinds = sum(any(test(char) for char in rest) for test in (str.islower, str.isupper, str.isdigit))
    # Words with dashes between them are a name, not a key.
    return kinds > 1 and max(map(len, words)) > 12 and _entropy(rest) >= _RANDOM


def _entropy(text: str) -> float:
    """Bits a character, from how often each occurs in the text itself."""
    counts = Counter(text).values()
    return -sum(count / len(text) * log2(count / len(text)) for count in counts)


def _addresses(text: str) -> Iterator[str]:
    """E-mail addresses of persons, masked."""
    at = text.find("@")
    while at >= 0:
        if at and text[at - 1].isalnum():
            match = _EMAIL.search(text, max(0, at - 64), at + 256)
            if match and match.start() < at < match.end() and _is_person(match):
                yield f"{match[1][0]}…@{match[2]}"
        at = text.find("@", at + 1)


def _is_person(match: re.Match[str]) -> bool:
    return match[1].lower() not in _NOBODY and match[3].lower() not in _FILES and _INVENTED.search(match[2]) is None


def _long_numbers(chunk: Chunk) -> Iterator[int]:
    """Indices of the texts with as many digits in a row, whatever stands between, as a telephone number has."""
    digits = chunk.flat.translate(_DIGIT, _BETWEEN)
    index, counted = 0, 0
    at = digits.find(_DIGITS)
    while at >= 0:
        index += digits.count(SEPARATOR.encode(), counted, at)
        yield index
        counted = at
        end = digits.find(SEPARATOR.encode(), at)
        at = digits.find(_DIGITS, end) if end >= 0 else -1


def _number(match: re.Match[str]) -> str:
    """What kind of number of a person this is: "telephone number", "card number", or "" for none."""
    number = match[0]
    digits = "".join(char for char in number if char.isdigit())
    if _CARD.fullmatch(number) and _luhn(digits) and digits not in _TEST_CARDS:
        return "card number"
    phone = _PHONE.fullmatch(number)
    # The exchange 555 belongs to nobody; it is there for films and examples.
    if not phone or not 10 <= len(digits) <= 15 or "555" in (digits[-10:-7], digits[-7:-4]):
        return ""
    before = match.string[max(0, match.start() - 40) : match.start()]
    return "telephone number" if phone[3] is None or _CALLED.search(before) else ""


def _luhn(digits: str) -> bool:
    """The checksum of card numbers: every second digit from the right counts double, its own digits summed."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0
