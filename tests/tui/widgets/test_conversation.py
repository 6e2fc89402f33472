"""How answers are drawn, as it is typed on the chat screen."""

from __future__ import annotations

import pytest

from engine.sampling import HOTTEST
from tui.widgets.conversation import Sampling, parse


def test_the_screen_takes_the_temperatures_that_the_command_line_takes() -> None:
    assert parse(f"temperature {HOTTEST:g}", Sampling()).temperature == HOTTEST
    with pytest.raises(ValueError, match=f"to {HOTTEST:g}$"):
        parse(f"temperature {HOTTEST + 0.01:g}", Sampling())
