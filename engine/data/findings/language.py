"""Which languages the answers are written in: by their script, and by common words where the script is Latin."""

from __future__ import annotations

from array import array
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.data.findings.chunk import Chunk
from engine.data.findings.kinds import Finding, percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOOKED_AT = 160  # characters of each answer
_SURE = 3  # common words of one language, and three quarters of all that are seen
_MIX = 0.01  # of the rows, below which another language is a quotation
_ONE = 0.9  # of the rows whose language is sure: then the unsure ones are taken to be the same

_NONE, _LATIN, _UNSURE = 0, 1, 2
# Ranges of letters in Unicode. Han alone is Chinese, with kana it is Japanese.
_SCRIPTS = {
    "Chinese": [(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)],
    "Japanese": [(0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)],
    "Korean": [(0xAC00, 0xD7AF), (0x1100, 0x11FF), (0x3130, 0x318F)],
    "Cyrillic script": [(0x0400, 0x052F)],
    "Greek": [(0x0370, 0x03FF), (0x1F00, 0x1FFF)],
    "Arabic script": [(0x0600, 0x06FF), (0x0750, 0x077F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)],
    "Hebrew script": [(0x0590, 0x05FF)],
    "Devanagari script": [(0x0900, 0x097F)],
    "Bengali": [(0x0980, 0x09FF)],
    "Tamil": [(0x0B80, 0x0BFF)],
    "Telugu": [(0x0C00, 0x0C7F)],
    "Thai": [(0x0E00, 0x0E7F)],
    "Georgian": [(0x10A0, 0x10FF)],
    "Armenian": [(0x0530, 0x058F)],
}
# Short words that are common in one of these languages and (nearly) unknown in the others.
_COMMON = {
    "English": "the and of is are that with for this you your have it was they from what which will their can would by how "
    "my we be but not at has who when if any about been were there am an could should",
    "German": "der das und ist nicht ein eine einen mit auf für sich auch werden sie wird dem sind oder wie durch",
    "French": "les des est une dans pour qui du vous avec sont sur pas ce cette nous aux être il elle plus ou",
    "Spanish": "el los las del una con para por es que se su como más pero está son sus y muy este",
    "Portuguese": "os uma não com para do da em são você mais por dos das ao pelo isso também seu sua",
    "Italian": "il che di è per una sono gli della con non del nel alla dei questo come più anche le",
    "Dutch": "het een van en niet zijn dat op voor ook met aan worden wordt je deze maar bij",
}
_NAMES = ["none", "Latin", "Latin script", *_SCRIPTS, *_COMMON]


class Languages:
    """The language of each row, one byte a row."""

    def __init__(self) -> None:
        self._rows = array("I")
        self._found = bytearray()

    def look(self, chunk: Chunk) -> None:
        words = _words()
        found = bytearray(len(chunk.answers))
        wide: list[int] = []
        for at, answer in enumerate(chunk.answers):
            start = answer[:_LOOKED_AT]
            # A few quotes and accents between plain letters leave no doubt.
            if answer.isascii() or len(start.encode("ascii", "ignore")) > 0.9 * len(start):
                found[at] = _latin(start, words)
            else:
                wide.append(at)
        for at, script in zip(wide, _scripts([chunk.answers[at][:_LOOKED_AT] for at in wide]), strict=True):
            found[at] = _latin(chunk.answers[at][:_LOOKED_AT], words) if script == _LATIN else script
        self._rows.extend([example.row for example in chunk.examples])
        self._found += found

    def findings(self) -> list[Finding]:
        import numpy as np

        codes = np.frombuffer(bytes(self._found), np.uint8)
        counts = np.bincount(codes, minlength=len(_NAMES))
        latin = [*range(len(_NAMES) - len(_COMMON), len(_NAMES))]
        first = max(latin, key=lambda code: counts[code])
        told = sum(counts[latin])
        if told and counts[first] >= _ONE * told:
            counts[first] += counts[_UNSURE]
            codes = np.where(codes == _UNSURE, first, codes)
            counts[_UNSURE] = 0
        counts[_NONE] = 0  # numbers, code marks, no answer
        rows = int(counts.sum())
        order = [int(code) for code in np.argsort(-counts, kind="stable") if counts[code] >= max(2, _MIX * rows)]
        # "Latin script" beside English only says that some rows are too short to tell.
        if len(order) < 2 or (len(order) == 2 and _UNSURE in order and not set(order).isdisjoint(latin)):
            return []
        shares = ", ".join(f"{percent(counts[code], rows)} {_NAMES[code]}" for code in order[:5])
        others = np.array(self._rows)[(codes != order[0]) & (codes != _NONE)]
        message = f"answers in several languages: {shares}"
        fix = "nothing to do, if that is meant; else leave out what should not be answered in"
        return [Finding("languages", "note", message, array("I", others.tobytes()), len(others), fix=fix)]


@cache
def _words() -> dict[str, int]:
    """Common word -> language; words common to two are left out."""
    found: dict[str, int] = {}
    for language, common in _COMMON.items():
        for word in common.split():
            found[word] = _NONE if word in found else _NAMES.index(language)
    return {word: code for word, code in found.items() if code != _NONE}


def _latin(text: str, words: dict[str, int]) -> int:
    """The language of a text in Latin letters, by its common words; _UNSURE where they do not tell."""
    seen = [words[word] for word in text.lower().split() if word in words]
    if len(seen) >= _SURE:
        best = seen[0] if seen.count(seen[0]) == len(seen) else max(set(seen), key=seen.count)
        count = seen.count(best)
        return best if count >= _SURE and count * 4 >= len(seen) * 3 else _UNSURE
    return _UNSURE if seen or any(map(str.isalpha, text)) else _NONE


@cache
def _table() -> NDArray[Any]:
    """The script of each code point of the first 131,072."""
    import numpy as np

    table = np.zeros(0x20000, np.uint8)
    for low, high in ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)):
        table[low : high + 1] = _LATIN
    for name, ranges in _SCRIPTS.items():
        for low, high in ranges:
            table[low : high + 1] = _NAMES.index(name)
    return table


def _scripts(texts: list[str]) -> list[int]:
    """The script that most of each text is written in. A letter counts as its bytes in UTF-8: 你 as much as "you"."""
    import numpy as np

    if not texts:
        return []
    letters = np.frombuffer("".join(texts).encode("utf-32-le", "replace"), np.uint32)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    scripts = _table()[np.minimum(letters, 0x1FFFF)]
    weight = 1 + (letters >= 0x80) + (letters >= 0x800)
    size = len(_NAMES)
    counts = np.bincount(owner * size + scripts, weight, len(texts) * size).reshape(len(texts), size)
    counts[:, _NONE] = 0
    chinese, japanese = _NAMES.index("Chinese"), _NAMES.index("Japanese")
    kana = counts[:, japanese] * 10 > counts[:, chinese]
    counts[kana, japanese] += counts[kana, chinese]
    counts[kana, chinese] = 0
    best: list[int] = np.where(counts.any(axis=1), counts.argmax(axis=1), _NONE).tolist()
    return best
