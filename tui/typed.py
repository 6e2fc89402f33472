"""What is typed and pasted, told apart.

Textual reads keys out of a paste that holds escape characters: of "\\x1b[21tq" the q would end the app. Most terminals
take such characters out of a paste, tmux and others do not.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual._xterm_parser import XTermParser
from textual.message import Message

_BEGIN, _END = "\x1b[200~", "\x1b[201~"


class Typed(XTermParser):
    """Textual's parser, to which a paste is text and nothing else: each escape character within it becomes ␛."""

    _before = ""  # the end of what came outside of a paste: it may be the first part of _BEGIN
    _pasting = False
    _held = ""  # the end of what was pasted so far: it may be the first part of _END

    def feed(self, data: str) -> Iterable[Message]:
        plain = self._plain(data)
        return super().feed(plain) if plain or not data else ()  # nothing at all means the end to Textual

    def _plain(self, data: str) -> str:
        found, rest = "", self._held + data
        self._held = ""
        while rest:
            if self._pasting:
                pasted, end, after = rest.partition(_END)
                if not end:
                    most = min(len(_END) - 1, len(rest))
                    size = next((n for n in range(most, 0, -1) if _END.startswith(rest[-n:])), 0)
                    pasted, self._held, after = rest[: len(rest) - size], rest[len(rest) - size :], ""
                found += pasted.replace("\x1b", "␛") + end
                self._pasting = not end
            else:
                typed, begin, after = (self._before + rest).partition(_BEGIN)
                found += (typed + begin)[len(self._before) :]
                self._before, self._pasting = ("" if begin else typed[1 - len(_BEGIN) :]), bool(begin)
            rest = after
        return found
