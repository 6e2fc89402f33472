"""Text that tries to act on a terminal or on Textual, and a look at what reached the screen."""

from __future__ import annotations

import re
import unicodedata

from textual.pilot import Pilot

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 \x1b]8;;http://evil.example\x1b\\link\x9b2J [@click=app.quit]push[/] [/x] [bold]b "
    "\u202eevil\u2066 \u200bzero \r over \x00 nul \x7f del"
)


def check_screen(pilot: Pilot[None]) -> None:
    """Nothing on the screen is a control, bidirectional or zero-width character, a link, or an action from a text."""
    for strip in pilot.app.screen._compositor.render_strips():
        for segment in strip:
            bad = [c for c in segment.text if unicodedata.category(c) in ("Cc", "Cf", "Cs") or c in "\u2028\u2029"]
            assert not bad, f"{bad!r} in {segment.text!r}"
            if segment.style is not None:
                assert segment.style.link is None
                assert not re.search("quit|link", str(segment.style.meta.get("@click", "")))
