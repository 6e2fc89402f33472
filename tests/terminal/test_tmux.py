"""tmux: detached at one size, attached again at another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal.pty import ROOT, Pty
from tests.tui.run_files import FakeRun

tmux = shutil.which("tmux")
pytestmark = pytest.mark.skipif(tmux is None, reason="no tmux here")


def test_attached_again_at_another_size(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = FakeRun("congyu")
    run.alive()
    run.begin()
    run.steps(1, 40)
    assert tmux is not None
    server = ["-L", f"ftui-{os.getpid()}-{tmp_path.name}", "-f", "/dev/null"]

    def shows(text: str) -> bool:
        seen = subprocess.run([tmux, *server, "capture-pane", "-p"], capture_output=True, text=True)
        return text in seen.stdout

    try:
        with Pty(
            [*server, "new-session", sys.executable, "-m", "tui", "attach", "congyu"], cwd=alone, program=tmux
        ) as face:
            face.until(lambda: shows("step 40/"))
            subprocess.run([tmux, *server, "detach-client"], check=True)
            assert face.wait() == 0
        run.steps(41, 60)
        with Pty([*server, "attach"], size=(120, 40), cwd=alone, program=tmux) as face:
            face.until(lambda: shows("step 60/"))
            face.until(lambda: shows("trained tokens"))  # what only 100 columns have room for
            face.resize(20, 6)  # one line is tmux's
            face.until(lambda: shows("ftui needs 40x10"))
            face.resize(80, 25)
            face.until(lambda: shows("smoothed"))
            face.type("q")
            face.until(lambda: shows("q again"))
            face.type("q")
            assert face.wait() == 0
            assert not face.screen.left_on()
    finally:
        subprocess.run([tmux, *server, "kill-server"], check=False, capture_output=True)
