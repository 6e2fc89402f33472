"""Make the pictures in docs/pictures from the running app: `python docs/pictures.py [RUN]`.

Nothing is staged: the runs, the machine and the answers are those of whoever runs it. RUN is a finished run of the
identity preset; its chat is asked one question. Without RUN only the screens of a new run are taken. Doctor names the folders of the machine
it looks at, so its picture is the one that the snapshot tests keep.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from textual.pilot import Pilot

from engine.runs import directory
from tui.app import FtuiApp

FOLDER = Path(__file__).parent / "pictures"
SIZES = ((80, 24), (120, 40))


def screen_text(app: FtuiApp) -> str:
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


async def until(pilot: Pilot[None], app: FtuiApp, word: str, seconds: float = 120.0) -> None:
    """Wait until `word` is on screen."""
    for _ in range(int(seconds * 10)):
        if word in screen_text(app):
            await pilot.pause(1.0)  # what else is still being read
            return
        await pilot.pause(0.1)
    raise TimeoutError(f"{word!r} did not appear:\n{screen_text(app)}")


def keep(app: FtuiApp, screen: str, size: tuple[int, int]) -> None:
    path = FOLDER / f"{screen}-{size[0]}x{size[1]}.svg"
    path.write_text(app.export_screenshot(title="ftui"))
    print(path.name)


async def new_run(size: tuple[int, int]) -> None:
    """Model, review, plan and what opens from it, rows and what opens from them."""
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, app, "Identity")
        await until(pilot, app, "free")
        await pilot.press("n")
        await until(pilot, app, "parameters")
        keep(app, "model", size)
        app.wizard.begin_preset("identity")
        app.new_run("review")
        await until(pilot, app, "SFT with")
        keep(app, "review", size)
        await pilot.press("e")
        await until(pilot, app, "learning rate")
        keep(app, "plan", size)
        for key, word, screen in (
            ("w", "Instead", "why"),
            ("o", "rows at once", "fits"),
            ("t", "What is it for?", "gate"),
        ):
            await pilot.press("down" if screen == "why" else "up", key)
            await until(pilot, app, word)
            keep(app, screen, size)
            await pilot.press("escape")
            await until(pilot, app, "learning rate")
        await pilot.press("escape")
        await until(pilot, app, "trained (bold)")
        keep(app, "data", size)
        await pilot.press("o")
        await pilot.pause(1.0)
        keep(app, "tokens", size)
        await pilot.press("o", "m")
        await until(pilot, app, "prompt")
        await pilot.pause(1.0)
        keep(app, "mapping", size)


async def of_run(name: str, size: tuple[int, int]) -> None:
    """Home, and the screens of a finished run."""
    run = directory.find(name)
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, app, "New run from a preset")
        await until(pilot, app, "free")
        keep(app, "runs", size)
        app.show_train(run)
        await until(pilot, app, "identity")
        keep(app, "train", size)
        app.show_chat(run)
        await until(pilot, app, "Type a question")
        await pilot.press(*"Who are you?", "enter")
        for _ in range(600):  # both answers have ended
            if screen_text(app).count("tokens/s") == 2:
                break
            await pilot.pause(0.1)
        keep(app, "chat", size)
        app.show_export(run)
        await until(pilot, app, "Merged")
        keep(app, "export", size)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for size in SIZES:
        asyncio.run(new_run(size))
        for name in sys.argv[1:2]:
            asyncio.run(of_run(name, size))
