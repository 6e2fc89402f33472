"""A machine whose own words are hostile: names of cards, of their users, of what a doctor finds."""

from __future__ import annotations

import os

from tests.pty.texts import Texts


def pretend() -> None:
    """Replace what asks the machine, in this process. FTUI_TEXTS is the number of the first string to use."""
    from engine import doctor, hardware
    from engine.doctor import Check
    from engine.runs import control

    texts = Texts(int(os.environ.get("FTUI_TEXTS", "90000")))
    cards = [
        hardware.Gpu(index, texts(), 80 * 10**9, 60 * 10**9, 50, True)
        for index in range(int(os.environ.get("FTUI_CARDS", "0")))
    ]
    known = hardware.Hardware(
        gpus=cards, cpu=texts(), cores=2, memory_total=25 * 10**9, memory_free=20 * 10**9, disk_free=10**12
    )
    levels = ("ok", "warning", "bad")
    checks = [Check(name=texts(), level=levels[i % 3], detail=texts(), fix=texts() if i % 3 else "") for i in range(12)]
    hardware.read = lambda: known
    doctor.report = lambda: checks
    control.prewarm = lambda: None
