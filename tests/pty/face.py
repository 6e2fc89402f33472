"""`python -m tests.pty.face [VERB …]`: ftui's entry on a machine whose own words are hostile, with no worker ahead of time."""

from __future__ import annotations

import sys

from tests.pty import machine

machine.pretend()

from tui.__main__ import main  # noqa: E402

sys.exit(main())
