"""Text that was read in the wrong encoding: "cafÃ©" that was "café", and characters that are lost."""

from __future__ import annotations

import re

from engine.data.findings.chunk import Chunk
from engine.data.findings.kinds import Finding, Marked, excerpt

LOST = "\ufffd"  # what a decoder writes where it could not read


def _characters() -> dict[str, int]:
    """Each character that a byte from 80 on becomes in Windows-1252, or in Latin-1 where that has none."""
    found = {}
    for byte in range(0x80, 0x100):
        char = bytes([byte]).decode("cp1252", "replace")
        found[chr(byte)] = found[chr(byte) if char == LOST else char] = byte
    return found


_BYTES = _characters()
# Bytes 80 to BF follow the first byte of a character in UTF-8.
_REST = "[" + "".join(re.escape(char) for char, byte in _BYTES.items() if byte < 0xC0) + "]"
# Each alternative is something that nobody writes on purpose. A capital before Ã and a quote makes it a word in capitals,
# as in “IRMÔ; single pairs that begin with é or å occur in French and Danish, so two in a row are asked for.
_GARBLED = re.compile(
    f"[ÂÃ](?![‘’“”„‚…–—«»‹›]){_REST}"  # é, ü, °
    f"|(?<![A-ZÀ-Þ])[ÂÃ]{_REST}"
    f"|â[€„‚]{_REST}"  # quotes, dashes, €, ™
    f"|ã€{_REST}|ï[¼½¾¿]{_REST}"  # the full stops and commas of Chinese
    f"|(?:[ã-é]{_REST}{{2}}){{2,}}"  # its characters, and those of Japanese and Korean
    f"|(?:[ÐÑ]{_REST}){{3,}}"  # Cyrillic
    f"|ðŸ{_REST}{{2}}"  # emoji
)
_FIRST = bytes(byte in b"\xc2\xc3\xd0\xd1\xe2\xef\xf0" or 0xE3 <= byte <= 0xE9 for byte in range(256))


def mend(text: str) -> str:
    """`text` with what was read as Windows-1252 put back to what it was. Text that was garbled twice is mended twice."""
    for _ in range(3):
        mended = _GARBLED.sub(_decoded, text)
        if mended == text:
            break
        text = mended
    return text


def _decoded(match: re.Match[str]) -> str:
    try:
        return bytes(_BYTES[char] for char in match[0]).decode()
    except UnicodeDecodeError:
        return match[0]


def _suspects(chunk: Chunk) -> list[int]:
    """Indices of the texts in which one of the first characters of `_GARBLED` stands before one that may follow it."""
    import numpy as np

    if not chunk.wide:
        return []
    flat = np.frombuffer(chunk.flat, np.uint8)
    first = np.frombuffer(chunk.flat.translate(_FIRST), np.bool_)[:-1]
    follower = flat[1:] ^ 0x80 < 0x40  # 80 to BF
    follower |= flat[1:] == ord("?")  # not Latin-1, as € and the quotes are
    return sorted({chunk.at(int(place))[0] for place in np.flatnonzero(first & follower)})


class Encoding:
    """Marks rows whose text was garbled and can be mended, and rows that lost characters for good."""

    def __init__(self) -> None:
        self._garbled, self._lost = Marked(), Marked()

    def look(self, chunk: Chunk) -> None:
        for index in chunk.wide:
            text = chunk.texts[index]
            if (at := text.find(LOST)) >= 0:
                self._lost.add(chunk.example(index).row, excerpt(text[max(0, at - 24) : at + 24]))
        for index in _suspects(chunk):
            text = chunk.texts[index]
            for match in _GARBLED.finditer(text):
                if _decoded(match) != match[0]:
                    start = max(text.rfind(" ", 0, match.start()), match.start() - 24) + 1
                    word = text[start : match.end() + 12].partition(" ")[0]
                    self._garbled.add(chunk.example(index).row, f"{excerpt(word, 26)} was {excerpt(mend(word), 26)}")
                    break

    def findings(self) -> list[Finding]:
        what = "in the wrong encoding once (UTF-8 as Windows-1252)"
        fix = "put the characters back"
        found = self._garbled.finding("encoding", "problem", ("was read", "were read"), what, fix, "mend-encoding")
        what = f"{LOST}, which stands for characters that were lost"
        fix = "make the file again from its source, or leave these rows out"
        return found + self._lost.finding("lost-characters", "problem", ("holds", "hold"), what, fix, "drop-lost")
